/**
 * Emulation: reads random posts from MySQL and sends them to the topics, as users would.
 *
 * A batch of posts is one transaction across all topics, so that these always have the same keys. It does not use the
 * checkpoints of `post`, and has a separate transactional id.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { explainMysql } from "../db_conn/errors.ts";
import type { Database } from "../db_conn/query.ts";
import {
  connectMysql,
  databaseId,
  inspectTable,
  keysAt,
  type MysqlSettings,
  readRows,
  type SourceTable,
  tryMs,
} from "../db_conn.ts";
import { count } from "../io/text.ts";
import { byTable, byTableInTurn, rowToJson, type Table, tableNames, tables } from "../io.ts";
import { checkDatabase, readCheckpoints } from "../kafka/checkpoint.ts";
import { connectReader } from "../kafka/client.ts";
import { openPublisher } from "../kafka/publisher.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { ensureTopics, waitForStableOffset } from "../kafka/topics.ts";
import type { Notice } from "../runtime/notice.ts";
import { pauses, steadily } from "../runtime/pace.ts";
import { Random } from "../runtime/random.ts";
import { retry } from "../runtime/retry.ts";
import { isTransient } from "./protocol.ts";

/** A post: its row of each table as the JSON object to send. */
interface Post {
  key: string;
  rows: Record<Table, string>;
}

/** Events of an emulation. */
export type EmulateFact = { fact: "posted"; posts: Post[] } | { fact: "skipped"; key: string; text: string } | Notice;

/** Settings of {@link emulate}. */
interface EmulateOptions {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** Chooses the keys: the same seed and the same rows give the same keys. */
  seed: number;
  /** The number of posts. Default: until stopped. */
  limit?: number;
  /** Posts per second, about. Default: one after another, with a pause of 0 to 1 s after each. */
  rate?: number;
  /** How long a database or broker may be unavailable, ms. */
  waitMs: number;
  signal: AbortSignal;
  /** Awaited, so that a slow listener slows down the emulation. */
  onFact: (fact: EmulateFact) => void | Promise<void>;
}

/** Result of {@link emulate}. */
export interface EmulateResult {
  seed: number;
  posts: number;
  /** Chosen keys without a row in one of the tables. */
  skipped: number;
}

/** The most posts in one transaction; fewer if rows are wide, so that a batch stays near `batchBytes`. */
const batchPosts = 1_000;
const batchBytes = 4_000_000;
/** After this many keys in succession without a row in every table, it gives up. */
const mostMisses = 1_000;

/**
 * Posts random keys until `limit` or until stopped. A stop is not an error.
 *
 * @throws `UsageError` if a table cannot be posted or the topics belong to another database; `Error` if a service is
 * unavailable for longer than `waitMs`, or it is unknown whether a batch was stored
 */
export async function emulate(options: EmulateOptions): Promise<EmulateResult> {
  const { mysql, kafka, seed, limit = Number.POSITIVE_INFINITY, rate, waitMs, signal, onFact } = options;
  const retrying = {
    ...{ waitMs, signal, isTransient },
    onWait: (text: string) => void onFact({ fact: "waited", text }),
  };
  const result: EmulateResult = { seed, posts: 0, skipped: 0 };
  const random = new Random(seed);
  const real = () => random.real();
  const pace = rate === undefined ? pauses(real, signal) : steadily(rate, signal);
  // A new id for each run: two emulations at the same time do not fence each other.
  const id = `${kafka.prefix}.emulate.${randomUUID()}`;
  await using publisher = openPublisher({ kafka, transactionalId: () => id });
  let source: Source | undefined;
  let size = 50;
  let misses = 0;
  try {
    const { warnings } = await retry(() => ensureTopics(kafka), retrying);
    for (const text of warnings) await onFact({ fact: "warned", text });
    while (result.posts < limit) {
      const wanted = Math.min(await pace(size), limit - result.posts);
      const fractions = Array.from({ length: wanted }, real);
      const { posts, skipped } = await retry(async () => {
        try {
          source ??= await openSource(options);
          return await readPosts(source, fractions);
        } catch (error) {
          source?.db.destroy();
          source = undefined;
          throw explainMysql(error, mysql);
        }
      }, retrying);
      for (const { key, missing } of skipped) {
        const names = missing.map((table) => `"${tables[table].source}"`).join(" and ");
        await onFact({
          fact: "skipped",
          key,
          text: `Skipped post ${key}: ${names} ${missing.length === 1 ? "has" : "have"} no row with this key`,
        });
      }
      result.skipped += skipped.length;
      misses = posts.length > 0 ? 0 : misses + skipped.length;
      if (misses >= mostMisses)
        throw new Error(`None of ${count(misses)} random keys has a row in every table: there is nothing to emulate`);
      if (posts.length === 0) continue;
      const bytes = posts.reduce((sum, { rows }) => Object.values(rows).reduce((all, row) => all + row.length, sum), 0);
      size = Math.max(1, Math.min(batchPosts, size * 4, Math.floor((batchBytes * posts.length) / bytes)));
      const messages = tableNames.flatMap((table) =>
        posts.map(({ key, rows }) => ({ topic: topicOf(kafka, table), key, value: rows[table] })),
      );
      await retry(async () => {
        const sent = await publisher.send(messages, { signal, timeoutMs: Math.max(waitMs, 10_000) });
        if (sent.outcome === "not_stored") throw sent.error;
        if (sent.outcome === "unknown") throw new UnknownOutcome(posts, sent.error);
      }, retrying);
      result.posts += posts.length;
      await onFact({ fact: "posted", posts });
    }
    for (const table of tableNames) {
      const text = await retry(() => waitForStableOffset(kafka, table), retrying);
      if (text) await onFact({ fact: "warned", text });
    }
  } catch (error) {
    if (!signal.aborted || error instanceof UnknownOutcome) throw error;
  } finally {
    source?.db.destroy();
  }
  return result;
}

/** Must not be retried, which could duplicate the posts. */
class UnknownOutcome extends Error {
  constructor(posts: Post[], cause: Error) {
    const keys =
      posts.length === 1 ? `post ${posts[0]?.key} was` : `${count(posts.length)} posts from ${posts[0]?.key} on were`;
    super(`Cannot know whether ${keys} stored (in all topics or in none): ${cause.message}`);
  }
}

/** A connection and its inspected tables. */
interface Source {
  db: Database;
  tables: Record<Table, SourceTable>;
}

async function openSource({ mysql, kafka, waitMs, onFact }: EmulateOptions): Promise<Source> {
  const db = await connectMysql(mysql, { waitMs: tryMs(waitMs) });
  try {
    const found = await byTableInTurn((table) => inspectTable(db, mysql.database, table));
    for (const text of tableNames.flatMap((table) => found[table].warnings)) await onFact({ fact: "warned", text });
    await using reader = await connectReader(kafka);
    checkDatabase(kafka, (await readCheckpoints(reader, kafka, ["pin"])).pin, await databaseId(db, mysql));
    if (!found.pin.keys) throw new Error(`Table "${tables.pin.source}" is empty: there is nothing to post`);
    return { db, tables: found };
  } catch (error) {
    db.destroy();
    throw error;
  }
}

/** Reads the posts at random keys, and the keys that are missing in a table. */
async function readPosts({ db, tables: sources }: Source, fractions: number[]) {
  const keys = await keysAt(db, sources.pin, fractions);
  const rows = await byTableInTurn((table) => readRows(db, sources[table], [...new Set(keys)]));
  const posts: Post[] = [];
  const skipped: { key: string; missing: Table[] }[] = [];
  for (const key of keys) {
    const missing = tableNames.filter((table) => !rows[table].has(key));
    if (missing.length > 0) skipped.push({ key, missing });
    else {
      const json = (table: Table) => rowToJson(sources[table].columns, rows[table].get(key) ?? []);
      posts.push({ key, rows: byTable(json) });
    }
  }
  return { posts, skipped };
}
