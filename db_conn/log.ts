/**
 * The log of MySQL and MariaDB (the binary log), read for the keys of one table that were written between two places.
 *
 * ```ts
 * const { keys, place } = await readChanges(mysql, { table, from, to: snapshot.place, most: 10_000 });
 * for (const [key, more] of keys) console.log(key, more); // "7" 0: row 7 was updated
 * ```
 *
 * The rows in the log are not used: they lack the columns' names, signs and character sets. Who knows the keys reads the
 * rows themselves, in a snapshot that shows all that the log tells so far (db_conn/snapshot.ts).
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

/** What is native is loaded at first use: most of the program's starts need none. */
const require = createRequire(import.meta.url);

/** Where the log has a table's key. */
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
   * How many keys at most, 2 or more (1: it stops before the first); one takes about 60 bytes. For each piece of a
   * transaction its first pieces are read over again, so a large one wants large pieces.
   */
  most: number;
  signal?: AbortSignal;
}

/** How many keys are taken from the log at once, about 60 bytes each. */
export const mostChanges = 100_000;

/** What happened to a table between two places. */
export interface Changes {
  /** Keys of the rows that were written, as decimal text, with how many more there are than before: -1, 0 or 1. */
  keys: Map<string, number>;
  /** Up to where: `to`, or before it when there are as many keys as may be. */
  place: LogPlace;
}

/** Positions in the protocol have 32 bits. */
const longestFile = 2 ** 32;
/** How often, and after how many ms, to read again where the server says that the log ends before the place it named. */
const [endTries, endPause] = [20, 50];

/**
 * Reads what the log has of a table behind `from`, up to `to` or until there are `most` keys. Keeps no more than the keys
 * and one event. A change of the rows that no row names is an error, and so is a log that cannot be followed; both tell
 * what mends it.
 */
export async function readChanges(settings: MysqlSettings, options: ReadOptions): Promise<Changes> {
  const { table, from, to, most, signal } = options;
  if (comparePlaces(from, to) > 0) {
    throw stopped(table, from, `it ends at ${to.file}:${to.position}, before that: the log was reset`);
  }
  const reader = logReader({ table, from, to, most });
  for (let tries = 1; comparePlaces(reader.place(), to) < 0; tries++) {
    const place = reader.place();
    for (const { file, position } of [place, to]) {
      if (position < longestFile) continue;
      throw stopped(
        table,
        place,
        `"${file}" has over 4 GB, and the protocol has no number for it; run FLUSH BINARY LOGS`,
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

/** Reads all that the log has of a table between two places, piece by piece. */
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
 * A place that a snapshot gave, with the time at which its file was begun: without it nobody would see that the log was
 * reset before it is first read from there.
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

/** Where the first transaction of a file of the log begins, bytes, its own head counted in; `undefined` of a new file. */
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

/** Makes sure that the log still has a place that was read before, in the same file. */
export async function checkPlace(settings: MysqlSettings, table: LogTable, place: LogPlace): Promise<void> {
  const { made } = await datePlace(settings, table, place);
  if (place.made !== undefined && made !== place.made) throw stopped(table, place, otherFile(place.file));
}

/** Follows the place in the log; the events of one or more dumps go through it. */
function logReader({ table, from, to, most }: Omit<ReadOptions, "signal">) {
  const rows = rowCounter(table, { skip: from.skip, most });
  let { file, position, made, time = 0 } = from;
  let tail = position; // where the last event ended
  let reached = false;
  let checksum = 0;

  const takeFile = (next: string) => {
    if (next === file) return; // the server says at the start where it starts
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
    // The last but four bytes say whether the file's events end with a checksum; that of this one is there in any case.
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
    /** Returns whether it is over. */
    onEvent(event: LogEvent): boolean {
      const own = event.end > 0 && event.type !== eventTypes.rotate; // else its end is in the old file, or none
      reached = own && file === to.file && event.end > to.position;
      if (reached || take(event)) return true;
      time = Math.max(time, event.time);
      if (own) tail = Math.max(tail, event.end); // what describes a file is sent at the start wherever that is
      reached ||= file === to.file && tail >= to.position;
      return reached;
    },
    /** Makes ready for the events from `place()` on. */
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

/** The file that follows. The events that the server makes up may have a checksum or not, whatever was asked for. */
function nextFile(bytes: Buffer): string {
  const { crc32 } = require("@node-rs/crc32") as typeof import("@node-rs/crc32");
  const bare = bytes.length - 4;
  const summed = crc32(bytes.subarray(0, bare)) === bytes.readUInt32LE(bare);
  return bytes.toString("latin1", headerSize + 8, summed ? bare : bytes.length);
}

/** Has the server send its log from a place on; tells whether `onEvent` ended that, or the log did. */
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
  body[5] = 1; // end where the log ends; the server's id that follows stays 0, which is no replica's
  body.write(place.file, 11, "latin1");
  // A connection of its own: the server closes it at the end of the log.
  const db = await connectMysql(settings);
  let outcome: "over" | "end of log" = "over";
  const onPacket = (packet: RowPacket): boolean => {
    signal?.throwIfAborted();
    if (!packet.isEOF()) return onEvent(eventOf(packet.buffer.subarray(packet.offset + 1, packet.end)));
    outcome = "end of log";
    return true;
  };
  try {
    // As a replica that knows checksums, and MariaDB's own events, which it would turn into others or fail to.
    await ask(db, "SET @master_binlog_checksum = 'NONE', @mariadb_slave_capability = 4");
    await whileAnswering(db, runCommand(db, body, onPacket));
    return outcome;
  } catch (error) {
    const { errno, message } = error as NodeJS.ErrnoException;
    // There is no such file or position.
    if (errno === 1236) throw stopped(table, place, `the log was purged or reset (${message})`, error);
    if (errno === 1227)
      throw new UsageError(`Cannot follow the log of MySQL: ${message}; ${grant(settings)}`, { cause: error });
    throw explainMysql(error, settings);
  } finally {
    core(db).stream.destroy();
  }
}

const otherFile = (file: string) => `"${file}" is another file than it was: the log was reset`;

/** The log does not tell what happened to a table; a full run mends it. */
export class LogStopped extends Error {}

const stopped = (
  { table }: Pick<LogTable, "table">,
  { file, position }: LogPlace,
  why: string,
  cause?: unknown,
): LogStopped =>
  new LogStopped(`Cannot follow "${table}" in the log of MySQL from ${file}:${position}: ${why}; run post --full`, {
    cause,
  });

/** What makes a user one who may read the log. */
export const grant = ({ user }: { user: string }): string =>
  `run GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '${user}'`;
