/**
 * Topics: creating them, checking their settings, and their offsets.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { Admin } from "kafkajs";
import { some } from "../io/text.ts";
import { byTable, type Table, tableNames } from "../io.ts";
import { UsageError } from "../runtime/errors.ts";
import { allOf } from "../runtime/retry.ts";
import { connectReader, findCoordinator, type KafkaReader, kafkaClient, notKnown, whenReady } from "./client.ts";
import { explainKafka } from "./errors.ts";
import { murmur2 } from "./kafkajs.ts";
import { checkpointPartitions, checkpointTopic, type KafkaSettings, topicOf } from "./settings.ts";

/** The partition that Java's clients choose for a key. */
export const partitionOf = (key: string, partitions: number): number =>
  partitions === 1 ? 0 : (murmur2(key) & 0x7fffffff) % partitions;

/** max.message.bytes of new topics: a MySQL row of 16 MB, escaped as JSON, fits. */
const maxMessageBytes = 40_000_000;

/** The settings of the topics. */
interface TopicReport {
  /** One line for each setting that can lose or duplicate data. */
  warnings: string[];
  /** max.message.bytes of each table's topic. */
  maxMessageBytes: Record<Table, number>;
}

/**
 * Creates the tables' topics and the checkpoint topic if they are missing. Existing topics are left unchanged, except
 * that the checkpoint topic gets a partition for each new table. Warns about client timestamps and finite retention:
 * rows may be lost, or an older row may win.
 */
export async function ensureTopics(settings: KafkaSettings): Promise<TopicReport> {
  const { partitions, replicationFactor } = settings;
  const data = tableNames.map((table) => topicOf(settings, table));
  const config = (entries: Record<string, string>) => Object.entries(entries).map(([name, value]) => ({ name, value }));
  const topics = [
    ...data.map((topic) => ({
      topic,
      numPartitions: partitions,
      replicationFactor,
      configEntries: config({
        "message.timestamp.type": "LogAppendTime",
        "retention.ms": "-1",
        "retention.bytes": "-1",
        "cleanup.policy": "delete",
        // The broker decompresses what clients compress, so that readers need no codec.
        "compression.type": "uncompressed",
        "max.message.bytes": String(maxMessageBytes),
      }),
    })),
    {
      topic: checkpointTopic(settings),
      numPartitions: checkpointPartitions,
      replicationFactor,
      configEntries: config({
        "cleanup.policy": "compact",
        "message.timestamp.type": "LogAppendTime",
        "min.cleanable.dirty.ratio": "0.1",
        "segment.bytes": "16777216",
      }),
    },
  ];
  const admin = kafkaClient(settings).admin();
  try {
    await admin.connect();
    const existing = new Set(await admin.listTopics());
    const missing = topics.filter(({ topic }) => !existing.has(topic));
    await createTopics(admin, settings, { topics: missing });
    if (existing.has(checkpointTopic(settings))) await growCheckpoints(admin, checkpointTopic(settings));
    return await describeTopics(admin, settings);
  } catch (error) {
    throw explainKafka(error, settings);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

/**
 * Finds the missing topics and checks the others, without creating any.
 *
 * @throws if the broker would refuse to create the missing ones
 */
export async function inspectTopics(settings: KafkaSettings): Promise<{ missing: string[]; warnings: string[] }> {
  const admin = kafkaClient(settings).admin();
  try {
    await admin.connect();
    const existing = new Set(await admin.listTopics());
    const names = topicNames(settings);
    const missing = names.filter((name) => !existing.has(name));
    const { partitions: numPartitions, replicationFactor } = settings;
    const topics = missing.map((topic) => ({ topic, numPartitions, replicationFactor }));
    await createTopics(admin, settings, { topics, validateOnly: true });
    const there = names.filter((name) => existing.has(name));
    return { missing, warnings: there.length > 0 ? (await describeTopics(admin, settings, there)).warnings : [] };
  } catch (error) {
    throw explainKafka(error, settings);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

/** @throws `UsageError` if there are fewer brokers than the replication factor: no retry would help */
async function createTopics(
  admin: Admin,
  { brokers, replicationFactor }: KafkaSettings,
  { topics, validateOnly = false }: Pick<Parameters<Admin["createTopics"]>[0], "topics" | "validateOnly">,
): Promise<void> {
  if (topics.length === 0) return;
  try {
    // kafkajs would pause 100 ms before it looks for their leaders; describeTopics waits until they are known.
    await admin.createTopics({ topics, validateOnly, timeout: 30_000, waitForLeaders: false });
  } catch (error) {
    const failures = (error as { errors?: { type?: string; topic: string }[] }).errors ?? [];
    const refused = failures.filter(({ type }) => type === "INVALID_REPLICATION_FACTOR");
    if (refused.length === 0) throw error;
    const names = refused.map(({ topic }) => `"${topic}"`).join(", ");
    const alive = (await admin.describeCluster()).brokers.length;
    const remedy = `set it to at most ${alive}, or start more brokers`;
    throw new UsageError(
      `Cannot create ${refused.length === 1 ? "topic" : "topics"} ${names}: KAFKA.REPLICATION_FACTOR of your credentials is ${replicationFactor}, but Kafka at ${brokers.join(", ")} has ${some(alive, "broker")}; ${remedy}`,
      { cause: error },
    );
  }
}

/** Adds the partitions of tables that are newer than the topic. */
async function growCheckpoints(admin: Admin, topic: string): Promise<void> {
  const partitions = async () => {
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] });
    return topics[0]?.partitions.length ?? 0;
  };
  if ((await partitions()) >= checkpointPartitions) return;
  try {
    await admin.createPartitions({ topicPartitions: [{ topic, count: checkpointPartitions }], timeout: 30_000 });
  } catch (error) {
    // Another program may have added them at the same moment.
    if ((await partitions()) < checkpointPartitions) throw error;
  }
}

const topicNames = (settings: KafkaSettings) => [
  ...tableNames.map((table) => topicOf(settings, table)),
  checkpointTopic(settings),
];

async function describeTopics(
  admin: Admin,
  settings: KafkaSettings,
  names = topicNames(settings),
): Promise<TopicReport> {
  const configNames = [
    "message.timestamp.type",
    "retention.ms",
    "retention.bytes",
    "cleanup.policy",
    "max.message.bytes",
  ];
  const resources = names.map((name) => ({ type: 2 /* topic */, name, configNames }));
  const describe = () => admin.describeConfigs({ resources, includeSynonyms: false });
  const described = await whenReady(describe, notKnown).catch(() => undefined);
  const value = (topic: string, name: string) =>
    described?.resources
      .find(({ resourceName }) => resourceName === topic)
      ?.configEntries.find(({ configName }) => configName === name)?.configValue;
  const warnings = described ? [] : [`Cannot read the settings of topics ${names.join(", ")}, so they are not checked`];
  for (const topic of described ? names : []) {
    if (topic === checkpointTopic(settings)) {
      if (value(topic, "cleanup.policy") !== "compact") {
        warnings.push(`Topic "${topic}" is not compacted: when its records expire, rows are posted again`);
      }
      continue;
    }
    if (value(topic, "message.timestamp.type") !== "LogAppendTime") {
      warnings.push(`Topic "${topic}" stores the times of clients: a client with a wrong clock decides which row wins`);
    }
    const kept = value(topic, "retention.ms") === "-1" && value(topic, "retention.bytes") === "-1";
    if (!kept || value(topic, "cleanup.policy") !== "delete") {
      warnings.push(
        `Topic "${topic}" does not keep its messages forever: those that expire before clean reads them are lost`,
      );
    }
  }
  const limit = (table: Table) => Number(value(topicOf(settings, table), "max.message.bytes") ?? 1_000_000);
  return { warnings, maxMessageBytes: byTable(limit) };
}

/** Offsets of a partition: log start, last stable (where read_committed readers end), log end. */
export interface PartitionOffsets {
  partition: number;
  logStart: number;
  lastStable: number;
  logEnd: number;
}

/** The offsets of a topic's partitions, in order; `undefined` if there is no such topic. */
export async function listOffsets(reader: KafkaReader, topic: string): Promise<PartitionOffsets[] | undefined> {
  const exists = await reader.asking(async () => {
    const { cluster } = reader;
    if (cluster.targetTopics.has(topic)) {
      await cluster.refreshMetadata();
      return true;
    }
    try {
      await cluster.addTargetTopic(topic);
      // It may have joined a request of another caller, without this topic.
      if (cluster.findTopicPartitionMetadata(topic).length === 0) await cluster.refreshMetadata();
      return true;
    } catch (error) {
      if ((error as { type?: string }).type === "UNKNOWN_TOPIC_OR_PARTITION") return false;
      throw error;
    }
  });
  if (!exists) return undefined;
  const partitions = reader.cluster
    .findTopicPartitionMetadata(topic)
    .map((p) => p.partitionId)
    .sort((a, b) => a - b);
  const list = async (isolationLevel: 0 | 1, timestamp: -1 | -2) => {
    const offsets = new Map<number, number>();
    for (const [nodeId, ids] of Object.entries(reader.cluster.findLeaderForPartitions(topic, partitions))) {
      const broker = await reader.cluster.findBroker({ nodeId });
      const asked = [{ topic, partitions: ids.map((partition) => ({ partition, timestamp })) }];
      const { responses } = await broker.listOffsets({ isolationLevel, topics: asked });
      for (const p of responses[0]?.partitions ?? []) offsets.set(p.partition, Number(p.offset));
    }
    return offsets;
  };
  const stable = await list(1, -1); // first: a later end shows that a transaction is open
  const [end, start] = await allOf([list(0, -1), list(0, -2)]);
  return partitions.map((partition) => ({
    partition,
    logStart: start.get(partition) ?? 0,
    lastStable: stable.get(partition) ?? 0,
    logEnd: end.get(partition) ?? 0,
  }));
}

/** Commits offsets for a group without members, so that Kafka's tools show how far clean has read. */
export async function showOffsets(reader: KafkaReader, group: string, topic: string, next: Map<number, number>) {
  const broker = await whenReady(() => findCoordinator(reader.cluster, group, "group"));
  const partitions = [...next].map(([partition, offset]) => ({ partition, offset: String(offset) }));
  const topics = [{ topic, partitions }];
  await broker.offsetCommit({ groupId: group, groupGenerationId: -1, memberId: "", topics });
}

/**
 * Waits until everything in the topic is readable: the broker acknowledges a commit before it writes the marker, and a
 * clean that follows immediately must see all rows.
 *
 * @returns a warning if an open transaction still hides rows
 */
export async function waitForStableOffset(kafka: KafkaSettings, table: Table): Promise<string | undefined> {
  await using reader = await connectReader(kafka);
  const topic = topicOf(kafka, table);
  const ranges = async () => (await listOffsets(reader, topic)) ?? [];
  const now = await ranges();
  for (let then = now, tries = 0; ; then = await ranges(), tries++) {
    const open = now.find(({ logEnd: end }, i) => (then[i]?.lastStable ?? end) < end);
    if (!open) return undefined;
    if (tries === 100) return `${openTransaction(topic, open)}: clean reads the messages behind it only after it ends`;
    await sleep(20);
  }
}

export const openTransaction = (topic: string, { partition, lastStable: stable }: PartitionOffsets): string =>
  `A transaction stays open at offset ${stable} of partition ${partition} of topic "${topic}"`;
