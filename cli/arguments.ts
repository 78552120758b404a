/**
 * Reads and checks the command line.
 *
 * @module
 */

import { statSync } from "node:fs";
import { join, resolve } from "node:path";
import { parseArgs } from "node:util";
import { isVirtual } from "../runtime/cache.ts";
import { UsageError } from "../runtime/errors.ts";
import { shellWord } from "../runtime/program.ts";
import { completion } from "./completion.ts";
import { isPrefix, prefixRule } from "./credentials.ts";
import { commandHelp, help, meant, seeHelp } from "./help.ts";
import { type Command, commandNames, type OptionName, optionNames, options, takes } from "./options.ts";

/** The arguments, read and checked. */
export interface Arguments {
  command: Exclude<Command, "completion">;
  data: string;
  /** The options that select this folder, for commands to copy. */
  dataOptions: string;
  /** The options that select this folder, the services and the topics. */
  serviceOptions: string;
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
  /** Folder of edited SQL files. */
  sql: string | undefined;
  /** Target of `eject`. */
  folder: string | undefined;
  flags: Set<string>;
}

/** What a command line asks for: a text, or a command. */
export type Asked = { text: string } | { show: "version" | "licences" } | Arguments;

export function readArguments(argv: string[]): Asked {
  const see = seeHelp(argv.find((word) => isCommand(word) && word !== "run"));
  const parsed = parse(argv, see);
  const values = parsed.values as Values;
  const [name = "run", ...rest] = parsed.positionals;
  if (name === "help") return { text: rest[0] && isCommand(rest[0]) ? commandHelp(rest[0]) : help() };
  if (values.help) return { text: parsed.positionals[0] && isCommand(name) ? commandHelp(name) : help() };
  if (values.version) return { show: "version" };
  if (values.licences) return { show: "licences" };
  if (!isCommand(name)) throw new UsageError(`Unknown command "${name}"${meant(name, commandNames, see)}`);
  const command: Command = name;
  const argument = command === "eject" || command === "completion" ? rest.shift() : undefined;
  if (rest.length > 0) throw new UsageError(`Unexpected argument "${rest[0]}"; ${see}`);
  if (command === "completion") return { text: completion(argument ?? "") };
  const folder = command === "eject" ? argument : undefined;
  if (command === "eject" && !folder) throw new UsageError(`eject needs the folder to write to; ${see}`);
  for (const key of Object.keys(values)) {
    if (!takes(command, key as OptionName)) throw new UsageError(`"${command}" does not accept --${key}; ${see}`);
  }
  const whole = (key: string, least: number, most: number): number | undefined => {
    const text = values[key] as string | undefined;
    if (text === undefined) return undefined;
    if (/^\d{1,16}$/.test(text) && Number(text) >= least && Number(text) <= most) return Number(text);
    throw new UsageError(`--${key} needs a whole number from ${least} to ${most}, not "${text}"; ${see}`);
  };
  const prefix = values.prefix as string | undefined;
  if (prefix !== undefined && !isPrefix(prefix)) throw new UsageError(`Cannot use --prefix "${prefix}": ${prefixRule}`);
  if (values.data === "") throw new UsageError(`--data needs a folder, not ""; ${see}`);
  if (command === "run" && values.changes && !values.follow) throw new UsageError(`--changes needs --follow; ${see}`);
  if (values.follow && values.rebuild) throw new UsageError(`Use clean with --follow or --rebuild, not both; ${see}`);
  if (values["dry-run"] && !values.rebuild) throw new UsageError(`--dry-run needs --rebuild; ${see}`);
  const folders = readFolders(values);
  if (folder !== undefined && isVirtual(resolve(folder)))
    throw new UsageError(`Cannot write to "${folder}": it is not a folder for files`);
  const index = values.index as string | undefined;
  if (index !== undefined && !/^-?\d{1,19}$/.test(index)) {
    throw new UsageError(`--index needs the number of a post, not "${index}"; ${see}`);
  }
  return {
    command,
    ...folders,
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

type Values = Record<string, string | boolean | undefined>;

const isCommand = (word: string): word is Command => commandNames.includes(word as Command);

/** Parses the options that {@link options} defines. */
function parse(argv: string[], see: string) {
  try {
    return parseArgs({ args: argv, options, allowPositionals: true, strict: true });
  } catch (error) {
    const [text = ""] = (error as Error).message.replace(/\. To specify.*/s, "").split("\n");
    const [, option, trouble] = /^Option '(?:-\w, )?(--[\w-]+)[^']*' (.*)/.exec(text) ?? [];
    if (trouble === "argument missing") throw new UsageError(`${option} needs a value; ${see}`);
    if (trouble === "does not take an argument") throw new UsageError(`${option} takes no value; ${see}`);
    if (trouble?.startsWith("argument is ambiguous"))
      throw new UsageError(`Write a value that begins with a dash as ${option}=VALUE; ${see}`);
    const unknown = /^Unknown option '(-[^']*)'/.exec(text)?.[1];
    const known = optionNames.map((name) => `--${name}`);
    throw new UsageError(unknown ? `Unknown option "${unknown}"${meant(unknown, known, see)}` : `${text}; ${see}`);
  }
}

/** The folder of services and lake, and the options that lead to it and to the services. */
function readFolders(values: Values): Pick<Arguments, "data" | "dataOptions" | "serviceOptions" | "lake"> {
  const given = resolve((values.data as string | undefined) ?? "data");
  // Separate, because neither kind of Kafka can use the other's data, and a lake belongs to one cluster.
  const data = values.zookeeper ? join(given, "zookeeper") : given;
  if (isVirtual(data)) throw new UsageError(`Cannot use --data "${data}": it is not a folder for files`);
  if (isFile(given) || isFile(data)) throw new UsageError(`Cannot use --data "${data}": it is not a folder`);
  if (/[*?[\]\\]/.test(data)) {
    throw new UsageError(
      `Cannot use --data "${data}": DuckDB reads * ? [ ] and \\ in a path as patterns; choose another folder`,
    );
  }
  const dataOptions = `${given === resolve("data") ? "" : ` --data ${shellWord(given)}`}${values.zookeeper ? " --zookeeper" : ""}`;
  const copied = ["creds", "prefix"].flatMap((key) =>
    values[key] === undefined ? [] : [` --${key} ${shellWord(String(values[key]))}`],
  );
  return { data, dataOptions, serviceOptions: dataOptions + copied.join(""), lake: join(data, "lake") };
}

/** Whether a path is, or would be below, something else than a folder. */
function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isDirectory() === false;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "ENOTDIR";
  }
}

/** Posts per second from `5/s`, `5/m` or `5/h`. */
function readRate(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const [, digits, unit] = /^(\d{1,6}(?:\.\d{1,3})?)\/([smh])$/.exec(text) ?? [];
  const rate = Number(digits) / { s: 1, m: 60, h: 3600 }[(unit ?? "s") as "s" | "m" | "h"];
  if (rate > 0 && rate <= 100_000) return rate;
  throw new UsageError(`--rate needs posts per second, minute or hour, such as 5/s, 90/m or 10/h, not "${text}"`);
}
