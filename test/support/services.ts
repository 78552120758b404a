/**
 * A MariaDB and a Kafka for tests: those of one file, or those that files share; and the topics there.
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
