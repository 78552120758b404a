/**
 * What makes the own Kafka's start and first transaction quicker. What each part gives:
 *
 * - {@link quickClasses}: half of the CPU of every start; making the archive takes one more start, once for a version
 * - {@link quickCompiler}: half a second of a start and of `post`
 * - {@link firstTransaction}: 0.6 s of a new broker's first `post`
 *
 * @module
 */

import { copyFileSync, mkdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { type Guarded, showWait, type Tools, within } from "./processes.ts";
import type { KafkaProgram } from "./programs.ts";
import { requests } from "./requests.ts";

/** The better of Java's two compilers takes, at first, the time that posting needs; it is ahead after 15 million rows. */
export const quickCompiler = "-XX:TieredStopAtLevel=1";

/** What a new broker makes at its first transaction, asked for beforehand: the topic of transactions and producer ids. */
export const firstTransaction = [requests.findCoordinator, requests.initProducerId];

/** Half of a start is loading some 7,000 classes. Java can keep them in an archive as they are in memory. */
export const quickClasses = ({ archive }: KafkaProgram) =>
  archive && isFilled(archive) ? [`-XX:SharedArchiveFile=${archive}`, "-Xlog:disable"] : [];

const isFilled = (path: string) => (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;

/** How long a failure to make the archive is taken to last, ms: a disk that was full, a cache that was read-only. */
const failureLasts = 24 * 3_600_000;

/**
 * Makes the archive by `start`, in a folder of its own. Should it fail, Kafka goes without, and it is tried again after
 * a day, or at once for another version.
 */
export async function makeArchive(
  { archive, name }: KafkaProgram,
  { services, tools }: { services: string; tools: Tools },
  start: (folder: string, flags: string[]) => Promise<Guarded>,
): Promise<void> {
  if (!archive || isFilled(archive)) return;
  const failure = join(services, "kafka-classes.failed");
  const failed = statSync(failure, { throwIfNoEntry: false });
  if (failed && Date.now() - failed.mtimeMs < failureLasts && readFileSync(failure, "utf8") === archive) return;
  tools.say(`Preparing ${name} for quick starts, once`);
  const folder = join(services, "kafka-classes");
  const unfinished = `${archive}.${process.pid}`;
  const make = async () => {
    rmSync(archive, { force: true }); // an empty one, as earlier versions left it
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
    tools.say(`Cannot prepare ${name} for quick starts: ${reason}; it starts without, and tries again in a day`);
    // In this folder, since the cache may be what cannot be written.
    writeFileSync(failure, archive);
  } finally {
    rmSync(folder, { recursive: true, force: true });
    rmSync(unfinished, { force: true });
  }
}
