/**
 * Creates a lake from messages without Kafka, for tests of cleaning: bronze as `clean` writes it, the rest by `cleanLanded`.
 *
 * @module
 */

import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { cleanLanded } from "../../clean/rebuild.ts";
import type { CleanResult } from "../../clean/run.ts";
import { bronzeLines } from "../../io/bronze_lines.ts";
import type { RecordView } from "../../io/record_batch.ts";
import { type Table, tableNames } from "../../io.ts";
import { bronzeName, largeMessage } from "../../lake/bronze.ts";
import { names, paths } from "../../lake/files.ts";
import { writeIdentity } from "../../lake/owner.ts";
import type { Message } from "./oracle.ts";
import { query } from "./support.ts";

type Messages = Partial<Record<Table, Message[]>>;

/** Lands messages in `lake` and cleans them. */
export async function makeLake(lake: string, messages: Messages, options: LandOptions = {}): Promise<CleanResult> {
  await landMessages(lake, messages, options);
  return cleanLanded({ lake, signal: new AbortController().signal, onFact: () => {} });
}

/** Settings of {@link landMessages}. */
interface LandOptions {
  /** Messages per file. Default: 2,000. */
  perFile?: number;
}

/** Writes the messages of each partition to bronze in files of `perFile` messages; a large message gets its own file. */
export async function landMessages(lake: string, messages: Messages, { perFile = 2_000 }: LandOptions): Promise<void> {
  await mkdir(lake, { recursive: true });
  await writeIdentity(lake, { cluster: "test", prefix: "test", database: null, sql: "" });
  for (const table of tableNames) {
    await mkdir(paths(lake).bronze(table), { recursive: true });
    for (const partition of [0, 1, 2]) {
      const ours = (messages[table] ?? []).filter((message) => message.partition === partition);
      for (let at = 0, end = 0; at < ours.length; at = end) {
        const large = ours.slice(at, at + perFile).findIndex(({ value }) => (value?.length ?? 0) > largeMessage);
        end = large < 0 ? at + perFile : at + Math.max(large, 1);
        const some = ours.slice(at, end);
        const first = at === 0 ? 0 : (some[0] as Message).offset;
        const next = ours[end]?.offset ?? (some.at(-1) as Message).offset + 1;
        const lines = bronzeLines();
        for (const message of some) lines.add(partition, viewOf(message));
        const name = bronzeName({ partition, first, next, messages: some.length });
        await writeFile(join(paths(lake).bronze(table), name), lines.take());
      }
    }
  }
}

/** A message as the decoder returns it. */
export function viewOf({ offset, postedAt, key, value }: Message): RecordView {
  const bytes = Buffer.concat([key ?? Buffer.alloc(0), value ?? Buffer.alloc(0)]);
  const [keyStart, keyEnd] = key ? [0, key.length] : [-1, -1];
  const [valueStart, valueEnd] = value ? [key?.length ?? 0, bytes.length] : [-1, -1];
  return { offset, timestamp: postedAt ?? -1, bytes, keyStart, keyEnd, valueStart, valueEnd };
}

/** Silver rows in the oracle's types: bigint microseconds for times, numbers in coordinates. */
export async function readSilver(lake: string, table: Table, where = "true"): Promise<Record<string, unknown>[]> {
  const files = `${paths(lake).silver(table)}/*.parquet`;
  const described = await query(`DESCRIBE FROM read_parquet('${files}', hive_partitioning = false)`);
  const columns = described.map(({ column_name: name, column_type: type }) =>
    type === "TIMESTAMP WITH TIME ZONE" ? `epoch_us(${name}) AS ${name}` : name,
  );
  const rows = await query(
    `SELECT ${columns.join(", ")} FROM read_parquet('${files}', hive_partitioning = false) WHERE ${where} ORDER BY ind`,
  );
  for (const row of rows) {
    for (const [name, value] of Object.entries(row)) {
      if (typeof value === "object" && value && "items" in value) row[name] = value.items;
    }
  }
  return rows;
}

/** The deletes of a table in the oracle's types, by ind. */
export async function readDeletes(lake: string, table: Table): Promise<Record<string, unknown>[]> {
  if ((await names(paths(lake).deletes(table))).length === 0) return [];
  return await query(
    `SELECT ind, _partition, _offset, epoch_us(_posted_at) AS _posted_at
      FROM read_parquet('${paths(lake).deletes(table)}/*.parquet', hive_partitioning = false) ORDER BY ind`,
  );
}

/** Rejects of a table, with keys and raw values as Buffers. */
export async function readRejects(lake: string, table: Table): Promise<Record<string, unknown>[]> {
  const rows = await query(
    `SELECT *, epoch_us(_posted_at) AS posted FROM read_parquet('${paths(lake).rejects}/${table}-*.parquet', hive_partitioning = false) ORDER BY _partition, _offset`,
  );
  const bytes = (value: unknown) => (value === null ? null : Buffer.from((value as { bytes: Uint8Array }).bytes));
  return rows.map((row) => ({ ...row, _offset: Number(row._offset), key: bytes(row.key), raw: bytes(row.raw) }));
}
