/**
 * Computes the answers and the match rates from silver and writes them to gold.
 *
 * @module
 */

import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DuckDBConnection, DuckDBType, DuckDBValue } from "@duckdb/node-api";
import { type Table, tableNames, tables } from "../io.ts";
import { silverColumns } from "../lake/columns.ts";
import { connectionPool, isOutOfMemory, type OnFreeConnection, openDuckDb, parquetRows } from "../lake/duckdb.ts";
import { explainDisk, paths, writeInPlace } from "../lake/files.ts";
import { type LedgerRow, publishQuery, readLedger } from "../lake/ledger.ts";
import { readIdentity } from "../lake/owner.ts";
import { hasSilver } from "../lake/silver.ts";
import { explainSql, readQuery } from "../lake/sql_files.ts";
import { duckdb } from "../runtime/duckdb.ts";
import { allOf } from "../runtime/retry.ts";
import type { PageData } from "./page.ts";
import { type Answer, type Cell, type Question, type Report, readQuestions } from "./questions.ts";
import type { World } from "./world.ts";

/**
 * Answers the questions of `sql/answers/` from silver, writes each to `gold/<name>.parquet`, and all of them to `gold/report.html`.
 * It works while clean is running.
 *
 * @throws if nothing has been cleaned yet
 */
export async function report({ lake, signal }: { lake: string; signal: AbortSignal }): Promise<Report> {
  const questions = readQuestions();
  const db = await openDuckDb(lake);
  // DuckDB has no work for a second core in a query of few rows.
  const connections = await Promise.all([db.connect(), db.connect()]);
  try {
    for (let tries = 1, atOnce = 2; ; tries++) {
      signal.throwIfAborted();
      try {
        return await answerAll(connectionPool(connections.slice(0, atOnce)), { lake, questions, signal });
      } catch (error) {
        if (isOutOfMemory(error) && atOnce > 1) {
          atOnce = 1;
          continue;
        }
        // If clean replaces a silver file during a read, the read fails; it never returns wrong rows.
        if (tries === 10 || !/No files found|Could not|IO Error|Invalid Input Error/i.test((error as Error).message))
          throw explainDisk(error, lake);
        await sleep(100 * tries, undefined, { signal });
      }
    }
  } finally {
    for (const connection of connections) connection.closeSync();
    db.closeSync();
  }
}

const nothingIn = (lake: string) => new Error(`There is nothing to report in "${lake}" yet: run clean first`);

/** @throws if nothing has been cleaned yet, so that no services are started for nothing */
export async function needLake(lake: string): Promise<void> {
  if (!(await readIdentity(lake))) throw nothingIn(lake);
}

interface AnswerOptions {
  lake: string;
  questions: Question[];
  signal: AbortSignal;
}

async function answerAll(
  onFreeConnection: OnFreeConnection,
  { lake, questions, signal }: AnswerOptions,
): Promise<Report> {
  const ledger = await onFreeConnection((connection) => openViews(connection, lake));
  const publish = (name: string, file: string): Promise<Answer> =>
    onFreeConnection(async (connection) => {
      signal.throwIfAborted();
      await publishQuery(connection, lake, name, { query: readQuery(file) }).catch((error: unknown) => {
        throw explainSql(file, error);
      });
      return await readRows(connection, parquetRows(join(paths(lake).gold, `${name}.parquet`)));
    });
  const [matches, limits, answered, { reportPage }] = await allOf([
    publish("matches", "matches.sql"),
    onFreeConnection(readLimits),
    allOf(questions.map(({ name, file }) => publish(name, file))),
    // Imported here, because charts are slow to load and only the page needs them.
    import("./page.ts"),
  ]);
  const answers = Object.fromEntries(questions.map(({ name }, i) => [name, answered[i] as Answer]));
  const found = { ledger, matches, answers };
  signal.throwIfAborted();
  const prefix = (await readIdentity(lake))?.prefix;
  const page = reportPage({ ...found, ...limits, questions, prefix, madeAt: new Date() }, limits.world);
  await writeInPlace(lake, join(paths(lake).gold, "report.html"), page);
  return found;
}

/** Creates a view of each table's silver. @returns the ledger */
async function openViews(connection: DuckDBConnection, lake: string): Promise<LedgerRow[]> {
  const ledger = await readLedger(connection, lake);
  if (!ledger) throw nothingIn(lake);
  for (const table of tableNames) {
    const rows = await silverQuery(connection, lake, table);
    await connection.run(`CREATE OR REPLACE VIEW ${tables[table].view} AS ${rows}`);
  }
  return ledger;
}

async function readRows(
  connection: DuckDBConnection,
  query: string,
  values?: DuckDBValue[],
  valueTypes?: DuckDBType[],
): Promise<Answer> {
  const { DuckDBTypeId } = duckdb();
  const rows = await connection.runAndReadAll(query, values, valueTypes);
  const types = rows.columnTypes();
  const cell = (value: unknown, i: number): Cell => {
    if (value === null || typeof value === "number") return value;
    if (types[i]?.typeId === DuckDBTypeId.DECIMAL) {
      const text = String(value).replace(/\.0+$/, "");
      return Number.isSafeInteger(Math.trunc(Number(text))) ? Number(text) : text;
    }
    // DuckDB returns BIGINT as text, because a JS number cannot hold every value.
    const isCount = types[i]?.typeId === DuckDBTypeId.BIGINT && Number.isSafeInteger(Number(value));
    return isCount ? Number(value) : String(value);
  };
  return { columns: rows.columnNames(), rows: rows.getRowsJson().map((row) => row.map(cell)) };
}

/** Counts what limits the answers: gaps, and coordinates outside of their country. */
async function readLimits(
  connection: DuckDBConnection,
): Promise<Pick<PageData, "gaps" | "coordinates"> & { world: World }> {
  // Imported here, because the map is slow to load and only the page needs it.
  const { openWorld } = await import("./world.ts");
  const { DOUBLE, LIST, listValue, VARCHAR } = duckdb();
  const world = openWorld();
  const gaps = await readRows(connection, readQuery("gaps.sql"));
  const countries = await readRows(connection, "SELECT DISTINCT country FROM geo WHERE country IS NOT NULL");
  const boxes = countries.rows.flatMap(([name]) => {
    const country = String(name);
    const box = world.find(country)?.box;
    return box ? [{ country, box }] : [];
  });
  // Across the date line west is greater than east. The margin is for coarse outlines.
  const inside = `coordinates[1] BETWEEN south - 1 AND north + 1 AND CASE WHEN west <= east
    THEN coordinates[2] BETWEEN west - 1 AND east + 1 ELSE coordinates[2] >= west - 1 OR coordinates[2] <= east + 1 END`;
  const coordinates = await readRows(
    connection,
    `SELECT count(*), count(CASE WHEN ${inside} THEN 1 END) FROM pin JOIN geo ON pin.ind = geo.ind
      JOIN (SELECT name, box[1] AS west, box[2] AS south, box[3] AS east, box[4] AS north
        FROM (SELECT unnest($1) AS name, unnest($2) AS box)) ON geo.country = name
      WHERE coordinates IS NOT NULL`,
    [listValue(boxes.map(({ country }) => country)), listValue(boxes.map(({ box }) => listValue(box)))],
    [LIST(VARCHAR), LIST(LIST(DOUBLE))],
  );
  const [checked = 0, within = 0] = (coordinates.rows[0] ?? []).map(Number);
  return {
    gaps: Object.fromEntries(gaps.columns.map((name, i) => [name, gaps.rows[0]?.[i] ?? null])),
    coordinates: { checked, inside: within },
    world,
  };
}

async function silverQuery(connection: DuckDBConnection, lake: string, table: Table): Promise<string> {
  if (await hasSilver(lake, table)) return parquetRows(join(paths(lake).silver(table), "*.parquet"));
  const columns = [...(await silverColumns(connection, table))].map(([name, type]) => `NULL::${type} AS "${name}"`);
  return `SELECT ${columns.join(", ")} WHERE false`;
}
