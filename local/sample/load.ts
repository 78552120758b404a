/**
 * Loads the sample data: three tables of posts with all the dirt of the original, in its proportions.
 *
 * A row depends on its key only, so 2,000 rows are the first 2,000 of 1,000,000.
 *
 * @module
 */

import { Readable } from "node:stream";
import { setImmediate as breathe } from "node:timers/promises";
import mysql, { type Connection, type ResultSetHeader, type RowDataPacket } from "mysql2/promise";
import { tables } from "../../io.ts";
import type { MysqlAddress } from "../state.ts";
import { type SampleTable, sampleRow, sampleSize, sampleTables } from "./rows.ts";

/** Options of {@link loadSample}. */
interface SampleOptions {
  /** Posts to have. Default: the last number, at first {@link sampleSize}. */
  rows?: number;
  /** Gets the number of rows of a table during the load, at first the number of before. */
  onProgress?: (table: SampleTable, done: number, total: number) => void;
  /** How long to wait for a table lock of another session, ms. Another load is waited for without limit. Default: 60 s. */
  waitMs?: number;
  /** Ends the load early; the next one resumes there. */
  signal?: AbortSignal;
}

/**
 * Creates missing tables and adds sample posts until there are `rows`. It never removes rows, and leaves alone the tables
 * of others and rows that were inserted, updated or deleted since.
 *
 * @returns the number of posts; undefined if the tables are not this program's
 * @throws `Error` if `rows` is given and a table is not this program's, or if a table stays locked
 */
export async function loadSample(address: MysqlAddress, options: SampleOptions = {}): Promise<number | undefined> {
  const { waitMs = 60_000, onProgress, signal } = options;
  const connections = await Promise.all(sampleTables.map(() => open(address, waitMs)));
  const [first] = connections as [Connection];
  try {
    // A second program waits for the first. The server releases the lock with its connection.
    while (!(await one(first, "SELECT GET_LOCK('pinterest sample data', 1) AS value"))) signal?.throwIfAborted();
    const found = await Promise.all(sampleTables.map((table) => find(first, table)));
    const foreign = sampleTables.filter((_, i) => found[i] === "foreign");
    if (foreign.length > 0) {
      if (options.rows === undefined) return undefined;
      const names = foreign.map((table) => `"${tables[table].source}"`).join(", ");
      throw new Error(`Cannot add sample posts to ${names}: another program created it. Drop or rename it first`);
    }
    const states = found as Found[];
    const wanted = options.rows ?? (Math.max(...states.map((state) => state.total)) || sampleSize);
    const total = Math.max(wanted, ...states.map((state) => state.next));
    await Promise.all(
      sampleTables.map(async (table, i) => {
        const connection = connections[i] as Connection;
        const { next } = states[i] as Found;
        const onRows = (rows: number) => onProgress?.(table, rows, total);
        if (next < total) onRows(next);
        await fill(connection, table, { total, found: states[i] as Found, onRows, ...(signal && { signal }) });
      }),
    );
    signal?.throwIfAborted();
    return total;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ER_LOCK_WAIT_TIMEOUT") throw error;
    throw new Error(
      "Cannot fill the sample tables: another session has locked one of them; wait for it or end it, then run the same command again",
      { cause: error },
    );
  } finally {
    for (const connection of connections) connection.destroy();
  }
}

/** A table: the posts that it has or is to have, and the key to resume at. */
interface Found {
  exists: boolean;
  total: number;
  next: number;
}

/** The comment of a table says that this program created it, and how far it is filled. There is only one seed. */
const mark = (from: number, to: number) => `Sample posts, seed 1, ${from === to ? to : `${from} to ${to}`}`;

const marks = /^Sample posts, seed 1, (\d+)(?: to (\d+))?$/;

/** Whether the comment of a table says that this program created it. */
export const isSample = (comment: string): boolean => marks.test(comment);

async function find(connection: Connection, table: SampleTable): Promise<Found | "foreign"> {
  const { source, key } = tables[table];
  const where = `FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = '${source}'`;
  const comment = await one(connection, `SELECT TABLE_COMMENT AS value ${where}`);
  // MariaDB returns this text as the comment, not as an error.
  if (/^Lock wait timeout/.test(String(comment))) throw Object.assign(new Error(), { code: "ER_LOCK_WAIT_TIMEOUT" });
  if (comment === undefined) return { exists: false, total: 0, next: 0 };
  const [, from, to] = marks.exec(String(comment))?.map(Number) ?? [];
  if (from === undefined) return "foreign";
  const state = { exists: true, total: from, next: from };
  if (!to) return state;
  // The load was interrupted. Its rows are the first of the range; if there are others in it, the range is loaded again.
  const range = `FROM ${source} WHERE \`${key}\` >= ${from} AND \`${key}\` < ${to}`;
  const count = Number(await one(connection, `SELECT COUNT(*) AS value ${range}`));
  const next = Number((await one(connection, `SELECT MAX(\`${key}\`) + 1 AS value ${range}`)) ?? from);
  return { ...state, total: to, next: next - from === count ? next : from };
}

interface Fill {
  found: Found;
  total: number;
  onRows: (rows: number) => void;
  signal?: AbortSignal;
}

async function fill(connection: Connection, table: SampleTable, { found, total, onRows, signal }: Fill) {
  const { source, key, columns } = tables[table];
  if (found.exists && found.next === total && found.total === total) return;
  const comment = (from: number, to: number) => `COMMENT = '${mark(from, to)}'`;
  if (found.exists) await connection.query(`ALTER TABLE ${source} ${comment(found.next, total)}`);
  else {
    const types = Object.entries(columns).map(([name, kind]) => `\`${name}\` ${varchar[name] ?? kind}`);
    const definition = [...types, `PRIMARY KEY (\`${key}\`)`].join(", ");
    await connection.query(`CREATE TABLE ${source} (${definition}) CHARACTER SET utf8mb4 ${comment(0, total)}`);
  }
  // One transaction a step. LOAD DATA LOCAL skips duplicates, so existing rows are kept.
  for (let from = found.next; from < total; from += step) {
    const to = Math.min(from + step, total);
    const infileStreamFactory = () => rowStream(table, { from, to, onRows, ...(signal && { signal }) });
    const sql = `LOAD DATA LOCAL INFILE 'sample' INTO TABLE ${source} CHARACTER SET utf8mb4`;
    await connection.query<ResultSetHeader>({ sql, infileStreamFactory });
    signal?.throwIfAborted();
    onRows(to);
  }
  await connection.query(`ALTER TABLE ${source} ${comment(total, total)}`);
}

/** Rows per transaction. */
const step = 100_000;

/** Types of the text columns that are not TEXT. */
const varchar: Record<string, string> = {
  unique_id: "varchar(36)",
  follower_count: "varchar(32)",
  is_image_or_video: "varchar(64)",
  category: "varchar(64)",
  country: "varchar(128)",
  first_name: "varchar(64)",
  last_name: "varchar(64)",
};

async function open({ host, port, user, password, database }: MysqlAddress, waitMs: number): Promise<Connection> {
  const connection = await mysql.createConnection({ host, port, user, password, database, charset: "utf8mb4" });
  await connection.query(`SET lock_wait_timeout = ${Math.max(1, Math.floor(waitMs / 1_000))}`);
  // A million posts would be 0.6 GB of binary log, and a changed table comment would stop a follower.
  await connection.query("SET sql_log_bin = 0").catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ER_SPECIFIC_ACCESS_DENIED_ERROR") throw error;
  });
  return connection;
}

async function one(connection: Connection, sql: string): Promise<unknown> {
  const [[row]] = await connection.query<RowDataPacket[]>(sql);
  return row?.value;
}

/**
 * Rows in the format of LOAD DATA. A chunk holds whole rows and is one packet, so an interrupted load leaves no partial
 * row. Between chunks the event loop runs.
 */
function rowStream(
  table: SampleTable,
  { from, to, onRows, signal }: Pick<Fill, "onRows" | "signal"> & { from: number; to: number },
): Readable {
  let index = from;
  return new Readable({
    highWaterMark: 1 << 18,
    async read() {
      await breathe();
      if (index >= to || signal?.aborted) return void this.push(null);
      let text = "";
      while (index < to && text.length < 50_000) text += `${sampleRow(table, index++).map(escaped).join("\t")}\n`;
      onRows(index);
      this.push(Buffer.from(text));
    },
  });
}

const escapes: Record<string, string> = { "\\": "\\\\", "\t": "\\t", "\n": "\\n", "\0": "\\0" };
function escaped(text: string | null): string {
  if (text === null) return "\\N";
  return /[\\\t\n\0]/.test(text) ? text.replace(/[\\\t\n\0]/g, (char) => escapes[char] as string) : text;
}
