/**
 * DuckDB as the lake uses it: bounded memory, the prelude loaded, and the files of `sql/`.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import { tableNames } from "../io.ts";
import { openInstance } from "../runtime/duckdb.ts";
import { diskIsFull, paths } from "./files.ts";
import { blockKeys, sharedFrom } from "./silver.ts";

/** A path or other text as an SQL literal; DuckDB takes no parameters in COPY and file functions. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** Several texts as a list literal. */
export const literals = (texts: string[]): string => `[${texts.map(literal).join(", ")}]`;

/** A query for the rows of Parquet files, by path or pattern. A folder named `ind=5` in the path adds no column. */
export const parquetRows = (files: string | string[]): string =>
  `SELECT * FROM read_parquet(${typeof files === "string" ? literal(files) : literals(files)}, hive_partitioning = false)`;

const sqlFolder = new URL("../sql/", import.meta.url);

/** One of the files of sql/. */
export const readSql = (name: string): Promise<string> => readFile(new URL(name, sqlFolder), "utf8");

/** The names of the SQL files in a folder of sql/, sorted; those that begin with a dot are an editor's. */
export const listSql = async (folder: string): Promise<string[]> =>
  (await readdir(new URL(folder, sqlFolder))).filter((name) => /^[^.].*\.sql$/.test(name)).sort();

/** Names the SQL file in an error of DuckDB. Other errors stay as they are, and so does a full disk. */
export function explainSql(name: string, error: unknown): Error {
  const { message } = error as Error;
  if (!/^[A-Z][\w ]* Error: /.test(message) || diskIsFull.test(message)) return error as Error;
  return new Error(`Cannot run "sql/${name}": ${message}`, { cause: error });
}

/** A hash of what silver depends on: prelude, cleaning, and which keys share a file. */
export async function sqlHash(): Promise<string> {
  const hash = createHash("sha256").update(`${blockKeys} ${sharedFrom}`);
  for (const name of ["prelude.duckdb.sql", ...tableNames.map((table) => `clean_${table}.sql`)]) {
    hash.update(await readSql(name));
  }
  return hash.digest("hex");
}

/** How Parquet is written. Zstd's lowest level takes a quarter off the time and adds nothing to the size. */
export const parquet = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1";

/** What DuckDB may take; Node has about 150 MB beside it. */
const memoryLimit = "800MB";

/** An in-memory DuckDB with the prelude, bounded in memory, that spills into the lake's tmp folder; `settings` are DuckDB's own. */
export async function openDuckDb(lake: string, settings: Record<string, string> = {}): Promise<DuckDBInstance> {
  const { tmp } = paths(lake);
  const db = await openInstance(":memory:", {
    memory_limit: memoryLimit,
    // Of its own: DuckDB crashes where two processes spill into one folder.
    temp_directory: join(tmp, `duckdb-${process.pid}`),
    preserve_insertion_order: "false",
    ...settings,
  });
  const connection = await db.connect();
  await connection.run("SET GLOBAL TimeZone = 'UTC'");
  for (const statement of splitStatements(await readSql("prelude.duckdb.sql"))) await connection.run(statement);
  connection.closeSync();
  return db;
}

const splitStatements = (sql: string): string[] =>
  sql
    .replace(/^\s*--.*$/gm, "")
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter(Boolean);

export async function numbers(connection: DuckDBConnection, sql: string): Promise<number[]> {
  const rows = await connection.runAndReadAll(sql);
  return (rows.getRows()[0] ?? []).map(Number);
}
