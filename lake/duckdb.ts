/**
 * DuckDB for the lake: with bounded memory and the prelude.
 *
 * @module
 */

import { join } from "node:path";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import pLimit from "p-limit";
import { openInstance } from "../runtime/duckdb.ts";
import { paths } from "./files.ts";
import { readSql } from "./sql_files.ts";

/** A text as an SQL literal. DuckDB accepts no parameters in COPY and file functions. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** Several texts as a list literal. */
export const literals = (texts: string[]): string => `[${texts.map(literal).join(", ")}]`;

/** A name as an SQL identifier. */
export const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** A query for the rows of Parquet files, by path or pattern. A folder named `ind=5` in the path adds no column. */
export const parquetRows = (files: string | string[]): string =>
  `SELECT * FROM read_parquet(${typeof files === "string" ? literal(files) : literals(files)}, hive_partitioning = false)`;

/**
 * COPY options for Parquet. The lowest level of zstd is a quarter faster than the default, for the same size. A row group
 * is bounded, because DuckDB holds several copies of it in memory: 65,536 rows may have gigabytes.
 */
export const parquet = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1, ROW_GROUP_SIZE_BYTES '64MB'";

/** The memory limit of DuckDB; Node needs about 150 MB more. */
export const memoryLimit = "800MB";

/** Opens an in-memory DuckDB with the prelude and bounded memory that spills into the lake's tmp folder. */
export async function openDuckDb(lake: string, settings: Record<string, string> = {}): Promise<DuckDBInstance> {
  const { tmp } = paths(lake);
  const db = await openInstance(":memory:", {
    memory_limit: memoryLimit,
    // One folder per process: DuckDB crashes if two processes spill into the same one.
    temp_directory: join(tmp, `duckdb-${process.pid}`),
    preserve_insertion_order: "false",
    ...settings,
  });
  const connection = await db.connect();
  await connection.run("SET GLOBAL TimeZone = 'UTC'");
  for (const statement of splitStatements(readSql("prelude.duckdb.sql"))) await connection.run(statement);
  connection.closeSync();
  return db;
}

/** Runs a query on a connection of a pool that no other query uses. */
export type OnFreeConnection = <T>(query: (connection: DuckDBConnection) => Promise<T>) => Promise<T>;

/** A pool: each connection runs one query at a time, and further queries wait. */
export function connectionPool(connections: DuckDBConnection[]): OnFreeConnection {
  const free = [...connections];
  const limit = pLimit(free.length);
  return (query) =>
    limit(async () => {
      const connection = free.pop() as DuckDBConnection;
      try {
        return await query(connection);
      } finally {
        free.push(connection);
      }
    });
}

const splitStatements = (sql: string): string[] =>
  sql
    .replace(/^\s*--.*$/gm, "")
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter(Boolean);

/** The first row of a result as numbers. */
export async function numbers(connection: DuckDBConnection, sql: string): Promise<number[]> {
  const rows = await connection.runAndReadAll(sql);
  return (rows.getRows()[0] ?? []).map(Number);
}

export const isOutOfMemory = (error: unknown): boolean => /Out of Memory/i.test((error as Error).message);

/** Writes the rows of a query to a Parquet file; `metadata` is COPY's clause for it. Returns their number. */
export async function writeParquet(
  connection: DuckDBConnection,
  rows: string,
  { to, metadata }: { to: string; metadata: string },
): Promise<number> {
  const [count = 0] = await numbers(connection, `COPY (${rows}) TO ${literal(to)} (${parquet}, ${metadata})`);
  return count;
}

/** The bytes of the columns of a Parquet file before compression. */
export async function unpackedBytes(connection: DuckDBConnection, path: string): Promise<number> {
  const sizes = `SELECT coalesce(sum(total_uncompressed_size), 0)::BIGINT FROM parquet_metadata(${literal(path)})`;
  const [bytes = 0] = await numbers(connection, sizes);
  return bytes;
}
