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
import {
  isOutOfMemory,
  literal,
  memoryLimit,
  numbers,
  openDuckDb,
  parquet,
  parquetRows,
  quoted,
} from "../lake/duckdb.ts";
import { type Offsets, paths, temporaryPath } from "../lake/files.ts";
import { doneOffsets, metadataClause } from "../lake/footers.ts";
import { blockName, blockOf } from "../lake/silver.ts";
import { explainSql, readQuery } from "../lake/sql_files.ts";
import { allOf } from "../runtime/retry.ts";
import { step } from "../runtime/steps.ts";
import { deletedBlocks, finishDeletes, readDeletes } from "./deletes.ts";
import { type NewRows, publishBlock, publishRejects } from "./publish.ts";
import { cleaning, type TableRun } from "./run.ts";

/** The bronze files that were landed but not cleaned. */
export function unapplied({ bronze, rejects }: TableRun): BronzeFile[] {
  const { applied } = doneOffsets(rejects);
  return bronze.filter((file) => file.next > (applied.get(file.partition) ?? 0));
}

/** Cleans files that were landed before a stop, or before Kafka became unavailable. */
export async function finishLanded(at: TableRun): Promise<void> {
  await finishDeletes(at, unapplied(at));
  for (const files of await at.run.batches(unapplied(at))) await applyBatch(at, files);
}

/** Cleans and publishes one batch: silver blocks with their deletes first, then the rejects, which mark it as done. */
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
      const found = await cleanBatch(at, { files: some, folder, next }).catch((error: Error) => {
        const [line = ""] = /CSV Error.*/.exec(error.message) ?? [];
        throw line ? damaged(some, `cannot be read (${line})`, error) : explainSql(`clean_${table}.sql`, error);
      });
      const read = found.clean + found.deleted + found.rejected;
      if (read !== messages) throw damaged(some, `hold ${read} messages, but their names promise ${messages}`);
      for (const [block, rows] of found.blocks) {
        run.signal.throwIfAborted();
        const isThere = at.silver.has(blockName(block));
        const publishing = publishBlock(at, { block, rows, next });
        await (isThere ? run.rewriting.time(publishing) : publishing);
      }
      rejected = found.rejected;
    }
    run.signal.throwIfAborted();
    await publishRejects(at, { next, begun, rejected });
  } catch (error) {
    if (!isOutOfMemory(error)) throw error;
    throw new Error(
      `Cannot clean "${table}": its rows need more than the ${memoryLimit} of memory that DuckDB may use; nothing is lost: shorten rows of several megabytes, simplify sql/clean_${table}.sql if you edited it, or clean with Spark`,
      { cause: error },
    );
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

/** The offsets where the table begins and ends after these files; they must follow the files that are done. */
function offsetsAfter({ table, rejects }: TableRun, files: BronzeFile[]): { next: Offsets; begun: Offsets } {
  const done = doneOffsets(rejects);
  const begun: Offsets = new Map(done.begun);
  for (const { partition, first } of files) {
    begun.set(partition, Math.min(first, begun.get(partition) ?? first));
    const end = done.applied.get(partition) ?? first;
    if (!files.some((file) => file.partition === partition && file.first <= end)) {
      throw new Error(`Messages before offset ${first} of ${table} were landed but not cleaned: run clean again`);
    }
  }
  return { next: laterOffsets(done.applied, landedOffsets(files)), begun };
}

const damaged = (files: BronzeFile[], what: string, cause?: unknown): Error =>
  new Error(
    `Bronze is damaged: ${files.map(({ path }) => `"${path}"`).join(", ")} ${what}; restore them, or start a new lake with another --data`,
    { cause },
  );

/** A cleaned batch: counts of messages, and the new rows by key block. */
interface Cleaned {
  clean: number;
  deleted: number;
  rejected: number;
  blocks: Map<number, NewRows>;
}

/**
 * Cleans a batch with the SQL of `sql/`. Deletes go to the temporary table `deleted`, rejects to `rejected`.
 *
 * Bronze files with the keys of one block are written from the parser to that block's Parquet file, which is a quarter
 * faster than through a table. Deletes and rejects are therefore found afterwards, in files where the rows are fewer
 * than the messages; usually there are none.
 */
async function cleanBatch(
  at: TableRun,
  { files, folder, next }: { files: BronzeFile[]; folder: string; next: Offsets },
): Promise<Cleaned> {
  const { run, table, connection } = at;
  const sql = readQuery(`clean_${table}.sql`);
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
        if (!isOutOfMemory(error)) throw error;
        others.push(...some);
        return 0;
      },
    );
    if (others.includes(some[0] as BronzeFile)) return;
    if (written < messagesIn(some)) incomplete.push(...some);
    if (written === 0) return;
    rows += written;
    // The block was guessed from the message keys; check it against the rows.
    const [strange] = await numbers(free, `SELECT count(*) FROM (${parquetRows(file)}) WHERE ${blockOf} <> ${block}`);
    if (strange === 0) blocks.set(block, { file });
    else mixed.push(file);
  };
  await allOf([...byBlock].map(([block, some]) => run.onFreeConnection((free) => cleanBlock(free, block, some))));
  // In sequence: a connection runs one query at a time.
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

/** Runs a statement that writes the cleaned rows of `bronze`; returns their number. */
async function write(connection: DuckDBConnection, statement: string): Promise<number> {
  const [rows = 0] = await numbers(connection, statement).catch(async (error: Error) => {
    // The fast parser throws on malformed JSON; from now on this connection uses the tolerant one.
    if (!/Malformed JSON/i.test(error.message)) throw error;
    await connection.run("SET VARIABLE tolerant = true");
    return await numbers(connection, statement);
  });
  return rows;
}

/**
 * Inserts the result of a query over `bronze` into a table; returns the number of rows.
 *
 * DuckDB parses thousands of messages together and allocates 16 bytes for every bracket or digit, so a crafted batch of
 * 192 MB needs twenty times its size. If memory runs out, the batch is therefore parsed in pieces.
 */
async function insert(
  { run, connection }: TableRun,
  { into, bronze, query }: { into: string; bronze: string; query: string },
): Promise<number> {
  try {
    await connection.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${bronze}`);
    return await write(connection, `INSERT INTO ${into} ${query}`);
  } catch (error) {
    if (!isOutOfMemory(error)) throw error;
  }
  // In a separate DuckDB instance, whose memory is not shared with other tables.
  return await oneAtATime(async () => {
    const spill = join(paths(run.lake).tmp, `pieces-${process.pid}`);
    const db = await openDuckDb(run.lake, { ...cleaning, memory_limit: pieceMemory, temp_directory: spill });
    const separate = await db.connect();
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
        await separate.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${parquetRows(from)}`);
        rows += await write(separate, `COPY (${query}) TO ${literal(to)} (${parquet})`);
        await connection.run(`INSERT INTO ${into} ${parquetRows(to)}`);
        await Promise.all([rm(from), rm(to)]);
      }
      return rows;
    } finally {
      await connection.run("DROP TABLE IF EXISTS whole");
      separate.closeSync();
      db.closeSync();
    }
  });
}

const oneAtATime = pLimit(1);

/** The size of a piece in bytes, and the memory to parse its largest message. */
const pieceBytes = 8_000_000;
const pieceMemory = "1500MB";

/** Conditions that split the table `whole` into pieces; a message larger than a piece is one by itself. */
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
