/**
 * Whether the log of a server can be followed, what it does not tell, and how far behind it a place is.
 *
 * @module
 */

import type { MysqlSettings } from "../db_conn.ts";
import { comparePlaces, fileNumber, type LogPlace } from "../io/log_place.ts";
import { type Table, tables } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { grant, LogStopped, logTable, readChanges } from "./log.ts";
import { ask, type Database } from "./query.ts";
import { logEnd, logStatus, noGtids, noLog } from "./snapshot.ts";

/** Says in one line what to set or to grant so that the log can be followed; `undefined` where it can be. */
export async function canReadLog(db: Database): Promise<string | undefined> {
  return mendsOf(db, await readVariables(db));
}

/** The server's variables that decide, by name; those that it has. */
async function readVariables(db: Database): Promise<Map<string, string>> {
  const names = [...Object.keys(wanted), "version", "log_slave_updates", "log_replica_updates", "gtid_slave_pos"];
  const rows = await ask(db, "SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)", { values: [names] });
  return new Map(rows as [string, string][]);
}

const isMariaDb = (found: Map<string, string>) => /mariadb/i.test(found.get("version") ?? "");

async function mendsOf(db: Database, found: Map<string, string>): Promise<string | undefined> {
  if (found.get("log_bin") !== "ON") return cannot([wanted.log_bin.mend]);
  const settings = Object.entries(wanted).flatMap(([name, { good, mend }]) => {
    const value = found.get(name) ?? "";
    return found.has(name) && !good.test(value) ? [mend] : [];
  });
  const grants = await ask(db, "SHOW GRANTS");
  const global = grants.flatMap(([line]) => /^GRANT (.*) ON \*\.\* TO /.exec(line ?? "")?.[1]?.split(/,\s*/) ?? []);
  const may = (...names: string[]) => ["ALL PRIVILEGES", ...names].some((name) => global.includes(name));
  const missing = !may("REPLICATION SLAVE", "REPLICATION REPLICA") || !(isMariaDb(found) || may("REPLICATION CLIENT"));
  const [[user] = []] = missing ? await ask(db, "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)") : [];
  const mends = [...settings, ...(user == null ? [] : [grant({ user })])];
  return mends.length > 0 ? cannot(mends) : undefined;
}

/** The same of one table. */
export async function canFollow(db: Database, table: Table): Promise<string | undefined> {
  const { source } = tables[table];
  const sql =
    "SELECT table_type, table_schema FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
  const [[type, database] = []] = await ask(db, sql, { values: [source] });
  if (type === "VIEW")
    return `Cannot follow "${source}" in the log of MySQL: it is a view, and the log names its tables`;
  const variables = await readVariables(db);
  return (await mendsOf(db, variables)) ?? (await hidesChanges(db, variables, database ?? ""));
}

/** Says what keeps changes of the database out of a log that can be read; `undefined` where nothing is known to. */
async function hidesChanges(db: Database, found: Map<string, string>, database: string): Promise<string | undefined> {
  const isOff = [found.get("log_slave_updates"), found.get("log_replica_updates")].includes("OFF");
  if (isOff && (await isReplica(db, found))) {
    return cannot(["it is a replica and does not log what it replicates; start it with --log-slave-updates=ON"]);
  }
  // It tells the filters only to who may see the log's place: not to know them is no reason to refuse.
  const [, , only = "", not = ""] = await logStatus(db).catch(() => []);
  const isIn = (list: string | null) => (list ?? "").split(",").includes(database);
  if ((only && !isIn(only)) || isIn(not)) {
    return cannot([`it leaves out database "${database}"; start it without --binlog-do-db and --binlog-ignore-db`]);
  }
  return undefined;
}

/** Whether the server replicates another. MySQL logs that unless told otherwise, and is taken for one where it does not. */
async function isReplica(db: Database, found: Map<string, string>): Promise<boolean> {
  if (!isMariaDb(found) || found.get("gtid_slave_pos")) return true;
  const running = await ask(db, "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slaves_running', 'Slave_running')");
  return running.some(([, value]) => value === "ON" || Number(value) > 0);
}

/** Whether transactions are prepared by XA: what they change is logged already, and seen only when they are committed. */
export async function hasPrepared(db: Database): Promise<boolean> {
  // MySQL tells only who has the privilege.
  return (await ask(db, "XA RECOVER").catch(() => [])).length > 0;
}

const cannot = (mends: string[]) => `Cannot follow the log of MySQL: ${mends.join("; ")}`;

/** The variables that decide, which value is good, and what makes it so. One that a server lacks is good. */
const wanted = {
  log_bin: { good: /^ON$/, mend: noLog },
  binlog_format: {
    good: /^ROW$/,
    mend: "binlog_format is not ROW; SET GLOBAL binlog_format = 'ROW', then let others connect anew",
  },
  gtid_mode: { good: /^ON$/, mend: noGtids },
  binlog_row_value_options: {
    good: /^$/,
    mend: "it writes parts of JSON values; SET GLOBAL binlog_row_value_options = ''",
  },
  binlog_transaction_compression: {
    good: /^OFF$/,
    mend: "it compresses transactions; SET GLOBAL binlog_transaction_compression = OFF",
  },
} satisfies Record<string, { good: RegExp; mend: string }>;

/** A foreign key that changes or deletes rows of a table when those that they refer to change; the log does not tell. */
export interface Cascade {
  constraint: string;
  /** The table whose changes are passed on. */
  parent: string;
}

/** The foreign keys of a table with CASCADE or SET NULL; on MySQL, as of the connection's snapshot. */
export async function cascades(db: Database, table: Table): Promise<Cascade[]> {
  const rows = await ask(
    db,
    `SELECT constraint_name, referenced_table_name FROM information_schema.referential_constraints
     WHERE constraint_schema = DATABASE() AND table_name = ?
       AND (update_rule IN ('CASCADE', 'SET NULL') OR delete_rule IN ('CASCADE', 'SET NULL'))
     ORDER BY constraint_name`,
    { values: [tables[table].source] },
  );
  return rows.map(([constraint, parent]) => ({ constraint: constraint as string, parent: parent as string }));
}

/** How far a place is behind the end of the log. */
export interface LogLag {
  /** Since the last event before the place was written; 0 at the end of the log. */
  seconds: number | undefined;
  /** `undefined` where the place is in another file, and the files may not be listed or have gone. */
  bytes: number | undefined;
  /** How many files were begun since. */
  files: number;
}

/** What is read at most to look for the next change of a table, bytes: a quarter of a second's work. */
const mostLooked = 64_000_000;

/**
 * How far a table is behind that is read up to a place: since the next change of it, so not at all where none follows.
 *
 * @returns also the place before that change, to look on from there the next time
 */
export async function tableBehind(
  db: Database,
  settings: MysqlSettings,
  { table, place }: { table: Table; place: LogPlace },
): Promise<{ lag: LogLag | undefined; seen: LogPlace }> {
  const [file, end] = await logEnd(db);
  if (file === undefined || end === undefined) return { lag: undefined, seen: place };
  const to = { file, position: end, skip: 0 };
  const bytes = comparePlaces(place, to) < 0 ? await bytesBehind(db, place, { file, end }) : undefined;
  const isNear = bytes !== undefined && bytes <= mostLooked;
  const seen = isNear ? await beforeNextChange(db, settings, { table, place, to }) : place;
  const lag = comparePlaces(seen, to) === 0 ? { seconds: 0, bytes: 0, files: 0 } : await logBehind(db, seen);
  return { lag, seen };
}

async function beforeNextChange(
  db: Database,
  settings: MysqlSettings,
  { table, place, to }: { table: Table; place: LogPlace; to: LogPlace },
): Promise<LogPlace> {
  try {
    const read = { table: await logTable(db, settings.database, table), from: place, to, most: 1 };
    return (await readChanges(settings, read)).place;
  } catch (error) {
    // It cannot be followed from here: the table has changed, in a way that no row tells.
    if (error instanceof LogStopped || error instanceof UsageError) return place;
    throw error;
  }
}

/** Compares a place with the end of the log, by the server's clock. */
export async function logBehind(db: Database, place: LogPlace): Promise<LogLag | undefined> {
  const [file, end] = await logEnd(db);
  if (file === undefined || end === undefined) return undefined;
  const files = Math.max(fileNumber(file) - fileNumber(place.file), 0);
  if (files === 0 && end === place.position) return { seconds: 0, bytes: 0, files };
  const [[now] = []] = await ask(db, "SELECT UNIX_TIMESTAMP()");
  const seconds = place.time === undefined ? undefined : Math.max(Number(now) - place.time, 0);
  return { seconds, bytes: await bytesBehind(db, place, { file, end }), files };
}

async function bytesBehind(db: Database, place: LogPlace, { file, end }: { file: string; end: number }) {
  if (file === place.file) return end < place.position ? undefined : end - place.position;
  // Only the privilege may be missing; a lost connection shows at the next statement.
  const rows = await ask(db, "SHOW BINARY LOGS").catch(() => []);
  const from = rows.findIndex(([name]) => name === place.file);
  if (from < 0) return undefined;
  const sizes = rows.slice(from).map(([name, size]) => (name === file ? end : Number(size)));
  return sizes.reduce((sum, size) => sum + size, 0) - place.position;
}
