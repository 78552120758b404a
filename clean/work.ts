/**
 * What one run of clean holds: DuckDB and its connections, and the files of each table.
 *
 * @module
 */

import { mkdir, readdir, rm } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import pLimit from "p-limit";
import { byTableInTurn, type Table, tableNames } from "../io.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import { type BronzeFile, batchBytes, listBronze } from "../lake/bronze.ts";
import { type Columns, checkColumns, silverColumns } from "../lake/columns.ts";
import { openDuckDb } from "../lake/duckdb.ts";
import { fileSize, paths } from "../lake/files.ts";
import { type FileState, fileStates } from "../lake/footers.ts";
import { checkBronze, type LedgerRow } from "../lake/ledger.ts";
import { isAlive } from "../runtime/process.ts";

/** What the consumer tells, in the past tense. */
export type CleanFact =
  | { fact: "counted"; table: Table; total: number }
  | { fact: "cleaned"; table: Table; messages: number; rejected: number }
  | { fact: "done"; table: Table }
  | { fact: "warned"; text: string }
  | { fact: "waited"; text: string };

/** Settings of {@link clean}. */
export interface CleanOptions {
  kafka: KafkaSettings;
  /** The lake's folder. */
  lake: string;
  /** The database that the settings name, where it could be asked: the lake must belong to it. */
  database?: string;
  /** Go on in micro-batches until stopped. Default false: read what is there at the start. */
  follow?: boolean;
  /** How long the broker may be away, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: CleanFact) => void;
}

/** What a run of clean did and what the lake holds now. */
export interface CleanResult {
  messages: number;
  rejected: number;
  ledger: LedgerRow[];
}

/** What a run of clean works with. `root` is where silver and rejects are made: the lake, or a rebuild's folder. */
export interface Work {
  lake: string;
  root: string;
  options: Pick<CleanOptions, "signal" | "onFact">;
  /** Groups landed files that are cleaned together. */
  batches: (files: BronzeFile[]) => BronzeFile[][] | Promise<BronzeFile[][]>;
  db: DuckDBInstance;
  /** One for each table, since temporary tables live in a connection. */
  connections: Record<Table, DuckDBConnection>;
  bronze: Record<Table, BronzeFile[]>;
  /** Of silver, as the cleaning SQL gives them. */
  columns: Record<Table, Columns>;
  silver: Record<Table, Map<string, FileState>>;
  rejects: Record<Table, Map<string, FileState>>;
  /** Runs a query on a connection that no other uses: as many at a time as there are cores. */
  aside: <T>(query: (connection: DuckDBConnection) => Promise<T>) => Promise<T>;
  close(): void;
}

const cores = availableParallelism();

/** How DuckDB is set for cleaning. */
export const cleaning = {
  // Blocks are cleaned side by side, as many as there are cores: threads of one query cost a fifth more than one alone.
  threads: String(Math.max(1, cores >> 1)),
  // Pushed down to where its columns are made, the filter on reasons would have the messages parsed twice.
  disabled_optimizers: "filter_pushdown",
};

export async function openWork(lake: string, options: LandedOptions, root = lake): Promise<Work> {
  const { signal, onFact, batches = inBatches } = options;
  if (root === lake) {
    // What is unfinished is done again; other programs' files there are their own.
    for (const name of await readdir(paths(lake).tmp).catch(() => [])) {
      const owner = /-(\d+)(?:-\d+)?(?:\.\w+)?$/.exec(name)?.[1];
      if (/^(land|clean|silver|rejects)-|^rebuild$/.test(name) || (owner && !isAlive(Number(owner)))) {
        await rm(join(paths(lake).tmp, name), { recursive: true, force: true });
      }
    }
  }
  const bronze = await byTableInTurn(async (table) => {
    const { files, covered } = await listBronze(lake, table);
    for (const path of covered) await rm(path);
    return files;
  });
  for (const table of tableNames) {
    await mkdir(paths(lake).bronze(table), { recursive: true });
    await mkdir(paths(root).silver(table), { recursive: true });
  }
  for (const folder of [paths(root).rejects, paths(lake).tmp]) await mkdir(folder, { recursive: true });
  const db = await openDuckDb(lake, cleaning);
  const connections = await byTableInTurn(() => db.connect());
  const free = await Promise.all(Array.from({ length: cores }, () => db.connect()));
  const every = [...Object.values(connections), ...free];
  const limit = pLimit(free.length);
  const aside: Work["aside"] = (query) =>
    limit(async () => {
      const connection = free.pop() as DuckDBConnection;
      try {
        return await query(connection);
      } finally {
        free.push(connection);
      }
    });
  const interrupt = () => {
    for (const connection of every) connection.interrupt();
  };
  signal.addEventListener("abort", interrupt);
  const close = () => {
    signal.removeEventListener("abort", interrupt);
    for (const connection of every) connection.closeSync();
    db.closeSync();
  };
  try {
    const rejectsIn = (folder: string) =>
      byTableInTurn((table) => fileStates(connections[table], paths(folder).rejects, `${table}-`));
    const rejects = await rejectsIn(root);
    // A rebuild makes rejects again, damaged ones too; the ledger tells it how much bronze there must be.
    const done = root === lake ? rejects : await rejectsIn(lake).catch(() => rejects);
    for (const table of tableNames) checkBronze(lake, table, bronze[table], done[table]);
    const columns = await byTableInTurn((table) => silverColumns(connections[table], table));
    for (const table of tableNames)
      await checkColumns(connections[table], { lake: root, table, columns: columns[table] });
    const silver = await byTableInTurn((table) => fileStates(connections[table], paths(root).silver(table)));
    return {
      lake,
      root,
      options: { signal, onFact },
      batches,
      db,
      connections,
      bronze,
      columns,
      silver,
      rejects,
      aside,
      close,
    };
  } catch (error) {
    close();
    throw error;
  }
}

/** Waits until all have ended, then throws the first failure: what is tried again would write the same files as what still runs. */
export async function allOf<T>(works: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}

/** Settings of {@link rebuild}. */
export type RebuildOptions = Pick<CleanOptions, "lake" | "signal" | "onFact">;

/** Settings of {@link cleanLanded}. */
export interface LandedOptions extends RebuildOptions {
  /** Groups bronze files that are cleaned together, in the order of each partition. For tests; default: about 192 MB. */
  batches?: Work["batches"];
}

/** Groups files so that each group is about one batch large. */
async function inBatches(files: BronzeFile[]): Promise<BronzeFile[][]> {
  const batches: BronzeFile[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const file of files) {
    const size = await fileSize(file.path);
    if (bytes + size > batchBytes) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)?.push(file);
    bytes += size;
  }
  return batches;
}
