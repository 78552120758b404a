/**
 * Statements on a connection to MySQL, and the internals of mysql2.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import mysql2 from "mysql2";
import type mysql from "mysql2/promise";
import type { Row } from "../io.ts";

/** A connection that returns values as the text of MySQL. */
export type Database = mysql.Connection;

/** How long reading some rows, and scanning a whole table, may take, ms. */
export const pageTimeout = 60_000;
export const scanTimeout = 600_000;

/** How to check whether the server of a connection still answers other connections. */
interface Probe {
  /** Opens another connection and closes it. */
  ask: () => Promise<void>;
  everyMs: number;
}

/** The probes of the open connections, for {@link whileAnswering}. */
export const probes = new WeakMap<Database, Probe>();

/**
 * Waits for a statement while the server answers other connections. `lock_wait_timeout` ends one that waits for a lock;
 * one that counts millions of rows, or sends wide ones, may take up to `timeoutMs`.
 *
 * @throws if the server does not answer other connections either, or after `timeoutMs`; closes the connection
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
        if (code.startsWith("ER_")) continue; // an answer too, such as "Too many connections"
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

/** Runs a query. Returns the rows as text. */
export async function ask(
  db: Database,
  sql: string,
  { values = [], timeout = pageTimeout }: { values?: unknown[]; timeout?: number } = {},
): Promise<Row[]> {
  // Not mysql2's timeout, whose timer outlives the connection and keeps the program from ending.
  const [rows] = await whileAnswering(db, db.query({ sql, values, rowsAsArray: true }), timeout);
  return rows as unknown as Row[];
}

/** Internals of mysql2 3.24.6, which allow to read rows while they arrive. */
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
  /** Packets are numbered from 0 in every command. */
  _resetSequenceId(): void;
  _bumpSequenceId(packets: number): void;
  write(bytes: Buffer): void;
  stream: { destroy(): void };
}

interface RawCommand {
  /** Called once without a packet, then with each packet of the answer. Returns whether the command is done. */
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
 * Sends a command that mysql2 does not support or has a bug in: its binary log command throws "Encoding not recognized"
 * if a file is named. Settles when `onPacket` returns true. More packets may follow, so the caller must destroy the
 * connection.
 *
 * @param body the number of the command and its arguments
 * @param onPacket receives each packet of the answer, valid during the call
 * @throws the error that the server answers or `onPacket` throws
 */
export function runCommand(db: Database, body: Buffer, onPacket: (packet: RowPacket) => boolean): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (error: Error | null) => (error ? reject(error) : resolve());
    let over = false;
    core(db).addCommand({
      onResult: end,
      execute(packet, connection) {
        if (over) return false; // a late packet; mysql2 would report it as unexpected
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
