/**
 * What the benches share: what processes take, by /proc of Linux, how full topics are, medians.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import type { Admin } from "kafkajs";

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

/** How many messages each topic holds, the marks of transactions among them; none where it is not there yet. */
export async function counted(admin: Admin, topics: string[]): Promise<number[]> {
  const ends = topics.map((topic) => admin.fetchTopicOffsets(topic).catch(() => []));
  return (await Promise.all(ends)).map((partitions) => partitions.reduce((sum, { high }) => sum + Number(high), 0));
}

export const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;
