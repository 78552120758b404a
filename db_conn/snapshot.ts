/**
 * Snapshots of the database, and where in its log each stands.
 *
 * A transaction stands in the log, and is sent to whoever reads that, before its rows can be seen: who reads a row
 * because the log names it may get the old one, and never learn of the new. So the place comes first, and then a
 * snapshot that shows all that the log tells before it.
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
  /** The snapshot shows all that stands in the log before this place; on MySQL perhaps more. */
  place: LogPlace;
  /**
   * It may lack the last transactions before the place: its rows are to be read with LOCK IN SHARE MODE, which waits for
   * them, since they hold the locks of their rows until they can be seen.
   */
  mustLock: boolean;
  /** It shows nothing that stands behind the place, unless it is read with locks. */
  isExact: boolean;
}

const begin = "START TRANSACTION WITH CONSISTENT SNAPSHOT";
/** How often, and after how many ms, to look for a later place in a new file of the log. */
const [looks, pause] = [5, 10];

/**
 * Begins a consistent snapshot, which ends what the connection had begun before.
 *
 * @param settings how to reach the server, whose log is looked at where a new file of it was begun
 * @throws `UsageError` where the server's settings give no proof of what a snapshot shows
 */
export async function openSnapshot(db: Database, settings: MysqlSettings): Promise<Snapshot> {
  const state = prepared.get(db) ?? (await prepare(db));
  return state.isMariaDb ? openOnMariaDb(db, settings, state) : openOnMysql(db);
}

/** What is known of a connection. */
interface State {
  isMariaDb: boolean;
  /** Of the newest file: a place up to there proves nothing. */
  unproven?: { file: string; position: number };
}

const prepared = new WeakMap<Database, State>();

async function prepare(db: Database): Promise<State> {
  const rows = await ask(db, "SHOW VARIABLES WHERE Variable_name IN ('version', 'innodb_snapshot_isolation')");
  const found = new Map(rows as [string, string][]);
  // At another level a consistent snapshot is none, and MySQL no more than warns of it.
  await ask(db, "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ");
  // MariaDB from 11.6.2 on would refuse to lock a row that was changed since.
  if (found.has("innodb_snapshot_isolation")) await ask(db, "SET SESSION innodb_snapshot_isolation = OFF");
  const state = { isMariaDb: /mariadb/i.test(found.get("version") ?? "") };
  prepared.set(db, state);
  return state;
}

/**
 * MariaDB says where its snapshots stand. But while it begins a new file of the log it already names that, though the
 * last transactions of the old one cannot be seen yet (11.4.5): a place proves nothing before the end of the first
 * transaction in its file. Where somebody writes there soon is one.
 */
async function openOnMariaDb(db: Database, settings: MysqlSettings, state: State): Promise<Snapshot> {
  for (let tries = 0; ; tries++) {
    await ask(db, begin);
    const shown = await snapshotPlace(db);
    if (!shown?.file) throw cannotFollow(noLog);
    const { file, position } = shown;
    const isKnown = state.unproven?.file === file;
    if (!isKnown) state.unproven = { file, position: ((await firstTransaction(settings, file)) ?? position + 1) - 1 };
    const mustLock = position <= (state.unproven as { position: number }).position;
    // Nobody writes where the place was the same before.
    if (!mustLock || (isKnown && tries === 0) || tries === looks) {
      return { place: { ...shown, skip: 0 }, mustLock, isExact: true };
    }
    await sleep(pause);
  }
}

/**
 * MySQL does not say where its snapshots stand, but which transactions are on their way (`gtid_owned`). Once those have
 * ended, a new snapshot shows all that was in the log when it was asked.
 */
async function openOnMysql(db: Database): Promise<Snapshot> {
  await ask(db, "COMMIT");
  const [file, position = 0] = await logEnd(db);
  if (file === undefined) throw cannotFollow(noLog);
  const [[mode, owned = ""] = []] = await ask(db, "SELECT @@GLOBAL.gtid_mode, @@GLOBAL.gtid_owned");
  if (mode !== "ON") throw cannotFollow(noGtids);
  const unseen = owned?.replace(/#\d+/g, ""); // the number of the session that owns it
  if (unseen) {
    const [[late] = []] = await ask(db, "SELECT WAIT_FOR_EXECUTED_GTID_SET(?, 50)", { values: [unseen] });
    if (late !== "0") {
      const message = `Cannot read what MySQL wrote to its log: the transactions ${unseen} did not end within 50 s`;
      throw Object.assign(new Error(message), { code: "ETIMEDOUT" });
    }
  }
  await ask(db, begin);
  return { place: { file, position, skip: 0 }, mustLock: false, isExact: false };
}

/**
 * The file that the server writes its log to, and how far; neither where it keeps none. On a connection that is in a
 * snapshot, MariaDB tells of that.
 */
export async function logEnd(db: Database): Promise<[file?: string, position?: number]> {
  const shown = await snapshotPlace(db);
  if (shown) return shown.file === "" ? [] : [shown.file, shown.position];
  const [file, position] = await logStatus(db);
  return file ? [file, Number(position)] : [];
}

/** What the server says of its log: the file, the position, the databases that it takes alone, and those it leaves out. */
export async function logStatus(db: Database): Promise<Row> {
  const rows = await ask(db, "SHOW MASTER STATUS").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ER_PARSE_ERROR") throw error;
    return ask(db, "SHOW BINARY LOG STATUS"); // from MySQL 8.4 on
  });
  return rows[0] ?? [];
}

/** Where a MariaDB's snapshot stands, for which no privilege is needed; `undefined` of MySQL. */
async function snapshotPlace(db: Database): Promise<{ file: string; position: number } | undefined> {
  const found = new Map((await ask(db, "SHOW STATUS LIKE 'Binlog_snapshot_%'")) as [string, string][]);
  const file = found.get("Binlog_snapshot_file");
  return file === undefined
    ? undefined
    : { file: file === "none" ? "" : file, position: Number(found.get("Binlog_snapshot_position")) };
}

const cannotFollow = (why: string) => new UsageError(`Cannot follow the log of MySQL: ${why}`);

/** What to do where the server keeps no log, and where MySQL does not number its transactions. */
export const noLog = "it keeps none; start it with --log-bin --server-id=1 --binlog-format=ROW";
export const noGtids =
  "gtid_mode is not ON; SET GLOBAL enforce_gtid_consistency = ON, then SET GLOBAL gtid_mode = OFF_PERMISSIVE, ON_PERMISSIVE and ON";
