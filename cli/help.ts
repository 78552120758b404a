/**
 * The help texts, and what was meant where a word is unknown.
 *
 * @module
 */

import { programName } from "../runtime/program.ts";
import { nearest } from "./nearest.ts";
import {
  type Command,
  commandEntries,
  groups,
  type Option,
  type OptionName,
  optionNames,
  options,
  takes,
} from "./options.ts";

/** Columns of the help texts: they fit a terminal of the usual width. */
const width = 80;

/** A text cut into lines at blanks, those after the first set in. */
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

/** A word or two, and what they mean; on lines of their own where they are long. */
function entry(left: string, text: string, column: number): string {
  const indent = " ".repeat(column);
  if (left.length < column - 1) return wrap(text, { first: `  ${left}`.padEnd(column), indent });
  return `  ${left}\n${wrap(text, { first: indent, indent })}`;
}

/** An option; `whose`: with the commands that take it. */
function optionEntry(name: OptionName, { whose = false } = {}): string {
  const { short, value, text, only = [] } = options[name] as Option;
  const commands = only.map((command) => (command === "run" ? "no command" : command)).join(", ");
  const left = `${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}`;
  return entry(left, whose ? `${text} [${commands}]` : text, 22);
}

const named = (command: Command) => [command === "run" ? "(no command)" : command, commandEntries[command].takes];
const usageOf = (command: Command) => named(command).filter(Boolean).join(" ");
const typed = (args: string) => `${programName} ${args}`.trimEnd();

/** The help of the whole program. */
export function help(): string {
  const list = groups.map(
    ([title, names]) =>
      `${title}:\n${names.map((name) => entry(usageOf(name), commandEntries[name].text, 19)).join("\n")}`,
  );
  const common = optionNames.filter((name) => !("only" in options[name]));
  const special = optionNames.filter((name) => "only" in options[name]);
  const lists = [
    `Options of every command:\n${common.map((name) => optionEntry(name)).join("\n")}`,
    `Options of some commands:\n${special.map((name) => optionEntry(name, { whose: true })).join("\n")}`,
  ];
  return `${[
    "Pinterest data pipeline: MySQL to Kafka to clean Parquet, exactly once.",
    `Usage: ${typed("[command] [options]")}\n       ${typed("COMMAND --help")}`,
    ...list,
    ...lists,
    wrap(
      "Services: without db_creds.yaml the program runs a MariaDB and a Kafka of its own, with sample data. KAFKA_HOME and MARIADB_HOME name installed ones to use instead of those it downloads. --zookeeper belongs to every command that is to use that Kafka, down and reset too.",
    ),
    wrap(
      "Credentials: with db_creds.yaml it uses your MySQL, and your Kafka where the file has a KAFKA part: see db_creds.example.yaml. Variables of the environment win over the file, and can replace it: PIPELINE_MYSQL_HOST, PIPELINE_MYSQL_PASSWORD, PIPELINE_KAFKA_BROKERS, PIPELINE_KAFKA_SASL_PASSWORD …",
    ),
    wrap(
      "Exit codes: 0 all went well; 1 it failed; 2 wrong use or settings; 3 done, but there are new rejects; 130 and 143 stopped by a signal.",
    ),
  ].join("\n\n")}\n`;
}

/** The help of one command. */
export function commandHelp(command: Command): string {
  const { text, more, examples, takes: argument } = commandEntries[command];
  const own = optionNames.filter((name) => "only" in options[name] && takes(command, name));
  const common = optionNames.filter(
    (name) => !("only" in options[name]) && name !== "licences" && takes(command, name),
  );
  const words = [command === "run" ? "" : command, argument ?? "", "[options]"].filter(Boolean).join(" ");
  const lines = examples.map(([args, what]) => `  ${typed(args)}${what ? `\n      ${what}` : ""}`);
  return `${[
    wrap(`${text[0]?.toUpperCase()}${text.slice(1)}.`),
    ...(more ? [wrap(more)] : []),
    `Usage: ${typed(words)}`,
    ...(own.length > 0 ? [`Its options:\n${own.map((name) => optionEntry(name)).join("\n")}`] : []),
    `Options of every command:\n${common.map((name) => optionEntry(name)).join("\n")}`,
    `Examples:\n${lines.join("\n")}`,
  ].join("\n\n")}\n`;
}

/** Where to look for help, as the end of a message that names an unknown word; says which known one was probably meant. */
export function seeHelp(word = "", known: readonly string[] = []): string {
  const see = `see "${programName} --help"`;
  const near = nearest(word, known);
  return near ? `; did you mean "${near}"? S${see.slice(1)}` : `; ${see}`;
}
