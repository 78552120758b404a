/**
 * Checks the result of a round with changed tables: the newest message of each key is its row, or a delete if there is
 * none, and the messages of a key are states that its row had, in order.
 *
 * @module
 */

import { type Table, tableNames, tables } from "../../io.ts";
import { readCheckpoints } from "../../kafka/checkpoint.ts";
import { connectReader } from "../../kafka/client.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import type { Message } from "../support/oracle.ts";
import { rowMessages } from "./compare.ts";
import type { Sandbox } from "./sandbox.ts";
import { type History, versionColumn } from "./writers.ts";

/** Result of a comparison; all except `again` are empty if all is well. */
export interface ChangeFindings {
  /** Rows that differ from their newest message. */
  lost: number;
  /** Keys without a row whose newest message is not a delete. */
  notDeleted: number;
  /** Other differences. */
  wrong: string[];
  /** The rows and keys that differ. */
  examples: string[];
  /** Messages that repeat the previous one of their key without a change: rows and deletes. */
  again: { rows: number; deletes: number };
  messages: number;
}

/** The topics and tables to compare. */
interface Changed {
  sandbox: Sandbox;
  messages: Record<Table, Message[]>;
  history: History;
  /** Settings of the broker, with the prefix of the round. */
  kafka: KafkaSettings;
  /** Whether the checkpoint's number of rows is exact: MySQL's snapshots may be newer than their log position. */
  countsExactly: boolean;
}

/** Compares topics and checkpoints with tables that no longer change. */
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

/** Checks that the messages of a key are states that its row had, in order. */
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

/** Checks that the newest message of each key is the row, and that the checkpoint counts the rows. */
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
  const { [table]: checkpoint } = await readCheckpoints(reader, kafka, [table]);
  const { source } = tables[table];
  if (checkpoint?.full && !checkpoint.full.done) findings.wrong.push(`${table}: the full run is not finished`);
  if (!checkpoint?.log) findings.wrong.push(`${table}: the log is not followed`);
  if (countsExactly && checkpoint?.rows !== rows.size)
    findings.wrong.push(`${table}: the checkpoint counts ${checkpoint?.rows} rows, but "${source}" has ${rows.size}`);
}
