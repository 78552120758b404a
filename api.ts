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
import { Worker } from "node:worker_threads";
import pLimit from "p-limit";
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
import { threadCode } from "./runtime/threads.ts";

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
  const onWait = (text: string) => onFact({ fact: "waited", text });
  const owner = { id: randomUUID(), host: hostname(), pid: process.pid, started: new Date().toISOString() };

  // The threads go on together: whoever claims the first table posts them all; a full run goes over all tables, and
  // stands in every checkpoint before any of its rows is sent, so that whatever dies it is finished for all.
  const checkpoints = new Map<Table, Checkpoint>();
  const planned = new Set<Table>();
  let claim: Command | undefined;
  const workers = new Map<Table, Worker>();
  const command = (message: Command, to = tableNames) => {
    for (const table of to) workers.get(table)?.postMessage(message);
  };
  const coordinate = (fact: PostFact) => {
    if (fact.fact === "claimed") {
      checkpoints.set(fact.table, fact.checkpoint);
      if (claim && fact.table === leader) command(claim, followers);
      if (checkpoints.size < tableNames.length) return;
      const broken = [...checkpoints.values()].find(({ full }) => full && !full.done)?.full;
      if (broken) {
        onFact({
          fact: "waited",
          text: "A full run was broken off: it is finished first, not begun again",
        });
      }
      command({ command: "plan", full: broken?.id ?? (full ? randomUUID() : null) });
    }
    if (fact.fact === "planned" && planned.add(fact.table).size === tableNames.length) command({ command: "send" });
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
    const { warnings, maxMessageBytes } = await retry(() => ensureTopics(kafka), patience);
    for (const text of warnings) onFact({ fact: "warned", text });
    claim = { command: "claim", maxMessageBytes };
    command(claim, [leader]);
  });
  preparing.catch(() => {}); // told below
  const code = await threadCode(new URL("./api/table_thread.ts", import.meta.url).href);
  const limit = pLimit(tableNames.length);
  const work = (table: Table) =>
    orStopAll(() => {
      const job: Job = { kind: "post", table, owner, mysql, kafka, full, waitMs };
      // What is read from sockets is let go of sooner where the young generation is small: 60 MB less in all.
      const resourceLimits = { maxYoungGenerationSizeMb: 2 };
      const worker = new Worker(code, { eval: true, workerData: job, resourceLimits });
      workers.set(table, worker);
      if (claim && table === leader) command(claim, [leader]);
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

/** Follows one table's thread to its end; stopping it ends the thread, and the next run finds its transaction aborted. */
function runThread(
  worker: Worker,
  { table, stop, onFact }: { table: Table; stop: AbortSignal; onFact: (fact: PostFact) => void },
): Promise<PostResult> {
  return new Promise<PostResult>((resolve, reject) => {
    let result: PostResult | undefined;
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
    worker.on("error", reject);
    worker.on("exit", (code) => {
      stop.removeEventListener("abort", onStop);
      if (result) resolve(result);
      else reject(stop.aborted ? stop.reason : new Error(`The thread that posts "${table}" ended with code ${code}`));
    });
  });
}
