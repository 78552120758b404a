/**
 * The only module that loads kafkajs. It replaces private modules that lose rows, leak or are too slow.
 *
 * Written for kafkajs 2.2.4; any other version is refused.
 *
 * @module
 */
import { createRequire } from "node:module";
import { setTimeout as sleep } from "node:timers/promises";
import { type RecordBatch, requestRoom, sealBatch } from "../io/record_batch.ts";

const require = createRequire(import.meta.url);

const wanted = "2.2.4";
const found = (require("kafkajs/package.json") as { version: string }).version;
if (found !== wanted)
  throw new Error(`Cannot use kafkajs ${found}: kafka/kafkajs.ts was written for ${wanted}; run "npm ci"`);

/** Replaces a module of kafkajs before kafkajs is loaded. */
function replaceModule(name: string, exports: unknown): void {
  const path = require.resolve(`kafkajs/src/${name}`);
  require.cache[path] = { id: path, filename: path, loaded: true, exports } as NodeJS.Module;
}

// kafkajs copies the array for every message, which is quadratic: 20,000 messages in one send take 4 s.
replaceModule("producer/groupMessagesPerPartition.js", groupMessages);
// If one of several brokers fails, kafkajs retries and resends what the others have acknowledged under new sequence
// numbers, which duplicates rows within a transaction. Here nothing is retried after a request was sent.
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
      sent = true; // called right before the request is sent
      options.eosManager.updateSequence(...args);
    },
  };
  const retrier: Retrier = (action) =>
    options.retrier((bail, ...count) =>
      action(bail, ...count).catch(async (error: unknown) => {
        while (!sent && open > 0) await sleep(1); // a request to another broker may follow
        if (!sent) throw error;
        bail(error);
      }),
    );
  return createSendMessages({ ...options, eosManager, retrier })(request);
});
// kafkajs creates an object and several buffers per record, which takes 20 µs. A RecordBatch is sent unchanged.
const encodeProduce = require("kafkajs/src/protocol/requests/produce/v3/request") as ProduceEncoder;
replaceModule("protocol/requests/produce/v3/request.js", (request: ProduceRequest) => {
  const batches = request.topicData.flatMap(({ partitions }) => partitions.map(({ messages }) => messages));
  return {
    ...encodeProduce(request),
    ...(batches.every(isRecordBatch) && { encode: async () => produceParts(request) }),
  };
});
// kafkajs copies a request twice, into zeroed memory. Here its header is written to the room before the batch.
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
// kafkajs returns records of aborted transactions, verifies no checksum, and overflows the stack on large batches. Here
// a response keeps its record batches as bytes for `decodeRecords`. No kafkajs consumer can run in the same process.
replaceModule("protocol/requests/fetch/v4/decodeMessages.js", async (decoder: BytesDecoder) => {
  const size = decoder.readInt32();
  return size > 0 ? decoder.readBytes(size) : Buffer.alloc(0);
});
// kafkajs restarts a 1 ms timer forever, even if no request waits: 5 % of a core.
const RequestQueue = require("kafkajs/src/network/requestQueue") as { prototype: RequestQueueLike };
const { scheduleCheckPendingRequests } = RequestQueue.prototype;
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: RequestQueueLike) {
  if (this.pending.length > 0) scheduleCheckPendingRequests.call(this);
};

// In kafkajs two concurrent requests open two sockets and never close the first, so the process would not end.
const Connection = require("kafkajs/src/network/connection") as { prototype: ConnectionLike };
const { connect } = Connection.prototype;
Connection.prototype.connect = function (this: ConnectionLike) {
  this.connecting ??= connect.call(this).finally(() => {
    delete this.connecting;
  });
  return this.connecting;
};

// kafkajs asks each broker for the coordinator and discards their errors, so a missing permission looks like an outage.
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

export const Encoder = require("kafkajs/src/protocol/encoder") as new () => RequestEncoder;
export const Decoder = require("kafkajs/src/protocol/decoder") as new (bytes: Buffer) => ResponseDecoder;
const { prototype: anyBroker } = require("kafkajs/src/broker") as { prototype: object };
export const sendRequest = Object.getOwnPropertySymbols(anyBroker).find(
  ({ description }) => description === "private:Broker:sendRequest",
) as symbol;
export const { Kafka, logLevel } = require("kafkajs") as typeof import("kafkajs");
export const murmur2 = require("kafkajs/src/producer/partitioners/default/murmur2") as (key: string) => number;

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

/** Encodes a produce request of encoded batches, in parts. */
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

/** Copies parts to the room before a batch. If it is too small, as with several batches, everything is copied. */
function joinBefore(parts: Buffer[], batch: Buffer): Buffer {
  const length = parts.reduce((sum, part) => sum + part.length, 0);
  if (length > requestRoom) return Buffer.concat([...parts, batch]);
  const start = batch.byteOffset - length;
  const joined = Buffer.from(batch.buffer, start, length + batch.length);
  let at = 0;
  for (const part of parts) at += part.copy(joined, at);
  return joined;
}

/** The part of kafkajs' private `Cluster` that is used here. */
export interface Cluster {
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

export interface Broker {
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
