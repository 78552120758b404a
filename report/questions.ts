/**
 * The questions, read from sql/answers/, and the shape of an answer.
 *
 * @module
 */

import { type Table, tableNames, tables } from "../io.ts";
import type { LedgerRow } from "../lake/ledger.ts";
import { listSql, readSql, sqlPath } from "../lake/sql_files.ts";

/** A question of the report. Its answer is one file of `sql/answers/`. */
export interface Question {
  /** The name of its Parquet file and its Delta table. */
  name: string;
  title: string;
  /** Its file below `sql/`. */
  file: string;
  /** The tables that the file reads. */
  tables: Table[];
}

/** Reserved names: other tables of the lake and of Spark, and ids on the page. */
const taken = /^(ledger|matches|progress|rejects|rejects_by_reason|silver_.*|gaps|limits|land|sphere|c\d+)$/;

/**
 * Reads the questions from `sql/answers/`. A file is named `<number>_<name>.sql`; the numbers give the order in the report.
 * The first line is a comment with the title.
 *
 * @throws if a file has another name, a reserved name, or no title
 */
export function readQuestions(): Question[] {
  const found = new Map<string, Question & { place: number }>();
  for (const base of listSql("answers")) {
    const file = `answers/${base}`;
    const refuse = (why: string) => new Error(`Cannot use "${sqlPath(file)}": ${why}`);
    const [, place, name = ""] = /^(\d+)_([a-z][a-z0-9_]*)\.sql$/.exec(base) ?? [];
    if (!name) throw refuse(`expected a name such as "10_posts_by_month.sql" in lower case; rename the file`);
    const other = found.get(name);
    if (other) throw refuse(`"${sqlPath(other.file)}" has the same name; rename one of them`);
    if (taken.test(name)) throw refuse(`the program uses the name "${name}" itself; rename the file`);
    const sql = readSql(file);
    const [, title] = /^\s*--[ \t]*(\S.*)/.exec(sql) ?? [];
    if (!title) throw refuse(`expected a comment with the title in the first line, such as "-- Posts by month"`);
    found.set(name, { name, title: title.trimEnd(), file, tables: tablesOf(sql), place: Number(place) });
  }
  return [...found.values()].sort((a, b) => a.place - b.place);
}

/** The tables whose views an SQL text names outside comments and literals. */
function tablesOf(sql: string): Table[] {
  const words = new Set(sql.replace(/--.*|'[^']*'/g, "").match(/\w+/g));
  return tableNames.filter((table) => words.has(tables[table].view));
}

/** A value of an answer. Numbers beyond 2^53 are text. */
export type Cell = string | number | null;

/** The rows of one query. */
export interface Answer {
  columns: string[];
  rows: Cell[][];
}

/** The result of {@link report}. */
export interface Report {
  ledger: LedgerRow[];
  matches: Answer;
  /** By the names of the questions, in the order of the questions. */
  answers: Record<string, Answer>;
}
