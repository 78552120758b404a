/**
 * Reads the rows of one transaction into the encoder, page by page.
 *
 * @module
 */

import { readPage, type SourceTable } from "../db_conn.ts";
import type { RowEncoder } from "../io/row_encoder.ts";
import type { TableReader } from "./table_reader.ts";

/** Records in one transaction, about. With fewer, commits take more of the time; with more, a failed one costs more. */
export const transactionRows = 10_000;
/** The most rows in a page. Wide rows are read in smaller pages, so that a page stays near `pageBytes`. */
const pageRows = 5_000;
const pageBytes = 4_000_000;
const transactionBytes = 2 * pageBytes;
/** A page is cut off at this size, because the width of its rows is not known beforehand. */
const maxPageBytes = 16_000_000;

/** How rows are read, and where they are encoded. */
interface ReadOptions {
  /** Whether to wait for the transactions that have written the rows. */
  lock: boolean;
  encoder: RowEncoder;
}

/** Reads pages over a connection. A page that is cut off closes it, and so ends its snapshot. */
export function openPages(reader: TableReader, source: SourceTable) {
  let size = pageRows;

  /**
   * Reads the rows of keys until the transaction is full. A key without a row becomes a delete.
   *
   * @returns how many keys are done, and whether the last page was cut off
   */
  const readKeys = async (keys: string[], { lock, encoder }: ReadOptions) => {
    let done = 0;
    let cut = false;
    while (!cut && done < keys.length && roomIn(encoder) > 0) {
      const chunk = keys.slice(done, done + Math.min(size, roomIn(encoder)));
      let next = 0;
      const removeBelow = (key: string | undefined) => {
        for (; next < chunk.length && chunk[next] !== key; next++) encoder.remove(chunk[next] as string);
      };
      const page = { keys: chunk, maxBytes: maxPageBytes, lock };
      ({ cut } = await readPage(reader.db, source, page, (bytes, start) => {
        encoder.add(bytes, start);
        const { lastKey } = encoder;
        removeBelow(lastKey);
        next++;
      }));
      if (!cut) removeBelow(undefined);
      done += next;
      size = nextPageSize(size, encoder);
    }
    return { done, cut };
  };

  /** Reads the rows above a key until the transaction is full. */
  const readAbove = async (after: string | null, upTo: string | null, { lock, encoder }: ReadOptions) => {
    let lastKey = after;
    let exhausted = upTo === null;
    let cut = false;
    while (!exhausted && !cut && roomIn(encoder) > 0) {
      const limit = Math.min(size, roomIn(encoder));
      const page = { after: lastKey ?? undefined, upTo: upTo as string, limit, maxBytes: maxPageBytes, lock };
      const read = await readPage(reader.db, source, page, encoder.add);
      cut = read.cut;
      if (read.rows > 0) lastKey = encoder.lastKey;
      exhausted = !cut && read.rows < limit;
      size = nextPageSize(size, encoder);
    }
    return { lastKey, exhausted, cut };
  };

  return { readKeys, readAbove };
}

/** Result of {@link openPages}. */
export type Pages = ReturnType<typeof openPages>;

/** The number of records that the transaction has room for. */
export const roomIn = ({ rows, bytes }: RowEncoder): number => (bytes < transactionBytes ? transactionRows - rows : 0);

/** The number of rows that have about `pageBytes`, by the average of the transaction so far. */
const nextPageSize = (size: number, { rows, deleted, bytes }: RowEncoder): number =>
  rows === deleted
    ? size
    : Math.max(1, Math.min(pageRows, size * 10, Math.floor((pageBytes * (rows - deleted)) / bytes)));
