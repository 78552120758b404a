/**
 * What processes take, by /proc: Linux alone.
 *
 * @module
 */
import { readFileSync } from "node:fs";

const ticks = 100; // a second, in /proc

/** The fields of /proc/PID/stat after the name: the group is the third, CPU ticks 12th and 13th, pages held the 22nd. */
export const stat = (pid: number | string): string[] =>
  readFileSync(`/proc/${pid}/stat`, "latin1")
    .replace(/^.*\) /s, "")
    .split(" ");

/** CPU-seconds of a process so far. */
export function cpuOf(pid: number): number {
  const fields = stat(pid);
  return (Number(fields[11]) + Number(fields[12])) / ticks;
}

/** The most memory that a process has held so far, MB. */
export const peakOf = (pid: number): number =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) / 1000;
