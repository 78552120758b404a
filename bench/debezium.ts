/**
 * Compares posting with Debezium's snapshot: `npm run bench:debezium -- [--rows N] [--runs N]`.
 *
 * Starts a Kafka and a MariaDB with the binary log that Debezium needs, downloads Debezium and Kafka Connect with Maven
 * (60 MB, kept), and lets both post the three tables in turn. Debezium is tuned for this: a thread for each table, plain
 * JSON rows, large batches, and no exactly-once, which would slow it down.
 *
 * @module
 */

import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Kafka, logLevel } from "kafkajs";
import { stringify } from "yaml";
import { tableNames, tables } from "../io.ts";
import { startKafka } from "../local/broker.ts";
import { freePort } from "../local/processes.ts";
import { loadSample } from "../local/sample/load.ts";
import { openDatabase, openService, prepare } from "../test/support/bare_services.ts";
import { temporaryFolder } from "../test/support/support.ts";
import { counted, cpuOf, median, peakOf } from "./measures.ts";

const { values } = parseArgs({
  options: { rows: { type: "string", default: "1000000" }, runs: { type: "string", default: "3" } },
});
const [rows, runs] = [Number(values.rows), Number(values.runs)];

const file = (name: string) => fileURLToPath(new URL(name, import.meta.url));
const folder = await temporaryFolder();
const { tools, kafka, server } = await prepare(folder.path);
const libs = join(folder.path, "libs");
console.log("Downloading Debezium 3.5.0 and Kafka Connect 4.2.1 with Maven");
execFileSync("mvn", ["-q", "--strict-checksums", "-f", file("debezium.xml"), "generate-resources", `-Dto=${libs}`], {
  stdio: "inherit",
});

const binlog = ["--log-bin=binlog", "--server-id=1", "--binlog-format=ROW"];
const home = join(folder.path, "kafka-home");
mkdirSync(home);
const ports = { broker: await freePort(), controller: await freePort() };
const [own, broker] = await Promise.all([
  openDatabase(server, folder.path, tools, binlog),
  openService(() => startKafka(kafka, { folder: home, ports }, tools)),
]);
const { host, port, user, password, database } = own.mysql;
const brokers = [`127.0.0.1:${ports.broker}`];
const admin = new Kafka({ brokers, logLevel: logLevel.NOTHING }).admin();
const creds = join(folder.path, "creds.yaml");

/**
 * Runs a command to its end, or until every row is in its topic, because Kafka Connect does not end. The start counts.
 *
 * @returns seconds
 */
async function measure(name: string, [command = "", ...args]: string[], topics: string[], endless = false) {
  const since = performance.now();
  const child = spawn(command, args, { cwd: folder.path, stdio: ["ignore", "ignore", "pipe"] });
  let said = "";
  child.stderr.on("data", (data) => {
    said = (said + data).slice(-4000);
  });
  const ended = new Promise((resolve) => child.on("close", resolve));
  const all = async () => (await counted(admin, topics)).every((count) => count >= rows);
  let [cpu, memory] = [0, 0];
  while (child.exitCode === null) {
    const { pid = 0 } = child;
    try {
      [cpu, memory] = [cpuOf(pid), peakOf(pid) || memory];
    } catch {
      break; // it has ended
    }
    // Kafka Connect keeps running if its connector fails.
    if (endless && (/ ERROR /.test(said) || (await all()))) break;
    await sleep(50);
  }
  const seconds = (performance.now() - since) / 1000;
  if (endless) child.kill("SIGKILL");
  await ended;
  if (!(await all())) throw new Error(`${name} posted ${await counted(admin, topics)} of ${rows} rows each: ${said}`);
  const millions = (rows * topics.length) / 1e6;
  const rate = Math.round((millions * 1e6) / seconds).toLocaleString("en");
  console.log(
    `${name}: ${seconds.toFixed(1)} s, ${rate} rows/s, ${(cpu / millions).toFixed(1)} µs CPU a row, ${Math.round(memory)} MB`,
  );
  await admin.deleteTopics({ topics });
  return seconds;
}

const properties = (name: string, entries: Record<string, string | number | boolean>): string => {
  const path = join(folder.path, name);
  const lines = Object.entries(entries).map(([key, value]) => `${key}=${value}`);
  writeFileSync(path, `${lines.join("\n")}\n`, { mode: 0o600 });
  return path;
};

/** Debezium's command and its topics. */
async function debezium(prefix: string): Promise<[string[], string[]]> {
  const converter = "org.apache.kafka.connect.json.JsonConverter";
  const worker = properties("worker.properties", {
    ...{ "bootstrap.servers": brokers.join(), listeners: `HTTP://127.0.0.1:${await freePort()}` },
    ...{ "key.converter": converter, "key.converter.schemas.enable": false },
    ...{ "value.converter": converter, "value.converter.schemas.enable": false },
    ...{ "offset.storage.file.filename": join(folder.path, `${prefix}.offsets`), "plugin.discovery": "service_load" },
    ...{ "producer.batch.size": 1_000_000, "producer.linger.ms": 20, "producer.buffer.memory": 134_217_728 },
  });
  const connector = properties("connector.properties", {
    ...{ name: "debezium", "connector.class": "io.debezium.connector.mariadb.MariaDbConnector", "tasks.max": 1 },
    ...{ "database.hostname": host, "database.port": port, "database.user": user, "database.password": password },
    ...{ "database.server.id": 5400, "database.include.list": database, "topic.prefix": prefix },
    ...{ "table.include.list": tableNames.map((table) => `${database}.${tables[table].source}`).join() },
    ...{ "snapshot.mode": "initial_only", "snapshot.max.threads": tableNames.length, "snapshot.locking.mode": "none" },
    ...{ "max.batch.size": 20_480, "max.queue.size": 81_920, "snapshot.fetch.size": 10_000 },
    "include.schema.changes": false,
    "schema.history.internal": "io.debezium.storage.file.history.FileSchemaHistory",
    "schema.history.internal.file.filename": join(folder.path, `${prefix}.history`),
    ...{ transforms: "row", "transforms.row.type": "io.debezium.transforms.ExtractNewRecordState" },
  });
  const main = "org.apache.kafka.connect.cli.ConnectStandalone";
  const command = [
    kafka.java,
    "-Xmx2g",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-cp",
    `${libs}/*`,
    main,
    worker,
    connector,
  ];
  const topics = tableNames.map((table) => `${prefix}.${database}.${tables[table].source}`);
  await admin.createTopics({ topics: topics.map((topic) => ({ topic, numPartitions: 1 })) });
  return [command, topics];
}

/** This program's command and its topics. */
function program(prefix: string): [string[], string[]] {
  const args = ["--quiet", "--creds", creds, "--data", join(folder.path, "data"), "--prefix", prefix];
  const command = [process.execPath, file("../bin/pipeline"), "post", ...args];
  return [command, tableNames.map((table) => `${prefix}.${table}`)];
}

const seconds: { program: number[]; debezium: number[] } = { program: [], debezium: [] };
try {
  const root = await own.root();
  await root.query(
    `GRANT RELOAD, REPLICATION SLAVE, REPLICATION CLIENT, SLAVE MONITOR, SHOW DATABASES ON *.* TO ${user}`,
  );
  await root.end();
  await loadSample(own.mysql, { rows });
  const mine = { HOST: host, PORT: port, USER: user, PASSWORD: password, DATABASE: database };
  writeFileSync(creds, stringify({ ...mine, KAFKA: { BROKERS: brokers } }), { mode: 0o600 });
  await admin.connect();
  for (let i = 1; i <= runs; i++) {
    seconds.program.push(await measure("this program", ...program(`p${i}`)));
    seconds.debezium.push(await measure("Debezium", ...(await debezium(`d${i}`)), true));
  }
  const times = median(seconds.debezium) / median(seconds.program);
  console.log(`Medians of ${runs} runs: this program posts ${times.toFixed(1)} times the rows of Debezium a second`);
} finally {
  await admin.disconnect();
  await Promise.all([broker.stop("SIGTERM").catch(() => {}), own.database.stop("SIGTERM").catch(() => {})]);
  await folder.remove();
}
process.exit(); // kafkajs leaves a timer behind
