/**
 * The `status` command: how far each table is. It starts no services and changes nothing.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { count, duration, sum } from "../io/text.ts";
import type { Table } from "../io.ts";
import type { LedgerRow } from "../lake/ledger.ts";
import { reportAge } from "../report/age.ts";
import { openStatus, type Source, type TableStatus, unseenDeletes } from "../report/status.ts";
import { programName } from "../runtime/program.ts";
import { type Context, type FoundServices, findServicesOf, sayOthers, sayUsed } from "./connect.ts";
import { ownKafka } from "./credentials.ts";
import { formatBehind, formatByTable, formatReasons } from "./format.ts";

/** Pause between two readings of `--watch`, ms. */
const watchMs = 2_000;

/** One reading of the services and the lake. */
interface Reading {
  tables: Record<string, TableStatus>;
  /** Hints, such as an old report. */
  notes: string[];
  /** The services that cannot be asked and why, and rows that MySQL no longer has. */
  trouble: string[];
}

/** Prints how far each table is, with `--watch` repeatedly; returns the tables for `--json`. */
export async function status(context: Context): Promise<unknown> {
  const { terminal, data, flags, lake } = context;
  const found = await findServicesOf(context);
  for (const warning of found.creds?.warnings ?? []) terminal.warn(warning);
  if (found.stopped.length > 0 && !existsSync(join(data, "services")) && !existsSync(lake)) {
    throw new Error(`There is nothing in "${data}" yet; to start: ${programName}${context.dataOptions}`);
  }
  sayOthers(context);
  sayUsed(context, found);
  if (flags.has("watch")) {
    await watch(context, found);
    return undefined;
  }
  const { tables, notes, trouble } = await openReader(context, found).read(true);
  for (const text of trouble) terminal.warn(text);
  if (!flags.has("json")) terminal.print(format(tables));
  for (const note of notes) terminal.say(note);
  return tables;
}

/** Prints the tables until stopped. A terminal shows only the newest. */
async function watch(context: Context, first: FoundServices): Promise<void> {
  const { terminal, flags } = context;
  const signal = AbortSignal.any([context.signal, terminal.readerGone]);
  let found = first;
  let reader = openReader(context, found);
  try {
    while (!signal.aborted) {
      const { tables, notes, trouble } = await reader.read();
      const at = new Date();
      if (flags.has("json")) terminal.print(JSON.stringify({ at: at.toISOString(), tables, notes, trouble }));
      else {
        const time = at.toTimeString().slice(0, 8);
        terminal.redrawn(
          [`${time}  every ${watchMs / 1000} s; Ctrl+C stops`, format(tables), ...notes, ...trouble].join("\n"),
        );
      }
      await terminal.printed();
      await sleep(watchMs, undefined, { signal }).catch(() => {});
      // The private services may have been started or stopped.
      const now = await findServicesOf(context);
      if (JSON.stringify(now) === JSON.stringify(found)) continue;
      await reader.close();
      found = now;
      reader = openReader(context, found);
    }
  } finally {
    await reader.close();
  }
  context.signal.throwIfAborted();
}

/** Reads the status over connections that stay open until `close`, or until the one read that is the `last`. */
function openReader(context: Context, { mysql, kafka, stopped }: FoundServices) {
  const { lake, prefix, waitMs } = context;
  const unknown = { ...ownKafka([]), ...(prefix !== undefined && { prefix }) };
  const reader = openStatus({ ...(mysql && { mysql }), kafka: kafka ?? unknown, waitMs });
  const close = () => reader[Symbol.asyncDispose]();
  const read = async (last = false): Promise<Reading> => {
    try {
      const { tables, trouble } = await reader.read(lake);
      const notes = [...stoppedNote(context, stopped), ...(await reportNote(context))];
      return { tables, notes, trouble: [...trouble, ...unseenDeletesIn(Object.values(tables), tables)] };
    } finally {
      if (last) await close();
    }
  };
  return { read, close };
}

/** Warns about rows that silver holds and MySQL no longer does. */
export const unseenDeletesIn = (ledger: LedgerRow[], sources: Record<Table, Source>): string[] =>
  ledger.flatMap(({ table, clean }) => unseenDeletes(table, sources[table], clean) ?? []);

function stoppedNote({ dataOptions }: Context, stopped: FoundServices["stopped"]): string[] {
  if (stopped.length === 0) return [];
  const names = stopped.map((name) => (name === "mysql" ? "MySQL" : "Kafka"));
  const are = `The program's ${names.join(" and ")} ${names.length > 1 ? "are" : "is"} not running`;
  const what = names.length > 1 ? "; the table shows what the lake's files say" : "";
  return [`${are}${what}; to start them: ${programName} up${dataOptions}`];
}

/** Says that rows were cleaned after the report was written. */
async function reportNote({ lake, serviceOptions }: Context): Promise<string[]> {
  const { at, rows_at: rowsAt } = await reportAge(lake);
  if (at === null || rowsAt === null || rowsAt <= at) return [];
  const older = duration(rowsAt - at);
  return [`The report is ${older} older than the rows; to update it: ${programName} report${serviceOptions}`];
}

/** A column for each table: it fits 80 columns. */
function format(tables: Record<string, TableStatus>): string {
  const all = Object.values(tables);
  const lines: Parameters<typeof formatByTable>[1] = [
    ["rows in MySQL", all.map((t) => t.in_mysql)],
    ["rows posted", all.map((t) => t.posted)],
    ["up to key", all.map((t) => t.last_key && count(t.last_key))],
    ["behind MySQL", all.map((t) => formatBehind(t.behind))],
    ["topic offsets", all.map((t) => t.in_topic), "messages and transaction markers"],
    ["landed to", all.map((t) => sum(Object.values(t.landed)))],
    ["cleaned to", all.map((t) => sum(Object.values(t.cleaned)))],
    ["lag", all.map((t) => t.lag), "offsets not cleaned yet"],
    ["clean rows", all.map((t) => t.clean)],
    ["deleted", all.map((t) => t.deleted)],
    ["rejected", all.map((t) => t.rejected)],
    ["balanced", all.map((t) => (t.balanced ? "yes" : "NO"))],
  ];
  const reasons = formatReasons(all);
  const names = all.map((t) => t.table);
  return `${formatByTable(names, lines)}${reasons && `\n\n${reasons}`}`;
}
