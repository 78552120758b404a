/**
 * The columns of silver: from the cleaning SQL, and a check that the files on disk have the same.
 *
 * @module
 */

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { Table } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { bronzeColumns } from "./bronze.ts";
import { literals, parquetRows } from "./duckdb.ts";
import { names, paths } from "./files.ts";
import { explainSql, readQuery, sqlPath } from "./sql_files.ts";

/** Columns in order, with DuckDB's types. */
export type Columns = Map<string, string>;

/** The columns of a query's result. */
export const describe = async (db: DuckDBConnection, query: string): Promise<Columns> =>
  new Map((await db.runAndReadAll(`DESCRIBE ${query}`)).getRows().map(([name, type]) => [String(name), String(type)]));

/** Columns of the cleaning SQL that are not columns of silver. */
const rejectColumns = ["reject_reason", "reject_detail", "reject_key", "reject_raw"];
/** Columns that each silver file must have: the key, and the message that a row came from. */
export const keptColumns = {
  ind: "BIGINT",
  _partition: "INTEGER",
  _offset: "BIGINT",
  _posted_at: "TIMESTAMP WITH TIME ZONE",
};

/**
 * The columns of a table's silver, from `sql/clean_<table>.sql`. The connection must have the prelude.
 *
 * @throws `Error` if the SQL does not run; `UsageError` if a column that the program needs is missing or has another type
 */
export async function silverColumns(db: DuckDBConnection, table: Table): Promise<Columns> {
  const file = `clean_${table}.sql`;
  const nothing = Object.entries(bronzeColumns).map(([name, type]) => `NULL::${type} AS ${name}`);
  await db.run(`CREATE OR REPLACE TEMP VIEW bronze AS SELECT ${nothing.join(", ")} WHERE false`);
  const columns = await describe(db, readQuery(file)).catch((error: unknown) => {
    throw explainSql(file, error);
  });
  const wrong = Object.entries(keptColumns).flatMap(([name, type]) =>
    columns.get(name) === type ? [] : [`"${name}" must be ${type}, not ${columns.get(name) ?? "missing"}`],
  );
  for (const name of rejectColumns) if (!columns.delete(name)) wrong.push(`"${name}" is missing`);
  if (wrong.length > 0) throw new UsageError(`Cannot use "${sqlPath(file)}": ${wrong.join("; ")}`);
  return columns;
}

/**
 * Checks that silver has the columns of the current cleaning SQL: rows with different columns must not mix.
 *
 * @throws `UsageError` that names the columns and says what to do
 */
export async function checkColumns(
  db: DuckDBConnection,
  { lake, table, columns }: { lake: string; table: Table; columns: Columns },
): Promise<void> {
  const folder = paths(lake).silver(table);
  const files = (await names(folder)).filter((name) => name.endsWith(".parquet")).map((name) => join(folder, name));
  if (files.length === 0) return;
  // One file of each schema is enough.
  const kinds = await db.runAndReadAll(
    `SELECT min(file_name) FROM (SELECT file_name, string_agg(concat_ws(' ', name, duckdb_type, num_children), ', ' ORDER BY column_id) AS kind
      FROM parquet_schema(${literals(files)}) GROUP BY file_name) GROUP BY kind`,
  );
  for (const [file] of kinds.getRows()) {
    const found = await describe(db, parquetRows(String(file)));
    const differences = [
      ...[...columns.keys()].filter((name) => !found.has(name)).map((name) => `"${name}" is new`),
      ...[...found.keys()].filter((name) => !columns.has(name)).map((name) => `"${name}" was dropped`),
      ...[...columns].flatMap(([name, type]) =>
        (found.get(name) ?? type) === type ? [] : [`"${name}" is ${type} and was ${found.get(name)}`],
      ),
    ];
    if (differences.length === 0 && String([...found.keys()]) !== String([...columns.keys()]))
      differences.push("their order differs");
    if (differences.length === 0) continue;
    throw new UsageError(
      `"${sqlPath(`clean_${table}.sql`)}" gives other columns than "${file}" has: ${differences.join("; ")}; run clean --rebuild, which cleans all rows with the current SQL (with --dry-run it only shows the changes)`,
    );
  }
}
