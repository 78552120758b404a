/**
 * Fetches committed records by partition and offset.
 *
 * @module
 */
import { decodeRecords, type RecordView } from "../io/record_batch.ts";
import type { KafkaReader } from "./client.ts";
import { retriable } from "./errors.ts";
import { type Broker, type Decoder, Encoder, failureOf, request } from "./kafkajs.ts";

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
      const wanted = partitions
        .map(Number)
        .map((partition) => [partition, positions.get(partition) as number] as const);
      for (const { partition, records, aborted } of await fetch(broker, { topic, wanted, maxBytes, maxWait })) {
        const from = positions.get(partition) as number;
        const next = await decodeRecords(records, {
          from,
          endOffset: endOffsets.get(partition) ?? 0,
          aborted,
          where: `topic "${topic}", partition ${partition}`,
          onRecord: (record) => onRecord(partition, record),
          ...(onSkipped && { onSkipped }),
        });
        positions.set(partition, next);
      }
    }),
  );
}

/** A partition in a fetch response. */
interface Fetched {
  partition: number;
  records: Buffer;
  aborted: { producerId: bigint; first: number }[];
}

/** Version 10 is the first that returns batches compressed with zstd (Kafka 2.1). */
const fetchApi = { apiKey: 1, apiVersion: 10, apiName: "Fetch" };
const readCommitted = 1;

/**
 * Sends one fetch request. kafkajs would return records of aborted transactions, verify no checksum, and overflow the
 * stack on large batches.
 *
 * @see https://kafka.apache.org/protocol#The_Messages_Fetch
 */
function fetch(
  broker: Broker,
  {
    topic,
    wanted,
    maxBytes,
    maxWait,
  }: { topic: string; wanted: (readonly [partition: number, offset: number])[]; maxBytes: number; maxWait: number },
): Promise<Fetched[]> {
  const encode = () => {
    const body = new Encoder()
      .writeInt32(-1)
      .writeInt32(maxWait)
      .writeInt32(1)
      .writeInt32(maxBytes * 4);
    body.writeInt8(readCommitted).writeInt32(0).writeInt32(-1); // no session
    body.writeInt32(1).writeString(topic).writeInt32(wanted.length);
    for (const [partition, offset] of wanted) {
      body.writeInt32(partition).writeInt32(-1).writeInt64(offset).writeInt64(-1).writeInt32(maxBytes);
    }
    return body.writeInt32(0); // forgotten topics
  };
  const decode = (from: Decoder) => {
    from.readInt32(); // throttle time
    const failure = failureOf(from.readInt16());
    if (failure) throw failure;
    from.readInt32(); // session
    const topics = from.readArray(() => {
      from.readString();
      return from.readArray(() => {
        const partition = from.readInt32();
        const refused = failureOf(from.readInt16());
        for (let offsets = 3; offsets > 0; offsets--) from.readInt64(); // log end, last stable, log start
        const aborted = from.readArray(() => ({ producerId: from.readInt64(), first: Number(from.readInt64()) }));
        const size = from.readInt32();
        if (refused) throw refused;
        return { partition, aborted, records: size > 0 ? from.readBytes(size) : Buffer.alloc(0) };
      });
    });
    return topics.flat();
  };
  return request(broker, { ...fetchApi, encode, decode });
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
