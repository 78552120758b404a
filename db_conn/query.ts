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

export const quote = (name: string): string => mysql2.escapeId(name, true);

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
  addCommand(command: RawCommand): void;
  /** Each packet has a number, from 0 in every command. */
  _resetSequenceId(): void;
  _bumpSequenceId(packets: number): void;
  write(bytes: Buffer): void;
  stream: { destroy(): void };
}

interface RawCommand {
  /** Called once to begin, then with each packet of the answer that is no error; returns whether it is over. */
  execute(packet: RawPacket | undefined, connection: CoreConnection): boolean;
  onResult(error: Error | null): void;
}

interface RawPacket extends RowPacket {
  isError(): boolean;
  asError(encoding: string): Error;
}

export interface RowPacket {
  buffer: Buffer;
  offset: number;
  end: number;
  isEOF(): boolean;
}

type RowStep = (packet: RowPacket, connection: unknown) => RowStep | null;

interface RowQuery {
  row: RowStep;
}

/**
 * Sends a command that mysql2 does not know, or not rightly: its own for the log throws "Encoding not recognized" where
 * a file is named. Settles when `onPacket` returns true, with what comes after still on its way: the connection is to be
 * destroyed.
 *
 * @param body the number of the command, and what belongs to it
 * @param onPacket takes each packet of the answer, valid during the call
 * @throws what the server answers instead, and what `onPacket` throws
 */
export function runCommand(db: Database, body: Buffer, onPacket: (packet: RowPacket) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error: Error | null) => (error ? reject(error) : resolve());
    let over = false;
    core(db).addCommand({
      onResult: end,
      execute(packet, connection) {
        if (over) return false; // what was on its way; mysql2 would take it for something that nobody asked for
        if (!packet) {
          const header = Buffer.alloc(4);
          header.writeUIntLE(body.length, 0, 3);
          connection._resetSequenceId();
          connection.write(Buffer.concat([header, body]));
          connection._bumpSequenceId(1);
          return false;
        }
        try {
          if (packet.isError()) throw packet.asError("utf8");
          over = onPacket(packet);
          if (over) end(null);
        } catch (error) {
          over = true;
          end(error as Error);
        }
        return false;
      },
    });
  });
}
