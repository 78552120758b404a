/**
 * Finds the process that cleans a lake.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { type Holder, readHolder } from "../lake/owner.ts";
import { isAlive } from "../runtime/process.ts";

/** The process that holds the lake's lock, if it runs on this machine; after a kill its lock file stays. */
export async function findCleaner(lake: string): Promise<Holder | null> {
  const { pid, started } = await readHolder(lake);
  if (pid === undefined || started === undefined || !isAlive(pid)) return null;
  const began = await processStart(pid);
  // Another process that was given the same id later.
  return began !== undefined && began > Date.parse(started) ? null : { pid, started };
}

/** When a process began, ms since 1970, a second early at most; undefined where Linux's /proc is missing. */
async function processStart(pid: number): Promise<number | undefined> {
  try {
    const [stat, system] = await Promise.all(
      [`/proc/${pid}/stat`, "/proc/stat"].map((path) => readFile(path, "latin1")),
    );
    const boot = Number(/^btime (\d+)$/m.exec(system ?? "")?.[1]);
    // A program's name may hold blanks. The start time is the 22nd field, in hundredths of a second since the boot.
    const fields = (stat ?? "").slice((stat ?? "").lastIndexOf(")") + 2).split(" ");
    return (boot + Number(fields[19]) / 100) * 1000 - 1_000;
  } catch {
    return undefined;
  }
}
