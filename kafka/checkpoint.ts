/**
 * The checkpoint topic: how far each table has been posted, committed together with the rows.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { isLogPlace, type LogPlace } from "../io/log_place.ts";
import { keyBytes, type RecordView, valueBytes } from "../io/record_batch.ts";
import { type Table, tables } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import type { KafkaReader } from "./client.ts";
import { retriable } from "./errors.ts";
import { fetchOnce, unread } from "./fetch.ts";
import { checkpointTopic, type KafkaSettings, topicOf } from "./settings.ts";
import { listOffsets, openTransaction, type PartitionOffsets } from "./topics.ts";

/** How far the rows of a table are posted. */
export interface Progress {
  /** Greatest key posted, as decimal text, and how many rows the table had up to it. */
  lastKey: string | null;
  rows: number;
  /**
   * The rows up to `lastKey` are posted as the table had them at this place in the database's log; null where the log
   * is not followed.
   */
  log?: LogPlace | null;
  /** Of the keys that the log names between `log` and `to`, those up to `done` are posted too. */
  piece?: { to: LogPlace; done: string } | null;
}

/** How far a table is posted: a record of the checkpoint topic, committed together with the rows it counts. */
export interface Checkpoint extends Progress {
  table: Table;
  database: string;
  /** The process that posted last. `claim` grows by one with every start, so that two posts notice each other. */
  owner: { id: string; host: string; pid: number; started: string };
  claim: number;
  /** The newest `--full` run: done, or to be finished by the next post. */
  full: (Progress & { id: string; upTo: string | null; done: boolean }) | null;
  /** The last record posted. */
  last: { partition: number; offset: number; key: string } | null;
  /** Kafka's id of the table's topic; brokers before 2.8 give none. */
  topicId?: string;
}

/**
 * Refuses topics that hold the rows of another database.
 *
 * @throws `UsageError` that says what to do
 */
export function checkDatabase(kafka: KafkaSettings, checkpoint: Checkpoint | undefined, database: string): void {
  if (!checkpoint || checkpoint.database === database) return;
  throw new UsageError(
    `Topic "${topicOf(kafka, checkpoint.table)}" holds the rows of database "${checkpoint.database}", not of "${database}": choose another prefix by --prefix or KAFKA.PREFIX`,
  );
}

/**
 * Reads the newest committed checkpoint of each table.
 *
 * @param options.complete waits until no transaction is open in their partitions, so that nothing newer can appear
 * @param options.onStrange called with the number of records in a table's partition that are not its checkpoints; they
 * are skipped
 * @returns no entry for a table without a checkpoint
 */
export async function readCheckpoints(
  reader: KafkaReader,
  kafka: KafkaSettings,
  of: readonly Table[],
  { complete = false, onStrange }: { complete?: boolean; onStrange?: (table: Table, records: number) => void } = {},
): Promise<Partial<Record<Table, Checkpoint>>> {
  const topic = checkpointTopic(kafka);
  const tableOf = new Map<number, Table>(of.map((table) => [tables[table].checkpointPartition, table]));
  const deadline = Date.now() + 20_000;
  for (;;) {
    const ranges = ((await listOffsets(reader, topic)) ?? []).filter(({ partition }) => tableOf.has(partition));
    // The topic was created: a broker that does not know it yet must not cause every row to be posted again.
    if (complete && ranges.length < of.length) throw retriable(`Topic "${topic}" is not known to the broker yet`);
    const open = complete && ranges.find(({ lastStable, logEnd }) => lastStable < logEnd);
    if (open) {
      if (Date.now() > deadline) throw retriable(openTransaction(topic, open) + lostMarker(topic, open));
      await sleep(20);
      continue;
    }
    const newest: Partial<Record<Table, Checkpoint>> = {};
    const strange = new Map<Table, number>();
    const positions = new Map(ranges.map(({ partition, logStart }) => [partition, logStart]));
    const endOffsets = new Map(ranges.map(({ partition, lastStable }) => [partition, lastStable]));
    while (unread(positions, endOffsets) > 0) {
      await fetchOnce(reader, {
        topic,
        positions,
        endOffsets,
        onRecord: (partition, record) => {
          const table = tableOf.get(partition) as Table;
          const checkpoint = parseCheckpoint(record, table);
          if (checkpoint) newest[table] = checkpoint;
          else strange.set(table, (strange.get(table) ?? 0) + 1);
        },
      });
    }
    for (const [table, records] of strange) onStrange?.(table, records);
    return newest;
  }
}

/** Parses a record; `undefined` if it is not a checkpoint of the table. */
function parseCheckpoint(record: RecordView, table: Table): Checkpoint | undefined {
  if (keyBytes(record)?.toString() !== table) return undefined;
  let found: Checkpoint | null;
  try {
    found = JSON.parse(valueBytes(record)?.toString() ?? "null") as Checkpoint | null;
  } catch {
    return undefined;
  }
  const { owner, full, last } = found ?? {};
  const fits =
    found?.table === table &&
    [found.database, found.topicId ?? ""].every(isText) &&
    [owner?.id, owner?.host, owner?.started].every(isText) &&
    [owner?.pid, found.claim].every(Number.isSafeInteger) &&
    isProgress(found) &&
    (full === null || (isText(full?.id) && isKey(full?.upTo) && typeof full?.done === "boolean" && isProgress(full))) &&
    (last === null || (isText(last?.key) && [last?.partition, last?.offset].every(Number.isSafeInteger)));
  return fits ? (found as Checkpoint) : undefined;
}

const isText = (value: unknown) => typeof value === "string";
const isKey = (key: unknown) => key === null || (typeof key === "string" && /^-?\d+$/.test(key));
const isProgress = ({ lastKey, rows, log, piece }: Partial<Progress>) =>
  isKey(lastKey) &&
  Number.isSafeInteger(rows) &&
  (log == null || isLogPlace(log)) &&
  (piece == null || (isKey(piece.done) && isLogPlace(piece.to)));

// The producer is fenced, so the broker should have ended its transaction.
const lostMarker = (topic: string, { partition, lastStable: stable }: PartitionOffsets): string =>
  `, which a killed broker of Kafka 4.3 or 4.4 may leave (KAFKA-20734): abort it with "kafka-transactions.sh --bootstrap-server ... abort --topic ${topic} --partition ${partition} --start-offset ${stable}", then run post --full`;

export type Last = NonNullable<Checkpoint["last"]>;
