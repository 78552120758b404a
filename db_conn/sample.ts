/**
 * A sample of a table's rows.
 *
 * @module
 */

import { keysAt, readPageRows, type SourceTable } from "../db_conn.ts";
import { type Row, tables } from "../io.ts";
import { ask, type Database } from "./query.ts";

/** Runs of neighbours in a sample. */
const runs = 20;
/** Bytes of a sample, about, by the average length of a row as the database estimates it. */
const sampleBytes = 64 * 2 ** 20;

/** Reads at most `most` rows, in 20 runs of neighbours that are spread evenly over the keys. */
export async function sampleRows(db: Database, source: SourceTable, most: number): Promise<Row[]> {
  const starts = [
    ...new Set(
      await keysAt(
        db,
        source,
        Array.from({ length: runs }, (_, i) => i / runs),
      ),
    ),
  ];
  const sql = "SELECT avg_row_length FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?";
  const [[length] = []] = await ask(db, sql, { values: [tables[source.table].source] });
  const limit = Math.max(1, Math.floor(Math.min(most, sampleBytes / Math.max(1, Number(length ?? 0))) / runs));
  const rows: Row[] = [];
  for (const [i, start] of starts.entries()) {
    const next = starts[i + 1];
    const upTo = next === undefined ? (source.keys?.greatest ?? start) : String(BigInt(next) - 1n);
    rows.push(...(await readPageRows(db, source, { after: String(BigInt(start) - 1n), upTo, limit })));
  }
  return rows;
}
