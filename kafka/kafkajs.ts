/**
 * The only module that loads kafkajs. It replaces private modules that lose rows, leak or are too slow.
 *
 * Written for kafkajs 2.2.4; any other version is refused.
 *
 * @module
 */
import { createRequire } from "node:module";
import { requestRoom } from "../io/record_batch.ts";

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

// kafkajs copies a request twice, into zeroed memory. Here its header is written to the room before the batch: 4.7 instead
// of 7.3 s of CPU and 218 instead of 301 MB for 3 x 300,000 rows (medians of 3 runs in turn).
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
// kafkajs restarts a 1 ms timer forever, even if no request waits. Without it an idle `post --follow` takes 0.80 s of CPU in 15 s
// instead of 2.08, and `clean --follow` 0.47 instead of 1.50 (medians of 3 in turn).
const RequestQueue = require("kafkajs/src/network/requestQueue") as { prototype: RequestQueueLike };
const { scheduleCheckPendingRequests } = RequestQueue.prototype;
RequestQueue.prototype.scheduleCheckPendingRequests = function (this: RequestQueueLike) {
  if (this.pending.length > 0) scheduleCheckPendingRequests.call(this);
};

// In kafkajs concurrent first requests open a socket each and close only the last: three fetches at once opened 4 sockets
// instead of 2, and kept the process alive for a minute after it had closed the connection.
const Connection = require("kafkajs/src/network/connection") as { prototype: ConnectionLike };
const { connect } = Connection.prototype;
Connection.prototype.connect = function (this: ConnectionLike) {
  this.connecting ??= connect.call(this).finally(() => {
    delete this.connecting;
  });
  return this.connecting;
};

export const Encoder = require("kafkajs/src/protocol/encoder") as new () => RequestEncoder;
const Decoder = require("kafkajs/src/protocol/decoder") as new (bytes: Buffer) => Decoder;
const { createErrorFromCode } = require("kafkajs/src/protocol/error") as { createErrorFromCode(code: number): Error };
const { prototype: anyBroker } = require("kafkajs/src/broker") as { prototype: object };
const sendRequest = Object.getOwnPropertySymbols(anyBroker).find(
  ({ description }) => description === "private:Broker:sendRequest",
) as symbol;
export const { Kafka, logLevel } = require("kafkajs") as typeof import("kafkajs");
export const murmur2 = require("kafkajs/src/producer/partitioners/default/murmur2") as (key: string) => number;

/** A request that the program encodes and whose response it decodes. */
interface OwnRequest<T> {
  apiKey: number;
  apiVersion: number;
  apiName: string;
  /** The body; or its parts, of which the last has {@link requestRoom} before it. */
  encode: () => RequestEncoder | Buffer[];
  decode: (from: Decoder) => T;
}

/** Sends a request on the broker's connection and decodes the response. */
export function request<T>(broker: Broker, { encode, decode, ...api }: OwnRequest<T>): Promise<T> {
  type Send = (asked: object) => Promise<T>;
  const send = (broker as never as Record<symbol, Send>)[sendRequest] as Send;
  return send.call(broker, {
    request: { ...api, encode: async () => encode() },
    response: { decode: async (bytes: Buffer) => decode(new Decoder(bytes)), parse: async (decoded: T) => decoded },
  });
}

/** The error of an error code; `undefined` for 0. */
export const failureOf = (code: number): Error | undefined => (code === 0 ? undefined : createErrorFromCode(code));

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
  refreshMetadata(): Promise<void>;
  refreshMetadataIfNecessary(): Promise<void>;
  addTargetTopic(topic: string): Promise<void>;
  findTopicPartitionMetadata(topic: string): { partitionId: number }[];
  findLeaderForPartitions(topic: string, partitions: number[]): Record<string, number[]>;
  findBroker(options: { nodeId: string }): Promise<Broker>;
  /** The topics of its metadata. */
  targetTopics: Set<string>;
  brokerPool: {
    findConnectedBroker(): Promise<Broker>;
    findBroker(options: { nodeId: string }): Promise<Broker>;
    getNodeIds(): string[];
    metadata: { clusterId: string } | null;
  };
}

export interface Broker {
  nodeId: number | string | null;
  versions: Record<number, { maxVersion: number }> | null;
  listOffsets(request: object): Promise<{ responses: { partitions: { partition: number; offset: string }[] }[] }>;
  findGroupCoordinator(request: object): Promise<{ coordinator: { nodeId: number } }>;
  initProducerId(request: object): Promise<{ producerId: string; producerEpoch: number }>;
  addPartitionsToTxn(request: object): Promise<unknown>;
  endTxn(request: object): Promise<unknown>;
  offsetCommit(request: object): Promise<unknown>;
}

/** Reads the fields of a response in order. */
export interface Decoder {
  readInt8(): number;
  readInt16(): number;
  readInt32(): number;
  readInt64(): bigint;
  readString(): string | null;
  readBytes(size: number): Buffer;
  readArray<T>(read: () => T): T[];
  readUVarInt(): number;
  readUVarIntString(): string | null;
  readUVarIntArray<T>(read: () => T): T[] | null;
}

interface ConnectionLike {
  connecting?: Promise<unknown>;
  connect(): Promise<unknown>;
}

interface RequestQueueLike {
  pending: unknown[];
  scheduleCheckPendingRequests(): void;
}

interface RequestOptions {
  correlationId: number;
  clientId: string;
  request: { apiKey: number; apiVersion: number; encode: () => Promise<unknown> };
}

interface RequestEncoder {
  buffer: Buffer;
  writeInt8(value: number): this;
  writeInt16(value: number): this;
  writeInt32(value: number): this;
  writeInt64(value: number): this;
  writeString(value: string): this;
  writeBoolean(value: boolean): this;
  writeBuffer(value: Buffer): this;
  writeUVarInt(value: number): this;
  writeUVarIntString(value: string): this;
}
