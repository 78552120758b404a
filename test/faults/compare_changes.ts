/**
 * What a round must leave whose tables were changed meanwhile: the newest message of each key is its row, or a delete
 * where there is none; and what a key's messages say, one after the other, is what its row has been.
 *
 * @module
 */

import { type Table, tableNames, tables } from "../../io.ts";
import { readCheckpoint } from "../../kafka/checkpoint.ts";
import { connectReader } from "../../kafka/client.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import type { Message } from "../support/oracle.ts";
import { rowMessages } from "./compare.ts";
import type { Sandbox } from "./sandbox.ts";
import { type History, versionColumn } from "./writers.ts";

/** What a comparison found; but for `again`, nothing when all went well. */
export interface ChangeFindings {
  /** Rows whose newest message is not the row as it is. */
  lost: number;
  /** Keys without a row whose newest message is one. */
  notDeleted: number;
  /** Whatever else is not as it must be. */
  wrong: string[];
  /** Which rows and keys those are. */
  examples: string[];
  /** Messages that say what the one of the key before them said, though nothing had changed: rows, and deletes. */
  again: { rows: number; deletes: number };
  messages: number;
}

/** What is compared. */
interface Changed {
  sandbox: Sandbox;
  messages: Record<Table, Message[]>;
  history: History;
  /** The broker's, with the prefix of the round. */
  kafka: KafkaSettings;
  /** Whether the checkpoint's number of rows is exact: MySQL's snapshots may show more than the log up to then. */
  countsExactly: boolean;
}

/** Compares topics and checkpoints with tables that nobody changes any more. */
export async function compareChanges(changed: Changed): Promise<ChangeFindings> {
  const findings: ChangeFindings = {
    lost: 0,
    notDeleted: 0,
    wrong: [],
    examples: [],
    again: { rows: 0, deletes: 0 },
    messages: 0,
  };
  for (const table of tableNames) {
    findings.messages += changed.messages[table].length;
    compareOrder(table, changed, findings);
    await compareNewest(table, changed, findings);
  }
  return findings;
}

/** The messages of a key are some of the states that its row had, in their order. */
function compareOrder(table: Table, { messages, history }: Changed, { wrong, again }: ChangeFindings): void {
  const last = new Map<string, { value: Buffer | null; place: number }>();
  for (const { key: bytes, value, partition, offset } of messages[table]) {
    const key = String(bytes);
    const states = history[table].get(key) ?? [];
    const text = textOf(table, value);
    const before = last.get(key);
    const isSame = before !== undefined && (value === null ? before.value === null : before.value?.equals(value));
    const place = states.findIndex((state, i) => i > (before?.place ?? -1) && state.text === text);
    if (place >= 0) last.set(key, { value, place });
    else if (isSame) again[value === null ? "deletes" : "rows"]++;
    else {
      const ever = states.some((state) => state.text === text) ? "which it was earlier" : "which it never was";
      const previous = before ? `after ${textOf(table, before.value)}` : "at first";
      wrong.push(`${table}: key ${key} is ${text} ${previous}, ${ever} (offset ${offset} of partition ${partition})`);
    }
  }
}

const textOf = (table: Table, value: Buffer | null): string | null =>
  value && String((JSON.parse(value.toString()) as Record<string, unknown>)[versionColumn[table]]);

/** The newest message of each key is the row; the checkpoint counts the rows. */
async function compareNewest(table: Table, changed: Changed, findings: ChangeFindings): Promise<void> {
  const { sandbox, messages, kafka, countsExactly } = changed;
  const newest = new Map(messages[table].map(({ key, value }) => [String(key), value]));
  const rows = await rowMessages(sandbox.db, table);
  for (const [key, json] of rows) {
    const value = newest.get(key);
    if (value?.toString() === json) continue;
    const isOld = !value || textOf(table, value) !== textOf(table, Buffer.from(json));
    if (isOld) findings.lost++;
    (isOld ? findings.examples : findings.wrong).push(
      `${table}: key ${key} is ${json.slice(0, 200)}, but in the topic ${value?.toString().slice(0, 200)}`,
    );
  }
  for (const [key, value] of newest) {
    if (value === null || rows.has(key)) continue;
    findings.notDeleted++;
    findings.examples.push(`${table}: key ${key} is gone, but in the topic ${value.toString().slice(0, 100)}`);
  }
  await using reader = await connectReader(kafka);
  const checkpoint = await readCheckpoint(reader, kafka, table);
  const { source } = tables[table];
  if (checkpoint?.full && !checkpoint.full.done) findings.wrong.push(`${table}: the full run is not finished`);
  if (!checkpoint?.log) findings.wrong.push(`${table}: the log is not followed`);
  if (countsExactly && checkpoint?.rows !== rows.size)
    findings.wrong.push(`${table}: the checkpoint counts ${checkpoint?.rows} rows, but "${source}" has ${rows.size}`);
}
