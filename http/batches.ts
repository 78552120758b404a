/**
 * Group commit: what many callers want sent at once goes to the broker together, one transaction after the other.
 *
 * While one transaction is on its way the next one gathers, so that a lone caller waits for no one and thousands of
 * small ones share a few transactions. A caller's messages are stored whole or not at all.
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

/** Messages and bytes of one transaction, about; a larger piece goes alone. */
const most = { messages: 5_000, bytes: 8_000_000 };

/** What one transaction did. */
export interface Batch {
  outcome: SendResult["outcome"];
  messages: number;
  /** How long it took, ms. */
  ms: number;
}

/** Settings of {@link openBatches}. */
interface BatchOptions {
  publisher: Publisher;
  /** How long a caller waits at most, ms, about. */
  waitMs: number;
  /** Ends all waiting; what is not being committed then is not stored. */
  signal: AbortSignal;
  onBatch: (batch: Batch) => void;
}

/** Takes pieces of one or more messages; how many may wait is the caller's to bound. */
interface Batches {
  add(messages: ProducerRecord[]): Promise<SendResult>;
}

interface Piece {
  messages: ProducerRecord[];
  bytes: number;
  deadline: number;
  /** It was in a transaction that was refused for good: perhaps another piece's fault. */
  alone: boolean;
  answer: (outcome: SendResult) => void;
}

/** Opens an empty queue; it sends while anything waits. */
export function openBatches({ publisher, waitMs, signal, onBatch }: BatchOptions): Batches {
  let queue: Piece[] = [];
  let sending = false;
  // What a driver says of it would not help those who post.
  const away = new Error("Kafka is away");
  const stops = new Error("The server stops");

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
        // What is refused for good is tried once more by itself, so that it does not take others with it.
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
        // In the next turn: those that arrived together go together.
        setImmediate(send);
      }),
  };
}

/** Removes from the queue what goes into the next transaction. */
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

/** Gives each piece the places of its own messages. */
function answerStored(pieces: Piece[], places: RecordMetadata[]): void {
  let at = 0;
  for (const { messages, answer } of pieces) {
    answer({ outcome: "stored", places: places.slice(at, at + messages.length) });
    at += messages.length;
  }
}
