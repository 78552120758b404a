import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { commandsPage } from "../build/commands_page.ts";
import { readArguments } from "../cli/arguments.ts";
import { help } from "../cli/help.ts";
import { commandNames, optionNames } from "../cli/options.ts";
import packageJson from "../package.json" with { type: "json" };
import { errorMessages } from "./support/error_messages.ts";

const list = (...patterns: string[]) =>
  execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard", ...patterns], { encoding: "utf8" })
    .split("\n")
    .filter((path) => path && existsSync(path));
const pages = new Map(list("*.md").map((path) => [path, readFileSync(path, "utf8")]));
const guides = [...pages].filter(([path]) => path !== "CHANGELOG.md");

/** A page without its code blocks. */
const prose = (text: string) => text.replace(/^```[^\n]*\n.*?^```$/gms, "");
/** The lines of a page's code blocks that have no language. */
const codeLines = (text: string) =>
  [...text.matchAll(/^```\n(.*?)^```$/gms)].flatMap(([, code = ""]) => code.split("\n"));
/** The code between backticks in a page's text. */
const codeSpans = (text: string) => [...prose(text).matchAll(/`([^`]+)`/g)].map(([, code = ""]) => code);

/** The names by which links reach a page's headings, as code hosts make them. */
function anchors(text: string): string[] {
  const found: string[] = [];
  for (const [, heading = ""] of prose(text).matchAll(/^#+ (.*)$/gm)) {
    const name = heading
      .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
      .toLowerCase()
      .replace(/[^\p{L}\p{N} _-]/gu, "")
      .replaceAll(" ", "-");
    const before = found.filter((other) => other === name || other.startsWith(`${name}-`)).length;
    found.push(before > 0 && found.includes(name) ? `${name}-${before}` : name);
  }
  return found;
}

test("every link of every page leads to a file or a heading that exists", () => {
  const broken: string[] = [];
  for (const [path, text] of pages) {
    for (const [, target = ""] of prose(text).matchAll(/\]\(([^)\s]+)\)/g)) {
      if (/^https?:/.test(target)) continue;
      const [file, anchor] = target.split("#");
      const to = file ? normalize(join(dirname(path), file)) : path;
      if (!existsSync(to)) broken.push(`${path}: ${target}`);
      else if (anchor && !anchors(pages.get(to) ?? "").includes(anchor)) broken.push(`${path}: ${target}`);
    }
  }
  assert.deepEqual(broken, []);
});

test("README.md has at most 200 lines and links every page of docs/", () => {
  const readme = pages.get("README.md") as string;
  assert.ok(readme.split("\n").length <= 201, `${readme.split("\n").length} lines`);
  const missing = [...pages.keys()].filter((path) => path.startsWith("docs/") && !readme.includes(`(${path})`));
  assert.deepEqual(missing, []);
});

/** The arguments that a line gives to the program, if it runs it; an explanation may follow after two blanks. */
function programArguments(line: string): string[] | undefined {
  const [, text] =
    /^(?:\$ )?(?:bin\/pipeline|npx tsx main\.ts|npm start(?: --)?|\.\/pinterest-data-pipeline|node main\.ts)(?: (.*))?$/.exec(
      line,
    ) ?? [];
  if (text === undefined) return undefined;
  const [command = ""] = text.split(/ {2}| [>|&;#]/);
  return command.split(" ").filter((word) => word && !/^["“]?…/.test(word));
}

test("every file that the help or an error message names exists", () => {
  const texts = [help(), ...errorMessages().map(({ text }) => text)].join("\n");
  const named = [...texts.matchAll(/(?<![\w/…"])(?:[\w.-]+\/)*(?:[\w.-]+\.(?:md|yaml)|\w+\/(?=$|[ ,;)]))/gm)].map(
    ([name]) => name,
  );
  assert.ok(named.includes("README.md") && named.includes("docs/own-services.md"), named.join(" "));
  assert.deepEqual(
    named.filter((name) => name !== "db_creds.yaml" && !existsSync(name)),
    [],
  );
});

const placeholders: Record<string, string> = {
  N: "1",
  DIR: "folder",
  COMMAND: "post",
  PATH: "file",
  NAME: "name",
  SHELL: "bash",
  SECONDS: "60",
};
const wrong = (args: string[]): string | undefined => {
  try {
    readArguments(args.map((word) => placeholders[word] ?? word));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
};

test("every command line of every page is one that the program accepts", () => {
  const refused: string[] = [];
  let checked = 0;
  for (const [path, text] of guides) {
    const spans = codeSpans(text).map((span) => {
      const [command = "", ...rest] = span.split(" ");
      const isCommand = (commandNames as string[]).includes(command) && rest[0]?.startsWith("--");
      return isCommand ? `bin/pipeline ${span}` : span;
    });
    for (const line of [...codeLines(text), ...spans]) {
      const args = programArguments(line);
      if (!args) continue;
      checked++;
      const message = wrong(args);
      if (message) refused.push(`${path}: ${line}: ${message}`);
    }
  }
  assert.deepEqual(refused, []);
  assert.ok(checked > 40, `only ${checked} lines were checked`);
});

test("every npm script that a page names exists", () => {
  const scripts = Object.keys(packageJson.scripts);
  const missing = guides.flatMap(([path, text]) =>
    [...text.matchAll(/npm run ([a-z0-9:-]+)/g)]
      .map(([, name = ""]) => name)
      .filter((name) => !scripts.includes(name))
      .map((name) => `${path}: npm run ${name}`),
  );
  assert.deepEqual(missing, []);
});

test("docs/commands.md is what the program's own help says; npm run docs writes it", () => {
  assert.equal(pages.get("docs/commands.md"), commandsPage());
});

test("every option that a page names is the program's, or one of a script in this repository", () => {
  const code = list("test/*.ts", "bench/*.ts", "build/*.ts", "deploy/*")
    .map((path) => readFileSync(path, "utf8"))
    .join("\n");
  const foreign = ["--operation", "--cpu-prof"];
  const unknown = guides.flatMap(([path, text]) =>
    codeSpans(text)
      .filter((span) => /^--\w/.test(span))
      .map((span) => span.split(/[ =]/)[0] as string)
      .filter(
        (option) =>
          !(optionNames as string[]).includes(option.slice(2)) &&
          !code.includes(option) &&
          !code.includes(` ${option.slice(2)}: {`) &&
          !foreign.includes(option),
      )
      .map((option) => `${path}: ${option}`),
  );
  assert.deepEqual(unknown, []);
});

/** The messages that the page explains: code in bold. */
const troubles = [...(pages.get("docs/troubleshooting.md") ?? "").matchAll(/\*\*`([^`]+)`\*\*/g)].map(
  ([, span = ""]) => span,
);
const pattern = (span: string) =>
  new RegExp(`^${span.replace(/[.*+?^$()|[\]{}\\]/g, "\\$&").replaceAll("…", ".*")}`, "s");
/** Errors that only a defect of this program can cause, and parts of other messages. */
const parts =
  /^[a-z]|^(The server (is stopping|stops)|The services were stopped|The supervisor did not answer|Stopped by|No answer within)/;

test("docs/troubleshooting.md explains every error message of the program", () => {
  const patterns = troubles.map(pattern);
  const missing = errorMessages()
    .filter(({ text }) => !parts.test(text) && !patterns.some((each) => each.test(text)))
    .map(({ file, line, text }) => `${file}:${line}: ${text}`);
  assert.deepEqual(missing, []);
});

test("every message that docs/troubleshooting.md explains is one that the program has", () => {
  const sources = list("*.ts", "bin/*.cjs")
    .filter((path) => !path.startsWith("test/"))
    .map((path) => readFileSync(path, "utf8").replaceAll("\\\\", "\\"))
    .join("\n");
  const stale = troubles.filter((span) => {
    const longest = span.split("…").sort((a, b) => b.length - a.length)[0] as string;
    return !sources.includes(longest.trim());
  });
  assert.deepEqual(stale, []);
});
