/**
 * The ledger: messages = clean + superseded + deleted + rejected, each counted independently.
 *
 * @module
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import { sum } from "../io/text.ts";
import { byTableInTurn, type Table } from "../io.ts";
import { withDuckDb } from "../runtime/duckdb.ts";
import { type BronzeFile, landedOffsets, listBronze, messagesIn } from "./bronze.ts";
import { literal, parquet, parquetRows } from "./duckdb.ts";
import { names, type Offsets, paths, putInPlace, temporaryPath } from "./files.ts";
import { doneOffsets, type FileState, fileStates } from "./footers.ts";

/** The ledger of one table. Each number is counted independently, so that an error shows. */
export interface LedgerRow {
  table: Table;
  messages: number;
  clean: number;
  superseded: number;
  deleted: number;
  rejected: number;
  reasons: Record<string, number>;
}

export const isBalanced = ({ messages, clean, superseded, deleted, rejected }: LedgerRow): boolean =>
  messages === clean + superseded + deleted + rejected;

/** @throws `Error` with the numbers if the ledger of a table is not balanced */
export function checkLedger(rows: LedgerRow[], lake: string): void {
  const wrong = rows.filter((row) => !isBalanced(row));
  if (wrong.length === 0) return;
  const sums = wrong.map(
    (r) =>
      `${r.table}: ${r.messages} messages, but ${r.clean} clean + ${r.superseded} superseded + ${r.deleted} deleted + ${r.rejected} rejected`,
  );
  throw new Error(
    `The ledger is not balanced: ${sums.join("; ")}. A file of the lake in "${lake}" was changed or removed; run clean --rebuild, which rebuilds silver, deletes and rejects from bronze`,
  );
}

/**
 * Checks that the first and last bronze files of each partition are there; {@link listBronze} checks between files.
 *
 * @throws `Error` that names the missing offsets
 */
export function checkBronze(lake: string, table: Table, files: BronzeFile[], rejects: Map<string, FileState>): void {
  const { begun, applied } = doneOffsets(rejects);
  for (const [partition, next] of applied) {
    const ours = files.filter((file) => file.partition === partition);
    const [first, last] = [ours[0]?.first, ours.at(-1)?.next];
    const start = begun.get(partition) ?? 0;
    if (first !== undefined && last !== undefined && first <= start && last >= next) continue;
    const there = first === undefined ? "has none of them" : `has only ${first} to ${(last as number) - 1}`;
    throw new Error(
      `Messages are missing from the lake: offsets ${start} to ${next - 1} of partition ${partition} were cleaned, but "${paths(lake).bronze(table)}" ${there}; restore the files, or start a new lake with another --data`,
    );
  }
}

/** How far a table is landed and cleaned, from file names and footers. */
export interface TableState {
  landed: Offsets;
  cleaned: Offsets;
  ledger: LedgerRow;
  /** Whether the ledger of cleaned messages is balanced; true while a batch is being published. */
  isBalanced: boolean;
}

/** Reads the state of all tables, without writing. Retries if a running clean moves files meanwhile. */
export async function lakeState(lake: string, tries = 5): Promise<Record<Table, TableState>> {
  try {
    const states = await withDuckDb({}, (connection) => byTableInTurn((table) => tableState(connection, lake, table)));
    // Clean may have published between two reads: only a second disagreement counts.
    if (tries > 4 && Object.values(states).some((state) => !state.isBalanced)) return await lakeState(lake, 4);
    return states;
  } catch (error) {
    if (tries === 1) throw error;
    return await lakeState(lake, tries - 1);
  }
}

async function tableState(connection: DuckDBConnection, lake: string, table: Table): Promise<TableState> {
  const rejects = await fileStates(connection, paths(lake).rejects, `${table}-`);
  const blocks = await fileStates(connection, paths(lake).silver(table));
  const deletes = await fileStates(connection, paths(lake).deletes(table));
  const { files } = await listBronze(lake, table);
  const { applied: cleaned } = doneOffsets(rejects);
  const parts = {
    silver: [...blocks.values()],
    deletes: [...deletes.values()],
    rejects: [...rejects.values()],
  };
  const isCleaned = (partition: number, next: number) => next <= (cleaned.get(partition) ?? 0);
  const done = files.filter(({ partition, next }) => isCleaned(partition, next));
  const publishing = parts.silver.some(({ applied }) => ![...applied].every(([p, next]) => isCleaned(p, next)));
  return {
    landed: landedOffsets(files),
    cleaned,
    ledger: ledgerRow(table, { files, ...parts }),
    isBalanced: publishing || isBalanced(ledgerRow(table, { files: done, ...parts })),
  };
}

/** Sums up the files of a table. */
export function ledgerRow(
  table: Table,
  { files, silver, deletes, rejects }: { files: BronzeFile[] } & Record<"silver" | "deletes" | "rejects", FileState[]>,
): LedgerRow {
  const reasons: Record<string, number> = {};
  for (const { reasons: some } of rejects) {
    for (const [reason, count] of Object.entries(some)) reasons[reason] = (reasons[reason] ?? 0) + count;
  }
  return {
    table,
    messages: messagesIn(files),
    clean: sum(silver, (block) => block.rows),
    superseded: sum(silver, (block) => block.superseded),
    deleted: sum(deletes, (file) => file.rows),
    rejected: sum(rejects, (file) => file.rows),
    reasons,
  };
}

/** Reads the ledger that clean wrote after its last batch; `undefined` if there is none yet. */
export async function readLedger(db: DuckDBConnection, lake: string): Promise<LedgerRow[] | undefined> {
  const rowsOf = (name: string) => db.runAndReadAll(parquetRows(join(paths(lake).gold, `${name}.parquet`)));
  if (!(await names(paths(lake).gold)).includes("ledger.parquet")) return undefined;
  const ledger = await rowsOf("ledger");
  const counts = await rowsOf("rejects_by_reason");
  return ledger.getRowObjects().map(({ table, messages, clean, superseded, deleted, rejected }) => ({
    table: table as Table,
    messages: Number(messages),
    clean: Number(clean),
    superseded: Number(superseded),
    // Earlier versions wrote no deletes.
    deleted: Number(deleted ?? 0),
    rejected: Number(rejected),
    reasons: Object.fromEntries(
      counts
        .getRows()
        .filter((row) => row[0] === table)
        .map((row) => [String(row[1]), Number(row[2])]),
    ),
  }));
}

/** Writes the ledger to gold. */
export async function writeLedger(db: DuckDBConnection, lake: string, rows: LedgerRow[]): Promise<void> {
  const values = (tuples: string[]) => `(VALUES ${tuples.join(", ")})`;
  const ledger = rows.map(
    (r) => `(${literal(r.table)}, ${r.messages}, ${r.clean}, ${r.superseded}, ${r.deleted}, ${r.rejected})`,
  );
  const reasons = rows.flatMap((r) =>
    Object.entries(r.reasons)
      .sort()
      .map(([reason, count]) => `(${literal(r.table)}, ${literal(reason)}, ${count})`),
  );
  await publishQuery(db, lake, "ledger", {
    query: `SELECT "table", messages::BIGINT AS messages, clean::BIGINT AS clean, superseded::BIGINT AS superseded,
      deleted::BIGINT AS deleted, rejected::BIGINT AS rejected
      FROM ${values(ledger)} t("table", messages, clean, superseded, deleted, rejected)`,
  });
  const none = reasons.length === 0;
  await publishQuery(db, lake, "rejects_by_reason", {
    query: `SELECT "table", reason, rejected::BIGINT AS rejected
      FROM ${values(none ? ["('', '', 0)"] : reasons)} t("table", reason, rejected)${none ? " WHERE false" : ""}`,
  });
}

/** Writes the result of a query to `gold/<name>.parquet`, atomically. */
export async function publishQuery(
  db: DuckDBConnection,
  lake: string,
  name: string,
  { query }: { query: string },
): Promise<void> {
  const { gold, tmp } = paths(lake);
  const temporary = temporaryPath(lake, name, ".parquet");
  await mkdir(gold, { recursive: true });
  await mkdir(tmp, { recursive: true });
  await db.run(`COPY (${query}) TO ${literal(temporary)} (${parquet})`);
  await putInPlace(temporary, join(gold, `${name}.parquet`));
}
