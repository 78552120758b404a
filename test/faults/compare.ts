/**
 * Checks the result of a round without the program's code: every source row once in its topic and in order, silver as an
 * independent implementation of the specification gives it, the ledger as counted here.
 *
 * @module
 */

import { isDeepStrictEqual } from "node:util";
import { type ColumnKind, type Table, tableNames, tables } from "../../io.ts";
import { paths } from "../../lake/files.ts";
import { readSilver } from "../support/lake_of.ts";
import { cleanTable, type Message } from "../support/oracle.ts";
import { query } from "../support/support.ts";
import { readTopics } from "./readers.ts";
import { type Sandbox, sourceRows } from "./sandbox.ts";

/** The database, topics and lake of a round. */
export type Compared = Pick<Sandbox, "db" | "prefix" | "lake" | "copies" | "isForeign">;

/** Result of a comparison; lost, doubled and wrong are 0 or empty if all is well. */
export interface Findings {
  lost: number;
  doubled: number;
  /** Other differences. */
  wrong: string[];
}

/** The committed messages of a round's three topics. */
export async function readMessages(
  brokers: string[],
  { prefix }: Compared,
  python: string,
): Promise<Record<Table, Message[]>> {
  const topics = tableNames.map((table) => `${prefix}.${table}`);
  const read = await readTopics(python, brokers.join(","), topics);
  return Object.fromEntries(tableNames.map((table, i) => [table, read[i]])) as Record<Table, Message[]>;
}

/** Compares MySQL with the topics. */
export async function compareTopics(sandbox: Compared, messages: Record<Table, Message[]>): Promise<Findings> {
  const findings: Findings = { lost: 0, doubled: 0, wrong: [] };
  for (const table of tableNames) await compareTopic(sandbox, table, messages[table], findings);
  return findings;
}

/** Compares the topics with the lake. */
export async function compareLake(sandbox: Compared, messages: Record<Table, Message[]>): Promise<Findings> {
  const findings: Findings = { lost: 0, doubled: 0, wrong: [] };
  for (const table of tableNames) await compareTable(sandbox, table, messages[table], findings);
  return findings;
}

/** The expected messages of the MySQL rows, by key, in key order. */
export async function rowMessages(db: Compared["db"], table: Table): Promise<Map<string, string>> {
  const { source, key, columns } = tables[table];
  const { rows, columns: names } = await sourceRows(db, table, source, key);
  const kinds = names.map((name) => (columns as Record<string, ColumnKind>)[name] as ColumnKind);
  const place = names.indexOf(key);
  return new Map(rows.map((row) => [row[place] as string, asJson(names, kinds, row)]));
}

/** Checks that every source row occurs as often as it must, byte for byte, in key order within its partition. */
async function compareTopic(sandbox: Compared, table: Table, messages: Message[], findings: Findings): Promise<void> {
  const wanted = await rowMessages(sandbox.db, table);
  const times = new Map<string, number>();
  const last = new Map<number, number>();
  let falls = 0;
  for (const message of messages) {
    const text = message.key?.toString();
    if (sandbox.isForeign(text)) continue;
    const value = wanted.get(text as string);
    if (value === undefined) findings.wrong.push(`${table}: key ${text} is in the topic, but not in MySQL`);
    else if (value !== message.value?.toString()) findings.wrong.push(`${table}: key ${text} has another value`);
    times.set(text as string, (times.get(text as string) ?? 0) + 1);
    if (Number(text) < (last.get(message.partition) ?? Number.NEGATIVE_INFINITY)) falls++;
    last.set(message.partition, Number(text));
  }
  for (const name of wanted.keys()) {
    const found = times.get(name) ?? 0;
    findings.lost += Math.max(0, sandbox.copies - found);
    findings.doubled += Math.max(0, found - sandbox.copies);
  }
  const partitions = new Set(messages.map(({ partition }) => partition)).size;
  if (falls > (sandbox.copies - 1) * partitions) findings.wrong.push(`${table}: keys go down ${falls} times`);
}

/** Implemented again here, so that a mistake in io.ts shows. */
function asJson(names: string[], kinds: ColumnKind[], row: (string | null)[]): string {
  const pairs = row.map((text, i) => {
    const number = kinds[i] === "int" || kinds[i] === "float";
    return `${JSON.stringify(names[i])}:${text === null ? "null" : number ? text : JSON.stringify(text)}`;
  });
  return `{${pairs.join(",")}}`;
}

/** About this many rows of a large table are compared column by column, the others by key and origin only. */
const sampled = 2_000;

/** Checks that silver, rejects and ledger follow from the messages. */
async function compareTable(sandbox: Compared, table: Table, messages: Message[], findings: Findings): Promise<void> {
  const { lake } = sandbox;
  // A source row is clean, and a source key without a value is a delete, so the key decides the result. Messages of
  // other producers are read by the specification.
  const every = Math.ceil(messages.length / sampled);
  const isRead = (key: string | undefined) => sandbox.isForeign(key) || Number(key) % every === 0;
  const wanted = cleanTable(
    table,
    messages.filter(({ key }) => isRead(key?.toString())),
  );
  const plain = messages.filter(({ key }) => !isRead(key?.toString()));
  const newest = new Map<string, Message>();
  for (const message of plain) {
    const key = String(message.key);
    const other = newest.get(key);
    if (!other || isNewer(message, other)) newest.set(key, message);
  }
  const inds = await query(
    `SELECT ind::VARCHAR AS ind, _partition, _offset::DOUBLE AS _offset FROM '${paths(lake).silver(table)}/*.parquet'`,
  );
  const found = new Set<string>();
  for (const { ind, _partition, _offset } of inds as { ind: string; _partition: number; _offset: number }[]) {
    if (found.has(ind)) findings.doubled++;
    found.add(ind);
    if (wanted.rows.has(BigInt(ind) as never)) continue;
    const origin = newest.get(ind);
    if (!origin || origin.value === null)
      findings.wrong.push(`${table}: silver has ind ${ind}, which no message gives, or which was deleted`);
    else if (origin.partition !== _partition || origin.offset !== _offset)
      findings.wrong.push(`${table}: silver's ind ${ind} is not the newest`);
  }
  const plainRows = [...newest].filter(([, { value }]) => value !== null).map(([ind]) => ind);
  for (const ind of [...plainRows, ...[...wanted.rows.keys()].map(String)]) if (!found.has(ind)) findings.lost++;
  for (const row of await readSilver(lake, table, every === 1 ? "true" : `ind % ${every} = 0`)) {
    const expected = wanted.rows.get(row.ind as never);
    if (expected && !isDeepStrictEqual(row, expected))
      findings.wrong.push(`${table}: silver's ind ${row.ind} has other columns`);
  }

  const at = ({ _partition, _offset }: Record<string, unknown>) => `${_partition}/${_offset}`;
  const rejects = await query(
    `SELECT _partition, _offset::DOUBLE AS _offset, reason FROM '${paths(lake).rejects}/${table}-*.parquet'`,
  );
  const places = new Map<string, string>();
  for (const reject of rejects) {
    if (places.has(at(reject))) findings.doubled++;
    places.set(at(reject), String(reject.reason));
  }
  for (const reject of wanted.rejects as Record<string, unknown>[]) {
    const reason = places.get(at(reject));
    if (reason === undefined) findings.lost++;
    else if (reason !== reject.reason) findings.wrong.push(`${table}: ${at(reject)} was rejected as ${reason}`);
    places.delete(at(reject));
  }
  if (places.size > 0) findings.wrong.push(`${table}: ${places.size} rejects that should not be`);

  const [ledger] = await query(`SELECT * FROM '${paths(lake).gold}/ledger.parquet' WHERE "table" = '${table}'`);
  const clean = wanted.rows.size + plainRows.length;
  const superseded = wanted.superseded + plain.length - newest.size;
  const deleted = wanted.deletes.size + newest.size - plainRows.length;
  const counts = { messages: messages.length, clean, superseded, deleted };
  for (const [name, count] of Object.entries({ ...counts, rejected: wanted.rejects.length })) {
    if (Number(ledger?.[name]) !== count) {
      findings.wrong.push(`${table}: the ledger says ${ledger?.[name]} ${name}, but there are ${count}`);
    }
  }
}

const isNewer = (one: Message, other: Message): boolean => {
  const order = (m: Message) => [m.postedAt ?? -1, m.partition, m.offset];
  const at = order(one).findIndex((n, i) => n !== order(other)[i]);
  return at >= 0 && (order(one)[at] as number) > (order(other)[at] as number);
};
