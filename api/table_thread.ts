/**
 * What a posting thread runs: reads its table page by page and commits rows and checkpoint together.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import {
  connectMysql,
  countRows,
  type Database,
  databaseId,
  explainMysql,
  guessRows,
  inspectTable,
  isTransientMysql,
  readPage,
  type SourceTable,
  tryMs,
} from "../db_conn.ts";
import type { RecordBatch } from "../io/record_batch.ts";
import type { RowEncoder } from "../io/row_encoder.ts";
import { tables } from "../io.ts";
import type { Checkpoint } from "../kafka/checkpoint.ts";
import { explainKafka } from "../kafka/errors.ts";
import { topicOf } from "../kafka/settings.ts";
import { waitForStableOffset } from "../kafka/topics.ts";
import { retry } from "../runtime/retry.ts";
import { step } from "../runtime/steps.ts";
import { isTransient, type Job, type Order, type Plan, type PostFact, unfinished } from "./protocol.ts";
import { type Limits, type Session, send, sendCheckpoint, sessionOpener } from "./session.ts";

// ---- the thread's side ----

/** Rows in one transaction, about: fewer make commits count, more make a failed one costly. */
const transactionRows = 10_000;
/** Rows of a page at most; wide rows are read in smaller pages, so that one stays near `pageBytes`. */
const pageRows = 5_000;
const pageBytes = 4_000_000;
const transactionBytes = 2 * pageBytes;
/** A page is cut off at this size, since nobody knows beforehand how wide its rows are. */
const maxPageBytes = 16_000_000;

/** Rows of one transaction, ready to be sent. */
interface Batch {
  records: RecordBatch[];
  rows: number;
  bytes: number;
  lastKey: string | null;
  /** Nothing is left above `lastKey`. */
  exhausted: boolean;
}

async function postTable(job: Job, port: NonNullable<typeof parentPort>): Promise<void> {
  const { table, mysql, kafka, waitMs } = job;
  const stop = new AbortController();
  const { signal } = stop;
  const { ordered, heard } = listenForOrders(signal);
  port.on("message", (message: Order) => (message.order === "stop" ? stop.abort() : heard(message)));
  const tell = (fact: PostFact) => port.postMessage(fact);
  const patience = { waitMs, signal, isTransient, onWait: (text: string) => tell({ fact: "waited", table, text }) };
  const connectOnce = () => connectMysql(mysql, { waitMs: tryMs(waitMs) });
  const connect = () => retry(connectOnce, patience);
  const openReader = async (): Promise<TableReader> => {
    const opened = {
      db: await connect(),
      async reconnect() {
        opened.db.destroy();
        opened.db = await connect();
      },
    };
    return opened;
  };
  const reader = await openReader();
  let counter: TableReader | undefined;
  const asking = <T>(by: TableReader, ask: (db: Database) => Promise<T>): Promise<T> =>
    retry(async () => {
      try {
        return await ask(by.db);
      } catch (error) {
        if (isTransientMysql(error)) {
          by.db.destroy();
          by.db = await connectOnce(); // once: a server that is away must not be waited for twice
        }
        throw explainMysql(error, mysql);
      }
    }, patience);
  let session: Session | undefined;
  try {
    const source = await asking(reader, (db) => inspectTable(db, mysql.database, table));
    const database = await asking(reader, (db) => databaseId(db, mysql));
    const { maxMessageBytes } = await ordered("claim");
    const limits = { job, maxMessageBytes: maxMessageBytes[table], signal };
    const openNext = sessionOpener(limits, tell);
    session = await retry(() => openNext(source, database), patience);
    tell({ fact: "claimed", table, checkpoint: session.checkpoint });
    const plan = await ordered("plan");
    const { checkpoint: begun } = session;
    // Beside the posting: to count ten million rows takes the database 20 s.
    if (plan.full === null && begun.lastKey !== null) counter = await openReader();
    const counting = counter && asking(counter, (db) => warnOfUnseenRows(db, begun, tell));
    counting?.catch(() => {}); // told where it is awaited
    tell({ fact: "counted", table, total: await asking(reader, (db) => estimateRows(db, source, plan, begun)) });

    let rows = 0;
    let size = pageRows;
    let ahead: Promise<Batch> | undefined;
    let troubleSince: number | undefined;
    let sending = false;
    for (let going = true; going; ) {
      signal.throwIfAborted();
      try {
        if (plan.full !== null && session.checkpoint.full?.id !== plan.full) {
          const upTo = source.keys?.greatest ?? null;
          const full = { id: plan.full, upTo, lastKey: null, rows: 0, done: false };
          session.checkpoint = await commit(session, { ...session.checkpoint, full }, limits);
        }
        if (!sending) {
          tell({ fact: "planned", table });
          await ordered("send");
          sending = true;
        }
        const { checkpoint, encoder }: Session = session;
        const full = unfinished(checkpoint);
        const upTo = full ? full.upTo : (source.keys?.greatest ?? null);
        const read = (after: string | null): Promise<Batch> => {
          const reading = readBatch(reader, source, { after, upTo, size, encoder });
          reading.catch(() => {}); // told where it is awaited
          return reading;
        };
        const batch: Batch = await (ahead ?? read((full ?? checkpoint).lastKey));
        size = nextPageSize(batch, size);
        ahead = batch.exhausted ? undefined : read(batch.lastKey);
        going = !batch.exhausted || full !== undefined;
        if (batch.rows > 0 || full) {
          session.checkpoint = await commit(session, advance(checkpoint, batch), limits, batch.records);
          encoder.release(batch.records);
          rows += batch.rows;
          troubleSince = undefined;
          tell({ fact: "posted", table, rows: batch.rows });
        }
      } catch (error) {
        signal.throwIfAborted();
        // From the first error on: a program that was itself frozen has lost no time.
        troubleSince ??= Date.now();
        if (!isTransient(error) || Date.now() - troubleSince > waitMs) {
          throw explainKafka(explainMysql(error, mysql), kafka);
        }
        await ahead?.catch(() => {});
        ahead = undefined;
        going = true;
        if (isTransientMysql(error)) await reader.reconnect();
        else {
          void session.producer.disconnect().catch(() => {});
          session = await retry(() => openNext(source, database), patience);
        }
      }
    }
    step("posted", table);
    if (rows > 0) {
      const text = await retry(() => waitForStableOffset(kafka, table), patience);
      if (text) tell({ fact: "warned", table, text });
    }
    await counting;
    tell({ fact: "done", table, result: { table, rows, lastKey: session.checkpoint.lastKey } });
  } finally {
    reader.db.destroy();
    counter?.db.destroy();
    await session?.producer.disconnect().catch(() => {});
    port.close();
  }
}

/** The orders of the main thread, to be awaited one after the other. */
function listenForOrders(signal: AbortSignal) {
  const heard = new Map<string, Order>();
  const waiting = new Map<string, (order: Order) => void>();
  return {
    heard: (order: Order) => {
      heard.set(order.order, order);
      waiting.get(order.order)?.(order);
    },
    ordered: <Name extends Order["order"]>(name: Name) =>
      new Promise<Extract<Order, { order: Name }>>((resolve, reject) => {
        const take = (order: Order) => resolve(order as Extract<Order, { order: Name }>);
        waiting.set(name, take);
        const early = heard.get(name);
        if (early) take(early);
        if (signal.aborted) reject(signal.reason);
        signal.addEventListener("abort", () => reject(signal.reason), { once: true });
      }),
  };
}

const nextPageSize = ({ rows, bytes }: Batch, size: number): number =>
  rows === 0 ? size : Math.max(1, Math.min(pageRows, size * 10, Math.floor((pageBytes * rows) / bytes)));

/** A connection to MySQL that can be opened again. */
interface TableReader {
  db: Database;
  reconnect(): Promise<void>;
}

/** Reads and encodes the rows of one transaction: pages until there are enough rows or bytes. */
async function readBatch(
  reader: TableReader,
  source: SourceTable,
  options: { after: string | null; upTo: string | null; size: number; encoder: RowEncoder },
): Promise<Batch> {
  const { upTo, size, encoder } = options;
  let lastKey = options.after;
  let exhausted = upTo === null;
  encoder.take(); // of a page that failed
  while (!exhausted && encoder.rows < transactionRows && encoder.bytes < transactionBytes) {
    const limit = Math.min(size, transactionRows - encoder.rows);
    const page = { after: lastKey ?? undefined, upTo: upTo as string, limit, maxBytes: maxPageBytes };
    const { rows, cut } = await readPage(reader.db, source, page, encoder.add);
    if (cut) await reader.reconnect();
    if (rows > 0) lastKey = encoder.lastKey;
    exhausted = !cut && rows < limit;
  }
  const { rows, bytes } = encoder;
  return { records: encoder.take(), rows, bytes, lastKey, exhausted };
}

/**
 * Sends records and the checkpoint after them in one transaction.
 *
 * @returns the checkpoint as committed, with the place of the last row sent
 * @throws whatever left the outcome in doubt: the session must then be thrown away
 */
async function commit(
  { producer }: Session,
  checkpoint: Checkpoint,
  { job: { table, kafka }, maxMessageBytes, signal }: Limits,
  records: RecordBatch[] = [],
): Promise<Checkpoint> {
  const topic = topicOf(kafka, table);
  const transaction = await producer.transaction();
  step("begun", table);
  let { last } = checkpoint;
  for (const { value, lastKey } of records) {
    if (value.length <= maxMessageBytes) continue;
    throw new Error(
      `Cannot post the row ${tables[table].key} = ${lastKey} of "${tables[table].source}": as a message it has ${value.length} bytes, more than max.message.bytes of topic "${topic}", ${maxMessageBytes}; raise that or shorten the row`,
    );
  }
  for (let left = records; left.length > 0; ) {
    if (signal.aborted) {
      // Left open, it would hold back the readers of the topic until it times out.
      await transaction.abort();
      throw signal.reason;
    }
    const first = left.filter(({ partition }, i) => left.findIndex((other) => other.partition === partition) === i);
    step("sending", table);
    const placed = await send(transaction, topic, first);
    step("sent", table);
    const { partition, length, lastKey } = first.at(-1) as RecordBatch;
    last = { partition, offset: (placed.get(partition) as number) + length - 1, key: lastKey };
    left = left.filter((batch) => !first.includes(batch));
  }
  const committed = { ...checkpoint, last };
  await sendCheckpoint(transaction, kafka, committed);
  step("committing", table);
  await transaction.commit();
  step("committed", table);
  return committed;
}

/** The checkpoint after a batch, but for the place of its last row. */
function advance(checkpoint: Checkpoint, { rows, lastKey, exhausted }: Batch): Checkpoint {
  const full = unfinished(checkpoint);
  if (!full) return { ...checkpoint, lastKey, rows: checkpoint.rows + rows };
  const next = { ...full, lastKey, rows: full.rows + rows, done: exhausted };
  // A finished full run has seen every row: new ones count from its end.
  const seen = next.done ? { lastKey: next.upTo, rows: next.rows } : {};
  return { ...checkpoint, ...seen, full: next };
}

async function warnOfUnseenRows(db: Database, checkpoint: Checkpoint, tell: (fact: PostFact) => void): Promise<void> {
  const { table, lastKey, rows } = checkpoint;
  if (lastKey === null) return;
  const there = await countRows(db, table, lastKey);
  if (there < rows) {
    const text = `"${tables[table].source}" has ${rows - there} rows less up to key ${lastKey} than were posted: what was deleted stays in the topic and in silver`;
    return tell({ fact: "warned", table, text });
  }
  if (there === rows) return;
  const text = `"${tables[table].source}" has ${there - rows} more rows up to key ${lastKey} than were posted: post sees only keys above the last one; post --full posts every row again`;
  tell({ fact: "warned", table, text });
}

/** Rows to post, for the progress display: exact where keys have no gaps, else about right. */
async function estimateRows(db: Database, source: SourceTable, plan: Plan, checkpoint: Checkpoint): Promise<number> {
  if (!source.keys) return 0;
  const { least, greatest } = source.keys;
  const begun = unfinished(checkpoint);
  const after = begun ? begun.lastKey : plan.full && plan.full !== checkpoint.full?.id ? null : checkpoint.lastKey;
  const span = Number(BigInt(greatest) - (after === null ? BigInt(least) - 1n : BigInt(after)));
  const guess = await guessRows(db, source.table);
  return Math.max(0, span <= 2 * guess + 100_000 ? span : guess);
}

export const job = workerData as Job | null;
if (job?.kind === "post" && parentPort) void postTable(job, parentPort);
