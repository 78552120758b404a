/**
 * The nine answers, the match rates and the ledger, from silver to gold.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type DuckDBConnection, DuckDBTypeId } from "@duckdb/node-api";
import { silver, type Table, tableNames } from "./io.ts";
import { hasSilver, literal, paths } from "./lake.ts";
import { type LedgerRow, openDuckDb, publishQuery, readLedger, readSql } from "./ledger.ts";

/** The nine questions, in the order in which they are shown. Their SQL is `sql/answers/<name>.sql`. */
export const questions = {
  top_category_by_country: "The most frequent category of each country",
  category_by_year: "Posts of each category by year, 2018 to 2022",
  top_poster_by_country: "The poster with the most followers in each country",
  top_country: "The country whose top poster has the most followers",
  top_category_by_age_group: "The most frequent category of each age group",
  median_followers_by_age_group: "Median number of followers by age group",
  users_joined_by_year: "People who joined, by year",
  median_followers_by_join_year: "Median number of followers by the year of joining",
  median_followers_by_join_year_and_age_group: "Median number of followers by age group and year of joining",
} as const;

export type Question = keyof typeof questions;

/** A value as it is shown: text, a number, or nothing. Whole numbers beyond 2^53 are text. */
export type Cell = string | number | null;

/** The rows of one query. */
export interface Answer {
  columns: string[];
  rows: Cell[][];
}

/** What {@link report} found. */
export interface Report {
  ledger: LedgerRow[];
  matches: Answer;
  answers: Record<Question, Answer>;
}

/**
 * Answers the nine questions from silver and writes each to `gold/<name>.parquet`. It works beside a running clean.
 *
 * @throws where nothing has been cleaned yet
 */
export async function report({ lake, signal }: { lake: string; signal: AbortSignal }): Promise<Report> {
  const db = await openDuckDb(lake);
  const connection = await db.connect();
  try {
    for (let tries = 1; ; tries++) {
      signal.throwIfAborted();
      try {
        return await answerAll(connection, lake, signal);
      } catch (error) {
        // A silver file that clean replaces while it is read gives an error, never wrong rows.
        if (tries === 10 || !/No files found|Could not|IO Error|Invalid Input Error/i.test((error as Error).message))
          throw error;
        await sleep(100 * tries, undefined, { signal });
      }
    }
  } finally {
    connection.closeSync();
    db.closeSync();
  }
}

async function answerAll(connection: DuckDBConnection, lake: string, signal: AbortSignal): Promise<Report> {
  const ledger = await readLedger(connection, lake);
  if (!ledger) throw new Error(`There is nothing to report in "${lake}" yet: run clean first`);
  for (const table of tableNames) {
    const name = table === "user" ? "users" : table;
    await connection.run(`CREATE OR REPLACE TEMP VIEW ${name} AS ${await silverQuery(lake, table)}`);
  }
  const publish = async (name: string, query: string): Promise<Answer> => {
    signal.throwIfAborted();
    await publishQuery(connection, lake, name, { query });
    const rows = await connection.runAndReadAll(`SELECT * FROM ${literal(`${paths(lake).gold}/${name}.parquet`)}`);
    const types = rows.columnTypes();
    const cell = (value: unknown, i: number): Cell => {
      if (value === null || typeof value === "number") return value;
      // DuckDB gives BIGINT as text, since a JS number may not hold it.
      const isCount = types[i]?.typeId === DuckDBTypeId.BIGINT && Number.isSafeInteger(Number(value));
      return isCount ? Number(value) : String(value);
    };
    return { columns: rows.columnNames(), rows: rows.getRowsJson().map((row) => row.map(cell)) };
  };
  const matches = await publish("matches", await readSql("matches.sql"));
  const answers: Partial<Record<Question, Answer>> = {};
  for (const name of Object.keys(questions) as Question[]) {
    answers[name] = await publish(name, await readSql(`answers/${name}.sql`));
  }
  return { ledger, matches, answers: answers as Record<Question, Answer> };
}

async function silverQuery(lake: string, table: Table): Promise<string> {
  if (await hasSilver(lake, table))
    return `SELECT * FROM read_parquet(${literal(`${paths(lake).silver(table)}/*.parquet`)})`;
  const columns = Object.entries(silver[table]).map(([name, type]) => `NULL::${type} AS ${name}`);
  return `SELECT ${columns.join(", ")} WHERE false`;
}
