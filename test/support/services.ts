/**
 * A MariaDB and a Kafka for tests, private to a file or shared, and their topics.
 *
 * @module
 */

import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
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
import type { Message } from "./oracle.ts";
import { run, temporaryFolder } from "./support.ts";

/** Services with sample data, in a separate folder. */
export interface Services {
  folder: { path: string; remove: () => Promise<void> };
  data: string;
  creds: string;
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** Kills the broker; `up` restarts it. */
  killKafka: () => void;
  killMysql: () => void;
  close: () => Promise<void>;
}

/** Starts MySQL and Kafka with `up`, with a number of posts. `flags`: `--zookeeper`. */
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
  // The last one, because ZooKeeper is a Java too and starts before Kafka.
  const kill = (program: string) => {
    const last = readState(dirname(creds))?.children.findLast(({ name }) => name === program);
    assert.ok(last);
    process.kill(last.pid, "SIGKILL");
  };
  const killKafka = () => kill("java");
  const killMysql = () => kill("mariadbd");
  return {
    folder,
    data,
    creds,
    mysql: mysql as MysqlSettings,
    kafka: kafka as KafkaSettings,
    killKafka,
    killMysql,
    close,
  };
}

/** The environment variable with the credentials file of the services of run.ts. */
export const sharedCreds = "TEST_SERVICES_CREDS";

/** Tables and a folder of one test file on shared services, which it must not kill. */
export interface SharedServices extends Omit<Services, "killKafka" | "killMysql"> {
  /** The arguments for a command to use them. */
  at: string[];
}

/**
 * Creates a database with a number of posts on the services of run.ts, or on new services if the file runs alone. Topics
 * are shared, so each file needs a separate prefix.
 */
export async function shareServices({ rows, name }: { rows: number; name: string }): Promise<SharedServices> {
  const folder = await temporaryFolder();
  const shared = process.env[sharedCreds];
  const options = { dataDir: join(folder.path, "services"), mysql: true, kafka: true, say: () => {} };
  const own = shared === undefined ? await useServices(options) : undefined;
  const found = await readCredentials(shared ?? own?.credsFile);
  const embedded = found.mysql as MysqlSettings;
  const mysql = { ...embedded, database: `pinterest_${name}` };
  const kafka = found.kafka as KafkaSettings;
  const db = await connectMysql(embedded);
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

/** All committed messages of a topic. It waits, because the broker acknowledges a commit before it writes the marker. */
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
