/**
 * The targets of the faults: a broker behind a proxy and a database, shared by the suite, and for each round separate
 * tables, topics and a lake.
 *
 * @module
 */

import {
  closeSync,
  cpSync,
  existsSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { mkdir } from "node:fs/promises";
import { join, relative } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import mysql, { type Connection } from "mysql2/promise";
import { stringify } from "yaml";
import { type Table, tables } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { keepClasses, startKafka, startZookeeper } from "../../local/broker.ts";
import { freePort, spawnGuarded, type Tools } from "../../local/processes.ts";
import { findPrograms } from "../../local/programs.ts";
import type { MysqlAddress } from "../../local/state.ts";
import { baseRows, type DatabaseServices, openDatabase, openService, type Service } from "../support/bare_services.ts";
import { type Run, type Running, start, struck } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";
import { type BrokerProxy, openProxy } from "./proxy.ts";

/** The services shared by all rounds. */
export interface Services extends DatabaseServices {
  broker: Service;
  /** Present if the broker uses ZooKeeper. */
  zookeeper?: Service;
  proxy: BrokerProxy;
  /** The broker's port, without the proxy. */
  brokerPort: number;
  isMariaDb: boolean;
  /** The KAFKA part of a credentials file for the broker. */
  kafka: { BROKERS: string[]; REPLICATION_FACTOR?: number };
  close(): Promise<void>;
}

/** Starts the services in a folder. `zookeeper`: Kafka 3.9 with ZooKeeper. */
export async function openServices(
  folder: string,
  say: (line: string) => void,
  { zookeeper = false }: { zookeeper?: boolean } = {},
): Promise<Services> {
  await mkdir(folder, { recursive: true });
  const stopping = new AbortController();
  const tools: Tools = { say, spawn: spawnGuarded, signal: stopping.signal };
  const programs = await findPrograms(["mysql", zookeeper ? "zookeeper" : "kafka"], tools);
  if (!programs.kafka || !programs.mysql) throw new Error("Found no Kafka or MariaDB to test with");
  const { kafka, mysql: server } = programs;
  const [port, advertised, partner] = [await freePort(), await freePort(), await freePort()];
  const ports = { broker: port, ...(zookeeper ? { zookeeper: partner } : { controller: partner }) };
  const settings: Record<string, string> = { "advertised.listeners": `PLAINTEXT://127.0.0.1:${advertised}` };
  if (zookeeper) {
    // A broker with ZooKeeper loads its topics from itself at the advertised address, which must not be the proxy.
    const inner = `INNER://127.0.0.1:${await freePort()}`;
    settings.listeners = `PLAINTEXT://127.0.0.1:${port},${inner}`;
    settings["advertised.listeners"] += `,${inner}`;
    settings["inter.broker.listener.name"] = "INNER";
    settings["listener.security.protocol.map"] = "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT";
  }
  if (!zookeeper) await keepClasses(kafka, folder, tools);
  const proxy = await openProxy(advertised, port);
  const keeper = zookeeper && (await openService(() => startZookeeper(kafka, { folder, port: partner }, tools)));
  const [own, plain] = await Promise.all([
    openDatabase(server, folder, tools),
    openService(() => startKafka(kafka, { folder, ports, settings }, tools)),
  ]);
  const broker: Service = {
    ...plain,
    // A port without a listener refuses connections; the proxy would accept them first.
    async stop(how) {
      proxy.refuse();
      await plain.stop(how);
    },
    async start() {
      await plain.start();
      await proxy.accept();
    },
  };
  return {
    ...{
      ...own,
      broker,
      proxy,
      brokerPort: port,
      isMariaDb: server.name === "MariaDB",
      kafka: { BROKERS: [`127.0.0.1:${advertised}`] },
    },
    ...(keeper && { zookeeper: keeper }),
    async close() {
      proxy.refuse();
      await Promise.all([plain.stop("SIGTERM").catch(() => {}), own.database.stop("SIGTERM").catch(() => {})]);
      if (keeper) await keeper.stop("SIGTERM").catch(() => {});
    },
  };
}

/** One line of the trace file: a trace point of runtime/steps.ts. */
export interface Step {
  ms: number;
  name: string;
  subject: string;
}

/** A running program and the trace points that it has reached. */
export interface Work extends Running {
  /** The command, for the log. */
  command: string;
  steps(): Step[];
  /** Its trace points within a stage, by table; `undefined` before, between and after stages. */
  at(): string | undefined;
  /** Whether it has ended. */
  over(): boolean;
  /** Resolves when a matching trace point is reached, or the program has ended. */
  until(pattern: RegExp): Promise<boolean>;
  /** Resolves when this many trace points are reached, or the program has ended or makes no progress. */
  past(count: number): Promise<boolean>;
  /** Resumes a paused program. */
  release(): void;
}

/** The tables, topics and lake of one round. */
export interface Sandbox {
  name: string;
  data: string;
  lake: string;
  creds: string;
  prefix: string;
  db: MysqlAddress;
  /** How often each source row must be in its topic. */
  copies: number;
  /** Keys of messages from other producers. */
  isForeign: (key: string | undefined) => boolean;
  run(args: string[], options?: RunOptions): Work;
  /** Runs a command, which must succeed. */
  go(args: string[]): Promise<Run>;
  /** The same tables and topics with another lake: a copy of this one, or an empty one. */
  twin(name: string, lake: "copy" | "empty"): Sandbox;
  remove(): Promise<void>;
}

export interface RunOptions {
  /** For runtime/steps.ts: `kill 3 silver`, `pause 1 committing pin`. */
  strike?: string;
}

export interface SandboxOptions {
  rows: number;
  seed: number;
  partitions: number;
  /** How the program is started; by default as `PIPELINE_PROGRAM` says. */
  program?: string[];
  /** Whether silver is watched; with `deletes`, rows may disappear. */
  watch: "all" | "deletes" | "none";
}

/** Creates a database with sample posts, and names the topics and the lake after it. */
export async function makeSandbox(
  services: Pick<Services, "folder" | "mysql" | "base" | "kafka">,
  name: string,
  options: Omit<SandboxOptions, "watch">,
): Promise<Sandbox> {
  const { rows, seed, partitions, program } = options;
  const database = `pinterest_${name.replaceAll("-", "_")}`;
  const home = join(services.folder, name);
  const creds = join(home, "creds.yaml");
  await mkdir(home, { recursive: true });
  const db: MysqlAddress = { ...services.mysql, database };
  const admin = await mysql.createConnection(services.mysql);
  await admin.query(`CREATE DATABASE ${database} CHARACTER SET utf8mb4`);
  await fillTables(admin, { base: await services.base(), database, rows, seed });
  const { host: HOST, port: PORT, user: USER, password: PASSWORD } = db;
  const KAFKA = { ...services.kafka, PREFIX: name, PARTITIONS: partitions };
  writeFileSync(creds, stringify({ HOST, PORT, USER, PASSWORD, DATABASE: database, KAFKA }), { mode: 0o600 });
  admin.on("error", () => {});
  const shared = { name, db, creds, copies: 1, prefix: name, isForeign: () => false };
  const at = (data: string): Sandbox => {
    let runs = 0;
    const sandbox: Sandbox = {
      ...{ ...shared, data, lake: join(data, "lake") },
      run(args, { strike } = {}) {
        const trace = join(data, `steps-${runs++}`);
        writeFileSync(trace, "");
        if (strike?.startsWith("pause")) writeFileSync(`${trace}.hold`, "");
        const env = struck(trace, strike);
        const running = start([...args, "--creds", creds, "--data", data], {
          cwd: data,
          env,
          ...(program && { program }),
        });
        return follow(running, { trace, command: args.join(" ") || "run", lake: sandbox.lake });
      },
      async go(args) {
        const run = await sandbox.run(args).done;
        if (run.code !== 0 && run.code !== 3)
          throw new Error(`"${args.join(" ")}" ended with ${run.code}: ${run.stderr}`);
        return run;
      },
      twin(twinName, lake) {
        const twin = { ...at(join(data, twinName)), copies: sandbox.copies, isForeign: sandbox.isForeign };
        mkdirSync(twin.data);
        if (lake === "copy") cpSync(sandbox.lake, twin.lake, { recursive: true });
        return twin;
      },
      async remove() {
        if (data === home) await admin.query(`DROP DATABASE ${database}`).catch(() => {});
        if (data === home) admin.destroy();
        rmSync(data, { recursive: true, force: true });
      },
    };
    return sandbox;
  };
  return at(home);
}

/** Copies sample posts until there are enough rows; the keys depend on the seed. */
async function fillTables(
  admin: Connection,
  { base, database, rows, seed }: { base: MysqlAddress; database: string; rows: number; seed: number },
): Promise<void> {
  for (const { source, key, columns } of Object.values(tables)) {
    await admin.query(`CREATE TABLE ${database}.${source} LIKE ${base.database}.${source}`);
    const names = Object.keys(columns).map((name) => `\`${name}\``);
    for (let from = 0; from < rows; from += baseRows) {
      const picked = [`\`${key}\` + ${(seed % 100) * 1_000 + from}`, ...names.slice(1)];
      await admin.query(
        `INSERT INTO ${database}.${source} (${names}) SELECT ${picked} FROM ${base.database}.${source} ORDER BY \`${key}\` LIMIT ${Math.min(baseRows, rows - from)}`,
      );
    }
  }
}

function follow(running: Running, options: { trace: string; command: string; lake: string }): Work {
  const { trace, command, lake } = options;
  let over = false;
  void running.done.then(() => {
    over = true;
  });
  const taken: Step[] = [];
  let read = 0;
  // A follower reaches thousands of trace points, so only new lines are read.
  const steps = (): Step[] => {
    const file = openSync(trace, "r");
    const bytes = Buffer.alloc(fstatSync(file).size - read);
    readSync(file, bytes, 0, bytes.length, read);
    closeSync(file);
    const lines = bytes.subarray(0, bytes.lastIndexOf("\n") + 1);
    read += lines.length;
    for (const line of lines.toString().split("\n").slice(0, -1)) {
      const [, ms, name = "", subject = ""] = line.split("\t");
      taken.push({ ms: Number(ms), name, subject: subject.startsWith(lake) ? relative(lake, subject) : subject });
    }
    return taken;
  };
  // A bound, because a program that follows or hangs may never reach the next trace point.
  const reached = async (condition: (steps: Step[]) => boolean) => {
    for (let count = -1, since = Date.now(); ; ) {
      const taken = steps();
      if (condition(taken)) return true;
      if (taken.length > count) since = Date.now();
      if (over || Date.now() - since > patience) return false;
      count = taken.length;
      await sleep(15);
    }
  };
  return {
    ...running,
    ...{ command, steps },
    over: () => over,
    at() {
      if (over) return undefined;
      const taken = steps();
      const last = new Map<string, string>();
      for (const { name, subject } of taken) {
        if (name === "struck") continue;
        if (subject === "clean") last.clear();
        else if (name === "posted") last.delete(`post ${subject}`);
        else if (postSteps.has(name)) last.set(`post ${subject}`, `${subject} ${name}`);
        else last.set("clean", `${subject} ${name}`);
      }
      if (last.size === 0) return undefined;
      const transactions = taken.filter(({ name }) => name === "committed").length;
      const places = [...last.values()].join(", ");
      return transactions > 0 ? `${places} (${transactions} transactions committed)` : places;
    },
    until: (pattern) => reached((taken) => taken.some(({ name, subject }) => pattern.test(`${name} ${subject}`))),
    past: (count) => reached((taken) => taken.length >= count),
    release() {
      if (existsSync(`${trace}.hold`)) rmSync(`${trace}.hold`);
    },
  };
}

/** Longest time without a trace point, ms. */
const patience = 20_000;

const postSteps = new Set(["claiming", "claimed", "begun", "sending", "sent", "committing", "committed", "sweeping"]);

/** Rows of a source table as MySQL's text, in key order. */
export async function sourceRows(db: MysqlAddress, table: Table, source: string, key: string) {
  const connection = await mysql.createConnection({ ...db, charset: "utf8mb4", typeCast: (field) => field.string() });
  try {
    const sql = `SELECT * FROM ${source} ORDER BY \`${key}\``;
    const [rows, fields] = await connection.query({ sql, rowsAsArray: true });
    return { table, rows: rows as (string | null)[][], columns: fields.map(({ name }) => name) };
  } finally {
    connection.destroy();
  }
}

/** The database connections of the program's posting threads in a round. */
export async function connectionsOf(
  services: Services,
  sandbox: Sandbox,
): Promise<{ admin: Connection; ids: number[] }> {
  const admin = await mysql.createConnection(services.mysql);
  const [rows] = await admin.query(`SELECT id FROM information_schema.processlist WHERE db = ?`, [sandbox.db.database]);
  return { admin, ids: (rows as { id: number }[]).map(({ id }) => id) };
}

/** A Kafka client for other producers. */
export const others = (services: Services) =>
  kafkaClient({ brokers: [`127.0.0.1:${services.brokerPort}`], prefix: "others", partitions: 1, replicationFactor: 1 });

/** A clean message of another producer, with a key that no sample post has. */
export function foreignMessage(table: Table, number: number): { key: string; value: string } {
  return { key: `other ${number}`, value: JSON.stringify(validRow(table, 50_000_000 + number)) };
}
