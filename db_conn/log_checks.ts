/**
 * Checks whether the binary log can be followed and which changes it does not have, and measures lag.
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

/** Says in one line what to set or grant so that the log can be followed; `undefined` if it can be. */
export async function canReadLog(db: Database): Promise<string | undefined> {
  return whyUnreadable(db, await readVariables(db));
}

/** The server's variables that matter, by name; a server has only some of them. */
async function readVariables(db: Database): Promise<Map<string, string>> {
  const names = [...Object.keys(wanted), "version", "log_slave_updates", "log_replica_updates", "gtid_slave_pos"];
  const rows = await ask(db, "SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)", { values: [names] });
  return new Map(rows as [string, string][]);
}

const isMariaDb = (found: Map<string, string>) => /mariadb/i.test(found.get("version") ?? "");

async function whyUnreadable(db: Database, found: Map<string, string>): Promise<string | undefined> {
  if (found.get("log_bin") !== "ON") return cannot([wanted.log_bin.remedy]);
  const settings = Object.entries(wanted).flatMap(([name, { good, remedy }]) => {
    const value = found.get(name) ?? "";
    return found.has(name) && !good.test(value) ? [remedy] : [];
  });
  const grants = await ask(db, "SHOW GRANTS");
  const global = grants.flatMap(([line]) => /^GRANT (.*) ON \*\.\* TO /.exec(line ?? "")?.[1]?.split(/,\s*/) ?? []);
  const may = (...names: string[]) => ["ALL PRIVILEGES", ...names].some((name) => global.includes(name));
  const missing = !may("REPLICATION SLAVE", "REPLICATION REPLICA") || !(isMariaDb(found) || may("REPLICATION CLIENT"));
  const [[user] = []] = missing ? await ask(db, "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)") : [];
  const remedies = [...settings, ...(user == null ? [] : [grant({ user })])];
  return remedies.length > 0 ? cannot(remedies) : undefined;
}

/** The same for one table. */
export async function canFollow(db: Database, table: Table): Promise<string | undefined> {
  const { source } = tables[table];
  const sql =
    "SELECT table_type, table_schema FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
  const [[type, database] = []] = await ask(db, sql, { values: [source] });
  if (type === "VIEW")
    return `Cannot follow "${source}" in the binary log of MySQL: it is a view, and the log has only changes of its tables`;
  const variables = await readVariables(db);
  return (await whyUnreadable(db, variables)) ?? (await hidesChanges(db, variables, database ?? ""));
}

/** Says which setting keeps changes of the database out of the log; `undefined` if none is known. */
async function hidesChanges(db: Database, found: Map<string, string>, database: string): Promise<string | undefined> {
  const isOff = [found.get("log_slave_updates"), found.get("log_replica_updates")].includes("OFF");
  if (isOff && (await isReplica(db, found))) {
    return cannot(["it is a replica and does not log what it replicates; start it with --log-slave-updates=ON"]);
  }
  // A user without the privilege cannot see the filters. That is no reason to refuse.
  const [, , only = "", not = ""] = await logStatus(db).catch(() => []);
  const isIn = (list: string | null) => (list ?? "").split(",").includes(database);
  if ((only && !isIn(only)) || isIn(not)) {
    return cannot([`it leaves out database "${database}"; start it without --binlog-do-db and --binlog-ignore-db`]);
  }
  return undefined;
}

/** Whether the server is a replica. MySQL always counts as one: by default it logs replicated changes. */
async function isReplica(db: Database, found: Map<string, string>): Promise<boolean> {
  if (!isMariaDb(found) || found.get("gtid_slave_pos")) return true;
  const running = await ask(db, "SHOW GLOBAL STATUS WHERE Variable_name IN ('Slaves_running', 'Slave_running')");
  return running.some(([, value]) => value === "ON" || Number(value) > 0);
}

/** Whether XA transactions are prepared: their changes are in the log already, but not visible before the commit. */
export async function hasPrepared(db: Database): Promise<boolean> {
  // MySQL answers only a user with the privilege.
  return (await ask(db, "XA RECOVER").catch(() => [])).length > 0;
}

const cannot = (remedies: string[]) => `Cannot follow the binary log of MySQL: ${remedies.join("; ")}`;

/** The variables that matter, their good values, and what sets them. A variable that a server does not have is fine. */
const wanted = {
  log_bin: { good: /^ON$/, remedy: noLog },
  binlog_format: {
    good: /^ROW$/,
    remedy: "binlog_format is not ROW; SET GLOBAL binlog_format = 'ROW', then reconnect all other clients",
  },
  gtid_mode: { good: /^ON$/, remedy: noGtids },
  binlog_row_value_options: {
    good: /^$/,
    remedy: "it writes parts of JSON values; SET GLOBAL binlog_row_value_options = ''",
  },
  binlog_transaction_compression: {
    good: /^OFF$/,
    remedy: "it compresses transactions; SET GLOBAL binlog_transaction_compression = OFF",
  },
} satisfies Record<string, { good: RegExp; remedy: string }>;

/** A foreign key that changes or deletes rows together with those they refer to. The log does not have such changes. */
export interface Cascade {
  constraint: string;
  /** The table that the rows refer to. */
  parent: string;
}

/** The foreign keys of a table with CASCADE or SET NULL; on MySQL, as of the snapshot of the connection. */
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
  /** `undefined` if the place is in another file, and the files cannot be listed or were deleted. */
  bytes: number | undefined;
  /** The number of files begun since. */
  files: number;
}

/** The most to read while looking for the next change of a table, bytes: about 0.25 s of work. */
const mostRead = 64_000_000;

/**
 * How far a table that was read up to a place is behind the log: the lag begins at its next change. If none follows, the
 * lag is 0.
 *
 * @returns also the place before that change, from which to look the next time
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
  const isNear = bytes !== undefined && bytes <= mostRead;
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
    // The log cannot be followed from here: a statement changed the table without naming rows.
    if (error instanceof LogStopped || error instanceof UsageError) return place;
    throw error;
  }
}

/** Compares a place with the end of the log, by the clock of the server. */
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
  // The privilege may be missing. A lost connection fails at the next statement.
  const rows = await ask(db, "SHOW BINARY LOGS").catch(() => []);
  const from = rows.findIndex(([name]) => name === place.file);
  if (from < 0) return undefined;
  const sizes = rows.slice(from).map(([name, size]) => (name === file ? end : Number(size)));
  return sizes.reduce((sum, size) => sum + size, 0) - place.position;
}
