/**
 * Writes docs/commands.md from the commands and options that the program defines: `npm run docs`.
 *
 * @module
 */
import { writeFileSync } from "node:fs";
import {
  type Command,
  commandEntries,
  commonOptions,
  groups,
  type OptionName,
  optionForm,
  options,
  sentenceOf,
  specialOptions,
  takes,
} from "../cli/options.ts";

function optionTable(names: OptionName[]): string {
  const rows = names.map((name) => `| \`${optionForm(name)}\` | ${options[name].text.replaceAll("|", "\\|")} |`);
  return `| option | meaning |\n| --- | --- |\n${rows.join("\n")}`;
}

function section(command: Command): string {
  const { more, examples, takes: argument } = commandEntries[command];
  const special = specialOptions.filter((name) => takes(command, name));
  const lines = examples.map(
    ([args, what]) => `bin/pipeline ${args}`.trimEnd().padEnd(what ? 50 : 0) + (what ? `  # ${what}` : ""),
  );
  return [
    `## ${command === "run" ? "Without a command" : [command, argument].filter(Boolean).join(" ")}`,
    [sentenceOf(command), more].filter(Boolean).join(" "),
    ...(special.length > 0 ? [optionTable(special)] : []),
    `\`\`\`\n${lines.join("\n")}\n\`\`\``,
  ].join("\n\n");
}

/** The page as Markdown. */
export function commandsPage(): string {
  return `${[
    "# Commands",
    "`bin/pipeline COMMAND --help` shows the same. `npm run docs` writes this page from `cli/options.ts`.",
    ...groups.flatMap(([, commands]) => commands.map(section)),
    "## Options of every command",
    optionTable(commonOptions),
  ].join("\n\n")}\n`;
}

if (process.argv[1] === import.meta.filename) writeFileSync("docs/commands.md", commandsPage());
