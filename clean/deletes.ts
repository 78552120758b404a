/**
 * Deletes: messages with a key and no value. A delete removes its row from silver and is kept beside it, so that an
 * older row that arrives later stays out.
 *
 * The deletes of a block are published after its silver, whose footer says up to which offsets they go. If clean is
 * stopped between the two, the next clean rebuilds these deletes before it cleans anything else. So silver and deletes
 * of a block are always of the same messages when it is published again, however files are grouped then.
 *
 * @module
 */

import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import type { BronzeFile } from "../lake/bronze.ts";
import { bronzeQuery } from "../lake/bronze_query.ts";
import { isOutOfMemory, numbers, parquetRows, writeParquet } from "../lake/duckdb.ts";
import { type Offsets, paths, putInPlace, temporaryPath } from "../lake/files.ts";
import { metadataClause, noState, notIn, sameOffsets } from "../lake/footers.ts";
import { blockName, blockOf } from "../lake/silver.ts";
import { explainSql, readQuery } from "../lake/sql_files.ts";
import { step } from "../runtime/steps.ts";
import type { TableRun } from "./run.ts";

/** SQL that compares the age of two rows; a message without a time is the oldest. */
const isNewer = (one: string, other: string): string => {
  const age = (row: string) => `row(coalesce(epoch_us(${row}._posted_at), -1), ${row}._partition, ${row}._offset)`;
  return `${age(one)} > ${age(other)}`;
};

/** The rank of a row among those with its ind: 1 is the newest. */
const rank = "row_number() OVER (PARTITION BY ind ORDER BY _posted_at DESC NULLS LAST, _partition DESC, _offset DESC)";

/** A query for the newest row of each ind. Only the columns that the rank needs are sorted. */
export const newestRows = (rows: string): string =>
  `SELECT * FROM (${rows}) ANTI JOIN (
    SELECT _partition, _offset FROM (SELECT ind, _posted_at, _partition, _offset FROM (${rows})) QUALIFY ${rank} > 1
  ) USING (_partition, _offset)`;

/**
 * Writes the rows of a block to a Parquet file; returns their number. They are sorted by ind if they come from a join,
 * which mixes them, and if memory suffices: DuckDB holds all rows that it sorts.
 */
export async function writeBlock(
  connection: DuckDBConnection,
  rows: string,
  { joined, ...to }: Parameters<typeof writeParquet>[2] & { joined: boolean },
): Promise<number> {
  if (joined) {
    try {
      return await writeParquet(connection, `${rows} ORDER BY ind`, to);
    } catch (error) {
      if (!isOutOfMemory(error)) throw error;
    }
  }
  return await writeParquet(connection, rows, to);
}

/** Reads the deletes of some bronze files into the temporary table `deleted`; returns their number. */
export async function readDeletes({ table, connection }: TableRun, files: BronzeFile[]): Promise<number> {
  step("deletes", table);
  await connection.run(
    "CREATE OR REPLACE TEMP TABLE deleted (ind BIGINT, _partition INT, _offset BIGINT, _posted_at TIMESTAMPTZ, block BIGINT)",
  );
  await connection.run(`CREATE OR REPLACE TEMP VIEW bronze AS ${await bronzeQuery(files)}`);
  const columns = "ind, _partition, _offset, _posted_at";
  // Sorted, so that a query for one block skips the others.
  const [deletes = 0] = await numbers(
    connection,
    `INSERT INTO deleted SELECT ${columns}, ${blockOf} AS block FROM (${readQuery("deletes.sql")}) ORDER BY block`,
  ).catch((error: unknown) => {
    throw explainSql("deletes.sql", error);
  });
  return deletes;
}

/** The key blocks of the rows in `deleted`. */
export async function deletedBlocks({ connection }: TableRun): Promise<number[]> {
  const found = await connection.runAndReadAll("SELECT DISTINCT block FROM deleted");
  return found.getRows().map(([block]) => Number(block));
}

const deletesPath = ({ run, table }: TableRun, name: string): string =>
  join(paths(run.root).deletes(table), `${name}.parquet`);

/** Collects deletes of a block in the table `candidates`: published ones, and those of `deleted` that match `which`. */
async function gather(at: TableRun, block: number, which: string | undefined): Promise<void> {
  const name = blockName(block);
  const parts = at.deletes.has(name) ? [`SELECT *, false AS fresh FROM (${parquetRows(deletesPath(at, name))})`] : [];
  if (which !== undefined) {
    parts.push(`SELECT * EXCLUDE (block), true AS fresh FROM deleted WHERE block = ${block} AND ${which}`);
  }
  await at.connection.run(`CREATE OR REPLACE TEMP TABLE candidates AS ${parts.join(" UNION ALL BY NAME ")}`);
}

const newest = `SELECT * EXCLUDE (fresh) FROM candidates QUALIFY ${rank} = 1`;

/** A silver block to publish together with its deletes. */
interface BlockWithDeletes {
  block: number;
  path: string;
  /** Queries for the new rows of the block, and for all of its rows. */
  fresh: string;
  both: string;
  applied: Offsets;
  /** Whether `deleted` has rows of the block. */
  hasNew: boolean;
}

/** Publishes a block that has or gets deletes: first silver with the counts, then the deletes that win over its rows. */
export async function publishWithDeletes(
  at: TableRun,
  { block, path, fresh, both, applied, hasNew }: BlockWithDeletes,
): Promise<void> {
  const { run, table, connection, silver } = at;
  const name = blockName(block);
  const state = silver.get(name) ?? noState;
  await gather(at, block, hasNew ? notIn(state.applied) : undefined);
  const [rowsNew = 0, deletesNew = 0, touched = 0] = await numbers(
    connection,
    `SELECT (SELECT count(*) FROM (${fresh})), (SELECT count(*) FROM candidates WHERE fresh),
      (SELECT count(*) FROM (${fresh}) SEMI JOIN candidates USING (ind))`,
  );
  if (rowsNew + deletesNew === 0) return;
  const [losers = 0, doubles = 0] = await numbers(
    connection,
    `SELECT count(*) - count(DISTINCT ind), count(*) FILTER (is_row) - count(DISTINCT ind) FILTER (is_row)
      FROM (SELECT ind, true AS is_row FROM (${both}) UNION ALL SELECT ind, false FROM candidates)`,
  );
  const rows = doubles === 0 ? both : newestRows(both);
  const winners = `SELECT * FROM (${rows}) AS one ANTI JOIN (${newest}) AS other
    ON one.ind = other.ind AND ${isNewer("other", "one")}`;
  const superseded = state.superseded + losers;
  const isOther = deletesNew + touched > 0;
  const deletes = isOther ? applied : state.deletes;
  const temporary = temporaryPath(run.lake, `silver-${table}`, ".parquet");
  const metadata = metadataClause({ applied, superseded, deletes });
  const count = await writeBlock(connection, winners, { to: temporary, metadata, joined: losers > 0 });
  await putInPlace(temporary, path);
  silver.set(name, { ...noState, rows: count, applied, superseded, deletes });
  run.signal.throwIfAborted();
  if (isOther) await publishDeletes(at, { block, path, applied });
}

/** Publishes those of `candidates` that are newer than other deletes and rows of the same ind. */
async function publishDeletes(
  at: TableRun,
  { block, path, applied }: { block: number; path: string; applied: Offsets },
): Promise<void> {
  const { run, table, connection } = at;
  const name = blockName(block);
  await mkdir(paths(run.root).deletes(table), { recursive: true });
  const temporary = temporaryPath(run.lake, `deletes-${table}`, ".parquet");
  const rows = await writeParquet(
    connection,
    `SELECT * FROM (${newest}) AS one ANTI JOIN (${parquetRows(path)}) AS other
      ON one.ind = other.ind AND ${isNewer("other", "one")} ORDER BY ind`,
    { to: temporary, metadata: metadataClause({ applied }) },
  );
  await putInPlace(temporary, deletesPath(at, name));
  at.deletes.set(name, { ...noState, rows, applied });
}

/** Rebuilds deletes that are missing because of a stop after their silver. `files` are those not cleaned yet. */
export async function finishDeletes(at: TableRun, files: BronzeFile[]): Promise<void> {
  const { run, table, connection } = at;
  const isIn = (applied: Offsets) => (file: BronzeFile) => file.first < (applied.get(file.partition) ?? 0);
  // Without unfinished files a missing deletes file was lost: the ledger reports that.
  const behind = [...at.silver].filter(
    ([name, { applied, deletes }]) =>
      deletes.size > 0 &&
      files.some(isIn(applied)) &&
      !sameOffsets(deletes, at.deletes.get(name)?.applied ?? new Map()),
  );
  if (behind.length === 0) return;
  try {
    // A batch consists of whole files: silver holds all messages of a file that was started.
    await readDeletes(
      at,
      files.filter((file) => behind.some(([, { applied }]) => isIn(applied)(file))),
    );
    for (const [name, { deletes }] of behind) {
      run.signal.throwIfAborted();
      await gather(at, Number(name), "true");
      const path = join(paths(run.root).silver(table), `${name}.parquet`);
      await publishDeletes(at, { block: Number(name), path, applied: deletes });
    }
  } finally {
    await connection.run("DROP TABLE IF EXISTS deleted; DROP TABLE IF EXISTS candidates");
  }
}
