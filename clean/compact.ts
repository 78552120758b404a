/**
 * Merges small neighbouring bronze files, so that weeks of `--follow` do not leave millions of them.
 *
 * @module
 */

import { open, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { type BronzeFile, bronzeName, messagesIn } from "../lake/bronze.ts";
import { fileSize, paths, putInPlace } from "../lake/files.ts";
import { step } from "../runtime/steps.ts";
import type { TableRun } from "./run.ts";

/** Bronze files below this size, in bytes, are merged when there are this many. */
const smallFile = 4_000_000;
const manyFiles = 32;

/** Merges the small files at the end of each partition. */
export async function compactBronze(at: TableRun): Promise<void> {
  const {
    run: { lake },
    table,
  } = at;
  for (const partition of new Set(at.bronze.map((file) => file.partition))) {
    const files = at.bronze.filter((file) => file.partition === partition);
    if (files.length < manyFiles) continue;
    const small: BronzeFile[] = [];
    for (const file of files.reverse()) {
      if ((await fileSize(file.path)) > smallFile) break;
      small.unshift(file);
    }
    const [oldest, newest] = [small[0], small.at(-1)];
    if (!oldest || !newest || small.length < manyFiles) continue;
    const messages = messagesIn(small);
    const range = { partition, first: oldest.first, next: newest.next, messages };
    const merged: BronzeFile = { ...range, path: join(paths(lake).bronze(table), bronzeName(range)) };
    const temporary = join(paths(lake).tmp, `land-${table}-${partition}-merged`);
    const handle = await open(temporary, "w");
    for (const file of small) await handle.writeFile(await readFile(file.path));
    await handle.close();
    await putInPlace(temporary, merged.path);
    // The merged file now covers the small ones: after a crash here, the next start removes them.
    at.bronze = at.bronze.filter((file) => !small.includes(file));
    at.bronze.push(merged);
    for (const file of small) {
      step("removing", file.path);
      await rm(file.path);
    }
  }
}
