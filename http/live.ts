/**
 * The live status of the pipeline: how far each table is, the latest posts, and the last minutes for the chart.
 *
 * It polls while somebody watches and a little longer, at most once a second and for at most a third of the time.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { FastifyInstance } from "fastify";
import type { MysqlSettings } from "../db_conn.ts";
import { sum } from "../io/text.ts";
import { byTable, byTableInTurn, type Table, tableNames } from "../io.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import type { Holder } from "../lake/owner.ts";
import { type ReportAge, reportAge } from "../report/age.ts";
import { openStatus, type Status, type TableStatus } from "../report/status.ts";
import { addAnswerSchemas } from "./answers.ts";
import { findCleaner } from "./cleaner.ts";
import { type LatestPost, openLatestPosts } from "./latest_posts.ts";
import { each, list, maybe, object, ref, text, whole } from "./openapi.ts";
import { openWaiting, type Waiting } from "./waiting.ts";

/** How far a table is, counted in messages. */
export interface LiveTable extends TableStatus {
  /** Messages posted to the topic so far: the landed ones and those that wait to be landed. Null if Kafka is unavailable. */
  in_kafka: number | null;
  /** Messages that are not cleaned yet; null if Kafka is unavailable. */
  waiting: Waiting | null;
}

/** The result of one poll. */
export interface Snapshot {
  /** When it was taken, ms since 1970. */
  at: number;
  /** Null until a poll has succeeded. */
  tables: Record<Table, LiveTable> | null;
  totals: Totals | null;
  /** The newest first. */
  posts: LatestPost[];
  /** The process that cleans the lake, if one runs on this machine. */
  cleaner: Holder | null;
  report: ReportAge;
  /** The services that are unavailable, or why a poll failed, for people to read. */
  trouble: string[];
}

/** Messages of all tables at each stage. */
export interface Totals {
  /** Null where they could not be counted exactly. */
  kafka: number | null;
  bronze: number;
  silver: number;
}

/** The totals at one time, ms since 1970. */
export type Sample = Totals & { at: number };

/** The live status, polled on demand. */
export interface LiveStatus extends AsyncDisposable {
  /** The newest snapshot, at most `maxAge` ms old. */
  snapshot(maxAge: number): Promise<Snapshot>;
  /** The newest snapshot, however old; undefined before the first. */
  newest(): Snapshot | undefined;
  /** The samples of the last `historyMs`, the oldest first. */
  history(): Sample[];
  /** Calls the listener with every new snapshot until the returned function is called. */
  watch(listener: (snapshot: Snapshot) => void): () => void;
}

const everyMs = 1_000;
/** A poll that takes longer is reported as trouble while it goes on, ms. */
const slowMs = 4_000;
const historyMs = 120_000;
/** Polling continues for so long after the last watcher has left, so that a reloaded page has its chart, ms. */
const lingerMs = 120_000;

/** Opens the connections with the first poll. */
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
  const posts = openLatestPosts(kafka);
  const waiting = openWaiting();
  let newest: Snapshot = { at: 0, tables: null, totals: null, posts: [], cleaner: null, report: noReport, trouble: [] };
  let samples: Sample[] = [];
  let reading: Promise<Found> | undefined;
  let lastTrouble: string[] = [];
  let polling: Promise<Snapshot> | undefined;
  let timer: NodeJS.Timeout | undefined;
  let watchedAt = 0;
  let closed = false;

  const mysqlAway = `Cannot reach MySQL at ${mysql.host}:${mysql.port}: its rows are not counted until it is back; check that it is running`;
  const kafkaAway = `Cannot reach Kafka at ${kafka.brokers.join(", ")}: nothing can be posted or landed until it is back; check that it is running`;

  const slow = `No answer from MySQL at ${mysql.host}:${mysql.port} or Kafka at ${kafka.brokers.join(", ")} for ${slowMs / 1000} s: the numbers below are old; check that both are running`;

  const read = async (): Promise<Found> => {
    const trouble: string[] = [];
    const status: Status = await reader.read(lake);
    const found = Object.values(status.tables);
    // Each driver reports an unavailable service once for each question; the page reports each service once.
    if (status.trouble.length > status.missing.length && found.every(({ in_mysql }) => in_mysql === null))
      trouble.push(mysqlAway);
    const isAway = found.some(({ posted, lag }) => posted === null || lag === null);
    if (isAway) trouble.push(kafkaAway);
    trouble.push(...status.missing);
    if (Object.values(status.ranges).some((ranges) => ranges.length > 0)) {
      await posts.read(await reader.kafka(), status.ranges);
    }
    const countOf = async (table: Table): Promise<Waiting | null> => {
      const lake = status.tables[table];
      const partitions = status.ranges[table];
      return isAway ? null : await waiting.read(await reader.kafka(), { topic: lake.topic, partitions, lake });
    };
    const counts = await byTableInTurn(countOf);
    const tables = byTable((table) => {
      const counted = counts[table];
      const { messages } = status.tables[table];
      return { ...status.tables[table], in_kafka: counted && messages + counted.notLanded, waiting: counted };
    });
    return { tables, trouble };
  };
  const poll = async (): Promise<Snapshot> => {
    reading ??= read().catch((error: unknown) => ({
      ...{ tables: null, trouble: [isTransientKafka(error) ? kafkaAway : (error as Error).message] },
    }));
    const late = new AbortController();
    const old: Found = { tables: null, trouble: lastTrouble.length > 0 ? lastTrouble : [slow] };
    const deadline = sleep(slowMs, old, { signal: late.signal, ref: false });
    const found = await Promise.race([reading, deadline]);
    late.abort();
    deadline.catch(() => {});
    // The next poll waits for a slow one.
    if (found !== old) {
      reading = undefined;
      lastTrouble = found.trouble;
    }
    const { tables, trouble } = found;
    const [cleaner, report] = await Promise.all([findCleaner(lake), reportAge(lake)]);
    const at = Date.now();
    const known = tables ?? withoutKafka(newest.tables);
    const totals = known && totalsOf(known);
    newest = { at, tables: known, totals, posts: posts.newest(), cleaner, report, trouble };
    if (totals) samples = [...samples.filter((sample) => at - sample.at < historyMs), { at, ...totals }];
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
    if (listeners.size > 0) watchedAt = Date.now();
    if (closed || Date.now() - watchedAt > lingerMs) timer = undefined;
    else timer = setTimeout(follow, Math.max(everyMs, 2 * (Date.now() - began))).unref();
  };

  return {
    snapshot: (maxAge) => (Date.now() - newest.at <= maxAge ? Promise.resolve(newest) : pollOnce()),
    newest: () => (newest.at > 0 ? newest : undefined),
    history: () => samples.filter(({ at }) => Date.now() - at < historyMs),
    watch(listener) {
      listeners.add(listener);
      watchedAt = Date.now();
      timer ??= setTimeout(follow, 0);
      return () => void listeners.delete(listener);
    },
    async [Symbol.asyncDispose]() {
      closed = true;
      clearTimeout(timer);
      listeners.clear();
      await Promise.allSettled([polling, reading]);
      await reader[Symbol.asyncDispose]();
    },
  };
}

/** What a poll has read. */
type Found = Pick<Snapshot, "tables" | "trouble">;

const noReport: ReportAge = { at: null, rows_at: null };

/** The last known numbers of MySQL and the lake; Kafka's are unknown while a poll fails. */
const withoutKafka = (tables: Snapshot["tables"]): Snapshot["tables"] =>
  tables && byTable((table) => ({ ...tables[table], in_topic: null, lag: null, in_kafka: null, waiting: null }));

function totalsOf(tables: Record<Table, LiveTable>): Totals {
  const found = Object.values(tables);
  const isExact = found.every(({ waiting }) => waiting?.exact);
  return {
    kafka: isExact ? sum(found, ({ in_kafka }) => in_kafka ?? 0) : null,
    bronze: sum(found, ({ messages }) => messages),
    silver: sum(found, (t) => t.clean + t.superseded + t.deleted + t.rejected),
  };
}

/** Describes a {@link Snapshot}. */
export function addLiveSchemas(app: FastifyInstance): void {
  const table = { enum: tableNames };
  const behind = object({
    seconds: { ...maybe("number"), description: "Since the table's next change was written; 0 if there is none" },
    bytes: { ...maybe("integer"), description: "Bytes of the log from that change on" },
    files: { ...whole, description: "Files of the log that were begun since" },
  });
  const waiting = object({
    messages: whole,
    notLanded: { ...whole, description: "Those of them that are not landed yet" },
    exact: { type: "boolean", description: "Whether all were counted; otherwise some are estimated from offsets" },
    since: { ...maybe("integer"), description: "When the oldest was posted, ms since 1970" },
  });
  const status = {
    table,
    label: { ...text, description: "The table's name for people" },
    topic: text,
    last_key: maybe("string"),
    ...each(maybe("integer"), "in_mysql", "posted", "in_topic", "lag", "in_kafka"),
    ...each({ type: "object", additionalProperties: whole }, "landed", "cleaned", "reasons"),
    ...each(whole, "messages", "clean", "superseded", "deleted", "rejected"),
    behind: { ...ref("Behind"), description: "How far posting is behind MySQL, where its log is followed" },
    waiting: { ...ref("Waiting"), description: "Messages that are not cleaned yet" },
    balanced: {
      type: "boolean",
      description: "messages = clean + superseded + deleted + rejected, of the cleaned messages",
    },
  };
  const post = {
    key: text,
    tables: { ...list(table), description: "The tables that a message of it was found for" },
    deleted: { ...list(table), description: "Those of them whose newest message is a delete" },
    at: { type: "integer" },
    ...each(maybe("string"), "title", "category", "poster", "country", "user"),
  };
  const cleaner = object({ pid: whole, started: text });
  const tables = { oneOf: [{ type: "null" }, object(byTable(() => ref("TableStatus")))] };
  const totals = object({
    kafka: { ...maybe("integer"), description: "Null where they could not be counted exactly" },
    ...each(whole, "bronze", "silver"),
  });
  addAnswerSchemas(app);
  app.addSchema({ $id: "Totals", oneOf: [{ type: "null" }, totals] });
  app.addSchema({ $id: "Behind", oneOf: [{ type: "null" }, behind] });
  app.addSchema({ $id: "Waiting", oneOf: [{ type: "null" }, waiting] });
  app.addSchema({ $id: "Cleaner", oneOf: [{ type: "null" }, cleaner] });
  app.addSchema({ $id: "TableStatus", ...object(status) });
  app.addSchema({ $id: "LatestPost", ...object(post) });
  app.addSchema({
    $id: "Snapshot",
    ...object({
      ...{ at: whole, tables, posts: list(ref("LatestPost")), report: ref("ReportAge"), trouble: list(text) },
      totals: { ...ref("Totals"), description: "Messages of all tables at each stage" },
      cleaner: { ...ref("Cleaner"), description: "The process that cleans the lake, if one runs on this machine" },
    }),
  });
}
