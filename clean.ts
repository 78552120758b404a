/**
 * The batch consumer: topics to bronze, silver, deletes and rejects, exactly once.
 *
 * Each step is idempotent, so running clean again recovers from a crash anywhere:
 * 1. land: the messages of a partition go to a temporary file, which is then renamed. The name says which offsets the
 *    file covers; landing resumes after the last name
 * 2. clean: the SQL of `sql/` turns the batch into rows, deletes and rejects
 * 3. publish silver: each key block that the batch touches is rewritten to a temporary file and renamed over the old
 *    one. Its footer says up to which offsets it is applied, and offsets below those are skipped. The deletes of the
 *    block follow immediately
 * 4. publish rejects: the newest rejects file is written last and marks the batch as done
 *
 * @module
 */

import { applyBatch, finishLanded, unapplied } from "./clean/batch.ts";
import { compactBronze } from "./clean/compact.ts";
import { type LandingThread, openLandingThread } from "./clean/land.ts";
import { writeCheckedLedger } from "./clean/publish.ts";
import { finishRebuild } from "./clean/rebuild.ts";
import { type Round, rest } from "./clean/rest.ts";
import { type CleanOptions, type CleanResult, type CleanRun, openRun, type TableRun } from "./clean/run.ts";
import { checkTopicIds, checkTopics } from "./clean/topics.ts";
import { some } from "./io/text.ts";
import { readCheckpoints } from "./kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "./kafka/client.ts";
import { explainKafka, isTransientKafka } from "./kafka/errors.ts";
import { unread } from "./kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "./kafka/settings.ts";
import { listOffsets, type PartitionOffsets, showOffsets } from "./kafka/topics.ts";
import { landedOffsets } from "./lake/bronze.ts";
import { explainDisk, type Offsets, paths } from "./lake/files.ts";
import { checkIdentity, lockLake, readIdentity, writeIdentity } from "./lake/owner.ts";
import { sqlHash } from "./lake/sql_files.ts";
import { UsageError } from "./runtime/errors.ts";
import { allOf, type RetryOptions, retry } from "./runtime/retry.ts";
import { step } from "./runtime/steps.ts";

/**
 * Lands, cleans and publishes the messages of the topics.
 *
 * @throws `UsageError` if the lake belongs to another cluster, prefix or database; `Error` if another clean is running,
 * messages expired before they were read, a topic was recreated, or the ledger is not balanced
 */
export async function clean(options: CleanOptions): Promise<CleanResult> {
  const { kafka, lake, follow = false, waitMs, signal, onFact } = options;
  await using _lock = await lockLake(lake);
  await finishRebuild(lake);
  const retrying: RetryOptions = {
    ...{ waitMs, signal, isTransient: isTransientKafka },
    onWait: (text) => onFact({ fact: "waited", text }),
  };
  // It starts and connects while DuckDB opens.
  await using thread = await openLandingThread(options);
  const run = await openRun(lake, { lake, signal, onFact });
  let source: Source | undefined;
  try {
    source = await retry(() => openSource(options, thread), retrying);
    const { reader } = source;
    await retry(() => bind(reader, run, options), retrying);
    for (const at of run.tables) await finishLanded(at);
    await retry(() => checkTopics(reader, run, kafka), retrying);
    for (let first = true; ; first = false) {
      try {
        const round = await cleanOnce(source, run, { first });
        if (!follow) break;
        await rest(round, signal);
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransientKafka(error)) throw error;
        await source[Symbol.asyncDispose]();
        const again = await retry(() => openSource(options), retrying);
        source = again;
        await retry(() => checkTopics(again.reader, run, kafka), retrying);
      }
    }
    const ledger = await writeCheckedLedger(run);
    step("ended", "clean");
    return { ...run.cleaned, ledger };
  } catch (error) {
    throw explainDisk(explainKafka(error, kafka), lake);
  } finally {
    await source?.[Symbol.asyncDispose]();
    run.close();
  }
}

/** Connections to the topics: a reader for offsets, and the thread that lands messages. */
interface Source extends AsyncDisposable {
  kafka: KafkaSettings;
  reader: KafkaReader;
  thread: LandingThread;
}

async function openSource(options: CleanOptions, opened?: LandingThread): Promise<Source> {
  const reader = await connectReader(options.kafka);
  const opening = opened ? Promise.resolve(opened) : openLandingThread(options);
  const thread = await opening.catch(async (error: unknown) => {
    await reader.close();
    throw error;
  });
  const close = async () => void (await Promise.all([reader.close(), thread[Symbol.asyncDispose]()]));
  return { kafka: options.kafka, reader, thread, [Symbol.asyncDispose]: close };
}

/** Binds a new lake to its cluster, prefix and database; refuses a lake that belongs to others. */
async function bind(
  reader: KafkaReader,
  run: CleanRun,
  { kafka, lake, database, onFact }: CleanOptions,
): Promise<void> {
  const { pin: checkpoint } = await readCheckpoints(reader, kafka, ["pin"]);
  const named = checkpoint?.database ?? database ?? null;
  const wanted = { cluster: reader.clusterId, prefix: kafka.prefix, database: named };
  const sql = sqlHash();
  const identity = await readIdentity(lake);
  if (!identity) {
    const isEmpty = run.tables.every(({ bronze, silver }) => bronze.length === 0 && silver.size === 0);
    if (isEmpty) return writeIdentity(lake, { ...wanted, sql });
    throw new UsageError(
      `The lake in "${lake}" holds rows, but "${paths(lake).identity}", which names their topics, is missing: restore it from a backup, or, if the rows came from the topics in use now, write ${JSON.stringify({ ...wanted, sql: "" })} into it`,
    );
  }
  checkIdentity(lake, identity, wanted);
  checkIdentity(lake, identity, { database: database ?? null });
  if (identity.database === null && wanted.database !== null) await writeIdentity(lake, { ...identity, ...wanted });
  const text =
    "The cleaning SQL was edited since silver was made: earlier rows keep the old rules. clean --rebuild applies the new ones to all rows, and clean --rebuild --dry-run shows what that would change";
  if (identity.sql !== sql) onFact({ fact: "warned", text });
}

/** One round: reads up to the last stable offsets of now, all tables concurrently. */
async function cleanOnce(source: Source, run: CleanRun, { first }: { first: boolean }): Promise<Round> {
  const ids = await checkTopicIds(source.reader, run.lake, source.kafka);
  const batches = Math.max(...(await allOf(run.tables.map((at) => cleanTable(source, at, { ids, first })))));
  if (batches > 0) {
    await writeCheckedLedger(run);
    for (const at of run.tables) await compactBronze(at);
  }
  return { batches, rewriting: run.rewriting.take() };
}

/**
 * Lands and cleans what one topic holds now. The next batch lands while the last one is cleaned.
 *
 * @returns the number of batches
 */
async function cleanTable(
  { reader, thread, kafka }: Source,
  at: TableRun,
  { ids, first }: { ids: Map<string, string | null>; first: boolean },
): Promise<number> {
  const { table, run } = at;
  await finishLanded(at);
  const topic = topicOf(kafka, table);
  // A topic that was created a moment ago has no id yet: the next round reads it.
  const offsets = (ids.has(topic) && (await listOffsets(reader, topic))) || [];
  const endOffsets = new Map(offsets.map(({ partition, lastStable }) => [partition, lastStable]));
  const landed = landedOffsets(at.bronze);
  let positions: Offsets = new Map(offsets.map((o) => [o.partition, landed.get(o.partition) ?? o.logStart]));
  const total = unread(positions, endOffsets);
  if (first) reportTopic(at, topic, { offsets, total });
  if (total === 0) {
    if (first) run.onFact({ fact: "done", table });
    return 0;
  }
  const land = () => {
    if (unread(positions, endOffsets) === 0) return undefined;
    const landing = thread.land({ table, topic, topicId: ids.get(topic) ?? null, positions, endOffsets });
    landing.catch(() => {}); // reported where it is awaited
    return landing;
  };
  let batches = 0;
  for (let ahead = land(); ahead; batches++) {
    const { files, positions: next } = await ahead;
    positions = next;
    at.bronze.push(...files);
    ahead = land();
    // The next batch may continue the key block of a partition's last file, which would then be written twice.
    const open = unapplied(at);
    const closed = open.filter(
      (file, i) => !ahead || i === 0 || open.some((f, j) => j > i && f.partition === file.partition),
    );
    try {
      await applyBatch(at, closed);
    } catch (error) {
      await ahead?.catch(() => {});
      throw error;
    }
  }
  run.onFact({ fact: "done", table });
  // For Kafka's command-line tools; nothing here reads these offsets.
  await showOffsets(reader, `${kafka.prefix}.clean`, topic, positions).catch(() => {});
  return batches;
}

/** Reports once how many messages a topic has to read, and warns about those that cannot be read yet. */
function reportTopic(
  { table, run }: TableRun,
  topic: string,
  { offsets, total }: { offsets: PartitionOffsets[]; total: number },
): void {
  const warn = (text: string) => run.onFact({ fact: "warned", text });
  if (offsets.length === 0) warn(`Topic "${topic}" does not exist yet: run post first`);
  run.onFact({ fact: "counted", table, total });
  const waiting = offsets.reduce((sum, { logEnd, lastStable }) => sum + logEnd - lastStable, 0);
  if (waiting > 0) {
    warn(`${some(waiting, "offset")} of topic "${topic}" are behind an open transaction: a later clean reads them`);
  }
}
