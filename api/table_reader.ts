/**
 * A connection to MySQL that can be opened again.
 *
 * @module
 */

import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import type { Database } from "../db_conn/query.ts";
import { connectMysql, type MysqlSettings, tryMs } from "../db_conn.ts";
import { type RetryOptions, retry } from "../runtime/retry.ts";

/** A connection that can be opened again. */
export interface TableReader {
  db: Database;
  /** Asks, and asks again while the server is away. */
  ask<T>(question: (db: Database) => Promise<T>): Promise<T>;
  reconnect(): Promise<void>;
  close(): void;
}

/** Connects, and waits for a server that is away. */
export async function openReader(mysql: MysqlSettings, retrying: RetryOptions): Promise<TableReader> {
  const connectOnce = () => connectMysql(mysql, { waitMs: tryMs(retrying.waitMs) });
  const connect = () => retry(connectOnce, retrying);
  const reader: TableReader = {
    db: await connect(),
    ask: (question) =>
      retry(async () => {
        try {
          return await question(reader.db);
        } catch (error) {
          if (isTransientMysql(error)) {
            reader.close();
            reader.db = await connectOnce(); // once: a server that is away must not be waited for twice
          }
          throw explainMysql(error, mysql);
        }
      }, retrying),
    async reconnect() {
      reader.close();
      reader.db = await connect();
    },
    close: () => reader.db.destroy(),
  };
  return reader;
}
