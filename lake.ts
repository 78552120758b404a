/**
 * The lake on disk: where its files stand, what their names and metadata say, who may write, and the ledger.
 *
 * ```
 * bronze/<table>/<partition>-<first offset>-<next offset>-<messages>.tsv   as the messages came
 * silver/<table>/<block>.parquet                                           cleaned, one row per ind
 * rejects/<table>-<number>.parquet                                         what could not be read, and why
 * gold/<name>.parquet, gold/report.html                                    ledger and answers
 * tmp/                                                                     what is not yet finished
 * ```
 *
 * Names and metadata are the only memory: a bronze file's name says what was landed, a silver block's metadata what
 * was applied to it, and the newest rejects file of a table, written last, what is done.
 *
 * @module
 */

import { mkdir, open, readdir, readFile, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import type { Table } from "./io.ts";
import { UsageError } from "./runtime/errors.ts";
import { step } from "./runtime/steps.ts";

/** Next offset to read, by partition. */
export type Offsets = Map<number, number>;

/** A file of messages as they came from one partition. */
export interface BronzeFile {
  path: string;
  partition: number;
  /** First offset covered, and the one after the last. */
  first: number;
  next: number;
  messages: number;
}

/** So many neighbouring keys are a block of silver; those from `sharedFrom` on share 64 blocks. */
export const blockKeys = 65_536;
export const sharedFrom = 2 ** 28;

/** The block of silver that a message belongs to whose key stands in `bytes`, as far as the key tells. */
export function blockOfKey(bytes: Buffer, start: number, end: number): number | undefined {
  if (end <= start || end - start > 9) return undefined;
  let key = 0;
  for (let i = start; i < end; i++) {
    const digit = (bytes[i] as number) - 0x30;
    if (digit < 0 || digit > 9) return undefined;
    key = key * 10 + digit;
  }
  return key < sharedFrom ? Math.floor(key / blockKeys) : undefined;
}

/** Bytes of messages in one batch of one table, about: it is held in memory while it is cleaned. */
export const batchBytes = 192_000_000;
/** A message that is larger gets a bronze file of its own, so that lines elsewhere have a bound, bytes. */
export const largeMessage = 4_000_000;

/** The columns of a bronze line, with DuckDB's types, as `bronzeLines` writes them. */
export const bronzeColumns = {
  _partition: "INT",
  _offset: "BIGINT",
  posted_ms: "BIGINT",
  key_is: "VARCHAR",
  key: "VARCHAR",
  value_is: "VARCHAR",
  value: "VARCHAR",
};

/** Paths below the lake's folder. */
export const paths = (lake: string) => ({
  bronze: (table: Table) => join(lake, "bronze", table),
  silver: (table: Table) => join(lake, "silver", table),
  rejects: join(lake, "rejects"),
  gold: join(lake, "gold"),
  tmp: join(lake, "tmp"),
  binding: join(lake, "lake.json"),
  lock: join(lake, ".lock"),
});

const digits = (n: number): string => String(n).padStart(20, "0");

/** The name that says what a bronze file holds. */
export const bronzeName = ({ partition, first, next, messages }: Omit<BronzeFile, "path">): string =>
  `${partition}-${digits(first)}-${digits(next)}-${messages}.tsv`;

/**
 * The bronze files of a table, by partition and offset. A file whose range another covers is left over from a merge
 * that was broken off, and counts no more.
 *
 * @throws where a file is missing between two others
 */
export async function listBronze(lake: string, table: Table): Promise<{ files: BronzeFile[]; covered: string[] }> {
  const folder = paths(lake).bronze(table);
  const files: BronzeFile[] = [];
  for (const name of await names(folder)) {
    const match = /^(\d+)-(\d{20})-(\d{20})-(\d+)\.tsv$/.exec(name);
    if (!match) continue;
    const [partition, first, next, messages] = match.slice(1).map(Number) as [number, number, number, number];
    files.push({ path: join(folder, name), partition, first, next, messages });
  }
  files.sort((a, b) => a.partition - b.partition || a.first - b.first || b.next - a.next);
  const kept: BronzeFile[] = [];
  const covered: string[] = [];
  for (const file of files) {
    const before = kept.at(-1);
    if (before?.partition === file.partition) {
      if (file.next <= before.next) {
        covered.push(file.path);
        continue;
      }
      if (file.first !== before.next) {
        throw new Error(
          `The lake lacks messages: between "${before.path}" and "${file.path}" offsets ${before.next} to ${file.first - 1} are missing; put the file back, or start a new lake by --data`,
        );
      }
    }
    kept.push(file);
  }
  return { files: kept, covered };
}

/** By partition the later of both offsets: what was reached once is never given up. */
export function laterOffsets(one: Offsets, other: Iterable<[partition: number, next: number]>): Offsets {
  const later = new Map(one);
  for (const [partition, next] of other) later.set(partition, Math.max(next, later.get(partition) ?? 0));
  return later;
}

/** Where landing goes on: the offset after the last one landed, by partition. */
export const landedOffsets = (files: BronzeFile[]): Offsets =>
  laterOffsets(
    new Map(),
    files.map(({ partition, next }) => [partition, next]),
  );

/** The names in a folder; none where there is no folder. */
export const names = (folder: string): Promise<string[]> =>
  readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });

let temporaries = 0;

/** A path in the lake's tmp folder that no file had before: `what`, this process and a number. */
export const temporaryPath = (lake: string, what: string, extension = ""): string =>
  join(paths(lake).tmp, `${what}-${process.pid}-${++temporaries}${extension}`);

/** Moves a finished file to its place: its bytes first reach the disk, then its name appears in one step. */
export async function putInPlace(temporary: string, path: string): Promise<void> {
  await syncPath(temporary);
  step("written", path);
  await rename(temporary, path);
  step("renamed", path);
  await syncPath(dirname(path));
}

/** Writes a text file, in one step for readers. */
export async function writeInPlace(lake: string, path: string, text: string): Promise<void> {
  await mkdir(paths(lake).tmp, { recursive: true });
  const temporary = temporaryPath(lake, basename(path, extname(path)));
  await writeFile(temporary, text);
  await putInPlace(temporary, path);
}

/** Makes a file's bytes, or a folder's names, survive a loss of power. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Says of a disk that is full where it is, and that nothing is lost. */
export function explainDisk(error: unknown, lake: string): Error {
  const { message } = error as Error;
  if (!/ENOSPC|EDQUOT|no space left on device/i.test(message)) return error as Error;
  const first = message.split("\n")[0];
  const remedy = "make room there and run the same command again, which goes on where this one was";
  return new Error(`The disk that holds "${lake}" is full (${first}): ${remedy}`, { cause: error });
}

/** What a lake belongs to; kept in `lake.json`. */
export interface Binding {
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
export async function readBinding(lake: string): Promise<Binding | undefined> {
  const { binding } = paths(lake);
  try {
    return JSON.parse(await readFile(binding, "utf8")) as Binding;
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return undefined;
    throw new Error(`Cannot read "${binding}": ${message}; put it back from a backup`, { cause: error });
  }
}

export const writeBinding = (lake: string, binding: Binding): Promise<void> =>
  writeInPlace(lake, paths(lake).binding, `${JSON.stringify(binding, null, 2)}\n`);

/**
 * Refuses a lake that belongs to another cluster, prefix or database; what is not known yet is not compared.
 *
 * @throws `UsageError` that says what to do
 */
export function checkBinding(lake: string, bound: Binding, wanted: Partial<Binding>): void {
  const checks = [
    ["cluster", "Kafka cluster", "choose another folder by --data"],
    ["prefix", "topics with prefix", "choose another folder by --data, or the same --prefix as before"],
    ["database", "database", "choose another folder by --data"],
  ] as const;
  for (const [key, what, remedy] of checks) {
    if (bound[key] && wanted[key] && bound[key] !== wanted[key]) {
      throw new UsageError(
        `The lake in "${lake}" belongs to ${what} "${bound[key]}", not to "${wanted[key]}": ${remedy}`,
      );
    }
  }
}

/** What to do where a topic is no longer the one that the lake's messages are from. */
export const startAgain =
  "start a new lake by another --data, or delete this one (tsx main.ts reset, for the program's own services)";

/**
 * Refuses a topic that was made again; an id that is not known is not compared.
 *
 * @throws with what to do
 */
export function checkTopicId(topic: string, bound: string | null | undefined, id: string | null | undefined): void {
  if (!bound || !id || bound === id) return;
  throw new Error(
    `Topic "${topic}" was made again: its id is "${id}", but the lake's messages are from the one with id "${bound}"; ${startAgain}`,
  );
}

/** Whether a table has any silver yet. */
export const hasSilver = async (lake: string, table: Table): Promise<boolean> =>
  (await names(paths(lake).silver(table))).some((name) => name.endsWith(".parquet"));

/** The size of a file, bytes. */
export const fileSize = async (path: string): Promise<number> => (await stat(path)).size;
