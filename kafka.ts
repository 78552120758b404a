/**
 * The Kafka client as this program needs it: connection, topics, offsets, reading record batches, and what replaces
 * parts of kafkajs.
 *
 * kafkajs keeps connections, metadata, requests, sequences and transactions. Reading goes by partition and offset
 * through its `Cluster`, without a consumer group: what was read is remembered by the names of the landed files, and
 * one writer at a time is kept by a lock, so a group would only add rebalances and offsets that jump.
 *
 * @module
 */
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import type { Producer, ProducerConfig } from "kafkajs";
import pLimit, { type LimitFunction } from "p-limit";
import { decodeRecords, type RecordBatch, type RecordView, requestRoom, sealBatch } from "./io/record_batch.ts";
import { type Table, tableNames } from "./io.ts";
import { UsageError } from "./runtime/errors.ts";

const require = createRequire(import.meta.url);

// Private modules of kafkajs are replaced and used below; they were read in this version and no other.
const wanted = "2.2.4";
const found = (require("kafkajs/package.json") as { version: string }).version;
if (found !== wanted) throw new Error(`Cannot use kafkajs ${found}: kafka.ts was written for ${wanted}; run "npm ci"`);

/** Puts another module in the place of one of kafkajs' own, before kafkajs is loaded. */
function replaceModule(name: string, exports: unknown): void {
  const path = require.resolve(`kafkajs/src/${name}`);
  require.cache[path] = { id: path, filename: path, loaded: true, exports } as NodeJS.Module;
}

// Copies the array for every message: quadratic, 20,000 messages in one send take 4 s.
replaceModule("producer/groupMessagesPerPartition.js", groupMessages);
// Where one of several brokers fails, tries again, and sends what another has acknowledged once more under new numbers:
// rows twice in one transaction. Here nothing is tried again once a request has gone out; the caller begins anew.
const createSendMessages = require("kafkajs/src/producer/sendMessages") as SendMessages;
replaceModule("producer/sendMessages.js", (options: Parameters<SendMessages>[0]) => (request: object) => {
  let sent = false;
  let open = 0;
  const eosManager = {
    ...options.eosManager,
    async acquireBrokerLock(broker: object) {
      open++;
      await options.eosManager.acquireBrokerLock(broker);
    },
    releaseBrokerLock(broker: object) {
      open--;
      options.eosManager.releaseBrokerLock(broker);
    },
    updateSequence(...args: unknown[]) {
      sent = true; // the numbers are taken right before the request goes out
      options.eosManager.updateSequence(...args);
    },
  };
  const retrier: Retrier = (action) =>
    options.retrier((bail, ...count) =>
      action(bail, ...count).catch(async (error: unknown) => {
        while (!sent && open > 0) await sleep(1); // for another broker it may be on its way yet
        if (!sent) throw error;
        bail(error);
      }),
    );
  return createSendMessages({ ...options, eosManager, retrier })(request);
});
// Makes an object and several buffers of every record: 20 µs. What comes as a RecordBatch is sent as it is.
const encodeProduce = require("kafkajs/src/protocol/requests/produce/v3/request") as ProduceEncoder;
replaceModule("protocol/requests/produce/v3/request.js", (request: ProduceRequest) => {
  const batches = request.topicData.flatMap(({ partitions }) => partitions.map(({ messages }) => messages));
  return {
    ...encodeProduce(request),
    ...(batches.every(isRecordBatch) && { encode: async () => produceParts(request) }),
  };
});
// Copies a request twice, into zeroed memory: here its head goes into the room before the batch.
const encodeRequest = require("kafkajs/src/protocol/request") as (
  options: RequestOptions,
) => Promise<{ buffer: Buffer }>;
replaceModule("protocol/request.js", async (options: RequestOptions) => {
  const { correlationId, clientId, request } = options;
  const payload = await request.encode();
  if (!Array.isArray(payload))
    return encodeRequest({ ...options, request: { ...request, encode: async () => payload } });
  const parts = payload as Buffer[];
  const head = new Encoder()
    .writeInt16(request.apiKey)
    .writeInt16(request.apiVersion)
    .writeInt32(correlationId)
    .writeString(clientId).buffer;
  const size = new Encoder().writeInt32(parts.reduce((sum, part) => sum + part.length, head.length)).buffer;
  return { buffer: joinBefore([size, head, ...parts.slice(0, -1)], parts.at(-1) as Buffer) };
});
// Leaks records of aborted transactions, checks no checksum, and overflows the stack on large batches. Here the
// response keeps the record batches as bytes; `decodeRecords` reads them. No kafkajs consumer can run beside this.
replaceModule("protocol/requests/fetch/v4/decodeMessages.js", async (decoder: BytesDecoder) => {
  const size = decoder.readInt32();
  return size > 0 ? decoder.readBytes(size) : Buffer.alloc(0);
});
// Re-arms a 1 ms timer for ever, also when nothing waits: 5 % of a core.
const RequestQueue = require("kafkajs/src/network/requestQueue") as { prototype: RequestQueueLike };
const { scheduleCheckPendingRequests } = RequestQueue.prototype;
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: RequestQueueLike) {
  if (this.pending.length > 0) scheduleCheckPendingRequests.call(this);
};

// Two requests at once open two sockets, and the first is never closed: the process would not end.
const Connection = require("kafkajs/src/network/connection") as { prototype: ConnectionLike };
const { connect } = Connection.prototype;
Connection.prototype.connect = function (this: ConnectionLike) {
  this.connecting ??= connect.call(this).finally(() => {
    delete this.connecting;
  });
  return this.connecting;
};

// Asks each broker which is the coordinator, and drops why none would tell: a permission that lacks looks like an outage.
const ClusterClass = require("kafkajs/src/cluster") as { prototype: CoordinatorFinder };
const { findGroupCoordinatorMetadata } = ClusterClass.prototype;
ClusterClass.prototype.findGroupCoordinatorMetadata = async function (this: CoordinatorFinder, options: object) {
  let refused: unknown;
  const withBroker: CoordinatorFinder["brokerPool"]["withBroker"] = (callback) =>
    this.brokerPool.withBroker(({ nodeId, broker }) => {
      const findGroupCoordinator = (wanted: object) =>
        broker.findGroupCoordinator(wanted).catch((error: Error & { type?: string }) => {
          if (error.type?.includes("AUTHORIZATION")) refused = error;
          throw error;
        });
      return callback({ nodeId, broker: { findGroupCoordinator } });
    });
  const asking = Object.create(this, { brokerPool: { value: { withBroker } } }) as CoordinatorFinder;
  return findGroupCoordinatorMetadata.call(asking, options).catch((error: unknown) => {
    throw refused ?? error;
  });
};

const Encoder = require("kafkajs/src/protocol/encoder") as new () => RequestEncoder;
const Decoder = require("kafkajs/src/protocol/decoder") as new (bytes: Buffer) => ResponseDecoder;
const { prototype: anyBroker } = require("kafkajs/src/broker") as { prototype: object };
const sendRequest = Object.getOwnPropertySymbols(anyBroker).find(
  ({ description }) => description === "private:Broker:sendRequest",
) as symbol;
const { Kafka, logLevel } = require("kafkajs") as typeof import("kafkajs");
const murmur2 = require("kafkajs/src/producer/partitioners/default/murmur2") as (key: string) => number;

/** Where Kafka is and how the topics are to be; the `KAFKA` part of db_creds.yaml. */
export interface KafkaSettings {
  brokers: string[];
  /** Topics are `<prefix>.pin` and so on. */
  prefix: string;
  /** For topics that are made; those that exist are kept as they are. */
  partitions: number;
  replicationFactor: number;
  ssl?: true | { ca?: string; cert?: string; key?: string };
  sasl?: { mechanism: "plain" | "scram-sha-256" | "scram-sha-512"; username: string; password: string };
}

/** What the messages of one table are called in Kafka. */
export const topicOf = (settings: KafkaSettings, table: Table): string => `${settings.prefix}.${table}`;

/** The compacted topic that says how far each table is posted: one partition per table. */
export const checkpointTopic = (settings: KafkaSettings): string => `${settings.prefix}.checkpoints`;

/** The partition of {@link checkpointTopic} that belongs to a table. */
export const checkpointPartition = (table: Table): number => tableNames.indexOf(table);

/** The partition that Java's clients would choose for a key. */
export const partitionOf = (key: string, partitions: number): number =>
  partitions === 1 ? 0 : (murmur2(key) & 0x7fffffff) % partitions;

/** Largest message that the program's own topics take, bytes: a MySQL row of 16 MB, escaped as JSON. */
const maxMessageBytes = 40_000_000;

/** A kafkajs client for these settings; it connects when it is first used. */
export function kafkaClient(settings: KafkaSettings): import("kafkajs").Kafka {
  const { brokers, ssl, sasl } = settings;
  return new Kafka({
    clientId: "pinterest-data-pipeline",
    brokers,
    ...(ssl && { ssl }),
    // A copy: kafkajs puts a function into it, and settings go to threads.
    ...(sasl && { sasl: { ...sasl } as import("kafkajs").SASLOptions }),
    connectionTimeout: 5_000,
    requestTimeout: 30_000,
    // About 5 s within one call. Longer outages are waited for by the caller, who can say so and has a limit.
    retry: { initialRetryTime: 50, maxRetryTime: 1_000, retries: 8 },
    logLevel: logLevel.NOTHING,
  });
}

/**
 * Connects a transactional producer that has fenced whoever held its id and ended their transaction. Its caller
 * disconnects it.
 *
 * @throws `UsageError` where the brokers allow no transaction of that length
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
    const timeout = options.transactionTimeout ?? 60_000; // kafkajs' own default
    throw new UsageError(
      `Kafka at ${settings.brokers.join(", ")} refuses transactions of up to ${timeout / 1000} s: set transaction.max.timeout.ms of its brokers to ${timeout} or more`,
      { cause: error },
    );
  }
}

/** A connection for reading, by partition and offset. Close it by `await using` or `close()`. */
export interface KafkaReader extends AsyncDisposable {
  clusterId: string;
  cluster: Cluster;
  /** Asks for metadata one at a time: while kafkajs asks for a topic that is missing, every other answer is an error too. */
  asking: LimitFunction;
  close(): Promise<void>;
}

/**
 * Connects to Kafka for reading.
 *
 * @throws `UsageError` where the broker refuses the credentials
 */
export async function connectReader(settings: KafkaSettings): Promise<KafkaReader> {
  const client = kafkaClient(settings);
  const create = Object.getOwnPropertySymbols(client).find((s) => s.description === "private:Kafka:createCluster");
  const cluster: Cluster = (client as never as Record<symbol, (options: object) => Cluster>)[create as symbol]?.({
    allowAutoTopicCreation: false,
    metadataMaxAge: 30_000,
  }) as Cluster;
  const close = async () => {
    // A frozen broker would hold up the goodbye for a whole request time-out.
    await Promise.race([cluster.disconnect().catch(() => {}), new Promise((done) => setTimeout(done, 200).unref())]);
  };
  try {
    await cluster.connect();
    const metadata = await cluster.metadata({ topics: [] });
    if (!metadata) throw retriable("Every connection to a broker was lost"); // kafkajs gives null then
    const { clusterId } = metadata;
    return { clusterId, cluster, asking: pLimit(1), close, [Symbol.asyncDispose]: close };
  } catch (error) {
    await close();
    throw explainKafka(error, settings);
  }
}

/** Says in one line what Kafka refused, where, and what to do about it. */
export function explainKafka(error: unknown, settings: KafkaSettings): Error {
  const cause = rootCause(error);
  const where = settings.brokers.join(", ");
  if (cannotLogIn(cause)) {
    return new UsageError(
      `Cannot log in to Kafka at ${where}: ${cause.message}; look at KAFKA.SASL of your credentials`,
      {
        cause: error,
      },
    );
  }
  if (isDistrusted(cause)) {
    return new UsageError(
      `Cannot trust Kafka at ${where}: ${cause.message}; look at KAFKA.SSL_CA of your credentials, and at the names in KAFKA.BROKERS and those that the brokers advertise, which must stand in their certificates`,
      { cause: error },
    );
  }
  if (isConnectionError(cause)) {
    return new Error(
      `Cannot reach Kafka at ${where}: ${cause.message}; is it running, and are BROKERS, SSL and SASL of KAFKA right in your credentials?`,
      { cause: error },
    );
  }
  if (!cause.name?.startsWith("KafkaJS")) return cause;
  // Of topics that could not be made, each has its own reason.
  const failures = (cause as { errors?: (Error & { type?: string })[] }).errors ?? [];
  const why = [cause.message, ...new Set(failures.map(({ message }) => message))].join(": ");
  if ([cause as Error & { type?: string }, ...failures].some(({ type }) => type?.includes("AUTHORIZATION"))) {
    return new UsageError(
      `Kafka at ${where} refuses: ${why}; grant the user of KAFKA.SASL what the topics ${settings.prefix}.* need (see deploy/README.md)`,
      { cause: error },
    );
  }
  return new Error(`Kafka at ${where} fails: ${why}`, { cause: error });
}

function rootCause(error: unknown): Error {
  let cause = error as Error;
  while (cause?.name?.startsWith("KafkaJS") && cause.cause instanceof Error) cause = cause.cause;
  return cause;
}

/** Whether the broker refused the login, its mechanism or any login: no later try will do better. */
const cannotLogIn = (error: Error & { type?: string }): boolean =>
  error.name === "KafkaJSSASLAuthenticationError" || /SASL/.test(error.type ?? "");

/** Whether the certificate was refused: no later try will do better. */
const isDistrusted = (error: Error): boolean =>
  /CERT|SELF_SIGNED|UNABLE_TO_(GET|VERIFY)/.test((error as { code?: string }).code ?? "");

// kafkajs says "Broker not connected" by a plain Error where a connection was lost between two of its own steps.
const isConnectionError = (error: Error): boolean =>
  /^KafkaJS(Connection|ConnectionClosed|RequestTimeout|BrokerNotFound|NoBrokerAvailable|LockTimeout|Timeout|GroupCoordinatorNotFound)/.test(
    error.name,
  ) ||
  error.message === "Broker not connected" ||
  /ECONN|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|ENOTFOUND|EAI_AGAIN/.test((error as { code?: string }).code ?? "");

/** An error that may be gone at the next try, in kafkajs' own way. */
export const retriable = (message: string): Error => Object.assign(new Error(message), { retriable: true });

/** kafkajs forgets a partition whose leader moved meanwhile: what was sent to it may be there or not. */
export const unacknowledged = (topic: string, partition: number | undefined): Error =>
  retriable(`Partition ${partition} of topic "${topic}" did not acknowledge`);

/** Whether an error may be gone at the next try: the broker is away, moving or slow, or has ended our transaction. */
export function isTransientKafka(error: unknown): boolean {
  if (error instanceof UsageError) return false;
  const cause = rootCause(error instanceof Error && error.cause instanceof Error ? error.cause : error);
  const { name = "", type, retriable } = cause as Error & { type?: string; retriable?: boolean };
  if (isDistrusted(cause) || cannotLogIn(cause)) return false;
  if (retriable === true || isConnectionError(cause)) return true;
  // The broker's own answers, by type: what concerns a transaction is mended by a new producer, and a broker that does
  // not know what went wrong (-1), as where two clients begin at once, by asking again.
  if (type !== undefined) {
    return (
      !type.includes("AUTHORIZATION") &&
      /PRODUCER|TXN|TRANSACTION|OUT_OF_ORDER_SEQUENCE|COORDINATOR|GROUP_|^UNKNOWN$/.test(type)
    );
  }
  // kafkajs' own: it lost track of brokers, or a producer that is thrown away was still in use.
  return name.startsWith("KafkaJS");
}

/** What is wrong with an existing topic for exactly-once work, for people to read. */
export interface TopicReport {
  warnings: string[];
  /** The largest message that each table's topic takes. */
  maxMessageBytes: Record<Table, number>;
}

/**
 * Makes the three topics and the checkpoint topic where they are missing. What exists is kept as it is; client
 * timestamps and a finite retention are told, since rows may then be lost or win that should not.
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
        // The broker unpacks what others compress, so that readers need no codec.
        "compression.type": "uncompressed",
        "max.message.bytes": String(maxMessageBytes),
      }),
    })),
    {
      topic: checkpointTopic(settings),
      numPartitions: tableNames.length,
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
    if (missing.length > 0) await admin.createTopics({ topics: missing, timeout: 30_000 });
    return await describeTopics(admin, settings);
  } catch (error) {
    throw explainKafka(error, settings);
  } finally {
    await admin.disconnect().catch(() => {});
  }
}

async function describeTopics(admin: import("kafkajs").Admin, settings: KafkaSettings): Promise<TopicReport> {
  const configNames = [
    "message.timestamp.type",
    "retention.ms",
    "retention.bytes",
    "cleanup.policy",
    "max.message.bytes",
  ];
  const names = [...tableNames.map((table) => topicOf(settings, table)), checkpointTopic(settings)];
  const resources = names.map((name) => ({ type: 2 /* topic */, name, configNames }));
  const described = await admin.describeConfigs({ resources, includeSynonyms: false }).catch(() => undefined);
  const value = (topic: string, name: string) =>
    described?.resources
      .find(({ resourceName }) => resourceName === topic)
      ?.configEntries.find(({ configName }) => configName === name)?.configValue;
  const warnings = described
    ? []
    : [`The settings of topics ${names.join(", ")} may not be read: they are not checked`];
  for (const topic of described ? names : []) {
    if (topic === checkpointTopic(settings)) {
      if (value(topic, "cleanup.policy") !== "compact") {
        warnings.push(`Topic "${topic}" is not compacted: when its records expire, rows are posted again`);
      }
      continue;
    }
    if (value(topic, "message.timestamp.type") !== "LogAppendTime") {
      warnings.push(`Topic "${topic}" keeps its clients' times: a client with a wrong clock decides which row wins`);
    }
    const kept = value(topic, "retention.ms") === "-1" && value(topic, "retention.bytes") === "-1";
    if (!kept || value(topic, "cleanup.policy") !== "delete") {
      warnings.push(`Topic "${topic}" does not keep its messages for ever: what clean has not read by then is lost`);
    }
  }
  const limit = (table: Table) => Number(value(topicOf(settings, table), "max.message.bytes") ?? 1_000_000);
  return { warnings, maxMessageBytes: { pin: limit("pin"), geo: limit("geo"), user: limit("user") } };
}

/** How far one partition reaches: first offset kept, end for read_committed readers, end. */
export interface PartitionRange {
  partition: number;
  start: number;
  stable: number;
  end: number;
}

/** The ranges of a topic's partitions, in order; `undefined` where there is no such topic. */
export async function topicRanges(reader: KafkaReader, topic: string): Promise<PartitionRange[] | undefined> {
  const exists = await reader.asking(async () => {
    try {
      await reader.cluster.addTargetTopic(topic);
    } catch (error) {
      if ((error as { type?: string }).type === "UNKNOWN_TOPIC_OR_PARTITION") return false;
      throw error;
    }
    await reader.cluster.refreshMetadata();
    return true;
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
  const stable = await list(1, -1);
  const end = await list(0, -1);
  const start = await list(0, -2);
  return partitions.map((partition) => ({
    partition,
    start: start.get(partition) ?? 0,
    stable: stable.get(partition) ?? 0,
    end: end.get(partition) ?? 0,
  }));
}

/**
 * The ids that Kafka gave to topics when they were made: null where its brokers give none (before 2.8), and no entry
 * where there is no such topic. The brokers that lead a topic are asked too, because another one may be behind.
 *
 * @throws a retriable error where the brokers do not agree yet
 */
export async function topicIds(reader: KafkaReader, topics: string[]): Promise<Map<string, string | null>> {
  const { cluster } = reader;
  const first = await cluster.brokerPool.findConnectedBroker();
  const answers = [await askTopicIds(first, topics)];
  for (const nodeId of new Set(answers[0]?.leaders)) {
    if (nodeId < 0 || nodeId === Number(first.nodeId)) continue;
    answers.push(await askTopicIds(await cluster.findBroker({ nodeId: String(nodeId) }), topics));
  }
  const found = new Map<string, string | null>();
  for (const topic of topics) {
    const given = answers.map(({ ids }) => ids.get(topic)).filter((id) => id !== null);
    const id = given.length > 0 ? given[0] : null;
    if (given.some((other) => other !== id)) throw retriable(`The brokers do not agree yet on topic "${topic}"`);
    if (id !== undefined) found.set(topic, id);
  }
  return found;
}

const metadataApi = 3;
/** The first version of Metadata that gives ids; later ones give no more that is needed here. */
const metadataVersion = 10;
const unknownTopic = 3;

/** Asks one broker; kafkajs itself speaks Metadata up to version 6. */
async function askTopicIds(
  broker: Broker,
  topics: string[],
): Promise<{ ids: Map<string, string | null>; leaders: number[] }> {
  const ids = new Map<string, string | null>();
  const leaders: number[] = [];
  if ((broker.versions?.[metadataApi]?.maxVersion ?? 0) < metadataVersion) {
    return { ids: new Map(topics.map((topic) => [topic, null])), leaders };
  }
  const encode = async () => {
    const body = new Encoder().writeUVarInt(0); // tagged fields, the last of the request's head
    body.writeUVarInt(topics.length + 1);
    for (const topic of topics) body.writeBuffer(Buffer.alloc(16)).writeUVarIntString(topic).writeUVarInt(0);
    // Do not create topics, and leave out what a user may do with the cluster and with each topic.
    return body.writeBoolean(false).writeBoolean(false).writeBoolean(false).writeUVarInt(0);
  };
  const decode = async (bytes: Buffer) => {
    const from = new Decoder(bytes);
    const skipTags = () => {
      for (let left = from.readUVarInt(); left > 0; left--) {
        from.readUVarInt();
        from.readBytes(from.readUVarInt());
      }
    };
    const skipNumbers = () => from.readUVarIntArray(() => from.readInt32());
    skipTags(); // of the response's head
    from.readInt32(); // throttle time
    from.readUVarIntArray(() => {
      from.readInt32(); // node id
      from.readUVarIntString(); // host
      from.readInt32(); // port
      from.readUVarIntString(); // rack
      skipTags();
    });
    from.readUVarIntString(); // cluster id
    from.readInt32(); // controller
    from.readUVarIntArray(() => {
      const error = from.readInt16();
      const name = from.readUVarIntString() as string;
      const id = from.readBytes(16);
      from.readInt8(); // whether it is internal
      from.readUVarIntArray(() => {
        from.readInt16(); // error
        from.readInt32(); // partition
        leaders.push(from.readInt32());
        from.readInt32(); // leader epoch
        for (let lists = 3; lists > 0; lists--) skipNumbers(); // replicas, in sync, offline
        skipTags();
      });
      from.readInt32(); // what the user may do
      skipTags();
      if (error !== unknownTopic) ids.set(name, id.every((byte) => byte === 0) ? null : id.toString("base64url"));
    });
    return { ids, leaders };
  };
  const request = { apiKey: metadataApi, apiVersion: metadataVersion, apiName: "Metadata", encode };
  type Send = (asked: object) => Promise<{ ids: typeof ids; leaders: number[] }>;
  const send = (broker as never as Record<symbol, Send>)[sendRequest] as Send;
  return send.call(broker, { request, response: { decode, parse: async (decoded: object) => decoded } });
}

/** One fetch from one topic: what to read, and what was read. */
export interface FetchOptions {
  topic: string;
  /** Next offset wanted, by partition; it is moved on past what was read. */
  positions: Map<number, number>;
  /** Where to end, by partition; partitions that have reached it are not fetched. */
  until: ReadonlyMap<number, number>;
  onRecord: (partition: number, record: RecordView) => void;
  /** Told the offsets of marks and of aborted records, first and last of each batch. */
  onSkipped?: (first: number, last: number) => void;
  /** Bytes per partition and fetch; larger batches come whole. Default 4 MB. */
  maxBytes?: number;
  /** How long the broker may wait for something new, ms. Default 500. */
  maxWait?: number;
}

/**
 * Fetches once from each leader and hands over the committed records below `until`, in order within a partition.
 * Aborted records, control records and gaps of compaction move the position on without a record.
 *
 * @throws where a batch's checksum is wrong, its records cannot be unpacked, or an offset is out of range
 */
export async function fetchOnce(reader: KafkaReader, options: FetchOptions): Promise<void> {
  const { topic, positions, until, onRecord, onSkipped, maxBytes = 4_000_000, maxWait = 500 } = options;
  const open = [...positions].filter(([partition, next]) => next < (until.get(partition) ?? 0)).map(([p]) => p);
  await reader.cluster.addTargetTopic(topic);
  const leaders = Object.entries(reader.cluster.findLeaderForPartitions(topic, open));
  const led = leaders.flatMap(([, partitions]) => partitions.map(Number));
  const lacking = open.filter((partition) => !led.includes(partition));
  if (lacking.length > 0) throw retriable(`No broker leads partition ${lacking.join(", ")} of topic "${topic}"`);
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
          until: until.get(partition) ?? 0,
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

/** Reads the record at one offset; null where there is a mark or an aborted record, and `undefined` where there is a hole. */
export async function readRecord<T>(
  reader: KafkaReader,
  topic: string,
  { partition, offset, take }: { partition: number; offset: number; take: (record: RecordView) => T },
): Promise<T | null | undefined> {
  let found: T | null | undefined;
  await fetchOnce(reader, {
    topic,
    positions: new Map([[partition, offset]]),
    until: new Map([[partition, offset + 1]]),
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

type Messages = object[] | RecordBatch;

const isRecordBatch = (messages: Messages | object): messages is RecordBatch => "lastKey" in messages;

function groupMessages(options: {
  topic: string;
  partitionMetadata: object[];
  messages: (object | RecordBatch)[];
  partitioner: (options: object) => number;
}): Record<number, Messages> {
  const { topic, partitionMetadata, messages, partitioner } = options;
  const groups: Record<number, Messages> = {};
  for (const message of messages) {
    const partition = partitioner({ topic, partitionMetadata, message });
    const group = groups[partition];
    if (isRecordBatch(message)) groups[partition] = message;
    else if (Array.isArray(group)) group.push(message);
    else groups[partition] = [message];
  }
  return groups;
}

/** A produce request of ready batches, in the parts of which it consists. */
function produceParts(request: ProduceRequest): Buffer[] {
  const { transactionalId, producerId, producerEpoch, acks, timeout, topicData } = request;
  const head = new Encoder().writeString(transactionalId).writeInt16(acks).writeInt32(timeout);
  const parts = [head.writeInt32(topicData.length).buffer];
  for (const { topic, partitions } of topicData) {
    parts.push(new Encoder().writeString(topic).writeInt32(partitions.length).buffer);
    for (const { partition, messages, firstSequence } of partitions) {
      const owner = { producerId: BigInt(String(producerId)), producerEpoch, baseSequence: firstSequence };
      const bytes = sealBatch(messages as RecordBatch, owner);
      parts.push(new Encoder().writeInt32(partition).writeInt32(bytes.length).buffer, bytes);
    }
  }
  return parts;
}

/** Puts parts into the room before a batch; where it is too small, as with several batches, all are copied. */
function joinBefore(parts: Buffer[], batch: Buffer): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (length > requestRoom) return Buffer.concat([...parts, batch]);
  const start = batch.byteOffset - length;
  const joined = Buffer.from(batch.buffer, start, length + batch.length);
  let at = 0;
  for (const part of parts) at += part.copy(joined, at);
  return joined;
}

/** Commits offsets for a group without members, so that Kafka's own tools show how far clean has read. */
export async function showOffsets(reader: KafkaReader, group: string, topic: string, next: Map<number, number>) {
  const broker = await reader.cluster.findGroupCoordinator({ groupId: group });
  const partitions = [...next].map(([partition, offset]) => ({ partition, offset: String(offset) }));
  const topics = [{ topic, partitions }];
  await broker.offsetCommit({ groupId: group, groupGenerationId: -1, memberId: "", topics });
}

/** The part of kafkajs' private `Cluster` that is used here. */
interface Cluster {
  connect(): Promise<void>;
  disconnect(): Promise<void>;
  metadata(options: { topics: string[] }): Promise<{ clusterId: string } | null>;
  refreshMetadata(): Promise<void>;
  addTargetTopic(topic: string): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number }[];
  findLeaderForPartitions(topic: string, partitions: number[]): Record<string, number[]>;
  findBroker(options: { nodeId: string }): Promise<Broker>;
  brokerPool: { findConnectedBroker(): Promise<Broker> };
  findGroupCoordinator(options: { groupId: string }): Promise<Broker>;
}

interface Broker {
  nodeId: number | string | null;
  versions: Record<number, { maxVersion: number }> | null;
  listOffsets(request: object): Promise<{ responses: { partitions: { partition: number; offset: string }[] }[] }>;
  fetch(request: object): Promise<{
    responses: {
      partitions: {
        partition: number;
        messages: Buffer;
        abortedTransactions: { producerId: string; firstOffset: string }[] | null;
      }[];
    }[];
  }>;
  offsetCommit(request: object): Promise<unknown>;
}

interface ResponseDecoder extends BytesDecoder {
  readInt8(): number;
  readInt16(): number;
  readUVarInt(): number;
  readUVarIntString(): string | null;
  readUVarIntArray<T>(read: () => T): T[] | null;
}

interface BytesDecoder {
  readInt32(): number;
  readBytes(size: number): Buffer;
}

interface ConnectionLike {
  connecting?: Promise<unknown>;
  connect(): Promise<unknown>;
}

interface CoordinatorFinder {
  brokerPool: {
    withBroker(
      callback: (one: {
        nodeId: string;
        broker: { findGroupCoordinator(wanted: object): Promise<unknown> };
      }) => unknown,
    ): Promise<unknown>;
  };
  findGroupCoordinatorMetadata(options: object): Promise<unknown>;
}

interface RequestQueueLike {
  pending: unknown[];
  scheduleCheckPendingRequests(): void;
}

interface ProduceRequest {
  transactionalId: string;
  producerId: unknown;
  producerEpoch: number;
  acks: number;
  timeout: number;
  topicData: { topic: string; partitions: { partition: number; messages: Messages; firstSequence: number }[] }[];
}

type ProduceEncoder = (request: ProduceRequest) => { encode: () => Promise<unknown> };

type Retrier = (action: (bail: (error: unknown) => void, ...count: number[]) => Promise<unknown>) => Promise<unknown>;

type SendMessages = (options: {
  eosManager: {
    acquireBrokerLock(broker: object): Promise<void>;
    releaseBrokerLock(broker: object): void;
    updateSequence(...args: unknown[]): void;
  };
  retrier: Retrier;
}) => (request: object) => Promise<unknown>;

interface RequestOptions {
  correlationId: number;
  clientId: string;
  request: { apiKey: number; apiVersion: number; encode: () => Promise<unknown> };
}

interface RequestEncoder {
  buffer: Buffer;
  writeInt16(value: number): this;
  writeInt32(value: number): this;
  writeString(value: string): this;
  writeBoolean(value: boolean): this;
  writeBuffer(value: Buffer): this;
  writeUVarInt(value: number): this;
  writeUVarIntString(value: string): this;
}
