/**
 * Finds the error messages that the program's sources hold, for the test of docs/troubleshooting.md.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";

/** A message as its source has it, with … for each value. */
export interface Message {
  file: string;
  line: number;
  text: string;
}

/** Where an error begins whose message follows as text. */
const errorStarts = /new \w*Error\(\s*(?=["`])/g;

/** Reads a string or template at `from`; each `${…}` becomes …, and texts that are joined with + become one. */
function readText(source: string, from: number): string {
  const quote = source[from];
  let text = "";
  for (let i = from + 1; i < source.length; i++) {
    if (source[i] === quote) return text;
    if (source[i] === "\\") text += source[++i];
    else if (quote === "`" && source.startsWith("${", i)) {
      let depth = 0;
      for (i++; ; i++) {
        if (source[i] === "{") depth++;
        if (source[i] === "}" && --depth === 0) break;
      }
      text += "…";
    } else text += source[i];
  }
  throw new Error(`No end of the text at ${from}`);
}

/** All error messages in the product's sources. */
export function errorMessages(): Message[] {
  const files = execFileSync("git", ["ls-files", "*.ts", "bin/*.cjs"], { encoding: "utf8" })
    .split("\n")
    .filter((file) => file && !/^(test|bench|build)\//.test(file));
  return files.flatMap((file) => {
    const source = readFileSync(file, "utf8");
    return [...source.matchAll(errorStarts)].map((match) => ({
      file,
      line: source.slice(0, match.index).split("\n").length,
      text: readText(source, match.index + match[0].length),
    }));
  });
}
