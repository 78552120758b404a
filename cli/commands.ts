/**
 * The commands emulate, doctor, up, down, eject and reset.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { createInterface } from "node:readline/promises";
import { type EmulateFact, type EmulateResult, emulate } from "../api/emulate.ts";
import { explainMysql, isTransientMysql } from "../db_conn/errors.ts";
import { ask } from "../db_conn/query.ts";
import { connectMysql, tryMs } from "../db_conn.ts";
import { count, printable, some, sum } from "../io/text.ts";
import { tableNames } from "../io.ts";
import { lockLake } from "../lake/owner.ts";
import { ejectSql } from "../lake/sql_files.ts";
import { type ChangeFact, type ChangeResult, changeRows, type Session } from "../local/sample/changes.ts";
import { deleteServices, stopServices } from "../local/services.ts";
import { UsageError } from "../runtime/errors.ts";
import { programName, shellWord } from "../runtime/program.ts";
import { type Connections, type Context, sayOthers } from "./connect.ts";
import { runDoctor } from "./doctor.ts";
import type { Finding } from "./finding.ts";
import { formatFinding, oneLine, seconds } from "./format.ts";

/** Skipped keys that get a warning each. */
const skipWarnings = 20;

export async function runEmulate(context: Context, { mysql, kafka }: Connections): Promise<EmulateResult> {
  const { terminal, waitMs, flags, limit, rate } = context;
  const signal = AbortSignal.any([context.signal, terminal.readerGone]); // it runs until stopped
  const seed = context.seed ?? Math.floor(Math.random() * 2 ** 32);
  const started = Date.now();
  let skipped = 0;
  const onFact = async (fact: EmulateFact) => {
    terminal.notice(fact);
    if (fact.fact === "skipped" && ++skipped <= skipWarnings) {
      terminal.warn(`${fact.text}${skipped === skipWarnings ? "; further ones are only counted" : ""}`);
    }
    if (fact.fact !== "posted" || flags.has("quiet") || flags.has("json")) return;
    for (const { rows } of fact.posts) {
      for (const table of tableNames) terminal.print(`${table}_result ${printable(rows[table])}`);
    }
    await terminal.printed();
  };
  terminal.note(`Posting with seed ${seed}`);
  const options = { ...(limit !== undefined && { limit }), ...(rate !== undefined && { rate }) };
  const result = await emulate({ mysql, kafka, seed, ...options, waitMs, signal, onFact });
  const lost = result.skipped > 0 ? `, ${count(result.skipped)} skipped` : "";
  terminal.say(`emulate ${some(result.posts, "post")}${lost} in ${seconds(started)}`);
  return result;
}

/** Changes rows of the sample database, as users would. */
export async function runChanges(context: Context, { mysql }: Connections): Promise<ChangeResult> {
  const { terminal, waitMs, flags, limit, rate } = context;
  const signal = AbortSignal.any([context.signal, terminal.readerGone]);
  const seed = context.seed ?? Math.floor(Math.random() * 2 ** 32);
  const started = Date.now();
  const onFact = async (fact: ChangeFact) => {
    terminal.notice(fact);
    if (fact.fact !== "changed" || flags.has("quiet") || flags.has("json")) return;
    for (const { text } of fact.changes) terminal.print(oneLine(`change  ${text}`));
    await terminal.printed();
  };
  const connect = async (): Promise<Session> => {
    const db = await connectMysql(mysql, { waitMs: tryMs(waitMs) });
    // For a statement without rows it returns mysql2's result object.
    return { query: (sql, values = []) => ask(db, sql, { values }), destroy: () => db.destroy() };
  };
  terminal.note(`Changing rows with seed ${seed}`);
  const options = { ...(limit !== undefined && { limit }), ...(rate !== undefined && { rate }) };
  const retrying = { waitMs, signal, isTransient: isTransientMysql };
  try {
    const result = await changeRows({ connect, seed, ...options, retrying, onFact });
    const { inserted, updated, deleted } = result;
    const rows = (counts: Record<string, number>) => sum(Object.values(counts));
    const kinds = { inserted: rows(inserted), updated: rows(updated), deleted: rows(deleted) };
    const counts = Object.entries(kinds).map(([kind, n]) => `${count(n)} ${kind}`);
    const all = some(sum(Object.values(kinds)), "row");
    terminal.say(`emulate ${some(result.changes, "change")} of ${all}: ${counts.join(", ")} in ${seconds(started)}`);
    return result;
  } catch (error) {
    throw explainMysql(error, mysql);
  }
}

/** Runs all checks; `ok` if none failed. */
export async function doctor(context: Context): Promise<{ ok: boolean; findings: Finding[] }> {
  const { terminal, flags } = context;
  const isPlain = flags.has("json");
  const findings = await runDoctor(context, (finding) => {
    if (!isPlain) terminal.print(formatFinding(finding));
  });
  const failed = findings.filter(({ state }) => state === "failed").length;
  const warned = findings.filter(({ state }) => state === "warned").length;
  const all = failed > 0 ? `${some(failed, "problem")}, ` : "nothing missing, ";
  terminal.say(`doctor  ${all}${some(warned, "warning")}`);
  return { ok: failed === 0, findings };
}

export async function up(context: Context, { mysql, kafka, services }: Connections): Promise<unknown> {
  const { terminal, flags } = context;
  if (!services) {
    terminal.say("Nothing to start: your credentials name both MySQL and Kafka");
    return undefined;
  }
  const { host, port, user, database } = mysql;
  const result = {
    mysql: { host, port, user, database, ...(services.mysql && { creds_file: services.credsFile }) },
    kafka: { brokers: kafka.brokers },
  };
  if (!flags.has("json")) {
    const down = `${programName} down${context.dataOptions}`;
    if (services.mysql) {
      terminal.print(`MySQL   ${host}:${port}, database ${database}, user ${user}`);
      terminal.print(`        password in ${services.credsFile}`);
    }
    terminal.print(`Kafka   ${kafka.brokers.join(",")}`);
    terminal.print(`To stop ${services.mysql ? "them" : "it"}: ${down}`);
    if (services.mysql) terminal.print(`To use them from another folder: --creds ${services.credsFile}`);
  }
  return result;
}

export async function down(context: Context): Promise<void> {
  const say = (text: string) => context.terminal.say(text);
  say((await stopServices({ dataDir: context.data, say })) ? "Stopped" : "Nothing was running");
  sayOthers(context);
}

/** Copies the SQL files into a folder for editing. */
export function eject({ terminal, folder }: Context): void {
  const files = ejectSql(folder as string);
  terminal.say(
    `Wrote ${files} SQL files and db_creds.example.yaml to "${folder}"; edit them and run with --sql ${shellWord(String(folder))}`,
  );
}

export async function reset(context: Context): Promise<void> {
  const { data, lake, terminal, flags } = context;
  const folders = [join(data, "services"), lake].filter((folder) => existsSync(folder));
  if (folders.length === 0) return terminal.say(`There is nothing to delete in "${data}"`);
  if (!flags.has("yes")) {
    if (!process.stdin.isTTY)
      throw new UsageError("reset asks before it deletes, but there is no terminal to ask on: add --yes");
    const prompt = createInterface({ input: process.stdin, output: process.stderr });
    const question = `Delete ${folders.map((f) => `"${f}"`).join(" and ")}? [y/N] `;
    const closed = new AbortController();
    prompt.on("close", () => closed.abort()); // Ctrl+D
    const answer = await prompt
      .question(question, { signal: AbortSignal.any([context.signal, closed.signal]) })
      .catch(() => "no");
    context.signal.throwIfAborted();
    prompt.close();
    if (!/^y(es)?$/i.test(answer.trim())) return terminal.say("Nothing was deleted");
  }
  // So that no clean runs while the lake is deleted.
  await using _lock = existsSync(lake) ? await lockLake(lake) : undefined;
  await deleteServices({ dataDir: data, say: (text) => terminal.say(text) });
  await rm(lake, { recursive: true, force: true });
  terminal.say(`Deleted ${folders.map((f) => `"${f}"`).join(" and ")}`);
}
