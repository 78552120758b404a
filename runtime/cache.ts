/**
 * The per-user cache: one folder for each program that was downloaded or unpacked. A folder is prepared under another
 * name and renamed, so that no program sees half of it; if two programs prepare it concurrently, the first wins.
 *
 * @module
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { isAbsolute, join, normalize } from "node:path";
import { threadId } from "node:worker_threads";
import { UsageError } from "./errors.ts";
import { isAlive } from "./process.ts";

/**
 * `$XDG_CACHE_HOME/pinterest-data-pipeline`, or the same below `~/.cache`. Relative paths are ignored.
 *
 * @throws `UsageError` if it is in a file system of the kernel
 */
export function cacheFolder(): string {
  const home = isAbsolute(homedir()) ? homedir() : userInfo().homedir;
  const { XDG_CACHE_HOME = "" } = process.env;
  const above = isAbsolute(XDG_CACHE_HOME) ? XDG_CACHE_HOME : join(home, ".cache");
  if (isVirtual(above)) throw new UsageError(`Cannot use XDG_CACHE_HOME "${above}": it is not a folder for files`);
  return join(above, "pinterest-data-pipeline");
}

/** Whether a path is in a file system of the kernel, where creating folders recursively may never end. */
export const isVirtual = (path: string): boolean => /^\/(proc|sys|dev)(\/|$)/.test(normalize(path));

/**
 * Refuses a folder that another user owns or may write to, because programs in it are run.
 *
 * @throws `Error` with what to do
 */
export function checkOwner(folder: string): void {
  const { uid, mode } = statSync(folder);
  const remedy = "or choose another folder with XDG_CACHE_HOME";
  if (process.getuid && uid !== process.getuid())
    throw new Error(`Cannot use "${folder}": it belongs to another user (uid ${uid}); delete it, ${remedy}`);
  if (mode & 0o022)
    throw new Error(`Cannot use "${folder}": others may write to it; run chmod go-w "${folder}", ${remedy}`);
}

/**
 * Prepares the cache for a new folder: creates and checks the cache, and deletes unfinished folders of dead programs.
 *
 * @returns a path in the cache for the unfinished folder
 */
export function beginCached(name: string): string {
  const cache = cacheFolder();
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  checkOwner(cache);
  for (const file of readdirSync(cache)) {
    const pid = /^[.].+[.](\d+)([.]xml)?$/.exec(file)?.[1];
    if (pid && !isAlive(Number(pid))) rmSync(join(cache, file), { recursive: true, force: true });
  }
  // Threads of one process may prepare the same folder concurrently.
  return join(cache, `.${name}.${threadId}.${process.pid}`);
}

/** Renames a finished folder to its name in the cache, unless another program was faster. */
export function finishCached(unfinished: string, name: string): void {
  const target = join(cacheFolder(), name);
  try {
    renameSync(unfinished, target);
  } catch (error) {
    if (!existsSync(target)) throw error;
  }
}
