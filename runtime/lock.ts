/**
 * An operating system lock, held by one process at a time.
 *
 * @module
 */
import { rm } from "node:fs/promises";
import type { DuckDBInstance } from "@duckdb/node-api";
import { openInstance } from "./duckdb.ts";

/**
 * Takes a lock: a DuckDB file that is open for writing, because Node has no file locks. The lock is released when its
 * process ends, even by SIGKILL.
 *
 * @throws DuckDB's error, which {@link isHeld} recognizes, if another process holds the lock
 */
export async function takeLock(path: string): Promise<DuckDBInstance> {
  const take = () => openInstance(path, { threads: "1" });
  try {
    return await take();
  } catch (error) {
    // A damaged file was left by a process that was killed while creating it, and can be deleted: it holds no data.
    // isHeld is checked first, because DuckDB's message contains the path, which may contain these words.
    if (isHeld(error) || !/not a valid DuckDB database|could not read|corrupt/i.test(String(error))) throw error;
    await rm(path, { force: true });
    return await take();
  }
}

/** Whether an error of {@link takeLock} means that another process holds the lock. */
export const isHeld = (error: unknown): boolean => /Could not set lock/.test(String(error));
