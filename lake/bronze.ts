/**
 * Bronze: the names of its files, which are the landing checkpoint, and the lines in them.
 *
 * @module
 */

import { open } from "node:fs/promises";
import { join } from "node:path";
import { sum } from "../io/text.ts";
import type { Table } from "../io.ts";
import { names, type Offsets, paths } from "./files.ts";
import { blockOfKey } from "./silver.ts";

/** A file of messages as they came from one partition. */
export interface BronzeFile {
  path: string;
  partition: number;
  /** First offset covered, and the one after the last. */
  first: number;
  next: number;
  messages: number;
}

/** Messages in some files. */
export const messagesIn = (files: BronzeFile[]): number => sum(files, (file) => file.messages);

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

/** The block of silver that the keys of a bronze file are of, judging by its first and last one; else undefined. */
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
