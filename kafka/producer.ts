/**
 * A transactional producer on kafkajs' connections: initProducerId -> addPartitionsToTxn -> produce -> endTxn.
 *
 * It sends one request at a time to each broker and never resends one. A missing response leaves the transaction in doubt
 * until a new producer with the same transactional id fences this one. kafkajs' producer resends when one of several
 * brokers fails, which duplicates rows within a transaction.
 *
 * @module
 */
import { type RecordBatch, sealBatch } from "../io/record_batch.ts";
import { UsageError } from "../runtime/errors.ts";
import { connectReader, findCoordinator, type KafkaReader, whenReady } from "./client.ts";
import { retriable, rootCause } from "./errors.ts";
import { type Broker, type Cluster, type Decoder, Encoder, failureOf, request } from "./kafkajs.ts";
import type { KafkaSettings } from "./settings.ts";

/** A record batch and its topic. */
export interface TopicBatch {
  topic: string;
  batch: RecordBatch;
}

/** An open transaction. After any error only {@link Transaction.abort} may be called. */
export interface Transaction {
  /**
   * Sends batches, at most one per partition, and waits until every one is acknowledged.
   *
   * @returns the offset of each batch's first record, in the order of the batches
   * @throws if a batch was not acknowledged; it may be stored or not
   */
  send(batches: TopicBatch[]): Promise<number[]>;
  /** Adds partitions to the transaction in one request; {@link Transaction.send} adds missing ones. */
  add(partitions: { topic: string; partition: number }[]): Promise<void>;
  /** @throws if the coordinator has not acknowledged; the transaction may be committed or not */
  commit(): Promise<void>;
  abort(): Promise<void>;
}

/** A producer that owns a transactional id. It runs one transaction at a time. */
export interface Producer {
  begin(): Promise<Transaction>;
  /** How many partitions a topic has. */
  partitionsOf(topic: string): Promise<number>;
  disconnect(): Promise<void>;
}

interface ProducerOptions {
  transactionalId: string;
  /** The broker aborts a transaction that is open for longer, ms. */
  transactionTimeout?: number;
  /** Its connections are used, and closed with the producer. Default: others. */
  reader?: KafkaReader;
}

const produceApi = { apiKey: 0, apiVersion: 3, apiName: "Produce" };
const acksOfAll = -1;
const produceTimeout = 30_000;
const sequences = 2 ** 31;
/**
 * Connects a producer that has fenced earlier owners of its transactional id and aborted their transaction. The caller
 * disconnects it.
 *
 * @throws `UsageError` if the brokers refuse transactions of that length
 */
export async function openProducer(settings: KafkaSettings, options: ProducerOptions): Promise<Producer> {
  const { transactionalId, transactionTimeout = 60_000, reader } = options;
  const { cluster } = reader ?? (await connectReader(settings));
  try {
    const { coordinator, owner } = await whenReady(async () => {
      const broker = await findCoordinator(cluster, transactionalId, "transaction");
      return { coordinator: broker, owner: await broker.initProducerId({ transactionalId, transactionTimeout }) };
    });
    return producerOf(cluster, coordinator, { transactionalId, ...owner });
  } catch (error) {
    void cluster.disconnect().catch(() => {});
    if ((rootCause(error) as { type?: string }).type !== "INVALID_TRANSACTION_TIMEOUT") throw error;
    throw new UsageError(
      `Kafka at ${settings.brokers.join(", ")} refuses transactions of up to ${transactionTimeout / 1000} s: set transaction.max.timeout.ms of its brokers to ${transactionTimeout} or more`,
      { cause: error },
    );
  }
}

interface Owner {
  transactionalId: string;
  producerId: string;
  producerEpoch: number;
}

function producerOf(cluster: Cluster, coordinator: Broker, owner: Owner): Producer {
  /** The next sequence number of each partition, by {@link nameOf}. */
  const next = new Map<string, number>();

  const begin = async (): Promise<Transaction> => {
    await cluster.refreshMetadataIfNecessary();
    const added = new Set<string>();
    const end = async (transactionResult: boolean) => {
      if (added.size > 0) await coordinator.endTxn({ ...owner, transactionResult });
    };
    const add: Transaction["add"] = async (partitions) => {
      const topics = new Map<string, Set<number>>();
      for (const { topic, partition } of partitions) {
        if (added.has(nameOf(topic, partition))) continue;
        topics.set(topic, (topics.get(topic) ?? new Set()).add(partition));
      }
      if (topics.size === 0) return;
      const wanted = [...topics].map(([topic, some]) => ({ topic, partitions: [...some] }));
      await whenReady(() => coordinator.addPartitionsToTxn({ ...owner, topics: wanted }));
      for (const { topic, partition } of partitions) added.add(nameOf(topic, partition));
    };
    return {
      add,
      async send(batches) {
        const byLeader = new Map<string, TopicBatch[]>();
        for (const one of batches) {
          const leader = await leaderOf(cluster, one);
          byLeader.set(leader, [...(byLeader.get(leader) ?? []), one]);
        }
        await add(batches.map(({ topic, batch }) => ({ topic, partition: batch.partition })));
        const sends = [...byLeader].map(async ([nodeId, some]) => {
          const broker = await cluster.findBroker({ nodeId });
          const sequenced = some.map(({ topic, batch }) => {
            const name = nameOf(topic, batch.partition);
            const sequence = next.get(name) ?? 0;
            next.set(name, (sequence + batch.length) % sequences);
            return { topic, batch, sequence };
          });
          return produce(broker, owner, sequenced);
        });
        const offsets = new Map<string, number>();
        // Waits for all, so that no request is in flight when the caller aborts.
        for (const settled of await Promise.allSettled(sends)) {
          if (settled.status === "rejected") throw settled.reason;
          for (const [name, offset] of settled.value) offsets.set(name, offset);
        }
        return acknowledgedOffsets(batches, offsets);
      },
      commit: () => end(true),
      abort: () => end(false),
    };
  };

  return {
    begin,
    async partitionsOf(topic) {
      await cluster.addTargetTopic(topic);
      return cluster.findTopicPartitionMetadata(topic).length;
    },
    disconnect: () => cluster.disconnect(),
  };
}

const nameOf = (topic: string, partition: number): string => `${topic}/${partition}`;

/** The first offset of each batch, from what the brokers acknowledged. @throws if one is missing */
export const acknowledgedOffsets = (batches: TopicBatch[], offsets: Map<string, number>): number[] =>
  batches.map(({ topic, batch: { partition } }) => {
    const offset = offsets.get(nameOf(topic, partition));
    if (offset === undefined) throw retriable(`Partition ${partition} of topic "${topic}" did not acknowledge`);
    return offset;
  });

async function leaderOf(cluster: Cluster, { topic, batch: { partition } }: TopicBatch): Promise<string> {
  await cluster.addTargetTopic(topic);
  const [leader] = Object.keys(cluster.findLeaderForPartitions(topic, [partition]));
  if (leader === undefined) throw retriable(`No broker leads partition ${partition} of topic "${topic}"`);
  return leader;
}

/**
 * Sends one produce request.
 *
 * @returns the first offset of each partition, by {@link nameOf}
 * @see https://kafka.apache.org/protocol#The_Messages_Produce
 */
function produce(
  broker: Broker,
  { transactionalId, producerId, producerEpoch }: Owner,
  batches: (TopicBatch & { sequence: number })[],
): Promise<Map<string, number>> {
  const encode = () => {
    const topics = [...new Set(batches.map(({ topic }) => topic))];
    const head = new Encoder().writeString(transactionalId).writeInt16(acksOfAll).writeInt32(produceTimeout);
    const parts = [head.writeInt32(topics.length).buffer];
    for (const topic of topics) {
      const some = batches.filter((one) => one.topic === topic);
      parts.push(new Encoder().writeString(topic).writeInt32(some.length).buffer);
      for (const { batch, sequence } of some) {
        const bytes = sealBatch(batch, { producerId: BigInt(producerId), producerEpoch, baseSequence: sequence });
        parts.push(new Encoder().writeInt32(batch.partition).writeInt32(bytes.length).buffer, bytes);
      }
    }
    return parts;
  };
  const decode = (from: Decoder) => {
    const offsets = new Map<string, number>();
    from.readArray(() => {
      const topic = from.readString() as string;
      from.readArray(() => {
        const partition = from.readInt32();
        const failure = failureOf(from.readInt16());
        const offset = Number(from.readInt64());
        from.readInt64(); // append time
        if (failure) throw failure;
        offsets.set(nameOf(topic, partition), offset);
      });
    });
    return offsets;
  };
  return request(broker, { ...produceApi, encode, decode });
}
