/**
 * Sends groups of messages to topics, each group completely or not at all, and reports the result.
 *
 * A group is one Kafka transaction. If its result is unknown, the producer is discarded. A new one with the same
 * transactional id fences it, which ends the transaction; the topic then shows whether the group is stored.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { encodeMessages, keyBytes, type RecordView, valueBytes } from "../io/record_batch.ts";
import { connectReader } from "./client.ts";
import { explainKafka, isTransientKafka, retriable } from "./errors.ts";
import { readRecord } from "./fetch.ts";
import { openProducer, type Producer, type TopicBatch, type Transaction } from "./producer.ts";
import type { KafkaSettings } from "./settings.ts";
import { listOffsets, partitionOf } from "./topics.ts";

/** A message to send. Its partition is computed from its key unless it is given. */
export interface ProducerRecord {
  topic: string;
  key: string | null;
  value: string | null;
  partition?: number;
}

/** The position of a message in its topic. */
export interface RecordMetadata {
  partition: number;
  offset: number;
}

/** Result of a group. `unknown`: stored completely or not at all, but the broker did not say which in time. */
export type SendResult =
  | { outcome: "stored"; places: RecordMetadata[] }
  | { outcome: "not_stored"; error: Error }
  | { outcome: "unknown"; error: Error };

/** The broker did not answer before the deadline. */
export class NoAnswer extends Error {}

/** Sends one group at a time: call `send` again only after its promise has settled. */
export interface Publisher extends AsyncDisposable {
  /**
   * Sends a group in one transaction, without a retry: the caller may resend a group that is not stored. Returns within
   * 1 s after a stop or the timeout.
   *
   * @returns the positions in the order of the messages, or the error
   */
  send(messages: ProducerRecord[], options: SendOptions): Promise<SendResult>;
}

/** Limits of {@link Publisher.send}. */
interface SendOptions {
  signal: AbortSignal;
  /** How long to wait for the broker, ms. */
  timeoutMs: number;
}

/** Settings of {@link openPublisher}. */
interface PublisherOptions {
  kafka: KafkaSettings;
  /** Called for every connection. Two users of one id would fence each other. */
  transactionalId: () => string;
}

/** Bytes of one request, about. Topics that the program creates accept ten times as much. */
const requestBytes = 4_000_000;

/** How long to wait for the answer to a commit after a stop, ms. */
const commitGrace = 1_000;

/**
 * After how long the broker aborts the transaction of a dead producer, ms. Until then read_committed readers wait. No
 * group takes nearly as long.
 */
const transactionTimeout = 20_000;

/** Bytes of a message as the broker counts them, about. */
export const messageBytes = ({ key, value }: Pick<ProducerRecord, "key" | "value">): number =>
  Buffer.byteLength(value ?? "") + Buffer.byteLength(key ?? "") + 140;

/** Creates a publisher, which connects at its first send. */
export function openPublisher(options: PublisherOptions): Publisher {
  const { kafka } = options;
  let producer: Producer | undefined;
  const closing = new Set<Promise<unknown>>();

  /** Discards the producer. The abort unblocks readers sooner; the next producer would abort too. */
  const discard = (transaction?: Transaction) => {
    const old = producer;
    producer = undefined;
    const ended = (async () => {
      await transaction?.abort().catch(() => {});
      await old?.disconnect().catch(() => {});
    })();
    closing.add(ended);
    void ended.finally(() => closing.delete(ended));
  };

  /** After a commit without an answer: fences the producer, so that nothing can change, then reads the topic. */
  const findOut = async (first: ProducerRecord, place: RecordMetadata, signal: AbortSignal): Promise<boolean> => {
    for (;;) {
      signal.throwIfAborted();
      try {
        producer ??= await openInTime(options, signal);
        return await inTime(isStored(kafka, first, place, signal), signal);
      } catch (error) {
        if (!isTransientKafka(error)) throw error;
        discard();
        await sleep(250, undefined, { signal });
      }
    }
  };

  return {
    async send(messages, { signal: stop, timeoutMs }) {
      const { signal, late, disarm } = deadlines(stop, timeoutMs);
      let transaction: Transaction | undefined;
      let committing = false;
      let places: RecordMetadata[] = [];
      try {
        producer ??= await openInTime(options, signal);
        transaction = await inTime(producer.begin(), signal);
        places = await inTime(sendAll(transaction, await partitioned(producer, messages), signal), signal);
        committing = true;
        await inTime(transaction.commit(), late);
        return { outcome: "stored", places };
      } catch (thrown) {
        discard(committing ? undefined : transaction);
        const error = explainKafka(thrown, kafka);
        if (!committing) return { outcome: "not_stored", error };
        try {
          const stored = await findOut(messages[0] as ProducerRecord, places[0] as RecordMetadata, late);
          return stored ? { outcome: "stored", places } : { outcome: "not_stored", error };
        } catch {
          return { outcome: "unknown", error };
        }
      } finally {
        disarm();
      }
    },
    async [Symbol.asyncDispose]() {
      discard();
      await Promise.race([Promise.all(closing), sleep(1_000, undefined, { ref: false })]);
    },
  };
}

/** Opens a producer before the signal aborts; one that opens later is closed. */
async function openInTime({ kafka, transactionalId }: PublisherOptions, signal: AbortSignal): Promise<Producer> {
  const opening = openProducer(kafka, { transactionalId: transactionalId(), transactionTimeout });
  try {
    return await inTime(opening, signal);
  } catch (error) {
    void opening.then((late) => late.disconnect()).catch(() => {});
    throw error;
  }
}

type Partitioned = ProducerRecord & { partition: number };

/** Counts the messages without a key, which take turns. */
let turn = 0;

/** Chooses partitions as Java's clients do, or in turn for messages without a key. */
async function partitioned(producer: Producer, messages: ProducerRecord[]): Promise<Partitioned[]> {
  const counts = new Map<string, number>();
  for (const topic of new Set(messages.map((message) => message.topic))) {
    counts.set(topic, await producer.partitionsOf(topic));
  }
  return messages.map((message) => {
    const { topic, key, partition } = message;
    const partitions = counts.get(topic) as number;
    if (partitions === 0) throw retriable(`Topic "${topic}" is not known to the broker yet`);
    return { ...message, partition: partition ?? (key === null ? turn++ % partitions : partitionOf(key, partitions)) };
  });
}

/**
 * Sends in as many requests as the size needs.
 *
 * @returns the position of each message once it is committed
 */
async function sendAll(
  transaction: Transaction,
  messages: Partitioned[],
  signal: AbortSignal,
): Promise<RecordMetadata[]> {
  await transaction.add(messages);
  const places = new Map<Partitioned, RecordMetadata>();
  for (const chunk of chunks(messages)) {
    signal.throwIfAborted();
    const groups = new Map<string, Partitioned[]>();
    for (const message of chunk) {
      const name = `${message.topic}/${message.partition}`;
      const others = groups.get(name);
      if (others) others.push(message);
      else groups.set(name, [message]);
    }
    const batches: TopicBatch[] = [...groups.values()].map((some) => {
      const { topic, partition } = some[0] as Partitioned;
      return { topic, batch: encodeMessages(partition, some) };
    });
    const offsets = await transaction.send(batches);
    for (const [i, some] of [...groups.values()].entries()) {
      for (const [j, message] of some.entries()) {
        places.set(message, { partition: message.partition, offset: (offsets[i] as number) + j });
      }
    }
  }
  return messages.map((message) => places.get(message) as RecordMetadata);
}

function* chunks(messages: Partitioned[]): Generator<Partitioned[]> {
  let chunk: Partitioned[] = [];
  let bytes = 0;
  for (const message of messages) {
    const size = messageBytes(message);
    if (bytes + size > requestBytes && chunk.length > 0) {
      yield chunk;
      chunk = [];
      bytes = 0;
    }
    chunk.push(message);
    bytes += size;
  }
  if (chunk.length > 0) yield chunk;
}

/** Whether a message is committed at its position. The transaction of its producer must have ended. */
async function isStored(
  kafka: KafkaSettings,
  { topic, key, value }: ProducerRecord,
  { partition, offset }: RecordMetadata,
  signal: AbortSignal,
): Promise<boolean> {
  await using reader = await connectReader(kafka);
  for (;;) {
    signal.throwIfAborted();
    const range = (await listOffsets(reader, topic))?.find((r) => r.partition === partition);
    if (!range || range.logStart > offset || range.logEnd <= offset) {
      throw new Error(`Offset ${offset} of partition ${partition} of topic "${topic}" is not in the log`);
    }
    if (range.lastStable > offset) break;
    await sleep(20); // another producer's transaction is open before it
  }
  const take = (record: RecordView) => same(keyBytes(record), key) && same(valueBytes(record), value);
  return (await readRecord(reader, topic, { partition, offset, take })) ?? false;
}

const same = (bytes: Buffer | null, text: string | null): boolean =>
  bytes === null || text === null ? bytes === text : bytes.equals(Buffer.from(text));

/** A signal for the stop or the timeout, and one that follows it after `commitGrace`. */
function deadlines(stop: AbortSignal, timeoutMs: number) {
  const [soon, late] = [new AbortController(), new AbortController()];
  let timer: NodeJS.Timeout;
  const end = (reason: unknown) => {
    clearTimeout(timer);
    soon.abort(reason);
    timer = setTimeout(() => late.abort(reason), commitGrace);
  };
  const onStop = () => end(stop.reason);
  timer = setTimeout(() => end(new NoAnswer(`No answer within ${timeoutMs / 1000} s`)), timeoutMs);
  if (stop.aborted) onStop();
  else stop.addEventListener("abort", onStop, { once: true });
  const disarm = () => {
    clearTimeout(timer);
    stop.removeEventListener("abort", onStop);
  };
  return { signal: soon.signal, late: late.signal, disarm };
}

/** Settles as the promise does, or rejects with the signal's reason as soon as it aborts. */
function inTime<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => {});
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
