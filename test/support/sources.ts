/**
 * The program's source files, for tests of their structure.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

const root = new URL("../../", import.meta.url).pathname;
const others = /^(node_modules|test|bench|build|docs|data)\/|^[._]/;

/** A source file: its path in the program's folder, its text, and the files that it imports. */
export interface Source {
  path: string;
  text: string;
  imports: string[];
}

/** All product files. */
export const sources = (): Source[] =>
  readdirSync(root, { recursive: true, encoding: "utf8" })
    .filter((path) => path.endsWith(".ts") && !others.test(path))
    .sort()
    .map((path) => {
      const text = readFileSync(join(root, path), "utf8");
      const found = text.matchAll(/(?:from|import\()\s*"(\.[^"]+\.ts)"/g);
      return { path, text, imports: [...found].map(([, name]) => normalize(join(dirname(path), name as string))) };
    });
