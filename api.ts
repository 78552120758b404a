/**
 * Posts tables to their topics: one worker thread per table, exactly once.
 *
 * Rows and the checkpoint that says how far they go are committed in one Kafka transaction. After any doubt the
 * producer is thrown away, a new one with the same transactional id fences the old and ends its transaction, and the
 * checkpoint says where to go on; so a row is in the topic once, whatever died.
 *
 * `post` starts the threads and leads them; `postTable` of `api/table_thread.ts` runs in each.
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
  /** Post every row again, or finish the full run that was broken off. Default false. */
  full?: boolean;
  /** Go on until stopped. Default false: post what is there at the start. */
  follow?: boolean;
  /** How long a database or broker may be away, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: PostFact) => void;
}

/**
 * Posts what was inserted, updated or deleted in the three tables since the last run, each table by its own thread.
 *
 * Where the log of the database can't be read, it sees new rows with keys above the last one posted, and no others.
 *
 * @throws `UsageError` where a table can't be posted or the checkpoint belongs to another database; `Error` where
 * another post is running, or a service stayed away longer than `waitMs`
 */
export async function post(options: PostOptions): Promise<PostResult[]> {
  const { mysql, kafka, full = false, follow = false, waitMs, signal, onFact } = options;
  const owner = { id: randomUUID(), host: hostname(), pid: process.pid, started: new Date().toISOString() };
  const told = new Set<string>();
  const tellOnce = (fact: PostFact) => {
    // What all threads find is told once.
    if (fact.fact === "warned" && told.has(fact.text)) return;
    if (fact.fact === "warned") told.add(fact.text);
    onFact(fact);
  };
  const threads = coordinate({ full, onFact: tellOnce });
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
      // A small young generation frees socket buffers sooner: saves 60 MB in all.
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
 * Makes the threads go on together. Whoever claims the first table posts them all. A full run goes over all tables and
 * stands in every checkpoint before any of its rows is sent, so that it is finished for all, whatever dies.
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
    const broken = [...checkpoints.values()].find(({ full }) => full && !full.done)?.full;
    const text = "A full run was broken off: it is finished first, not begun again";
    if (broken) onFact({ fact: "waited", text });
    command({ command: "plan", full: broken?.id ?? (full ? randomUUID() : null) });
  };
  return {
    add(table: Table, worker: Worker): void {
      workers.set(table, worker);
      if (claim && table === leader) command(claim, [leader]);
    },
    /** The topics are there. */
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

/** Follows one table's thread to its end; stopping it ends the thread, and the next run finds its transaction aborted. */
function runThread(
  worker: Worker,
  { table, stop, onFact }: { table: Table; stop: AbortSignal; onFact: (fact: PostFact) => void },
): Promise<PostResult> {
  return new Promise<PostResult>((resolve, reject) => {
    let result: PostResult | undefined;
    let failure: Error | undefined;
    const onStop = () => {
      worker.postMessage({ command: "stop" } satisfies Command);
      // A thread that waits for a broker that is away has nothing to bring to an end.
      setTimeout(() => void worker.terminate(), 2_000).unref();
    };
    stop.addEventListener("abort", onStop, { once: true });
    if (stop.aborted) onStop();
    worker.on("message", (message: PostFact) => {
      if (message.fact === "done") result = message.result;
      onFact(message);
    });
    // Reported at the exit: what the thread has told before it failed may come after the error.
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
