/**
 * What a posting thread runs: reads its table page by page and commits rows and checkpoint together.
 *
 * @module
 */

import { parentPort, workerData } from "node:worker_threads";
import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import type { Database } from "../db_conn/query.ts";
import {
  connectMysql,
  countRows,
  databaseId,
  guessRows,
  inspectTable,
  type MysqlSettings,
  readPage,
  type SourceTable,
  tryMs,
} from "../db_conn.ts";
import type { RecordBatch } from "../io/record_batch.ts";
import type { RowEncoder } from "../io/row_encoder.ts";
import { tables } from "../io.ts";
import type { Checkpoint } from "../kafka/checkpoint.ts";
import { sendAcknowledged } from "../kafka/client.ts";
import { explainKafka } from "../kafka/errors.ts";
import { topicOf } from "../kafka/settings.ts";
import { waitForStableOffset } from "../kafka/topics.ts";
import { type RetryOptions, retry } from "../runtime/retry.ts";
import { step } from "../runtime/steps.ts";
import { type Command, isTransient, type Job, type Plan, type PostFact, unfinished } from "./protocol.ts";
import { type Limits, type Session, sendCheckpoint, sessionOpener } from "./session.ts";

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

/** What posting holds between its stages. */
interface Posting {
  limits: Limits;
  source: SourceTable;
  reader: TableReader;
  session: Session;
  /** Opens the next session, where the last one is in doubt. */
  openSession: () => Promise<Session>;
  emit: (fact: PostFact) => void;
}

/** Posts one table: looks at it, claims it, learns the plan, sends rows, and waits until they are readable. */
async function postTable(job: Job, port: NonNullable<typeof parentPort>): Promise<void> {
  const { table, mysql, kafka, waitMs } = job;
  const stop = new AbortController();
  const { signal } = stop;
  const commands = receiveCommands(port, stop);
  const emit = (fact: PostFact) => port.postMessage(fact);
  const retrying = { waitMs, signal, isTransient, onWait: (text: string) => emit({ fact: "waited", text }) };
  const reader = await openReader(mysql, retrying);
  let counter: TableReader | undefined;
  let posting: Posting | undefined;
  try {
    const source = await reader.ask((db) => inspectTable(db, mysql.database, table));
    const database = await reader.ask((db) => databaseId(db, mysql));
    const { maxMessageBytes } = await commands.waitFor("claim");
    const limits = { job, maxMessageBytes: maxMessageBytes[table], signal };
    const openNext = sessionOpener(limits, emit);
    const openSession = () => retry(() => openNext(source, database), retrying);
    posting = { limits, source, reader, session: await openSession(), openSession, emit };
    const { checkpoint: begun } = posting.session;
    emit({ fact: "claimed", table, checkpoint: begun });
    const plan = await commands.waitFor("plan");
    // Beside the posting: to count ten million rows takes the database 20 s.
    if (plan.full === null && begun.lastKey !== null) counter = await openReader(mysql, retrying);
    const counting = counter?.ask((db) => warnOfUnseenRows(db, begun, emit));
    counting?.catch(() => {}); // reported where it is awaited
    emit({ fact: "counted", table, total: await reader.ask((db) => estimateRows(db, source, plan, begun)) });
    const rows = await postRows(posting, plan, async () => {
      emit({ fact: "planned", table });
      await commands.waitFor("send");
    });
    step("posted", table);
    if (rows > 0) {
      const text = await retry(() => waitForStableOffset(kafka, table), retrying);
      if (text) emit({ fact: "warned", text });
    }
    await counting;
    emit({ fact: "done", table, result: { table, rows, lastKey: posting.session.checkpoint.lastKey } });
  } finally {
    reader.close();
    counter?.close();
    await posting?.session.producer.disconnect().catch(() => {});
    port.unref(); // else the thread waits for more commands; Deno has no close()
  }
}

/**
 * Sends what is left to post, batch by batch, and reads the next one meanwhile.
 *
 * @param planned is awaited once the plan stands in the checkpoint, before the first row is sent
 * @returns the number of rows
 */
async function postRows(posting: Posting, plan: Plan, planned: () => Promise<void>): Promise<number> {
  const { limits, source, reader, emit } = posting;
  const { table, mysql, kafka, waitMs } = limits.job;
  const greatest = source.keys?.greatest ?? null;
  let rows = 0;
  let size = pageRows;
  let ahead: Promise<Batch> | undefined;
  let troubleSince: number | undefined;
  let sending = false;
  for (let going = true; going; ) {
    limits.signal.throwIfAborted();
    try {
      const { session } = posting;
      if (plan.full !== null && session.checkpoint.full?.id !== plan.full) {
        const full = { id: plan.full, upTo: greatest, lastKey: null, rows: 0, done: false };
        session.checkpoint = await commit(session, { ...session.checkpoint, full }, limits);
      }
      if (!sending) await planned();
      sending = true;
      const { checkpoint, encoder } = session;
      const full = unfinished(checkpoint);
      const read = (after: string | null): Promise<Batch> => {
        const reading = readBatch(reader, source, { after, upTo: full ? full.upTo : greatest, size, encoder });
        reading.catch(() => {}); // reported where it is awaited
        return reading;
      };
      const batch: Batch = await (ahead ?? read((full ?? checkpoint).lastKey));
      size = nextPageSize(batch, size);
      ahead = batch.exhausted ? undefined : read(batch.lastKey);
      going = !batch.exhausted || full !== undefined;
      if (batch.rows === 0 && !full) continue;
      session.checkpoint = await commit(session, advance(checkpoint, batch), limits, batch.records);
      encoder.release(batch.records);
      rows += batch.rows;
      troubleSince = undefined;
      emit({ fact: "posted", table, rows: batch.rows });
    } catch (error) {
      limits.signal.throwIfAborted();
      // From the first error on: a program that was itself frozen has lost no time.
      troubleSince ??= Date.now();
      if (!isTransient(error) || Date.now() - troubleSince > waitMs) {
        throw explainKafka(explainMysql(error, mysql), kafka);
      }
      await ahead?.catch(() => {});
      ahead = undefined;
      going = true;
      await recover(posting, error);
    }
  }
  return rows;
}

/** After a transient error: a new connection to MySQL, or a new session that fences the one in doubt. */
async function recover(posting: Posting, error: unknown): Promise<void> {
  if (isTransientMysql(error)) return posting.reader.reconnect();
  void posting.session.producer.disconnect().catch(() => {});
  posting.session = await posting.openSession();
}

/** The main thread's commands, to be awaited one after the other. */
function receiveCommands(port: NonNullable<typeof parentPort>, stop: AbortController) {
  const { signal } = stop;
  const received = new Map<string, Command>();
  const waiting = new Map<string, (command: Command) => void>();
  port.on("message", (message: Command) => {
    if (message.command === "stop") return stop.abort();
    received.set(message.command, message);
    waiting.get(message.command)?.(message);
  });
  return {
    waitFor: <Name extends Command["command"]>(name: Name) =>
      new Promise<Extract<Command, { command: Name }>>((resolve, reject) => {
        const take = (command: Command) => resolve(command as Extract<Command, { command: Name }>);
        waiting.set(name, take);
        const early = received.get(name);
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
  /** Asks, and asks again while the server is away. */
  ask<T>(question: (db: Database) => Promise<T>): Promise<T>;
  reconnect(): Promise<void>;
  close(): void;
}

async function openReader(mysql: MysqlSettings, retrying: RetryOptions): Promise<TableReader> {
  const connectOnce = () => connectMysql(mysql, { waitMs: tryMs(retrying.waitMs) });
  const connect = () => retry(connectOnce, retrying);
  const reader: TableReader = {
    db: await connect(),
    ask: (question) =>
      retry(async () => {
        try {
          return await question(reader.db);
        } catch (error) {
          if (isTransientMysql(error)) {
            reader.close();
            reader.db = await connectOnce(); // once: a server that is away must not be waited for twice
          }
          throw explainMysql(error, mysql);
        }
      }, retrying),
    async reconnect() {
      reader.close();
      reader.db = await connect();
    },
    close: () => reader.db.destroy(),
  };
  return reader;
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
    const offsets = await sendAcknowledged(transaction, [{ topic, messages: first }]);
    step("sent", table);
    const { partition, length, lastKey } = first.at(-1) as RecordBatch;
    last = { partition, offset: (offsets.get(`${topic}/${partition}`) as number) + length - 1, key: lastKey };
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

async function warnOfUnseenRows(db: Database, checkpoint: Checkpoint, emit: (fact: PostFact) => void): Promise<void> {
  const { table, lastKey, rows } = checkpoint;
  if (lastKey === null) return;
  const there = await countRows(db, table, lastKey);
  if (there < rows) {
    const text = `"${tables[table].source}" has ${rows - there} rows less up to key ${lastKey} than were posted: what was deleted stays in the topic and in silver`;
    return emit({ fact: "warned", text });
  }
  if (there === rows) return;
  const text = `"${tables[table].source}" has ${there - rows} more rows up to key ${lastKey} than were posted: post sees only keys above the last one; post --full posts every row again`;
  emit({ fact: "warned", text });
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

const job = workerData as Job | null;
if (job?.kind === "post" && parentPort) void postTable(job, parentPort);
