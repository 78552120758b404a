/**
 * Statements on a connection to MySQL, and mysql2 below its promises.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import mysql2 from "mysql2";
import type mysql from "mysql2/promise";
import type { Row } from "../io.ts";

/** A connection whose values are MySQL's own text. */
export type Database = mysql.Connection;

/** How long some rows, and a look at a whole table, may take, ms. */
export const pageTimeout = 60_000;
export const scanTimeout = 600_000;

/** How to find out whether a connection's server still answers others. */
interface Probe {
  /** Opens another connection and closes it. */
  ask: () => Promise<void>;
  everyMs: number;
}

/** The probes of the open connections, for {@link whileAnswering}. */
export const probes = new WeakMap<Database, Probe>();

/**
 * Waits for a statement as long as the server answers at all. A lock that others hold ends a statement by
 * `lock_wait_timeout`; one that counts millions of rows, or sends wide ones, takes as long as it takes, up to `timeoutMs`.
 *
 * @throws where the server answers nobody, or the time is over: the connection is closed then
 */
export async function whileAnswering<T>(
  db: Database,
  statement: Promise<T>,
  timeoutMs = Number.POSITIVE_INFINITY,
): Promise<T> {
  const probe = probes.get(db);
  if (!probe) return statement;
  const ended = new AbortController();
  const watch = async (): Promise<never> => {
    const began = Date.now();
    for (;;) {
      const left = timeoutMs - (Date.now() - began);
      await sleep(Math.min(Math.max(probe.everyMs, 1_000), left), undefined, { signal: ended.signal, ref: false });
      if (Date.now() - began >= timeoutMs) {
        core(db).stream.destroy();
        throw Object.assign(new Error(`No answer within ${timeoutMs / 1_000} s`), { code: "ETIMEDOUT" });
      }
      try {
        await probe.ask();
      } catch (error) {
        const { code = "" } = ((error as Error).cause ?? error) as NodeJS.ErrnoException;
        if (code.startsWith("ER_")) continue; // it has too many connections, but it answers
        if (!ended.signal.aborted) core(db).stream.destroy();
        throw error;
      }
    }
  };
  try {
    return await Promise.race([statement, watch()]);
  } finally {
    ended.abort();
  }
}

/** Asks for rows: each column's text. */
export async function ask(
  db: Database,
  sql: string,
  { values = [], timeout = pageTimeout }: { values?: unknown[]; timeout?: number } = {},
): Promise<Row[]> {
  // Not mysql2's own time-out, whose timer outlives the connection and keeps the program from ending.
  const [rows] = await whileAnswering(db, db.query({ sql, values, rowsAsArray: true }), timeout);
  return rows as unknown as Row[];
}

/** mysql2 below its promises: rows can be looked at while they arrive. Read in version 3.24.6. */
export const { createQuery } = mysql2 as unknown as {
  createQuery(
    options: object,
    values: undefined,
    done: (error: Error | null, rows?: unknown) => void,
    config: object,
  ): RowQuery;
};
export const core = (db: Database) => (db as unknown as { connection: CoreConnection }).connection;

interface CoreConnection {
  query(query: RowQuery): void;
  stream: { destroy(): void };
}

interface RowPacket {
  buffer: Buffer;
  offset: number;
  end: number;
  isEOF(): boolean;
}

type RowStep = (packet: RowPacket, connection: unknown) => RowStep | null;

interface RowQuery {
  row: RowStep;
}
