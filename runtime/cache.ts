/**
 * The per-user cache: what was downloaded or unpacked once, a folder each. A folder is made aside and renamed, so that
 * nobody sees half of it, and of two programs that make it at once the first wins.
 *
 * @module
 */
import { existsSync, mkdirSync, readdirSync, renameSync, rmSync, statSync } from "node:fs";
import { homedir, userInfo } from "node:os";
import { isAbsolute, join } from "node:path";
import { threadId } from "node:worker_threads";
import { isAlive } from "./process.ts";

/** `$XDG_CACHE_HOME/pinterest-data-pipeline`, or the same below `~/.cache`; paths that are not absolute do not count. */
export function cacheFolder(): string {
  const home = isAbsolute(homedir()) ? homedir() : userInfo().homedir;
  const { XDG_CACHE_HOME = "" } = process.env;
  return join(isAbsolute(XDG_CACHE_HOME) ? XDG_CACHE_HOME : join(home, ".cache"), "pinterest-data-pipeline");
}

/**
 * Refuses a folder that another user owns or may write to: what lies there is run.
 *
 * @throws with what to do
 */
export function checkOwner(folder: string): void {
  const { uid, mode } = statSync(folder);
  const remedy = "or choose another folder by XDG_CACHE_HOME";
  if (process.getuid && uid !== process.getuid())
    throw new Error(`Cannot use "${folder}": it belongs to another user (uid ${uid}); delete it, ${remedy}`);
  if (mode & 0o022)
    throw new Error(`Cannot use "${folder}": others may write to it; run chmod go-w "${folder}", ${remedy}`);
}

/**
 * Opens the cache for a folder that is to be made: makes and checks the cache, and deletes what dead programs left
 * unfinished.
 *
 * @returns a path in the cache, for the folder in the making
 */
export function beginCached(name: string): string {
  const cache = cacheFolder();
  mkdirSync(cache, { recursive: true, mode: 0o700 });
  checkOwner(cache);
  for (const file of readdirSync(cache)) {
    const pid = /^[.].+[.](\d+)([.]xml)?$/.exec(file)?.[1];
    if (pid && !isAlive(Number(pid))) rmSync(join(cache, file), { recursive: true, force: true });
  }
  // Several threads may make it at once, too.
  return join(cache, `.${name}.${threadId}.${process.pid}`);
}

/** Renames a folder that is ready to its place in the cache, where another program may have been faster. */
export function finishCached(unfinished: string, name: string): void {
  const target = join(cacheFolder(), name);
  try {
    renameSync(unfinished, target);
  } catch (error) {
    if (!existsSync(target)) throw error;
  }
}
