/**
 * Independent readers of the output: DuckDB and pyarrow watch silver while it is written, and librdkafka reads the
 * topics.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import type { DuckDBConnection } from "@duckdb/node-api";
import { type Table, tableNames } from "../../io.ts";
import { paths } from "../../lake/files.ts";
import { withDuckDb } from "../../runtime/duckdb.ts";
import type { Message } from "../support/oracle.ts";
import { output } from "../support/python.ts";

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));

/** The committed messages of topics, each partition in order. */
export async function readTopics(python: string, broker: string, topics: string[]): Promise<Message[][]> {
  const bytes = await output(python, [file("topic.py"), broker, ...topics]);
  const messages: Message[][] = topics.map(() => []);
  for (let at = 0; at < bytes.length; ) {
    const [topic, partition] = [bytes.readInt32BE(at), bytes.readInt32BE(at + 4)];
    const [offset, postedAt] = [Number(bytes.readBigInt64BE(at + 8)), Number(bytes.readBigInt64BE(at + 16))];
    const [keyLength, valueLength] = [bytes.readInt32BE(at + 24), bytes.readInt32BE(at + 28)];
    at += 32;
    const take = (length: number) => {
      if (length < 0) return null;
      at += length;
      return bytes.subarray(at - length, at);
    };
    messages[topic]?.push({ partition, offset, postedAt, key: take(keyLength), value: take(valueLength) });
  }
  return messages;
}

/** Results of the watchers of silver. */
export interface Seen {
  reads: number;
  /** Reads that failed because a file was being replaced. */
  errors: number;
  /** Errors that a successful read showed. */
  wrong: string[];
}

/** Watches a lake's silver with DuckDB and pyarrow until `stop`. `deletes`: rows may disappear. */
export function watchSilver(
  python: string,
  lake: string,
  { deletes = false }: { deletes?: boolean } = {},
): { stop: () => Promise<Seen> } {
  const args = [file("readers.py"), join(lake, "silver"), ...(deletes ? ["deletes"] : [])];
  const child = spawn(python, args, { stdio: ["pipe", "pipe", "inherit"] });
  let json = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    json += text;
  });
  const closed = new Promise<void>((resolve) => child.on("close", () => resolve()));
  const stopped = new AbortController();
  const duckdb = watchByDuckDb(lake, { deletes, signal: stopped.signal });
  return {
    async stop() {
      stopped.abort();
      child.stdin.end();
      await closed;
      const seen = [await duckdb, JSON.parse(json) as Seen];
      const sum = (key: "reads" | "errors") => seen.reduce((total, one) => total + one[key], 0);
      return { reads: sum("reads"), errors: sum("errors"), wrong: seen.flatMap(({ wrong }) => wrong) };
    },
  };
}

interface WatchOptions {
  deletes: boolean;
  signal: AbortSignal;
}

const watchByDuckDb = (lake: string, options: WatchOptions): Promise<Seen> =>
  withDuckDb({ threads: "1" }, (connection) => watch(connection, lake, options));

async function watch(connection: DuckDBConnection, lake: string, { deletes, signal }: WatchOptions): Promise<Seen> {
  const seen: Seen = { reads: 0, errors: 0, wrong: [] };
  const known = new Set<Table>();
  while (!signal.aborted) {
    for (const table of tableNames) {
      const folder = paths(lake).silver(table);
      if (!existsSync(folder) || !readdirSync(folder).some((name) => name.endsWith(".parquet"))) continue;
      try {
        await connection.run(
          `CREATE OR REPLACE TEMP TABLE now AS SELECT ind, _posted_at, _partition, _offset FROM '${folder}/*.parquet'`,
        );
      } catch {
        seen.errors++;
        continue;
      }
      seen.reads++;
      if (!known.has(table)) await connection.run(`CREATE TEMP TABLE ${table}_seen AS FROM now`);
      known.add(table);
      const rows = await connection.runAndReadAll(
        `SELECT (SELECT count(*) - count(DISTINCT ind) FROM now),
           (SELECT count(*) FROM ${table}_seen ANTI JOIN now USING (ind)),
           (SELECT count(*) FROM ${table}_seen AS old JOIN now USING (ind)
             WHERE (now._posted_at, now._partition, now._offset) < (old._posted_at, old._partition, old._offset))`,
      );
      const [doubled, gone, older] = (rows.getRows()[0] as unknown[]).map(Number);
      if (doubled || (gone && !deletes) || older) {
        const what = `${doubled} doubled, ${gone} vanished inds and ${older} rows older than before`;
        seen.wrong.push(`DuckDB saw ${what} in ${table}`);
      }
      await connection.run(`CREATE OR REPLACE TEMP TABLE ${table}_seen AS FROM now`);
    }
    await sleep(400, undefined, { signal }).catch(() => {});
  }
  return seen;
}
