/**
 * Makes the start and the first transaction of the private Kafka faster. Each part saves:
 *
 * - {@link quickClasses}: half of the CPU of every start; its archive costs one extra start for each version
 * - {@link copyFormatted}: the start of a second Java, 1.2 CPU-seconds, for a new folder
 * - {@link quickCompiler}: half a second of a start and of `post`
 * - {@link firstTransaction}: 0.6 s of a new broker's first `post`
 *
 * @module
 */

import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { type Guarded, showWait, type Tools, within } from "./processes.ts";
import type { KafkaProgram } from "./programs.ts";
import { requests } from "./requests.ts";

/** Java's optimizing compiler competes with posting for CPU at first; it pays off after 15 million rows. */
export const quickCompiler = "-XX:TieredStopAtLevel=1";

/** Requests that make a new broker create the transaction topic and producer ids before the first transaction. */
export const firstTransaction = [requests.findCoordinator, requests.initProducerId];

/** Half of a start is loading some 7,000 classes. Java can map them from a class data archive instead. */
export const quickClasses = ({ archive }: KafkaProgram) =>
  archive && isFilled(archive) ? [`-XX:SharedArchiveFile=${archive}`, "-Xlog:disable"] : [];

const isFilled = (path: string) => (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;

/** Where a formatted data folder is kept: beside the class data archive, because it belongs to this version of Kafka too. */
const formatted = ({ archive }: KafkaProgram) => archive && join(dirname(archive), "formatted");

/** Copies a formatted data folder that an earlier start has kept, with other ids. @returns whether there was one */
export function copyFormatted(program: KafkaProgram, to: string, ids: { cluster: string; directory: string }): boolean {
  const from = formatted(program);
  if (!from || !formattedFiles.every((name) => isFilled(join(from, name)))) return false;
  mkdirSync(to);
  for (const name of formattedFiles) copyFileSync(join(from, name), join(to, name));
  const meta = join(to, "meta.properties");
  const lines = readFileSync(meta, "utf8").replace(/^cluster\.id=.*/m, `cluster.id=${ids.cluster}`);
  writeFileSync(meta, lines.replace(/^directory\.id=.*/m, `directory.id=${ids.directory}`));
  return true;
}

/** Keeps a copy of a data folder that Kafka has just formatted; not if the cache is read-only or full. */
export function keepFormatted(program: KafkaProgram, folder: string): void {
  const to = formatted(program);
  if (!to) return;
  const unfinished = `${to}.${process.pid}`;
  try {
    mkdirSync(unfinished);
    for (const name of formattedFiles) {
      const content = readFileSync(join(folder, name));
      writeFileSync(join(unfinished, name), content, { flush: true });
    }
    rmSync(to, { recursive: true, force: true });
    renameSync(unfinished, to);
  } catch {
    rmSync(unfinished, { recursive: true, force: true }); // the next start formats again
  }
}

const formattedFiles = ["bootstrap.checkpoint", "meta.properties"];

/** Time until a failed archive is tried again, ms: the disk may have been full or the cache read-only. */
const retryAfter = 24 * 3_600_000;

/**
 * Creates the archive with a `start` in a separate folder. If that fails, Kafka runs without it, and it is tried again
 * after a day or with another version.
 */
export async function makeArchive(
  { archive, name }: KafkaProgram,
  { services, tools }: { services: string; tools: Tools },
  start: (folder: string, flags: string[]) => Promise<Guarded>,
): Promise<void> {
  if (!archive || isFilled(archive)) return;
  const failure = join(services, "kafka-classes.failed");
  const failed = statSync(failure, { throwIfNoEntry: false });
  if (failed && Date.now() - failed.mtimeMs < retryAfter && readFileSync(failure, "utf8") === archive) return;
  tools.say(`Preparing ${name} for quick starts, once`);
  const folder = join(services, "kafka-classes");
  const unfinished = `${archive}.${process.pid}`;
  const make = async () => {
    rmSync(archive, { force: true }); // earlier versions left empty ones
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder);
    const service = await start(folder, [`-XX:ArchiveClassesAtExit=${join(folder, "archive")}`, "-Xlog:disable"]);
    service.child.kill("SIGTERM");
    if (!(await within(60_000, service.ended))) await service.stop();
    tools.signal.throwIfAborted();
    if (!isFilled(join(folder, "archive"))) throw new Error("Java wrote no archive of its classes");
    copyFileSync(join(folder, "archive"), unfinished);
    renameSync(unfinished, archive);
    rmSync(failure, { force: true });
  };
  try {
    await showWait(make(), `Preparing ${name}`, tools);
  } catch (error) {
    if (tools.signal.aborted) throw error;
    const [reason] = (error as Error).message.split("\n");
    tools.say(
      `Cannot prepare ${name} for quick starts: ${reason}; it starts more slowly, and the next try is in a day`,
    );
    // Not in the cache, which may be read-only.
    writeFileSync(failure, archive);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(unfinished, { force: true });
  }
}
