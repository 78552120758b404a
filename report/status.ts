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
import { readCheckpoint } from "../kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "../kafka/client.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { listOffsets, type PartitionOffsets } from "../kafka/topics.ts";
import { type LedgerRow, lakeState, type TableState } from "../lake/ledger.ts";
import { checkIdentity, missingTopic, readIdentity } from "../lake/owner.ts";

/** What MySQL and the checkpoint say of a table; null where that service can't be asked. */
export interface Source {
  in_mysql: number | null;
  /** Rows that there were up to the last key, at the place in the log where that is followed. */
  posted: number | null;
  last_key: string | null;
  /** How far what is posted is behind MySQL; null where the log is not followed. */
  behind: Behind | null;
}

/** How far what is posted of a table is behind the end of MySQL's log. */
export interface Behind {
  /** Since the next change of the table was written; 0 where there is none, null where it is not known. */
  seconds: number | null;
  /** Bytes of the log from that change on. Null where the place is in another file, and the files may not be listed or have gone. */
  bytes: number | null;
  /** Files that were begun since. */
  files: number;
}

/** How far a table is. Offsets count the marks of transactions too. */
export interface TableStatus extends Source, LedgerRow {
  /** What people read for the table's name. */
  label: string;
  topic: string;
  /** Offsets in the topic; null where there is no such topic, or Kafka can't be asked. */
  in_topic: number | null;
  /** Offsets that are not cleaned yet. */
  lag: number | null;
  /** Next offset to land and to clean, by partition. */
  landed: Record<string, number>;
  cleaned: Record<string, number>;
  /** Whether the ledger of what is cleaned is balanced; messages that are landed only are not in it. */
  balanced: boolean;
}

/**
 * Warns about rows that silver holds and MySQL no longer does; `undefined` if there are none, or the number is unknown.
 *
 * The number is the least that explains the counts: rows of other producers and rejected rows never add to it.
 */
export function unseenDeletes(
  table: Table,
  { in_mysql: there, posted, behind }: Source,
  clean: number,
): string | undefined {
  // Deletes that the log shows arrive by themselves.
  if (there === null || posted === null || (behind && behind.bytes !== 0)) return undefined;
  const rows = Math.min(clean, posted) - there;
  if (rows <= 0) return undefined;
  return `Silver holds ${rows} or more rows of "${table}" that MySQL no longer has, because they were deleted without its log: run post --full, then clean, which remove them`;
}

/** A look at all tables. */
export interface Status {
  tables: Record<Table, TableStatus>;
  /** The topics' partitions; none where Kafka can't be asked or the topic is not there. */
  ranges: Record<Table, PartitionOffsets[]>;
  /** Which services could not be asked and which topics are missing, for people to read. */
  trouble: string[];
  /** Those of `trouble` about missing topics. */
  missing: string[];
}

/** Settings of {@link openStatus}. */
interface StatusOptions {
  /** None where it does not run. */
  mysql?: MysqlSettings;
  /** Without brokers where it does not run. */
  kafka: KafkaSettings;
  /** How long a look may wait for a table that others have locked, and for a database that answers nobody, ms. */
  waitMs: number;
  /** How long a count of MySQL's rows serves before the next one, ms; a slow one serves longer. Default 0. */
  countEveryMs?: number;
}

/** Looks again and again over connections that it keeps; one that is lost is opened again at the next look. */
interface StatusReader extends AsyncDisposable {
  sources(): Promise<{ tables: Record<Table, Source>; trouble: string[] }>;
  /** @throws `UsageError` where the lake belongs to another cluster or prefix */
  read(lake: string): Promise<Status>;
  /** The connection to Kafka, for others who read. */
  kafka(): Promise<KafkaReader>;
}

/** Opens a reader; it connects when it first looks. Its calls must follow one another. */
export function openStatus(options: StatusOptions): StatusReader {
  const { kafka } = options;
  const { mysql } = options;
  const mysqlSource = mysql && openMysqlSource({ ...options, mysql });
  const kafkaSource = openKafkaSource(kafka);
  const self: StatusReader = {
    kafka: kafkaSource.connect,
    async sources() {
      const trouble: string[] = [];
      // In this order: a table that is not behind was not changed between its checkpoint and its count.
      const checkpoints = await kafkaSource.ask(
        (reader) => Promise.all(tableNames.map((table) => readCheckpoint(reader, kafka, table))),
        trouble,
      );
      const rows = await mysqlSource?.count(trouble);
      const places = byTable((_, i) => checkpoints?.[i]?.log ?? undefined);
      const behind = rows && (await mysqlSource?.behind(places, trouble));
      const of = (table: Table, i: number): Source => ({
        in_mysql: rows?.[table] ?? null,
        posted: checkpoints ? (checkpoints[i]?.rows ?? 0) : null,
        last_key: checkpoints?.[i]?.lastKey ?? null,
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

/** What a service says; where it can't be asked, nothing, and its trouble. */
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

/** Counts MySQL's rows, and compares places with its log, over a connection that it keeps. */
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
    // A table that is not there or may not be read: there is nothing to count.
    const countOf = (table: Table): Promise<number | null> => countRows(connection, table).catch(orNull);
    const rows = await byTableInTurn(countOf);
    counted = { until: Date.now() + Math.max(countEveryMs, countEveryMs && 20 * (Date.now() - began)), rows };
    return rows;
  };
  // Up to where nothing has happened to a table since a checkpoint's place: not to be read over again at each look.
  const looked = new Map<Table, { from: LogPlace; seen: LogPlace }>();
  const behind = async (table: Table, posted: LogPlace | undefined): Promise<Behind | null> => {
    if (!posted) return null;
    const known = looked.get(table);
    const isKnown = known && comparePlaces(known.from, posted) <= 0 && comparePlaces(posted, known.seen) < 0;
    const place = isKnown ? known.seen : posted;
    // A log that may not be looked at: how far behind is not known.
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

/** Asks Kafka over a connection that it keeps. */
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

/** How far a table is in the lake and, if Kafka can be `asked`, in the topic; a topic that is missing has no partitions. */
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
