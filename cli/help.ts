/**
 * The help texts.
 *
 * @module
 */

import { programName } from "../runtime/program.ts";
import { nearest } from "./nearest.ts";
import {
  type Command,
  commandEntries,
  commonOptions,
  groups,
  type Option,
  type OptionName,
  optionForm,
  options,
  sentenceOf,
  specialOptions,
  takes,
} from "./options.ts";

/** Columns of the help texts. */
const width = 80;

/** Breaks a text into lines at blanks, and indents all but the first. */
function wrap(text: string, { first = "", indent = "" }: { first?: string; indent?: string } = {}): string {
  const lines: string[] = [];
  let line = first;
  for (const word of text.split(" ")) {
    const room = lines.length === 0 ? first : indent;
    if (line.length + word.length + 1 > width && line.trim() !== room.trim()) {
      lines.push(line.trimEnd());
      line = indent;
    }
    line += line.endsWith(" ") || line === "" ? word : ` ${word}`;
  }
  return [...lines, line.trimEnd()].join("\n");
}

/** A term and its meaning, which is on the next line if the term is long. */
function entry(left: string, text: string, column: number): string {
  const indent = " ".repeat(column);
  if (left.length < column - 1) return wrap(text, { first: `  ${left}`.padEnd(column), indent });
  return `  ${left}\n${wrap(text, { first: indent, indent })}`;
}

/** An option; `whose` adds the commands that accept it. */
function optionEntry(name: OptionName, { whose = false } = {}): string {
  const { text, only = [] } = options[name] as Option;
  const commands = only.map((command) => (command === "run" ? "no command" : command)).join(", ");
  return entry(optionForm(name), whose ? `${text} [${commands}]` : text, 22);
}

const named = (command: Command) => [command === "run" ? "(no command)" : command, commandEntries[command].takes];
const usageOf = (command: Command) => named(command).filter(Boolean).join(" ");
const typed = (args: string) => `${programName} ${args}`.trimEnd();

/** Command lines for a first try. */
const examples = [
  ["", "run everything once"],
  ["doctor", "check what is needed"],
  ["status --watch", "see how far each table is"],
  ["serve", "open the live page"],
] as const;

/** The help of the whole program. */
export function help(): string {
  const list = groups.map(
    ([title, names]) =>
      `${title}:\n${names.map((name) => entry(usageOf(name), commandEntries[name].text, 19)).join("\n")}`,
  );
  const lists = [
    `Common options:\n${commonOptions.map((name) => optionEntry(name)).join("\n")}`,
    `Options of single commands:\n${specialOptions.map((name) => optionEntry(name, { whose: true })).join("\n")}`,
  ];
  return `${[
    "Pinterest data pipeline: MySQL to Kafka to clean Parquet, exactly once.",
    `Usage: ${typed("[command] [options]")}\n       ${typed("COMMAND --help")}`,
    ...list,
    `Examples:\n${examples.map(([args, does]) => entry(typed(args), does, 42)).join("\n")}`,
    ...lists,
    wrap(
      "Services: without db_creds.yaml the program starts a private MariaDB and Kafka with sample data. KAFKA_HOME and MARIADB_HOME name installed ones to start instead of downloaded ones. Repeat --zookeeper with every command that uses that Kafka, also down and reset.",
    ),
    wrap(
      "Credentials: db_creds.yaml names your own MySQL, Kafka or both; db_creds.example.yaml shows its keys. Environment variables override the file and can replace it: PIPELINE_MYSQL_HOST, PIPELINE_MYSQL_PASSWORD, PIPELINE_KAFKA_BROKERS, PIPELINE_KAFKA_SASL_PASSWORD and so on.",
    ),
    wrap(
      "Exit codes: 0 success; 1 failure; 2 wrong usage or settings; 3 done, but with new rejects; 130 and 143 stopped by SIGINT or SIGTERM.",
    ),
    "More: README.md and docs/",
  ].join("\n\n")}\n`;
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const { more, examples, takes: argument } = commandEntries[command];
  const own = specialOptions.filter((name) => takes(command, name));
  const common = commonOptions.filter((name) => name !== "licences" && takes(command, name));
  const words = [command === "run" ? "" : command, argument ?? "", "[options]"].filter(Boolean).join(" ");
  const lines = examples.map(([args, what]) => `  ${typed(args)}${what ? `\n      ${what}` : ""}`);
  return `${[
    wrap(sentenceOf(command)),
    ...(more ? [wrap(more)] : []),
    `Usage: ${typed(words)}`,
    ...(own.length > 0 ? [`Options:\n${own.map((name) => optionEntry(name)).join("\n")}`] : []),
    `Common options:\n${common.map((name) => optionEntry(name)).join("\n")}`,
    `Examples:\n${lines.join("\n")}`,
  ].join("\n\n")}\n`;
}

/** Where the help is: that of the command, if its name is given. */
export const seeHelp = (command: string | undefined): string =>
  `see "${[programName, command, "--help"].filter(Boolean).join(" ")}"`;

/** The end of a message about an unknown word: the known word that was probably meant, and `see`. */
export function meant(word: string, known: readonly string[], see: string): string {
  const near = nearest(word, known);
  return near ? `; did you mean "${near}"? S${see.slice(1)}` : `; ${see}`;
}
