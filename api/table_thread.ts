/**
 * The posting thread of a table: reads rounds, and commits records and checkpoint together.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { parentPort, workerData } from "node:worker_threads";
import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import { LogStopped, logTable } from "../db_conn/log.ts";
import { canFollow, hasPrepared } from "../db_conn/log_checks.ts";
import type { LogTable } from "../db_conn/log_rows.ts";
import type { Database } from "../db_conn/query.ts";
import { databaseId, guessRows, inspectTable, type SourceTable } from "../db_conn.ts";
import { comparePlaces } from "../io/log_place.ts";
import type { RecordBatch } from "../io/record_batch.ts";
import { count } from "../io/text.ts";
import { tables } from "../io.ts";
import type { Checkpoint } from "../kafka/checkpoint.ts";
import { explainKafka } from "../kafka/errors.ts";
import { checkpointTopic, topicOf } from "../kafka/settings.ts";
import { waitForStableOffset } from "../kafka/topics.ts";
import { retry } from "../runtime/retry.ts";
import { step } from "../runtime/steps.ts";
import { countMismatch, countMismatchInLog, unloggedChanges } from "./count_check.ts";
import { transactionRows } from "./pages.ts";
import { type Command, isTransient, type Job, type Plan, type PostFact, unfinished } from "./protocol.ts";
import { type Batch, openRounds, type Rounds, TableChanged } from "./rounds.ts";
import { type Limits, type Session, sendCheckpoint, sessionOpener } from "./session.ts";
import { goneKeys } from "./sweep.ts";
import { openReader, type TableReader } from "./table_reader.ts";

/** How often to poll for changes, ms, and after which idle time to poll less often. */
const poll = { everyMs: 100, idleMs: 60_000, idleEveryMs: 1_000 };
/** How often to commit a place if nothing has to be posted, ms, so that the server may delete the log before it. */
const placeEveryMs = 60_000;
/** Above every key. */
const greatestKey = String(2n ** 64n - 1n);

/** The state of posting. */
interface Posting {
  limits: Limits;
  source: SourceTable;
  /** The table's key as the log has it; `undefined` if the log is not followed. */
  logTable: LogTable | undefined;
  reader: TableReader;
  rounds: Rounds;
  session: Session;
  /** The next round, which is read while the last one is sent. */
  ahead: Promise<Batch> | undefined;
  /** Opens the next session, after an unknown outcome or an altered table. */
  openSession: (source: SourceTable) => Promise<Session>;
  emit: (fact: PostFact) => void;
  /** Rows and deletes posted by this run. */
  sent: { rows: number; deleted: number };
}

/** Posts one table: inspects it, opens a session, waits for the plan, sends rows, and waits until they are readable. */
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
    const source = await inspect(reader, job, emit);
    const database = await reader.ask((db) => databaseId(db, mysql));
    const place = await reader.ask((db) => placeInLog(db, job, emit));
    const guess = await reader.ask((db) => guessRows(db, source.table));
    const { maxMessageBytes } = await commands.waitFor("claim");
    const limits = { job, maxMessageBytes: maxMessageBytes[table], signal };
    const openNext = sessionOpener(limits, emit);
    const openSession = (of: SourceTable) => retry(() => openNext(of, database), retrying);
    const rounds = openRounds({ reader, mysql, source, logTable: place, signal });
    const session = await openSession(source);
    const sent = { rows: 0, deleted: 0 };
    posting = { limits, source, logTable: place, reader, rounds, session, ahead: undefined, openSession, emit, sent };
    const { checkpoint: begun } = session;
    emit({ fact: "claimed", table, checkpoint: begun });
    // The plan changes what is read only if a full run begins.
    if (!job.full) posting.ahead = readNext(posting);
    const plan = await commands.waitFor("plan");
    // Concurrently: counting ten million rows takes the database 20 s.
    if (plan.full === null && begun.lastKey !== null) counter = await openReader(mysql, retrying);
    const counting = counter && warnOfMismatch(posting, counter, begun);
    counting?.catch(() => {}); // reported where it is awaited
    emit({ fact: "counted", table, total: estimateRows(source, { guess, plan, begun }) });
    await postRows(posting, plan, async () => {
      emit({ fact: "planned", table });
      await commands.waitFor("send");
    });
    step("posted", table);
    if (sent.rows + sent.deleted > 0) {
      const text = await retry(() => waitForStableOffset(kafka, table), retrying);
      if (text) emit({ fact: "warned", text });
    }
    await counting;
    emit({ fact: "done", table, result: { table, ...sent, lastKey: posting.session.checkpoint.lastKey } });
  } finally {
    reader.close();
    counter?.close();
    await posting?.session.producer.disconnect().catch(() => {});
    port.unref(); // otherwise the thread waits for more commands; Deno has no close()
  }
}

async function inspect(reader: TableReader, { table, mysql }: Job, emit: Posting["emit"]): Promise<SourceTable> {
  const source = await reader.ask((db) => inspectTable(db, mysql.database, table));
  for (const text of source.warnings) emit({ fact: "warned", text });
  return source;
}

/** Describes the table's key in the log. Warns and returns `undefined` if the log cannot be followed. */
async function placeInLog(db: Database, { table, mysql }: Job, emit: Posting["emit"]): Promise<LogTable | undefined> {
  const why = await canFollow(db, table);
  if (why) {
    emit({ fact: "warned", text: `${why}; post sees only new rows with keys above the last one` });
    return undefined;
  }
  for (const text of await unloggedChanges(db, table)) emit({ fact: "warned", text });
  if (await hasPrepared(db)) emit({ fact: "warned", text: prepared });
  return await logTable(db, mysql.database, table);
}

const prepared =
  "XA transactions are prepared: post does not see their changes now, and may miss them later; end them, then run post --full";

/** Compares the earlier posted rows with the table, concurrently with posting. */
async function warnOfMismatch(
  { limits: { job, signal }, logTable: place, emit }: Posting,
  counter: TableReader,
  begun: Checkpoint,
): Promise<void> {
  const { table, mysql } = job;
  const text = await counter.ask((db) =>
    place && begun.log
      ? countMismatchInLog(db, table, { mysql, logTable: place, begun, signal })
      : countMismatch(db, table, begun),
  );
  if (text) emit({ fact: "warned", text });
  if (place && !begun.log) {
    const since = `"${tables[table].source}" is followed in the binary log of MySQL from now on: post --full posts earlier changes`;
    emit({ fact: "waited", text: since });
  }
}

/**
 * Sends what is left to post, round by round, and reads the next round meanwhile.
 *
 * @param planned is awaited when the plan is in the checkpoint, before the first row is sent
 */
async function postRows(posting: Posting, plan: Plan, planned: () => Promise<void>): Promise<void> {
  const { limits, emit } = posting;
  const { table, mysql, kafka, waitMs, follow } = limits.job;
  const dropAhead = async () => {
    await posting.ahead?.catch(() => {});
    posting.ahead = undefined;
  };
  let failingSince: number | undefined;
  let sending = false;
  for (let going = true; going; ) {
    limits.signal.throwIfAborted();
    try {
      const { session, source } = posting;
      if (plan.full !== null && session.checkpoint.full?.id !== plan.full) {
        await dropAhead();
        const upTo = source.keys?.greatest ?? null;
        const full = { id: plan.full, upTo, lastKey: null, rows: 0, done: false };
        session.checkpoint = await commit(session, { ...session.checkpoint, full }, limits);
      }
      const full = unfinished(session.checkpoint);
      const reading = posting.ahead ?? readNext(posting);
      if (!sending) await planned();
      sending = true;
      const batch: Batch = await reading;
      posting.ahead = batch.exhausted ? undefined : readNext(posting, batch.after);
      await send(posting, batch, { last: batch.exhausted && !follow });
      failingSince = undefined;
      if (!batch.exhausted) continue;
      if (full) await finishFull(posting);
      else going = follow && (await waitForChanges(posting));
    } catch (error) {
      limits.signal.throwIfAborted();
      await dropAhead();
      // Measured from the first error: time in which the program itself was frozen does not count.
      failingSince ??= Date.now();
      const restarted = error instanceof LogStopped && unfinished(posting.session.checkpoint);
      const isAltered = restarted || error instanceof TableChanged;
      if (!(isAltered || isTransient(error)) || Date.now() - failingSince > waitMs) {
        throw explainKafka(explainMysql(error, mysql), kafka);
      }
      if (isAltered) await inspectAgain(posting);
      else await recover(posting, error);
      if (restarted) {
        emit({ fact: "waited", text: `${(error as Error).message}: the full run of "${table}" begins again` });
        const again = { ...restarted, lastKey: null, rows: 0, log: null, piece: null };
        posting.session.checkpoint = { ...posting.session.checkpoint, full: again };
      }
    }
  }
}

/** Reads the next round: what comes after the checkpoint, or after another place. */
function readNext(
  { limits, source, session, rounds }: Posting,
  from: Batch["after"] = unfinished(session.checkpoint) ?? session.checkpoint,
): Promise<Batch> {
  const full = unfinished(session.checkpoint);
  const upTo = full ? full.upTo : limits.job.follow ? greatestKey : (source.keys?.greatest ?? null);
  const reading = rounds.read(from, { upTo, encoder: session.encoder });
  reading.catch(() => {}); // reported where it is awaited
  return reading;
}

/** Posts a batch. A new place without rows is committed only now and then, or with the `last` batch of a run. */
async function send(
  { limits, session, emit, sent }: Posting,
  batch: Batch,
  { last }: { last: boolean },
): Promise<void> {
  const { checkpoint, encoder, committed } = session;
  const { records, rows, deleted, after } = batch;
  const full = unfinished(checkpoint);
  const next = { ...checkpoint, ...(full ? { full: { ...full, ...after } } : after) };
  const isMoved = after.log && !(committed.log && comparePlaces(after.log, committed.log) === 0);
  const isDue = last || !committed.log || Date.now() - committed.at > placeEveryMs;
  if (rows === 0 && !(isMoved && isDue)) {
    session.checkpoint = next;
    return;
  }
  session.checkpoint = await commit(session, next, limits, records);
  encoder.release(records);
  if (rows === 0) return;
  sent.rows += rows - deleted;
  sent.deleted += deleted;
  emit({ fact: "posted", table: limits.job.table, rows: rows - deleted, deleted });
}

/** Ends a full run whose rows are all posted: posts the deletes of rows that the table no longer has. */
async function finishFull(posting: Posting): Promise<void> {
  const { limits, source, logTable, reader, session, emit, sent } = posting;
  const { job, signal } = limits;
  const { table, mysql, kafka } = job;
  const { encoder } = session;
  const { upTo: last = null, log = null } = unfinished(session.checkpoint) ?? {};
  const post = async (checkpoint: Checkpoint) => {
    const { deleted } = encoder;
    session.checkpoint = await commit(session, checkpoint, limits, encoder.take());
    sent.deleted += deleted;
    if (deleted > 0) emit({ fact: "posted", table, rows: 0, deleted });
  };
  encoder.take();
  step("sweeping", table);
  for (const key of await goneKeys({ reader, mysql, kafka, source, logTable, upTo: last, log, signal })) {
    encoder.remove(key);
    if (encoder.rows === transactionRows) await post(session.checkpoint);
  }
  const { checkpoint } = session;
  const { upTo, rows, ...full } = checkpoint.full as NonNullable<Checkpoint["full"]>;
  // A full run has seen every row, so new rows count from its end.
  const seen = { lastKey: upTo, rows, log: full.log ?? null, piece: null };
  await post({ ...checkpoint, ...seen, full: { ...full, upTo, rows, done: true } });
}

/** Waits until the log has something new; without a log, for a poll interval. Returns true. */
async function waitForChanges({ limits, session, rounds, emit }: Posting): Promise<boolean> {
  const { job, signal } = limits;
  emit({ fact: "upToDate", table: job.table });
  const since = Date.now();
  const { log } = session.checkpoint;
  do {
    const isIdle = !log || Date.now() - since > poll.idleMs;
    await sleep(isIdle ? poll.idleEveryMs : poll.everyMs, undefined, { signal });
  } while (log && !(await rounds.moved(log)));
  return true;
}

/** Inspects an altered table: its columns may have changed, and so may the position of its key in the log. */
async function inspectAgain(posting: Posting): Promise<void> {
  const { limits, reader, emit } = posting;
  const { job, signal } = limits;
  const { mysql } = job;
  const source = await inspect(reader, job, emit);
  const place = await reader.ask((db) => placeInLog(db, job, emit));
  void posting.session.producer.disconnect().catch(() => {});
  const session = await posting.openSession(source);
  Object.assign(posting, { source, logTable: place, session });
  posting.rounds = openRounds({ reader, mysql, source, logTable: place, signal });
}

/** Recovers from a transient error: opens a new connection to MySQL, or a new session that fences the previous one. */
async function recover(posting: Posting, error: unknown): Promise<void> {
  if (isTransientMysql(error)) return posting.reader.reconnect();
  void posting.session.producer.disconnect().catch(() => {});
  posting.session = await posting.openSession(posting.source);
}

/** Receives the commands of the main thread, which are awaited by name. */
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

/**
 * Sends records and the checkpoint after them in one transaction.
 *
 * @returns the committed checkpoint, with the offset of the last row sent
 * @throws if the outcome is unknown; the session must then be discarded
 */
async function commit(
  session: Session,
  checkpoint: Checkpoint,
  { job: { table, kafka }, maxMessageBytes, signal }: Limits,
  records: RecordBatch[] = [],
): Promise<Checkpoint> {
  const topic = topicOf(kafka, table);
  const transaction = await session.producer.begin();
  step("begun", table);
  let { last } = checkpoint;
  for (const { value, lastKey } of records) {
    if (value.length <= maxMessageBytes) continue;
    throw new Error(
      `Cannot post the row ${tables[table].key} = ${lastKey} of "${tables[table].source}": its message has ${count(value.length)} bytes, but max.message.bytes of topic "${topic}" is ${count(maxMessageBytes)}; raise that or shorten the row`,
    );
  }
  const checkpointPlace = { topic: checkpointTopic(kafka), partition: tables[table].checkpointPartition };
  await transaction.add([...records.map(({ partition }) => ({ topic, partition })), checkpointPlace]);
  for (let left = records; left.length > 0; ) {
    if (signal.aborted) {
      // An open transaction would block the readers of the topic until it times out.
      await transaction.abort();
      throw signal.reason;
    }
    const first = left.filter(({ partition }, i) => left.findIndex((other) => other.partition === partition) === i);
    step("sending", table);
    const offsets = await transaction.send(first.map((batch) => ({ topic, batch })));
    step("sent", table);
    const { partition, length, lastKey } = first.at(-1) as RecordBatch;
    last = { partition, offset: (offsets.at(-1) as number) + length - 1, key: lastKey };
    left = left.filter((batch) => !first.includes(batch));
  }
  const committed = { ...checkpoint, last };
  await sendCheckpoint(transaction, kafka, committed);
  step("committing", table);
  await transaction.commit();
  step("committed", table);
  session.committed = { log: (unfinished(committed) ?? committed).log ?? null, at: Date.now() };
  return committed;
}

/** The number of rows to post, for the progress display: exact if keys have no gaps, otherwise an estimate. */
function estimateRows(
  { keys }: SourceTable,
  { guess, plan, begun }: { guess: number; plan: Plan; begun: Checkpoint },
): number {
  if (!keys) return 0;
  const { least, greatest } = keys;
  const full = unfinished(begun);
  const after = full ? full.lastKey : plan.full && plan.full !== begun.full?.id ? null : begun.lastKey;
  const span = Number(BigInt(greatest) - (after === null ? BigInt(least) - 1n : BigInt(after)));
  return Math.max(0, span <= 2 * guess + 100_000 ? span : guess);
}

const job = workerData as Job | null;
if (job?.kind === "post" && parentPort) void postTable(job, parentPort);
