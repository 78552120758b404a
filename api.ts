/**
 * Posts tables to their topics: one worker thread per table, exactly once.
 *
 * Rows and their checkpoint are committed in one Kafka transaction. After an error with an unknown outcome, the producer
 * is discarded. A new one with the same transactional id fences it and aborts its transaction, and the checkpoint says
 * where to continue. So each row is in the topic once, whichever process died.
 *
 * `post` starts and coordinates the threads; each runs `postTable` of `api/table_thread.ts`.
 *
 * @module
 */

import { randomUUID } from "node:crypto";
import { hostname } from "node:os";
import type { Worker } from "node:worker_threads";
import {
  type Command,
  followers,
  isTransient,
  type Job,
  leader,
  type PostFact,
  type PostResult,
} from "./api/protocol.ts";
import type { MysqlSettings } from "./db_conn.ts";
import { type Table, tableNames } from "./io.ts";
import type { Checkpoint } from "./kafka/checkpoint.ts";
import type { KafkaSettings } from "./kafka/settings.ts";
import { ensureTopics } from "./kafka/topics.ts";
import { retry } from "./runtime/retry.ts";
import { threadOpener } from "./runtime/threads.ts";

/** Settings of {@link post}. */
interface PostOptions {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** Post every row again, or finish an interrupted full run. Default false. */
  full?: boolean;
  /** Run until stopped. Default false: post what is in the tables at the start. */
  follow?: boolean;
  /** How long a database or broker may be unavailable, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: PostFact) => void;
}

/**
 * Posts what was inserted, updated or deleted in the three tables since the last run, each table in a separate thread.
 *
 * If the binary log cannot be read, it sees only new rows with keys above the last one posted.
 *
 * @throws `UsageError` if a table cannot be posted or the checkpoint belongs to another database; `Error` if another
 * post is running, or a service is unavailable for longer than `waitMs`
 */
export async function post(options: PostOptions): Promise<PostResult[]> {
  const { mysql, kafka, full = false, follow = false, waitMs, signal, onFact } = options;
  const owner = { id: randomUUID(), host: hostname(), pid: process.pid, started: new Date().toISOString() };
  const shown = new Set<string>();
  const showOnce = (fact: PostFact) => {
    // All threads may send the same warning.
    if (fact.fact === "warned" && shown.has(fact.text)) return;
    if (fact.fact === "warned") shown.add(fact.text);
    onFact(fact);
  };
  const threads = coordinate({ full, onFact: showOnce });
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
  // Topics are created while the threads start, connect and inspect their tables.
  const preparing = orStopAll(async () => {
    const onWait = (text: string) => onFact({ fact: "waited", text });
    const { warnings, maxMessageBytes } = await retry(() => ensureTopics(kafka), {
      ...{ waitMs, signal: stop, isTransient, onWait },
    });
    for (const text of warnings) onFact({ fact: "warned", text });
    threads.claim(maxMessageBytes);
  });
  preparing.catch(() => {}); // reported below
  const openThread = await threadOpener("api/table_thread.ts");
  const work = (table: Table) =>
    orStopAll(() => {
      const job: Job = { kind: "post", table, owner, mysql, kafka, full, follow, waitMs };
      // A small young generation frees socket buffers sooner: saves 60 MB in total.
      const resourceLimits = { maxYoungGenerationSizeMb: 2 };
      const worker = openThread({ workerData: job, resourceLimits });
      threads.add(table, worker);
      return runThread(worker, { table, stop, onFact: threads.receive });
    });
  const results = await Promise.allSettled(tableNames.map(work));
  await preparing.catch(() => {});
  signal.throwIfAborted();
  // Report the first failure; the others only stopped because of it.
  if (failed.signal.aborted) throw failed.signal.reason;
  return results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
}

/**
 * Lets the threads proceed together. The run that claims the first table posts all tables. A full run is written to all
 * checkpoints before any of its rows is sent, so that it is finished for all tables, whatever dies.
 */
function coordinate({ full, onFact }: { full: boolean; onFact: PostOptions["onFact"] }) {
  const workers = new Map<Table, Worker>();
  const checkpoints = new Map<Table, Checkpoint>();
  const planned = new Set<Table>();
  let claim: Command | undefined;
  const command = (message: Command, to = tableNames) => {
    for (const table of to) workers.get(table)?.postMessage(message);
  };
  const plan = () => {
    const interrupted = [...checkpoints.values()].find(({ full }) => full && !full.done)?.full;
    const text = "A full run was interrupted: it is finished first, not begun again";
    if (interrupted) onFact({ fact: "waited", text });
    command({ command: "plan", full: interrupted?.id ?? (full ? randomUUID() : null) });
  };
  return {
    add(table: Table, worker: Worker): void {
      workers.set(table, worker);
      if (claim && table === leader) command(claim, [leader]);
    },
    /** Called when the topics exist. */
    claim(maxMessageBytes: Record<Table, number>): void {
      claim = { command: "claim", maxMessageBytes };
      command(claim, [leader]);
    },
    receive(fact: PostFact): void {
      if (fact.fact === "claimed") {
        checkpoints.set(fact.table, fact.checkpoint);
        if (claim && fact.table === leader) command(claim, followers);
        if (checkpoints.size === tableNames.length) plan();
      }
      if (fact.fact === "planned" && planned.add(fact.table).size === tableNames.length) command({ command: "send" });
      onFact(fact);
    },
  };
}

/** Runs one table's thread to its end. A stop ends the thread; the next run then aborts its transaction. */
function runThread(
  worker: Worker,
  { table, stop, onFact }: { table: Table; stop: AbortSignal; onFact: (fact: PostFact) => void },
): Promise<PostResult> {
  return new Promise<PostResult>((resolve, reject) => {
    let result: PostResult | undefined;
    let failure: Error | undefined;
    const onStop = () => {
      worker.postMessage({ command: "stop" } satisfies Command);
      // A thread that waits for an unavailable broker has nothing to finish.
      setTimeout(() => void worker.terminate(), 2_000).unref();
    };
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
    worker.on("message", (message: PostFact) => {
      if (message.fact === "done") result = message.result;
      onFact(message);
    });
    // Reported at the exit, because messages that the thread sent before the error may arrive after it.
    worker.on("error", (error: Error) => {
      failure = error;
    });
    worker.on("exit", (code) => {
      stop.removeEventListener("abort", onStop);
      if (failure) reject(failure);
      else if (result) resolve(result);
      else reject(stop.aborted ? stop.reason : new Error(`The thread that posts "${table}" ended with code ${code}`));
    });
  });
}
