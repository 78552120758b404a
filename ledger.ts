/**
 * What the lake's Parquet files say of themselves, the ledger made of that, and DuckDB, which reads and writes them.
 *
 * @module
 */

import { createHash } from "node:crypto";
import { mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import { type Table, tableNames } from "./io.ts";
import {
  type BronzeFile,
  blockKeys,
  bronzeColumns,
  explainDisk,
  landedOffsets,
  listBronze,
  names,
  type Offsets,
  paths,
  putInPlace,
  sharedFrom,
  temporaryPath,
} from "./lake.ts";
import { literal, literals, openInstance, parquetRows } from "./runtime/duckdb.ts";
import { UsageError } from "./runtime/errors.ts";

/** What a Parquet file of the lake says of itself. */
export interface FileState {
  rows: number;
  /** Messages below these offsets are in it. */
  applied: Offsets;
  /** Of a rejects file: the offset that the lake begins with. */
  begun: Offsets;
  /** Of a silver block: how many clean messages lost to a newer one with the same ind. */
  superseded: number;
  /** Of a rejects file: how many of each reason. */
  reasons: Record<string, number>;
}

/** What a file says that has no rows and no metadata. */
export const noState: FileState = { rows: 0, applied: new Map(), begun: new Map(), superseded: 0, reasons: {} };

/** The metadata of all Parquet files in a folder whose names begin with `prefix`, by name without its ending. */
export async function fileStates(db: DuckDBConnection, folder: string, prefix = ""): Promise<Map<string, FileState>> {
  const states = new Map<string, FileState>();
  const files = (await names(folder)).filter((name) => name.startsWith(prefix) && name.endsWith(".parquet"));
  if (files.length === 0) return states;
  const list = literals(files.map((name) => join(folder, name)));
  const rows = await db
    .runAndReadAll(`SELECT file_name, num_rows FROM parquet_file_metadata(${list})`)
    .catch((error: Error) => {
      throw new Error(
        `A file of the lake is damaged: ${error.message.split("\n")[0]}; clean --rebuild makes silver and rejects again from bronze`,
        { cause: error },
      );
    });
  const key = (path: unknown) => String(path).slice(folder.length + 1, -".parquet".length);
  for (const [file, count] of rows.getRows()) {
    states.set(key(file), { ...noState, rows: Number(count) });
  }
  const metadata = await db.runAndReadAll(
    `SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata(${list})`,
  );
  for (const [file, name, value] of metadata.getRows()) {
    const state = states.get(key(file));
    if (!state) continue;
    if (name === "applied") state.applied = parseOffsets(String(value));
    if (name === "begun") state.begun = parseOffsets(String(value));
    if (name === "superseded") state.superseded = Number(value);
    if (name === "reasons") state.reasons = JSON.parse(String(value)) as Record<string, number>;
  }
  return states;
}

const parseOffsets = (json: string): Offsets =>
  new Map(
    Object.entries(JSON.parse(json) as Record<string, number>).map(([partition, next]) => [Number(partition), next]),
  );

/** What COPY writes beside the rows, for {@link fileStates} to read. */
export function metadataClause(state: Pick<FileState, "applied"> & Partial<FileState>): string {
  const offsets = (map: Offsets) => literal(JSON.stringify(Object.fromEntries(map)));
  const entries = [`applied: ${offsets(state.applied)}`];
  if (state.begun) entries.push(`begun: ${offsets(state.begun)}`);
  if (state.superseded !== undefined) entries.push(`superseded: ${literal(String(state.superseded))}`);
  if (state.reasons) entries.push(`reasons: ${literal(JSON.stringify(state.reasons))}`);
  return `KV_METADATA {${entries.join(", ")}}`;
}

/** The ledger of one table: each number counted on its own, so that it can fail to add up. */
export interface LedgerRow {
  table: Table;
  messages: number;
  clean: number;
  superseded: number;
  rejected: number;
  reasons: Record<string, number>;
}

export const addsUp = ({ messages, clean, superseded, rejected }: LedgerRow): boolean =>
  messages === clean + superseded + rejected;

/** @throws where the ledger of a table does not add up, with the numbers */
export function checkLedger(rows: LedgerRow[], lake: string): void {
  const wrong = rows.filter((row) => !addsUp(row));
  if (wrong.length === 0) return;
  const sums = wrong.map(
    (r) =>
      `${r.table}: ${r.messages} messages, but ${r.clean} clean + ${r.superseded} superseded + ${r.rejected} rejected`,
  );
  throw new Error(
    `The ledger does not add up: ${sums.join("; ")}. A file of the lake in "${lake}" was changed or removed; clean --rebuild makes silver and rejects again from bronze`,
  );
}

/** Which offsets of a table are done: its newest rejects file is written last. */
export function doneOffsets(rejects: Map<string, FileState>): Pick<FileState, "begun" | "applied"> {
  const newest = [...rejects.keys()].sort().at(-1);
  return (newest === undefined ? undefined : rejects.get(newest)) ?? noState;
}

/**
 * Makes sure that bronze holds every message that was cleaned; between files {@link listBronze} looks.
 *
 * @throws where the first or the last files of a partition are missing
 */
export function checkBronze(lake: string, table: Table, files: BronzeFile[], rejects: Map<string, FileState>): void {
  const { begun, applied } = doneOffsets(rejects);
  for (const [partition, next] of applied) {
    const ours = files.filter((file) => file.partition === partition);
    const [first, last] = [ours[0]?.first, ours.at(-1)?.next];
    const start = begun.get(partition) ?? 0;
    if (first !== undefined && last !== undefined && first <= start && last >= next) continue;
    const there = first === undefined ? "none is there" : `those there hold ${first} to ${(last as number) - 1}`;
    throw new Error(
      `The lake lacks messages: offsets ${start} to ${next - 1} of partition ${partition} were cleaned, but of the bronze files in "${paths(lake).bronze(table)}" ${there}; put the files back, or start a new lake by --data`,
    );
  }
}

/** How far a table is in the lake, read from names and footers; it may change meanwhile. */
export interface TableState {
  landed: Offsets;
  cleaned: Offsets;
  ledger: LedgerRow;
  /** Whether the ledger of what is cleaned adds up. Between silver and rejects of one batch it cannot be told: true. */
  addsUp: boolean;
}

/** Looks at the lake without writing; a clean that moves files meanwhile makes it look again. */
export async function lakeState(lake: string, tries = 5): Promise<Record<Table, TableState>> {
  const db = await openInstance(":memory:");
  const connection = await db.connect();
  try {
    const states: Partial<Record<Table, TableState>> = {};
    for (const table of tableNames) {
      const rejects = await fileStates(connection, paths(lake).rejects, `${table}-`);
      const blocks = await fileStates(connection, paths(lake).silver(table));
      const { files } = await listBronze(lake, table);
      const { applied: cleaned } = doneOffsets(rejects);
      const parts = { silver: [...blocks.values()], rejects: [...rejects.values()] };
      const isCleaned = (partition: number, next: number) => next <= (cleaned.get(partition) ?? 0);
      const done = files.filter(({ partition, next }) => isCleaned(partition, next));
      const publishing = parts.silver.some(({ applied }) => ![...applied].every(([p, next]) => isCleaned(p, next)));
      states[table] = {
        landed: landedOffsets(files),
        cleaned,
        ledger: ledgerRow(table, { files, ...parts }),
        addsUp: publishing || addsUp(ledgerRow(table, { files: done, ...parts })),
      };
    }
    // The files were not read at one moment: where they disagree, a second look tells whether clean was at work.
    if (tries > 4 && Object.values(states).some((state) => !state.addsUp)) return await lakeState(lake, 4);
    return states as Record<Table, TableState>;
  } catch (error) {
    if (tries === 1) throw error;
    return await lakeState(lake, tries - 1);
  } finally {
    connection.closeSync();
    db.closeSync();
  }
}

/** Adds up what is known of a table's files. */
export function ledgerRow(
  table: Table,
  { files, silver, rejects }: { files: BronzeFile[]; silver: FileState[]; rejects: FileState[] },
): LedgerRow {
  const sum = <T>(items: T[], value: (item: T) => number) => items.reduce((total, item) => total + value(item), 0);
  const reasons: Record<string, number> = {};
  for (const { reasons: some } of rejects) {
    for (const [reason, count] of Object.entries(some)) reasons[reason] = (reasons[reason] ?? 0) + count;
  }
  return {
    table,
    messages: sum(files, (file) => file.messages),
    clean: sum(silver, (block) => block.rows),
    superseded: sum(silver, (block) => block.superseded),
    rejected: sum(rejects, (file) => file.rows),
    reasons,
  };
}

/** Reads the ledger that clean wrote after its last batch, or `undefined` where there is none yet. */
export async function readLedger(db: DuckDBConnection, lake: string): Promise<LedgerRow[] | undefined> {
  const rowsOf = (name: string) => db.runAndReadAll(parquetRows(join(paths(lake).gold, `${name}.parquet`)));
  if (!(await names(paths(lake).gold)).includes("ledger.parquet")) return undefined;
  const ledger = await rowsOf("ledger");
  const counts = await rowsOf("rejects_by_reason");
  return ledger.getRows().map(([table, messages, clean, superseded, rejected]) => ({
    table: table as Table,
    messages: Number(messages),
    clean: Number(clean),
    superseded: Number(superseded),
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
  const ledger = rows.map((r) => `(${literal(r.table)}, ${r.messages}, ${r.clean}, ${r.superseded}, ${r.rejected})`);
  const reasons = rows.flatMap((r) =>
    Object.entries(r.reasons)
      .sort()
      .map(([reason, count]) => `(${literal(r.table)}, ${literal(reason)}, ${count})`),
  );
  await publishQuery(db, lake, "ledger", {
    query: `SELECT "table", messages::BIGINT AS messages, clean::BIGINT AS clean, superseded::BIGINT AS superseded,
      rejected::BIGINT AS rejected FROM ${values(ledger)} t("table", messages, clean, superseded, rejected)`,
  });
  const none = reasons.length === 0;
  await publishQuery(db, lake, "rejects_by_reason", {
    query: `SELECT "table", reason, rejected::BIGINT AS rejected
      FROM ${values(none ? ["('', '', 0)"] : reasons)} t("table", reason, rejected)${none ? " WHERE false" : ""}`,
  });
}

/** Writes a query's rows to `gold/<name>.parquet`, in one step for readers. */
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

/** Who holds a lock. */
interface Holder {
  pid: number;
  started: string;
}

/**
 * Takes the lake's writer lock, or says who has it. The lock is the operating system's on a DuckDB file that is open
 * for writing, since Node has none of its own: it ends with its process, however that ends.
 *
 * @throws `Error` that names the process that holds it
 */
export async function lockLake(lake: string): Promise<AsyncDisposable> {
  try {
    return await takeLock(lake);
  } catch (error) {
    throw explainDisk(error, lake);
  }
}

async function takeLock(lake: string): Promise<AsyncDisposable> {
  const { lock } = paths(lake);
  await mkdir(lake, { recursive: true });
  const take = () => openInstance(lock);
  const instance = await take().catch(async (error: Error) => {
    // Killed while it was being made: the file holds nothing but the lock.
    if (/not a valid DuckDB database|could not read|corrupt/i.test(error.message)) {
      await rm(lock, { force: true });
      return take();
    }
    if (!/Could not set lock/.test(error.message)) throw error;
    const text = await readFile(`${lock}.json`, "utf8").catch(() => "{}");
    const { pid = /PID (\d+)/.exec(error.message)?.[1], started } = parseHolder(text);
    throw new Error(
      `Another clean of the lake in "${lake}" is running: process ${pid}${started ? `, since ${started}` : ""}; let it finish, or stop it first`,
    );
  });
  const release = async () => {
    await rm(`${lock}.json`, { force: true });
    instance.closeSync();
  };
  const holder: Holder = { pid: process.pid, started: new Date().toISOString() };
  try {
    await writeFile(`${lock}.json`, JSON.stringify(holder));
  } catch (error) {
    await release();
    throw error;
  }
  return { [Symbol.asyncDispose]: release };
}

/** Nothing of what is being written just now. */
function parseHolder(text: string): Partial<Holder> {
  try {
    return JSON.parse(text) as Partial<Holder>;
  } catch {
    return {};
  }
}

const sqlFolder = new URL("./sql/", import.meta.url);

/** One of the files of sql/. */
export const readSql = (name: string): Promise<string> => readFile(new URL(name, sqlFolder), "utf8");

/** Names the file of an error in edited SQL; other errors stay as they are. */
export function explainSql(name: string, error: unknown): Error {
  const { message } = error as Error;
  if (!/^(Parser|Binder|Catalog) Error/.test(message)) return error as Error;
  return new Error(`Cannot run "sql/${name}": ${message}`, { cause: error });
}

/** Columns in order, with DuckDB's types. */
export type Columns = Map<string, string>;

const describe = async (db: DuckDBConnection, query: string): Promise<Columns> =>
  new Map((await db.runAndReadAll(`DESCRIBE ${query}`)).getRows().map(([name, type]) => [String(name), String(type)]));

/** What the cleaning SQL gives beside the columns of silver. */
const rejectColumns = ["reject_reason", "reject_detail", "reject_key", "reject_raw"];
/** What the program itself needs of silver. */
const keptColumns = { ind: "BIGINT", _partition: "INTEGER", _offset: "BIGINT", _posted_at: "TIMESTAMP WITH TIME ZONE" };

/**
 * The columns of a table's silver, as `sql/clean_<table>.sql` gives them. The connection must have the prelude.
 *
 * @throws where the SQL is wrong or does not give what the program needs
 */
export async function silverColumns(db: DuckDBConnection, table: Table): Promise<Columns> {
  const file = `clean_${table}.sql`;
  const nothing = Object.entries(bronzeColumns).map(([name, type]) => `NULL::${type} AS ${name}`);
  await db.run(`CREATE OR REPLACE TEMP VIEW bronze AS SELECT ${nothing.join(", ")} WHERE false`);
  const columns = await describe(db, await readSql(file)).catch((error: unknown) => {
    throw explainSql(file, error);
  });
  const wrong = Object.entries(keptColumns).flatMap(([name, type]) =>
    columns.get(name) === type ? [] : [`"${name}" must be ${type}, not ${columns.get(name) ?? "missing"}`],
  );
  for (const name of rejectColumns) if (!columns.delete(name)) wrong.push(`"${name}" is missing`);
  if (wrong.length > 0) throw new UsageError(`Cannot clean by "sql/${file}": ${wrong.join("; ")}`);
  return columns;
}

/**
 * Makes sure that silver has the columns that the cleaning SQL gives now: rows of two kinds must not mix.
 *
 * @throws `UsageError` that names the columns and says what to do
 */
export async function checkColumns(
  db: DuckDBConnection,
  { lake, table, columns }: { lake: string; table: Table; columns: Columns },
): Promise<void> {
  const folder = paths(lake).silver(table);
  const files = (await names(folder)).filter((name) => name.endsWith(".parquet")).map((name) => join(folder, name));
  if (files.length === 0) return;
  // One file of each kind is enough to describe.
  const kinds = await db.runAndReadAll(
    `SELECT min(file_name) FROM (SELECT file_name, string_agg(concat_ws(' ', name, duckdb_type, num_children), ', ' ORDER BY column_id) AS kind
      FROM parquet_schema(${literals(files)}) GROUP BY file_name) GROUP BY kind`,
  );
  for (const [file] of kinds.getRows()) {
    const found = await describe(db, parquetRows(String(file)));
    const differences = [
      ...[...columns.keys()].filter((name) => !found.has(name)).map((name) => `"${name}" is new`),
      ...[...found.keys()].filter((name) => !columns.has(name)).map((name) => `"${name}" is no longer there`),
      ...[...columns].flatMap(([name, type]) =>
        (found.get(name) ?? type) === type ? [] : [`"${name}" is ${type} now, and was ${found.get(name)}`],
      ),
    ];
    if (differences.length === 0 && String([...found.keys()]) !== String([...columns.keys()]))
      differences.push("their order is another");
    if (differences.length === 0) continue;
    throw new UsageError(
      `"sql/clean_${table}.sql" gives other columns than "${file}" has: ${differences.join("; ")}; run clean --rebuild, which makes silver again with the SQL as it is`,
    );
  }
}

/** A hash of what silver depends on: prelude, cleaning, and which keys share a file. */
export async function sqlHash(): Promise<string> {
  const hash = createHash("sha256").update(`${blockKeys} ${sharedFrom}`);
  for (const name of ["prelude.duckdb.sql", ...tableNames.map((table) => `clean_${table}.sql`)]) {
    hash.update(await readSql(name));
  }
  return hash.digest("hex");
}

/** How Parquet is written. Zstd's lowest level takes a quarter off the time and adds nothing to the size. */
export const parquet = "FORMAT parquet, COMPRESSION zstd, COMPRESSION_LEVEL 1";

/** What DuckDB may take; Node has about 150 MB beside it. */
const memoryLimit = "800MB";

/** An in-memory DuckDB with the prelude, bounded in memory, that spills into the lake's tmp folder; `settings` are DuckDB's own. */
export async function openDuckDb(lake: string, settings: Record<string, string> = {}): Promise<DuckDBInstance> {
  const { tmp } = paths(lake);
  const db = await openInstance(":memory:", {
    memory_limit: memoryLimit,
    // Of its own: DuckDB crashes where two processes spill into one folder.
    temp_directory: join(tmp, `duckdb-${process.pid}`),
    preserve_insertion_order: "false",
    ...settings,
  });
  const connection = await db.connect();
  await connection.run("SET GLOBAL TimeZone = 'UTC'");
  for (const statement of splitStatements(await readSql("prelude.duckdb.sql"))) await connection.run(statement);
  connection.closeSync();
  return db;
}

const splitStatements = (sql: string): string[] =>
  sql
    .replace(/^\s*--.*$/gm, "")
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter(Boolean);
