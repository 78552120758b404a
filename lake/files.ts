/**
 * The files of the lake: paths, and atomic writes.
 *
 * ```
 * bronze/<table>/<partition>-<first offset>-<next offset>-<messages>.tsv   the messages as they came
 * silver/<table>/<block>.parquet                                           cleaned, one row per ind
 * deletes/<table>/<block>.parquet                                          inds whose newest message is a delete, kept for ever
 * rejects/<table>-<number>.parquet                                         what could not be read, and why
 * gold/<name>.parquet, gold/report.html                                    ledger and answers
 * tmp/                                                                     unfinished files
 * ```
 *
 * File names and Parquet metadata are the only state: a bronze file's name says what was landed, a silver block's metadata
 * what was applied to it and to the deletes beside it, and a table's newest rejects file, written last, what is done.
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

/** How Node and DuckDB say that a disk is full. */
export const diskIsFull = /ENOSPC|EDQUOT|no space left on device/i;

/** Says of a disk that is full where it is, and that nothing is lost. */
export function explainDisk(error: unknown, lake: string): Error {
  const { message } = error as Error;
  if (!diskIsFull.test(message)) return error as Error;
  const first = message.split("\n")[0];
  const remedy = "make room there and run the same command again, which goes on where this one was";
  return new Error(`The disk that holds "${lake}" is full (${first}): ${remedy}`, { cause: error });
}

/** The size of a file, bytes. */
export const fileSize = async (path: string): Promise<number> => (await stat(path)).size;
