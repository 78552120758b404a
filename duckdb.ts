/**
 * DuckDB, by `require` and when it is first needed: it is large, and under tsx an `import` takes three times as long.
 *
 * @module
 */
import { createRequire } from "node:module";

const require = createRequire(import.meta.url);

export const duckdb = () => require("@duckdb/node-api") as typeof import("@duckdb/node-api");
