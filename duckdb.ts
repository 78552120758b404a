/**
 * DuckDB, by `require`: under tsx an `import` of its many files makes the program start a third of a second later.
 *
 * @module
 */
import { createRequire } from "node:module";

export const duckdb = createRequire(import.meta.url)("@duckdb/node-api") as typeof import("@duckdb/node-api");
