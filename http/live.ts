/**
 * What the live page shows: how far each table is, and the latest posts.
 *
 * It polls only while somebody watches, at most once a second and for at most a third of the time.
 *
 * @module
 */

import type { FastifyInstance } from "fastify";
import type { MysqlSettings } from "../db_conn.ts";
import { keyBytes, type RecordView, valueBytes } from "../io/record_batch.ts";
import { byTable, type Table, tableNames } from "../io.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import { fetchOnce, unread } from "../kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import type { PartitionOffsets } from "../kafka/topics.ts";
import { openStatus, type Status, type TableStatus } from "../report/status.ts";
import { each, list, maybe, object, ref, text, whole } from "./openapi.ts";

/** A post as its messages say, as far as they were among the newest of their topics. */
export interface LatestPost {
  key: string;
  /** Whose message of it was found; what another table says of it is not known. */
  tables: Table[];
  /** When its newest message was posted, ms since 1970. */
  at: number;
  title: string | null;
  category: string | null;
  poster: string | null;
  country: string | null;
  user: string | null;
}

/** What one poll found. */
export interface Snapshot {
  /** When, ms since 1970. */
  at: number;
  /** Null until a poll has succeeded. */
  tables: Record<Table, TableStatus> | null;
  /** The newest first. */
  posts: LatestPost[];
  /** Which services are away, or why nothing can be told, for people to read. */
  trouble: string[];
}

/** How far each table is, polled while somebody asks or watches. */
export interface LiveStatus extends AsyncDisposable {
  /** The newest snapshot, at most `maxAge` ms old. */
  snapshot(maxAge: number): Promise<Snapshot>;
  /** Calls the listener with every new snapshot until the returned function is called. */
  watch(listener: (snapshot: Snapshot) => void): () => void;
}

const everyMs = 1_000;
const postsShown = 12;
const postsKept = 200;
/** How far back a poll reads a topic, offsets: of each post that is kept a message and the mark of its transaction. */
const tail = 2 * postsKept;
/** Fetches from a topic in one poll, at most; what they don't reach is left out, but for each partition's last offsets. */
const mostFetches = 4;
const leastTail = 40;

/** Opens the connections of the polls when the first one needs them. */
export function openLiveStatus({
  mysql,
  kafka,
  lake,
}: {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  lake: string;
}): LiveStatus {
  const reader = openStatus({ mysql, kafka, waitMs: 1_000, countEveryMs: 5_000 });
  const listeners = new Set<(snapshot: Snapshot) => void>();
  const posts = latestPosts(kafka);
  let newest: Snapshot = { at: 0, tables: null, posts: [], trouble: [] };
  let polling: Promise<Snapshot> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let closed = false;

  const mysqlAway = `MySQL is away: it cannot be asked at ${mysql.host}:${mysql.port}; its rows are counted again when it is back`;
  const kafkaAway = `Kafka is away: it cannot be asked at ${kafka.brokers.join(", ")}; until it is back, nothing can be posted`;

  const poll = async (): Promise<Snapshot> => {
    const trouble: string[] = [];
    let status: Status | undefined;
    try {
      status = await reader.read(lake);
      // Each question says in its driver's own words that a service is away; here a service is told once.
      const found = Object.values(status.tables);
      if (status.trouble.length > 0 && found.every(({ in_mysql }) => in_mysql === null)) trouble.push(mysqlAway);
      if (found.some(({ posted, lag }) => posted === null || lag === null)) trouble.push(kafkaAway);
      const connected = Object.values(status.ranges).some((ranges) => ranges.length > 0);
      if (connected) await posts.read(await reader.kafka(), status.ranges);
    } catch (error) {
      trouble.push(isTransientKafka(error) ? kafkaAway : (error as Error).message);
    }
    newest = {
      at: Date.now(),
      tables: status?.tables ?? newest.tables,
      posts: posts.newest(),
      trouble: [...new Set(trouble)],
    };
    return newest;
  };
  const pollOnce = () => {
    polling ??= poll().finally(() => {
      polling = undefined;
    });
    return polling;
  };
  const follow = async () => {
    const began = Date.now();
    const snapshot = await pollOnce();
    for (const listener of listeners) listener(snapshot);
    if (closed || listeners.size === 0) timer = undefined;
    else timer = setTimeout(follow, Math.max(everyMs, 2 * (Date.now() - began))).unref();
  };

  return {
    snapshot: (maxAge) => (Date.now() - newest.at <= maxAge ? Promise.resolve(newest) : pollOnce()),
    watch(listener) {
      listeners.add(listener);
      timer ??= setTimeout(follow, 0);
      return () => void listeners.delete(listener);
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      clearTimeout(timer);
      listeners.clear();
      await polling?.catch(() => {});
      await reader[Symbol.asyncDispose]();
    },
  };
}

/** Describes a {@link Snapshot}. */
export function addLiveSchemas(app: FastifyInstance): void {
  const table = { enum: tableNames };
  const behind = object({
    seconds: { ...maybe("number"), description: "Since the table's next change was written; 0: there is none" },
    bytes: { ...maybe("integer"), description: "Of the log, from that change on" },
    files: { ...whole, description: "Files of the log that were begun since" },
  });
  const status = {
    table,
    label: { ...text, description: "What people read for the table's name" },
    topic: text,
    last_key: maybe("string"),
    ...each(maybe("integer"), "in_mysql", "posted", "in_topic", "lag"),
    ...each({ type: "object", additionalProperties: whole }, "landed", "cleaned", "reasons"),
    ...each(whole, "messages", "clean", "superseded", "deleted", "rejected"),
    behind: { ...ref("Behind"), description: "How far what is posted is behind MySQL, where its log is followed" },
    balanced: {
      type: "boolean",
      description: "messages = clean + superseded + deleted + rejected, of what is cleaned",
    },
  };
  const post = {
    key: text,
    tables: { ...list(table), description: "Whose message of it was found" },
    at: { type: "integer" },
    ...each(maybe("string"), "title", "category", "poster", "country", "user"),
  };
  const tables = { oneOf: [{ type: "null" }, object(byTable(() => ref("TableStatus")))] };
  app.addSchema({ $id: "Behind", oneOf: [{ type: "null" }, behind] });
  app.addSchema({ $id: "TableStatus", ...object(status) });
  app.addSchema({ $id: "LatestPost", ...object(post) });
  app.addSchema({
    $id: "Snapshot",
    ...object({ at: whole, tables, posts: list(ref("LatestPost")), trouble: list(text) }),
  });
}

/** What a message tells of its post, by table; messages of other tables are not read. */
const factsOf: { [T in Table]?: (field: (name: string) => string | null) => Partial<LatestPost> } = {
  pin: (field) => ({ title: field("title"), category: field("category"), poster: field("poster_name") }),
  geo: (field) => ({ country: field("country") }),
  user: (field) => ({ user: [field("first_name"), field("last_name")].filter(Boolean).join(" ") || null }),
};

/** Reads the ends of the topics and puts together what belongs to one post. */
function latestPosts(kafka: KafkaSettings) {
  const next = new Map<string, number>();
  const found = new Map<string, LatestPost>();
  const take = (table: Table, at: number, key: string, value: Buffer) => {
    const before = found.get(key);
    const post = {
      ...(before ?? { key, title: null, category: null, poster: null, country: null, user: null }),
      tables: [...new Set(before?.tables).add(table)],
      at: Math.max(at, before?.at ?? at),
    };
    Object.assign(post, factsOf[table]?.(parseFields(value)));
    // What was read last stands last in the map: messages of one batch have the same time.
    found.delete(key);
    found.set(key, post);
  };
  return {
    async read(reader: Parameters<typeof fetchOnce>[0], ranges: Record<Table, PartitionOffsets[]>): Promise<void> {
      for (const table of tableNames.filter((name) => factsOf[name])) {
        const topic = topicOf(kafka, table);
        const positions = new Map<number, number>();
        const endOffsets = new Map<number, number>();
        for (const { partition, logStart: start, lastStable: stable } of ranges[table]) {
          const known = next.get(`${topic}/${partition}`) ?? 0;
          const back = Math.max(leastTail, Math.ceil(tail / ranges[table].length));
          const from = Math.max(start, stable - back, known <= stable ? known : 0);
          if (from >= stable) continue;
          positions.set(partition, from);
          endOffsets.set(partition, stable);
        }
        const onRecord = (_partition: number, record: RecordView) => {
          const key = keyBytes(record)?.toString() ?? "";
          if (record.valueEnd - record.valueStart > 100_000 || !/^\d{1,19}$/.test(key)) return;
          const value = valueBytes(record);
          if (value) take(table, record.timestamp, key, value);
        };
        for (let fetches = 0; fetches < mostFetches && unread(positions, endOffsets) > 0; fetches++) {
          await fetchOnce(reader, { topic, positions, endOffsets, onRecord, maxBytes: 200_000, maxWait: 100 });
        }
        for (const [partition, position] of positions) {
          next.set(`${topic}/${partition}`, Math.max(position, (endOffsets.get(partition) as number) - leastTail));
        }
      }
    },
    /** Drops the oldest beyond `postsKept`: only now, since a topic's messages may be older than another's. */
    newest() {
      const byTime = [...found.values()].reverse().sort((a, b) => b.at - a.at);
      for (const { key } of byTime.slice(postsKept)) found.delete(key);
      return byTime.slice(0, postsShown);
    },
  };
}

/** The fields of a message as short texts; what is none gives null. */
function parseFields(value: Buffer): (name: string) => string | null {
  let row: unknown;
  try {
    row = JSON.parse(value.toString());
  } catch {}
  return (name) => {
    const field = row !== null && typeof row === "object" ? (row as Record<string, unknown>)[name] : undefined;
    return typeof field === "string" || typeof field === "number" ? String(field).slice(0, 300) : null;
  };
}
