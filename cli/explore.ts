/**
 * The command explore: one post, and a picture of each table's columns.
 *
 * @module
 */

import type { DuckDBConnection } from "@duckdb/node-api";
import { explainMysql } from "../db_conn/errors.ts";
import type { Database } from "../db_conn/query.ts";
import { connectMysql, inspectTable, keysAt, readRows, type SourceTable } from "../db_conn.ts";
import { count, printable, some } from "../io/text.ts";
import { rowToJson, type Table, tableNames, tables } from "../io.ts";
import { openDuckDb } from "../lake/duckdb.ts";
import type { Connections, Context } from "./connect.ts";
import { bar, fit, fromDifference } from "./format.ts";
import { type ColumnProfile, type Dirt, profileTable, type TableProfile } from "./profile.ts";
import type { Terminal } from "./terminal.ts";

/** Shows the post of `--index`, or the tables' columns and a random post. */
export async function explore(context: Context, { mysql }: Connections): Promise<void> {
  const { terminal, flags, waitMs } = context;
  const isJson = flags.has("json");
  const db = await connectMysql(mysql, { waitMs });
  try {
    const pin = await inspectTable(db, mysql.database, "pin");
    const index = context.index ?? (await keysAt(db, pin, [Math.random()]))[0];
    if (index === undefined) throw new Error(`Table "${tables.pin.source}" is empty`);
    const sources = new Map<Table, SourceTable>([["pin", pin]]);
    for (const table of tableNames) {
      if (table !== "pin") sources.set(table, await inspectTable(db, mysql.database, table));
    }
    for (const { warnings } of sources.values()) for (const text of warnings) terminal.warn(text);
    const profiles = context.index === undefined ? await profileAll(context.lake, db, [...sources.values()]) : [];
    if (!isJson) for (const profile of profiles) terminal.print(`${formatProfile(profile)}\n`);
    const json = await showPost(db, { index, sources, terminal, isJson });
    const columns = tableNames.map((table, i) => [table, profiles[i]]);
    if (profiles.length > 0) json.push(`"columns":${JSON.stringify(Object.fromEntries(columns))}`);
    if (isJson) terminal.print(`{${json.join(",")}}`);
  } catch (error) {
    throw explainMysql(error, mysql);
  } finally {
    db.destroy();
  }
}

/**
 * Prints the rows of a post.
 *
 * @returns the parts of a JSON object with them
 * @throws if no table has a row of the post
 */
async function showPost(
  db: Database,
  options: { index: string; sources: Map<Table, SourceTable>; terminal: Terminal; isJson: boolean },
): Promise<string[]> {
  const { index, sources, terminal, isJson } = options;
  const json: string[] = [];
  let found = false;
  for (const [table, source] of sources) {
    const [row] = (await readRows(db, source, [index])).values();
    found ||= row !== undefined;
    json.push(`"${table}_result":${row ? rowToJson(source.columns, row) : "null"}`);
    if (isJson) continue;
    terminal.print(`${table}_result${row ? "" : `: no row with ${tables[table].key} ${index}`}`);
    for (const [i, { name }] of source.columns.entries()) {
      if (row) terminal.print(`  ${name.padEnd(18)} ${row[i] === null ? "NULL" : printable(String(row[i]))}`);
    }
  }
  if (!found) throw new Error(`No table has a row of the post ${index}`);
  return json;
}

async function profileAll(lake: string, db: Database, sources: SourceTable[]): Promise<TableProfile[]> {
  const duckDb = await openDuckDb(lake);
  let connection: DuckDBConnection | undefined;
  try {
    connection = await duckDb.connect();
    await connection.run("SET VARIABLE tolerant = true");
    const profiles: TableProfile[] = [];
    for (const source of sources) profiles.push(await profileTable(connection, db, source));
    return profiles;
  } finally {
    connection?.closeSync();
    duckDb.closeSync();
  }
}

/** A table's columns and dirt in lines of at most 80 columns. */
function formatProfile({ source, estimated, sampled, columns, dirt }: TableProfile): string {
  const all = estimated > sampled ? ` of about ${count(estimated)}` : "";
  const head = `${fit("column", 18)} ${fit("type", 8)} ${"nulls".padStart(6)} ${"distinct".padStart(8)}  most frequent value`;
  return [
    `${source}: sample of ${some(sampled, "row")}${all}`,
    `  ${head}`,
    `  ${"-".repeat(76)}`,
    ...columns.map((column) => formatColumn(column, sampled)),
    ...(dirt.length > 0
      ? ["", "  Cleaning these rows", `  ${"-".repeat(76)}`]
      : sampled > 0
        ? ["", "  Cleaning changes nothing in these rows"]
        : []),
    ...dirt.map((found) => formatDirt(found, sampled)),
  ].join("\n");
}

function formatColumn({ name, type, nulls, distinct, frequent }: ColumnProfile, sampled: number): string {
  const [first] = frequent;
  const values = first
    ? `${fit(first.value, 16)} ${shareBar(first.rows / sampled)} ${percent(first.rows, sampled)}`
    : distinct > 0
      ? "all different"
      : "";
  return `  ${fit(name, 18)} ${fit(type, 8)} ${count(nulls).padStart(6)} ${count(distinct).padStart(8)}  ${values}`.trimEnd();
}

function formatDirt({ column, kind, example, cleaned, rows }: Dirt, sampled: number): string {
  const what = {
    "becomes null": () => `${quoted(example, 26)} becomes null`,
    "loses outer blanks": () => "loses outer blanks",
    "is rewritten": () =>
      fromDifference(example, cleaned ?? "", 6)
        .map((text) => quoted(text, 17))
        .join(" to "),
    "is rejected": () => `rejected: ${example}`,
  }[kind]();
  return `  ${fit(column, 18)} ${fit(what, 42)} ${count(rows).padStart(6)} ${shareBar(rows / sampled)}`.trimEnd();
}

const quoted = (text: string, columns: number): string => `"${fit(text, columns).trimEnd()}"`;

/** A share from 0 to 1 as a bar; anything above 0 is visible. */
const shareBar = (share: number): string => bar(share > 0 ? Math.max(1, Math.round(share * 64)) : 0);

const percent = (part: number, whole: number): string => {
  const value = (part / whole) * 100;
  return `${value < 0.1 ? "<0.1" : value < 10 ? value.toFixed(1) : Math.round(value)} %`;
};
