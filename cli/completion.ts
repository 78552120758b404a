/**
 * Completion scripts for bash, zsh and fish.
 *
 * @module
 */

import { UsageError } from "../runtime/errors.ts";
import { shellWord, typedAs } from "../runtime/program.ts";
import { type Command, commandEntries, commandNames, type Option, optionNames, options, takes } from "./options.ts";

const typedCommands = commandNames.filter((name) => name !== "run");
const optionsOf = (command: Command) => optionNames.filter((name) => takes(command, name)).map((name) => `--${name}`);
/** Options whose value is a path. */
const pathOptions = optionNames.filter((name) => /^(DIR|PATH)$/.test((options[name] as Option).value ?? ""));

/** The words of a command line, for bash and zsh. */
const words = () => `  case "$command" in
${typedCommands.map((name) => `    ${name}) words=${shellWord(optionsOf(name).join(" "))} ;;`).join("\n")}
    *) words=${shellWord([...typedCommands, ...optionsOf("run")].join(" "))} ;;
  esac`;

const bash = () => `# Completes ${typedAs} in bash.
_pinterest_data_pipeline() {
  local current=\${COMP_WORDS[COMP_CWORD]} before=\${COMP_WORDS[COMP_CWORD-1]} command= words word
  for word in "\${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    case "$word" in ${typedCommands.join("|")}) command=$word; break ;; esac
  done
  case "$before" in
    ${pathOptions.map((name) => `--${name}`).join("|")}|eject) COMPREPLY=($(compgen -f -- "$current")); return ;;
    completion) COMPREPLY=($(compgen -W 'bash zsh fish' -- "$current")); return ;;
  esac
${words()}
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}
complete -F _pinterest_data_pipeline ${typedAs}
`;

const zsh = () =>
  `# Completes ${typedAs} in zsh.
_pinterest_data_pipeline() {
  local command= words word
  for word in "\${(@)\${(@)words}[2,CURRENT-1]}"; do
    case "$word" in ${typedCommands.join("|")}) command=$word; break ;; esac
  done
  case "\${\${(@)words}[CURRENT-1]}" in
    ${pathOptions.map((name) => `--${name}`).join("|")}|eject) _files; return ;;
    completion) compadd -- bash zsh fish; return ;;
  esac
${words().replaceAll("words=", "choices=")}
  compadd -- \${=choices}
}
compdef _pinterest_data_pipeline ${typedAs}
`.replace("local command= words word", "local command= choices word");

function fish(): string {
  const line = (rest: string) => `complete -c ${typedAs} ${rest}`;
  const among = `__fish_seen_subcommand_from ${typedCommands.join(" ")}`;
  return `${[
    `# Completes ${typedAs} in fish.`,
    line("-f"),
    ...typedCommands.map((name) => line(`-n 'not ${among}' -a ${name} -d ${shellWord(commandEntries[name].text)}`)),
    line("-n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'"),
    line("-n '__fish_seen_subcommand_from eject' -F"),
    ...optionNames.map((name) => {
      const { value, short, text } = options[name] as Option;
      const takers = typedCommands.filter((command) => takes(command, name));
      const when = takers.length > 0 ? `__fish_seen_subcommand_from ${takers.join(" ")}` : "";
      const alone = takes("run", name) ? `not ${among}` : "";
      const condition = [when, alone].filter(Boolean).join("; or ");
      const kind = pathOptions.includes(name) ? " -r -F" : value ? " -x" : "";
      return line(`-n '${condition}' -l ${name}${short ? ` -s ${short}` : ""}${kind} -d ${shellWord(text)}`);
    }),
  ].join("\n")}\n`;
}

const scripts: Record<string, () => string> = { bash, zsh, fish };

/** The script for a shell. */
export function completion(shell: string): string {
  if (!Object.hasOwn(scripts, shell)) throw new UsageError(`completion needs bash, zsh or fish, not "${shell}"`);
  return (scripts[shell] as () => string)();
}
