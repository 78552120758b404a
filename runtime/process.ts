/**
 * The state of other processes.
 *
 * @module
 */
import { readFile } from "node:fs/promises";

/** Whether a process with this id runs, of any user. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** The start of a process, ms since 1970, at most a second early; `undefined` without Linux's /proc. */
export async function processStart(pid: number): Promise<number | undefined> {
  try {
    const [stat, system] = await Promise.all(
      [`/proc/${pid}/stat`, "/proc/stat"].map((path) => readFile(path, "latin1")),
    );
    const boot = Number(/^btime (\d+)$/m.exec(system ?? "")?.[1]);
    // The name of a program may have blanks. The start time is the 22nd field, in hundredths of a second since boot.
    const fields = (stat ?? "").slice((stat ?? "").lastIndexOf(")") + 2).split(" ");
    return (boot + Number(fields[19]) / 100) * 1000 - 1_000;
  } catch {
    return undefined;
  }
}
