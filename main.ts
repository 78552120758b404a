/**
 * The command line: arguments, signals, terminal and exit code. It runs the stages; nobody imports it.
 *
 * @module
 */

import { join } from "node:path";
import type { PostFact } from "./api/protocol.ts";
import { post } from "./api.ts";
import { rebuild } from "./clean/rebuild.ts";
import type { CleanFact, CleanResult } from "./clean/run.ts";
import { clean } from "./clean.ts";
import { help, readArguments } from "./cli/arguments.ts";
import { explore, reset, runEmulate, runServe, status, up } from "./cli/commands.ts";
import { type Connections, type Context, checkLake, connect, databaseOf, tellOfOthers } from "./cli/connect.ts";
import { formatTable, openScreen, seconds } from "./cli/screen.ts";
import { count, some } from "./io/text.ts";
import type { Table } from "./io.ts";
import { addsUp, checkLedger, type LedgerRow, lakeState } from "./lake/ledger.ts";
import { stopServices } from "./local/services.ts";
import packageJson from "./package.json" with { type: "json" };
import { type Answer, readQuestions } from "./report/questions.ts";
import { needLake, report } from "./report/report.ts";
import { openStatus, type Source } from "./report/status.ts";

async function runPost(context: Context, { mysql, kafka }: Connections) {
  const { screen, signal, waitMs, flags } = context;
  const started = Date.now();
  const progress = screen.progress("post");
  const onFact = (fact: PostFact) => {
    if (fact.fact === "counted") progress.set(fact.table, 0, fact.total);
    if (fact.fact === "posted") progress.add(fact.table, fact.rows);
    if (fact.fact === "done") progress.finish(fact.table);
    if (fact.fact === "warned") screen.warn(fact.text);
    if (fact.fact === "waited") screen.say(fact.text);
  };
  try {
    const results = await post({ mysql, kafka, full: flags.has("full"), waitMs, signal, onFact });
    const rows = results.map(
      (r) => `${r.table} ${count(r.rows)}${r.lastKey === null ? "" : ` (up to key ${r.lastKey})`}`,
    );
    screen.say(`post    ${rows.join(", ")} in ${seconds(started)}`);
    return results;
  } finally {
    progress.end();
  }
}

async function runClean(context: Context, connections: Connections | undefined): Promise<CleanResult> {
  const { screen, signal, waitMs, flags, lake } = context;
  const started = Date.now();
  const follow = flags.has("follow");
  const progress = screen.progress("clean", "messages");
  const all = { messages: 0, rejected: 0 };
  const told = ({ messages, rejected }: typeof all) =>
    `${some(messages, "message")}${rejected > 0 || !follow ? `, ${count(rejected)} rejected` : ""}`;
  const onFact = (fact: CleanFact) => {
    if (fact.fact === "counted") progress.set(fact.table, 0, fact.total);
    if (fact.fact === "cleaned") {
      progress.add(fact.table, fact.messages);
      all.messages += fact.messages;
      all.rejected += fact.rejected;
      if (follow && (fact.rejected > 0 || !screen.isTerminal)) screen.say(`clean   ${fact.table} ${told(fact)}`);
    }
    if (fact.fact === "done") progress.finish(fact.table);
    if (fact.fact === "warned") screen.warn(fact.text);
    if (fact.fact === "waited") screen.say(fact.text);
  };
  try {
    const result = connections
      ? await clean({
          kafka: connections.kafka,
          lake,
          ...(await databaseOf(connections, context)),
          follow,
          waitMs,
          signal,
          onFact,
        })
      : await rebuild({ lake, signal, onFact });
    screen.say(`clean   ${told(result)} in ${seconds(started)}`);
    return result;
  } finally {
    progress.end();
    if (follow) screen.say(`clean   ${told(all)} in ${seconds(started)}`);
  }
}

/** Answers, and counts what only MySQL and Kafka know. */
async function runReport(context: Context, connections: Connections | undefined) {
  const { screen, signal, lake, flags } = context;
  const started = Date.now();
  const questions = await readQuestions();
  const found = await report({ lake, signal });
  const sources = connections ? await countSources(connections, context) : undefined;
  screen.say(`report  ${Object.keys(found.answers).length} answers in ${seconds(started)}`);
  if (!flags.has("json")) {
    for (const { name, title } of questions) {
      const { columns, rows } = found.answers[name] as Answer;
      screen.print(`\n${title} (${name})\n${formatTable(columns, rows, { most: 13 })}`);
    }
    screen.print(`\nLedger: messages = clean + superseded + rejected\n${formatLedger(found.ledger, sources)}`);
    screen.print(`\nPosts with a row in the other tables\n${formatTable(found.matches.columns, found.matches.rows)}`);
    screen.print(`\nAll rows of each answer stand in ${join(lake, "gold")}, with report.html to read`);
  }
  return { ...found, sources };
}

async function countSources(
  { mysql, kafka }: Connections,
  { screen, waitMs }: Context,
): Promise<Record<Table, Source>> {
  await using reader = openStatus({ mysql, kafka, waitMs });
  const { tables: found, trouble } = await reader.sources();
  for (const text of trouble) screen.warn(text);
  return found;
}

function formatLedger(ledger: LedgerRow[], sources: Record<Table, Source> | undefined): string {
  const columns = ["table", ...(sources ? ["in MySQL", "posted"] : []), "messages", "clean", "superseded", "rejected"];
  const rows = ledger.map((row) => {
    const source = sources?.[row.table];
    const sums = [row.messages, row.clean, row.superseded, row.rejected, addsUp(row) ? "yes" : "NO"];
    return [row.table, ...(source ? [source.in_mysql, source.posted] : []), ...sums];
  });
  const reasons = ledger.flatMap((row) => Object.entries(row.reasons).map(([reason, n]) => [row.table, reason, n]));
  const rejects =
    reasons.length > 0 ? `\n\nRejects by reason\n${formatTable(["table", "reason", "rejected"], reasons)}` : "";
  return formatTable([...columns, "adds up"], rows) + rejects;
}

/** Runs a command; returns the exit code. */
async function main(argv: string[], signal: AbortSignal): Promise<number> {
  const args = readArguments(argv);
  if (args === "help" || args === "version") {
    process.stdout.write(args === "help" ? help() : `${packageJson.version}\n`);
    return 0;
  }
  const { command, flags } = args;
  const screen = openScreen({ quiet: flags.has("quiet") });
  const context: Context = { ...args, signal, screen };
  const printJson = (result: unknown) => {
    if (flags.has("json") && result !== undefined) screen.print(JSON.stringify(result));
  };
  if (command === "down") {
    const stopped = await stopServices({ dataDir: args.data, say: (text) => screen.say(text) });
    screen.say(stopped ? "Stopped" : "Nothing was running");
    tellOfOthers(context);
    return 0;
  }
  if (command === "reset") {
    await reset(context);
    return 0;
  }
  if (command === "clean" && flags.has("rebuild")) {
    const rejectsOf = (ledger: LedgerRow[]) => ledger.reduce((sum, row) => sum + row.rejected, 0);
    // A damaged file cannot be counted: it is what the rebuild is to mend.
    const before = await lakeState(args.lake).then(
      (states) => rejectsOf(Object.values(states).map((state) => state.ledger)),
      () => 0,
    );
    const result = await runClean(context, undefined);
    await report({ lake: args.lake, signal });
    if (!flags.has("json")) screen.print(formatLedger(result.ledger, undefined));
    printJson(result);
    return rejectsOf(result.ledger) > before ? 3 : 0;
  }
  if (command === "report") await needLake(args.lake);
  const needs = {
    mysql: command !== "clean",
    kafka: command !== "explore",
    keep: command === "up",
  };
  const started = Date.now();
  await using connections = await connect(context, needs);
  switch (command) {
    case "up":
      printJson(await up(context, connections));
      return 0;
    case "explore":
      await explore(context, connections);
      return 0;
    case "status":
      printJson(await status(context, connections));
      return 0;
    case "post":
      printJson({ posted: await runPost(context, connections) });
      return 0;
    case "emulate":
      printJson(await runEmulate(context, connections));
      return 0;
    case "serve":
      await runServe(context, connections);
      return 0;
    case "report": {
      const reported = await runReport(context, connections);
      printJson(reported);
      checkLedger(reported.ledger, args.lake);
      return 0;
    }
    case "clean": {
      const result = await runClean(context, connections);
      if (!flags.has("json")) screen.print(formatLedger(result.ledger, undefined));
      printJson(result);
      return result.rejected > 0 ? 3 : 0;
    }
    case "run": {
      screen.say(`start   services in ${seconds(started)}`);
      await checkLake(context, connections);
      const posted = await runPost(context, connections);
      const cleaned = await runClean(context, connections);
      const reported = await runReport(context, connections);
      printJson({ posted, cleaned: { messages: cleaned.messages, rejected: cleaned.rejected }, ...reported });
      checkLedger(reported.ledger, args.lake);
      return cleaned.rejected > 0 ? 3 : 0;
    }
  }
}

/** How long a stop may take before it is cut short, ms: the process then still has to end, and has 3 s in all. */
const stopWithin = 2_500;
const stopping = new AbortController();
let firstSignal: number | undefined;
for (const [name, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.on(name, () => {
    // tsx passes on what the terminal has already sent to both of us: within a moment it is the same Ctrl+C.
    if (firstSignal !== undefined && Date.now() - firstSignal > 300) process.exit(code);
    if (firstSignal !== undefined) return;
    firstSignal = Date.now();
    process.exitCode = code;
    stopping.abort(new Error(`Stopped by ${name}`));
    setTimeout(() => process.exit(code), stopWithin).unref();
  });
}
try {
  const code = await main(process.argv.slice(2), stopping.signal);
  process.exitCode ??= code;
} catch (error) {
  const { name, message, stack } = error as Error;
  if (stopping.signal.aborted) {
    const kept = process.argv.includes("up") ? "; what has started keeps running until down" : "";
    process.stderr.write(`Stopped${kept || "; the same command goes on where this one was"}\n`);
  } else {
    process.stderr.write(`${process.env.DEBUG ? stack : `Error: ${message}`}\n`);
    process.exitCode = name === "UsageError" ? 2 : 1;
  }
}
