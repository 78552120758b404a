/**
 * Reads what one transaction posts:
 *
 * > As of one snapshot of the database, which stands at a place of its log: the rows up to the last key that the log
 * > names between the last place and this one (a row that is gone is a delete), then the next rows above the last key.
 *
 * So after every transaction the topic holds, for the keys up to the last one, what the table had at that place. The
 * first load, catching up and following are the same.
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

/** How long one snapshot is read, ms: the database keeps old versions of rows for it. */
const longestSnapshot = 60_000;

/** The table is not as it was when it was inspected. */
export class TableChanged extends Error {}

/** What one transaction is to post. */
export interface Batch {
  records: RecordBatch[];
  /** Records, and how many of them are deletes. */
  rows: number;
  deleted: number;
  /** How far the table is posted with them. */
  after: Progress;
  /** Nothing more was there to post. */
  exhausted: boolean;
}

/** Where rounds read from. */
interface RoundsOptions {
  reader: TableReader;
  mysql: MysqlSettings;
  source: SourceTable;
  /** Where the log has the table's key; `undefined` where the log is not followed. */
  logTable: LogTable | undefined;
  signal: AbortSignal;
}

/** Reads one round after the other. */
export interface Rounds {
  /** Reads what comes after `from`, of new rows those up to the key `upTo`, into the encoder. */
  read(from: Progress, options: { upTo: string | null; encoder: RowEncoder }): Promise<Batch>;
  /** Whether the log has anything behind a place. */
  moved(place: LogPlace): Promise<boolean>;
}

/** Opens rounds over a connection, of which they have snapshots while they read. */
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
    // Without the log, nobody knows what has changed up to here.
    return { after: { lastKey, rows: from.rows + encoder.rows, log: null, piece: null }, exhausted };
  };
  const readRound = logTable ? readerWithLog({ ...options, logTable, pages, moved }) : readWithout;
  return {
    moved,
    async read(from, options) {
      const { encoder } = options;
      for (;;) {
        encoder.take(); // of a page that failed
        const read = await readRound(from, options);
        if (!read) continue;
        const { rows, deleted } = encoder;
        return { ...read, rows, deleted, records: encoder.take() };
      }
    },
  };
}

/** Reads a round into the encoder; nothing, where it is to be read again. */
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

  /** What was changed before the first place, the log will not tell. */
  const checkTable = async () => {
    const now = await inspectTable(reader.db, mysql.database, source.table);
    const key = await logTableOf(reader.db, mysql.database, source.table);
    if (isDeepStrictEqual([now.columns, now.key, key], [source.columns, source.key, logTable])) return;
    throw new TableChanged(`"${logTable.table}" was altered while it was looked at`);
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
      // Rows above the last key as of now would be taken for new once more by the log up to now.
      whole &&= comparePlaces(found.place, end) === 0;
    }
    const changed = encoder.rows;
    let exhausted = false;
    if (whole && roomIn(encoder) > 0) {
      const read = await pages.readAbove(from.lastKey, upTo, options);
      ({ exhausted, cut } = read);
      [after.lastKey, after.rows] = [read.lastKey, after.rows + encoder.rows - changed];
    }
    // The next snapshot ends this one, too; where nothing is left it may be long until then.
    if (cut) await reader.reconnect();
    else if (mustLock || exhausted) await snapshots.end();
    // A locked read shows what was written meanwhile, too, which the log would name once more.
    return mustLock && (await moved(end)) ? undefined : { after, exhausted };
  };
}

/** The keys up to the last one that the log names between two places, in order. */
interface LogChanges {
  from: LogPlace;
  to: LogPlace;
  keys: bigint[];
  /** How many more rows the table has up to the last key. */
  more: number;
  /** Up to where they were read. */
  place: LogPlace;
}

/**
 * Begins a snapshot for each round, or goes on with the last one while what the log names before its place is not posted
 * yet: in a newer one a row may be newer, and the log would name it once more.
 */
function keptSnapshots(reader: TableReader, mysql: MysqlSettings) {
  let last: (Snapshot & { db: Database; since: number }) | undefined;
  return {
    async open({ log, piece }: Progress): Promise<Snapshot> {
      const isThere = last?.db === reader.db && Date.now() - last.since < longestSnapshot;
      if (last && isThere && log && (piece || comparePlaces(log, last.place) < 0)) return last;
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

/** Reads what the log names behind a place; of a piece that is begun, the same as before. */
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
