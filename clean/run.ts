/**
 * The state of one run of clean: DuckDB connections, and the files of each table.
 *
 * @module
 */

import { mkdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import { type Table, tableNames } from "../io.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { type BronzeFile, batchBytes, listBronze, weightOf } from "../lake/bronze.ts";
import { type Columns, checkColumns, silverColumns } from "../lake/columns.ts";
import { connectionPool, type OnFreeConnection, openDuckDb } from "../lake/duckdb.ts";
import { fileSize, names, paths } from "../lake/files.ts";
import { type FileState, fileStates } from "../lake/footers.ts";
import { checkBronze, type LedgerRow } from "../lake/ledger.ts";
import type { Notice } from "../runtime/notice.ts";
import { isAlive } from "../runtime/process.ts";
import { stopwatch } from "./rest.ts";

/** Progress events of the consumer. */
export type CleanFact =
  | { fact: "counted"; table: Table; total: number }
  | { fact: "cleaned"; table: Table; messages: number; rejected: number }
  | { fact: "done"; table: Table }
  | Notice;

/** Settings of {@link clean}. */
export interface CleanOptions {
  kafka: KafkaSettings;
  /** The lake's folder. */
  lake: string;
  /** The id of the database in the settings, if it could be read: the lake must belong to it. */
  database?: string;
  /** Read in micro-batches until stopped. Default false: read what the topics hold at the start. */
  follow?: boolean;
  /** How long the broker may be unavailable, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: CleanFact) => void;
}

/** Messages cleaned and rejected by a run, and the ledger of the lake. */
export interface CleanResult {
  messages: number;
  rejected: number;
  /** Rejects of this run by reason. */
  reasons: Record<string, number>;
  ledger: LedgerRow[];
}

/** One run of clean. `root` is where silver, deletes and rejects are written: the lake, or the folder of a rebuild. */
export interface CleanRun {
  lake: string;
  root: string;
  signal: AbortSignal;
  onFact: CleanOptions["onFact"];
  /** Groups bronze files into batches. */
  batches: (files: BronzeFile[]) => BronzeFile[][] | Promise<BronzeFile[][]>;
  /** In the order of `io.ts`. */
  tables: TableRun[];
  /** Messages that this run has cleaned, rejects included, and rejects. */
  cleaned: Omit<CleanResult, "ledger">;
  /** Time spent rewriting existing silver blocks. */
  rewriting: ReturnType<typeof stopwatch>;
  /** There is one connection per core. */
  onFreeConnection: OnFreeConnection;
  close(): void;
}

/** The state of one table in a run. */
export interface TableRun {
  run: CleanRun;
  table: Table;
  /** Private to the table, because temporary tables belong to a connection. */
  connection: DuckDBConnection;
  /** Columns of silver, from the cleaning SQL. */
  columns: Columns;
  bronze: BronzeFile[];
  /** By file name without extension. */
  silver: Map<string, FileState>;
  deletes: Map<string, FileState>;
  rejects: Map<string, FileState>;
}

const cores = availableParallelism();

/** Settings of DuckDB for cleaning. */
export const cleaning = {
  // Blocks are cleaned concurrently, one per core: threads within a query cost a fifth more.
  threads: String(Math.max(1, cores >> 1)),
  // DuckDB would push the filter on reject_reason below the parser and parse every message twice.
  disabled_optimizers: "filter_pushdown",
};

/** Opens DuckDB and lists the files of the lake. Removes unfinished files of earlier runs. */
export async function openRun(lake: string, options: LandedOptions, root = lake): Promise<CleanRun> {
  const { signal, onFact, batches = inBatches } = options;
  if (root === lake) await removeUnfinished(paths(lake).tmp);
  for (const folder of [paths(root).rejects, paths(lake).tmp]) await mkdir(folder, { recursive: true });
  const db = await openDuckDb(lake, cleaning);
  const connections: DuckDBConnection[] = [];
  const connect = async () => {
    const connection = await db.connect();
    connections.push(connection);
    return connection;
  };
  const interrupt = () => {
    for (const connection of connections) connection.interrupt();
  };
  signal.addEventListener("abort", interrupt);
  const run: CleanRun = {
    ...{ lake, root, signal, onFact, batches },
    tables: [],
    cleaned: { messages: 0, rejected: 0, reasons: {} },
    rewriting: stopwatch(),
    onFreeConnection: connectionPool(await Promise.all(Array.from({ length: cores }, connect))),
    close() {
      signal.removeEventListener("abort", interrupt);
      for (const connection of connections) connection.closeSync();
      db.closeSync();
    },
  };
  try {
    for (const table of tableNames) run.tables.push(await openTable(run, table, await connect()));
    return run;
  } catch (error) {
    run.close();
    throw error;
  }
}

/** Removes temporary files of earlier runs and of processes that have ended; those of running processes stay. */
async function removeUnfinished(folder: string): Promise<void> {
  for (const name of await names(folder)) {
    const owner = /-(\d+)(?:-\d+)?(?:\.\w+)?$/.exec(name)?.[1];
    if (/^(land|clean|silver|deletes|rejects)-|^rebuild$/.test(name) || (owner && !isAlive(Number(owner)))) {
      await rm(join(folder, name), { recursive: true, force: true });
    }
  }
}

async function openTable(run: CleanRun, table: Table, connection: DuckDBConnection): Promise<TableRun> {
  const { lake, root } = run;
  await mkdir(paths(lake).bronze(table), { recursive: true });
  await mkdir(paths(root).silver(table), { recursive: true });
  const { files: bronze, covered } = await listBronze(lake, table);
  if (root === lake) for (const path of covered) await rm(path);
  const rejectsIn = (folder: string) => fileStates(connection, paths(folder).rejects, `${table}-`);
  const rejects = await rejectsIn(root);
  // A rebuild replaces rejects, so damaged ones are accepted there; it checks bronze against the ledger instead.
  checkBronze(lake, table, bronze, root === lake ? rejects : await rejectsIn(lake).catch(() => rejects));
  const columns = await silverColumns(connection, table);
  // First the footers, which report damaged files.
  const silver = await fileStates(connection, paths(root).silver(table));
  const deletes = await fileStates(connection, paths(root).deletes(table));
  await checkColumns(connection, { lake: root, table, columns });
  return { run, table, connection, columns, bronze, silver, deletes, rejects };
}

/** Settings of {@link rebuild}. */
export type RebuildOptions = Pick<CleanOptions, "lake" | "signal" | "onFact">;

/** Settings of {@link cleanLanded}. */
export interface LandedOptions extends RebuildOptions {
  /** Groups bronze files into batches, in the order of each partition. For tests; default: about 192 MB. */
  batches?: CleanRun["batches"];
}

/** Groups files into batches of about {@link batchBytes}. */
async function inBatches(files: BronzeFile[]): Promise<BronzeFile[][]> {
  const batches: BronzeFile[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const file of files) {
    const size = weightOf(await fileSize(file.path), file.messages);
    if (bytes + size > batchBytes) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)?.push(file);
    bytes += size;
  }
  return batches;
}
