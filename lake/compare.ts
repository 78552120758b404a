/**
 * Compares the silver and the rejects of a table in two folders that were cleaned from the same messages.
 *
 * @module
 */

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { Table } from "../io.ts";
import { type Columns, describe, keptColumns } from "./columns.ts";
import { numbers, parquetRows, quoted } from "./duckdb.ts";
import { paths } from "./files.ts";
import type { FileState } from "./footers.ts";
import type { LedgerRow } from "./ledger.ts";

/** One of the two folders. */
export interface Side {
  root: string;
  ledger: LedgerRow;
  /** By file name without extension. */
  silver: Map<string, FileState>;
  rejects: Map<string, FileState>;
}

/** What differs in a table. */
export interface TableDifference {
  table: Table;
  before: LedgerRow;
  after: LedgerRow;
  /** Rows of silver by ind: only after, only before, and in both with another value in at least one column. */
  rows: { added: number; removed: number; changed: number };
  /** Columns of silver that are new, dropped or of another type: null where it is not there. */
  columns: { column: string; before: string | null; after: string | null }[];
  /** Whether the columns that are in both have another order. */
  reordered: boolean;
  /** How many rows have another value, by column; only columns where some have. */
  values: { column: string; rows: number }[];
  /** Messages by reject reason; null where they are not rejected. Only messages whose reason differs. */
  rejects: { before: string | null; after: string | null; messages: number; example: string }[];
  /** A few values that differ, of each column; as text of at most 1,000 characters. */
  examples: { ind: string; column: string; before: string | null; after: string | null }[];
}

/** Examples of one column. */
const mostExamples = 3;

/** Compares block by block, so that memory has a bound. `columns` are those of `after`. */
export async function compareTable(
  db: DuckDBConnection,
  { table, before, after, columns, signal }: CompareOptions,
): Promise<TableDifference> {
  const blockPath = (side: Side, name: string) => join(paths(side.root).silver(table), `${name}.parquet`);
  const [oldest] = before.silver.keys();
  const old = oldest === undefined ? columns : await describe(db, parquetRows(blockPath(before, oldest)));
  const shared = [...columns.keys()].filter((name) => old.has(name) && !(name in keptColumns));
  const difference: TableDifference = {
    ...{ table, before: before.ledger, after: after.ledger },
    rows: { added: 0, removed: 0, changed: 0 },
    columns: columnDifferences(old, columns),
    reordered: String(namesIn(old, columns)) !== String(namesIn(columns, old)),
    ...{ values: [], rejects: await compareRejects(db, before, after), examples: [] },
  };
  const changed = new Map(shared.map((name) => [name, 0]));
  for (const name of [...new Set([...before.silver.keys(), ...after.silver.keys()])].sort()) {
    signal.throwIfAborted();
    const rowsOf = (side: Side, its: Columns) =>
      side.silver.has(name) ? parquetRows(blockPath(side, name)) : emptyRows(its);
    const block = { before: rowsOf(before, old), after: rowsOf(after, columns) };
    const counts = await compareBlock(db, block, shared);
    difference.rows.added += counts.added;
    difference.rows.removed += counts.removed;
    difference.rows.changed += counts.changed;
    for (const [i, column] of shared.entries()) {
      const rows = counts.byColumn[i] ?? 0;
      changed.set(column, (changed.get(column) ?? 0) + rows);
      const wanted = mostExamples - difference.examples.filter((example) => example.column === column).length;
      if (rows > 0 && wanted > 0) difference.examples.push(...(await readExamples(db, block, column, wanted)));
    }
  }
  difference.values = [...changed].flatMap(([column, rows]) => (rows > 0 ? [{ column, rows }] : []));
  return difference;
}

/** Settings of {@link compareTable}. */
interface CompareOptions {
  table: Table;
  before: Side;
  after: Side;
  columns: Columns;
  signal: AbortSignal;
}

const namesIn = (some: Columns, others: Columns): string[] => [...some.keys()].filter((name) => others.has(name));

function columnDifferences(before: Columns, after: Columns): TableDifference["columns"] {
  return [...new Set([...before.keys(), ...after.keys()])].flatMap((column) => {
    const [one, other] = [before.get(column) ?? null, after.get(column) ?? null];
    return one === other ? [] : [{ column, before: one, after: other }];
  });
}

const emptyRows = (columns: Columns): string =>
  `SELECT ${[...columns].map(([name, type]) => `NULL::${type} AS ${quoted(name)}`).join(", ")} WHERE false`;

/** Queries for the rows of one key block on both sides. */
interface Block {
  before: string;
  after: string;
}

/** As text, because the types of the column may differ. */
const isOther = (column: string): string =>
  `one.${quoted(column)}::VARCHAR IS DISTINCT FROM other.${quoted(column)}::VARCHAR`;

async function compareBlock(db: DuckDBConnection, { before, after }: Block, columns: string[]) {
  const inBoth = "one.ind IS NOT NULL AND other.ind IS NOT NULL";
  const count = (condition: string) => `count(*) FILTER (${inBoth} AND (${condition}))`;
  const [added = 0, removed = 0, changed = 0, ...byColumn] = await numbers(
    db,
    `SELECT count(*) FILTER (one.ind IS NULL), count(*) FILTER (other.ind IS NULL),
      ${[columns.map(isOther).join(" OR ") || "false", ...columns.map(isOther)].map(count).join(", ")}
      FROM (${before}) AS one FULL JOIN (${after}) AS other ON one.ind = other.ind`,
  );
  return { added, removed, changed, byColumn };
}

async function readExamples(
  db: DuckDBConnection,
  { before, after }: Block,
  column: string,
  wanted: number,
): Promise<TableDifference["examples"]> {
  const text = (side: string) => `left(${side}.${quoted(column)}::VARCHAR, 1000)`;
  const rows = await db.runAndReadAll(
    `SELECT one.ind::VARCHAR, ${text("one")}, ${text("other")}
      FROM (${before}) AS one JOIN (${after}) AS other ON one.ind = other.ind
      WHERE ${isOther(column)} ORDER BY one.ind LIMIT ${wanted}`,
  );
  return rows.getRows().map(([ind, one, other]) => ({
    ...{ ind: String(ind), column },
    ...{ before: one as string | null, after: other as string | null },
  }));
}

async function compareRejects(db: DuckDBConnection, before: Side, after: Side): Promise<TableDifference["rejects"]> {
  const rowsOf = ({ root, rejects }: Side) => {
    const files = [...rejects.keys()].map((name) => join(paths(root).rejects, `${name}.parquet`));
    return files.length > 0
      ? parquetRows(files)
      : "SELECT 0::INT AS _partition, 0::BIGINT AS _offset, '' AS reason, '' AS detail WHERE false";
  };
  const rows = await db.runAndReadAll(
    `SELECT one.reason, other.reason, count(*),
      arg_min(coalesce(other.detail, one.detail), (coalesce(other._partition, one._partition), coalesce(other._offset, one._offset)))
      FROM (${rowsOf(before)}) AS one FULL JOIN (${rowsOf(after)}) AS other
        ON one._partition = other._partition AND one._offset = other._offset
      WHERE one.reason IS DISTINCT FROM other.reason GROUP BY ALL ORDER BY 3 DESC, 1, 2`,
  );
  return rows.getRows().map(([one, other, messages, example]) => ({
    ...{ before: one as string | null, after: other as string | null },
    ...{ messages: Number(messages), example: String(example ?? "") },
  }));
}
