/**
 * Shared by the tests: temporary folders, running the program, and reading Parquet.
 *
 * @module
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp, mkdir, mkdtemp, readdir, readFile, rm, symlink } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { withDuckDb } from "../../runtime/duckdb.ts";

/** A temporary folder; `remove` deletes it. */
export async function temporaryFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "pipeline-"));
  return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/** The result of a run of the program. */
export interface Run {
  code: number | null;
  /** The signal that killed it, if one did. */
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** A running program. */
export interface Running {
  pid: number;
  done: Promise<Run>;
  /** Its output so far. */
  output: () => string;
  kill: (signal: NodeJS.Signals) => void;
  /** Resolves when its stderr or stdout matches. */
  said: (pattern: RegExp) => Promise<void>;
}

const main = new URL("../../main.ts", import.meta.url).pathname;
/** The script that starts a bundle of the sources. */
export const launcher = new URL("../../bin/pipeline", import.meta.url).pathname;

const programAt = (path: string) => [process.execPath, "--import", import.meta.resolve("tsx"), path];

/** What the tests run: the executable or launcher in PIPELINE_PROGRAM, or the sources. */
function tested(): string[] {
  const path = programPath();
  if (!path) return programAt(main);
  return isScript(path) ? [process.execPath, path] : [path];
}

/** Absolute, because the tests start it in other folders. */
const programPath = () => process.env.PIPELINE_PROGRAM && resolve(process.env.PIPELINE_PROGRAM);

const isScript = (path: string) => basename(path) === "pipeline";

/** Makes a test file start the sources with tsx; others start `bin/pipeline`. */
export function startSources(): void {
  if (isScript(process.env.PIPELINE_PROGRAM ?? "")) delete process.env.PIPELINE_PROGRAM;
}

/** The name of the program in its messages. */
export const programName = (): string => programPath() ?? "npx tsx main.ts";

/** Copies the program into a folder, for tests that edit it. @returns how it is started */
export async function copyProgram(folder: string): Promise<string[]> {
  const root = new URL("../../", import.meta.url).pathname;
  const leftOut = new Set(["node_modules", "data", "test", "bench", "docs", "deploy"]);
  const filter = (path: string) => !/^[._]/.test(basename(path)) && !leftOut.has(relative(root, path));
  await cp(root, folder, { recursive: true, filter: (path) => path === root || filter(path) });
  // A folder of links, so that the copy has its own bundles.
  await mkdir(join(folder, "node_modules"));
  for (const name of await readdir(join(root, "node_modules")))
    if (name !== ".cache") await symlink(join(root, "node_modules", name), join(folder, "node_modules", name));
  return programAt(join(folder, "main.ts"));
}

/** How a program is started. */
interface StartOptions {
  /** A shell command that reads the program's output. */
  piped?: string;
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  program?: string[];
}

/** Starts `tsx main.ts` as a user would, or another program. */
export function start(args: string[], { cwd, env = {}, program = tested(), piped }: StartOptions = {}): Running {
  const shell = piped ? ["sh", "-c", `"$@" | ${piped}`, "sh"] : [];
  const [command = "", ...before] = [...shell, ...program];
  const child = spawn(command, [...before, ...args], {
    ...(cwd && { cwd }),
    env: { ...process.env, NO_COLOR: "1", ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let stdout = "";
  let stderr = "";
  const waiting: { pattern: RegExp; resolve: () => void }[] = [];
  const check = () => {
    for (const { pattern, resolve } of waiting) if (pattern.test(stdout + stderr)) resolve();
  };
  child.stdout.setEncoding("utf8").on("data", (text) => {
    stdout += text;
    check();
  });
  child.stderr.setEncoding("utf8").on("data", (text) => {
    stderr += text;
    check();
  });
  const done = new Promise<Run>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal, stdout, stderr }));
  });
  return {
    pid: child.pid as number,
    done,
    output: () => stdout + stderr,
    kill: (signal) => void child.kill(signal),
    said: async (pattern) => {
      const heard = new Promise<void>((resolve) => {
        waiting.push({ pattern, resolve });
        check();
      });
      const ended = done.then((run) => {
        if (!pattern.test(run.stdout + run.stderr))
          throw new Error(`It ended without printing ${pattern}: ${run.stderr}`);
      });
      await Promise.race([heard, ended]);
    },
  };
}

/**
 * The environment in which the program writes its trace points to the file `trace`, and a fault is injected at one of
 * them: `kill 3 silver`, or `pause 1 ^committing pin` while `<trace>.hold` exists.
 */
export const struck = (trace: string, strike?: string): NodeJS.ProcessEnv => ({
  NODE_OPTIONS: `--require=${JSON.stringify(new URL("../faults/strike.cjs", import.meta.url).pathname)}`,
  PIPELINE_STEPS: trace,
  ...(strike && { PIPELINE_STRIKE: strike }),
});

/** Runs the program to its end. */
export const run = (args: string[], options?: StartOptions): Promise<Run> => start(args, options).done;

/** Asserts the exit code of a run. */
export function ok(result: Run, code = 0): Run {
  assert.equal(result.code, code, result.stderr);
  return result;
}

/** Whether a process runs; a zombie does not. */
export const runs = async (pid: number): Promise<boolean> =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")) !== "";

/** Resolves when processes have ended, within 10 s. */
export const untilGone = async (pids: number[]): Promise<void> => {
  for (let tries = 0; tries < 100; tries++) {
    const alive = await Promise.all(pids.map(runs));
    if (!alive.includes(true)) return;
    await sleep(100);
  }
  assert.fail(`Processes ${pids} still run`);
};

/** The rows of an SQL query over files, as DuckDB values. */
export async function query(sql: string): Promise<Record<string, unknown>[]> {
  return await withDuckDb({}, async (connection) => (await connection.runAndReadAll(sql)).getRowObjects());
}

/** The values of a table in lines of a printed ledger or status: `ledgerColumn(stdout, "geo", ["messages", "= clean"])`. */
export function ledgerColumn(text: string, table: string, lines: string[]): (string | undefined)[] {
  const cells = text.split("\n").map((line) => line.trim().split(/ {2,}/));
  const column = cells.find((names) => names.includes(table))?.indexOf(table) as number;
  return lines.map((name) => cells.findLast(([first]) => first === name)?.[column + 1]);
}
