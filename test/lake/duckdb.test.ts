import assert from "node:assert/strict";
import { rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { literal, parquetRows } from "../../lake/duckdb.ts";
import { withDuckDb } from "../../runtime/duckdb.ts";
import { sources } from "../support/sources.ts";
import { temporaryFolder } from "../support/support.ts";

test("a replaced file is read with its new contents", async () => {
  const folder = await temporaryFolder();
  const path = join(folder.path, "block.parquet");
  const wrong: string[] = [];
  try {
    await withDuckDb({}, async (connection) => {
      // Each file has the size of the one before, and mostly its inode and its second of change.
      for (let i = 100; i < 130; i++) {
        const query = `SELECT 7 AS ind, 0::INT AS _partition, ${i}::BIGINT AS _offset, 'C${i}' AS country`;
        const made = i % 2 === 0 ? path : join(folder.path, "made.parquet");
        if (made === path) await rm(path, { force: true });
        await connection.run(`COPY (${query}) TO ${literal(made)} (FORMAT parquet, COMPRESSION zstd)`);
        if (made !== path) await rename(made, path);
        const rows = await connection.runAndReadAll(`SELECT country FROM (${parquetRows(path)}) WHERE _offset >= ${i}`);
        const [[country = "no row"] = []] = rows.getRows();
        if (country !== `C${i}`) wrong.push(`C${i} was written, ${country} read`);
        await sleep(40);
      }
    });
    assert.deepEqual(wrong, []);
  } finally {
    await folder.remove();
  }
});

test("only runtime/duckdb.ts and lake/duckdb.ts open DuckDB and read Parquet files", () => {
  const found = sources().filter(
    ({ path, text }) =>
      !/^(runtime|lake)\/duckdb\.ts$/.test(path) &&
      /DuckDBInstance\.(create|fromCache)|read_parquet|FROM '\$\{|FROM \$\{literal/.test(text),
  );
  assert.deepEqual(
    found.map(({ path }) => path),
    [],
  );
});
