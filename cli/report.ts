/**
 * The `report` command, and what a run says at its end.
 *
 * @module
 */

import { join } from "node:path";
import { count, some, sum } from "../io/text.ts";
import { isBalanced, type LedgerRow } from "../lake/ledger.ts";
import { type Answer, readQuestions } from "../report/questions.ts";
import { report } from "../report/report.ts";
import { openStatus } from "../report/status.ts";
import { programName } from "../runtime/program.ts";
import type { Connections, Context } from "./connect.ts";
import { formatLedger, formatTable, formatTitle, seconds, shortPath } from "./format.ts";
import { unseenDeletesIn } from "./status.ts";

/** Answers the questions, and counts what only MySQL and Kafka know. */
export async function runReport(context: Context, connections: Connections | undefined) {
  const { terminal, signal, lake, flags } = context;
  const started = Date.now();
  const questions = readQuestions();
  const progress = terminal.progress("report");
  const found = await report({ lake, signal }).finally(() => progress.end());
  const sources = connections ? await countSources(connections, context) : undefined;
  terminal.say(`report  ${Object.keys(found.answers).length} answers in ${seconds(started)}`);
  if (!flags.has("json")) {
    for (const { name, title } of questions) {
      const { columns, rows } = found.answers[name] as Answer;
      terminal.print(`\n${formatTitle(title, name)}\n${formatTable(columns, rows, { most: 13 })}`);
    }
    terminal.print(
      `\nLedger: messages = clean + superseded + deleted + rejected\n${formatLedger(found.ledger, sources)}`,
    );
    terminal.print(`\nPosts with a row in the other tables\n${formatTable(found.matches.columns, found.matches.rows)}`);
  }
  if (sources) for (const text of unseenDeletesIn(found.ledger, sources)) terminal.warn(text);
  return { ...found, sources };
}

async function countSources({ mysql, kafka }: Connections, { terminal, waitMs }: Context) {
  await using reader = openStatus({ mysql, kafka, waitMs });
  const { tables: found, trouble } = await reader.sources();
  for (const text of trouble) terminal.warn(text);
  return found;
}

/** The report and the commands to type next, after a run or a report. */
export function sayNext({ terminal, lake, serviceOptions }: Context): void {
  const gold = join(lake, "gold");
  for (const text of [
    "",
    `  Report   open ${shortPath(join(gold, "report.html"))}`,
    `  Data     all rows of each answer: ${shortPath(gold)}/*.parquet`,
    `  Live     ${programName} serve${serviceOptions}`,
    `  Status   ${programName} status${serviceOptions}`,
  ]) {
    terminal.say(text);
  }
}

/** The ledger of all tables in one line. */
export function summary(ledger: LedgerRow[]): string {
  const all = (name: "messages" | "clean" | "rejected") => sum(ledger, (row) => row[name]);
  const balanced = ledger.every(isBalanced) ? "balanced" : "NOT balanced";
  return `${some(all("messages"), "message")}, ${count(all("clean"))} clean, ${count(all("rejected"))} rejected; ledger ${balanced}`;
}

/** Says how many rejects are new, their main reason, and where they are. */
export function whereRejectsAre(rejected: number, reasons: Record<string, number>, lake: string): string {
  const [[reason, most] = []] = Object.entries(reasons).sort(([, one], [, other]) => other - one);
  const main = most && most > 0 ? `, mainly ${reason} (${count(most)})` : "";
  const files = join(lake, "rejects", "*.parquet");
  return `${some(rejected, "new reject")}${main}: "${files}" has each message with its reason and detail`;
}
