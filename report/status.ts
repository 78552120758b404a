/**
 * How far each table is on its way from MySQL to silver, for the `status` command, the report and the live page.
 *
 * @module
 */

import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import { tableBehind } from "../db_conn/log_checks.ts";
import type { Database } from "../db_conn/query.ts";
import { connectMysql, countRows, type MysqlSettings } from "../db_conn.ts";
import { comparePlaces, type LogPlace } from "../io/log_place.ts";
import { sum } from "../io/text.ts";
import { byTable, byTableInTurn, type Table, tableNames, tables } from "../io.ts";
import { readCheckpoints } from "../kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "../kafka/client.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { listOffsets, type PartitionOffsets } from "../kafka/topics.ts";
import { type LedgerRow, lakeState, type TableState } from "../lake/ledger.ts";
import { checkIdentity, missingTopic, readIdentity } from "../lake/owner.ts";

/** Counts of a table in MySQL and in its checkpoint; null where that service cannot be reached. */
export interface Source {
  in_mysql: number | null;
  /** Rows of the table up to the last key, as of the checkpoint's place in the log. */
  posted: number | null;
  last_key: string | null;
  /** Null if the table's changes are not followed in MySQL's log. */
  behind: Behind | null;
}

/** How far the posting of a table is behind the end of MySQL's log. */
export interface Behind {
  /** Age of the first change that is not posted; 0 if there is none, null if unknown. */
  seconds: number | null;
  /** Bytes of the log from that change to the end; null if unknown, because an earlier file cannot be listed or was purged. */
  bytes: number | null;
  /** Log files that MySQL has begun since. */
  files: number;
}

/** The progress of a table from MySQL to silver. Offsets include transaction markers. */
export interface TableStatus extends Source, LedgerRow {
  /** The table's name for people. */
  label: string;
  topic: string;
  /** Offsets in the topic; null if the topic does not exist or Kafka cannot be reached. */
  in_topic: number | null;
  /** Offsets that are not cleaned yet. */
  lag: number | null;
  /** Next offset to land and to clean, by partition. */
  landed: Record<string, number>;
  cleaned: Record<string, number>;
  /** Whether the ledger of the cleaned messages is balanced. */
  balanced: boolean;
}

/**
 * Warns about rows of silver that MySQL no longer has; `undefined` if there are none, or their number is unknown.
 *
 * The number is a lower bound: rows of other producers and rejected rows never add to it.
 */
export function unseenDeletes(
  table: Table,
  { in_mysql: there, posted, behind }: Source,
  clean: number,
): string | undefined {
  // Deletes in the log arrive on their own.
  if (there === null || posted === null || (behind && behind.bytes !== 0)) return undefined;
  const rows = Math.min(clean, posted) - there;
  if (rows <= 0) return undefined;
  return `Silver holds ${rows} or more rows of "${table}" that MySQL no longer has, because they were deleted without its log: run post --full, then clean, which remove them`;
}

/** The state of all tables. */
export interface Status {
  tables: Record<Table, TableStatus>;
  /** The topics' partitions; empty if Kafka cannot be reached or the topic does not exist. */
  ranges: Record<Table, PartitionOffsets[]>;
  /** Services that could not be reached and missing topics, for people. */
  trouble: string[];
  /** The entries of `trouble` about missing topics. */
  missing: string[];
}

/** Settings of {@link openStatus}. */
interface StatusOptions {
  /** Undefined if it does not run. */
  mysql?: MysqlSettings;
  /** Without brokers if it does not run. */
  kafka: KafkaSettings;
  /** How long to wait for a locked table, or for a database that does not respond, ms. */
  waitMs: number;
  /** How long a count of MySQL's rows is reused, ms; a slow count is reused longer. Default 0. */
  countEveryMs?: number;
}

/** Reads the status repeatedly over the same connections; a lost one is opened again at the next read. */
interface StatusReader extends AsyncDisposable {
  sources(): Promise<{ tables: Record<Table, Source>; trouble: string[] }>;
  /** @throws `UsageError` if the lake belongs to another cluster or prefix */
  read(lake: string): Promise<Status>;
  /** The connection to Kafka, for other readers. */
  kafka(): Promise<KafkaReader>;
}

/** Opens a reader; it connects at the first read. It allows one call at a time. */
export function openStatus(options: StatusOptions): StatusReader {
  const { kafka } = options;
  const { mysql } = options;
  const mysqlSource = mysql && openMysqlSource({ ...options, mysql });
  const kafkaSource = openKafkaSource(kafka);
  const self: StatusReader = {
    kafka: kafkaSource.connect,
    async sources() {
      const trouble: string[] = [];
      // Checkpoints before counts: then a table that is not behind did not change between its checkpoint and its count.
      const checkpoints = await kafkaSource.ask((reader) => readCheckpoints(reader, kafka, tableNames), trouble);
      const rows = await mysqlSource?.count(trouble);
      const places = byTable((table) => checkpoints?.[table]?.log ?? undefined);
      const behind = rows && (await mysqlSource?.behind(places, trouble));
      const of = (table: Table): Source => ({
        in_mysql: rows?.[table] ?? null,
        posted: checkpoints ? (checkpoints[table]?.rows ?? 0) : null,
        last_key: checkpoints?.[table]?.lastKey ?? null,
        behind: behind?.[table] ?? null,
      });
      return { tables: byTable(of), trouble };
    },
    async read(lake) {
      const { tables: sources, trouble } = await self.sources();
      const states = await lakeState(lake);
      const identity = await readIdentity(lake);
      const ranges = await kafkaSource.ask((reader) => {
        if (identity) checkIdentity(lake, identity, { cluster: reader.clusterId, prefix: kafka.prefix });
        return Promise.all(tableNames.map((table) => listOffsets(reader, topicOf(kafka, table))));
      }, trouble);
      const of = (table: Table, i: number): TableStatus => ({
        ...sources[table],
        label: tables[table].label,
        topic: topicOf(kafka, table),
        ...combine(states[table], { asked: ranges !== undefined, partitions: ranges?.[i] }),
      });
      const missing = ranges ? missingTopics(lake, { kafka, states, ranges }) : [];
      return {
        ...{ tables: byTable(of), ranges: byTable((_, i) => ranges?.[i] ?? []) },
        ...{ trouble: [...new Set(trouble), ...missing], missing },
      };
    },
    async [Symbol.asyncDispose]() {
      mysqlSource?.close();
      await kafkaSource.close();
    },
  };
  return self;
}

/** A line for each topic that does not exist although the lake holds its messages. Exported for tests. */
export const missingTopics = (
  lake: string,
  { kafka, states, ranges }: { kafka: KafkaSettings; states: Record<Table, TableState>; ranges: unknown[] },
): string[] =>
  tableNames
    .filter((table, i) => !ranges[i] && states[table].landed.size > 0)
    .map((table) => missingTopic(topicOf(kafka, table), lake));

/** Asks a service; returns nothing and adds to `trouble` if it cannot be reached. */
async function ask<T>(
  question: () => Promise<T>,
  { trouble, isTransient, forget }: { trouble: string[]; isTransient: typeof isTransientKafka; forget: () => void },
): Promise<T | undefined> {
  try {
    return await question();
  } catch (error) {
    forget();
    if (!isTransient(error)) throw error;
    trouble.push((error as Error).message);
    return undefined;
  }
}

/** Counts MySQL's rows and compares places with its log, over one connection. */
function openMysqlSource({ mysql, waitMs, countEveryMs = 0 }: StatusOptions & { mysql: MysqlSettings }) {
  let db: Database | undefined;
  const orNull = (error: unknown): null => {
    if (isTransientMysql(error)) throw explainMysql(error, mysql);
    return null;
  };
  let counted: { until: number; rows: Record<Table, number | null> } | undefined;
  const connected = async (): Promise<Database> => {
    db ??= await connectMysql(mysql, { waitMs });
    return db;
  };
  const count = async (): Promise<Record<Table, number | null>> => {
    if (counted && Date.now() < counted.until) return counted.rows;
    const began = Date.now();
    const connection = await connected();
    // Null for a table that is missing or cannot be read.
    const countOf = (table: Table): Promise<number | null> => countRows(connection, table).catch(orNull);
    const rows = await byTableInTurn(countOf);
    counted = { until: Date.now() + Math.max(countEveryMs, countEveryMs && 20 * (Date.now() - began)), rows };
    return rows;
  };
  // Part of the log after a checkpoint without a change of the table, so that it is not read again each time.
  const looked = new Map<Table, { from: LogPlace; seen: LogPlace }>();
  const behind = async (table: Table, posted: LogPlace | undefined): Promise<Behind | null> => {
    if (!posted) return null;
    const known = looked.get(table);
    const isKnown = known && comparePlaces(known.from, posted) <= 0 && comparePlaces(posted, known.seen) < 0;
    const place = isKnown ? known.seen : posted;
    // Null if the user may not read the log.
    const found = await tableBehind(await connected(), mysql, { table, place }).catch(orNull);
    if (!found?.lag) return null;
    looked.set(table, { from: isKnown ? known.from : posted, seen: found.seen });
    const { seconds = null, bytes = null, files } = found.lag;
    return { seconds, bytes, files };
  };
  const close = () => {
    db?.destroy();
    db = undefined;
  };
  const asking = (trouble: string[]) => ({ trouble, isTransient: isTransientMysql, forget: close });
  return {
    count: (trouble: string[]) => ask(count, asking(trouble)),
    behind: (places: Record<Table, LogPlace | undefined>, trouble: string[]) =>
      ask(() => byTableInTurn((table) => behind(table, places[table])), asking(trouble)),
    close,
  };
}

/** Asks Kafka over one connection. */
function openKafkaSource(kafka: KafkaSettings) {
  let reader: KafkaReader | undefined;
  const connect = async (): Promise<KafkaReader> => {
    reader ??= await connectReader(kafka);
    return reader;
  };
  const close = async () => {
    const closing = reader?.close();
    reader = undefined;
    await closing;
  };
  return {
    connect,
    close,
    ask: async <T>(question: (reader: KafkaReader) => Promise<T>, trouble: string[]) =>
      kafka.brokers.length === 0
        ? undefined
        : ask(async () => question(await connect()), {
            trouble,
            isTransient: isTransientKafka,
            forget: () => void close(),
          }),
  };
}

/** The progress of a table in the lake and, if Kafka could be `asked`, in the topic; a missing topic has no partitions. */
function combine(
  { landed, cleaned, ledger, isBalanced }: TableState,
  { asked, partitions }: { asked: boolean; partitions: PartitionOffsets[] | undefined },
) {
  const lagOf = (r: PartitionOffsets) => Math.max(0, r.lastStable - (cleaned.get(r.partition) ?? r.logStart));
  return {
    in_topic: partitions ? sum(partitions, (r) => r.logEnd - r.logStart) : null,
    lag: asked ? sum(partitions ?? [], lagOf) : null,
    ...{ landed: Object.fromEntries(landed), cleaned: Object.fromEntries(cleaned), ...ledger },
    balanced: isBalanced,
  };
}
