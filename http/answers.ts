/**
 * The answers of the last report.
 *
 * @module
 */

import { join } from "node:path";
import type { FastifyInstance } from "fastify";
import { parquetRows } from "../lake/duckdb.ts";
import { names, paths } from "../lake/files.ts";
import { type Question, readQuestions } from "../report/questions.ts";
import { duckdb, withDuckDb } from "../runtime/duckdb.ts";
import { list, maybe, object, text, whole } from "./openapi.ts";

/** One answer as it is in gold. */
export interface GoldAnswer {
  name: string;
  title: string;
  columns: string[];
  /** The first `rowsShown`. */
  rows: (string | number | null)[][];
  /** How many rows there are. */
  total: number;
}

const rowsShown = 1_000;

/** Describes the report's age and {@link GoldAnswer}. */
export function addAnswerSchemas(app: FastifyInstance): void {
  const time = (what: string) => ({ ...maybe("integer"), description: `When ${what} written, ms since 1970` });
  const age = { at: time("the last report was"), rows_at: time("the newest rows of silver were") };
  const cell = { type: ["string", "number", "null"] };
  const answer = { name: text, title: text, columns: list(text), rows: list(list(cell)), total: whole };
  app.addSchema({ $id: "ReportAge", ...object(age) });
  app.addSchema({ $id: "Answer", ...object(answer) });
}

/** Reads the answers of the last report in the order of their questions; an answer that is missing is left out. */
export async function readAnswers(lake: string): Promise<GoldAnswer[]> {
  const { gold } = paths(lake);
  const written = await names(gold);
  const questions = readQuestions().filter(({ name }) => written.includes(`${name}.parquet`));
  if (questions.length === 0) return [];
  const { DuckDBTypeId } = duckdb();
  return await withDuckDb({ memory_limit: "200MB", threads: "1" }, async (connection) => {
    const read = async ({ name, title }: Question): Promise<GoldAnswer> => {
      const source = parquetRows(join(gold, `${name}.parquet`));
      const counted = await connection.runAndReadAll(`SELECT count(*)::INTEGER FROM (${source})`);
      const found = await connection.runAndReadAll(`${source} LIMIT ${rowsShown}`);
      const isText = found.columnTypes().map(({ typeId }) => typeId === DuckDBTypeId.VARCHAR);
      const rows = found.getRowsJson().map((row) =>
        row.map((value, i) => {
          if (value === null || typeof value === "number") return value;
          return isText[i] || Number.isNaN(Number(value)) ? String(value) : Number(value);
        }),
      );
      return { name, title, columns: found.columnNames(), rows, total: counted.getRows()[0]?.[0] as number };
    };
    const answers: GoldAnswer[] = [];
    for (const question of questions) answers.push(await read(question));
    return answers;
  });
}
