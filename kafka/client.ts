/**
 * Connections to Kafka: a transactional producer, and a reader by partition and offset.
 *
 * The reader uses no consumer group: the names of the landed files record what was read, and a lock allows one writer at a
 * time, so a group would only add rebalances.
 *
 * @module
 */

import type { Producer, ProducerConfig, TopicMessages, Transaction } from "kafkajs";
import pLimit, { type LimitFunction } from "p-limit";
import { UsageError } from "../runtime/errors.ts";
import { explainKafka, retriable, rootCause, unacknowledged } from "./errors.ts";
import { type Cluster, Kafka, logLevel } from "./kafkajs.ts";
import type { KafkaSettings } from "./settings.ts";

/** A kafkajs client for these settings; it connects when it is first used. */
export function kafkaClient(settings: KafkaSettings): import("kafkajs").Kafka {
  const { brokers, ssl, sasl } = settings;
  return new Kafka({
    clientId: "pinterest-data-pipeline",
    brokers,
    ...(ssl && { ssl }),
    // A copy, because kafkajs adds a function to it, and settings with functions cannot be sent to threads.
    ...(sasl && { sasl: { ...sasl } as import("kafkajs").SASLOptions }),
    connectionTimeout: 5_000,
    requestTimeout: 30_000,
    // About 5 s per call. The caller retries for longer: it reports the outage and has a time limit.
    retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 8 },
    logLevel: logLevel.NOTHING,
  });
}

/**
 * Connects a transactional producer. It fences the previous producer with the same transactional id and aborts its
 * transaction. The caller disconnects it.
 *
 * @throws `UsageError` if the brokers refuse the transaction timeout
 */
export async function openProducer(
  settings: KafkaSettings,
  options: Pick<ProducerConfig, "transactionalId" | "transactionTimeout" | "createPartitioner" | "retry">,
): Promise<Producer> {
  const producer = kafkaClient(settings).producer({
    ...options,
    idempotent: true,
    maxInFlightRequests: 1,
    allowAutoTopicCreation: false,
  });
  try {
    await producer.connect();
    // Only this fences: connecting does not.
    await (await producer.transaction()).abort();
    return producer;
  } catch (error) {
    void producer.disconnect().catch(() => {});
    if ((rootCause(error) as { type?: string }).type !== "INVALID_TRANSACTION_TIMEOUT") throw error;
    const timeout = options.transactionTimeout ?? 60_000; // the default of kafkajs
    throw new UsageError(
      `Kafka at ${settings.brokers.join(", ")} refuses transactions of up to ${timeout / 1000} s: set transaction.max.timeout.ms of its brokers to ${timeout} or more`,
      { cause: error },
    );
  }
}

/**
 * Sends messages within a transaction, and checks that every partition has acknowledged them.
 *
 * @returns the offset of the first message sent to each partition, by `topic/partition`
 */
export async function sendAcknowledged(
  transaction: Transaction,
  topicMessages: { topic: string; messages: { partition?: number; key?: unknown; value: unknown }[] }[],
): Promise<Map<string, number>> {
  const metadata = await transaction.sendBatch({ topicMessages: topicMessages as TopicMessages[] });
  const offsets = new Map(metadata.map((m) => [`${m.topicName}/${m.partition}`, Number(m.baseOffset)]));
  for (const { topic, messages } of topicMessages) {
    const missing = messages.find(({ partition }) => !offsets.has(`${topic}/${partition}`));
    if (missing) throw unacknowledged(topic, missing.partition);
  }
  return offsets;
}

/** A connection that reads by partition and offset. Close it with `await using` or `close()`. */
export interface KafkaReader extends AsyncDisposable {
  clusterId: string;
  cluster: Cluster;
  /** Runs one metadata request at a time: while kafkajs asks for a missing topic, its other metadata requests fail too. */
  asking: LimitFunction;
  close(): Promise<void>;
}

/**
 * Connects to Kafka for reading.
 *
 * @throws `UsageError` if the broker refuses the credentials
 */
export async function connectReader(settings: KafkaSettings): Promise<KafkaReader> {
  const client = kafkaClient(settings);
  const create = Object.getOwnPropertySymbols(client).find((s) => s.description === "private:Kafka:createCluster");
  const cluster: Cluster = (client as never as Record<symbol, (options: object) => Cluster>)[create as symbol]?.({
    allowAutoTopicCreation: false,
    metadataMaxAge: 30_000,
  }) as Cluster;
  const close = async () => {
    // A frozen broker would delay the disconnect by a whole request timeout.
    await Promise.race([cluster.disconnect().catch(() => {}), new Promise((done) => setTimeout(done, 200).unref())]);
  };
  try {
    await cluster.connect();
    const metadata = await cluster.metadata({ topics: [] });
    if (!metadata) throw retriable("Every connection to a broker was lost"); // kafkajs returns null then
    const { clusterId } = metadata;
    return { clusterId, cluster, asking: pLimit(1), close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw explainKafka(error, settings);
  }
}
