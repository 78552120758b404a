/**
 * The entry point: reads the command line, runs a command, handles signals and sets the exit code.
 *
 * @module
 */

import type { PostFact } from "./api/protocol.ts";
import { post } from "./api.ts";
import { previewRebuild } from "./clean/preview.ts";
import { rebuild } from "./clean/rebuild.ts";
import type { CleanFact, CleanResult } from "./clean/run.ts";
import { clean } from "./clean.ts";
import { type Arguments, type Asked, readArguments } from "./cli/arguments.ts";
import { doctor, down, eject, reset, runChanges, runEmulate, up } from "./cli/commands.ts";
import { type Connections, type Context, checkLake, connect, databaseOf, type Needs } from "./cli/connect.ts";
import { changesAnything, formatDifferences } from "./cli/differences.ts";
import { explore } from "./cli/explore.ts";
import { formatLedger, seconds } from "./cli/format.ts";
import { watchNpmShell } from "./cli/npm_shell.ts";
import { runReport, sayNext, summary, whereRejectsAre } from "./cli/report.ts";
import { checkServe, runServe } from "./cli/serve.ts";
import { status } from "./cli/status.ts";
import { openTerminal, type Progress } from "./cli/terminal.ts";
import { count, some, sum } from "./io/text.ts";
import { checkLedger, type LedgerRow, lakeState } from "./lake/ledger.ts";
import { useSqlFolder } from "./lake/sql_files.ts";
import packageJson from "./package.json" with { type: "json" };
import { needLake, report } from "./report/report.ts";
import { isBinary, ownText } from "./runtime/program.ts";

async function runPost(context: Context, { mysql, kafka }: Connections) {
  const { terminal, signal, waitMs, flags } = context;
  const started = Date.now();
  const [full, follow] = [flags.has("full"), flags.has("follow")];
  const progress = terminal.progress("post", { follow });
  const all = { rows: 0, deleted: 0 };
  const summaryOf = ({ rows, deleted }: typeof all) =>
    [...(rows > 0 || deleted === 0 ? [count(rows)] : []), ...(deleted > 0 ? [some(deleted, "delete")] : [])].join(
      " and ",
    );
  const onFact = (fact: PostFact) => {
    if (fact.fact === "counted") progress.set(fact.table, 0, fact.total);
    if (fact.fact === "posted") {
      progress.add(fact.table, fact.rows + fact.deleted);
      all.rows += fact.rows;
      all.deleted += fact.deleted;
      if (follow && !terminal.isInteractive) terminal.say(`post    ${fact.table} ${summaryOf(fact)}`);
    }
    if (fact.fact === "done" || fact.fact === "upToDate") progress.finish(fact.table);
    terminal.notice(fact);
  };
  try {
    const posting = post({ mysql, kafka, full, follow, waitMs, signal, onFact });
    const results = await posting.finally(() => progress.end());
    terminal.say(`post    ${results.map((r) => `${r.table} ${summaryOf(r)}`).join(", ")} in ${seconds(started)}`);
    return results;
  } finally {
    if (follow) terminal.say(`post    ${summaryOf(all)} in ${seconds(started)}`);
  }
}

/** Shows how far cleaning is. */
function showClean(fact: CleanFact, progress: Progress): void {
  if (fact.fact === "counted") progress.set(fact.table, 0, fact.total);
  if (fact.fact === "cleaned") progress.add(fact.table, fact.messages);
  if (fact.fact === "done") progress.finish(fact.table);
}

async function runClean(context: Context, connections: Connections | undefined): Promise<CleanResult> {
  const { terminal, signal, waitMs, flags, lake } = context;
  const started = Date.now();
  const follow = flags.has("follow");
  const progress = terminal.progress("clean", { unit: "messages", follow });
  const all = { messages: 0, rejected: 0 };
  const summaryOf = ({ messages, rejected }: typeof all) =>
    `${some(messages, "message")}${rejected > 0 || !follow ? `, ${count(rejected)} rejected` : ""}`;
  const onFact = (fact: CleanFact) => {
    showClean(fact, progress);
    if (fact.fact === "cleaned") {
      all.messages += fact.messages;
      all.rejected += fact.rejected;
      if (follow && (fact.rejected > 0 || !terminal.isInteractive))
        terminal.say(`clean   ${fact.table} ${summaryOf(fact)}`);
    }
    terminal.notice(fact);
  };
  try {
    const options = { lake, signal, onFact };
    const cleaning = async (): Promise<CleanResult> => {
      if (!connections) return rebuild(options);
      const database = await databaseOf(connections, context);
      return clean({ ...options, kafka: connections.kafka, ...database, follow, waitMs });
    };
    const result = await cleaning().finally(() => progress.end());
    terminal.say(`clean   ${summaryOf(result)} in ${seconds(started)}`);
    return result;
  } finally {
    if (follow) terminal.say(`clean   ${summaryOf(all)} in ${seconds(started)}`);
  }
}

function printLedger({ terminal, flags }: Context, { ledger }: CleanResult): void {
  if (!flags.has("json")) terminal.print(formatLedger(ledger));
}

/** Posts, cleans and reports in turn; with --follow, then keeps posting and cleaning until stopped. */
async function runAll(context: Context, connections: Connections): Promise<Outcome> {
  context.terminal.say(`start   services in ${seconds(context.started)}`);
  await checkLake(context, connections);
  const flagsOf = (...left: string[]) => new Set([...context.flags].filter((flag) => !left.includes(flag)));
  const once = { ...context, flags: flagsOf("follow") };
  const posted = await runPost(once, connections);
  const { messages, rejected, reasons } = await runClean(once, connections);
  const reported = await runReport(once, connections);
  context.terminal.say("");
  context.terminal.say(`Done in ${seconds(context.started)}: ${summary(reported.ledger)}`);
  sayNext(context);
  if (context.flags.has("follow")) await followAll({ ...context, flags: flagsOf("full") }, connections);
  const result = { posted, cleaned: { messages, rejected }, ...reported };
  return { result, ledger: reported.ledger, rejected, reasons };
}

/** Posts and cleans concurrently, with --changes also changes rows; the first failure stops all. */
async function followAll(context: Context, connections: Connections): Promise<void> {
  context.terminal.say("follow  posting and cleaning changes; Ctrl+C stops");
  const failed = new AbortController();
  const each = { ...context, signal: AbortSignal.any([context.signal, failed.signal]) };
  const stages: Promise<unknown>[] = [runPost(each, connections), runClean(each, connections)];
  if (context.flags.has("changes")) stages.push(runChanges(each, connections));
  for (const stage of stages) stage.catch((error) => failed.abort(error));
  await Promise.allSettled(stages);
  context.signal.throwIfAborted();
  failed.signal.throwIfAborted();
}

/** Shows what a rebuild would change. */
async function runPreview({ terminal, lake, signal, flags, started }: Context): Promise<Outcome> {
  const progress = terminal.progress("clean", { unit: "messages" });
  const onFact = (fact: CleanFact) => {
    showClean(fact, progress);
    terminal.notice(fact);
  };
  const tables = await previewRebuild({ lake, signal, onFact }).finally(() => progress.end());
  if (!flags.has("json")) terminal.print(formatDifferences(tables));
  const next = changesAnything(tables) ? ": without --dry-run the same command does it" : "";
  terminal.say(`clean   compared in ${seconds(started)}; nothing was changed${next}`);
  return { result: { tables } };
}

/** Rebuilds silver, rejects and gold from bronze; only additional rejects count as new. */
async function runRebuild(context: Context): Promise<Outcome> {
  if (context.flags.has("dry-run")) return runPreview(context);
  const { lake, signal } = context;
  const rejectsOf = (ledger: LedgerRow[]) => sum(ledger, (row) => row.rejected);
  // Rejects in damaged files cannot be counted, so none counts as new.
  const before = await lakeState(lake).then(
    (states) => Object.values(states).map((state) => state.ledger),
    () => undefined,
  );
  const result = await runClean(context, undefined);
  await report({ lake, signal });
  printLedger(context, result);
  if (!before) return { result };
  const earlier = (reason: string) => sum(before, (row) => row.reasons[reason] ?? 0);
  const reasons = Object.entries(result.reasons).map(([reason, n]) => [reason, n - earlier(reason)] as const);
  return { result, rejected: rejectsOf(result.ledger) - rejectsOf(before), reasons: Object.fromEntries(reasons) };
}

/** The outcome of a command, for {@link main}. */
interface Outcome {
  /** Printed with `--json`. */
  result?: unknown;
  /** Must be balanced. */
  ledger?: LedgerRow[];
  /** New rejects, and how many of each reason. */
  rejected?: number;
  reasons?: Record<string, number>;
  /** The command failed and has said why. */
  failed?: boolean;
}

type Runnable =
  | { needs?: undefined; run: (context: Context) => Promise<Outcome | undefined> }
  | {
      needs: Needs;
      /** Fails before services are started. */
      check?: (context: Context) => Promise<void>;
      run: (context: Context, connections: Connections) => Promise<Outcome | undefined>;
    };

const both = { mysql: true, kafka: true };
const mysql = { mysql: true, kafka: false };
const kafka = { mysql: false, kafka: true };
/** The commands, and the options that act as one. */
const commands: Record<Arguments["command"] | "rebuild" | "changes", Runnable> = {
  run: { needs: both, run: runAll },
  up: { needs: both, run: async (...given) => ({ result: await up(...given) }) },
  down: { run: async (context) => void (await down(context)) },
  reset: { run: async (context) => void (await reset(context)) },
  eject: { run: async (context) => void eject(context) },
  doctor: {
    run: async (context) => {
      const result = await doctor(context);
      return { result, failed: !result.ok };
    },
  },
  explore: { needs: mysql, run: async (...given) => void (await explore(...given)) },
  emulate: { needs: both, run: async (...given) => ({ result: await runEmulate(...given) }) },
  changes: { needs: mysql, run: async (...given) => ({ result: await runChanges(...given) }) },
  post: { needs: both, run: async (...given) => ({ result: { posted: await runPost(...given) } }) },
  clean: {
    needs: kafka,
    run: async (context, connections) => {
      const result = await runClean(context, connections);
      printLedger(context, result);
      return { result, rejected: result.rejected, reasons: result.reasons };
    },
  },
  rebuild: { run: runRebuild },
  serve: { needs: both, check: checkServe, run: async (...given) => void (await runServe(...given)) },
  report: {
    needs: both,
    check: ({ lake }) => needLake(lake),
    run: async (...given) => {
      const result = await runReport(...given);
      sayNext(given[0]);
      return { result, ledger: result.ledger };
    },
  },
  status: { run: async (context) => ({ result: await status(context) }) },
};

/** Maps the two options that act as a command. */
function commandOf({ command, flags }: Arguments): keyof typeof commands {
  if (flags.has("rebuild")) return "rebuild";
  return command === "emulate" && flags.has("changes") ? "changes" : command;
}

/** Runs a command; returns the exit code. */
async function main(args: Arguments, signal: AbortSignal): Promise<number> {
  const terminal = openTerminal({ quiet: args.flags.has("quiet") });
  const context: Context = { ...args, signal, terminal, started: Date.now() };
  const finish = ({ result, ledger = [], rejected = 0, reasons = {}, failed = false }: Outcome = {}): number => {
    if (args.flags.has("json") && result !== undefined) terminal.print(JSON.stringify(result));
    checkLedger(ledger, args.lake);
    if (failed) return 1;
    if (rejected <= 0) return 0;
    terminal.warn(whereRejectsAre(rejected, reasons, args.lake));
    return 3;
  };
  if (args.sql) {
    useSqlFolder(args.sql);
    terminal.say(`sql     from "${args.sql}"`);
  }
  const command = commands[commandOf(args)];
  if (!command.needs) return finish(await command.run(context));
  await command.check?.(context);
  await using connections = await connect(context, command.needs);
  const lost = connections.services?.lost;
  const running = command.run({ ...context, signal: AbortSignal.any([signal, ...(lost ? [lost] : [])]) }, connections);
  return finish(await running.finally(() => signal.aborted || lost?.throwIfAborted()));
}

/** Deadline of a stop, ms. The process must end within 3 s in all. */
const stopWithin = 2_500;
const stopping = new AbortController();
let firstSignal: number | undefined;
for (const [name, code] of [
  ["SIGINT", 130],
  ["SIGTERM", 143],
] as const) {
  process.on(name, () => {
    // tsx forwards the Ctrl+C that the terminal has already sent to both: within 300 ms it is the same one.
    if (firstSignal !== undefined && Date.now() - firstSignal > 300) process.exit(code);
    if (firstSignal !== undefined) return;
    firstSignal = Date.now();
    process.exitCode = code;
    stopping.abort(new Error(`Stopped by ${name}`));
    setTimeout(() => process.exit(code), stopWithin).unref();
  });
}

/** The second half of the message after a stop. */
const continues = "; the same command continues where this one stopped";
const afterStop: Partial<Record<Arguments["command"], string>> = {
  ...{ run: continues, post: continues, clean: continues },
  up: "; services that have started run until down",
};

/** Prints a help text or the like. */
const print = (text: string) => openTerminal({ quiet: true }).print(text.trimEnd());

const licences = () =>
  isBinary ? ownText("licences.txt") : "Each package in node_modules has its licence; npm run licences collects them";

async function start(): Promise<void> {
  let args: Asked | undefined;
  try {
    args = readArguments(process.argv.slice(2));
    if ("text" in args) print(args.text);
    else if ("show" in args) print(args.show === "version" ? packageJson.version : licences());
    else {
      const code = await main(args, stopping.signal);
      process.exitCode ??= code;
    }
  } catch (error) {
    const { name, message, stack } = error as Error;
    if (stopping.signal.aborted) {
      const next = args && "command" in args ? (afterStop[args.command] ?? "") : "";
      process.stderr.write(`Stopped${next}\n`);
    } else {
      process.stderr.write(`${process.env.DEBUG ? stack : `Error: ${message}`}\n`);
      process.exitCode = name === "UsageError" ? 2 : 1;
    }
  }
}

watchNpmShell(() => process.kill(process.pid, "SIGTERM"));
void start();
