/**
 * Shows what a rebuild would change, without changing anything.
 *
 * @module
 */

import { rm } from "node:fs/promises";
import { messagesIn } from "../lake/bronze.ts";
import { compareTable, type Side, type TableDifference } from "../lake/compare.ts";
import { names, paths } from "../lake/files.ts";
import { doneOffsets, fileStates } from "../lake/footers.ts";
import { ledgerRow } from "../lake/ledger.ts";
import { lockLake } from "../lake/owner.ts";
import { finishLanded } from "./batch.ts";
import { buildAside, buildingFolder, readyFolder, requireLake } from "./rebuild.ts";
import type { RebuildOptions, TableRun } from "./run.ts";

/**
 * Cleans bronze with the current SQL into a temporary folder, compares the result with the lake, and removes it.
 * Messages that were landed but not cleaned are left out. Needs as much free disk space as silver and rejects take.
 *
 * @throws `Error` if there is no lake, another clean is running, or the last one was stopped while it replaced files
 */
export async function previewRebuild(options: RebuildOptions): Promise<TableDifference[]> {
  const { lake, signal, onFact } = options;
  await requireLake(lake);
  await using _lock = await lockLake(lake);
  if ((await names(readyFolder(lake))).length > 0) throw halfDone(lake);
  const folder = buildingFolder(lake);
  try {
    return await buildAside(options, folder, async (run) => {
      const sides: Side[] = [];
      for (const at of run.tables) {
        sides.push(await limitToCleaned(at));
        onFact({ fact: "counted", table: at.table, total: messagesIn(at.bronze) });
      }
      const found: TableDifference[] = [];
      for (const [i, at] of run.tables.entries()) {
        await finishLanded(at);
        onFact({ fact: "done", table: at.table });
        const after: Side = { root: folder, ledger: ledgerOf(at, at), silver: at.silver, rejects: at.rejects };
        const options = { table: at.table, before: sides[i] as Side, after, columns: at.columns, signal };
        found.push(await compareTable(at.connection, options));
      }
      return found;
    });
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** Leaves only bronze files that the lake has cleaned, and returns what the lake made of them. */
async function limitToCleaned(at: TableRun): Promise<Side> {
  const { run, table, connection } = at;
  const { lake } = run;
  const rejects = await fileStates(connection, paths(lake).rejects, `${table}-`);
  const silver = await fileStates(connection, paths(lake).silver(table));
  const deletes = await fileStates(connection, paths(lake).deletes(table));
  const { applied } = doneOffsets(rejects);
  const isDone = (partition: number, next: number) => next <= (applied.get(partition) ?? 0);
  for (const block of silver.values()) {
    if (![...block.applied].every(([partition, next]) => isDone(partition, next))) throw halfDone(lake);
  }
  at.bronze = at.bronze.filter(({ partition, next }) => isDone(partition, next));
  return { root: lake, ledger: ledgerOf(at, { silver, deletes, rejects }), silver, rejects };
}

const ledgerOf = (
  { table, bronze }: TableRun,
  { silver, deletes, rejects }: Pick<TableRun, "silver" | "deletes" | "rejects">,
) =>
  ledgerRow(table, {
    files: bronze,
    silver: [...silver.values()],
    deletes: [...deletes.values()],
    rejects: [...rejects.values()],
  });

const halfDone = (lake: string): Error =>
  new Error(`The last clean of the lake in "${lake}" was stopped halfway: run clean first, which finishes it`);
