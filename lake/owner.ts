/**
 * The identity of a lake (cluster, prefix, database), and the lock of its single writer.
 *
 * @module
 */

import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import type { Table } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { isHeld, takeLock } from "../runtime/lock.ts";
import { programName } from "../runtime/program.ts";
import { explainDisk, paths, writeInPlace } from "./files.ts";

/** The identity of a lake, stored in `lake.json`. */
interface LakeIdentity {
  cluster: string;
  prefix: string;
  /** Null until a post or a connection to MySQL has provided it. */
  database: string | null;
  /** Hash of the cleaning SQL of silver. */
  sql: string;
  /** Kafka's ids of the topics, as far as they are known. A recreated topic has another id. */
  topics?: Partial<Record<Table, string>>;
}

/** Reads `lake.json`; `undefined` if there is none. @throws if it cannot be read */
export async function readIdentity(lake: string): Promise<LakeIdentity | undefined> {
  const path = paths(lake).identity;
  try {
    return JSON.parse(await readFile(path, "utf8")) as LakeIdentity;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new Error(`Cannot read "${path}": ${message}; restore it from a backup`, { cause: error });
  }
}

export const writeIdentity = (lake: string, identity: LakeIdentity): Promise<void> =>
  writeInPlace(lake, paths(lake).identity, `${JSON.stringify(identity, null, 2)}\n`);

/**
 * Refuses a lake that belongs to another cluster, prefix or database. Unknown values are not compared.
 *
 * @throws `UsageError` that says what to do
 */
export function checkIdentity(lake: string, identity: LakeIdentity, wanted: Partial<LakeIdentity>): void {
  const checks = [
    ["cluster", "Kafka cluster", "choose another folder with --data"],
    ["prefix", "topics with prefix", "choose another folder with --data, or the same --prefix as before"],
    ["database", "database", "choose another folder with --data"],
  ] as const;
  for (const [key, what, remedy] of checks) {
    if (identity[key] && wanted[key] && identity[key] !== wanted[key]) {
      throw new UsageError(
        `The lake in "${lake}" belongs to ${what} "${identity[key]}", not to "${wanted[key]}": ${remedy}`,
      );
    }
  }
}

/** The advice for a lake whose topic was deleted or recreated. */
export const startAgain = `start a new lake with another --data, or delete this one ("${programName} reset" if the program runs the services)`;

/** What to say of a topic that was deleted after its messages were landed. */
export const missingTopic = (topic: string, lake: string): string =>
  `Topic "${topic}" does not exist, but the lake in "${lake}" holds its messages; ${startAgain}`;

/**
 * Refuses a topic that was recreated. Unknown ids are not compared.
 *
 * @throws `Error` that says what to do
 */
export function checkTopicId(topic: string, known: string | null | undefined, id: string | null | undefined): void {
  if (!known || !id || known === id) return;
  throw new Error(
    `Topic "${topic}" was recreated: its id is "${id}", but the lake holds messages of the topic with id "${known}"; ${startAgain}`,
  );
}

/** The process that holds a lake's lock. */
export interface Holder {
  pid: number;
  started: string;
}

/**
 * Takes the writer lock of a lake.
 *
 * @throws `Error` that names the process that holds the lock
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
    const { pid = /PID (\d+)/.exec(error.message)?.[1], started } = await readHolder(lake);
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

/** Reads which process took the lake's lock last; nothing if none has, or while that is written. */
export async function readHolder(lake: string): Promise<Partial<Holder>> {
  try {
    return JSON.parse(await readFile(`${paths(lake).lock}.json`, "utf8")) as Partial<Holder>;
  } catch {
    return {};
  }
}
