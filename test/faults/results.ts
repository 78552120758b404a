/**
 * The results of the fault suite: a tally of each fault, tables of them, and the file in which `--resume` keeps them.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, readFileSync, renameSync, writeFileSync } from "node:fs";

/** Results of one fault, over all its rounds. */
export interface Tally {
  rounds: number;
  /** Rounds of the executable; the others run the sources. */
  binary: number;
  strikes: number;
  hits: number;
  lost: number;
  doubled: number;
  wrong: number;
  /** If the tables were changed: rows written, messages, keys that should be deleted, and repeated messages. */
  writes: number;
  messages: number;
  notDeleted: number;
  again: number;
  reads: number;
  failedReads: number;
}

export const newTally = (): Tally => ({
  ...{ rounds: 0, binary: 0, strikes: 0, hits: 0, lost: 0, doubled: 0, wrong: 0 },
  ...{ writes: 0, messages: 0, notDeleted: 0, again: 0, reads: 0, failedReads: 0 },
});

/** Adds the results of a round. */
export function addTally(to: Tally, round: Tally): void {
  for (const key of Object.keys(round) as (keyof Tally)[]) to[key] += round[key];
}

export const isBad = ({ lost, doubled, wrong, notDeleted }: Tally): boolean => lost + doubled + wrong + notDeleted > 0;

/** The columns of the tables of results; the second is for faults with changed tables. */
const columns = {
  plain: {
    ...{ rounds: "rounds", binary: "of the executable", strikes: "strikes", hits: "hits", lost: "lost" },
    ...{ doubled: "doubled", wrong: "wrong", reads: "reads of silver", failedReads: "of them failed" },
  },
  changes: {
    ...{ rounds: "rounds", binary: "of the executable", strikes: "strikes", hits: "hits", writes: "rows written" },
    ...{ messages: "messages", lost: "lost", notDeleted: "not deleted", doubled: "doubled", wrong: "wrong" },
    again: "same again",
  },
} satisfies Record<string, Partial<Record<keyof Tally, string>>>;

/** A table in Markdown of some faults of one kind. */
export function resultTable(tallies: [string, Tally][], kind: keyof typeof columns): string {
  const shown: Partial<Record<keyof Tally, string>> = columns[kind];
  const head = ["fault", ...Object.values(shown)];
  const rows = tallies.map(([name, tally]) => [name, ...Object.keys(shown).map((key) => tally[key as keyof Tally])]);
  const total = head.slice(1).map((_, i) => rows.reduce((sum, row) => sum + Number(row[i + 1]), 0));
  const lines = [...rows, ["all", ...total]].map((row) => `| ${row.join(" | ")} |`);
  return [`| ${head.join(" | ")} |`, `|${head.map((_, i) => (i === 0 ? " --- " : " --: ")).join("|")}|`, ...lines].join(
    "\n",
  );
}

/** The results of a fault, and the code that they are of. */
interface Kept {
  tally: Tally;
  commit: string;
  /** A hash of the program and of the suite. */
  inputs: string;
}

interface Results {
  seed: number;
  faults: Record<string, Kept>;
}

/** Results that a file keeps from run to run. */
export interface KeptResults {
  seed: number;
  /** The tally of a fault; an empty one if there are no results of this code. */
  tallyOf(name: string): Tally;
  /** Adds a round, and writes the file. */
  add(name: string, round: Tally): void;
  /** The commits of the results. */
  commits(): string[];
}

/**
 * Opens the results in a file, which is created if it is missing.
 *
 * Results of other code are dropped: all of them, or with `touched` only those of the faults that the change concerns.
 */
export function openResults(file: string, { seed, touched }: { seed: number; touched?: string[] }): KeptResults {
  const results: Results = existsSync(file) ? JSON.parse(readFileSync(file, "utf8")) : { seed, faults: {} };
  const inputs = hashOfCode();
  const isChanged = git("status", "--porcelain", "--", ...code) !== "";
  const commit = `${git("rev-parse", "--short", "HEAD").trim()}${isChanged ? " with changes" : ""}`;
  for (const [name, kept] of Object.entries(results.faults)) {
    if (kept.inputs === inputs) continue;
    if (!touched || touched.includes(name)) delete results.faults[name];
    else kept.inputs = inputs; // kept by the next run too
  }
  return {
    seed: results.seed,
    tallyOf: (name) => ({ ...newTally(), ...results.faults[name]?.tally }),
    add(name, round) {
      const { tally } = results.faults[name] ?? { tally: newTally() };
      addTally(tally, round);
      results.faults[name] = { tally, commit, inputs };
      writeFileSync(`${file}.new`, `${JSON.stringify(results, null, 2)}\n`);
      renameSync(`${file}.new`, file);
    },
    commits: () => [...new Set(Object.values(results.faults).map((kept) => kept.commit))].sort(),
  };
}

const git = (...args: string[]) => execFileSync("git", args, { encoding: "utf8" });

/** The program, as `build/` bundles it, and the suite. */
const code = [
  ...["*.ts", "*.cjs", "bin", "*.sql", "package.json", "package-lock.json", "local/pom.xml"],
  ...["bench", "test/[!f]*"].map((path) => `:(exclude)${path}`),
];

function hashOfCode(): string {
  const hash = createHash("sha256");
  for (const path of git("ls-files", "--", ...code)
    .split("\n")
    .filter((name) => name && existsSync(name)))
    hash.update(`${path}\0`).update(readFileSync(path)).update("\0");
  return hash.digest("hex").slice(0, 16);
}
