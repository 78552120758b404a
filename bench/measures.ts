/**
 * Shared by the benches: CPU and memory of processes (from /proc), message counts of topics, medians.
 *
 * @module
 */
import { readFileSync } from "node:fs";
import type { Admin } from "kafkajs";

const ticks = 100; // per second, in /proc

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

/** The peak memory of a process so far, MB. */
export const peakOf = (pid: number): number =>
  Number(/VmHWM:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "latin1"))?.[1]) / 1000;

/** The number of offsets in each topic, including transaction markers; 0 if the topic does not exist. */
export async function counted(admin: Admin, topics: string[]): Promise<number[]> {
  const ends = topics.map((topic) => admin.fetchTopicOffsets(topic).catch(() => []));
  return (await Promise.all(ends)).map((partitions) => partitions.reduce((sum, { high }) => sum + Number(high), 0));
}

export const median = (numbers: number[]): number => numbers.sort((a, b) => a - b)[numbers.length >> 1] ?? Number.NaN;

/** Percentiles of times in ms, as text. */
export function shares(times: number[]): string {
  const sorted = [...times].sort((a, b) => a - b);
  const at = (share: number) => {
    const ms = sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN;
    return ms < 10_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
  };
  return `p50 ${at(0.5)}, p90 ${at(0.9)}, p99 ${at(0.99)}, max ${at(1)}`;
}
