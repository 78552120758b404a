/**
 * A picture of a source table from a sample of its rows: each column's values, and what cleaning would do to them.
 *
 * @module
 */

import type { DuckDBConnection } from "@duckdb/node-api";
import type { Database } from "../db_conn/query.ts";
import { sampleRows } from "../db_conn/sample.ts";
import { guessRows, type SourceTable } from "../db_conn.ts";
import { type ColumnKind, type Row, rowToJson, type Table, tables } from "../io.ts";
import { quoted } from "../lake/duckdb.ts";
import { explainSql, readQuery } from "../lake/sql_files.ts";
import { duckdb } from "../runtime/duckdb.ts";

/** A value and in how many rows of the sample it is. */
export interface Counted {
  value: string;
  rows: number;
}

/** A column of a source table in the sample. */
export interface ColumnProfile {
  name: string;
  type: ColumnKind;
  nulls: number;
  distinct: number;
  /** The values that more than one row has, the most frequent first; at most three. */
  frequent: Counted[];
}

/** What cleaning would do to some values of a column. */
export interface Dirt {
  /** The column; of a reject the reason. */
  column: string;
  kind: "becomes null" | "loses outer blanks" | "is rewritten" | "is rejected";
  /** The most frequent value; of a reject the column with its value. */
  example: string;
  /** The example as it is after cleaning. */
  cleaned: string | null;
  /** Rows of this kind, the example's among them. */
  rows: number;
}

/** A source table in the sample. */
export interface TableProfile {
  source: string;
  /** Rows in the table, as the database estimates them. */
  estimated: number;
  sampled: number;
  columns: ColumnProfile[];
  dirt: Dirt[];
}

/** Rows of a sample, at most. */
const mostRows = 10_000;

/** Reads a sample and counts it. The connection must have the prelude. */
export async function profileTable(
  connection: DuckDBConnection,
  db: Database,
  source: SourceTable,
): Promise<TableProfile> {
  const rows = await sampleRows(db, source, mostRows);
  await loadSample(connection, source, rows);
  const columns: ColumnProfile[] = [];
  for (const { name, kind } of source.columns) {
    columns.push({ name, type: kind, ...(await profileColumn(connection, name)) });
  }
  return {
    source: tables[source.table].source,
    estimated: Math.max(await guessRows(db, source.table), rows.length),
    sampled: rows.length,
    columns,
    dirt: rows.length > 0 ? await findDirt(connection, source.table, source) : [],
  };
}

/** The table `raw`: the sample's rows, each with the message that it would be, numbered by `_offset`. */
async function loadSample(connection: DuckDBConnection, { columns }: SourceTable, rows: Row[]): Promise<void> {
  const { listValue, LIST, VARCHAR } = duckdb();
  // The columns come from the JSON: binding a list for each takes three times as long.
  const shape = JSON.stringify(Object.fromEntries(columns.map(({ name }) => [name, "VARCHAR"])));
  await connection.run(
    `CREATE OR REPLACE TEMP TABLE raw AS
     SELECT unnest(json_transform(_value, $2)), _value, row_number() OVER () AS _offset
     FROM (SELECT unnest($1) AS _value)`,
    [listValue(rows.map((row) => rowToJson(columns, row))), shape],
    [LIST(VARCHAR), VARCHAR],
  );
}

async function profileColumn(connection: DuckDBConnection, name: string) {
  const id = quoted(name);
  const [counts = []] = await query(connection, `SELECT count(*) - count(${id}), count(DISTINCT ${id}) FROM raw`);
  const frequent = await query(
    connection,
    `SELECT ${id}, count(*) AS n FROM raw WHERE ${id} IS NOT NULL GROUP BY ${id} HAVING n > 1 ORDER BY n DESC, ${id} LIMIT 3`,
  );
  return {
    nulls: Number(counts[0]),
    distinct: Number(counts[1]),
    frequent: frequent.map(([value, n]) => ({ value: String(value), rows: Number(n) })),
  };
}

/** Runs the cleaning SQL on the sample and compares the columns that keep their names. */
async function findDirt(connection: DuckDBConnection, table: Table, source: SourceTable): Promise<Dirt[]> {
  const file = `clean_${table}.sql`;
  await connection.run(`CREATE OR REPLACE TEMP VIEW bronze AS SELECT 0 AS _partition, _offset, NULL::BIGINT AS posted_ms,
    'n' AS key_is, NULL::VARCHAR AS key, 't' AS value_is, _value AS value FROM raw`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE cleaned AS ${readQuery(file)}`).catch((error: unknown) => {
    throw explainSql(file, error);
  });
  const dirt: Dirt[] = [];
  const add = (column: string, kind: Dirt["kind"], [example, cleaned, rows]: unknown[]) =>
    dirt.push({ column, kind, example: String(example), cleaned: cleaned as string | null, rows: Number(rows) });
  const types = new Map(
    (await query(connection, "SELECT column_name, column_type FROM (DESCRIBE cleaned)")) as [string, string][],
  );
  await connection.run(`CREATE OR REPLACE TEMP TABLE pairs AS SELECT raw AS before, cleaned AS after
    FROM raw JOIN cleaned ON raw._offset = cleaned._offset WHERE reject_reason IS NULL`);
  for (const { name } of source.columns) {
    const type = types.get(name);
    if (name === tables[table].key || type === undefined) continue;
    const [before, after] = [`before.${quoted(name)}`, `after.${quoted(name)}`];
    const nulled = await query(
      connection,
      `SELECT ${before}, NULL, count(*) AS n FROM pairs
       WHERE ${before} IS NOT NULL AND ${after} IS NULL GROUP BY ALL ORDER BY n DESC, 1 LIMIT 3`,
    );
    for (const row of nulled) add(name, "becomes null", row);
    const text = type.endsWith("[]") ? `array_to_string(${after}, ',')` : `CAST(${after} AS VARCHAR)`;
    // A time has another text in silver, but the same value.
    if (type.startsWith("TIMESTAMP")) continue;
    const rewritten = await query(
      connection,
      `SELECT first(b), first(a), sum(n), a = trim_text(b) AS trimmed FROM (
         SELECT ${before} AS b, ${text} AS a, count(*) AS n FROM pairs
         WHERE ${after} IS NOT NULL AND ${text} <> ${before} GROUP BY ALL ORDER BY n DESC, b)
       GROUP BY trimmed ORDER BY trimmed DESC`,
    );
    for (const row of rewritten) add(name, row[3] ? "loses outer blanks" : "is rewritten", row);
  }
  const rejected = await query(
    connection,
    `SELECT first(reject_detail ORDER BY _offset), NULL, count(*), reject_reason FROM cleaned
     WHERE reject_reason IS NOT NULL GROUP BY reject_reason ORDER BY 3 DESC`,
  );
  for (const row of rejected) add(String(row[3]), "is rejected", row);
  return dirt;
}

const query = async (connection: DuckDBConnection, sql: string): Promise<unknown[][]> =>
  (await connection.runAndReadAll(sql)).getRows();
