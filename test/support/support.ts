/**
 * What the tests share: folders that go away, the program run from outside, and reading Parquet.
 *
 * @module
 */

import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { basename, dirname, join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { stringify } from "yaml";
import { readCredentials } from "../../cli/credentials.ts";
import { connectMysql, type MysqlSettings } from "../../db_conn.ts";
import { keyBytes, valueBytes } from "../../io/record_batch.ts";
import { connectReader } from "../../kafka/client.ts";
import { fetchOnce, unread } from "../../kafka/fetch.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { listOffsets } from "../../kafka/topics.ts";
import { loadSample } from "../../local/sample/load.ts";
import { useServices } from "../../local/services.ts";
import { readState } from "../../local/state.ts";
import { withDuckDb } from "../../runtime/duckdb.ts";
import type { Message } from "./oracle.ts";

/** A folder below the system's temporary one; `remove` deletes it. */
export async function temporaryFolder(): Promise<{ path: string; remove: () => Promise<void> }> {
  const path = await mkdtemp(join(tmpdir(), "pipeline-"));
  return { path, remove: () => rm(path, { recursive: true, force: true, maxRetries: 5 }) };
}

/** What a run of the program left. */
export interface Run {
  code: number | null;
  /** The signal that killed it, if one did. */
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
}

/** The program, running. */
export interface Running {
  pid: number;
  done: Promise<Run>;
  /** What it has said so far. */
  output: () => string;
  kill: (signal: NodeJS.Signals) => void;
  /** Resolves when its stderr or stdout has said this. */
  said: (pattern: RegExp) => Promise<void>;
}

const main = new URL("../../main.ts", import.meta.url).pathname;

const programAt = (path: string) => [process.execPath, "--import", import.meta.resolve("tsx"), path];

/** A copy of the program in a folder, for tests that edit it; returns how it is started. */
export async function copyProgram(folder: string): Promise<string[]> {
  const root = new URL("../../", import.meta.url).pathname;
  const leftOut = new Set(["node_modules", "data", "test", "bench", "docs", "deploy"]);
  const filter = (path: string) => !/^[._]/.test(basename(path)) && !leftOut.has(relative(root, path));
  await cp(root, folder, { recursive: true, filter: (path) => path === root || filter(path) });
  await symlink(join(root, "node_modules"), join(folder, "node_modules"));
  return programAt(join(folder, "main.ts"));
}

/** How a program is started. */
interface StartOptions {
  cwd?: string;
  env?: NodeJS.ProcessEnv;
  program?: string[];
}

/** Starts `tsx main.ts` as a user would, or another program. */
export function start(args: string[], { cwd, env = {}, program = programAt(main) }: StartOptions = {}): Running {
  const [command = "", ...before] = program;
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
          throw new Error(`It ended without saying ${pattern}: ${run.stderr}`);
      });
      await Promise.race([heard, ended]);
    },
  };
}

/**
 * The environment in which the program writes its steps to the file `trace`, and is struck at one of them: `kill 3
 * silver`, or `pause 1 ^committing pin` while `<trace>.hold` exists.
 */
export const struck = (trace: string, strike?: string): NodeJS.ProcessEnv => ({
  NODE_OPTIONS: `--require=${JSON.stringify(new URL("../faults/strike.cjs", import.meta.url).pathname)}`,
  PIPELINE_STEPS: trace,
  ...(strike && { PIPELINE_STRIKE: strike }),
});

/** Runs the program to its end. */
export const run = (args: string[], options?: StartOptions): Promise<Run> => start(args, options).done;

/** Whether a process runs; one that has ended but was not waited for does not. */
export const runs = async (pid: number): Promise<boolean> =>
  (await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")) !== "";

/** Resolves when processes are gone, within 10 s. */
export const untilGone = async (pids: number[]): Promise<void> => {
  for (let tries = 0; tries < 100; tries++) {
    const alive = await Promise.all(pids.map(runs));
    if (!alive.includes(true)) return;
    await sleep(100);
  }
  assert.fail(`Processes ${pids} still run`);
};

/** The rows of an SQL query over files, as DuckDB's own values. */
export async function query(sql: string): Promise<Record<string, unknown>[]> {
  return await withDuckDb({}, async (connection) => (await connection.runAndReadAll(sql)).getRowObjects());
}

/** Services with sample data, in a folder of their own. */
export interface Services {
  folder: { path: string; remove: () => Promise<void> };
  data: string;
  creds: string;
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** Ends the broker as a crash would; `up` starts it again. */
  killKafka: () => void;
  killMysql: () => void;
  close: () => Promise<void>;
}

/** Starts MySQL and Kafka by `up`, with so many posts; `flags`: `--zookeeper`. */
export async function openServices({ rows, flags = [] }: { rows: number; flags?: string[] }): Promise<Services> {
  const folder = await temporaryFolder();
  const data = join(folder.path, "data folder é");
  const close = async () => {
    const down = await run(["down", "--data", data, ...flags]);
    await folder.remove();
    assert.equal(down.code, 0, down.stderr);
  };
  const up = await run(["up", "--data", data, "--rows", String(rows), "--json", ...flags], { cwd: folder.path });
  assert.equal(up.code, 0, up.stderr);
  const found = JSON.parse(up.stdout) as { mysql: { creds_file: string; password?: string } };
  assert.equal(found.mysql.password, undefined);
  const creds = found.mysql.creds_file;
  const { mysql, kafka } = await readCredentials(creds);
  // The last one: a ZooKeeper is a Java too, and is started before its Kafka.
  const kill = (program: string) => {
    const last = readState(dirname(creds))?.children.findLast(({ name }) => name === program);
    assert.ok(last);
    process.kill(last.pid, "SIGKILL");
  };
  const killKafka = () => kill("java");
  const killMysql = () => kill("mariadbd");
  return { folder, data, creds, mysql, kafka: kafka as KafkaSettings, killKafka, killMysql, close };
}

/** The variable that says where the services of run.ts are: a credentials file. */
export const sharedCreds = "TEST_SERVICES_CREDS";

/** Tables and a folder of one test file on services that other files use too: nobody may kill these. */
export interface SharedServices extends Omit<Services, "killKafka" | "killMysql"> {
  /** The arguments that lead a command there. */
  at: string[];
}

/**
 * Makes a database with so many posts on the services of run.ts, or on new ones for a file that runs alone. The topics
 * are shared: no two files may use the same prefix.
 */
export async function shareServices({ rows, name }: { rows: number; name: string }): Promise<SharedServices> {
  const folder = await temporaryFolder();
  const shared = process.env[sharedCreds];
  const options = { dataDir: join(folder.path, "services"), mysql: true, kafka: true, say: () => {} };
  const own = shared === undefined ? await useServices(options) : undefined;
  const found = await readCredentials(shared ?? own?.credsFile);
  const mysql = { ...found.mysql, database: `pinterest_${name}` };
  const kafka = found.kafka as KafkaSettings;
  const db = await connectMysql(found.mysql);
  await db.query(`CREATE DATABASE ${mysql.database} CHARACTER SET utf8mb4`);
  db.destroy();
  await loadSample(mysql, { rows });
  const data = join(folder.path, "data folder é");
  const creds = join(folder.path, "creds.yaml");
  const { host: HOST, port: PORT, user: USER, password: PASSWORD, database: DATABASE } = mysql;
  const text = stringify({ HOST, PORT, USER, PASSWORD, DATABASE, KAFKA: { BROKERS: kafka.brokers } });
  await writeFile(creds, text, { mode: 0o600 });
  const close = async () => {
    await own?.[Symbol.asyncDispose]();
    await folder.remove();
  };
  return { folder, data, creds, mysql, kafka, at: ["--data", data, "--creds", creds], close };
}

/** All committed messages of a topic; a commit is answered a little before its mark stands there. */
export async function readTopic(kafka: KafkaSettings, topic: string): Promise<Message[]> {
  await using reader = await connectReader(kafka);
  let ranges = (await listOffsets(reader, topic)) ?? [];
  for (let tries = 0; tries < 200 && ranges.some(({ lastStable: stable, logEnd: end }) => stable < end); tries++) {
    await sleep(50);
    ranges = (await listOffsets(reader, topic)) ?? [];
  }
  const positions = new Map(ranges.map((r) => [r.partition, r.logStart]));
  const endOffsets = new Map(ranges.map((r) => [r.partition, r.lastStable]));
  const messages: Message[] = [];
  while (unread(positions, endOffsets) > 0) {
    await fetchOnce(reader, {
      ...{ topic, positions, endOffsets },
      onRecord: (partition, record) => {
        const { offset, timestamp: postedAt } = record;
        messages.push({ partition, offset, postedAt, key: keyBytes(record), value: valueBytes(record) });
      },
    });
  }
  return messages;
}
