/**
 * A lock of the operating system, for one process at a time.
 *
 * @module
 */
import { rm } from "node:fs/promises";
import type { DuckDBInstance } from "@duckdb/node-api";
import { openInstance } from "./duckdb.ts";

/**
 * Takes a lock: a DuckDB file that is open for writing, since Node has no locks of its own. It ends with its process,
 * however that ends.
 *
 * @throws DuckDB's error, which {@link isHeld} knows, when another process has the lock
 */
export async function takeLock(path: string): Promise<DuckDBInstance> {
  const take = () => openInstance(path, { threads: "1" });
  try {
    return await take();
  } catch (error) {
    // Killed while it was being made: the file holds nothing but the lock. A lock that is held comes first, because
    // DuckDB's message has the path, which may read like damage.
    if (isHeld(error) || !/not a valid DuckDB database|could not read|corrupt/i.test(String(error))) throw error;
    await rm(path, { force: true });
    return await take();
  }
}

/** Whether an error of {@link takeLock} says that another process has the lock. */
export const isHeld = (error: unknown): boolean => /Could not set lock/.test(String(error));
