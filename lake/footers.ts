/**
 * The metadata in the footers of the lake's Parquet files.
 *
 * @module
 */

import { join } from "node:path";
import type { DuckDBConnection } from "@duckdb/node-api";
import { literal, literals } from "./duckdb.ts";
import { explainDisk, names, type Offsets } from "./files.ts";

/** The metadata of a Parquet file of the lake. */
export interface FileState {
  rows: number;
  /** Messages below these offsets are applied. */
  applied: Offsets;
  /** Of a rejects file: the first offset of the lake in each partition. */
  begun: Offsets;
  /** Of a silver block: clean messages and deletes that lost to a newer one with the same ind. */
  superseded: number;
  /** Of a silver block: `applied` of its deletes; empty if it never had deletes. */
  deletes: Offsets;
  /** Of a rejects file: the number of rejects by reason. */
  reasons: Record<string, number>;
}

/** The state of a file without rows and metadata. */
export const noState: FileState = {
  ...{ rows: 0, applied: new Map(), begun: new Map() },
  ...{ superseded: 0, deletes: new Map(), reasons: {} },
};

/** An SQL condition: messages at or above these offsets. */
export const notIn = (applied: Offsets): string =>
  [...applied].map(([partition, next]) => `NOT (_partition = ${partition} AND _offset < ${next})`).join(" AND ") ||
  "true";

export const sameOffsets = (one: Offsets, other: Offsets): boolean =>
  one.size === other.size && [...one].every(([partition, next]) => other.get(partition) === next);

/** The metadata of all Parquet files in a folder whose names start with `prefix`, by name without extension. */
export async function fileStates(db: DuckDBConnection, folder: string, prefix = ""): Promise<Map<string, FileState>> {
  const states = new Map<string, FileState>();
  const files = (await names(folder)).filter((name) => name.startsWith(prefix) && name.endsWith(".parquet"));
  if (files.length === 0) return states;
  const list = literals(files.map((name) => join(folder, name)));
  const rows = await db
    .runAndReadAll(`SELECT file_name, num_rows FROM parquet_file_metadata(${list})`)
    .catch((error: unknown) => {
      throw explainDisk(error, folder);
    });
  const key = (path: unknown) => String(path).slice(folder.length + 1, -".parquet".length);
  for (const [file, count] of rows.getRows()) {
    states.set(key(file), { ...noState, rows: Number(count) });
  }
  const metadata = await db.runAndReadAll(
    `SELECT file_name, decode(key), decode(value) FROM parquet_kv_metadata(${list})`,
  );
  for (const [file, name, value] of metadata.getRows()) {
    const state = states.get(key(file));
    if (!state) continue;
    if (name === "applied") state.applied = parseOffsets(String(value));
    if (name === "begun") state.begun = parseOffsets(String(value));
    if (name === "superseded") state.superseded = Number(value);
    if (name === "deletes") state.deletes = parseOffsets(String(value));
    if (name === "reasons") state.reasons = JSON.parse(String(value)) as Record<string, number>;
  }
  return states;
}

const parseOffsets = (json: string): Offsets =>
  new Map(
    Object.entries(JSON.parse(json) as Record<string, number>).map(([partition, next]) => [Number(partition), next]),
  );

/** The COPY option that writes the metadata for {@link fileStates}. */
export function metadataClause(state: Pick<FileState, "applied"> & Partial<FileState>): string {
  const offsets = (map: Offsets) => literal(JSON.stringify(Object.fromEntries(map)));
  const entries = [`applied: ${offsets(state.applied)}`];
  if (state.begun) entries.push(`begun: ${offsets(state.begun)}`);
  if (state.superseded !== undefined) entries.push(`superseded: ${literal(String(state.superseded))}`);
  if (state.deletes?.size) entries.push(`deletes: ${offsets(state.deletes)}`);
  if (state.reasons) entries.push(`reasons: ${literal(JSON.stringify(state.reasons))}`);
  return `KV_METADATA {${entries.join(", ")}}`;
}

/** The offsets of a table that are done, from its newest rejects file. */
export function doneOffsets(rejects: Map<string, FileState>): Pick<FileState, "begun" | "applied"> {
  const newest = [...rejects.keys()].sort().at(-1);
  return (newest === undefined ? undefined : rejects.get(newest)) ?? noState;
}
