/**
 * DuckDB: how every instance is opened, and how every file of the lake is read.
 *
 * @module
 */
import { createRequire } from "node:module";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";

const require = createRequire(import.meta.url);

/** By `require` and at first use: DuckDB is large, and under tsx an `import` takes three times as long. */
export const duckdb = () => require("@duckdb/node-api") as typeof import("@duckdb/node-api");

/**
 * Opens a database file or `:memory:`; `settings` are DuckDB's own.
 *
 * Its cache of file contents is off. DuckDB 1.5 takes a new file for an old one if path, size, inode and second of
 * change are the same, as they are when small files replace one another: rows of the old file come back.
 */
export const openInstance = (path: string, settings: Record<string, string> = {}): Promise<DuckDBInstance> =>
  duckdb().DuckDBInstance.create(path, { enable_external_file_cache: "false", ...settings });

/** Runs `use` on an in-memory DuckDB of its own whose time zone is UTC, and closes it; `settings` are DuckDB's own. */
export async function withDuckDb<T>(
  settings: Record<string, string>,
  use: (connection: DuckDBConnection) => Promise<T>,
): Promise<T> {
  const db = await openInstance(":memory:", settings);
  let connection: DuckDBConnection | undefined;
  try {
    connection = await db.connect();
    await connection.run("SET TimeZone = 'UTC'");
    return await use(connection);
  } finally {
    connection?.closeSync();
    db.closeSync();
  }
}
