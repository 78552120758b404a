/**
 * Checks whether the columns and the key of a source table can be posted.
 *
 * @module
 */

import { count, some } from "../io/text.ts";
import { type ColumnKind, type Row, type Table, tables } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { same } from "./log_statements.ts";
import { ask, type Database, quote, scanTimeout } from "./query.ts";

/** A column that is posted. */
export interface Column {
  name: string;
  kind: ColumnKind;
}

/** Tables without an index on their key are still checked and paged up to this many rows. */
const smallTable = 100_000;

const kinds: Record<string, ColumnKind> = {
  tinyint: "int",
  smallint: "int",
  mediumint: "int",
  int: "int",
  bigint: "int",
  year: "int",
  float: "float",
  double: "float",
  decimal: "float",
  date: "datetime",
  datetime: "datetime",
  timestamp: "datetime",
  time: "text",
  char: "text",
  varchar: "text",
  tinytext: "text",
  text: "text",
  mediumtext: "text",
  longtext: "text",
  enum: "text",
  set: "text",
  json: "text",
  // MariaDB sends these as text.
  uuid: "text",
  inet4: "text",
  inet6: "text",
};

/** What ALTER TABLE can convert a column to, by the kind that the contract wants. */
const sqlTypes: Record<ColumnKind, string> = { int: "BIGINT", float: "DOUBLE", text: "LONGTEXT", datetime: "DATETIME" };

/**
 * The columns to post, under the contract's names: MySQL does not distinguish upper from lower case.
 *
 * @param described the name and the type of each column
 * @returns also a line for each column that is left out, because JSON cannot hold its type
 * @throws `UsageError` if a column of the contract is missing or is one of these
 */
export function postedColumns(
  table: Table,
  described: Row[],
): {
  columns: Column[];
  warnings: string[];
} {
  const { source } = tables[table];
  const contract: Record<string, ColumnKind> = tables[table].columns;
  const columns: Column[] = [];
  const warnings: string[] = [];
  for (const [found, type] of described as string[][] as [string, string][]) {
    const name = Object.keys(contract).find((wanted) => same(found, wanted));
    const kind = kinds[type];
    if (kind) columns.push({ name: name ?? found, kind });
    else if (name === undefined) {
      warnings.push(`Column "${found}" of "${source}" is not posted: JSON has no value for its type ${type}`);
    } else {
      throw new UsageError(
        `Cannot post column "${found}" of "${source}": JSON has no value for its type ${type}; run ALTER TABLE ${quote(source)} MODIFY ${quote(found)} ${sqlTypes[contract[name] as ColumnKind]}`,
      );
    }
  }
  const missing = Object.keys(contract).filter(
    (wanted) => wanted !== "downloaded" && !columns.some(({ name }) => name === wanted),
  );
  if (missing.length > 0) {
    throw new UsageError(
      `Cannot post "${source}": it has no column ${missing.map((name) => `"${name}"`).join(" and no column ")}; add ${missing.length > 1 ? "them" : "it"}, or rename the columns that hold the values`,
    );
  }
  return { columns, warnings };
}

/**
 * Checks that rows can be read in the order of their keys.
 *
 * @throws `UsageError` if keys are not whole numbers, not unique, null, or without an index in a large table
 */
export async function checkKey(
  db: Database,
  table: Table,
  { described, indexes }: { described: Row[]; indexes: Row[] },
): Promise<void> {
  const { source, key } = tables[table];
  const [, type, nullable] = described.find(([name]) => same(name, key)) as Row;
  const kind = indexes.some(([index]) => index === "PRIMARY") ? "UNIQUE" : "PRIMARY KEY";
  const remedy = `ALTER TABLE ${quote(source)} ADD ${kind} (${quote(key)})`;
  const first = indexes.filter(([, , position, column]) => position === "1" && same(column, key));
  const isSingle = (index: Row) => !indexes.some(([name, , position]) => name === index[0] && position !== "1");
  const isUnique = first.some((index) => index[1] === "0" && isSingle(index));
  if (kinds[type as string] !== "int") {
    const modify = `ALTER TABLE ${quote(source)} MODIFY ${quote(key)} ${sqlTypes.int} NOT NULL`;
    throw new UsageError(
      `Cannot read "${source}" by its key "${key}": its type is ${type}, not a whole number; run ${modify}${isUnique ? "" : `, then ${remedy}`}`,
    );
  }
  if (nullable === "NO" && isUnique) return;
  const id = quote(key);
  const sql = `SELECT COUNT(*), COUNT(${id}), COUNT(DISTINCT ${id}) FROM ${quote(source)}`;
  const [counts] = await ask(db, sql, { timeout: scanTimeout });
  const [rows, filled, distinct] = (counts as string[]).map(Number) as [number, number, number];
  if (filled < rows || distinct < rows) {
    const fault = filled < rows ? `null in ${count(rows - filled)}` : `repeated in ${count(rows - distinct)}`;
    throw new UsageError(
      `Cannot post "${source}": its key "${key}" is ${fault} of ${some(rows, "row")}; fix them, then run ${remedy}`,
    );
  }
  if (first.length === 0 && rows > smallTable) {
    throw new UsageError(
      `Cannot read the ${count(rows)} rows of "${source}" by their key "${key}": it has no index; run ${remedy}`,
    );
  }
}
