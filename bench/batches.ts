/**
 * Reads the batches of a `clean` from its trace file (`struck(trace)`): when each ran, and its messages.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { type Table, tableNames } from "../io.ts";

/** A batch of one table: its start and end, ms since 1970, and the number of silver blocks that it wrote. */
export interface Batch {
  table: Table;
  begin: number;
  end: number;
  blocks: number;
  /** The end offset of each partition. */
  next: Map<number, number>;
}

/** The finished batches, in order of their end. */
export function batchesOf(trace: string): Batch[] {
  const batches: Batch[] = [];
  const landed = new Map<Table, Map<number, number>>(tableNames.map((table) => [table, new Map()]));
  const open = new Map<Table, Batch>();
  for (const line of readFileSync(trace, { encoding: "utf8", flag: "a+" }).trimEnd().split("\n")) {
    const [, time, name, subject = ""] = line.split("\t");
    const [, room, table] = /\/(bronze|silver|rejects)\/(\w+?)[/-]/.exec(subject) ?? [];
    const of = (name === "cleaning" ? subject : table) as Table;
    const batch = open.get(of);
    if (name === "cleaning") {
      open.set(of, { table: of, begin: Number(time), end: 0, blocks: 0, next: new Map(landed.get(of)) });
    } else if (name !== "renamed") continue;
    else if (room === "bronze") {
      const [, partition, next] = /\/(\d+)-\d+-(\d+)-\d+\.tsv$/.exec(subject) ?? [];
      landed.get(of)?.set(Number(partition), Number(next));
    } else if (room === "silver" && batch) batch.blocks++;
    else if (room === "rejects" && batch) batches.push({ ...batch, end: Number(time) });
  }
  return batches;
}

/** When a message reached silver, ms since 1970; undefined if it has not. */
export const silverAt = (batches: Batch[], message: { table: Table; partition: number; offset: number }) =>
  batches.find(({ table, next }) => table === message.table && (next.get(message.partition) ?? 0) > message.offset)
    ?.end;

/** How long at least one batch was running between two times, ms. */
export function busy(batches: Batch[], from: number, to: number): number {
  let [time, until] = [0, from];
  for (const { begin, end } of [...batches].sort((a, b) => a.begin - b.begin)) {
    time += Math.max(0, Math.min(end, to) - Math.max(begin, until));
    until = Math.max(until, Math.min(end, to));
  }
  return time;
}
