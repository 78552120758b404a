/**
 * Fetches committed records by partition and offset.
 *
 * @module
 */
import { decodeRecords, type RecordView } from "../io/record_batch.ts";
import type { KafkaReader } from "./client.ts";
import { retriable } from "./errors.ts";

type Offsets = ReadonlyMap<number, number>;

/** Options of {@link fetchOnce}. */
interface FetchOptions {
  topic: string;
  /** The next offset to fetch, by partition. A fetch moves it past what was read. */
  positions: Map<number, number>;
  /** The offset to stop at, by partition. Partitions that have reached it are not fetched. */
  endOffsets: Offsets;
  onRecord: (partition: number, record: RecordView) => void;
  /** Called with the first and last offset of each batch of control records (markers) or aborted records. */
  onSkipped?: (first: number, last: number) => void;
  /** Bytes per partition and fetch; larger batches are fetched whole. Default 4 MB. */
  maxBytes?: number;
  /** How long the broker may wait for new records, ms. Default 500. */
  maxWait?: number;
}

/**
 * Fetches once from each leader and passes on the committed records below `endOffsets`, in order within a partition.
 * Aborted records, control records and gaps of compaction only advance the position.
 *
 * @throws if a batch's checksum is wrong, its records cannot be decompressed, or an offset is out of range
 */
export async function fetchOnce(reader: KafkaReader, options: FetchOptions): Promise<void> {
  const { topic, positions, endOffsets, onRecord, onSkipped, maxBytes = 4_000_000, maxWait = 500 } = options;
  const open = [...positions].filter(([partition, next]) => next < (endOffsets.get(partition) ?? 0)).map(([p]) => p);
  await reader.cluster.addTargetTopic(topic);
  const leaders = Object.entries(reader.cluster.findLeaderForPartitions(topic, open));
  const led = leaders.flatMap(([, partitions]) => partitions.map(Number));
  const leaderless = open.filter((partition) => !led.includes(partition));
  if (leaderless.length > 0) throw retriable(`No broker leads partition ${leaderless.join(", ")} of topic "${topic}"`);
  await Promise.all(
    leaders.map(async ([nodeId, partitions]) => {
      const broker = await reader.cluster.findBroker({ nodeId });
      const wantedPartitions = partitions.map((partition) => ({
        partition,
        fetchOffset: String(positions.get(partition)),
        maxBytes,
      }));
      const { responses } = await broker.fetch({
        isolationLevel: 1,
        maxWaitTime: maxWait,
        minBytes: 1,
        maxBytes: maxBytes * 4,
        topics: [{ topic, partitions: wantedPartitions }],
      });
      for (const { partition, messages, abortedTransactions } of responses[0]?.partitions ?? []) {
        const from = positions.get(partition) as number;
        const next = await decodeRecords(messages, {
          from,
          endOffset: endOffsets.get(partition) ?? 0,
          abortedTransactions: abortedTransactions ?? [],
          where: `topic "${topic}", partition ${partition}`,
          onRecord: (record) => onRecord(partition, record),
          ...(onSkipped && { onSkipped }),
        });
        positions.set(partition, next);
      }
    }),
  );
}

/** The number of offsets left to read, including those of control and aborted records. */
export function unread(positions: Offsets, endOffsets: Offsets): number {
  let count = 0;
  for (const [partition, next] of positions) count += Math.max(0, (endOffsets.get(partition) ?? 0) - next);
  return count;
}

/**
 * Reads the record at one offset.
 *
 * @returns null for a control or aborted record, `undefined` if the offset holds none
 */
export async function readRecord<T>(
  reader: KafkaReader,
  topic: string,
  { partition, offset, take }: { partition: number; offset: number; take: (record: RecordView) => T },
): Promise<T | null | undefined> {
  let found: T | null | undefined;
  await fetchOnce(reader, {
    topic,
    positions: new Map([[partition, offset]]),
    endOffsets: new Map([[partition, offset + 1]]),
    maxBytes: 1,
    onRecord: (_partition, record) => {
      if (record.offset === offset) found = take(record);
    },
    onSkipped: (first, last) => {
      if (first <= offset && offset <= last) found = null;
    },
  });
  return found;
}
