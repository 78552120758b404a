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
 * Makes silver, deletes and rejects again from bronze alone, with the SQL as it is now. The new files are made aside, and
 * replace the old ones only when all are there; broken off before, nothing has changed, and after, the next clean
 * goes on with it.
 */
export async function rebuild(options: RebuildOptions): Promise<CleanResult> {
  const { lake, onFact } = options;
  await using _lock = await lockLake(lake);
  const identity = await readIdentity(lake);
  if (!identity) throw new Error(`There is no lake in "${lake}" yet: run clean first`);
  await finishRebuild(lake);
  const making = makingFolder(lake);
  await rm(making, { recursive: true, force: true });
  const sql = sqlHash();
  const run = await openRun(lake, options, making);
  try {
    for (const { table, bronze } of run.tables) onFact({ fact: "counted", table, total: messagesIn(bronze) });
    await checkBronzeIsWhole(run);
    for (const at of run.tables) await finishLanded(at);
  } catch (error) {
    throw explainDisk(error, lake);
  } finally {
    run.close();
  }
  const made = paths(making);
  const plan: Plan = {
    sql,
    blocks: await byTableInTurn((table) => names(made.silver(table))),
    deletes: await byTableInTurn((table) => names(made.deletes(table))),
    rejects: await names(made.rejects),
  };
  await writeFile(join(making, "plan.json"), JSON.stringify(plan));
  await syncPath(join(making, "plan.json"));
  step("written", readyFolder(lake));
  await rename(making, readyFolder(lake));
  step("renamed", readyFolder(lake));
  await syncPath(paths(lake).tmp);
  await finishRebuild(lake);
  return { ...run.cleaned, ledger: (await cleanLanded(options)).ledger };
}

/** Cleans what bronze holds and silver does not yet, without Kafka, and writes the ledger. Its caller holds the lock. */
export async function cleanLanded(options: LandedOptions): Promise<CleanResult> {
  const run = await openRun(options.lake, options);
  try {
    for (const at of run.tables) await finishLanded(at);
    return { ...run.cleaned, ledger: await writeCheckedLedger(run) };
  } finally {
    run.close();
  }
}

/** A rebuild from bronze that lacks files would lose their rows, and the new ledger would be balanced all the same. */
async function checkBronzeIsWhole({ lake, tables }: CleanRun): Promise<void> {
  const ledger = (await readLedger((tables[0] as TableRun).connection, lake)) ?? [];
  for (const { table, bronze } of tables) {
    const known = ledger.find((row) => row.table === table)?.messages ?? 0;
    const messages = messagesIn(bronze);
    if (messages >= known) continue;
    throw new Error(
      `Cannot rebuild: the bronze files in "${paths(lake).bronze(table)}" hold ${messages} messages, but the ledger knows of ${known}; put the missing ones back, or start a new lake by --data`,
    );
  }
}

/** Which files a finished rebuild consists of; others in the same folders go. */
interface Plan {
  sql: string;
  // Without a table that was added after the rebuild: it has no silver there.
  blocks: { [T in Table]?: string[] };
  // Missing where an earlier version has made it.
  deletes?: { [T in Table]?: string[] };
  rejects: string[];
}

const makingFolder = (lake: string): string => join(paths(lake).tmp, "rebuild");
const readyFolder = (lake: string): string => join(paths(lake).tmp, "rebuild-ready");

/** Puts a finished rebuild in place, file by file; done again after a crash, it goes on where it was. */
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
  // Under its other name, half of it is no plan to follow any more.
  await rename(ready, makingFolder(lake));
  step("removing", makingFolder(lake));
  await rm(makingFolder(lake), { recursive: true });
}
