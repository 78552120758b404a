/**
 * Serialization: the three tables defined once, rows to JSON bytes, atomic files.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";

/** How a column of a source table is held in MySQL, as far as the program cares. */
export type ColumnKind = "int" | "float" | "text" | "datetime";

/** The three tables: MySQL name, key column and columns in their order (spec, section 1). */
export const tables = {
  pin: {
    source: "pinterest_data",
    key: "index",
    columns: {
      index: "int",
      unique_id: "text",
      title: "text",
      description: "text",
      poster_name: "text",
      follower_count: "text",
      tag_list: "text",
      is_image_or_video: "text",
      image_src: "text",
      downloaded: "int",
      save_location: "text",
      category: "text",
    },
  },
  geo: {
    source: "geolocation_data",
    key: "ind",
    columns: { ind: "int", timestamp: "datetime", latitude: "float", longitude: "float", country: "text" },
  },
  user: {
    source: "user_data",
    key: "ind",
    columns: { ind: "int", first_name: "text", last_name: "text", age: "int", date_joined: "datetime" },
  },
} as const satisfies Record<string, { source: string; key: string; columns: Record<string, ColumnKind> }>;

/** Short name of a table, as in topics, the lake and on the screen. */
export type Table = keyof typeof tables;

/** The tables in the order in which they are always shown. */
export const tableNames = Object.keys(tables) as Table[];

/** Wrong use or wrong settings: the program ends with exit code 2. */
export class UsageError extends Error {
  override name = "UsageError";
}

/** One row of a source table: each column's text as MySQL gives it, null for NULL. */
export type Row = (string | null)[];

/**
 * One row as the JSON object that is posted: columns in order, numbers with MySQL's own digits.
 *
 * @example
 * rowToJson([{ name: "ind", kind: "int" }, { name: "country", kind: "text" }], ["7", "Aruba"])
 * // {"ind":7,"country":"Aruba"}
 */
export function rowToJson(columns: readonly { name: string; kind: ColumnKind }[], row: Row): string {
  let json = "";
  for (let i = 0; i < columns.length; i++) {
    const { name, kind } = columns[i] as { name: string; kind: ColumnKind };
    const text = row[i] ?? null;
    json += `${i === 0 ? "{" : ","}${JSON.stringify(name)}:`;
    if (text === null) json += "null";
    else if (kind === "int" || kind === "float") json += jsonNumber(text);
    else json += JSON.stringify(text);
  }
  return `${json}}`;
}

/** A number as MySQL writes it, without the zeros that pad a ZEROFILL column: JSON and keys have none. */
export function jsonNumber(text: string): string {
  return text.charCodeAt(0) === 48 /* 0 */ && text.length > 1 ? text.replace(/^0+(?=\d)/, "") : text;
}

/** Whether a process with this id runs, also one of another user. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
}

/** How long, and for what, {@link patiently} waits. */
export interface Patience {
  /** Give up so long after the first error, ms: a program that was itself frozen has lost no time. */
  waitMs: number;
  signal: AbortSignal;
  /** Whether an error may be gone at the next try; others are thrown at once. */
  isTransient: (error: unknown) => boolean;
  /** Told once, with what is waited for. */
  onWait: (text: string) => void;
}

/** Tries again and again while a service is away; it does not end a try that hangs, so each must have a time-out. */
export async function patiently<T>(action: () => Promise<T>, patience: Patience): Promise<T> {
  const { waitMs, signal, isTransient, onWait } = patience;
  const begun = Date.now();
  let since: number | undefined;
  let told = false;
  for (let delay = 250; ; delay = Math.min(delay * 2, 3_000)) {
    signal.throwIfAborted();
    try {
      return await action();
    } catch (error) {
      signal.throwIfAborted();
      since ??= Date.now();
      if (!isTransient(error) || Date.now() - since + delay > waitMs) throw error;
      if (!told && Date.now() - begun >= 500) {
        told = true;
        onWait(`${(error as Error).message}; waiting up to ${Math.round(waitMs / 1000)} s for it`);
      }
      // Uneven pauses: two programs that disturb each other must not keep in step.
      await sleep(delay * (0.5 + Math.random()), undefined, { signal });
    }
  }
}
