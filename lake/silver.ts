/**
 * Silver's key blocks: which block a key belongs to.
 *
 * @module
 */
import type { Table } from "../io.ts";
import { names, paths } from "./files.ts";

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

/** Whether a table has any silver yet. */
export const hasSilver = async (lake: string, table: Table): Promise<boolean> =>
  (await names(paths(lake).silver(table))).some((name) => name.endsWith(".parquet"));

/**
 * The block of a key: neighbours stand together, so that a batch of consecutive keys touches one or two. Keys of
 * 2^28 and more share 64 blocks, so that no set of keys makes files without bound.
 */
export const blockOf = `CASE WHEN ind < ${sharedFrom} THEN ind // ${blockKeys} ELSE ${sharedFrom / blockKeys} + ind // ${blockKeys} % 64 END`;

export const blockName = (block: number): string => String(block).padStart(4, "0");
