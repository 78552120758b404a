/**
 * Publishes a cleaned batch: silver blocks with their deletes, then the rejects that mark it as done, then the ledger.
 *
 * @module
 */

import { join } from "node:path";
import { laterOffsets } from "../lake/bronze.ts";
import { numbers, parquetRows, unpackedBytes, writeParquet } from "../lake/duckdb.ts";
import { fileSize, type Offsets, paths, putInPlace, temporaryPath } from "../lake/files.ts";
import { doneOffsets, metadataClause, noState, notIn } from "../lake/footers.ts";
import { checkLedger, type LedgerRow, ledgerRow, writeLedger } from "../lake/ledger.ts";
import { blockName } from "../lake/silver.ts";
import { newestRows, publishWithDeletes, writeBlock } from "./deletes.ts";
import type { CleanRun, TableRun } from "./run.ts";

/** Where the new rows of a block are: in a file of only this block, in the table `cleaned`, in both or in neither. */
export interface NewRows {
  file?: string;
  inTable?: boolean;
  /** Whether the table `deleted` has rows of the block. */
  deletes?: boolean;
}

/** Publishes the new rows of a block, merged with its old ones; the newest message of an ind wins. */
export async function publishBlock(
  at: TableRun,
  { block, rows: { file, inTable, deletes = false }, next }: { block: number; rows: NewRows; next: Offsets },
): Promise<void> {
  const { run, table, connection, silver } = at;
  const name = blockName(block);
  const state = silver.get(name);
  const path = join(paths(run.root).silver(table), `${name}.parquet`);
  const sources = file === undefined ? [] : [parquetRows(file)];
  if (inTable || sources.length === 0) sources.push(`SELECT * EXCLUDE (block) FROM cleaned WHERE block = ${block}`);
  const fresh = `SELECT * FROM (${sources.join(" UNION ALL BY NAME ")}) WHERE ${notIn(state?.applied ?? new Map())}`;
  const both = state ? `${fresh} UNION ALL BY NAME ${parquetRows(path)}` : fresh;
  // After a stop files may be grouped differently: the block can be ahead of this batch in some partition.
  const applied = laterOffsets(next, state?.applied ?? []);
  if (deletes || at.deletes.get(name)?.rows) {
    return await publishWithDeletes(at, { block, path, fresh, both, applied, hasNew: deletes });
  }
  const [news = 0] = await numbers(connection, `SELECT count(*) FROM (${fresh})`);
  if (news === 0) return;
  const [losers = 0] = await numbers(connection, `SELECT count(*) - count(DISTINCT ind) FROM (${both})`);
  const superseded = (state?.superseded ?? 0) + losers;
  const { deletes: beside } = state ?? noState;
  let temporary = file;
  let rows = news;
  if (temporary === undefined || inTable || state || losers > 0) {
    temporary = temporaryPath(run.lake, `silver-${table}`, ".parquet");
    const metadata = metadataClause({ applied, superseded, deletes: beside });
    const joined = losers > 0;
    rows = await writeBlock(connection, joined ? newestRows(both) : both, { to: temporary, metadata, joined });
  }
  await putInPlace(temporary, path);
  silver.set(name, { ...noState, rows, applied, superseded, deletes: beside });
}

/**
 * A rejects file is appended to until it has this size in bytes, or this one before compression: each batch with rejects
 * rewrites it, and 100 MB of one letter are a few kB in the file.
 */
const rejectsBytes = 2_000_000;
const rejectsUnpacked = 32_000_000;

/** Adds the rows of `rejected` to the newest rejects file. Without rows, too, because it marks the batch as done. */
export async function publishRejects(
  { run, table, connection, rejects }: TableRun,
  { next, begun, rejected }: { next: Offsets; begun: Offsets; rejected: number },
): Promise<void> {
  const newest = [...rejects.keys()].sort().at(-1);
  const folder = paths(run.root).rejects;
  const pathOf = (name: string) => join(folder, `${name}.parquet`);
  const isFull = async (path: string) =>
    (await fileSize(path)) > rejectsBytes || (await unpackedBytes(connection, path)) > rejectsUnpacked;
  const full = newest !== undefined && (await isFull(pathOf(newest)));
  const number = newest === undefined ? 0 : Number(newest.slice(table.length + 1)) + (full ? 1 : 0);
  const name = `${table}-${String(number).padStart(6, "0")}`;
  const before = rejects.get(name);
  const reasons = { ...before?.reasons };
  const parts = before ? [parquetRows(pathOf(name))] : [];
  if (rejected > 0) {
    parts.push("SELECT * FROM rejected");
    const counts = await connection.runAndReadAll("SELECT reason, count(*) FROM rejected GROUP BY reason");
    for (const [reason, count] of counts.getRows()) {
      for (const sums of [reasons, run.cleaned.reasons]) {
        sums[String(reason)] = (sums[String(reason)] ?? 0) + Number(count);
      }
    }
  }
  const empty = `SELECT '' AS "table", 0::INT AS _partition, 0::BIGINT AS _offset, now() AS _posted_at, ''::BLOB AS key,
    '' AS reason, '' AS detail, ''::BLOB AS raw WHERE false`;
  const temporary = temporaryPath(run.lake, `rejects-${table}`, ".parquet");
  const metadata = metadataClause({ applied: next, begun, reasons });
  const rows = await writeParquet(connection, parts.join(" UNION ALL ") || empty, { to: temporary, metadata });
  await putInPlace(temporary, pathOf(name));
  rejects.set(name, { ...noState, rows, applied: next, begun, reasons });
}

/** Writes the ledger as of the last batch. @throws if it is not balanced */
export async function writeCheckedLedger({ lake, tables }: CleanRun): Promise<LedgerRow[]> {
  const rows = tables.map(({ table, bronze, silver, deletes, rejects }) => {
    const { applied } = doneOffsets(rejects);
    return ledgerRow(table, {
      files: bronze.filter((file) => file.next <= (applied.get(file.partition) ?? 0)),
      silver: [...silver.values()],
      deletes: [...deletes.values()],
      rejects: [...rejects.values()],
    });
  });
  await writeLedger((tables[0] as TableRun).connection, lake, rows);
  checkLedger(rows, lake);
  return rows;
}
