/**
 * Who a lake belongs to (cluster, prefix, database), and the lock of its one writer.
 *
 * @module
 */

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import type { Table } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { isHeld, takeLock } from "../runtime/lock.ts";
import { programName } from "../runtime/program.ts";
import { explainDisk, paths, writeInPlace } from "./files.ts";

/** What a lake belongs to; kept in `lake.json`. */
interface LakeIdentity {
  cluster: string;
  prefix: string;
  /** Unknown until a post or a connection to MySQL has told. */
  database: string | null;
  /** Hash of the cleaning SQL that silver was made with. */
  sql: string;
  /** Kafka's ids of the topics, once they were seen: a topic that is made again gets another one. */
  topics?: Partial<Record<Table, string>>;
}

/** @throws where `lake.json` is there and cannot be read */
export async function readIdentity(lake: string): Promise<LakeIdentity | undefined> {
  const path = paths(lake).identity;
  try {
    return JSON.parse(await readFile(path, "utf8")) as LakeIdentity;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new Error(`Cannot read "${path}": ${message}; put it back from a backup`, { cause: error });
  }
}

export const writeIdentity = (lake: string, identity: LakeIdentity): Promise<void> =>
  writeInPlace(lake, paths(lake).identity, `${JSON.stringify(identity, null, 2)}\n`);

/**
 * Refuses a lake that belongs to another cluster, prefix or database; what is not known yet is not compared.
 *
 * @throws `UsageError` that says what to do
 */
export function checkIdentity(lake: string, identity: LakeIdentity, wanted: Partial<LakeIdentity>): void {
  const checks = [
    ["cluster", "Kafka cluster", "choose another folder by --data"],
    ["prefix", "topics with prefix", "choose another folder by --data, or the same --prefix as before"],
    ["database", "database", "choose another folder by --data"],
  ] as const;
  for (const [key, what, remedy] of checks) {
    if (identity[key] && wanted[key] && identity[key] !== wanted[key]) {
      throw new UsageError(
        `The lake in "${lake}" belongs to ${what} "${identity[key]}", not to "${wanted[key]}": ${remedy}`,
      );
    }
  }
}

/** What to do where a topic is no longer the one that the lake's messages are from. */
export const startAgain = `start a new lake by another --data, or delete this one (${programName} reset, for the program's own services)`;

/**
 * Refuses a topic that was made again; an id that is not known is not compared.
 *
 * @throws with what to do
 */
export function checkTopicId(topic: string, known: string | null | undefined, id: string | null | undefined): void {
  if (!known || !id || known === id) return;
  throw new Error(
    `Topic "${topic}" was made again: its id is "${id}", but the lake's messages are from the one with id "${known}"; ${startAgain}`,
  );
}

/** Who holds a lock. */
interface Holder {
  pid: number;
  started: string;
}

/**
 * Takes the lake's writer lock, or says who has it.
 *
 * @throws `Error` that names the process that holds it
 */
export async function lockLake(lake: string): Promise<AsyncDisposable> {
  try {
    return await takeOrExplain(lake);
  } catch (error) {
    throw explainDisk(error, lake);
  }
}

async function takeOrExplain(lake: string): Promise<AsyncDisposable> {
  const { lock } = paths(lake);
  await mkdir(lake, { recursive: true });
  const instance = await takeLock(lock).catch(async (error: Error) => {
    if (!isHeld(error)) throw error;
    const text = await readFile(`${lock}.json`, "utf8").catch(() => "{}");
    const { pid = /PID (\d+)/.exec(error.message)?.[1], started } = parseHolder(text);
    throw new Error(
      `Another clean of the lake in "${lake}" is running: process ${pid}${started ? `, since ${started}` : ""}; let it finish, or stop it first`,
    );
  });
  const release = async () => {
    await rm(`${lock}.json`, { force: true });
    instance.closeSync();
  };
  const holder: Holder = { pid: process.pid, started: new Date().toISOString() };
  try {
    await writeFile(`${lock}.json`, JSON.stringify(holder));
  } catch (error) {
    await release();
    throw error;
  }
  return { [Symbol.asyncDispose]: release };
}

/** Nothing of what is being written just now. */
function parseHolder(text: string): Partial<Holder> {
  try {
    return JSON.parse(text) as Partial<Holder>;
  } catch {
    return {};
  }
}
