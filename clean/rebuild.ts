/**
 * Rebuilds silver, deletes and rejects from bronze with the current SQL, and swaps the result in file by file.
 *
 * @module
 */

import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { byTableInTurn, type Table, tableNames } from "../io.ts";
import { messagesIn } from "../lake/bronze.ts";
import { explainDisk, names, paths, syncPath } from "../lake/files.ts";
import { readLedger } from "../lake/ledger.ts";
import { lockLake, readIdentity, writeIdentity } from "../lake/owner.ts";
import { sqlHash } from "../lake/sql_files.ts";
import { step } from "../runtime/steps.ts";
import { finishLanded } from "./batch.ts";
import { writeCheckedLedger } from "./publish.ts";
import {
  type CleanResult,
  type CleanRun,
  type LandedOptions,
  openRun,
  type RebuildOptions,
  type TableRun,
} from "./run.ts";

/**
 * Rebuilds silver, deletes and rejects from bronze alone, with the current SQL. The new files are written to a separate
 * folder and replace the old ones only when all are complete. A stop before that changes nothing; after a stop during
 * the replacement the next clean finishes it.
 *
 * @throws `Error` if there is no lake, another clean is running, or bronze files are missing
 */
export async function rebuild(options: RebuildOptions): Promise<CleanResult> {
  const { lake, onFact } = options;
  await using _lock = await lockLake(lake);
  await requireLake(lake);
  await finishRebuild(lake);
  const building = buildingFolder(lake);
  const sql = sqlHash();
  const cleaned = await buildAside(options, building, async (run) => {
    for (const { table, bronze } of run.tables) onFact({ fact: "counted", table, total: messagesIn(bronze) });
    for (const at of run.tables) await finishLanded(at);
    return run.cleaned;
  });
  const built = paths(building);
  const plan: Plan = {
    sql,
    blocks: await byTableInTurn((table) => names(built.silver(table))),
    deletes: await byTableInTurn((table) => names(built.deletes(table))),
    rejects: await names(built.rejects),
  };
  await writeFile(join(building, "plan.json"), JSON.stringify(plan));
  await syncPath(join(building, "plan.json"));
  step("written", readyFolder(lake));
  await rename(building, readyFolder(lake));
  step("renamed", readyFolder(lake));
  await syncPath(paths(lake).tmp);
  await finishRebuild(lake);
  return { ...cleaned, ledger: (await cleanLanded(options)).ledger };
}

/** @throws if there is no lake in the folder */
export async function requireLake(lake: string): Promise<void> {
  if (!(await readIdentity(lake))) throw new Error(`There is no lake in "${lake}" yet: run clean first`);
}

/**
 * Opens a run that cleans bronze into a new folder with the layout of a lake. Its caller holds the lock.
 *
 * @throws what `build` throws, and `Error` if bronze files are missing
 */
export async function buildAside<T>(
  options: RebuildOptions,
  folder: string,
  build: (run: CleanRun) => Promise<T>,
): Promise<T> {
  const { lake } = options;
  await rm(folder, { recursive: true, force: true });
  const run = await openRun(lake, options, folder);
  try {
    await checkBronzeIsWhole(run);
    return await build(run);
  } catch (error) {
    throw explainDisk(error, lake);
  } finally {
    run.close();
  }
}

/** Cleans bronze files that were not cleaned yet, without Kafka, and writes the ledger. Its caller holds the lock. */
export async function cleanLanded(options: LandedOptions): Promise<CleanResult> {
  const run = await openRun(options.lake, options);
  try {
    for (const at of run.tables) await finishLanded(at);
    return { ...run.cleaned, ledger: await writeCheckedLedger(run) };
  } finally {
    run.close();
  }
}

/** Without this check a rebuild from incomplete bronze would lose rows, and the new ledger would be balanced anyway. */
async function checkBronzeIsWhole({ lake, tables }: CleanRun): Promise<void> {
  const ledger = (await readLedger((tables[0] as TableRun).connection, lake)) ?? [];
  for (const { table, bronze } of tables) {
    const known = ledger.find((row) => row.table === table)?.messages ?? 0;
    const messages = messagesIn(bronze);
    if (messages >= known) continue;
    throw new Error(
      `Cannot rebuild: the bronze files in "${paths(lake).bronze(table)}" hold ${messages} messages, but the ledger counts ${known}; restore the missing files, or start a new lake with another --data`,
    );
  }
}

/** The files of a complete rebuild; others in the same folders are deleted. */
interface Plan {
  sql: string;
  // A table that was added after the rebuild is missing.
  blocks: { [T in Table]?: string[] };
  // Missing in plans of earlier versions.
  deletes?: { [T in Table]?: string[] };
  rejects: string[];
}

/** Where a rebuild writes; what a stop leaves there is removed by the next clean. */
export const buildingFolder = (lake: string): string => join(paths(lake).tmp, "rebuild");
/** Where a complete rebuild waits to replace the files of the lake. */
export const readyFolder = (lake: string): string => join(paths(lake).tmp, "rebuild-ready");

/** Moves a complete rebuild into place, file by file; after a crash, another call continues it. */
export async function finishRebuild(lake: string): Promise<void> {
  const ready = readyFolder(lake);
  const plan = await readFile(join(ready, "plan.json"), "utf8").catch(() => undefined);
  if (plan === undefined) return;
  const { sql, blocks, deletes, rejects } = JSON.parse(plan) as Plan;
  const replace = async (from: string, to: string, wanted: string[]) => {
    await mkdir(to, { recursive: true });
    for (const name of await names(from)) {
      await rename(join(from, name), join(to, name));
      step("replaced", join(to, name));
    }
    for (const name of await names(to)) {
      if (name.endsWith(".parquet") && !wanted.includes(name)) await rm(join(to, name));
    }
    await syncPath(to);
  };
  for (const table of tableNames) {
    const wanted = blocks[table];
    if (wanted) await replace(paths(ready).silver(table), paths(lake).silver(table), wanted);
    const [from, to] = [paths(ready).deletes(table), paths(lake).deletes(table)];
    if (deletes?.[table]?.length || (await names(to)).length > 0) await replace(from, to, deletes?.[table] ?? []);
  }
  await replace(paths(ready).rejects, paths(lake).rejects, rejects);
  const identity = await readIdentity(lake);
  if (identity) await writeIdentity(lake, { ...identity, sql });
  // After this rename a crash leaves only a folder that the next clean removes.
  await rename(ready, buildingFolder(lake));
  step("removing", buildingFolder(lake));
  await rm(buildingFolder(lake), { recursive: true });
}
