/**
 * MySQL: connections, and reading a table in pages by key.
 *
 * @module
 */

import { isIP } from "node:net";
import mysql from "mysql2/promise";
import { explainMysql } from "./db_conn/errors.ts";
import {
  ask,
  core,
  createQuery,
  type Database,
  pageTimeout,
  probes,
  quote,
  scanTimeout,
  whileAnswering,
} from "./db_conn/query.ts";
import { type Column, checkKey, postedColumns } from "./db_conn/table_checks.ts";
import { jsonNumber, type Row, type Table, tables } from "./io.ts";
import { UsageError } from "./runtime/errors.ts";

/** How to reach MySQL. */
export interface MysqlSettings {
  host: string;
  port: number;
  user: string;
  password: string;
  database: string;
  /** PEM text of the certificate authority. Without it, the certificate of the server is not checked. */
  ca?: string;
}

/**
 * How long one of several attempts may wait for MySQL, ms, if all together may wait `waitMs`: short enough to report the
 * wait to the user, long enough to get a lock that other sessions want too.
 */
export const tryMs = (waitMs: number): number => Math.min(Math.max(waitMs / 4, 1_000), 10_000);

/** Whether a host is this machine, so that no network can be tapped. */
export const isLocal = (host: string): boolean => /^(127\.|localhost$|::1$)/.test(host);

/**
 * Connects to MySQL. Uses TLS if the server requires it, or is on another machine and offers it.
 *
 * @param options.waitMs how long a statement may wait for a lock of another session, or for a server that does not
 * answer any connection, ms; a running statement has no limit. Default 60 s
 * @throws `UsageError` if user, password or database are refused
 */
export async function connectMysql(
  settings: MysqlSettings,
  { waitMs = 60_000 }: { waitMs?: number } = {},
): Promise<Database> {
  const { ca, ...rest } = settings;
  const connect = (tls: boolean) =>
    mysql.createConnection({
      ...rest,
      charset: "utf8mb4",
      timezone: "Z",
      // The text of MySQL: a JS number or Date would lose digits.
      typeCast: (field) => field.string(),
      connectTimeout: Math.min(Math.max(waitMs, 5_000), 10_000),
      enableKeepAlive: true,
      ...(tls && {
        // mysql2 would compare an IP address with the name "localhost".
        ssl:
          ca === undefined
            ? { rejectUnauthorized: false }
            : { ca, rejectUnauthorized: true, verifyIdentity: isIP(settings.host) === 0 },
      }),
    });
  const tlsFirst = ca !== undefined || !isLocal(settings.host);
  try {
    const connection = await connect(tlsFirst).catch((error: NodeJS.ErrnoException) => {
      const noTls = error.code === "HANDSHAKE_NO_SSL_SUPPORT" && ca === undefined;
      const wantsTls = error.code === "ER_SECURE_TRANSPORT_REQUIRED" || error.code === "ER_ACCESS_DENIED_ERROR";
      if (tlsFirst ? noTls : wantsTls) {
        return connect(!tlsFirst).catch((second: NodeJS.ErrnoException) => {
          throw second.code === "HANDSHAKE_NO_SSL_SUPPORT" ? error : second;
        });
      }
      throw error;
    });
    // Without a listener, losing an idle connection would end the program.
    connection.on("error", () => {});
    // TIMESTAMP columns are shown in the session's time zone; the messages are in UTC. The default lock_wait_timeout is a
    // day (MariaDB) or a year (MySQL).
    const lockSeconds = Math.max(1, Math.floor(waitMs / 1_000));
    const sql = `SET time_zone = '+00:00', lock_wait_timeout = ${lockSeconds}`;
    await connection.query({ sql, timeout: 10_000 });
    const reconnect = async () => (await connectMysql(settings, { waitMs })).destroy();
    probes.set(connection, { ask: reconnect, everyMs: waitMs });
    return connection;
  } catch (error) {
    throw explainMysql(error, settings);
  }
}

/**
 * Identifies a database for the lifetime of its server: by MySQL's server_uuid, or by what MariaDB has instead.
 * A checkpoint and a lake belong to one database.
 */
export async function databaseId(db: Database, settings: MysqlSettings): Promise<string> {
  const names = ["server_uuid", "report_host", "server_uid"];
  const rows = await ask(db, "SHOW GLOBAL VARIABLES WHERE Variable_name IN (?)", { values: [names] });
  const found = new Map(rows as [string, string][]);
  const server = names.map((name) => found.get(name)).find(Boolean) ?? `${settings.host}:${settings.port}`;
  return `${settings.database}@${server}`;
}

/** A source table as MySQL has it. */
export interface SourceTable {
  table: Table;
  /** In the table's order, by the contract's names. Columns that only MySQL has are posted too. */
  columns: Column[];
  /** The index of the key in `columns`. */
  key: number;
  /** Least and greatest key as decimal text, or `undefined` when the table is empty. */
  keys: { least: string; greatest: string } | undefined;
  /** One line for each column that is left out, because JSON cannot hold its type. */
  warnings: string[];
}

/**
 * Reads a source table's columns and key range, and checks that it can be posted.
 *
 * @throws `UsageError` if the table, a column or a usable key is missing; it names the ALTER TABLE that fixes it
 */
export async function inspectTable(db: Database, database: string, table: Table): Promise<SourceTable> {
  const { source, key } = tables[table];
  const describe = async (sql: string) => {
    const rows = await ask(db, sql, { values: [database, source] });
    if (rows.length === 0) await refuseLocked(db);
    return rows;
  };
  const described = await describe(
    `SELECT column_name, data_type, is_nullable FROM information_schema.columns
     WHERE table_schema = ? AND table_name = ? ORDER BY ordinal_position`,
  );
  if (described.length === 0) {
    throw new UsageError(
      `Cannot find table "${source}" in database "${database}": create it, set DATABASE, or grant SELECT on it to the user`,
    );
  }
  const { columns, warnings } = postedColumns(table, described);
  const indexes = await describe(
    `SELECT index_name, non_unique, seq_in_index, column_name FROM information_schema.statistics
     WHERE table_schema = ? AND table_name = ?`,
  );
  await checkKey(db, table, { described, indexes });
  const ends = `SELECT MIN(${quote(key)}), MAX(${quote(key)}) FROM ${quote(source)}`;
  const [range] = await ask(db, ends, { timeout: scanTimeout });
  const [least, greatest] = range as Row;
  return {
    table,
    columns,
    key: columns.findIndex(({ name }) => name === key),
    keys: least && greatest ? { least: jsonNumber(least), greatest: jsonNumber(greatest) } : undefined,
    warnings,
  };
}

/** MariaDB omits a table that it cannot lock from information_schema, with only a warning. */
async function refuseLocked(db: Database): Promise<void> {
  const warnings = await ask(db, "SHOW WARNINGS");
  const [, , message] = warnings.find(([, code]) => code === "1205") ?? [];
  if (message) throw Object.assign(new Error(message), { code: "ER_LOCK_WAIT_TIMEOUT" });
}

/** The number of rows as the database estimates it; 0 if it gives none. */
export async function guessRows(db: Database, table: Table): Promise<number> {
  const sql = "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
  const [[rows] = []] = await ask(db, sql, { values: [tables[table].source] });
  return Number(rows ?? 0);
}

/** Counts rows; with `upTo` only those at or below that key. */
export async function countRows(db: Database, table: Table, upTo?: string): Promise<number> {
  const { source, key } = tables[table];
  const where = upTo === undefined ? "" : ` WHERE ${quote(key)} <= ?`;
  const values = upTo === undefined ? [] : [BigInt(upTo)];
  const sql = `SELECT COUNT(*) FROM ${quote(source)}${where}`;
  const [[rows] = []] = await ask(db, sql, { values, timeout: scanTimeout });
  return Number(rows);
}

/**
 * The rows to read, in key order: those of `keys`, or at most `limit` with keys above `after` (undefined: from the
 * first) up to `upTo`. Keys are decimal text.
 */
type PageRows = { keys: string[] } | { after: string | undefined; upTo: string; limit: number };

/** How to read a page. */
interface PageOptions {
  /** The page ends early when its rows are larger than this, bytes. Default: no limit. */
  maxBytes?: number;
  /** How long it may take, ms: a server that never answers must not block the program. Default 60 s. */
  timeoutMs?: number;
  /** Wait for the transactions that have written the rows, and read their result. Default false. */
  lock?: boolean;
}

/** Result of {@link readPage}. */
export interface Page {
  rows: number;
  /** The page ended early. The connection is then closed, because MySQL would send the rest anyway. */
  cut: boolean;
}

/** Receives a row in MySQL's text protocol: from `start` on, each column after its length. Valid during the call. */
type OnRow = (bytes: Buffer, start: number) => void;

/** Reads one page of a table, row by row as they arrive, with the columns in the order of `source.columns`. */
export function readPage(
  db: Database,
  source: SourceTable,
  options: PageRows & PageOptions,
  onRow: OnRow,
): Promise<Page> {
  const { maxBytes = Number.POSITIVE_INFINITY, timeoutMs = pageTimeout, lock = false } = options;
  const { where, values } = pageQuery(source, options);
  const sql = `${selectOf(source).select} ${where}${lock ? " LOCK IN SHARE MODE" : ""}`;
  const page = new Promise<Page>((resolve, reject) => {
    let rows = 0;
    let bytes = 0;
    const end = (settle: () => void, { lost }: { lost: boolean }) => {
      clearTimeout(timer);
      // mysql2's destroy() keeps receiving: the remaining rows would be taken for those of the next page.
      if (lost) core(db).stream.destroy();
      settle();
    };
    // mysql2's timeout would outlive the connection and keep the thread alive.
    const timer = setTimeout(() => {
      const error = Object.assign(new Error(`No answer within ${timeoutMs / 1000} s`), { code: "ETIMEDOUT" });
      end(() => reject(error), { lost: true });
    }, timeoutMs).unref();
    const done = (error: Error | null) =>
      end(() => (error ? reject(error) : resolve({ rows, cut: false })), { lost: false });
    const query = createQuery({ sql, values }, undefined, done, {});
    const plain = query.row;
    query.row = function step(packet, connection) {
      if (packet.isEOF()) return plain.call(query, packet, connection);
      if (bytes > maxBytes) {
        end(() => resolve({ rows, cut: true }), { lost: true });
        return null;
      }
      bytes += packet.end - packet.offset;
      rows++;
      try {
        onRow(packet.buffer, packet.offset);
      } catch (error) {
        end(() => reject(error), { lost: true });
        return null;
      }
      return step;
    };
    core(db).query(query);
  });
  return whileAnswering(db, page);
}

function pageQuery(source: SourceTable, rows: PageRows): { where: string; values: unknown[] } {
  const { id } = selectOf(source);
  if ("keys" in rows) return { where: `WHERE ${id} IN (?) ORDER BY ${id}`, values: [rows.keys.map(BigInt)] };
  const { after, upTo, limit } = rows;
  const above = after === undefined ? "" : `${id} > ? AND `;
  const values = [...(after === undefined ? [] : [BigInt(after)]), BigInt(upTo), limit];
  return { where: `WHERE ${above}${id} <= ? ORDER BY ${id} LIMIT ?`, values };
}

/** The parts of a query for whole rows: the quoted key, and everything before WHERE. */
function selectOf({ table, columns }: SourceTable): { id: string; select: string } {
  const names = columns.map(({ name }) => quote(name)).join(", ");
  return { id: quote(tables[table].key), select: `SELECT ${names} FROM ${quote(tables[table].source)}` };
}

/** Reads the rows of some keys, by key as plain decimal text. A key without a row is left out. */
export async function readRows(db: Database, source: SourceTable, keys: string[]): Promise<Map<string, Row>> {
  if (keys.length === 0) return new Map();
  const { id, select } = selectOf(source);
  const sql = `${select} WHERE ${id} IN (?)`;
  const rows = await ask(db, sql, { values: [keys.map(BigInt)] });
  return new Map(rows.map((row) => [jsonNumber(row[source.key] as string), row]));
}

/**
 * The keys of random rows: for each fraction (0 to below 1) of the range from the least to the greatest key, the next
 * existing key. Returns none if the table is empty.
 */
export async function keysAt(db: Database, source: SourceTable, fractions: number[]): Promise<string[]> {
  if (!source.keys || fractions.length === 0) return [];
  const { source: name, key } = tables[source.table];
  const [least, greatest] = [BigInt(source.keys.least), BigInt(source.keys.greatest)];
  const from = fractions.map((fraction) => least + BigInt(Math.floor(fraction * Number(greatest - least + 1n))));
  const keys = async (sql: string, values: unknown[]) =>
    (await ask(db, sql, { values })).map(([found]) => jsonNumber(found as string));
  const there = await keys(`SELECT ${quote(key)} FROM ${quote(name)} WHERE ${quote(key)} IN (?)`, [from]);
  const found = new Map(there.map((text) => [BigInt(text), text]));
  const missing = [...new Set(from)].filter((value) => !found.has(value));
  // Only for gaps: a separate query for each key costs ten times as much.
  const next = `(SELECT ${quote(key)} FROM ${quote(name)} WHERE ${quote(key)} >= ? ORDER BY ${quote(key)} LIMIT 1)`;
  const after = missing.length > 0 ? await keys(missing.map(() => next).join(" UNION ALL "), missing) : [];
  for (const [i, value] of missing.entries()) found.set(value, after[i] ?? source.keys.greatest);
  return from.map((value) => found.get(value) as string);
}

/** Reads the rows of a page, each column's text. */
export async function readPageRows(db: Database, source: SourceTable, page: PageRows): Promise<Row[]> {
  const { where, values } = pageQuery(source, page);
  return await ask(db, `${selectOf(source).select} ${where}`, { values });
}
