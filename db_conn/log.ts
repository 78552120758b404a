/**
 * Reads the binary log of MySQL or MariaDB ("the log"): the keys of one table that were written between two places.
 *
 * ```ts
 * const { keys, place } = await readChanges(mysql, { table, from, to: snapshot.place, most: 10_000 });
 * for (const [key, more] of keys) console.log(key, more); // "7" 0: row 7 was updated
 * ```
 *
 * The rows in the log are not used: they have no column names, signs or character sets. The caller reads the rows of
 * these keys in a snapshot that shows everything that the log has so far (db_conn/snapshot.ts).
 *
 * @module
 */

import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { connectMysql, type MysqlSettings } from "../db_conn.ts";
import { comparePlaces, type LogPlace } from "../io/log_place.ts";
import { type Table, tables } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { explainMysql } from "./errors.ts";
import { eventOf, eventTypes, headerSize, type LogEvent } from "./log_events.ts";
import { type LogTable, rowCounter } from "./log_rows.ts";
import { ask, core, type Database, type RowPacket, runCommand, whileAnswering } from "./query.ts";

/** Loads native modules at first use: most commands need none. */
const require = createRequire(import.meta.url);

/** Describes a table's key as the log has it. */
export async function logTable(db: Database, database: string, posted: Table): Promise<LogTable> {
  const { source: table, key } = tables[posted];
  const sql = `SELECT ordinal_position, column_type FROM information_schema.columns
    WHERE table_schema = ? AND table_name = ? AND column_name = ?`;
  const [[position, type] = []] = await ask(db, sql, { values: [database, table, key] });
  if (!position) throw new UsageError(`Cannot find column "${key}" of "${table}" in database "${database}"`);
  // MariaDB calls a ZEROFILL column unsigned too.
  return { database, table, column: Number(position) - 1, unsigned: /unsigned/i.test(type ?? "") };
}

/** What to read. */
interface ReadOptions {
  table: LogTable;
  from: LogPlace;
  /** A place that the log has reached. */
  to: LogPlace;
  /**
   * The most keys to return, 2 or more (1: stop before the first change). A key takes about 60 bytes. A large transaction
   * is read in pieces, each of which reads the earlier ones again, so small pieces are slow.
   */
  most: number;
  signal?: AbortSignal;
}

/** The most keys that are read from the log in one step, about 60 bytes each. */
export const mostChanges = 100_000;

/** The changes of a table between two places. */
export interface Changes {
  /** Keys of the rows that were written, as decimal text, with the change of their number of rows: -1, 0 or 1. */
  keys: Map<string, number>;
  /** Where reading stopped: `to`, or before it after `most` keys. */
  place: LogPlace;
}

/** Positions in the protocol have 32 bits. */
const longestFile = 2 ** 32;
/** How often to read again if the log ends before the place that the server reported, and the pause between, ms. */
const [endTries, endPause] = [20, 50];

/**
 * Reads the changes of a table from `from` up to `to`, or until there are `most` keys. Keeps only the keys and one event
 * in memory.
 *
 * @throws `LogStopped` if a statement changed rows without naming them, or the log cannot be read from `from`
 */
export async function readChanges(settings: MysqlSettings, options: ReadOptions): Promise<Changes> {
  const { table, from, to, most, signal } = options;
  if (comparePlaces(from, to) > 0) {
    throw stopped(table, from, `it ends before that, at ${to.file}:${to.position}: the log was reset`);
  }
  const reader = logReader({ table, from, to, most });
  for (let tries = 1; comparePlaces(reader.place(), to) < 0; tries++) {
    const place = reader.place();
    for (const { file, position } of [place, to]) {
      if (position < longestFile) continue;
      throw stopped(
        table,
        place,
        `"${file}" is larger than 4 GB, which the protocol cannot address; run FLUSH BINARY LOGS`,
      );
    }
    const onEvent = (event: LogEvent) => {
      try {
        return reader.onEvent(event);
      } catch (error) {
        throw stopped(table, reader.place(), (error as Error).message, error);
      }
    };
    const outcome = await dump(settings, { table, place, onEvent, ...(signal && { signal }) });
    if (outcome === "over") break;
    if (tries === endTries) throw stopped(table, reader.place(), `it ends before ${to.file}:${to.position}`);
    reader.again();
    await sleep(endPause, undefined, { ...(signal && { signal }) });
  }
  return { keys: reader.keys, place: reader.place() };
}

/** Reads all changes of a table between two places, in pieces. */
export async function* changesBetween(
  settings: MysqlSettings,
  options: Omit<ReadOptions, "most">,
): AsyncGenerator<Changes> {
  for (let { from } = options; comparePlaces(from, options.to) < 0; ) {
    const changes = await readChanges(settings, { ...options, from, most: mostChanges });
    yield changes;
    from = changes.place;
  }
}

/**
 * Adds the time at which its file was begun to the place of a snapshot. Without it, a reset of the log before the first
 * read would go unnoticed.
 */
export async function datePlace(settings: MysqlSettings, table: LogTable, place: LogPlace): Promise<LogPlace> {
  let made: number | undefined;
  const onEvent = ({ type, time }: LogEvent) => {
    if (type === eventTypes.format) made = time;
    return made !== undefined;
  };
  await dump(settings, { table, place, onEvent });
  return made === undefined ? place : { ...place, made };
}

/** The end of the first transaction header in a file of the log, bytes; `undefined` if the file has no transaction. */
export async function firstTransaction(settings: MysqlSettings, file: string): Promise<number | undefined> {
  let first: number | undefined;
  const onEvent = ({ type, end }: LogEvent) => {
    if (transactionTypes.has(type)) first = end;
    return first !== undefined;
  };
  const table = { table: "the database" };
  await dump(settings, { table, place: { file, position: 4, skip: 0 }, onEvent });
  return first;
}

/** @throws `LogStopped` if the log no longer has a place, or has it in another file of the same name */
export async function checkPlace(settings: MysqlSettings, table: LogTable, place: LogPlace): Promise<void> {
  const { made } = await datePlace(settings, table, place);
  if (place.made !== undefined && made !== place.made) throw stopped(table, place, otherFile(place.file));
}

/** Follows the place in the log through the events of one or more dumps. */
function logReader({ table, from, to, most }: Omit<ReadOptions, "signal">) {
  const rows = rowCounter(table, { skip: from.skip, most });
  let { file, position, made, time = 0 } = from;
  let tail = position; // the end of the last event
  let reached = false;
  let checksum = 0;

  const takeFile = (next: string) => {
    if (next === file) return; // the server names the file at the start
    reached = file === to.file;
    if (reached) return;
    [file, position, tail] = [next, 4, 4];
    made = undefined;
    rows.begin(0);
  };
  const takeFormat = ({ bytes, time: began }: LogEvent) => {
    if (made !== undefined && made !== began) {
      throw new Error(otherFile(file));
    }
    made = began;
    // The fifth last byte says whether the events of the file have a checksum; this event always has one.
    checksum = bytes[bytes.length - 5] === 1 ? 4 : 0;
    rows.forgetTables();
  };
  const take = (event: LogEvent): boolean => {
    const { type, bytes } = event;
    if (type === eventTypes.rotate) takeFile(nextFile(bytes));
    else if (type === eventTypes.format) takeFormat(event);
    else if (transactionTypes.has(type)) {
      rows.begin(tail === position ? rows.skip() : 0);
      position = tail;
    } else return rows.take(type, bytes.subarray(headerSize, bytes.length - checksum));
    return false;
  };

  return {
    keys: rows.keys,
    place: (): LogPlace => ({
      ...(reached ? { file: to.file, position: to.position, skip: 0 } : { file, position, skip: rows.skip() }),
      ...(made !== undefined && { made }),
      ...(time > 0 && { time }),
    }),
    /** Returns whether reading is done. */
    onEvent(event: LogEvent): boolean {
      const hasEnd = event.end > 0 && event.type !== eventTypes.rotate; // that of a rotate event is in the old file
      reached = hasEnd && file === to.file && event.end > to.position;
      if (reached || take(event)) return true;
      time = Math.max(time, event.time);
      if (hasEnd) tail = Math.max(tail, event.end); // a dump from any place begins with the first event of the file
      reached ||= file === to.file && tail >= to.position;
      return reached;
    },
    /** Prepares for the events from `place()` on. */
    again() {
      rows.begin(rows.skip());
      tail = position;
    },
  };
}

const transactionTypes = new Set<number>([
  eventTypes.gtid,
  eventTypes.anonymousGtid,
  eventTypes.taggedGtid,
  eventTypes.mariadbGtid,
]);

/** The next file. Events that the server creates for the dump may have a checksum or not, whatever was requested. */
function nextFile(bytes: Buffer): string {
  const { crc32 } = require("@node-rs/crc32") as typeof import("@node-rs/crc32");
  const bare = bytes.length - 4;
  const summed = crc32(bytes.subarray(0, bare)) === bytes.readUInt32LE(bare);
  return bytes.toString("latin1", headerSize + 8, summed ? bare : bytes.length);
}

/**
 * Reads the log from a place on.
 *
 * @returns whether `onEvent` ended reading ("over") or the log did
 */
async function dump(
  settings: MysqlSettings,
  options: {
    table: Pick<LogTable, "table">;
    place: LogPlace;
    onEvent: (event: LogEvent) => boolean;
    signal?: AbortSignal;
  },
): Promise<"over" | "end of log"> {
  const { table, place, onEvent, signal } = options;
  const body = Buffer.alloc(11 + place.file.length);
  body[0] = 0x12; // COM_BINLOG_DUMP
  body.writeUInt32LE(place.position, 1);
  body[5] = 1; // stop at the end of the log; the server id that follows is 0, which no replica has
  body.write(place.file, 11, "latin1");
  // A separate connection: the server closes it at the end of the log.
  const db = await connectMysql(settings);
  let outcome: "over" | "end of log" = "over";
  const onPacket = (packet: RowPacket): boolean => {
    signal?.throwIfAborted();
    if (!packet.isEOF()) return onEvent(eventOf(packet.buffer.subarray(packet.offset + 1, packet.end)));
    outcome = "end of log";
    return true;
  };
  try {
    // As a replica that supports checksums and MariaDB's events, which the server would otherwise convert or refuse.
    await ask(db, "SET @master_binlog_checksum = 'NONE', @mariadb_slave_capability = 4");
    await whileAnswering(db, runCommand(db, body, onPacket));
    return outcome;
  } catch (error) {
    const { errno, message } = error as NodeJS.ErrnoException;
    // No such file or position.
    if (errno === 1236) throw stopped(table, place, `the log was purged or reset (${message})`, error);
    if (errno === 1227)
      throw new UsageError(`Cannot follow the binary log of MySQL: ${message}; ${grant(settings)}`, { cause: error });
    throw explainMysql(error, settings);
  } finally {
    core(db).stream.destroy();
  }
}

const otherFile = (file: string) => `"${file}" is another file of the same name: the log was reset`;

/** The log does not have all changes of a table. A full run fixes that. */
export class LogStopped extends Error {}

const stopped = (
  { table }: Pick<LogTable, "table">,
  { file, position }: LogPlace,
  why: string,
  cause?: unknown,
): LogStopped =>
  new LogStopped(
    `Cannot follow "${table}" in the binary log of MySQL from ${file}:${position}: ${why}; run post --full`,
    {
      cause,
    },
  );

/** The statement that allows a user to read the log. */
export const grant = ({ user }: { user: string }): string =>
  `run GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '${user}'`;
