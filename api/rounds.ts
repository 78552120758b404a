/**
 * Reads what one transaction posts, a round:
 *
 * > From one snapshot of the database with a place in the binary log: the rows up to the last key that changed in the
 * > log between the previous place and this one (a missing row is a delete), then the next rows above the last key.
 *
 * So after every transaction the topic has, for the keys up to the last one, the state of the table at that place. The
 * first load, catching up and following work the same way.
 *
 * @module
 */

import { isDeepStrictEqual } from "node:util";
import { checkPlace, datePlace, logTable as logTableOf, mostChanges, readChanges } from "../db_conn/log.ts";
import type { LogTable } from "../db_conn/log_rows.ts";
import { ask, type Database } from "../db_conn/query.ts";
import { logEnd, openSnapshot, type Snapshot } from "../db_conn/snapshot.ts";
import { inspectTable, type MysqlSettings, type SourceTable } from "../db_conn.ts";
import { comparePlaces, type LogPlace } from "../io/log_place.ts";
import type { RecordBatch } from "../io/record_batch.ts";
import type { RowEncoder } from "../io/row_encoder.ts";
import type { Progress } from "../kafka/checkpoint.ts";
import { openPages, type Pages, roomIn } from "./pages.ts";
import type { TableReader } from "./table_reader.ts";

/** How long one snapshot is used, ms: the database keeps old versions of rows for it. */
const longestSnapshot = 60_000;

/** The table was altered after it was inspected. */
export class TableChanged extends Error {}

/** What one transaction posts. */
export interface Batch {
  records: RecordBatch[];
  /** The number of records, and of deletes among them. */
  rows: number;
  deleted: number;
  /** How far the table is posted after them. */
  after: Progress;
  /** There was nothing more to post. */
  exhausted: boolean;
}

/** Options of {@link openRounds}. */
interface RoundsOptions {
  reader: TableReader;
  mysql: MysqlSettings;
  source: SourceTable;
  /** The table's key as the log has it; `undefined` if the log is not followed. */
  logTable: LogTable | undefined;
  signal: AbortSignal;
}

/** Reads rounds. */
export interface Rounds {
  /** Reads what comes after `from` into the encoder; new rows only up to the key `upTo`. */
  read(from: Progress, options: { upTo: string | null; encoder: RowEncoder }): Promise<Batch>;
  /** Whether the log has anything after a place. */
  moved(place: LogPlace): Promise<boolean>;
}

/** Reads rounds over a connection, in snapshots. */
export function openRounds(options: RoundsOptions): Rounds {
  const { reader, source, logTable } = options;
  const pages = openPages(reader, source);
  const moved = async (place: LogPlace) => {
    const [file, position] = await logEnd(reader.db);
    return file !== place.file || position !== place.position;
  };
  const readWithout: ReadRound = async (from, { upTo, encoder }) => {
    const { lastKey, exhausted, cut } = await pages.readAbove(from.lastKey, upTo, { lock: false, encoder });
    if (cut) await reader.reconnect();
    // Without the log, changes up to here are unknown.
    return { after: { lastKey, rows: from.rows + encoder.rows, log: null, piece: null }, exhausted };
  };
  const readRound = logTable ? readerWithLog({ ...options, logTable, pages, moved }) : readWithout;
  return {
    moved,
    async read(from, options) {
      const { encoder } = options;
      for (;;) {
        encoder.take(); // discards the rows of a failed page
        const read = await readRound(from, options);
        if (!read) continue;
        const { rows, deleted } = encoder;
        return { ...read, rows, deleted, records: encoder.take() };
      }
    },
  };
}

/** Reads a round into the encoder. Returns `undefined` if it must be read again. */
type ReadRound = (
  from: Progress,
  options: { upTo: string | null; encoder: RowEncoder },
) => Promise<Pick<Batch, "after" | "exhausted"> | undefined>;

/** Reads rounds by the log. */
function readerWithLog({
  reader,
  mysql,
  source,
  logTable,
  signal,
  pages,
  moved,
}: RoundsOptions & { logTable: LogTable; pages: Pages; moved: Rounds["moved"] }): ReadRound {
  const changesSince = changesReader(mysql, logTable, signal);
  const snapshots = keptSnapshots(reader, mysql);
  let checked = false;

  /** Checks for an ALTER TABLE before the first place, which will not be read from the log. */
  const checkTable = async () => {
    const now = await inspectTable(reader.db, mysql.database, source.table);
    const key = await logTableOf(reader.db, mysql.database, source.table);
    if (isDeepStrictEqual([now.columns, now.key, key], [source.columns, source.key, logTable])) return;
    throw new TableChanged(`"${logTable.table}" was altered while it was inspected`);
  };

  return async (from, { upTo, encoder }) => {
    if (from.log && !checked) await checkPlace(mysql, logTable, from.log);
    checked = true;
    const { place: end, mustLock } = await snapshots.open(from);
    const options = { lock: mustLock, encoder };
    const after: Progress = { ...from, piece: null };
    let whole = true;
    let cut = false;
    if (!from.log) {
      await checkTable();
      after.log = await datePlace(mysql, logTable, end);
    } else if (from.piece || comparePlaces(from.log, end) !== 0) {
      const found = await changesSince({ ...from, log: from.log }, end);
      const begun = from.piece ? BigInt(from.piece.done) : undefined;
      const keys = found.keys.filter((key) => begun === undefined || key > begun).map(String);
      const read = await pages.readKeys(keys, options);
      whole = read.done === keys.length;
      cut = read.cut;
      if (whole) [after.log, after.rows] = [found.place, from.rows + found.more];
      else after.piece = { to: found.to, done: keys[read.done - 1] as string };
      // Otherwise the rest of the log would count rows above the last key again.
      whole &&= comparePlaces(found.place, end) === 0;
    }
    const changed = encoder.rows;
    let exhausted = false;
    if (whole && roomIn(encoder) > 0) {
      const read = await pages.readAbove(from.lastKey, upTo, options);
      ({ exhausted, cut } = read);
      [after.lastKey, after.rows] = [read.lastKey, after.rows + encoder.rows - changed];
    }
    // The next snapshot ends this one too, but that may take long if nothing is left to post.
    if (cut) await reader.reconnect();
    else if (mustLock || exhausted) await snapshots.end();
    // A locked read also returns what was written meanwhile, which the log would return again.
    return mustLock && (await moved(end)) ? undefined : { after, exhausted };
  };
}

/** The changed keys up to the last key posted, in order. */
interface LogChanges {
  from: LogPlace;
  to: LogPlace;
  keys: bigint[];
  /** The change of the number of rows up to the last key. */
  more: number;
  /** The place up to which the log was read. */
  place: LogPlace;
}

/**
 * Begins a snapshot for each round, but keeps the last one while changes before its place are not posted yet: a newer
 * snapshot may have newer rows, which the log would return again.
 */
function keptSnapshots(reader: TableReader, mysql: MysqlSettings) {
  let last: (Snapshot & { db: Database; since: number }) | undefined;
  return {
    async open({ log, piece }: Progress): Promise<Snapshot> {
      const isUsable = last?.db === reader.db && Date.now() - last.since < longestSnapshot;
      if (last && isUsable && log && (piece || comparePlaces(log, last.place) < 0)) return last;
      const { db } = reader;
      last = undefined;
      last = { ...(await openSnapshot(db, mysql)), db, since: Date.now() };
      return last;
    },
    async end(): Promise<void> {
      last = undefined;
      await ask(reader.db, "COMMIT");
    },
  };
}

/** Reads the changes after a place. For a piece that is begun, returns the same changes again. */
function changesReader(mysql: MysqlSettings, table: LogTable, signal: AbortSignal) {
  let changes: LogChanges | undefined;
  return async (from: Progress & { log: LogPlace }, end: LogPlace): Promise<LogChanges> => {
    const to = from.piece?.to ?? end;
    if (changes && same(changes.from, from.log) && same(changes.to, to)) return changes;
    const { keys, place } = await readChanges(mysql, { table, from: from.log, to, most: mostChanges, signal });
    changes = { from: from.log, to, place, keys: [], more: 0 };
    if (from.lastKey === null) return changes;
    const last = BigInt(from.lastKey);
    for (const [text, more] of keys) {
      const key = BigInt(text);
      if (key > last) continue;
      changes.keys.push(key);
      changes.more += more;
    }
    changes.keys.sort((a, b) => (a < b ? -1 : 1));
    return changes;
  };
}

const same = (a: LogPlace, b: LogPlace): boolean => a.file === b.file && comparePlaces(a, b) === 0;
