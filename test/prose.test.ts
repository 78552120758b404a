import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { test } from "node:test";

/** Phrases that a reader has to read twice, and what to write instead. */
const phrases: [RegExp, string][] = [
  [/\b(is|are|was|were|be) told\b/i, "warns, reports, says"],
  [/\bthe talk\b/i, "progress and warnings"],
  [/\badds? up\b/i, "is balanced"],
  [/\bwhat became of\b/i, "result"],
  [/\b(was|were|is|are|been|be) made again\b/i, "recreated, rebuilt"],
  [/\bonce more\b/i, "again"],
  [/\blet(s|ting)? go of\b/i, "frees, releases"],
  [/\bgo(es)? on where\b/i, "continues"],
  [/\ball the same\b/i, "anyway"],
  [/\b(nobody|none) would\b/i, "name the case"],
  [/\bby way of\b/i, "through"],
  [/\bthe way of the\b/i, "pipeline"],
  [/\b(that|what|which|it|who) lacks?\b/i, "is missing, has no"],
  [/\bmend(s|ed|ing)?\b(?!\()/i, "fix, repair"],
  [/\bas many as there are\b/i, "all"],
  [/\bstands? (in|at|for|there|before|behind|beside)\b/i, "is in, is stored"],
  [/\b(of|by) (its|their|your) own\b/i, "private, separate, its"],
  [/\bbut for\b/i, "except"],
];

const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], { encoding: "utf8" })
  .split("\n")
  .filter((path) => /\.(ts|js|py|sql|md|html|yaml|yml|sh)$/.test(path) && existsSync(path))
  .filter((path) => !/^(local\/sample\/words|test\/prose|build\/licences)/.test(path));

test("no comment, message or page has a phrase that one must read twice", () => {
  const found: string[] = [];
  for (const path of files) {
    for (const [i, line] of readFileSync(path, "utf8").split("\n").entries()) {
      for (const [phrase, instead] of phrases) {
        if (phrase.test(line))
          found.push(`${path}:${i + 1}: "${phrase.exec(line)?.[0]}" (${instead}): ${line.trim().slice(0, 100)}`);
      }
    }
  }
  assert.deepEqual(found.slice(0, 50), []);
});
