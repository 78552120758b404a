/**
 * The state of other processes. What /proc says is known on Linux only.
 *
 * @module
 */
import { readFileSync } from "node:fs";

/** Whether a process with this id runs, of any user. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** A process as /proc describes it. */
interface ProcessStat {
  /** `Z` for one that has ended and whose parent has not noticed. */
  state: string;
  parent: number;
  /** Its start, in hundredths of a second since boot. */
  started: string;
}

/** Reads a process from /proc; `undefined` if it has ended, or without /proc. */
export function readStat(pid: number): ProcessStat | undefined {
  const text = readProc(`/proc/${pid}/stat`);
  // The name of a program may contain blanks and parentheses. Behind it: state, parent, and the start as the 20th field.
  const [state, parent, ...fields] = text.slice(text.lastIndexOf(")") + 2).split(" ");
  return text && state ? { state, parent: Number(parent), started: fields[17] as string } : undefined;
}

/** The arguments of a process from /proc, each ended by a NUL; empty if it has ended, or without /proc. */
export const readCommandLine = (pid: number): string => readProc(`/proc/${pid}/cmdline`);

function readProc(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return "";
  }
}

/** The start of a process, ms since 1970, at most a second early; `undefined` if it has ended, or without /proc. */
export function processStart(pid: number): number | undefined {
  const stat = readStat(pid);
  const boot = /^btime (\d+)$/m.exec(readProc("/proc/stat"))?.[1];
  return stat && boot ? (Number(boot) + Number(stat.started) / 100) * 1000 - 1_000 : undefined;
}
