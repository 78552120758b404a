/**
 * Opens DuckDB instances.
 *
 * @module
 */
import { createRequire } from "node:module";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";

const require = createRequire(import.meta.url);

/** Loaded with `require` at the first use: DuckDB is large, and under tsx an `import` takes three times as long. */
export const duckdb = () => require("@duckdb/node-api") as typeof import("@duckdb/node-api");

/**
 * Opens a database file or `:memory:`; `settings` are DuckDB settings.
 *
 * The cache of file contents is off. DuckDB 1.5 mistakes a new file for an old one if path, size, inode and second of
 * change are equal, as when a small file replaces another, and returns rows of the old file.
 */
export const openInstance = (path: string, settings: Record<string, string> = {}): Promise<DuckDBInstance> =>
  duckdb().DuckDBInstance.create(path, { enable_external_file_cache: "false", ...settings });

/** Runs `use` on a new in-memory DuckDB with time zone UTC, then closes it; `settings` are DuckDB settings. */
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
