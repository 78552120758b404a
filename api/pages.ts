/**
 * Reads the rows of one transaction into the encoder, page by page.
 *
 * @module
 */

import { readPage, type SourceTable } from "../db_conn.ts";
import type { RowEncoder } from "../io/row_encoder.ts";
import type { TableReader } from "./table_reader.ts";

/** Records in one transaction, about: fewer make commits count, more make a failed one costly. */
export const transactionRows = 10_000;
/** Rows of a page at most; wide rows are read in smaller pages, so that one stays near `pageBytes`. */
const pageRows = 5_000;
const pageBytes = 4_000_000;
const transactionBytes = 2 * pageBytes;
/** A page is cut off at this size, since nobody knows beforehand how wide its rows are. */
const maxPageBytes = 16_000_000;

/** How rows are read, and where they go. */
interface ReadOptions {
  /** Whether to wait for the transactions that have written them. */
  lock: boolean;
  encoder: RowEncoder;
}

/** Opens pages over a connection; a page that is cut off closes it, with the snapshot that it had. */
export function openPages(reader: TableReader, source: SourceTable) {
  let size = pageRows;

  /** Reads the rows of keys, deletes where there is none, until the transaction is full; tells how many keys are done. */
  const readKeys = async (keys: string[], { lock, encoder }: ReadOptions) => {
    let done = 0;
    let cut = false;
    while (!cut && done < keys.length && roomIn(encoder) > 0) {
      const some = keys.slice(done, done + Math.min(size, roomIn(encoder)));
      let next = 0;
      const removeBelow = (key: string | undefined) => {
        for (; next < some.length && some[next] !== key; next++) encoder.remove(some[next] as string);
      };
      const page = { keys: some, maxBytes: maxPageBytes, lock };
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

/** Reads pages; what {@link openPages} gives. */
export type Pages = ReturnType<typeof openPages>;

/** How many records a transaction still takes. */
export const roomIn = ({ rows, bytes }: RowEncoder): number => (bytes < transactionBytes ? transactionRows - rows : 0);

/** As many rows as have about `pageBytes`, by those of the transaction so far. */
const nextPageSize = (size: number, { rows, deleted, bytes }: RowEncoder): number =>
  rows === deleted
    ? size
    : Math.max(1, Math.min(pageRows, size * 10, Math.floor((pageBytes * (rows - deleted)) / bytes)));
