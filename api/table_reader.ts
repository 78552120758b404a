/**
 * A connection to MySQL that can reconnect.
 *
 * @module
 */

import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import type { Database } from "../db_conn/query.ts";
import { connectMysql, type MysqlSettings, tryMs } from "../db_conn.ts";
import { type RetryOptions, retry } from "../runtime/retry.ts";

/** A connection that can reconnect. */
export interface TableReader {
  db: Database;
  /** Runs a query, with retries while the server is unavailable. */
  ask<T>(question: (db: Database) => Promise<T>): Promise<T>;
  reconnect(): Promise<void>;
  close(): void;
}

/** Connects, with retries while the server is unavailable. */
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
            reader.db = await connectOnce(); // without retries: this runs inside a retry
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
