/**
 * DuckDB: how every instance is opened, and how every file of the lake is read.
 *
 * @module
 */
import { createRequire } from "node:module";
import type { DuckDBInstance } from "@duckdb/node-api";

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
