/**
 * The commands and options, defined once: parsing and `--help` both derive from them.
 *
 * @module
 */

import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { UsageError } from "../runtime/errors.ts";
import { isBinary, programName } from "../runtime/program.ts";
import { isPrefix, prefixRule } from "./credentials.ts";

const commands = {
  run: ["(no command)", "post, clean and report, one after the other; with --follow, go on posting and cleaning"],
  up: ["up", "start MySQL and Kafka here and keep them running; load the sample into an empty database"],
  down: ["down", "stop what up started"],
  reset: ["reset", "delete the data of those services and the lake"],
  explore: ["explore", "show one post: pin_result, geo_result, user_result"],
  emulate: ["emulate", "post random rows, or make --changes, as users would, until --limit or until stopped"],
  post: ["post", "post what was inserted, updated or deleted in MySQL to Kafka, exactly once"],
  clean: ["clean", "land the topics, clean them, write Parquet and rejects"],
  serve: ["serve", "HTTP API for posts, and the live page, until stopped"],
  report: ["report", "answer the questions of sql/answers from the clean rows"],
  eject: ["eject DIR", "write the files of sql/ into a folder, to edit them and use them by --sql"],
  status: ["status", "show how far every table is, from MySQL to silver"],
} as const;

export type Command = keyof typeof commands;

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
  changes: {
    type: "boolean",
    text: "insert, update and delete rows in the program's own database",
    only: ["run", "emulate"],
  },
  limit: { type: "string", value: "N", text: "posts or changes to make (default: until stopped)", only: ["emulate"] },
  rate: {
    type: "string",
    value: "N/s",
    text: "so many a second, minute (N/m) or hour (N/h) (default: a pause of 0 to 1 s after each)",
    only: ["emulate"],
  },
  seed: {
    type: "string",
    value: "N",
    text: "chooses the posts or changes (default: a random one, which is told)",
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
  sql: {
    type: "string",
    value: "DIR",
    text: "SQL files to use before the program's own",
    only: ["run", "clean", "serve", "report", "status"],
  },
  full: {
    type: "boolean",
    text: "post every row again, and a delete for every key that MySQL lacks",
    only: ["run", "post"],
  },
  follow: { type: "boolean", text: "go on until stopped", only: ["run", "post", "clean"] },
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
  licences: { type: "boolean", text: "the licences of what is inside (of the executable)" },
} as const satisfies Record<string, Option>;

export const help = (): string => {
  const line = (left: string, right: string) => `  ${left.padEnd(18)} ${right}`;
  const optionLines = Object.entries(options as Record<string, Option>).map(([name, { value, text, only }]) => {
    const whose = only ? `  [${only.map((command) => commands[command][0]).join(", ")}]` : "";
    return line(`--${name}${value ? ` ${value}` : ""}`, `${text}${whose}`);
  });
  return `Pinterest data pipeline: MySQL to Kafka to clean Parquet, exactly once.

Usage: ${programName} [command] [options]${isBinary ? "" : "      (or: npm start -- [command] [options])"}

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
export interface Arguments {
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
  /** Where edited SQL files lie. */
  sql: string | undefined;
  /** What `eject` writes into. */
  folder: string | undefined;
  flags: Set<string>;
}

export function readArguments(argv: string[]): Arguments | "help" | "version" | "licences" {
  const see = `see "${programName} --help"`;
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
  if (values.licences) return "licences";
  const [name = "run", ...rest] = parsed.positionals;
  const folder = name === "eject" ? rest.shift() : undefined;
  if (rest.length > 0) throw new UsageError(`Unexpected argument "${rest[0]}"; ${see}`);
  if (!Object.hasOwn(commands, name)) throw new UsageError(`Unknown command "${name}"; ${see}`);
  const command = name as Command;
  if (command === "eject" && !folder) throw new UsageError(`eject takes the folder to write to; ${see}`);
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
  if (command === "run" && values.changes && !values.follow) throw new UsageError(`--changes needs --follow; ${see}`);
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
    sql: values.sql === undefined ? undefined : resolve(values.sql as string),
    folder: folder === undefined ? undefined : resolve(folder),
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
