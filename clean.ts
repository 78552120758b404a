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

import { mkdir, open, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { availableParallelism } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { DuckDBConnection, DuckDBInstance } from "@duckdb/node-api";
import pLimit from "p-limit";
import { bronzeLines } from "./io/bronze_lines.ts";
import type { RecordView } from "./io/record_batch.ts";
import { type Table, tableNames } from "./io.ts";
import { readCheckpoint } from "./kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "./kafka/client.ts";
import { explainKafka, isTransientKafka } from "./kafka/errors.ts";
import { readRecord } from "./kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "./kafka/settings.ts";
import { topicIds } from "./kafka/topic_ids.ts";
import { showOffsets, topicRanges } from "./kafka/topics.ts";
import {
  type BronzeFile,
  batchBytes,
  blockOfFile,
  bronzeColumns,
  bronzeName,
  landedOffsets,
  largeMessage,
  lastLine,
  laterOffsets,
  listBronze,
} from "./lake/bronze.ts";
import { type Columns, checkColumns, silverColumns } from "./lake/columns.ts";
import {
  explainSql,
  literal,
  literals,
  numbers,
  openDuckDb,
  parquet,
  parquetRows,
  readSql,
  sqlHash,
} from "./lake/duckdb.ts";
import { explainDisk, fileSize, type Offsets, paths, putInPlace, syncPath, temporaryPath } from "./lake/files.ts";
import { doneOffsets, type FileState, fileStates, metadataClause, noState } from "./lake/footers.ts";
import { checkBronze, checkLedger, type LedgerRow, ledgerRow, readLedger, writeLedger } from "./lake/ledger.ts";
import { checkBinding, checkTopicId, lockLake, readBinding, startAgain, writeBinding } from "./lake/owner.ts";
import { blockName, blockOf } from "./lake/silver.ts";
import { type Lander, openLander } from "./land.ts";
import { UsageError } from "./runtime/errors.ts";
import { isAlive } from "./runtime/process.ts";
import { patiently } from "./runtime/retry.ts";
import { step } from "./runtime/steps.ts";

/** What the consumer tells, in the past tense. */
export type CleanFact =
  | { fact: "counted"; table: Table; total: number }
  | { fact: "cleaned"; table: Table; messages: number; rejected: number }
  | { fact: "done"; table: Table }
  | { fact: "warned"; text: string }
  | { fact: "waited"; text: string };

/** Settings of {@link clean}. */
export interface CleanOptions {
  kafka: KafkaSettings;
  /** The lake's folder. */
  lake: string;
  /** The database that the settings name, where it could be asked: the lake must belong to it. */
  database?: string;
  /** Go on in micro-batches until stopped. Default false: read what is there at the start. */
  follow?: boolean;
  /** How long the broker may be away, ms. */
  waitMs: number;
  signal: AbortSignal;
  onFact: (fact: CleanFact) => void;
}

/** What a run of clean did and what the lake holds now. */
export interface CleanResult {
  messages: number;
  rejected: number;
  ledger: LedgerRow[];
}

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
  const patience = {
    waitMs,
    signal,
    isTransient: isTransientKafka,
    onWait: (text: string) => onFact({ fact: "waited", text }),
  };
  const work = await openWork(lake, { lake, signal, onFact });
  let connected: KafkaReader | undefined;
  let landing: Lander | undefined;
  try {
    let reader = await patiently(() => connectReader(kafka), patience);
    connected = reader;
    let lander = await openLander(options);
    landing = lander;
    await patiently(() => bind(reader, work, options), patience);
    const result: CleanResult = { messages: 0, rejected: 0, ledger: [] };
    for (const table of tableNames) await finishLanded(work, table, result);
    await patiently(() => checkTopics(reader, work, kafka), patience);
    for (let first = true; ; first = false) {
      try {
        const moved = await cleanOnce({ reader, lander, kafka }, work, { result, first });
        if (!follow) break;
        if (!moved) await sleep(followPause, undefined, { signal });
      } catch (error) {
        signal.throwIfAborted();
        if (!isTransientKafka(error)) throw error;
        await Promise.all([reader.close(), lander[Symbol.asyncDispose]()]);
        reader = await patiently(() => connectReader(kafka), patience);
        connected = reader;
        lander = await openLander(options);
        landing = lander;
        await patiently(() => checkTopics(reader, work, kafka), patience);
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

/** What a run of clean works with. `root` is where silver and rejects are made: the lake, or a rebuild's folder. */
interface Work {
  lake: string;
  root: string;
  options: Pick<CleanOptions, "signal" | "onFact">;
  /** Groups landed files that are cleaned together. */
  batches: (files: BronzeFile[]) => BronzeFile[][] | Promise<BronzeFile[][]>;
  db: DuckDBInstance;
  /** One for each table, since temporary tables live in a connection. */
  connections: Record<Table, DuckDBConnection>;
  bronze: Record<Table, BronzeFile[]>;
  /** Of silver, as the cleaning SQL gives them. */
  columns: Record<Table, Columns>;
  silver: Record<Table, Map<string, FileState>>;
  rejects: Record<Table, Map<string, FileState>>;
  /** Runs a query on a connection that no other uses: as many at a time as there are cores. */
  aside: <T>(query: (connection: DuckDBConnection) => Promise<T>) => Promise<T>;
  close(): void;
}

const forTables = async <T>(make: (table: Table) => Promise<T>): Promise<Record<Table, T>> => {
  const made: Partial<Record<Table, T>> = {};
  for (const table of tableNames) made[table] = await make(table);
  return made as Record<Table, T>;
};

const cores = availableParallelism();

/** How DuckDB is set for cleaning. */
const cleaning = {
  // Blocks are cleaned side by side, as many as there are cores: threads of one query cost a fifth more than one alone.
  threads: String(Math.max(1, cores >> 1)),
  // Pushed down to where its columns are made, the filter on reasons would have the messages parsed twice.
  disabled_optimizers: "filter_pushdown",
};

async function openWork(lake: string, options: LandedOptions, root = lake): Promise<Work> {
  const { signal, onFact, batches = inBatches } = options;
  if (root === lake) {
    await finishRebuild(lake);
    // What is unfinished is done again; other programs' files there are their own.
    for (const name of await readdir(paths(lake).tmp).catch(() => [])) {
      const owner = /-(\d+)(?:-\d+)?(?:\.\w+)?$/.exec(name)?.[1];
      if (/^(land|clean|silver|rejects)-|^rebuild$/.test(name) || (owner && !isAlive(Number(owner)))) {
        await rm(join(paths(lake).tmp, name), { recursive: true, force: true });
      }
    }
  }
  const bronze = await forTables(async (table) => {
    const { files, covered } = await listBronze(lake, table);
    for (const path of covered) await rm(path);
    return files;
  });
  for (const table of tableNames) {
    await mkdir(paths(lake).bronze(table), { recursive: true });
    await mkdir(paths(root).silver(table), { recursive: true });
  }
  for (const folder of [paths(root).rejects, paths(lake).tmp]) await mkdir(folder, { recursive: true });
  const db = await openDuckDb(lake, cleaning);
  const connections = await forTables(() => db.connect());
  const free = await Promise.all(Array.from({ length: cores }, () => db.connect()));
  const every = [...Object.values(connections), ...free];
  const limit = pLimit(free.length);
  const aside: Work["aside"] = (query) =>
    limit(async () => {
      const connection = free.pop() as DuckDBConnection;
      try {
        return await query(connection);
      } finally {
        free.push(connection);
      }
    });
  const interrupt = () => {
    for (const connection of every) connection.interrupt();
  };
  signal.addEventListener("abort", interrupt);
  const close = () => {
    signal.removeEventListener("abort", interrupt);
    for (const connection of every) connection.closeSync();
    db.closeSync();
  };
  try {
    const rejectsIn = (folder: string) =>
      forTables((table) => fileStates(connections[table], paths(folder).rejects, `${table}-`));
    const rejects = await rejectsIn(root);
    // A rebuild makes rejects again, damaged ones too; the ledger tells it how much bronze there must be.
    const done = root === lake ? rejects : await rejectsIn(lake).catch(() => rejects);
    for (const table of tableNames) checkBronze(lake, table, bronze[table], done[table]);
    const columns = await forTables((table) => silverColumns(connections[table], table));
    for (const table of tableNames)
      await checkColumns(connections[table], { lake: root, table, columns: columns[table] });
    const silver = await forTables((table) => fileStates(connections[table], paths(root).silver(table)));
    return {
      lake,
      root,
      options: { signal, onFact },
      batches,
      db,
      connections,
      bronze,
      columns,
      silver,
      rejects,
      aside,
      close,
    };
  } catch (error) {
    close();
    throw error;
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

/**
 * Refuses topics that were made again since the lake was bound to them, and binds it to those that are new.
 *
 * @returns the topics that there are, with their ids
 */
async function checkTopicIds(
  reader: KafkaReader,
  lake: string,
  kafka: KafkaSettings,
): Promise<Map<string, string | null>> {
  const ids = await topicIds(
    reader,
    tableNames.map((table) => topicOf(kafka, table)),
  );
  const bound = await readBinding(lake);
  const topics = { ...bound?.topics };
  for (const table of tableNames) {
    const topic = topicOf(kafka, table);
    const id = ids.get(topic);
    checkTopicId(topic, topics[table], id);
    if (id) topics[table] = id;
  }
  const isNew = tableNames.some((table) => topics[table] !== bound?.topics?.[table]);
  if (bound && isNew) await writeBinding(lake, { ...bound, topics });
  return ids;
}

/** Waits until all have ended, then throws the first failure: what is tried again would write the same files as what still runs. */
async function allOf<T>(works: Promise<T>[]): Promise<T[]> {
  await Promise.allSettled(works);
  return await Promise.all(works);
}

/** One round: up to what is committed now, table beside table. Returns whether anything was new. */
async function cleanOnce(
  { reader, lander, kafka }: { reader: KafkaReader; lander: Lander; kafka: KafkaSettings },
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
      const ranges = (ids.has(topic) && (await topicRanges(reader, topic))) || [];
      if (first && ranges.length === 0)
        onFact({ fact: "warned", text: `There is no topic "${topic}" yet: run post first` });
      const until = new Map(ranges.map((range) => [range.partition, range.stable]));
      const landed = landedOffsets(work.bronze[table]);
      let positions: Offsets = new Map(ranges.map((r) => [r.partition, landed.get(r.partition) ?? r.start]));
      const total = ranges.reduce((sum, r) => sum + Math.max(0, r.stable - (positions.get(r.partition) as number)), 0);
      if (first) {
        onFact({ fact: "counted", table, total });
        const waiting = ranges.reduce((sum, range) => sum + range.end - range.stable, 0);
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
  for (const table of tableNames) await mergeSmall(work, table);
  return true;
}

/** A bronze file below this size is merged with its neighbours, bytes, when there are this many. */
const smallFile = 4_000_000;
const manyFiles = 32;

/** Merges small neighbouring files at the end of a partition, so that following for days does not make millions. */
async function mergeSmall(work: Work, table: Table): Promise<void> {
  for (const partition of new Set(work.bronze[table].map((file) => file.partition))) {
    const files = work.bronze[table].filter((file) => file.partition === partition);
    if (files.length < manyFiles) continue;
    const run: BronzeFile[] = [];
    for (const file of files.reverse()) {
      if ((await fileSize(file.path)) > smallFile) break;
      run.unshift(file);
    }
    const [oldest, newest] = [run[0], run.at(-1)];
    if (!oldest || !newest || run.length < manyFiles) continue;
    const messages = run.reduce((sum, file) => sum + file.messages, 0);
    const range = { partition, first: oldest.first, next: newest.next, messages };
    const merged: BronzeFile = { ...range, path: join(paths(work.lake).bronze(table), bronzeName(range)) };
    const temporary = join(paths(work.lake).tmp, `land-${table}-${partition}-merged`);
    const handle = await open(temporary, "w");
    for (const file of run) await handle.writeFile(await readFile(file.path));
    await handle.close();
    await putInPlace(temporary, merged.path);
    // From here on the others are covered by it: a crash leaves them to be removed at the next start.
    work.bronze[table] = work.bronze[table].filter((file) => !run.includes(file));
    work.bronze[table].push(merged);
    for (const file of run) {
      step("removing", file.path);
      await rm(file.path);
    }
  }
}

/** The files that were landed, and not cleaned yet. */
function unapplied(work: Work, table: Table): BronzeFile[] {
  const { applied } = doneOffsets(work.rejects[table]);
  return work.bronze[table].filter((file) => file.next > (applied.get(file.partition) ?? 0));
}

/** Cleans what was landed before the program was stopped, or before Kafka went away. */
async function finishLanded(work: Work, table: Table, result: CleanResult): Promise<void> {
  for (const files of await work.batches(unapplied(work, table))) await applyBatch(work, table, { files, result });
}

/** Groups files so that each group is about one batch large. */
async function inBatches(files: BronzeFile[]): Promise<BronzeFile[][]> {
  const batches: BronzeFile[][] = [];
  let bytes = Number.POSITIVE_INFINITY;
  for (const file of files) {
    const size = await fileSize(file.path);
    if (bytes + size > batchBytes) {
      batches.push([]);
      bytes = 0;
    }
    batches.at(-1)?.push(file);
    bytes += size;
  }
  return batches;
}

/**
 * Makes sure that the topics are those that were landed from, and that nothing unread is gone.
 *
 * A topic that was made again has another id. Where Kafka gives none, it has other bytes where the last landed message
 * was; only compaction leaves a hole there. A topic whose messages expired begins after the next offset to read.
 */
async function checkTopics(reader: KafkaReader, work: Work, kafka: KafkaSettings): Promise<void> {
  await checkTopicIds(reader, work.lake, kafka);
  for (const table of tableNames) {
    const topic = topicOf(kafka, table);
    const files = work.bronze[table];
    let ranges = await topicRanges(reader, topic);
    // A broker by ZooKeeper that has just started answers before it has learned of its topics.
    for (let tries = 0; !ranges && files.length > 0 && tries < 20; tries++) {
      await sleep(250, undefined, { signal: work.options.signal });
      ranges = await topicRanges(reader, topic);
    }
    if (!ranges) {
      if (files.length === 0) continue;
      throw new Error(`Topic "${topic}" is gone, but the lake in "${work.lake}" holds messages of it; ${startAgain}`);
    }
    const landed = landedOffsets(files);
    for (const { partition, start } of ranges) {
      if (start === 0 || landed.has(partition)) continue;
      const text = `Partition ${partition} of topic "${topic}" begins at offset ${start}: what stood before it had expired before this lake was begun`;
      work.options.onFact({ fact: "warned", text });
    }
    for (const [partition, next] of landed) {
      const range = ranges.find((r) => r.partition === partition);
      const where = `partition ${partition} of topic "${topic}"`;
      if (!range || next > range.end) {
        throw new Error(
          `Topic "${topic}" was made again: ${where} ${range ? `ends at offset ${range.end}` : "is gone"}, but was landed up to ${next}; ${startAgain}`,
        );
      }
      if (range.start > next) {
        throw new Error(
          `Messages were lost: ${where} begins at offset ${range.start}, so ${range.start - next} messages from ${next} on expired before they were landed; set retention.ms=-1, then ${startAgain}`,
        );
      }
      const last = files.findLast((file) => file.partition === partition && file.messages > 0);
      if (last && !(await sameMessage(reader, topic, { file: last, start: range.start }))) {
        throw new Error(
          `Topic "${topic}" was made again: the last message landed from ${where} is another one now; ${startAgain}`,
        );
      }
    }
  }
}

/** Whether the topic still holds the last message of a bronze file, byte for byte. */
async function sameMessage(
  reader: KafkaReader,
  topic: string,
  { file, start }: { file: BronzeFile; start: number },
): Promise<boolean> {
  const line = await lastLine(file.path);
  const offset = Number(line.toString("latin1").split("\t", 2)[1]);
  if (offset < start) return true; // expired: nothing to compare with
  const { partition } = file;
  const take = (record: RecordView) => {
    const lines = bronzeLines();
    lines.add(partition, record);
    return lines.take().equals(line);
  };
  const same = await readRecord(reader, topic, { partition, offset, take });
  return same === undefined ? true : (same ?? false); // a record never becomes a mark or an aborted one
}

const bronzeTypes = `{${Object.entries(bronzeColumns).map(([name, type]) => `${name}: '${type}'`)}}`;

/** Reads bronze as it is: no quotes, no escapes, an empty field is NULL. */
async function bronzeQuery(files: BronzeFile[]): Promise<string> {
  const sizes = await Promise.all(files.map((file) => fileSize(file.path)));
  // Six bytes a byte at worst: base64 of a key and of a value of `largeMessage` bytes.
  const usual = 2 * largeMessage;
  const read = (some: BronzeFile[], line: number) =>
    `SELECT * FROM read_csv(${literals(some.map(({ path }) => path))}, columns = ${bronzeTypes}, auto_detect = false,
      hive_partitioning = false, delim = '\\t', quote = '', escape = '', header = false, new_line = '\\n', strict_mode = true, max_line_size = ${line}, buffer_size = ${2 * line})`;
  const small = files.filter((file, i) => file.messages !== 1 || (sizes[i] as number) <= usual);
  const large = files.filter((file) => !small.includes(file));
  const parts = small.length > 0 ? [read(small, usual)] : [];
  for (const file of large) parts.push(read([file], sizes[files.indexOf(file)] as number));
  return parts.join(" UNION ALL ");
}

/** Cleans one batch and publishes it: silver blocks first, then the rejects, which mark it done. */
async function applyBatch(
  work: Work,
  table: Table,
  { files, result }: { files: BronzeFile[]; result: CleanResult },
): Promise<void> {
  const { signal, onFact } = work.options;
  const connection = work.connections[table];
  const some = files.filter((file) => file.messages > 0);
  const messages = some.reduce((sum, file) => sum + file.messages, 0);
  const done = doneOffsets(work.rejects[table]);
  const next = laterOffsets(done.applied, landedOffsets(files));
  const begun: Offsets = new Map(done.begun);
  for (const file of files) {
    begun.set(file.partition, Math.min(file.first, begun.get(file.partition) ?? file.first));
    const until = done.applied.get(file.partition) ?? file.first;
    if (!files.some((f) => f.partition === file.partition && f.first <= until)) {
      throw new Error(`Messages before offset ${file.first} of ${table} were landed, but not cleaned: start again`);
    }
  }
  const folder = temporaryPath(work.lake, `clean-${table}`);
  await mkdir(folder);
  let rejected = 0;
  try {
    step("cleaning", table);
    if (messages > 0) {
      signal.throwIfAborted();
      const damaged = (what: string, cause?: unknown) => {
        const files = some.map(({ path }) => `"${path}"`).join(", ");
        return new Error(`Bronze is damaged: ${files} ${what}; put them back, or start a new lake by --data`, {
          cause,
        });
      };
      const made = await cleanBatch(work, table, { files: some, folder, next }).catch((error: Error) => {
        const [line = ""] = /CSV Error.*/.exec(error.message) ?? [];
        throw line ? damaged(`cannot be read (${line})`, error) : explainSql(`clean_${table}.sql`, error);
      });
      const read = made.clean + made.rejected;
      if (read !== messages) throw damaged(`hold ${read} messages, but their names say ${messages}`);
      for (const [block, rows] of made.blocks) {
        signal.throwIfAborted();
        await publishBlock(work, table, { block, rows, next });
      }
      rejected = made.rejected;
    }
    signal.throwIfAborted();
    await publishRejects(work, table, { next, begun, rejected });
  } finally {
    await connection.run("DROP TABLE IF EXISTS cleaned; DROP TABLE IF EXISTS rejected");
    await rm(folder, { recursive: true, force: true });
  }
  result.messages += messages;
  result.rejected += rejected;
  onFact({ fact: "cleaned", table, messages, rejected });
}

/** Where a block's new rows are: in a file that holds nothing else, in the table `cleaned`, or in both. */
interface NewRows {
  file?: string;
  inTable?: boolean;
}

/** What cleaning has made of a batch: numbers of messages, and the new rows by block. */
interface Cleaned {
  clean: number;
  rejected: number;
  blocks: Map<number, NewRows>;
}

/**
 * Cleans a batch by the SQL of `sql/`; what is rejected goes into the table `rejected`.
 *
 * Bronze files whose keys are of one block go straight from the parser to that block's Parquet file, which takes a
 * quarter less time than by way of a table. So what was rejected is found afterwards: as what is nowhere, which is
 * mostly nothing.
 */
async function cleanBatch(
  work: Work,
  table: Table,
  { files, folder, next }: { files: BronzeFile[]; folder: string; next: Offsets },
): Promise<Cleaned> {
  const connection = work.connections[table];
  const sql = await readSql(`clean_${table}.sql`);
  const columns = [...work.columns[table].keys()].map(quoted).join(", ");
  const types = [...work.columns[table]].map(([name, type]) => `${quoted(name)} ${type}`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE cleaned (${types.join(", ")}, block BIGINT)`);
  const clean = `SELECT ${columns} FROM (${sql}) WHERE reject_reason IS NULL`;
  const blocks = new Map<number, NewRows>();
  const others: BronzeFile[] = [];
  const byBlock = new Map<number, BronzeFile[]>();
  for (const file of files) {
    const block = await blockOfFile(file);
    if (block === undefined) others.push(file);
    else byBlock.set(block, [...(byBlock.get(block) ?? []), file]);
  }
  let rows = 0;
  const mixed: string[] = [];
  const cleanBlock = async (aside: DuckDBConnection, block: number, some: BronzeFile[]) => {
    work.options.signal.throwIfAborted();
    const file = join(folder, `${block}.parquet`);
    const metadata = metadataClause({ applied: next, superseded: 0 });
    await aside.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${await bronzeQuery(some)}`);
    const written = await write(aside, `COPY (${clean}) TO ${literal(file)} (${parquet}, ${metadata})`).catch(
      (error: Error) => {
        if (!outOfMemory.test(error.message)) throw error;
        others.push(...some);
        return 0;
      },
    );
    if (written === 0) return;
    rows += written;
    // The file's block is that of the messages' keys; what counts is that of the rows.
    const [strange] = await numbers(aside, `SELECT count(*) FROM (${parquetRows(file)}) WHERE ${blockOf} <> ${block}`);
    if (strange === 0) blocks.set(block, { file });
    else mixed.push(file);
  };
  await allOf([...byBlock].map(([block, some]) => work.aside((aside) => cleanBlock(aside, block, some))));
  // One after the other: a connection takes one query at a time.
  for (const file of mixed) {
    await connection.run(`INSERT INTO cleaned SELECT *, ${blockOf} FROM (${parquetRows(file)})`);
  }
  if (others.length > 0) {
    const bronze = await bronzeQuery(others);
    rows += await insert(work, table, { into: "cleaned", bronze, query: `SELECT *, ${blockOf} FROM (${clean})` });
  }
  for (const [block] of (await connection.runAndReadAll("SELECT DISTINCT block FROM cleaned")).getRows()) {
    blocks.set(Number(block), { ...blocks.get(Number(block)), inTable: true });
  }
  const messages = files.reduce((sum, file) => sum + file.messages, 0);
  if (rows === messages) return { clean: rows, rejected: 0, blocks };
  const written = [...blocks.values()].flatMap(({ file }) => (file === undefined ? [] : [parquetRows(file)]));
  const offsets = [...written, "SELECT * FROM cleaned"].map((from) => `SELECT _partition, _offset FROM (${from})`);
  await connection.run(`CREATE OR REPLACE TEMP TABLE rejected ("table" VARCHAR, _partition INT, _offset BIGINT,
    _posted_at TIMESTAMPTZ, key BLOB, reason VARCHAR, detail VARCHAR, raw BLOB)`);
  const rejected = await insert(work, table, {
    into: "rejected",
    bronze: `SELECT * FROM (${await bronzeQuery(files)}) ANTI JOIN (${offsets.join(" UNION ALL ")}) USING (_partition, _offset)`,
    query: `SELECT '${table}', _partition, _offset, _posted_at, reject_key, reject_reason, reject_detail, reject_raw
      FROM (${sql}) WHERE reject_reason IS NOT NULL`,
  });
  return { clean: rows, rejected, blocks };
}

/** Runs a statement that writes what the cleaning SQL makes of `bronze`; gives the number of rows. */
async function write(connection: DuckDBConnection, statement: string): Promise<number> {
  const [rows = 0] = await numbers(connection, statement).catch(async (error: Error) => {
    // The usual way takes no malformed JSON; from here on this connection goes the careful one.
    if (!/Malformed JSON/i.test(error.message)) throw error;
    await connection.run("SET VARIABLE careful = true");
    return await numbers(connection, statement);
  });
  return rows;
}

const outOfMemory = /Out of Memory/i;

/**
 * Adds to a table what a query makes of `bronze`; gives the number of rows.
 *
 * DuckDB parses some thousand messages at once and keeps a value's 16 bytes for each bracket or digit of them: made on
 * purpose, a batch of 192 MB would take twenty times that. So where memory runs out, it goes piece by piece.
 */
async function insert(
  work: Work,
  table: Table,
  { into, bronze, query }: { into: string; bronze: string; query: string },
): Promise<number> {
  const connection = work.connections[table];
  try {
    await connection.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${bronze}`);
    return await write(connection, `INSERT INTO ${into} ${query}`);
  } catch (error) {
    if (!outOfMemory.test((error as Error).message)) throw error;
  }
  // In an instance of its own, whose memory no other table takes.
  return await onePiecesAtATime(async () => {
    const spill = join(paths(work.lake).tmp, `pieces-${process.pid}`);
    const db = await openDuckDb(work.lake, { ...cleaning, memory_limit: pieceMemory, temp_directory: spill });
    const aside = await db.connect();
    try {
      let rows = 0;
      await connection.run(`CREATE OR REPLACE TEMP TABLE whole AS ${bronze}`);
      for (const range of await pieces(connection)) {
        work.options.signal.throwIfAborted();
        const [from, to] = ["piece", "made"].map((what) => temporaryPath(work.lake, `clean-${what}`, ".parquet")) as [
          string,
          string,
        ];
        await connection.run(`COPY (SELECT * FROM whole WHERE ${range}) TO ${literal(from)} (${parquet})`);
        await aside.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${parquetRows(from)}`);
        rows += await write(aside, `COPY (${query}) TO ${literal(to)} (${parquet})`);
        await connection.run(`INSERT INTO ${into} ${parquetRows(to)}`);
        await Promise.all([rm(from), rm(to)]);
      }
      return rows;
    } finally {
      await connection.run("DROP TABLE IF EXISTS whole");
      aside.closeSync();
      db.closeSync();
    }
  });
}

const onePiecesAtATime = pLimit(1);

/** A piece of a batch that was too much at once, bytes, and what the largest message of it may take to parse. */
const pieceBytes = 8_000_000;
const pieceMemory = "1500MB";

/** Conditions that cut the table `whole` into pieces, or single messages where they are larger. */
async function pieces(connection: DuckDBConnection): Promise<string[]> {
  const sizes = await connection.runAndReadAll(
    "SELECT _partition, _offset, strlen(value) FROM whole ORDER BY _partition, _offset",
  );
  const found: { partition: number; first: number; last: number; bytes: number }[] = [];
  for (const [partition, offset, size] of sizes.getRows().map((row) => row.map(Number)) as [number, number, number][]) {
    const piece = found.at(-1);
    if (piece?.partition === partition && piece.bytes + size <= pieceBytes) {
      piece.last = offset;
      piece.bytes += size;
    } else found.push({ partition, first: offset, last: offset, bytes: size });
  }
  return found.map((p) => `_partition = ${p.partition} AND _offset BETWEEN ${p.first} AND ${p.last}`);
}

const quoted = (name: string): string => `"${name.replaceAll('"', '""')}"`;

/** Messages that a file does not hold yet. */
const notIn = (applied: Offsets): string =>
  [...applied].map(([partition, next]) => `NOT (_partition = ${partition} AND _offset < ${next})`).join(" AND ") ||
  "true";

/** Puts a block's new rows in place, or writes the block anew with them; the newest message of an ind wins. */
async function publishBlock(
  work: Work,
  table: Table,
  { block, rows: { file, inTable }, next }: { block: number; rows: NewRows; next: Offsets },
): Promise<void> {
  const connection = work.connections[table];
  const name = blockName(block);
  const state = work.silver[table].get(name);
  const path = join(paths(work.root).silver(table), `${name}.parquet`);
  const made = file === undefined ? [] : [parquetRows(file)];
  if (inTable) made.push(`SELECT * EXCLUDE (block) FROM cleaned WHERE block = ${block}`);
  const fresh = `SELECT * FROM (${made.join(" UNION ALL BY NAME ")}) WHERE ${notIn(state?.applied ?? new Map())}`;
  const both = state ? `${fresh} UNION ALL BY NAME ${parquetRows(path)}` : fresh;
  const [news = 0] = await numbers(connection, `SELECT count(*) FROM (${fresh})`);
  if (news === 0) return;
  const [losers = 0] = await numbers(connection, `SELECT count(*) - count(DISTINCT ind) FROM (${both})`);
  // Files may be grouped otherwise after a stop: for some partition the block can be ahead of this batch.
  const applied = laterOffsets(next, state?.applied ?? []);
  const superseded = (state?.superseded ?? 0) + losers;
  let temporary = file;
  let rows = news;
  if (temporary === undefined || inTable || state || losers > 0) {
    temporary = temporaryPath(work.lake, `silver-${table}`, ".parquet");
    // Ranking sorts whole rows: only where an ind comes twice.
    const rank =
      "row_number() OVER (PARTITION BY ind ORDER BY _posted_at DESC NULLS LAST, _partition DESC, _offset DESC)";
    const winners = losers === 0 ? both : `SELECT * FROM (${both}) QUALIFY ${rank} = 1 ORDER BY ind`;
    [rows = 0] = await numbers(
      connection,
      `COPY (${winners}) TO ${literal(temporary)} (${parquet}, ${metadataClause({ applied, superseded })})`,
    );
  }
  await putInPlace(temporary, path);
  work.silver[table].set(name, { ...noState, rows, applied, superseded });
}

/** Rejects files are added to up to this size, bytes; then a new one is begun. */
const rejectsBytes = 2_000_000;

/** Adds what `rejected` holds to the newest rejects file. It is written in any case: it marks the batch done. */
async function publishRejects(
  work: Work,
  table: Table,
  { next, begun, rejected }: { next: Offsets; begun: Offsets; rejected: number },
): Promise<void> {
  const connection = work.connections[table];
  const states = work.rejects[table];
  const newest = [...states.keys()].sort().at(-1);
  const folder = paths(work.root).rejects;
  const pathOf = (name: string) => join(folder, `${name}.parquet`);
  const full = newest !== undefined && (await fileSize(pathOf(newest))) > rejectsBytes;
  const number = newest === undefined ? 0 : Number(newest.slice(table.length + 1)) + (full ? 1 : 0);
  const name = `${table}-${String(number).padStart(6, "0")}`;
  const before = states.get(name);
  const reasons = { ...before?.reasons };
  const parts = before ? [parquetRows(pathOf(name))] : [];
  if (rejected > 0) {
    parts.push("SELECT * FROM rejected");
    const counts = await connection.runAndReadAll("SELECT reason, count(*) FROM rejected GROUP BY reason");
    for (const [reason, count] of counts.getRows()) {
      reasons[String(reason)] = (reasons[String(reason)] ?? 0) + Number(count);
    }
  }
  const empty = `SELECT '' AS "table", 0::INT AS _partition, 0::BIGINT AS _offset, now() AS _posted_at, ''::BLOB AS key,
    '' AS reason, '' AS detail, ''::BLOB AS raw WHERE false`;
  const temporary = temporaryPath(work.lake, `rejects-${table}`, ".parquet");
  const [rows = 0] = await numbers(
    connection,
    `COPY (${parts.join(" UNION ALL ") || empty}) TO ${literal(temporary)} (${parquet}, ${metadataClause({ applied: next, begun, reasons })})`,
  );
  await putInPlace(temporary, pathOf(name));
  states.set(name, { ...noState, rows, applied: next, begun, reasons });
}

/** Writes the ledger as of the last batch, and fails where it does not add up. */
async function writeCheckedLedger(work: Work): Promise<LedgerRow[]> {
  const rows = tableNames.map((table) => {
    const { applied } = doneOffsets(work.rejects[table]);
    return ledgerRow(table, {
      files: work.bronze[table].filter((file) => file.next <= (applied.get(file.partition) ?? 0)),
      silver: [...work.silver[table].values()],
      rejects: [...work.rejects[table].values()],
    });
  });
  await writeLedger(work.connections.pin, work.lake, rows);
  checkLedger(rows, work.lake);
  return rows;
}

/** Settings of {@link rebuild}. */
export type RebuildOptions = Pick<CleanOptions, "lake" | "signal" | "onFact">;

/**
 * Makes silver and rejects again from bronze alone, with the SQL as it is now. The new files are made aside, and
 * replace the old ones only when all are there; broken off before, nothing has changed, and after, the next clean
 * goes on with it.
 */
export async function rebuild(options: RebuildOptions): Promise<CleanResult> {
  const { lake, onFact } = options;
  await using _lock = await lockLake(lake);
  const bound = await readBinding(lake);
  if (!bound) throw new Error(`There is no lake in "${lake}" yet: run clean first`);
  await finishRebuild(lake);
  const making = makingFolder(lake);
  await rm(making, { recursive: true, force: true });
  const sql = await sqlHash();
  const made = await openWork(lake, options, making);
  const result: CleanResult = { messages: 0, rejected: 0, ledger: [] };
  try {
    for (const table of tableNames) {
      const total = made.bronze[table].reduce((sum, file) => sum + file.messages, 0);
      onFact({ fact: "counted", table, total });
    }
    await checkBronzeIsWhole(made);
    for (const table of tableNames) await finishLanded(made, table, result);
  } catch (error) {
    throw explainDisk(error, lake);
  } finally {
    made.close();
  }
  const names = await Promise.all(tableNames.map((table) => readdir(paths(making).silver(table))));
  const blocks = Object.fromEntries(tableNames.map((table, i) => [table, names[i]]));
  await writeFile(
    join(making, "plan.json"),
    JSON.stringify({ sql, blocks, rejects: await readdir(paths(making).rejects) }),
  );
  await syncPath(join(making, "plan.json"));
  step("written", readyFolder(lake));
  await rename(making, readyFolder(lake));
  step("renamed", readyFolder(lake));
  await syncPath(paths(lake).tmp);
  await finishRebuild(lake);
  return { ...result, ledger: (await cleanLanded(options)).ledger };
}

/** Settings of {@link cleanLanded}. */
export interface LandedOptions extends RebuildOptions {
  /** Groups bronze files that are cleaned together, in the order of each partition. For tests; default: about 192 MB. */
  batches?: Work["batches"];
}

/** Cleans what bronze holds and silver does not yet, without Kafka, and writes the ledger. Its caller holds the lock. */
export async function cleanLanded(options: LandedOptions): Promise<CleanResult> {
  const work = await openWork(options.lake, options);
  const result: CleanResult = { messages: 0, rejected: 0, ledger: [] };
  try {
    for (const table of tableNames) await finishLanded(work, table, result);
    result.ledger = await writeCheckedLedger(work);
    return result;
  } finally {
    work.close();
  }
}

/** A rebuild from bronze that lacks files would lose their rows, and the new ledger would add up all the same. */
async function checkBronzeIsWhole({ lake, connections, bronze }: Work): Promise<void> {
  for (const { table, messages: known } of (await readLedger(connections.pin, lake)) ?? []) {
    const messages = bronze[table].reduce((sum, file) => sum + file.messages, 0);
    if (messages >= known) continue;
    throw new Error(
      `Cannot rebuild: the bronze files in "${paths(lake).bronze(table)}" hold ${messages} messages, but the ledger knows of ${known}; put the missing ones back, or start a new lake by --data`,
    );
  }
}

const makingFolder = (lake: string): string => join(paths(lake).tmp, "rebuild");
const readyFolder = (lake: string): string => join(paths(lake).tmp, "rebuild-ready");

/** Puts a finished rebuild in place, file by file; done again after a crash, it goes on where it was. */
async function finishRebuild(lake: string): Promise<void> {
  const ready = readyFolder(lake);
  const plan = await readFile(join(ready, "plan.json"), "utf8").catch(() => undefined);
  if (plan === undefined) return;
  const { sql, blocks, rejects } = JSON.parse(plan) as {
    sql: string;
    blocks: Record<Table, string[]>;
    rejects: string[];
  };
  const replace = async (from: string, to: string, wanted: string[]) => {
    await mkdir(to, { recursive: true });
    for (const name of await readdir(from)) {
      await rename(join(from, name), join(to, name));
      step("replaced", join(to, name));
    }
    for (const name of await readdir(to)) {
      if (name.endsWith(".parquet") && !wanted.includes(name)) await rm(join(to, name));
    }
    await syncPath(to);
  };
  for (const table of tableNames) await replace(paths(ready).silver(table), paths(lake).silver(table), blocks[table]);
  await replace(paths(ready).rejects, paths(lake).rejects, rejects);
  const bound = await readBinding(lake);
  if (bound) await writeBinding(lake, { ...bound, sql });
  // Under its other name, half of it is no plan to follow any more.
  await rename(ready, makingFolder(lake));
  step("removing", makingFolder(lake));
  await rm(makingFolder(lake), { recursive: true });
}
