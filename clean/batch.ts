/**
 * Runs one batch of bronze through the cleaning SQL and publishes the result.
 *
 * @module
 */

import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import pLimit from "p-limit";
import { type BronzeFile, blockOfFile, landedOffsets, laterOffsets, messagesIn } from "../lake/bronze.ts";
import { bronzeQuery } from "../lake/bronze_query.ts";
import { literal, numbers, openDuckDb, parquet, parquetRows, quoted } from "../lake/duckdb.ts";
import { type Offsets, paths, temporaryPath } from "../lake/files.ts";
import { doneOffsets, metadataClause } from "../lake/footers.ts";
import { blockName, blockOf } from "../lake/silver.ts";
import { explainSql, readSql } from "../lake/sql_files.ts";
import { step } from "../runtime/steps.ts";
import { deletedBlocks, finishDeletes, readDeletes } from "./deletes.ts";
import { type NewRows, publishBlock, publishRejects } from "./publish.ts";
import { allOf, cleaning, type TableRun } from "./run.ts";

/** The files that were landed, and not cleaned yet. */
export function unapplied({ bronze, rejects }: TableRun): BronzeFile[] {
  const { applied } = doneOffsets(rejects);
  return bronze.filter((file) => file.next > (applied.get(file.partition) ?? 0));
}

/** Cleans what was landed before the program was stopped, or before Kafka went away. */
export async function finishLanded(at: TableRun): Promise<void> {
  await finishDeletes(at, unapplied(at));
  for (const files of await at.run.batches(unapplied(at))) await applyBatch(at, files);
}

/** Cleans one batch and publishes it: silver blocks with their deletes first, then the rejects, which mark it done. */
export async function applyBatch(at: TableRun, files: BronzeFile[]): Promise<void> {
  const { run, table, connection } = at;
  const some = files.filter((file) => file.messages > 0);
  const messages = messagesIn(some);
  const { next, begun } = offsetsAfter(at, files);
  const folder = temporaryPath(run.lake, `clean-${table}`);
  await mkdir(folder);
  let rejected = 0;
  try {
    step("cleaning", table);
    if (messages > 0) {
      run.signal.throwIfAborted();
      const made = await cleanBatch(at, { files: some, folder, next }).catch((error: Error) => {
        const [line = ""] = /CSV Error.*/.exec(error.message) ?? [];
        throw line ? damaged(some, `cannot be read (${line})`, error) : explainSql(`clean_${table}.sql`, error);
      });
      const read = made.clean + made.deleted + made.rejected;
      if (read !== messages) throw damaged(some, `hold ${read} messages, but their names say ${messages}`);
      for (const [block, rows] of made.blocks) {
        run.signal.throwIfAborted();
        const isThere = at.silver.has(blockName(block));
        const publishing = publishBlock(at, { block, rows, next });
        await (isThere ? run.rewriting.time(publishing) : publishing);
      }
      rejected = made.rejected;
    }
    run.signal.throwIfAborted();
    await publishRejects(at, { next, begun, rejected });
  } finally {
    await connection.run(
      "DROP TABLE IF EXISTS cleaned; DROP TABLE IF EXISTS deleted; DROP TABLE IF EXISTS candidates; DROP TABLE IF EXISTS rejected",
    );
    await rm(folder, { recursive: true, force: true });
  }
  run.cleaned.messages += messages;
  run.cleaned.rejected += rejected;
  run.onFact({ fact: "cleaned", table, messages, rejected });
}

/** Where the table begins and how far it is done once these files are; they must follow what is done. */
function offsetsAfter({ table, rejects }: TableRun, files: BronzeFile[]): { next: Offsets; begun: Offsets } {
  const done = doneOffsets(rejects);
  const begun: Offsets = new Map(done.begun);
  for (const { partition, first } of files) {
    begun.set(partition, Math.min(first, begun.get(partition) ?? first));
    const end = done.applied.get(partition) ?? first;
    if (!files.some((file) => file.partition === partition && file.first <= end)) {
      throw new Error(`Messages before offset ${first} of ${table} were landed, but not cleaned: start again`);
    }
  }
  return { next: laterOffsets(done.applied, landedOffsets(files)), begun };
}

const damaged = (files: BronzeFile[], what: string, cause?: unknown): Error =>
  new Error(
    `Bronze is damaged: ${files.map(({ path }) => `"${path}"`).join(", ")} ${what}; put them back, or start a new lake by --data`,
    { cause },
  );

/** What cleaning has made of a batch: numbers of messages, and the new rows by block. */
interface Cleaned {
  clean: number;
  deleted: number;
  rejected: number;
  blocks: Map<number, NewRows>;
}

/**
 * Cleans a batch by the SQL of `sql/`; deletes go into the table `deleted`, what is rejected into `rejected`.
 *
 * Bronze files whose keys are of one block go straight from the parser to that block's Parquet file, which takes a
 * quarter less time than by way of a table. So deletes and what was rejected are found afterwards: in the files of
 * which some message became no row, which are mostly none.
 */
async function cleanBatch(
  at: TableRun,
  { files, folder, next }: { files: BronzeFile[]; folder: string; next: Offsets },
): Promise<Cleaned> {
  const { run, table, connection } = at;
  const sql = readSql(`clean_${table}.sql`);
  const columns = [...at.columns.keys()].map(quoted).join(", ");
  const types = [...at.columns].map(([name, type]) => `${quoted(name)} ${type}`);
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
  const incomplete: BronzeFile[] = [];
  const mixed: string[] = [];
  const cleanBlock = async (free: DuckDBConnection, block: number, some: BronzeFile[]) => {
    run.signal.throwIfAborted();
    const file = join(folder, `${block}.parquet`);
    const metadata = metadataClause({ applied: next, superseded: 0 });
    await free.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${await bronzeQuery(some)}`);
    const written = await write(free, `COPY (${clean}) TO ${literal(file)} (${parquet}, ${metadata})`).catch(
      (error: Error) => {
        if (!outOfMemory.test(error.message)) throw error;
        others.push(...some);
        return 0;
      },
    );
    if (others.includes(some[0] as BronzeFile)) return;
    if (written < messagesIn(some)) incomplete.push(...some);
    if (written === 0) return;
    rows += written;
    // The file's block is that of the messages' keys; what counts is that of the rows.
    const [strange] = await numbers(free, `SELECT count(*) FROM (${parquetRows(file)}) WHERE ${blockOf} <> ${block}`);
    if (strange === 0) blocks.set(block, { file });
    else mixed.push(file);
  };
  await allOf([...byBlock].map(([block, some]) => run.onFreeConnection((free) => cleanBlock(free, block, some))));
  // One after the other: a connection takes one query at a time.
  for (const file of mixed) {
    await connection.run(`INSERT INTO cleaned SELECT *, ${blockOf} FROM (${parquetRows(file)})`);
  }
  if (others.length > 0) {
    const bronze = await bronzeQuery(others);
    const added = await insert(at, { into: "cleaned", bronze, query: `SELECT *, ${blockOf} FROM (${clean})` });
    if (added < messagesIn(others)) incomplete.push(...others);
    rows += added;
  }
  for (const [block] of (await connection.runAndReadAll("SELECT DISTINCT block FROM cleaned")).getRows()) {
    blocks.set(Number(block), { ...blocks.get(Number(block)), inTable: true });
  }
  const messages = messagesIn(files);
  if (rows === messages) return { clean: rows, deleted: 0, rejected: 0, blocks };
  const deleted = await readDeletes(at, incomplete);
  for (const block of await deletedBlocks(at)) blocks.set(block, { ...blocks.get(block), deletes: true });
  if (rows + deleted === messages) return { clean: rows, deleted, rejected: 0, blocks };
  const written = [...blocks.values()].flatMap(({ file }) => (file === undefined ? [] : [parquetRows(file)]));
  const offsets = [...written, "FROM cleaned", "FROM deleted"].map(
    (from) => `SELECT _partition, _offset FROM (${from})`,
  );
  await connection.run(`CREATE OR REPLACE TEMP TABLE rejected ("table" VARCHAR, _partition INT, _offset BIGINT,
    _posted_at TIMESTAMPTZ, key BLOB, reason VARCHAR, detail VARCHAR, raw BLOB)`);
  const rejected = await insert(at, {
    into: "rejected",
    bronze: `SELECT * FROM (${await bronzeQuery(incomplete)}) ANTI JOIN (${offsets.join(" UNION ALL ")}) USING (_partition, _offset)`,
    query: `SELECT '${table}', _partition, _offset, _posted_at, reject_key, reject_reason, reject_detail, reject_raw
      FROM (${sql}) WHERE reject_reason IS NOT NULL`,
  });
  return { clean: rows, deleted, rejected, blocks };
}

/** Runs a statement that writes what the cleaning SQL makes of `bronze`; gives the number of rows. */
async function write(connection: DuckDBConnection, statement: string): Promise<number> {
  const [rows = 0] = await numbers(connection, statement).catch(async (error: Error) => {
    // The usual way takes no malformed JSON; from here on this connection goes the tolerant one.
    if (!/Malformed JSON/i.test(error.message)) throw error;
    await connection.run("SET VARIABLE tolerant = true");
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
  { run, connection }: TableRun,
  { into, bronze, query }: { into: string; bronze: string; query: string },
): Promise<number> {
  try {
    await connection.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${bronze}`);
    return await write(connection, `INSERT INTO ${into} ${query}`);
  } catch (error) {
    if (!outOfMemory.test((error as Error).message)) throw error;
  }
  // In an instance of its own, whose memory no other table takes.
  return await onePiecesAtATime(async () => {
    const spill = join(paths(run.lake).tmp, `pieces-${process.pid}`);
    const db = await openDuckDb(run.lake, { ...cleaning, memory_limit: pieceMemory, temp_directory: spill });
    const apart = await db.connect();
    try {
      let rows = 0;
      await connection.run(`CREATE OR REPLACE TEMP TABLE whole AS ${bronze}`);
      for (const range of await pieces(connection)) {
        run.signal.throwIfAborted();
        const [from, to] = ["piece", "made"].map((what) => temporaryPath(run.lake, `clean-${what}`, ".parquet")) as [
          string,
          string,
        ];
        await connection.run(`COPY (SELECT * FROM whole WHERE ${range}) TO ${literal(from)} (${parquet})`);
        await apart.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${parquetRows(from)}`);
        rows += await write(apart, `COPY (${query}) TO ${literal(to)} (${parquet})`);
        await connection.run(`INSERT INTO ${into} ${parquetRows(to)}`);
        await Promise.all([rm(from), rm(to)]);
      }
      return rows;
    } finally {
      await connection.run("DROP TABLE IF EXISTS whole");
      apart.closeSync();
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
