/**
 * Snapshots of the database, each with its place in the binary log.
 *
 * The server writes a transaction to the log, and sends it to log readers, before its rows are visible. A reader that
 * follows the log could therefore read the old row and miss the new one. So the place is determined first, and then a
 * snapshot is taken that shows everything that the log has before it.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { MysqlSettings } from "../db_conn.ts";
import type { LogPlace } from "../io/log_place.ts";
import type { Row } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { firstTransaction } from "./log.ts";
import { ask, type Database } from "./query.ts";

/** A snapshot that a connection reads until its COMMIT. */
export interface Snapshot {
  /** The snapshot shows everything that is in the log before this place; on MySQL perhaps more. */
  place: LogPlace;
  /**
   * The last transactions before the place may be missing. Read the rows with LOCK IN SHARE MODE, which waits for them:
   * they hold the locks of their rows until these are visible.
   */
  mustLock: boolean;
  /** It shows nothing after the place, unless it is read with locks. */
  isExact: boolean;
}

const begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
/** How often to look for a later place in a new file of the log, and the pause between, ms. */
const [attempts, pause] = [5, 10];

/**
 * Begins a consistent snapshot. This ends the connection's previous transaction.
 *
 * @param settings how to reach the server, to read its log when it has begun a new file
 * @throws `UsageError` if the settings of the server do not allow to know what a snapshot shows
 */
export async function openSnapshot(db: Database, settings: MysqlSettings): Promise<Snapshot> {
  const state = prepared.get(db) ?? (await prepare(db));
  return state.isMariaDb ? openOnMariaDb(db, settings, state) : openOnMysql(db);
}

/** What is known about the server of a connection. */
interface State {
  isMariaDb: boolean;
  /** A place in the newest file up to this position proves nothing. */
  unproven?: { file: string; position: number; hasTransaction: boolean };
}

const prepared = new WeakMap<Database, State>();

async function prepare(db: Database): Promise<State> {
  const rows = await ask(db, "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_snapshot_isolation')");
  const found = new Map(rows as [string, string][]);
  // At another isolation level MySQL begins no snapshot and only warns.
  await ask(db, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
  // Otherwise MariaDB from 11.6.2 on refuses to lock a row that has changed since.
  if (found.has("innodb_snapshot_isolation")) await ask(db, "SET SESSION innodb_snapshot_isolation = OFF");
  const state = { isMariaDb: /mariadb/i.test(found.get("version") ?? "") };
  prepared.set(db, state);
  return state;
}

/**
 * MariaDB reports the place of a snapshot. While it begins a new file of the log it already reports that file, but the
 * last transactions of the old file are not visible yet (11.4.5). So a place proves nothing before the end of the first
 * transaction in its file: not even if the file has grown, because the server also writes checkpoints. A busy server
 * has a transaction soon.
 */
async function openOnMariaDb(db: Database, settings: MysqlSettings, state: State): Promise<Snapshot> {
  for (let tries = 0; ; tries++) {
    await ask(db, begin);
    const shown = await snapshotPlace(db);
    if (!shown?.file) throw cannotFollow(noLog);
    const { file, position } = shown;
    const { unproven } = state;
    const isKnown = unproven?.file === file && (unproven.hasTransaction || position === unproven.position);
    if (!isKnown) {
      const first = await firstTransaction(settings, file);
      const upTo = first === undefined ? position : first - 1;
      state.unproven = { file, position: upTo, hasTransaction: first !== undefined };
    }
    const mustLock = position <= (state.unproven as { position: number }).position;
    // The place has not changed since the last snapshot, so the server is idle.
    if (!mustLock || (isKnown && tries === 0) || tries === attempts) {
      return { place: { ...shown, skip: 0 }, mustLock, isExact: true };
    }
    await sleep(pause);
  }
}

/**
 * MySQL does not report the place of a snapshot, but the transactions in progress (`gtid_owned`). When these have ended,
 * a new snapshot shows everything that was in the log when the list was read.
 */
async function openOnMysql(db: Database): Promise<Snapshot> {
  await ask(db, "COMMIT");
  const [file, position = 0] = await logEnd(db);
  if (file === undefined) throw cannotFollow(noLog);
  const [[mode, owned = ""] = []] = await ask(db, "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_owned");
  if (mode !== "ON") throw cannotFollow(noGtids);
  const unseen = owned?.replace(/#\d+/g, ""); // the id of the session that owns it
  if (unseen) {
    const [[late] = []] = await ask(db, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 50)", { values: [unseen] });
    if (late !== "0") {
      const message = `Cannot read the rows that MySQL wrote to its binary log: transactions ${unseen} did not end within 50 s`;
      throw Object.assign(new Error(message), { code: "ETIMEDOUT" });
    }
  }
  await ask(db, begin);
  return { place: { file, position, skip: 0 }, mustLock: false, isExact: false };
}

/**
 * The current file of the log and the position of its end; an empty list if the server keeps no log. On a connection
 * with a snapshot, MariaDB returns the place of the snapshot.
 */
export async function logEnd(db: Database): Promise<[file?: string, position?: number]> {
  const shown = await snapshotPlace(db);
  if (shown) return shown.file === "" ? [] : [shown.file, shown.position];
  const [file, position] = await logStatus(db);
  return file ? [file, Number(position)] : [];
}

/** The status of the log: file, position, the only databases that are logged, the databases that are not logged. */
export async function logStatus(db: Database): Promise<Row> {
  const rows = await ask(db, "SHOW MASTER STATUS").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ER_PARSE_ERROR") throw error;
    return ask(db, "SHOW BINARY LOG STATUS"); // from MySQL 8.4 on
  });
  return rows[0] ?? [];
}

/** The place of MariaDB's snapshot, which needs no privilege; `undefined` on MySQL. */
async function snapshotPlace(db: Database): Promise<{ file: string; position: number } | undefined> {
  const found = new Map((await ask(db, "SHOW STATUS LIKE 'Binlog_snapshot_%'")) as [string, string][]);
  const file = found.get("Binlog_snapshot_file");
  return file === undefined
    ? undefined
    : { file: file === "none" ? "" : file, position: Number(found.get("Binlog_snapshot_position")) };
}

const cannotFollow = (why: string) => new UsageError(`Cannot follow the binary log of MySQL: ${why}`);

/** What to do if the server keeps no binary log, and if MySQL does not number its transactions. */
export const noLog = "it keeps none; start it with --log-bin --server-id=1 --binlog-format=ROW";
export const noGtids =
  "gtid_mode is not ON; SET GLOBAL enforce_gtid_consistency = ON, then SET GLOBAL gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON";
