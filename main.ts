/**
 * The command line: arguments, signals, terminal and exit code. It runs the stages; nobody imports it.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { readFile, rm, stat } from "node:fs/promises";
import { dirname, join, resolve } from "node:path";
import { createInterface } from "node:readline/promises";
import { parseArgs } from "node:util";
import { type EmulateFact, type EmulateResult, emulate } from "./api/emulate.ts";
import type { PostFact } from "./api/protocol.ts";
import { post } from "./api.ts";
import { rebuild } from "./clean/rebuild.ts";
import type { CleanFact, CleanResult } from "./clean/work.ts";
import { clean } from "./clean.ts";
import { environmentHasCredentials, isPrefix, prefixRule, readCredentials } from "./credentials.ts";
import {
  connectMysql,
  databaseId,
  explainMysql,
  inspectTable,
  isTransientMysql,
  keysAt,
  type MysqlSettings,
  readRows,
} from "./db_conn.ts";
import type { ServeFact } from "./http/server.ts";
import { count, duration, printable, some } from "./io/text.ts";
import { rowToJson, type Table, tableNames, tables } from "./io.ts";
import { connectReader } from "./kafka/client.ts";
import { isTransientKafka } from "./kafka/errors.ts";
import type { KafkaSettings } from "./kafka/settings.ts";
import { addsUp, checkLedger, type LedgerRow, lakeState } from "./lake/ledger.ts";
import { checkBinding, lockLake, readBinding } from "./lake/owner.ts";
import { loadSample } from "./local/sample.ts";
import { findServices, type Services, stopServices, useServices } from "./local/services.ts";
import packageJson from "./package.json" with { type: "json" };
import { type Question, questions } from "./report/questions.ts";
import { needLake, report } from "./report/report.ts";
import { openStatus, type Source } from "./report/status.ts";
import { UsageError } from "./runtime/errors.ts";
import { patiently } from "./runtime/retry.ts";
import { formatTable, openScreen, type Screen } from "./screen.ts";

const commands = {
  run: ["(no command)", "post, clean and report, one after the other"],
  up: ["up", "start MySQL and Kafka here and keep them running; load the sample into an empty database"],
  down: ["down", "stop what up started"],
  reset: ["reset", "delete the data of those services and the lake"],
  explore: ["explore", "show one post: pin_result, geo_result, user_result"],
  emulate: ["emulate", "post random rows as users would, until --limit or until stopped"],
  post: ["post", "post the rows that are new in MySQL to Kafka, each exactly once"],
  clean: ["clean", "land the topics, clean them, write Parquet and rejects"],
  serve: ["serve", "HTTP API for posts, and the live page, until stopped"],
  report: ["report", "answer the nine questions from the clean rows"],
  status: ["status", "show how far every table is, from MySQL to silver"],
} as const;

type Command = keyof typeof commands;

interface Option {
  type: "boolean" | "string";
  /** What stands for the value in the help text. */
  value?: string;
  text: string;
  /** The commands that take it; all when absent. */
  only?: Command[];
  /** The commands that don't take it; the help need not say so. */
  not?: Command[];
}

const options = {
  data: {
    type: "string",
    value: "DIR",
    text: "the program's folder: services, and the lake at DIR/lake (default: data)",
  },
  creds: {
    type: "string",
    value: "PATH",
    text: "credentials (default: db_creds.yaml where there is one)",
    not: ["down", "reset"],
  },
  prefix: { type: "string", value: "NAME", text: "prefix of the topics (default: pinterest)" },
  zookeeper: {
    type: "boolean",
    text: "use a Kafka 3.9 with ZooKeeper instead of Kafka 4; services and lake lie at DIR/zookeeper then",
  },
  wait: {
    type: "string",
    value: "SECONDS",
    text: "how long to wait for a service that is away, or a table that is locked (default: 60)",
  },
  rows: { type: "string", value: "N", text: "posts of sample data to have (default: 11154)", only: ["run", "up"] },
  index: { type: "string", value: "N", text: "the post to show (default: a random one)", only: ["explore"] },
  limit: { type: "string", value: "N", text: "posts to make (default: until stopped)", only: ["emulate"] },
  rate: {
    type: "string",
    value: "N/s",
    text: "posts per second, minute (N/m) or hour (N/h) (default: a pause of 0 to 1 s after each)",
    only: ["emulate"],
  },
  seed: {
    type: "string",
    value: "N",
    text: "chooses the posts (default: a random one, which is told)",
    only: ["emulate"],
  },
  host: { type: "string", value: "ADDRESS", text: "where to listen (default: 127.0.0.1)", only: ["serve"] },
  port: { type: "string", value: "N", text: "port to listen on; 0: a free one (default: 8082)", only: ["serve"] },
  "token-file": {
    type: "string",
    value: "PATH",
    text: "file with the token that clients must show (or PIPELINE_TOKEN in the environment)",
    only: ["serve"],
  },
  "any-prefix": {
    type: "boolean",
    text: "take topics of any prefix, such as 0a1b2c.pin, for this one's",
    only: ["serve"],
  },
  full: { type: "boolean", text: "post every row again", only: ["run", "post"] },
  follow: { type: "boolean", text: "go on until stopped", only: ["clean"] },
  rebuild: {
    type: "boolean",
    text: "make silver, rejects and gold again from bronze, with sql/ as it is",
    only: ["clean"],
  },
  yes: { type: "boolean", text: "do not ask", only: ["reset"] },
  json: { type: "boolean", text: "print the result as one JSON object" },
  quiet: { type: "boolean", text: "no progress" },
  help: { type: "boolean", text: "this text" },
  version: { type: "boolean", text: "the version" },
} as const satisfies Record<string, Option>;

const help = (): string => {
  const line = (left: string, right: string) => `  ${left.padEnd(18)} ${right}`;
  const optionLines = Object.entries(options as Record<string, Option>).map(([name, { value, text, only }]) => {
    const whose = only ? `  [${only.map((command) => commands[command][0]).join(", ")}]` : "";
    return line(`--${name}${value ? ` ${value}` : ""}`, `${text}${whose}`);
  });
  return `Pinterest data pipeline: MySQL to Kafka to clean Parquet, exactly once.

Usage: tsx main.ts [command] [options]      (or: npm start -- [command] [options])

Commands:
${Object.values(commands)
  .map(([name, text]) => line(name, text))
  .join("\n")}

Options:
${optionLines.join("\n")}

Without db_creds.yaml the program runs a MariaDB and a Kafka of its own, with sample data; KAFKA_HOME and
MARIADB_HOME name installed ones to use instead of those it downloads. With --zookeeper that Kafka is of version 3.9,
beside a ZooKeeper, and all of it lies in a folder of its own, DIR/zookeeper: the flag belongs to every command that is
to use it, down and reset too. Both kinds may run at once. With db_creds.yaml, it uses your MySQL, and your Kafka
where the file has a KAFKA part: see db_creds.example.yaml. Variables of the environment win over the file, and
can replace it: PIPELINE_MYSQL_HOST, PIPELINE_MYSQL_PASSWORD, PIPELINE_KAFKA_BROKERS, PIPELINE_KAFKA_SASL_PASSWORD …

Exit codes: 0 all went well; 1 it failed; 2 wrong use or settings; 3 done, but there are new rejects; 130 and 143
stopped by a signal.
`;
};

/** The arguments, read and checked. */
interface Arguments {
  command: Command;
  data: string;
  /** The options that led to it, for commands to copy. */
  dataOptions: string;
  lake: string;
  creds: string | undefined;
  prefix: string | undefined;
  waitMs: number;
  rows: number | undefined;
  index: string | undefined;
  limit: number | undefined;
  /** Posts per second. */
  rate: number | undefined;
  seed: number | undefined;
  host: string;
  port: number;
  tokenFile: string | undefined;
  flags: Set<string>;
}

function readArguments(argv: string[]): Arguments | "help" | "version" {
  const see = 'see "tsx main.ts --help"';
  let parsed: ReturnType<typeof parseArgs>;
  try {
    parsed = parseArgs({ args: argv, options, allowPositionals: true, strict: true });
  } catch (error) {
    const [text = ""] = (error as Error).message.replace(/\. To specify.*/s, "").split("\n");
    const ambiguous = /^Option '(--\w+)[^']*' argument is ambiguous/.exec(text)?.[1];
    throw new UsageError(
      `${ambiguous ? `A value that begins with a dash is written as ${ambiguous}=VALUE` : text}; ${see}`,
    );
  }
  const values = parsed.values as Record<string, string | boolean | undefined>;
  if (values.help || parsed.positionals[0] === "help") return "help";
  if (values.version) return "version";
  const [name = "run", ...rest] = parsed.positionals;
  if (rest.length > 0) throw new UsageError(`Unexpected argument "${rest[0]}"; ${see}`);
  if (!Object.hasOwn(commands, name)) throw new UsageError(`Unknown command "${name}"; ${see}`);
  const command = name as Command;
  for (const key of Object.keys(values)) {
    const { only, not } = options[key as keyof typeof options] as Option;
    if ((only && !only.includes(command)) || not?.includes(command))
      throw new UsageError(`"${command}" does not take --${key}; ${see}`);
  }
  const whole = (key: string, least: number, most: number): number | undefined => {
    const text = values[key] as string | undefined;
    if (text === undefined) return undefined;
    if (/^\d{1,16}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
    throw new UsageError(`--${key} takes a whole number from ${least} to ${most}, not "${text}"; ${see}`);
  };
  const prefix = values.prefix as string | undefined;
  if (prefix !== undefined && !isPrefix(prefix)) throw new UsageError(`--prefix "${prefix}": ${prefixRule}`);
  if (values.data === "") throw new UsageError(`--data takes a folder, not ""; ${see}`);
  if (values.follow && values.rebuild) throw new UsageError(`clean takes --follow or --rebuild, not both; ${see}`);
  const given = resolve((values.data as string | undefined) ?? "data");
  // Of their own: Kafka with ZooKeeper and Kafka without can't go on with each other's data, nor a lake with both.
  const data = values.zookeeper ? join(given, "zookeeper") : given;
  if (/^\/(proc|sys|dev)(\/|$)/.test(data)) throw new UsageError(`--data "${data}": files can't be kept there`);
  if (/[*?[\]\\]/.test(data)) {
    throw new UsageError(
      `--data "${data}": DuckDB would read * ? [ ] and \\ in the path as patterns; choose another folder`,
    );
  }
  const index = values.index as string | undefined;
  if (index !== undefined && !/^-?\d{1,19}$/.test(index)) {
    throw new UsageError(`--index takes the number of a post, not "${index}"; ${see}`);
  }
  return {
    command,
    data,
    dataOptions: `${given === resolve("data") ? "" : ` --data "${given}"`}${values.zookeeper ? " --zookeeper" : ""}`,
    lake: join(data, "lake"),
    creds: values.creds as string | undefined,
    prefix,
    waitMs: (whole("wait", 0, 86_400) ?? 60) * 1000,
    rows: whole("rows", 1, 100_000_000),
    index,
    limit: whole("limit", 1, 1_000_000_000),
    rate: readRate(values.rate as string | undefined),
    seed: whole("seed", 0, 4_294_967_295),
    host: (values.host as string | undefined) || "127.0.0.1",
    port: whole("port", 0, 65_535) ?? 8082,
    tokenFile: values["token-file"] as string | undefined,
    flags: new Set(Object.keys(values).filter((key) => values[key] === true)),
  };
}

/** Posts per second from `5/s`, `5/m` or `5/h`. */
function readRate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d{1,6}(?:\.\d{1,3})?)\/([smh])$/.exec(text) ?? [];
  const rate = Number(digits) / { s: 1, m: 60, h: 3600 }[(unit ?? "s") as "s" | "m" | "h"];
  if (rate > 0 && rate <= 100_000) return rate;
  throw new UsageError(`--rate takes posts per second, minute or hour, as 5/s, 90/m or 10/h, not "${text}"`);
}

/** What a command works with. */
interface Context extends Arguments {
  signal: AbortSignal;
  screen: Screen;
}

/** Where the services are, once they are needed. */
interface Connections extends AsyncDisposable {
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  services: Services | undefined;
}

/** Commands that want rows: they give the embedded database its sample. */
const fillsDatabase: Command[] = ["run", "up", "post", "emulate", "explore"];

/** Finds or starts what a command needs, says which it uses, and gives the embedded database its sample. */
async function connect(
  context: Context,
  needs: { mysql: boolean; kafka: boolean; keep?: boolean },
): Promise<Connections> {
  const { data, prefix, signal, screen, rows, waitMs } = context;
  const path = context.creds ?? (existsSync("db_creds.yaml") ? "db_creds.yaml" : undefined);
  const creds = path === undefined && !environmentHasCredentials() ? undefined : await readCredentials(path);
  const from = creds?.from ?? "";
  for (const warning of creds?.warnings ?? []) screen.warn(warning);
  if (rows !== undefined && creds) {
    throw new UsageError(`--rows makes sample data for the program's own database only, and "${from}" names another`);
  }
  const zookeeper = context.flags.has("zookeeper");
  if (zookeeper && creds?.kafka) {
    throw new UsageError(
      `--zookeeper starts the program's own Kafka, and "${from}" names another: leave out one of them`,
    );
  }
  const own = { mysql: needs.mysql && !creds, kafka: needs.kafka && !creds?.kafka };
  const say = (text: string) => screen.say(text);
  if (own.mysql || own.kafka) {
    if (context.command === "status" && !existsSync(join(data, "services")))
      throw new Error(`There is nothing in "${data}" yet: run post first, or up`);
    tellOfOthers(context);
  }
  const services =
    own.mysql || own.kafka
      ? await useServices({ dataDir: data, ...own, zookeeper, keep: needs.keep ?? false, say, signal })
      : undefined;
  try {
    const mysql = creds?.mysql ?? (services?.mysql as MysqlSettings);
    const kafka: KafkaSettings = creds?.kafka ?? {
      brokers: services?.kafka?.brokers ?? [],
      prefix: "pinterest",
      partitions: 1,
      replicationFactor: 1,
    };
    if (prefix !== undefined) kafka.prefix = prefix;
    const parts = [];
    if (needs.mysql) parts.push(`MySQL ${mysql.host}:${mysql.port}/${mysql.database} (${creds ? from : "embedded"})`);
    if (needs.kafka) {
      parts.push(
        `Kafka ${kafka.brokers.join(",")} (${creds?.kafka ? from : zookeeper ? "embedded, with ZooKeeper" : "embedded"}), topics ${kafka.prefix}.*`,
      );
    }
    screen.say(`Using ${parts.join(" and ")}`);
    if (own.mysql && services?.mysql && fillsDatabase.includes(context.command)) {
      const progress = screen.progress("sample");
      const onProgress = (table: Table, done: number, total: number) => progress.set(table, done, total);
      const options = { ...(rows !== undefined && { rows }), waitMs, signal, onProgress };
      const posts = await loadSample(services.mysql, options);
      progress.end();
      if (rows !== undefined && posts !== undefined && posts > rows)
        screen.say(`The database holds ${count(posts)} sample posts already: --rows ${rows} adds none`);
    }
    return { mysql, kafka, services, [Symbol.asyncDispose]: async () => services?.[Symbol.asyncDispose]() };
  } catch (error) {
    await services?.[Symbol.asyncDispose]();
    throw error;
  }
}

/** Says that the services of the other mode run too: who forgot the flag would wonder where the rows are. */
function tellOfOthers({ data, flags, screen }: Context): void {
  const zookeeper = flags.has("zookeeper");
  if (!findServices({ dataDir: zookeeper ? dirname(data) : join(data, "zookeeper") })) return;
  const [those, way] = zookeeper ? ["without", "leave --zookeeper out"] : ["with", "say --zookeeper"];
  screen.say(`The services ${those} ZooKeeper run too, with data of their own; to mean them, ${way}`);
}

const seconds = (from: number): string => duration(Date.now() - from);

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

/** How many skipped keys are told one by one. */
const skipsTold = 20;

async function runEmulate(context: Context, { mysql, kafka }: Connections): Promise<EmulateResult> {
  const { screen, signal, waitMs, flags, limit, rate } = context;
  const seed = context.seed ?? Math.floor(Math.random() * 2 ** 32);
  const started = Date.now();
  let skipped = 0;
  const onFact = async (fact: EmulateFact) => {
    if (fact.fact === "warned") screen.warn(fact.text);
    if (fact.fact === "waited") screen.say(fact.text);
    if (fact.fact === "skipped" && ++skipped <= skipsTold) {
      screen.warn(`${fact.text}${skipped === skipsTold ? "; more of the kind are only counted" : ""}`);
    }
    if (fact.fact !== "posted" || flags.has("quiet") || flags.has("json")) return;
    for (const { rows } of fact.posts) {
      for (const table of tableNames) screen.print(`${table}_result ${printable(rows[table])}`);
    }
    await screen.printed();
  };
  screen.say(`Posting with seed ${seed}`);
  const options = { ...(limit !== undefined && { limit }), ...(rate !== undefined && { rate }) };
  const result = await emulate({ mysql, kafka, seed, ...options, waitMs, signal, onFact });
  const lost = result.skipped > 0 ? `, ${count(result.skipped)} skipped` : "";
  screen.say(`emulate ${some(result.posts, "post")}${lost} in ${seconds(started)}`);
  return result;
}

async function runServe(context: Context, { mysql, kafka }: Connections): Promise<void> {
  const { screen, signal, lake, flags, host, port } = context;
  const token = await readToken(context);
  // Loaded here alone: the other commands start sooner.
  const { serve } = await import("./http/server.ts");
  const anyPrefix = flags.has("any-prefix");
  const onFact = (fact: ServeFact) => {
    if (fact.fact === "warned") screen.warn(fact.text);
    if (fact.fact === "waited") screen.say(fact.text);
    if (fact.fact === "listening") {
      screen.print(flags.has("json") ? JSON.stringify({ url: fact.url }) : `Listening on ${fact.url}`);
    }
  };
  await serve({ mysql, kafka, lake, host, port, ...(token !== undefined && { token }), anyPrefix, signal, onFact });
}

/** The token that clients must show, by file or environment; never by an argument, which others could see. */
async function readToken({ tokenFile, screen }: Context): Promise<string | undefined> {
  if (tokenFile !== undefined && process.env.PIPELINE_TOKEN)
    throw new UsageError("There are two tokens, of --token-file and of PIPELINE_TOKEN: leave one of them out");
  const from = tokenFile === undefined ? "PIPELINE_TOKEN" : `"${tokenFile}"`;
  const text = tokenFile === undefined ? process.env.PIPELINE_TOKEN : await readSecret(tokenFile, screen);
  const token = text?.trim();
  if (!token && tokenFile === undefined) return undefined;
  if (token && /^[\x21-\x7e]{16,500}$/.test(token)) return token;
  throw new UsageError(`The token of ${from} must be 16 to 500 characters, printable ASCII without blanks`);
}

async function readSecret(path: string, screen: Screen): Promise<string> {
  const found = await stat(path).catch((error: Error) => {
    throw new UsageError(`Cannot read the token: ${error.message}`);
  });
  if (found.mode & 0o077) screen.warn(`Others on this machine can read "${path}": run chmod 600 "${path}"`);
  return readFile(path, "utf8");
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

/** Refuses the lake of another cluster, prefix or database before anything is posted for it. */
async function checkLake(context: Context, connections: Connections): Promise<void> {
  const { lake, waitMs, signal, screen } = context;
  const bound = await readBinding(lake);
  if (!bound) return;
  const { kafka } = connections;
  const onWait = (text: string) => screen.say(text);
  const connecting = () => connectReader(kafka);
  await using reader = await patiently(connecting, { waitMs, signal, isTransient: isTransientKafka, onWait });
  const database = await databaseOf(connections, context);
  checkBinding(lake, bound, { cluster: reader.clusterId, prefix: kafka.prefix, ...database });
}

/** The id of the database that the settings name, so that the lake of another one is refused; none when it is away. */
async function databaseOf(
  { mysql, services }: Connections,
  { waitMs }: Pick<Context, "waitMs">,
): Promise<{ database?: string }> {
  if (!mysql || (services && !services.mysql)) return {};
  const db = await connectMysql(mysql, { waitMs }).catch((error: unknown) => {
    if (isTransientMysql(error)) return undefined;
    throw error;
  });
  if (!db) return {};
  try {
    return { database: await databaseId(db, mysql) };
  } finally {
    db.destroy();
  }
}

/** Answers, and counts what only MySQL and Kafka know. */
async function runReport(context: Context, connections: Connections | undefined) {
  const { screen, signal, lake, flags } = context;
  const started = Date.now();
  const found = await report({ lake, signal });
  const sources = connections ? await countSources(connections, context) : undefined;
  screen.say(`report  ${Object.keys(found.answers).length} answers in ${seconds(started)}`);
  if (!flags.has("json")) {
    for (const [name, question] of Object.entries(questions)) {
      const { columns, rows } = found.answers[name as Question];
      screen.print(`\n${question} (${name})\n${formatTable(columns, rows, { most: 13 })}`);
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

async function explore(context: Context, { mysql }: Connections): Promise<unknown> {
  const { screen, flags, waitMs } = context;
  const db = await connectMysql(mysql, { waitMs });
  try {
    const pin = await inspectTable(db, mysql.database, "pin");
    const index = context.index ?? (await keysAt(db, pin, [Math.random()]))[0];
    if (index === undefined) throw new Error(`Table "${tables.pin.source}" is empty`);
    const parts: string[] = [];
    let found = false;
    for (const table of tableNames) {
      const source = table === "pin" ? pin : await inspectTable(db, mysql.database, table);
      const [row] = (await readRows(db, source, [index])).values();
      found ||= row !== undefined;
      parts.push(`"${table}_result":${row ? rowToJson(source.columns, row) : "null"}`);
      if (flags.has("json")) continue;
      screen.print(`${table}_result${row ? "" : `: no row with ${tables[table].key} ${index}`}`);
      for (const [i, { name }] of source.columns.entries()) {
        if (row) screen.print(`  ${name.padEnd(18)} ${row[i] === null ? "NULL" : printable(String(row[i]))}`);
      }
    }
    if (flags.has("json")) screen.print(`{${parts.join(",")}}`);
    if (!found) throw new Error(`No table has a row of the post ${index}`);
    return undefined;
  } catch (error) {
    throw explainMysql(error, mysql);
  } finally {
    db.destroy();
  }
}

async function status({ screen, lake, flags, waitMs }: Context, { mysql, kafka }: Connections): Promise<unknown> {
  await using reader = openStatus({ mysql, kafka, waitMs });
  const { tables: found, trouble } = await reader.read(lake);
  for (const text of trouble) screen.warn(text);
  if (flags.has("json")) return found;
  const total = (offsets: Record<string, number>) => Object.values(offsets).reduce((sum, n) => sum + n, 0);
  const columns = [
    "table",
    "in MySQL",
    "posted",
    "up to key",
    "in topic*",
    "landed to",
    "cleaned to",
    "lag",
    "clean",
    "rejected",
    "adds up",
  ];
  const rows = Object.values(found).map((t) => [
    ...[t.table, t.in_mysql, t.posted, t.last_key, t.in_topic],
    ...[total(t.landed), total(t.cleaned), t.lag, t.clean, t.rejected, t.adds_up ? "yes" : "NO"],
  ]);
  screen.print(formatTable(columns, rows));
  screen.print("  * offsets, the marks of transactions among them; lag counts the offsets that are not cleaned yet");
  const reasons = Object.values(found).flatMap((t) => Object.entries(t.reasons).map(([why, n]) => [t.table, why, n]));
  if (reasons.length > 0) screen.print(`\n${formatTable(["table", "reason", "rejected"], reasons)}`);
  return undefined;
}

async function up(context: Context, { mysql, kafka, services }: Connections): Promise<unknown> {
  const { screen, flags } = context;
  if (!services) {
    screen.say("MySQL and Kafka are your own: there is nothing to start");
    return undefined;
  }
  const { host, port, user, database } = mysql;
  const result = {
    mysql: { host, port, user, database, ...(services.mysql && { creds_file: services.credsFile }) },
    kafka: { brokers: kafka.brokers },
  };
  if (!flags.has("json")) {
    const down = `npx tsx main.ts down${context.dataOptions}`;
    if (services.mysql) {
      screen.print(`MySQL   ${host}:${port}, database ${database}, user ${user}, password in ${services.credsFile}`);
    }
    screen.print(`Kafka   ${kafka.brokers.join(",")}`);
    screen.print(`${services.mysql ? "They run" : "It runs"} until: ${down}`);
    if (services.mysql) screen.print(`Elsewhere: --creds ${services.credsFile}`);
  }
  return result;
}

async function reset(context: Context): Promise<void> {
  const { data, lake, screen, flags } = context;
  const folders = [join(data, "services"), lake].filter((folder) => existsSync(folder));
  if (folders.length === 0) return screen.say(`There is nothing to delete in "${data}"`);
  if (!flags.has("yes")) {
    if (!process.stdin.isTTY)
      throw new UsageError("reset asks before it deletes, and there is nobody to ask: say --yes");
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    const question = `Delete ${folders.map((f) => `"${f}"`).join(" and ")}? [y/N] `;
    const closed = new AbortController();
    terminal.on("close", () => closed.abort()); // Ctrl+D
    const answer = await terminal
      .question(question, { signal: AbortSignal.any([context.signal, closed.signal]) })
      .catch(() => "no");
    context.signal.throwIfAborted();
    terminal.close();
    if (!/^y(es)?$/i.test(answer.trim())) return screen.say("Nothing was deleted");
  }
  // Nobody may be cleaning while it is deleted.
  await using _lock = existsSync(lake) ? await lockLake(lake) : undefined;
  await stopServices({ dataDir: data, say: (text) => screen.say(text) });
  for (const folder of folders) await rm(folder, { recursive: true, force: true });
  screen.say(`Deleted ${folders.map((f) => `"${f}"`).join(" and ")}`);
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
