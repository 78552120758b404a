/**
 * The batch consumer: topics to bronze, silver and rejects, exactly once.
 *
 * Every step can be done again with the same result, so a crash anywhere is mended by starting again:
 * 1. land: what a batch takes from a partition is written aside, then renamed to a name that says which offsets it
 *    covers; landing goes on after the last name
 * 2. clean: the SQL of `sql/` turns the batch into rows and rejects
 * 3. publish silver: each block of keys that the batch touches is written anew beside the old one and renamed over
 *    it; it remembers up to which offsets it is applied, and skips what it already holds
 * 4. publish rejects: the newest rejects file, written last and in the same way, says that the batch is done
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { applyBatch, finishLanded, unapplied } from "./clean/batch.ts";
import { compactBronze } from "./clean/compact.ts";
import { type LandingThread, openLandingThread } from "./clean/land.ts";
import { writeCheckedLedger } from "./clean/publish.ts";
import { finishRebuild } from "./clean/rebuild.ts";
import { checkTopicIds, checkTopics } from "./clean/topics.ts";
import { allOf, type CleanOptions, type CleanResult, openWork, type Work } from "./clean/work.ts";
import { tableNames } from "./io.ts";
import { readCheckpoint } from "./kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "./kafka/client.ts";
import { explainKafka, isTransientKafka } from "./kafka/errors.ts";
import { type KafkaSettings, topicOf } from "./kafka/settings.ts";
import { listOffsets, showOffsets } from "./kafka/topics.ts";
import { landedOffsets } from "./lake/bronze.ts";
import { sqlHash } from "./lake/duckdb.ts";
import { explainDisk, type Offsets, paths } from "./lake/files.ts";
import { checkBinding, lockLake, readBinding, writeBinding } from "./lake/owner.ts";
import { UsageError } from "./runtime/errors.ts";
import { retry } from "./runtime/retry.ts";
import { step } from "./runtime/steps.ts";

/** Pause of `--follow` when there is nothing new, ms. */
const followPause = 300;

/**
 * Lands, cleans and publishes what is in the topics.
 *
 * @throws `UsageError` where the lake belongs to another cluster, prefix or database; `Error` where another clean is
 * running, messages were removed before they were read, a topic was made again, or the ledger does not add up
 */
export async function clean(options: CleanOptions): Promise<CleanResult> {
  const { kafka, lake, follow = false, waitMs, signal, onFact } = options;
  await using _lock = await lockLake(lake);
  await finishRebuild(lake);
  const patience = {
    waitMs,
    signal,
    isTransient: isTransientKafka,
    onWait: (text: string) => onFact({ fact: "waited", text }),
  };
  const work = await openWork(lake, { lake, signal, onFact });
  let connected: KafkaReader | undefined;
  let landing: LandingThread | undefined;
  try {
    let reader = await retry(() => connectReader(kafka), patience);
    connected = reader;
    let lander = await openLandingThread(options);
    landing = lander;
    await retry(() => bind(reader, work, options), patience);
    const result: CleanResult = { messages: 0, rejected: 0, ledger: [] };
    for (const table of tableNames) await finishLanded(work, table, result);
    await retry(() => checkTopics(reader, work, kafka), patience);
    for (let first = true; ; first = false) {
      try {
        const moved = await cleanOnce({ reader, lander, kafka }, work, { result, first });
        if (!follow) break;
        if (!moved) await sleep(followPause, undefined, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransientKafka(error)) throw error;
        await Promise.all([reader.close(), lander[Symbol.asyncDispose]()]);
        reader = await retry(() => connectReader(kafka), patience);
        connected = reader;
        lander = await openLandingThread(options);
        landing = lander;
        await retry(() => checkTopics(reader, work, kafka), patience);
      }
    }
    result.ledger = await writeCheckedLedger(work);
    step("ended", "clean");
    return result;
  } catch (error) {
    throw explainDisk(explainKafka(error, kafka), lake);
  } finally {
    await connected?.close();
    await landing?.[Symbol.asyncDispose]();
    work.close();
  }
}

async function bind(
  reader: KafkaReader,
  { bronze, silver }: Work,
  { kafka, lake, database, onFact }: CleanOptions,
): Promise<void> {
  const checkpoint = await readCheckpoint(reader, kafka, "pin");
  const wanted = {
    cluster: reader.clusterId,
    prefix: kafka.prefix,
    database: checkpoint?.database ?? database ?? null,
  };
  const sql = await sqlHash();
  const bound = await readBinding(lake);
  if (!bound) {
    const isEmpty = tableNames.every((table) => bronze[table].length === 0 && silver[table].size === 0);
    if (isEmpty) return writeBinding(lake, { ...wanted, sql });
    const { binding } = paths(lake);
    throw new UsageError(
      `The lake in "${lake}" holds rows, but "${binding}", which says which topics they came from, is missing: put it back from a backup, or, if they came from the topics in use now, write ${JSON.stringify({ ...wanted, sql: "" })} into it`,
    );
  }
  checkBinding(lake, bound, wanted);
  checkBinding(lake, bound, { database: database ?? null });
  if (bound.database === null && wanted.database !== null) await writeBinding(lake, { ...bound, ...wanted });
  if (bound.sql !== sql) {
    onFact({
      fact: "warned",
      text: "The cleaning SQL in sql/ was edited since silver was made: earlier rows keep the old rules; clean --rebuild makes all of silver again",
    });
  }
}

/** One round: up to what is committed now, table beside table. Returns whether anything was new. */
async function cleanOnce(
  { reader, lander, kafka }: { reader: KafkaReader; lander: LandingThread; kafka: KafkaSettings },
  work: Work,
  { result, first }: { result: CleanResult; first: boolean },
): Promise<boolean> {
  const { onFact } = work.options;
  const ids = await checkTopicIds(reader, work.lake, kafka);
  const moved = await allOf(
    tableNames.map(async (table) => {
      await finishLanded(work, table, result);
      const topic = topicOf(kafka, table);
      // One that was missing a moment ago has no id yet: the next round reads it.
      const ranges = (ids.has(topic) && (await listOffsets(reader, topic))) || [];
      if (first && ranges.length === 0)
        onFact({ fact: "warned", text: `There is no topic "${topic}" yet: run post first` });
      const until = new Map(ranges.map((range) => [range.partition, range.lastStable]));
      const landed = landedOffsets(work.bronze[table]);
      let positions: Offsets = new Map(ranges.map((r) => [r.partition, landed.get(r.partition) ?? r.logStart]));
      const total = ranges.reduce(
        (sum, r) => sum + Math.max(0, r.lastStable - (positions.get(r.partition) as number)),
        0,
      );
      if (first) {
        onFact({ fact: "counted", table, total });
        const waiting = ranges.reduce((sum, range) => sum + range.logEnd - range.lastStable, 0);
        if (waiting > 0) {
          const text = `${waiting} messages in topic "${topic}" wait behind a transaction that is still open: a later clean reads them`;
          onFact({ fact: "warned", text });
        }
      }
      if (total === 0) return false;
      const land = () => {
        const left = [...positions].some(([partition, next]) => next < (until.get(partition) as number));
        const landing = left
          ? lander.land({ table, topic, topicId: ids.get(topic) ?? null, positions, until })
          : undefined;
        landing?.catch(() => {}); // told where it is awaited
        return landing;
      };
      for (let ahead = land(); ahead; ) {
        const { files: landed, positions: next } = await ahead;
        positions = next;
        work.bronze[table].push(...landed);
        ahead = land();
        // What comes next may go on with the block of a partition's last file, which would be written twice then.
        const open = unapplied(work, table);
        const files = open.filter(
          (file, i) => !ahead || i === 0 || open.some((f, j) => j > i && f.partition === file.partition),
        );
        try {
          await applyBatch(work, table, { files, result });
        } catch (error) {
          await ahead?.catch(() => {});
          throw error;
        }
      }
      onFact({ fact: "done", table });
      // For people who look at Kafka's own tools: nothing here reads it.
      await showOffsets(reader, `${kafka.prefix}.clean`, topic, positions).catch(() => {});
      return true;
    }),
  );
  if (!moved.includes(true)) return false;
  await writeCheckedLedger(work);
  for (const table of tableNames) await compactBronze(work, table);
  return true;
}
