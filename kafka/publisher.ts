/**
 * Sends groups of messages to the topics, each group whole or not at all, and tells what became of it.
 *
 * A group is one Kafka transaction. After any doubt the producer is thrown away; a new one with the same transactional
 * id fences it, which settles the group's fate, and the topic itself is asked whether the group stands there.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import type { Producer, Transaction } from "kafkajs";
import { keyBytes, type RecordView, valueBytes } from "../io/record_batch.ts";
import { connectReader, openProducer, sendAcknowledged } from "./client.ts";
import { explainKafka, isTransientKafka } from "./errors.ts";
import { readRecord } from "./fetch.ts";
import type { KafkaSettings } from "./settings.ts";
import { listOffsets, partitionOf } from "./topics.ts";

/** A message to be sent; its partition follows from its key unless it is given. */
export interface ProducerRecord {
  topic: string;
  key: string | null;
  value: string | null;
  partition?: number;
}

/** Where a message stands in its topic. */
export interface RecordMetadata {
  partition: number;
  offset: number;
}

/** What became of a group. `unknown`: it is stored whole or not at all, and which could not be found out in time. */
export type SendResult =
  | { outcome: "stored"; places: RecordMetadata[] }
  | { outcome: "not_stored"; error: Error }
  | { outcome: "unknown"; error: Error };

/** The broker said nothing until the time was up. */
export class NoAnswer extends Error {}

/** Sends one group after the other; `send` must not be called again before it has answered. */
export interface Publisher extends AsyncDisposable {
  /**
   * Sends a group in one transaction. It does not try again: what is not stored may be sent anew. When it is stopped
   * or the time is up, it answers within 1 s.
   *
   * @returns the places in the order of the messages, or the error
   */
  send(messages: ProducerRecord[], options: SendOptions): Promise<SendResult>;
}

/** How long {@link Publisher.send} may take. */
interface SendOptions {
  signal: AbortSignal;
  /** ms; a broker that hangs is given up then. */
  timeoutMs: number;
}

/** Settings of {@link openPublisher}. */
interface PublisherOptions {
  kafka: KafkaSettings;
  /** Asked for at every connection. Nobody else may use it at the same time: each would fence the other. */
  transactionalId: () => string;
}

/** What one request carries, about; the program's own topics take ten times as much. */
const requestBytes = 4_000_000;

/** How long a commit that was sent may go on after a stop, ms: its answer is worth waiting for. */
const commitGrace = 1_000;

/**
 * How long the broker keeps a transaction of a sender that died, ms. Until then it holds back the topics' readers;
 * none of the groups takes nearly as long.
 */
const transactionTimeout = 20_000;

/** Bytes of a message as the broker counts it, about. */
export const messageBytes = ({ key, value }: Pick<ProducerRecord, "key" | "value">): number =>
  Buffer.byteLength(value ?? "") + Buffer.byteLength(key ?? "") + 140;

/** Makes a publisher; it connects when it first sends. */
export function openPublisher(options: PublisherOptions): Publisher {
  const { kafka } = options;
  let producer: Producer | undefined;
  const closing = new Set<Promise<unknown>>();

  /** Never commits any more; the abort is a kindness to readers, the next producer would do it too. */
  const discard = (transaction?: Transaction) => {
    const old = producer;
    producer = undefined;
    const ended = (async () => {
      if (transaction?.isActive()) await transaction.abort().catch(() => {});
      await old?.disconnect().catch(() => {});
    })();
    closing.add(ended);
    void ended.finally(() => closing.delete(ended));
  };

  /** After a commit without an answer: fences, so that nothing can change any more, and looks. */
  const findOut = async (first: ProducerRecord, place: RecordMetadata, signal: AbortSignal): Promise<boolean> => {
    for (;;) {
      signal.throwIfAborted();
      try {
        producer ??= await openInTime(options, signal);
        return await inTime(standsAt(kafka, first, place, signal), signal);
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
        transaction = await inTime(producer.transaction(), signal);
        places = await inTime(sendAll(transaction, messages, signal), signal);
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

/** Opens a producer within the signal's time; one that comes too late is closed again. */
async function openInTime({ kafka, transactionalId }: PublisherOptions, signal: AbortSignal): Promise<Producer> {
  const opening = openProducer(kafka, {
    transactionalId: transactionalId(),
    transactionTimeout,
    createPartitioner,
    // The broker is busy for a few ms with the marks of the transaction before.
    retry: { initialRetryTime: 4, maxRetryTime: 1_000, retries: 12 },
  });
  try {
    return await inTime(opening, signal);
  } catch (error) {
    void opening.then((late) => late.disconnect()).catch(() => {});
    throw error;
  }
}

/** The partition that Java's clients would choose; messages without a key take turns. It is noted in the message. */
function createPartitioner() {
  let turn = 0;
  return ({ message, partitionMetadata }: { message: object; partitionMetadata: unknown[] }): number => {
    const sent = message as ProducerRecord;
    sent.partition ??=
      sent.key === null ? turn++ % partitionMetadata.length : partitionOf(sent.key, partitionMetadata.length);
    return sent.partition;
  };
}

/** Sends in as many requests as their size asks for; tells where each message will stand once it is committed. */
async function sendAll(
  transaction: Transaction,
  messages: ProducerRecord[],
  signal: AbortSignal,
): Promise<RecordMetadata[]> {
  const places: RecordMetadata[] = [];
  for (const chunk of chunks(messages)) {
    signal.throwIfAborted();
    // Copies: the partition is noted in them, and a group that is sent again may find more partitions.
    const copies = chunk.map((message) => ({ ...message }));
    const byTopic = new Map<string, ProducerRecord[]>();
    for (const message of copies) {
      const others = byTopic.get(message.topic);
      if (others) others.push(message);
      else byTopic.set(message.topic, [message]);
    }
    const topicMessages = [...byTopic].map(([topic, some]) => ({ topic, messages: some }));
    const next = await sendAcknowledged(transaction, topicMessages);
    for (const { topic, partition } of copies) {
      const offset = next.get(`${topic}/${partition}`) as number;
      places.push({ partition: partition as number, offset });
      next.set(`${topic}/${partition}`, offset + 1);
    }
  }
  return places;
}

function* chunks(messages: ProducerRecord[]): Generator<ProducerRecord[]> {
  let chunk: ProducerRecord[] = [];
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

/** Whether a message is committed at its place. No transaction of its sender may be open any more. */
async function standsAt(
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
      throw new Error(`Offset ${offset} of partition ${partition} of topic "${topic}" is gone`);
    }
    if (range.lastStable > offset) break;
    await sleep(20); // somebody else's transaction is open before it
  }
  const take = (record: RecordView) => same(keyBytes(record), key) && same(valueBytes(record), value);
  return (await readRecord(reader, topic, { partition, offset, take })) ?? false;
}

const same = (bytes: Buffer | null, text: string | null): boolean =>
  bytes === null || text === null ? bytes === text : bytes.equals(Buffer.from(text));

/** A signal for the stop or the end of the time, and one that follows it when a commit had its moment of grace. */
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

/** The promise, or the signal's reason as soon as it is aborted. */
function inTime<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  promise.catch(() => {});
  return new Promise<T>((resolve, reject) => {
    const stop = () => reject(signal.reason);
    if (signal.aborted) return stop();
    signal.addEventListener("abort", stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener("abort", stop));
  });
}
