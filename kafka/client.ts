/**
 * Connections to Kafka, and a reader by partition and offset.
 *
 * The reader uses no consumer group: the names of the landed files record what was read, and a lock allows one writer at a
 * time, so a group would only add rebalances.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import pLimit, { type LimitFunction } from "p-limit";
import { explainKafka, retriable } from "./errors.ts";
import { type Broker, type Cluster, Kafka, logLevel } from "./kafkajs.ts";
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

/** Opens kafkajs' connections to the brokers; `connect()` connects them. */
function openCluster(settings: KafkaSettings): Cluster {
  const client = kafkaClient(settings);
  const create = Object.getOwnPropertySymbols(client).find((s) => s.description === "private:Kafka:createCluster");
  const createCluster = (client as never as Record<symbol, (options: object) => Cluster>)[create as symbol];
  return createCluster?.({ allowAutoTopicCreation: false, metadataMaxAge: 30_000 }) as Cluster;
}

/** The broker that coordinates a consumer group or a transactional id. */
export async function findCoordinator(cluster: Cluster, id: string, kind: "group" | "transaction"): Promise<Broker> {
  const any = await cluster.brokerPool.findConnectedBroker();
  const coordinatorType = kind === "group" ? 0 : 1;
  const { coordinator } = await any.findGroupCoordinator({ groupId: id, coordinatorType });
  return cluster.findBroker({ nodeId: String(coordinator.nodeId) });
}

/** Answers of a coordinator that is not ready, or is ending the last transaction. The request had no effect. */
const notReady = /^(CONCURRENT_TRANSACTIONS|GROUP_LOAD_IN_PROGRESS|GROUP_COORDINATOR_NOT_AVAILABLE)$/;
/** How long {@link whenReady} retries, ms. */
const readyWithin = 8_000;

/** Answers of a broker that does not know a new topic yet. */
export const notKnown = /^UNKNOWN_TOPIC_OR_PARTITION$/;

/**
 * Repeats a request until a coordinator is ready, or with {@link notKnown} until a broker knows a new topic.
 *
 * @throws any other error immediately, and the last one after 8 s
 */
export async function whenReady<T>(ask: () => Promise<T>, not = notReady): Promise<T> {
  const deadline = Date.now() + readyWithin;
  for (let pause = 2; ; pause = Math.min(pause * 2, 100)) {
    try {
      return await ask();
    } catch (error) {
      if (!not.test((error as { type?: string }).type ?? "") || Date.now() > deadline) throw error;
      await sleep(pause);
    }
  }
}

/** Connects to a broker at the address that it advertises, which may differ from the one in the settings. */
async function connectAny({ brokerPool }: Cluster): Promise<void> {
  let failure: unknown;
  for (const nodeId of brokerPool.getNodeIds()) {
    try {
      return void (await brokerPool.findBroker({ nodeId }));
    } catch (error) {
      failure = error;
    }
  }
  throw failure ?? retriable("No broker is known");
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
  const cluster = openCluster(settings);
  const close = async () => {
    // A frozen broker would delay the disconnect by a whole request timeout.
    await Promise.race([cluster.disconnect().catch(() => {}), new Promise((done) => setTimeout(done, 200).unref())]);
  };
  try {
    await cluster.connect();
    await cluster.refreshMetadata();
    await connectAny(cluster);
    const { metadata } = cluster.brokerPool;
    if (!metadata) throw retriable("Every connection to a broker was lost");
    const { clusterId } = metadata;
    return { clusterId, cluster, asking: pLimit(1), close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw explainKafka(error, settings);
  }
}
