/**
 * The files of the lake: paths, and atomic writes.
 *
 * ```
 * bronze/<table>/<partition>-<first offset>-<next offset>-<messages>.tsv   unchanged messages
 * silver/<table>/<block>.parquet                                           clean rows, one per ind
 * deletes/<table>/<block>.parquet                                          inds whose newest message is a delete
 * rejects/<table>-<number>.parquet                                         messages that break a rule, with reasons
 * gold/<name>.parquet, gold/report.html                                    ledger and answers
 * tmp/                                                                     unfinished files
 * ```
 *
 * File names and Parquet metadata are the only state. The name of a bronze file says which offsets were landed. The
 * metadata of a silver block says which offsets were applied to it and to its deletes. The newest rejects file of a table
 * is written last and says which offsets are done.
 *
 * @module
 */

import { mkdir, open, readdir, rename, stat, writeFile } from "node:fs/promises";
import { basename, dirname, extname, join } from "node:path";
import type { Table } from "../io.ts";
import { step } from "../runtime/steps.ts";

/** Next offset to read, by partition. */
export type Offsets = Map<number, number>;

/** Paths below the lake's folder. */
export const paths = (lake: string) => ({
  bronze: (table: Table) => join(lake, "bronze", table),
  silver: (table: Table) => join(lake, "silver", table),
  deletes: (table: Table) => join(lake, "deletes", table),
  rejects: join(lake, "rejects"),
  gold: join(lake, "gold"),
  tmp: join(lake, "tmp"),
  identity: join(lake, "lake.json"),
  lock: join(lake, ".lock"),
});

/** The names in a folder; none if the folder does not exist. */
export const names = (folder: string): Promise<string[]> =>
  readdir(folder).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return [];
    throw error;
  });

let temporaries = 0;

/** A new path in the lake's tmp folder, of `what`, the process id and a number. */
export const temporaryPath = (lake: string, what: string, extension = ""): string =>
  join(paths(lake).tmp, `${what}-${process.pid}-${++temporaries}${extension}`);

/** Renames a finished file into place, atomically, after its bytes have reached the disk. */
export async function putInPlace(temporary: string, path: string): Promise<void> {
  await syncPath(temporary);
  step("written", path);
  await rename(temporary, path);
  step("renamed", path);
  await syncPath(dirname(path));
}

/** Writes a text file atomically. */
export async function writeInPlace(lake: string, path: string, text: string): Promise<void> {
  await mkdir(paths(lake).tmp, { recursive: true });
  const temporary = temporaryPath(lake, basename(path, extname(path)));
  await writeFile(temporary, text);
  await putInPlace(temporary, path);
}

/** Flushes the bytes of a file, or the names of a folder, to the disk. */
export async function syncPath(path: string): Promise<void> {
  const handle = await open(path, "r");
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}

/** Errors of Node and DuckDB about a full disk. */
export const diskIsFull = /ENOSPC|EDQUOT|no space left on device/i;

/** Errors of DuckDB about a Parquet file that was cut or overwritten. */
export const isDamaged =
  /No magic bytes found|too small to be a Parquet file|Failed to read file ".*\.parquet"|don't know what type|TProtocolException|ZSTD Decompression/;

/** Explains the error of a full disk or of a damaged file; returns other errors unchanged. */
export function explainDisk(error: unknown, lake: string): Error {
  const { message } = error as Error;
  const first = message.split(/\p{Cc}/u)[0]; // without the SQL below it
  if (isDamaged.test(message) && !message.startsWith("A file of the lake")) {
    const remedy = /gold.\w+\.parquet/.test(message)
      ? "run clean, which writes the ledger again"
      : "run clean --rebuild, which rebuilds silver, deletes and rejects from bronze";
    return new Error(`A file of the lake is damaged: ${first}; ${remedy}`, { cause: error });
  }
  if (!diskIsFull.test(message)) return error as Error;
  const remedy = "make room there, then run the same command again, which continues where this one stopped";
  return new Error(`The disk that holds "${lake}" is full (${first}): ${remedy}`, { cause: error });
}

/** The size of a file, bytes. */
export const fileSize = async (path: string): Promise<number> => (await stat(path)).size;
