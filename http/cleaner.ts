/**
 * Finds the process that cleans a lake.
 *
 * @module
 */

import { type Holder, readHolder } from "../lake/owner.ts";
import { isAlive, processStart } from "../runtime/process.ts";

/** The process that holds the lake's lock, if it runs on this machine; after a kill its lock file stays. */
export async function findCleaner(lake: string): Promise<Holder | null> {
  const { pid, started } = await readHolder(lake);
  if (pid === undefined || started === undefined || !isAlive(pid)) return null;
  const began = processStart(pid);
  // Another process that was given the same id later.
  return began !== undefined && began > Date.parse(started) ? null : { pid, started };
}
