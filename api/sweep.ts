/**
 * Finds the keys that are in a topic but no longer in its table. A full run posts a delete for each.
 *
 * @module
 */

import { changesBetween } from "../db_conn/log.ts";
import type { LogTable } from "../db_conn/log_rows.ts";
import { ask } from "../db_conn/query.ts";
import { openSnapshot } from "../db_conn/snapshot.ts";
import { type MysqlSettings, readPage, type SourceTable } from "../db_conn.ts";
import type { LogPlace } from "../io/log_place.ts";
import type { RecordView } from "../io/record_batch.ts";
import { connectReader } from "../kafka/client.ts";
import { retriable } from "../kafka/errors.ts";
import { fetchOnce, unread } from "../kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { listOffsets, waitForStableOffset } from "../kafka/topics.ts";
import { KeySet } from "./key_set.ts";
import type { TableReader } from "./table_reader.ts";

/** Options of {@link goneKeys}. */
interface SweepOptions {
  reader: TableReader;
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  source: SourceTable;
  logTable: LogTable | undefined;
  /** The last key of the full run. Later runs see rows above it only as new ones, so they never delete one. */
  upTo: string | null;
  /** The place up to which the log is posted. The next round posts later changes. */
  log: LogPlace | null;
  signal: AbortSignal;
}

/** Rows of a page that reads only the keys. */
const pageKeys = 100_000;

/**
 * The keys, as decimal text, whose newest message in the topic is a row but that are not in the table or are above
 * `upTo`. Ignores keys that are not decimal digits. Memory: a bit per key, about 100 bytes for each isolated key.
 */
export async function goneKeys(options: SweepOptions): Promise<Iterable<string>> {
  const { reader, mysql, source, logTable, upTo, log, signal } = options;
  const gone = await keysInTopic(options);
  if (upTo === null) return union(gone);
  if (logTable && log) {
    const { place: to } = await openSnapshot(reader.db, mysql);
    const last = BigInt(upTo);
    for await (const { keys } of changesBetween(mysql, { table: logTable, from: log, to, signal })) {
      const named = [...keys.keys()].map(BigInt).filter((key) => key <= last);
      for (const key of named) for (const set of gone) set.delete(key);
    }
  }
  const keyColumn = source.columns[source.key] as SourceTable["columns"][number];
  const keys: SourceTable = { ...source, columns: [keyColumn], key: 0 };
  for (let after: string | undefined, rows = pageKeys; rows === pageKeys; ) {
    signal.throwIfAborted();
    const page = { after, upTo, limit: pageKeys };
    ({ rows } = await readPage(reader.db, keys, page, (bytes, start) => {
      after = bytes.toString("latin1", start + 1, start + 1 + (bytes[start] as number));
      for (const set of gone) set.delete(numberOf(after) as number | bigint);
    }));
  }
  if (logTable) await ask(reader.db, "COMMIT");
  return union(gone);
}

/** For each partition, the keys whose newest message there has a value. */
async function keysInTopic({ kafka, source, signal }: SweepOptions): Promise<KeySet[]> {
  const topic = topicOf(kafka, source.table);
  // Messages behind an open transaction cannot be read.
  const open = await waitForStableOffset(kafka, source.table);
  if (open) throw retriable(open);
  await using reader = await connectReader(kafka);
  const ranges = (await listOffsets(reader, topic)) ?? [];
  const sets = new Map(ranges.map(({ partition }) => [partition, new KeySet()]));
  const onRecord = (partition: number, { bytes, keyStart, keyEnd, valueStart }: RecordView) => {
    const key = keyStart < 0 ? undefined : numberOf(bytes.toString("latin1", keyStart, keyEnd));
    if (key === undefined) return;
    if (valueStart < 0) sets.get(partition)?.delete(key);
    else sets.get(partition)?.add(key);
  };
  const positions = new Map(ranges.map(({ partition, logStart }) => [partition, logStart]));
  const endOffsets = new Map(ranges.map(({ partition, lastStable }) => [partition, lastStable]));
  while (unread(positions, endOffsets) > 0) {
    signal.throwIfAborted();
    await fetchOnce(reader, { topic, positions, endOffsets, onRecord });
  }
  return [...sets.values()];
}

/** The number in a key's text; `undefined` if it is not a whole number that fits 64 bits. */
function numberOf(text: string): number | bigint | undefined {
  if (!/^-?\d+$/.test(text)) return undefined;
  if (text.length < 16) return Number(text);
  const key = BigInt(text);
  return key >= -(2n ** 63n) && key < 2n ** 64n ? key : undefined;
}

function* union(sets: KeySet[]): Generator<string> {
  for (const [i, set] of sets.entries()) {
    for (const key of set.texts()) {
      yield key;
      for (const other of sets.slice(i + 1)) other.delete(BigInt(key));
    }
  }
}
