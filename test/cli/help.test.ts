/** Help of commands, and completion in real shells. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { commandHelp, help } from "../../cli/help.ts";
import { commandNames, optionNames, takes } from "../../cli/options.ts";
import { ok, run, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder?.remove());

test("the help of a command has its options and no others, in 80 columns", () => {
  for (const command of commandNames) {
    const text = commandHelp(command);
    for (const name of optionNames.filter((option) => option !== "licences")) {
      assert.equal(
        new RegExp(`^ {2}(-\\w, )?--${name}( |$)`, "m").test(text),
        takes(command, name),
        `${command} --${name}`,
      );
    }
    assert.match(text, /\nExamples:\n {2}\S/);
  }
  const long = [help(), ...commandNames.map(commandHelp)].flatMap((text) =>
    text.split("\n").filter((l) => l.length > 80),
  );
  assert.deepEqual(long, []);
});

test("every way to ask for help prints the same", async () => {
  const [whole, ofPost] = await Promise.all([run(["--help"]), run(["post", "--help"])]);
  for (const [args, wanted] of [
    [["-h"], whole],
    [["help"], whole],
    [["post", "-h"], ofPost],
    [["help", "post"], ofPost],
  ] as const) {
    assert.deepEqual(await run([...args]), wanted, args.join(" "));
  }
  assert.match(ok(ofPost).stdout, /^Post changed rows of MySQL/);
});

/** The script that completes a command line in each shell; `LINE` is replaced by it. */
const shells = {
  bash: `source "$1"; COMP_WORDS=(LINE); [[ "LINE" == *" " ]] && COMP_WORDS+=(""); COMP_CWORD=$(( \${#COMP_WORDS[@]} - 1 ))
    _pinterest_data_pipeline; printf '%s\\n' "\${COMPREPLY[@]}"`,
  zsh: `autoload -Uz compinit; compinit -u -D; source "$1"; compadd() { shift; print -rl -- \${(M)@:#$words[CURRENT]*}; }
    words=(LINE); [[ "LINE" == *" " ]] && words+=(""); CURRENT=$#words; _pinterest_data_pipeline`,
  fish: `source $argv[1]; complete -C "LINE" | cut -f1`,
};

for (const [shell, script] of Object.entries(shells)) {
  test(`${shell} completes commands and the options that a command accepts`, async (t) => {
    const path = join(folder.path, `completion.${shell}`);
    await writeFile(path, ok(await run(["completion", shell])).stdout);
    const complete = (line: string) => {
      const flags = shell === "fish" ? ["--no-config", "-c"] : shell === "zsh" ? ["-f", "-c"] : ["--norc", "-c"];
      const text = script.replaceAll("LINE", line);
      const args = shell === "fish" ? [...flags, text, path] : [...flags, text, shell, path];
      return execFileSync(shell, args, { encoding: "utf8" }).trim().split("\n").sort();
    };
    try {
      execFileSync(shell, ["-c", "true"]);
    } catch {
      return t.skip(`${shell} is not installed`);
    }
    const name = "pinterest-data-pipeline";
    assert.deepEqual(complete(`${name} e`), ["eject", "emulate", "explore"]);
    assert.deepEqual(complete(`${name} post --f`), ["--follow", "--full"]);
    assert.deepEqual(complete(`${name} clean --re`), ["--rebuild"]);
    assert.deepEqual(complete(`${name} completion `), ["bash", "fish", "zsh"]);
  });
}
