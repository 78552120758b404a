/**
 * Group commit: sends the messages of many callers in shared transactions, one transaction after the other.
 *
 * The next transaction collects while one is being committed: a single caller never waits for others, and thousands of
 * small callers share a few transactions. A caller's messages are stored all or none.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { isTransientKafka } from "../kafka/errors.ts";
import {
  messageBytes,
  NoAnswer,
  type ProducerRecord,
  type Publisher,
  type RecordMetadata,
  type SendResult,
} from "../kafka/publisher.ts";

/** About the most messages and bytes of one transaction; a larger piece gets its own transaction. */
const most = { messages: 5_000, bytes: 8_000_000 };

/** The result of one transaction. */
export interface Batch {
  outcome: SendResult["outcome"];
  messages: number;
  /** How long it took, ms. */
  ms: number;
}

/** Settings of {@link openBatches}. */
interface BatchOptions {
  publisher: Publisher;
  /** About the longest that a caller waits, ms. */
  waitMs: number;
  /** Ends all waiting; messages that are not being committed then are not stored. */
  signal: AbortSignal;
  onBatch: (batch: Batch) => void;
}

/** A queue of pieces of one or more messages; the caller must limit how many wait. */
interface Batches {
  add(messages: ProducerRecord[]): Promise<SendResult>;
}

interface Piece {
  messages: ProducerRecord[];
  bytes: number;
  deadline: number;
  /** Sent in its own transaction, because one that it shared was refused for good: perhaps another piece's fault. */
  alone: boolean;
  answer: (outcome: SendResult) => void;
}

/** Opens an empty queue, which sends while pieces wait. */
export function openBatches({ publisher, waitMs, signal, onBatch }: BatchOptions): Batches {
  let queue: Piece[] = [];
  let sending = false;
  // The driver's own message would not help the clients.
  const away = new Error("Kafka is unavailable");
  const stops = new Error("The server is stopping");

  const send = async (): Promise<void> => {
    for (let fails = 0; ; ) {
      expire();
      if (queue.length === 0) {
        sending = false;
        return;
      }
      const pieces = takeBatch(queue);
      const left = Math.min(...pieces.map((piece) => piece.deadline)) - Date.now();
      const began = performance.now();
      const messages = pieces.flatMap((piece) => piece.messages);
      const outcome = await publisher.send(messages, { signal, timeoutMs: Math.max(left, 1_000) });
      onBatch({ outcome: outcome.outcome, messages: messages.length, ms: performance.now() - began });
      if (outcome.outcome === "stored") {
        fails = 0;
        answerStored(pieces, outcome.places);
        continue;
      }
      const again = outcome.outcome === "not_stored" && !signal.aborted;
      const transient = isTransientKafka(outcome.error) || outcome.error instanceof NoAnswer;
      if (again && (transient || pieces.length > 1)) {
        // Retry each piece by itself, so that the one that is refused for good does not fail the others.
        if (!transient) for (const piece of pieces) piece.alone = true;
        queue = [...pieces, ...queue];
        if (transient) await sleep(Math.min(100 * 2 ** fails++, 1_000));
      } else for (const piece of pieces) piece.answer(transient ? { ...outcome, error: away } : outcome);
    }
  };

  const expire = () => {
    const now = Date.now();
    const late = queue.filter((piece) => piece.deadline <= now || signal.aborted);
    if (late.length === 0) return;
    queue = queue.filter((piece) => !late.includes(piece));
    for (const piece of late) piece.answer({ outcome: "not_stored", error: signal.aborted ? stops : away });
  };

  return {
    add: (messages) =>
      new Promise((answer) => {
        if (signal.aborted) return answer({ outcome: "not_stored", error: stops });
        const bytes = messages.reduce((sum, message) => sum + messageBytes(message), 0);
        const timer = setTimeout(expire, waitMs + 1);
        const done = (outcome: SendResult) => {
          clearTimeout(timer);
          answer(outcome);
        };
        queue.push({ messages, bytes, deadline: Date.now() + waitMs, alone: false, answer: done });
        if (sending) return;
        sending = true;
        // In the next turn, so that pieces that arrived together share a transaction.
        setImmediate(send);
      }),
  };
}

/** Removes the pieces of the next transaction from the queue. */
function takeBatch(queue: Piece[]): Piece[] {
  let bytes = 0;
  let messages = 0;
  let count = 0;
  for (const piece of queue) {
    bytes += piece.bytes;
    messages += piece.messages.length;
    if (count > 0 && (piece.alone || bytes > most.bytes || messages > most.messages)) break;
    count++;
    if (piece.alone) break;
  }
  return queue.splice(0, count);
}

/** Answers each piece with the partitions and offsets of its messages. */
function answerStored(pieces: Piece[], places: RecordMetadata[]): void {
  let at = 0;
  for (const { messages, answer } of pieces) {
    answer({ outcome: "stored", places: places.slice(at, at + messages.length) });
    at += messages.length;
  }
}
