/**
 * Silver's key blocks: which block a key belongs to.
 *
 * @module
 */
import type { Table } from "../io.ts";
import { names, paths } from "./files.ts";

/** Consecutive keys in a key block. Keys from `sharedFrom` on share 64 blocks. */
export const blockKeys = 65_536;
export const sharedFrom = 2 ** 28;

/** The silver block of the key in `bytes`; undefined if the key is not a small whole number. */
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

/** Whether a table has any silver yet. */
export const hasSilver = async (lake: string, table: Table): Promise<boolean> =>
  (await names(paths(lake).silver(table))).some((name) => name.endsWith(".parquet"));

/**
 * SQL for the block of an ind. Neighbouring keys share a block, so a batch of consecutive keys touches one or two. Keys
 * from 2^28 on share 64 blocks, so that the number of files has a bound.
 */
export const blockOf = `CASE WHEN ind < ${sharedFrom} THEN ind // ${blockKeys} ELSE ${sharedFrom / blockKeys} + ind // ${blockKeys} % 64 END`;

export const blockName = (block: number): string => String(block).padStart(4, "0");
