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
import { setTimeout as sleep } from "node:timers/promises";
import { parentPort, Worker, workerData } from "node:worker_threads";
import type { Producer, Transaction } from "kafkajs";
import pLimit from "p-limit";
import {
  connectMysql,
  countRows,
  type Database,
  databaseId,
  explainMysql,
  inspectTable,
  isTransientMysql,
  type MysqlSettings,
  readPage,
  type SourceTable,
} from "./db_conn.ts";
import { patiently, rowToJson, type Table, tableNames, tables, UsageError } from "./io.ts";
import {
  checkpointPartition,
  checkpointTopic,
  connectReader,
  ensureTopics,
  explainKafka,
  fetchOnce,
  isTransientKafka,
  type KafkaReader,
  type KafkaSettings,
  kafkaClient,
  partitionOf,
  topicOf,
  topicRanges,
} from "./kafka.ts";

/** How far a table is posted. It stands in the checkpoint topic, committed together with the rows it counts. */
export interface Checkpoint {
  table: Table;
  database: string;
  /** Who posted last; `claim` rises with every start, so that two posters notice each other. */
  owner: { id: string; host: string; pid: number; started: string };
  claim: number;
  /** Greatest key posted, as decimal text, and how many rows were posted up to it. */
  lastKey: string | null;
  rows: number;
  /** The newest `--full` run: done, or to be finished by the next post. */
  full: { id: string; upTo: string; lastKey: string | null; rows: number; done: boolean } | null;
  /** Where the last row posted stands in the topic. */
  last: { partition: number; offset: number; key: string } | null;
}

/** What a posting thread tells, in the past tense. */
export type PostFact =
  | { fact: "ready"; table: Table; checkpoint: Checkpoint }
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

/** What a run is to do; sent to the threads once all checkpoints are known. */
type Plan = { plan: "new rows" } | { plan: "full"; id: string };

interface Job {
  kind: "post";
  table: Table;
  owner: Checkpoint["owner"];
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** What the topic takes. */
  maxMessageBytes: number;
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
  const onWait = (text: string) => onFact({ fact: "waited", table: "pin", text });
  const { warnings, maxMessageBytes } = await patiently(() => ensureTopics(kafka), {
    waitMs,
    signal,
    isTransient,
    onWait,
  });
  for (const text of warnings) onFact({ fact: "warned", table: "pin", text });
  const owner = { id: randomUUID(), host: hostname(), pid: process.pid, started: new Date().toISOString() };

  // A full run goes over all tables: which one is to be finished is known when every checkpoint has been read.
  const checkpoints = new Map<Table, Checkpoint>();
  let decide: (plan: Plan) => void = () => {};
  const plan = new Promise<Plan>((resolve) => {
    decide = resolve;
  });
  const onReady = (checkpoint: Checkpoint) => {
    checkpoints.set(checkpoint.table, checkpoint);
    if (checkpoints.size < tableNames.length) return;
    const broken = [...checkpoints.values()].find(({ full }) => full && !full.done)?.full;
    decide(broken ? { plan: "full", id: broken.id } : full ? { plan: "full", id: randomUUID() } : { plan: "new rows" });
  };

  const failed = new AbortController();
  const stop = AbortSignal.any([signal, failed.signal]);
  const limit = pLimit(tableNames.length);
  const results = await Promise.allSettled(
    tableNames.map((table) =>
      limit(async () => {
        try {
          const bytes = maxMessageBytes[table];
          const job: Job = { kind: "post", table, owner, mysql, kafka, maxMessageBytes: bytes, full, waitMs };
          return await runThread(job, { stop, plan, onReady, onFact });
        } catch (error) {
          failed.abort(error);
          throw error;
        }
      }),
    ),
  );
  signal.throwIfAborted();
  // The first failure made the others stop: it is the one to tell.
  if (failed.signal.aborted) throw failed.signal.reason;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

interface ThreadOptions {
  stop: AbortSignal;
  plan: Promise<Plan>;
  onReady: (checkpoint: Checkpoint) => void;
  onFact: (fact: PostFact) => void;
}

/** Runs one table's thread to its end; stopping it ends the thread, and the next run finds its transaction aborted. */
function runThread(job: Job, { stop, plan, onReady, onFact }: ThreadOptions): Promise<PostResult> {
  stop.throwIfAborted();
  // A thread of Node 20 does not inherit tsx's loader: it registers it and then imports this file.
  const register = JSON.stringify(import.meta.resolve("tsx/esm/api"));
  const code = `import(${register}).then(({ register }) => { register(); return import(${JSON.stringify(import.meta.url)}); })`;
  const worker = new Worker(code, { eval: true, workerData: job });
  return new Promise<PostResult>((resolve, reject) => {
    let result: PostResult | undefined;
    const onStop = () => {
      worker.postMessage("stop");
      // A thread that waits for a broker that is away has nothing to bring to an end.
      setTimeout(() => void worker.terminate(), 2_000).unref();
    };
    stop.addEventListener("abort", onStop, { once: true });
    worker.on("message", (message: PostFact) => {
      if (message.fact === "ready") {
        onReady(message.checkpoint);
        void plan.then((decided) => worker.postMessage(decided));
      }
      if (message.fact === "done") result = message.result;
      onFact(message);
    });
    worker.on("error", reject);
    worker.on("exit", (code) => {
      stop.removeEventListener("abort", onStop);
      if (result) resolve(result);
      else
        reject(stop.aborted ? stop.reason : new Error(`The thread that posts "${job.table}" ended with code ${code}`));
    });
  });
}

// ---- the thread's side ----

/** Rows in one transaction, about: fewer make commits count, more make a failed one costly. */
const transactionRows = 10_000;
/** Rows of a page at most; wide rows are read in smaller pages, so that one stays near `pageBytes`. */
const pageRows = 5_000;
const pageBytes = 4_000_000;
/** Bytes of one send at most; the topic's own limit may be lower. */
const sendBytes = 4_000_000;

/** A producer that owns its table's transactional id, and the checkpoint that it goes on from. */
interface Session {
  producer: Producer;
  checkpoint: Checkpoint;
  partitions: number;
}

/** Rows read for one transaction, ready to be sent. */
interface Batch {
  messages: { key: string; value: string; partition: number }[];
  lastKey: string | undefined;
  /** Nothing is left above `lastKey`. */
  exhausted: boolean;
}

async function postTable(job: Job, port: NonNullable<typeof parentPort>): Promise<void> {
  const { table, mysql, kafka, waitMs } = job;
  const stop = new AbortController();
  const { signal } = stop;
  const plan = new Promise<Plan>((resolve, reject) => {
    port.on("message", (message: "stop" | Plan) => (message === "stop" ? stop.abort() : resolve(message)));
    signal.addEventListener("abort", () => reject(signal.reason));
  });
  plan.catch(() => {}); // told where it is awaited
  const tell = (fact: PostFact) => port.postMessage(fact);
  const patience = { waitMs, signal, isTransient, onWait: (text: string) => tell({ fact: "waited", table, text }) };
  const opener = sessionOpener(job);

  let db = await patiently(() => connectMysql(mysql), patience);
  let open: Session | undefined;
  try {
    const source = await inspectTable(db, mysql.database, table);
    const database = await databaseId(db, mysql);
    let session = await patiently(() => opener(database), patience);
    open = session;
    tell({ fact: "ready", table, checkpoint: session.checkpoint });
    const decided = await plan;
    await warnOfUnseenRows(db, session.checkpoint, tell);
    if (decided.plan === "full" && session.checkpoint.full?.id !== decided.id && source.keys) {
      const full = { id: decided.id, upTo: source.keys.greatest, lastKey: null, rows: 0, done: false };
      session.checkpoint = { ...session.checkpoint, full };
    }
    tell({ fact: "counted", table, total: await estimateRows(db, source, session.checkpoint) });

    let rows = 0;
    let size = 500;
    let ahead: Promise<Batch> | undefined;
    let lastCommit = Date.now();
    for (let going = source.keys !== undefined; going; ) {
      signal.throwIfAborted();
      const current: Session = session;
      const read = (after: string | null): Promise<Batch> => {
        const upTo = unfinished(current.checkpoint)?.upTo ?? source.keys?.greatest ?? "0";
        const reading = readBatch(db, source, {
          after: after ?? undefined,
          upTo,
          size,
          partitions: current.partitions,
        });
        reading.catch(() => {}); // told where it is awaited
        return reading;
      };
      try {
        const { checkpoint } = current;
        const batch = await (ahead ?? read((unfinished(checkpoint) ?? checkpoint).lastKey));
        size = nextPageSize(batch, size);
        ahead = batch.exhausted ? undefined : read(batch.lastKey ?? null);
        going = !batch.exhausted || unfinished(checkpoint) !== undefined;
        if (batch.messages.length > 0 || going) {
          current.checkpoint = await commit(current, { job, batch, signal });
          rows += batch.messages.length;
          lastCommit = Date.now();
          tell({ fact: "posted", table, rows: batch.messages.length });
        }
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransient(error) || Date.now() - lastCommit > waitMs) {
          throw explainKafka(explainMysql(error, mysql), kafka);
        }
        ahead = undefined;
        going = true;
        if (isTransientMysql(error)) {
          db.destroy();
          db = await patiently(() => connectMysql(mysql), patience);
        } else {
          void current.producer.disconnect().catch(() => {});
          const { full } = current.checkpoint;
          session = await patiently(() => opener(database), patience);
          open = session;
          // A full run that was begun but not yet in any committed checkpoint is still this run's plan.
          if (full && session.checkpoint.full?.id !== full.id) session.checkpoint = { ...session.checkpoint, full };
        }
      }
    }
    if (rows > 0) await untilReadable(kafka, table);
    tell({ fact: "done", table, result: { table, rows, lastKey: session.checkpoint.lastKey } });
  } finally {
    db.destroy();
    await open?.producer.disconnect().catch(() => {});
    port.close();
  }
}

/**
 * Waits until the last rows are readable: a commit is answered before its mark stands in the topic, and who cleans right
 * after posting wants all rows. Another program's open transaction may hold them back for longer; that is no error.
 */
async function untilReadable(kafka: KafkaSettings, table: Table): Promise<void> {
  await using reader = await connectReader(kafka);
  for (let tries = 0; tries < 100; tries++) {
    const ranges = (await topicRanges(reader, topicOf(kafka, table))) ?? [];
    if (ranges.every(({ stable, end }) => stable === end)) return;
    await sleep(20);
  }
}

const isTransient = (error: unknown): boolean => isTransientMysql(error) || isTransientKafka(error);

/** The full run that the checkpoint is in the middle of. */
const unfinished = ({ full }: Checkpoint) => (full && !full.done ? full : undefined);

const nextPageSize = ({ messages }: Batch, size: number): number => {
  const bytes = messages.reduce((sum, { value }) => sum + value.length, 0);
  if (messages.length === 0) return size;
  return Math.max(1, Math.min(pageRows, size * 10, Math.floor((pageBytes * messages.length) / bytes)));
};

/** Reads the rows of one transaction: pages until there are enough rows or bytes. */
async function readBatch(
  db: Database,
  source: SourceTable,
  options: { after: string | undefined; upTo: string; size: number; partitions: number },
): Promise<Batch> {
  const { upTo, size, partitions } = options;
  const keyColumn = source.columns.findIndex(({ name }) => name === tables[source.table].key);
  const messages: Batch["messages"] = [];
  let { after } = options;
  let bytes = 0;
  for (;;) {
    const limit = Math.min(size, transactionRows - messages.length);
    const page = await readPage(db, source, { after, upTo, limit });
    for (const row of page) {
      const key = row[keyColumn] as string;
      const value = rowToJson(source.columns, row);
      bytes += value.length;
      messages.push({ key, value, partition: partitionOf(key, partitions) });
    }
    after = messages.at(-1)?.key ?? after;
    const exhausted = page.length < limit;
    if (exhausted || messages.length >= transactionRows || bytes >= 2 * pageBytes) {
      return { messages, lastKey: after, exhausted };
    }
  }
}

/**
 * Sends a batch and the checkpoint after it in one transaction.
 *
 * @returns the checkpoint as committed
 * @throws whatever left the outcome in doubt: the session must then be thrown away
 */
async function commit(
  session: Session,
  { job, batch, signal }: { job: Job; batch: Batch; signal: AbortSignal },
): Promise<Checkpoint> {
  const { table, kafka, maxMessageBytes } = job;
  const topic = topicOf(kafka, table);
  const transaction = await session.producer.transaction();
  const limit = Math.min(sendBytes, maxMessageBytes);
  let last = session.checkpoint.last;
  for (let at = 0; at < batch.messages.length; ) {
    const chunk = [];
    for (let bytes = 100; at < batch.messages.length; at++) {
      const message = batch.messages[at] as Batch["messages"][number];
      // A character is at most three bytes, and a record's head at most 40.
      const size =
        message.value.length * 3 < limit / 1000 ? message.value.length * 3 : Buffer.byteLength(message.value);
      bytes += size + message.key.length + 40;
      if (bytes > limit && chunk.length > 0) break;
      if (bytes > maxMessageBytes) {
        throw new Error(
          `Cannot post the row ${tables[table].key} = ${message.key} of "${tables[table].source}": its message of ${size} bytes is larger than max.message.bytes of topic "${topic}", ${maxMessageBytes}; raise that or shorten the row`,
        );
      }
      chunk.push(message);
    }
    if (signal.aborted) {
      // Left open, it would hold back the readers of the topic until it times out.
      await transaction.abort();
      throw signal.reason;
    }
    const placed = await send(transaction, topic, chunk);
    const { key, partition } = chunk.at(-1) as Batch["messages"][number];
    const before = chunk.filter((message) => message.partition === partition).length;
    last = { partition, offset: (placed.get(partition) as number) + before - 1, key };
  }
  const checkpoint = advance(session.checkpoint, batch, last);
  await sendCheckpoint(transaction, kafka, checkpoint);
  await transaction.commit();
  return checkpoint;
}

function advance(checkpoint: Checkpoint, batch: Batch, last: Checkpoint["last"]): Checkpoint {
  const full = unfinished(checkpoint);
  const posted = batch.messages.length;
  if (!full) {
    return { ...checkpoint, lastKey: batch.lastKey ?? null, rows: checkpoint.rows + posted, last };
  }
  const next = { ...full, lastKey: batch.lastKey ?? null, rows: full.rows + posted, done: batch.exhausted };
  // A finished full run has seen every row: new ones count from its end.
  const seen = next.done ? { lastKey: next.upTo, rows: next.rows } : {};
  return { ...checkpoint, ...seen, full: next, last };
}

/** An error that may be gone at the next try, in kafkajs' own way. */
const retriable = (message: string): Error => Object.assign(new Error(message), { retriable: true });

/** Sends, and makes sure that every partition has acknowledged: kafkajs forgets those whose leader moved meanwhile. */
async function send(
  transaction: Transaction,
  topic: string,
  messages: { key: string; value: string; partition: number }[],
): Promise<Map<number, number>> {
  const metadata = await transaction.send({ topic, messages });
  const placed = new Map(metadata.map(({ partition, baseOffset }) => [partition, Number(baseOffset)]));
  const missing = messages.find(({ partition }) => !placed.has(partition));
  if (missing) throw retriable(`Partition ${missing.partition} of topic "${topic}" did not acknowledge`);
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
 * Being fenced says only that somebody began to post, or that the own transaction timed out. So the claim decides:
 * where it is neither the own one nor that which stood there first, another post is running, and this one ends.
 */
function sessionOpener(job: Job): (database: string) => Promise<Session> {
  const { table, kafka, owner } = job;
  let firstSeen: number | undefined;
  const check = (checkpoint: Checkpoint | undefined) => {
    firstSeen ??= checkpoint?.claim ?? 0;
    if (!checkpoint || checkpoint.owner.id === owner.id || checkpoint.claim === firstSeen) return;
    const { host, pid, started } = checkpoint.owner;
    throw new Error(
      `Another post of "${table}" is running: process ${pid} on ${host}, since ${started}; let it finish, or stop it first`,
    );
  };
  return async (database) => {
    await using reader = await connectReader(kafka);
    check(await readCheckpoint(reader, kafka, table));
    const producer = kafkaClient(kafka).producer({
      transactionalId: `${kafka.prefix}.post.${table}`,
      idempotent: true,
      maxInFlightRequests: 1,
      allowAutoTopicCreation: false,
      createPartitioner:
        () =>
        ({ message }) =>
          message.partition as number,
    });
    try {
      await producer.connect();
      // Only this fences: connecting does not.
      await (await producer.transaction()).abort();
      const checkpoint = await readCheckpoint(reader, kafka, table, { complete: true });
      check(checkpoint);
      if (checkpoint && checkpoint.database !== database) {
        throw new UsageError(
          `Topic "${topicOf(kafka, table)}" holds the rows of database "${checkpoint.database}", not of "${database}": choose another prefix by --prefix or KAFKA.PREFIX`,
        );
      }
      const partitions = (await topicRanges(reader, topicOf(kafka, table)))?.length;
      if (!partitions) throw retriable(`Topic "${topicOf(kafka, table)}" is not known to the broker yet`);
      const inTopic = !checkpoint?.last || (await holdsLast(reader, topicOf(kafka, table), checkpoint.last));
      if (!inTopic && !job.full) throw new Error(topicGone(topicOf(kafka, table), checkpoint.last as Last));
      const fresh = { table, database, lastKey: null, rows: 0, full: null, last: null };
      const claim = (checkpoint?.claim ?? 0) + 1;
      const claimed = { ...fresh, ...(inTopic ? checkpoint : undefined), owner, claim };
      const transaction = await producer.transaction();
      await sendCheckpoint(transaction, kafka, claimed);
      await transaction.commit();
      return { producer, checkpoint: claimed, partitions };
    } catch (error) {
      void producer.disconnect().catch(() => {});
      throw error;
    }
  };
}

/**
 * Reads a table's newest committed checkpoint.
 *
 * @param options.complete waits until no transaction is open in its partition, so that nothing newer can appear
 */
export async function readCheckpoint(
  reader: KafkaReader,
  kafka: KafkaSettings,
  table: Table,
  { complete = false }: { complete?: boolean } = {},
): Promise<Checkpoint | undefined> {
  const topic = checkpointTopic(kafka);
  const partition = checkpointPartition(table);
  const deadline = Date.now() + 20_000;
  for (;;) {
    const range = (await topicRanges(reader, topic))?.find((r) => r.partition === partition);
    if (!range && !complete) return undefined;
    // It has been made: a broker that does not know of it yet must not have every row posted again.
    if (!range) throw retriable(`Topic "${topic}" is not known to the broker yet`);
    if (complete && range.stable < range.end) {
      if (Date.now() > deadline) {
        throw retriable(`A transaction in topic "${topic}" stays open`);
      }
      await sleep(20);
      continue;
    }
    let newest: string | undefined;
    const positions = new Map([[partition, range.start]]);
    const until = new Map([[partition, range.stable]]);
    while ((positions.get(partition) as number) < range.stable) {
      await fetchOnce(reader, {
        topic,
        positions,
        until,
        onRecord: (_partition, _offset, _time, key, value) => {
          if (key?.toString() === table && value) newest = value.toString();
        },
      });
    }
    return newest === undefined ? undefined : (JSON.parse(newest) as Checkpoint);
  }
}

type Last = NonNullable<Checkpoint["last"]>;

/** Whether the last row posted is still where it was; not so in a topic that was deleted and made again. */
async function holdsLast(reader: KafkaReader, topic: string, { partition, offset, key }: Last): Promise<boolean> {
  const range = (await topicRanges(reader, topic))?.find((r) => r.partition === partition);
  if (!range || offset >= range.end) return false;
  if (offset < range.start) return true; // expired by retention: nothing to compare with
  let found = false;
  const onRecord = (_partition: number, at: number, _time: number, recordKey: Buffer | null) => {
    if (at === offset) found = recordKey?.toString() === key;
  };
  const positions = new Map([[partition, offset]]);
  await fetchOnce(reader, { topic, positions, until: new Map([[partition, offset + 1]]), onRecord, maxBytes: 1 });
  return found;
}

const topicGone = (topic: string, { partition, offset, key }: Last): string =>
  `Topic "${topic}" no longer holds the last row posted (key ${key} at offset ${offset} of partition ${partition}): it was deleted or made again; run post --full to post every row again`;

async function warnOfUnseenRows(db: Database, checkpoint: Checkpoint, tell: (fact: PostFact) => void): Promise<void> {
  const { table, lastKey, rows } = checkpoint;
  if (lastKey === null) return;
  const there = await countRows(db, table, lastKey);
  if (there <= rows) return;
  const text = `"${tables[table].source}" has ${there - rows} more rows up to key ${lastKey} than were posted: post sees only keys above the last one; post --full posts every row again`;
  tell({ fact: "warned", table, text });
}

/** Rows to post, for the progress display: exact where keys have no gaps, else about right. */
async function estimateRows(db: Database, source: SourceTable, checkpoint: Checkpoint): Promise<number> {
  if (!source.keys) return 0;
  const { least, greatest } = source.keys;
  const after = (unfinished(checkpoint) ?? checkpoint).lastKey;
  const span = Number(BigInt(greatest) - (after === null ? BigInt(least) - 1n : BigInt(after)));
  const [rows] = await db.query({
    sql: "SELECT table_rows FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name = ?",
    values: [tables[source.table].source],
    rowsAsArray: true,
  });
  const guess = Number((rows as unknown as string[][])[0]?.[0] ?? 0);
  return Math.max(0, span <= 2 * guess + 100_000 ? span : guess);
}

const job = workerData as Job | null;
if (job?.kind === "post" && parentPort) await postTable(job, parentPort);
