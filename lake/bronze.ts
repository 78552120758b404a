/**
 * Bronze files: their names, which are the landing checkpoint, and their lines.
 *
 * @module
 */

import { open } from "node:fs/promises";
import { join } from "node:path";
import { sum } from "../io/text.ts";
import type { Table } from "../io.ts";
import { names, type Offsets, paths } from "./files.ts";
import { blockOfKey } from "./silver.ts";

/** A file of unchanged messages of one partition. */
export interface BronzeFile {
  path: string;
  partition: number;
  /** First offset covered, and the one after the last. */
  first: number;
  next: number;
  messages: number;
}

/** The number of messages in some files. */
export const messagesIn = (files: BronzeFile[]): number => sum(files, (file) => file.messages);

/** The approximate size of a batch of one table, bytes. A batch is held in memory while it is cleaned. */
export const batchBytes = 192_000_000;
/** A larger message gets a separate bronze file, so that lines in other files have a bound, bytes. */
export const largeMessage = 4_000_000;
/** What a file counts in a batch: a large message more than its bytes, because DuckDB holds several copies of it. */
export const weightOf = (bytes: number, messages: number): number =>
  messages === 1 && bytes > largeMessage ? 4 * bytes : bytes;

/** The columns of a bronze line and their DuckDB types, as `bronzeLines` writes them. */
export const bronzeColumns = {
  _partition: "INT",
  _offset: "BIGINT",
  posted_ms: "BIGINT",
  key_is: "VARCHAR",
  key: "VARCHAR",
  value_is: "VARCHAR",
  value: "VARCHAR",
};

const digits = (n: number): string => String(n).padStart(20, "0");

/** The name of a bronze file: partition, first offset, next offset and number of messages. */
export const bronzeName = ({ partition, first, next, messages }: Omit<BronzeFile, "path">): string =>
  `${partition}-${digits(first)}-${digits(next)}-${messages}.tsv`;

/**
 * The bronze files of a table, by partition and offset. `covered` are leftovers of an interrupted compaction: files
 * whose offsets are in a larger file.
 *
 * @throws if a file is missing between two others
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
          `Messages are missing from the lake: offsets ${before.next} to ${file.first - 1}, between "${before.path}" and "${file.path}"; restore the file, or start a new lake with another --data`,
        );
      }
    }
    kept.push(file);
  }
  return { files: kept, covered };
}

/** The later of both offsets for each partition. */
export function laterOffsets(one: Offsets, other: Iterable<[partition: number, next: number]>): Offsets {
  const later = new Map(one);
  for (const [partition, next] of other) later.set(partition, Math.max(next, later.get(partition) ?? 0));
  return later;
}

/** Where landing resumes: the offset after the last landed one, by partition. */
export const landedOffsets = (files: BronzeFile[]): Offsets =>
  laterOffsets(
    new Map(),
    files.map(({ partition, next }) => [partition, next]),
  );

/** The last line of a bronze file, line feed included. */
export async function lastLine(path: string): Promise<Buffer> {
  const handle = await open(path, "r");
  try {
    const { size } = await handle.stat();
    for (let want = 65_536; ; want *= 4) {
      const length = Math.min(want, size);
      const { buffer } = await handle.read({ buffer: Buffer.alloc(length), position: size - length });
      const from = buffer.lastIndexOf(10, length - 2);
      if (from >= 0 || length === size) return buffer.subarray(from + 1);
    }
  } finally {
    await handle.close();
  }
}

/** The silver block of a bronze file, if its first and last key are in the same one. */
export async function blockOfFile({ path, messages }: BronzeFile): Promise<number | undefined> {
  const blockOfLine = (line: Buffer) => {
    let start = 0;
    for (let tabs = 0; tabs < 4; tabs++) start = line.indexOf(9, start) + 1;
    const isText = line[start - 2] === 0x74; // t
    return isText ? blockOfKey(line, start, line.indexOf(9, start)) : undefined;
  };
  const handle = await open(path, "r");
  const { buffer } = await handle.read({ buffer: Buffer.alloc(200) });
  await handle.close();
  const first = blockOfLine(buffer);
  return messages === 1 || first === undefined || blockOfLine(await lastLine(path)) === first ? first : undefined;
}
