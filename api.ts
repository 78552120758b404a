/**
 * Posting to the topics: one worker thread per table, exactly once.
 *
 * Rows and the checkpoint that says how far they go are committed in one Kafka transaction. After any doubt the
 * producer is thrown away, a new one with the same transactional id fences the old and ends its transaction, and the
 * checkpoint says where to go on; so a row is in the topic once, whatever died.
 *
 * Both sides of a thread stand in this file: `post` starts the threads, `postTable` runs in each.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import { parentPort, Worker, workerData } from "node:worker_threads";
import type { Message as KafkaMessage, Producer, Transaction } from "kafkajs";
import pLimit from "p-limit";
import {
  connectMysql,
  countRows,
  type Database,
  databaseId,
  explainMysql,
  guessRows,
  inspectTable,
  isTransientMysql,
  type MysqlSettings,
  readPage,
  type SourceTable,
  tryMs,
} from "./db_conn.ts";
import { keyBytes, type RecordBatch, type RecordView } from "./io/record_batch.ts";
import { type RowEncoder, rowEncoder } from "./io/row_encoder.ts";
import { type Table, tableNames, tables } from "./io.ts";
import { type Checkpoint, checkDatabase, type Last, readCheckpoint } from "./kafka/checkpoint.ts";
import { connectReader, type KafkaReader, openProducer } from "./kafka/client.ts";
import { explainKafka, isTransientKafka, retriable, unacknowledged } from "./kafka/errors.ts";
import { readRecord } from "./kafka/fetch.ts";
import { checkpointPartition, checkpointTopic, type KafkaSettings, topicOf } from "./kafka/settings.ts";
import { topicIds } from "./kafka/topic_ids.ts";
import { ensureTopics, partitionOf, topicRanges, untilReadable } from "./kafka/topics.ts";
import { patiently } from "./runtime/retry.ts";
import { step } from "./runtime/steps.ts";
import { threadCode } from "./runtime/threads.ts";

/** What a posting thread tells, in the past tense. */
export type PostFact =
  | { fact: "claimed"; table: Table; checkpoint: Checkpoint }
  | { fact: "planned"; table: Table }
  | { fact: "counted"; table: Table; total: number }
  | { fact: "warned"; table: Table; text: string }
  | { fact: "waited"; table: Table; text: string }
  | { fact: "posted"; table: Table; rows: number }
  | { fact: "done"; table: Table; result: PostResult };

/** What became of one table. */
export interface PostResult {
  table: Table;
  /** Rows posted by this run. */
  rows: number;
  lastKey: string | null;
}

/** What a run is to do; known once all checkpoints are. */
type Plan = { full: string | null };

/** What a thread waits for: to claim its table, to learn the plan, to send rows. */
type Order =
  | { order: "claim"; maxMessageBytes: Record<Table, number> }
  | ({ order: "plan" } & Plan)
  | { order: "send" }
  | { order: "stop" };

interface Job {
  kind: "post";
  table: Table;
  owner: Checkpoint["owner"];
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** A full run was asked for: it needs no earlier row in the topic. */
  full: boolean;
  waitMs: number;
}

/** Settings of {@link post}. */
export interface PostOptions {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** Post every row again, or finish the full run that was broken off. Default false. */
  full?: boolean;
  /** How long a database or broker may be away, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: PostFact) => void;
}

/**
 * Posts the rows of the three tables that are new since the last run, each table by its own thread.
 *
 * It sees no row that was changed, deleted, or inserted below the last key posted.
 *
 * @throws `UsageError` where a table can't be posted or the checkpoint belongs to another database; `Error` where
 * another post is running, or a service stayed away longer than `waitMs`
 */
export async function post(options: PostOptions): Promise<PostResult[]> {
  const { mysql, kafka, full = false, waitMs, signal, onFact } = options;
  const onWait = (text: string) => onFact({ fact: "waited", table: leader, text });
  const owner = { id: randomUUID(), host: hostname(), pid: process.pid, started: new Date().toISOString() };

  // The threads go on together: whoever claims the first table posts them all; a full run goes over all tables, and
  // stands in every checkpoint before any of its rows is sent, so that whatever dies it is finished for all.
  const checkpoints = new Map<Table, Checkpoint>();
  const planned = new Set<Table>();
  let claim: Order | undefined;
  const workers = new Map<Table, Worker>();
  const order = (message: Order, to = tableNames) => {
    for (const table of to) workers.get(table)?.postMessage(message);
  };
  const coordinate = (fact: PostFact) => {
    if (fact.fact === "claimed") {
      checkpoints.set(fact.table, fact.checkpoint);
      if (claim && fact.table === leader) order(claim, followers);
      if (checkpoints.size < tableNames.length) return;
      const broken = [...checkpoints.values()].find(({ full }) => full && !full.done)?.full;
      if (broken) {
        onFact({
          fact: "waited",
          table: leader,
          text: "A full run was broken off: it is finished first, not begun again",
        });
      }
      order({ order: "plan", full: broken?.id ?? (full ? randomUUID() : null) });
    }
    if (fact.fact === "planned" && planned.add(fact.table).size === tableNames.length) order({ order: "send" });
  };

  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const orStopAll = async <T>(work: () => Promise<T>): Promise<T> => {
    try {
      return await work();
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  };
  // Topics are made while the threads start, connect and look at their tables.
  const preparing = orStopAll(async () => {
    const patience = { waitMs, signal: stop, isTransient, onWait };
    const { warnings, maxMessageBytes } = await patiently(() => ensureTopics(kafka), patience);
    for (const text of warnings) onFact({ fact: "warned", table: leader, text });
    claim = { order: "claim", maxMessageBytes };
    order(claim, [leader]);
  });
  preparing.catch(() => {}); // told below
  const code = await threadCode(import.meta.url);
  const limit = pLimit(tableNames.length);
  const work = (table: Table) =>
    orStopAll(() => {
      const job: Job = { kind: "post", table, owner, mysql, kafka, full, waitMs };
      // What is read from sockets is let go of sooner where the young generation is small: 60 MB less in all.
      const resourceLimits = { maxYoungGenerationSizeMb: 2 };
      const worker = new Worker(code, { eval: true, workerData: job, resourceLimits });
      workers.set(table, worker);
      if (claim && table === leader) order(claim, [leader]);
      return runThread(worker, {
        table,
        stop,
        onFact: (fact) => {
          coordinate(fact);
          onFact(fact);
        },
      });
    });
  const results = await Promise.allSettled(tableNames.map((table) => limit(work, table)));
  await preparing.catch(() => {});
  signal.throwIfAborted();
  // The first failure made the others stop: it is the one to tell.
  if (failed.signal.aborted) throw failed.signal.reason;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

/** The table whose checkpoint decides who posts; the others are claimed after it. */
const leader: Table = "pin";
const followers = tableNames.filter((table) => table !== leader);

/** Follows one table's thread to its end; stopping it ends the thread, and the next run finds its transaction aborted. */
function runThread(
  worker: Worker,
  { table, stop, onFact }: { table: Table; stop: AbortSignal; onFact: (fact: PostFact) => void },
): Promise<PostResult> {
  return new Promise<PostResult>((resolve, reject) => {
    let result: PostResult | undefined;
    const onStop = () => {
      worker.postMessage({ order: "stop" } satisfies Order);
      // A thread that waits for a broker that is away has nothing to bring to an end.
      setTimeout(() => void worker.terminate(), 2_000).unref();
    };
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
    worker.on("message", (message: PostFact) => {
      if (message.fact === "done") result = message.result;
      onFact(message);
    });
    worker.on("error", reject);
    worker.on("exit", (code) => {
      stop.removeEventListener("abort", onStop);
      if (result) resolve(result);
      else reject(stop.aborted ? stop.reason : new Error(`The thread that posts "${table}" ended with code ${code}`));
    });
  });
}

// ---- the thread's side ----

/** Rows in one transaction, about: fewer make commits count, more make a failed one costly. */
const transactionRows = 10_000;
/** Rows of a page at most; wide rows are read in smaller pages, so that one stays near `pageBytes`. */
const pageRows = 5_000;
const pageBytes = 4_000_000;
const transactionBytes = 2 * pageBytes;
/** A page is cut off at this size, since nobody knows beforehand how wide its rows are. */
const maxPageBytes = 16_000_000;
/** Bytes of one send, about, shared by its partitions; the topic's own limit may be lower. */
const sendBytes = 4_000_000;
const leastBatchBytes = 256_000;

/** A producer that owns its table's transactional id, and the checkpoint that it goes on from. */
interface Session {
  producer: Producer;
  checkpoint: Checkpoint;
  encoder: RowEncoder;
}

/** What a thread keeps to: its job, what its topic takes, and when to stop. */
interface Limits {
  job: Job;
  maxMessageBytes: number;
  signal: AbortSignal;
}

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
  const connect = () => patiently(connectOnce, patience);
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
    patiently(async () => {
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
    session = await patiently(() => openNext(source, database), patience);
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
          session = await patiently(() => openNext(source, database), patience);
        }
      }
    }
    step("posted", table);
    if (rows > 0) {
      const text = await patiently(() => untilReadable(kafka, table), patience);
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

const isTransient = (error: unknown): boolean => isTransientMysql(error) || isTransientKafka(error);

/** The full run that the checkpoint is in the middle of. */
const unfinished = ({ full }: Checkpoint) => (full && !full.done ? full : undefined);

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

/** Sends, and makes sure that every partition has acknowledged. */
async function send(
  transaction: Transaction,
  topic: string,
  messages: (RecordBatch | { key: string; value: string; partition: number })[],
): Promise<Map<number, number>> {
  const metadata = await transaction.send({ topic, messages: messages as KafkaMessage[] });
  const placed = new Map(metadata.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]));
  const missing = messages.find(({ partition }) => !placed.has(partition));
  if (missing) throw unacknowledged(topic, missing.partition);
  return placed;
}

const sendCheckpoint = (transaction: Transaction, kafka: KafkaSettings, checkpoint: Checkpoint) =>
  send(transaction, checkpointTopic(kafka), [
    { key: checkpoint.table, value: JSON.stringify(checkpoint), partition: checkpointPartition(checkpoint.table) },
  ]);

/**
 * Opens sessions one after another for one thread: fences whoever held the transactional id, ends its transaction,
 * reads the checkpoint and claims it by a first transaction.
 *
 * Being fenced says only that somebody began to post, or that the own transaction timed out. So the claim of the
 * leading table decides: where it is neither the own one nor that which stood there first, another post is running,
 * and this one ends. The other tables belong to whoever holds that claim, so that of two posts one goes on with all.
 */
function sessionOpener(
  { job, maxMessageBytes }: Limits,
  tell: (fact: PostFact) => void,
): (source: SourceTable, database: string) => Promise<Session> {
  const { table, kafka, owner } = job;
  let firstSeen: number | undefined;
  let warned = false;
  const onStrange = (records: number) => {
    if (warned) return;
    warned = true;
    const text = `Topic "${checkpointTopic(kafka)}" holds ${records} records in partition ${checkpointPartition(table)} that are no checkpoints of "${table}": post skips them; find out who writes there`;
    tell({ fact: "warned", table, text });
  };
  const check = async (reader: KafkaReader, own: Checkpoint | undefined) => {
    const checkpoint = table === leader ? own : await readCheckpoint(reader, kafka, leader);
    firstSeen ??= table === leader ? (checkpoint?.claim ?? 0) : -1;
    if (!checkpoint || checkpoint.owner.id === owner.id || checkpoint.claim === firstSeen) return;
    const { host, pid, started } = checkpoint.owner;
    throw new Error(
      `Another post of "${table}" is running: process ${pid} on ${host}, since ${started}; let it finish, or stop it first`,
    );
  };
  const open = async (source: SourceTable, database: string): Promise<Session> => {
    await using reader = await connectReader(kafka);
    await check(reader, await readCheckpoint(reader, kafka, table));
    const producer = await openProducer(kafka, {
      transactionalId: `${kafka.prefix}.post.${table}`,
      createPartitioner: () => (args) => args.message.partition as number,
    });
    try {
      const checkpoint = await readCheckpoint(reader, kafka, table, { complete: true, onStrange });
      await check(reader, checkpoint);
      checkDatabase(kafka, checkpoint, database);
      const ranges = (await topicRanges(reader, topicOf(kafka, table))) ?? [];
      const partitions = ranges.length;
      if (!partitions) throw retriable(`Topic "${topicOf(kafka, table)}" is not known to the broker yet`);
      const topicId = (await topicIds(reader, [topicOf(kafka, table)])).get(topicOf(kafka, table));
      const madeAgain = topicId && checkpoint?.topicId && topicId !== checkpoint.topicId;
      const inTopic =
        !checkpoint?.last || (!madeAgain && (await holdsLast(reader, topicOf(kafka, table), checkpoint.last)));
      if (!inTopic && !job.full) throw new Error(topicGone(topicOf(kafka, table), checkpoint.last as Last));
      const fresh = { table, database, lastKey: null, rows: 0, full: null, last: null };
      const claim = (checkpoint?.claim ?? 0) + 1;
      if (!checkpoint && ranges.some(({ start, end }) => end > start)) {
        const text = `Topic "${topicOf(kafka, table)}" holds messages of others, such as emulate or serve, and none of post: every row is posted`;
        tell({ fact: "warned", table, text });
      }
      const claimed = { ...fresh, ...(inTopic ? checkpoint : undefined), owner, claim, ...(topicId && { topicId }) };
      const transaction = await producer.transaction();
      await sendCheckpoint(transaction, kafka, claimed);
      step("claiming", table);
      await transaction.commit();
      step("claimed", table);
      const maxBytes = Math.min(maxMessageBytes, Math.max(Math.floor(sendBytes / partitions), leastBatchBytes));
      const { columns, key } = source;
      const encoder = rowEncoder({ columns, key, partitions, partitionOf, maxBytes });
      return { producer, checkpoint: claimed, encoder };
    } catch (error) {
      void producer.disconnect().catch(() => {});
      throw error;
    }
  };
  return (source, database) =>
    open(source, database).catch((error: unknown) => {
      throw explainKafka(error, kafka);
    });
}

/** Whether the last row posted is still where it was; mostly not so in a topic that was deleted and made again. */
async function holdsLast(reader: KafkaReader, topic: string, { partition, offset, key }: Last): Promise<boolean> {
  const range = (await topicRanges(reader, topic))?.find((r) => r.partition === partition);
  if (!range || offset >= range.end) return false;
  if (offset < range.start) return true; // expired by retention: nothing to compare with
  const take = (record: RecordView) => keyBytes(record)?.toString() === key;
  return (await readRecord(reader, topic, { partition, offset, take })) ?? false;
}

const topicGone = (topic: string, { partition, offset, key }: Last): string =>
  `Topic "${topic}" no longer holds the last row posted (key ${key} at offset ${offset} of partition ${partition}): it was deleted or made again; run post --full to post every row again`;

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

const job = workerData as Job | null;
if (job?.kind === "post" && parentPort) void postTable(job, parentPort);
