/**
 * Queries over the lake's rejects: the newest, and one with its message.
 *
 * @module
 */

import { join } from "node:path";
import type { DuckDBBlobValue } from "@duckdb/node-api";
import type { FastifyInstance } from "fastify";
import pLimit from "p-limit";
import { type Table, tableNames } from "../io.ts";
import { literal, parquetRows } from "../lake/duckdb.ts";
import { names, paths } from "../lake/files.ts";
import { withDuckDb } from "../runtime/duckdb.ts";
import { Refusal, retryAfter } from "./errors.ts";
import { maybe, object, text, whole } from "./openapi.ts";

/** A message that cleaning rejected. */
export interface Reject {
  table: Table;
  partition: number;
  /** As decimal text, because it has 64 bits. */
  offset: string;
  /** ISO 8601; null for a message without a time. */
  posted_at: string | null;
  reason: string;
  /** Column and value. */
  detail: string | null;
}

/** A reject with its message unchanged. */
export interface RejectWithMessage extends Reject {
  key: string | null;
  /** The text, cut at `rawCharacters`; bytes that are not UTF-8 become U+FFFD. Null for a tombstone. */
  raw: string | null;
  /** Size of the message, bytes. */
  bytes: number;
  utf8: boolean;
}

/** Queries over a lake's rejects. */
export interface Rejects {
  /** The newest first, 100 at most. @throws {@link Refusal} if too many queries wait */
  newest(which: { table?: Table; reason?: string }): Promise<Reject[]>;
  /** @throws {@link Refusal} if too many queries wait */
  find(table: Table, partition: number, offset: string): Promise<RejectWithMessage | undefined>;
}

/** Describes a {@link Reject} and a {@link RejectWithMessage}. */
export function addRejectSchemas(app: FastifyInstance): void {
  const reject = {
    table: { enum: tableNames },
    partition: whole,
    offset: { ...text, pattern: "^[0-9]+$" },
    posted_at: maybe("string"),
    reason: text,
    detail: maybe("string"),
  };
  const message = { key: maybe("string"), raw: maybe("string"), bytes: whole, utf8: { type: "boolean" } };
  app.addSchema({ $id: "Reject", ...object(reject) });
  app.addSchema({ $id: "RejectWithMessage", ...object({ ...reject, ...message }) });
}

const rawCharacters = 200_000;
const waitingQueries = 8;

/** Opens the queries; a lake without rejects gives none. */
export function openRejects(lake: string): Rejects {
  const query = rejectQueries(lake);
  return {
    newest: async ({ table, reason }) => {
      const conditions = [
        ...(table ? [`"table" = ${literal(table)}`] : []),
        ...(reason ? [`reason = ${literal(reason)}`] : []),
      ];
      const where = conditions.length > 0 ? `WHERE ${conditions.join(" AND ")}` : "";
      const columns = `"table", _partition, _offset::VARCHAR AS _offset, epoch_ms(_posted_at) AS at, reason, detail`;
      const rows = await query(
        `SELECT ${columns} FROM rejects ${where} ORDER BY _posted_at DESC NULLS LAST, _offset DESC LIMIT 100`,
      );
      return rows.map(asReject);
    },
    find: async (table, partition, offset) => {
      const columns = `* EXCLUDE (_offset), _offset::VARCHAR AS _offset, epoch_ms(_posted_at) AS at`;
      const [row] = await query(
        `SELECT ${columns} FROM rejects
         WHERE "table" = ${literal(table)} AND _partition = ${partition} AND _offset = ${literal(offset)}::BIGINT`,
      );
      if (!row) return undefined;
      const key = (row.key as DuckDBBlobValue | null)?.bytes;
      const raw = (row.raw as DuckDBBlobValue | null)?.bytes;
      return {
        ...asReject(row),
        key: key ? decode(key) : null,
        raw: raw ? decode(raw).slice(0, rawCharacters) : null,
        bytes: raw?.length ?? 0,
        utf8: raw === undefined || isText(raw),
      };
    },
  };
}

/** Runs queries over a view `rejects` one after the other on one thread, so that they cannot take the whole machine. */
function rejectQueries(lake: string): (sql: string) => Promise<Record<string, unknown>[]> {
  const limit = pLimit(1);
  const run = async (sql: string) => {
    if (!(await names(paths(lake).rejects)).some((name) => name.endsWith(".parquet"))) return [];
    return withDuckDb({ memory_limit: "200MB", threads: "1" }, async (connection) => {
      const rejects = parquetRows(join(paths(lake).rejects, "*.parquet"));
      const rows = await connection.runAndReadAll(`WITH rejects AS (${rejects}) ${sql}`);
      return rows.getRowObjects() as Record<string, unknown>[];
    });
  };
  return (sql) => {
    if (limit.pendingCount >= waitingQueries) {
      throw new Refusal(503, "Too many requests for rejects wait; try again", retryAfter(1));
    }
    // Retry: clean may have replaced a file meanwhile.
    return limit(() => run(sql).catch(() => run(sql)));
  };
}

const asReject = (row: Record<string, unknown>): Reject => ({
  table: row.table as Table,
  partition: row._partition as number,
  offset: row._offset as string,
  posted_at: row.at === null ? null : new Date(Number(row.at)).toISOString(),
  reason: row.reason as string,
  detail: row.detail as string | null,
});

const decode = (bytes: Uint8Array): string => new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);

const isText = (bytes: Uint8Array): boolean => {
  try {
    new TextDecoder("utf-8", { fatal: true }).decode(bytes);
    return true;
  } catch {
    return false;
  }
};
