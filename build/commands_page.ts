/**
 * Writes docs/commands.md from the commands and options that the program defines: `npm run docs`.
 *
 * @module
 */
import { writeFileSync } from "node:fs";
import {
  type Command,
  commandEntries,
  groups,
  type Option,
  type OptionName,
  optionNames,
  options,
  takes,
} from "../cli/options.ts";

const sentence = (text: string) => `${text[0]?.toUpperCase()}${text.slice(1)}.`;
const cell = (text: string) => text.replaceAll("|", "\\|");

function optionTable(names: OptionName[]): string {
  const rows = names.map((name) => {
    const { short, value, text } = options[name] as Option;
    return `| \`${short ? `-${short}, ` : ""}--${name}${value ? ` ${value}` : ""}\` | ${cell(text)} |`;
  });
  return `| option | meaning |\n| --- | --- |\n${rows.join("\n")}`;
}

function section(command: Command): string {
  const { text, more, examples, takes: argument } = commandEntries[command];
  const special = optionNames.filter((name) => "only" in options[name] && takes(command, name));
  const lines = examples.map(
    ([args, what]) => `npx tsx main.ts ${args}`.trimEnd().padEnd(what ? 50 : 0) + (what ? `  # ${what}` : ""),
  );
  return [
    `## ${command === "run" ? "Without a command" : [command, argument].filter(Boolean).join(" ")}`,
    [sentence(text), more].filter(Boolean).join(" "),
    ...(special.length > 0 ? [optionTable(special)] : []),
    `\`\`\`\n${lines.join("\n")}\n\`\`\``,
  ].join("\n\n");
}

/** The page as Markdown. */
export function commandsPage(): string {
  const common = optionNames.filter((name) => !("only" in options[name]));
  return `${[
    "# Commands",
    "`npx tsx main.ts COMMAND --help` shows the same. `npm run docs` writes this page from `cli/options.ts`.",
    ...groups.flatMap(([, commands]) => commands.map(section)),
    "## Options of every command",
    optionTable(common),
  ].join("\n\n")}\n`;
}

if (process.argv[1] === import.meta.filename) writeFileSync("docs/commands.md", commandsPage());
