/**
 * The latest posts, put together from the newest messages of the topics.
 *
 * @module
 */

import { keyBytes, type RecordView, valueBytes } from "../io/record_batch.ts";
import { type Table, tableNames } from "../io.ts";
import type { KafkaReader } from "../kafka/client.ts";
import { fetchOnce, unread } from "../kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import type { PartitionOffsets } from "../kafka/topics.ts";

/** A post, as far as its messages are among the newest of their topics. */
export interface LatestPost {
  key: string;
  /** The tables that a message of it was found for; what the others hold is not known. */
  tables: Table[];
  /** Those of them whose newest message is a delete. */
  deleted: Table[];
  /** When its newest message was posted, ms since 1970. */
  at: number;
  title: string | null;
  category: string | null;
  poster: string | null;
  country: string | null;
  user: string | null;
}

const postsShown = 12;
const postsKept = 200;
/** Offsets before the end of a topic that a poll reads: a message and a transaction marker for each post that is kept. */
const tail = 2 * postsKept;
/** Most fetches from a topic in one poll; beyond them it reads only the last `leastTail` offsets of each partition. */
const mostFetches = 4;
const leastTail = 40;
const nothing = { title: null, category: null, poster: null, country: null, user: null };

/** The fields of a post in a table's messages; the messages of other tables are not read. */
const factsOf: { [T in Table]?: (field: (name: string) => string | null) => Partial<LatestPost> } = {
  pin: (field) => ({ title: field("title"), category: field("category"), poster: field("poster_name") }),
  geo: (field) => ({ country: field("country") }),
  user: (field) => ({ user: [field("first_name"), field("last_name")].filter(Boolean).join(" ") || null }),
};

/** Reads the ends of the topics, each time from where it stopped before. */
export function openLatestPosts(kafka: KafkaSettings) {
  const next = new Map<string, number>();
  const found = new Map<string, LatestPost>();
  const take = (table: Table, { at, key, value }: { at: number; key: string; value: Buffer | null }) => {
    const before = found.get(key);
    const deleted = new Set(before?.deleted);
    deleted[value ? "delete" : "add"](table);
    const post: LatestPost = {
      ...(before ?? { key, ...nothing }),
      tables: [...new Set(before?.tables).add(table)],
      deleted: [...deleted],
      at: Math.max(at, before?.at ?? at),
    };
    // The title of a deleted post stays, so that people see which one it was.
    if (value || table !== "pin") Object.assign(post, factsOf[table]?.(value ? parseFields(value) : () => null));
    // The message read last is last in the map: messages of one batch have the same time.
    found.delete(key);
    found.set(key, post);
  };
  return {
    async read(reader: KafkaReader, ranges: Record<Table, PartitionOffsets[]>): Promise<void> {
      for (const table of tableNames.filter((name) => factsOf[name])) {
        const topic = topicOf(kafka, table);
        const positions = new Map<number, number>();
        const endOffsets = new Map<number, number>();
        for (const { partition, logStart, lastStable } of ranges[table]) {
          const known = next.get(`${topic}/${partition}`) ?? 0;
          const back = Math.max(leastTail, Math.ceil(tail / ranges[table].length));
          const from = Math.max(logStart, lastStable - back, known <= lastStable ? known : 0);
          if (from >= lastStable) continue;
          positions.set(partition, from);
          endOffsets.set(partition, lastStable);
        }
        const onRecord = (_partition: number, record: RecordView) => {
          const key = keyBytes(record)?.toString() ?? "";
          if (record.valueEnd - record.valueStart > 100_000 || !/^\d{1,19}$/.test(key)) return;
          take(table, { at: record.timestamp, key, value: valueBytes(record) });
        };
        for (let fetches = 0; fetches < mostFetches && unread(positions, endOffsets) > 0; fetches++) {
          await fetchOnce(reader, { topic, positions, endOffsets, onRecord, maxBytes: 200_000, maxWait: 100 });
        }
        for (const [partition, position] of positions) {
          next.set(`${topic}/${partition}`, Math.max(position, (endOffsets.get(partition) as number) - leastTail));
        }
      }
    },
    /** The newest first. The oldest beyond `postsKept` are dropped only here: a topic's messages may be older than another's. */
    newest(): LatestPost[] {
      const byTime = [...found.values()].reverse().sort((a, b) => b.at - a.at);
      for (const { key } of byTime.slice(postsKept)) found.delete(key);
      return byTime.slice(0, postsShown);
    },
  };
}

/** The fields of a message as short texts; null for a field that is missing or is neither text nor a number. */
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
