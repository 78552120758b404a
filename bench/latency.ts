/**
 * Measures the time of a change from MySQL to the topic and to silver, and the CPU of waiting for changes:
 * `npm run bench:latency -- [--rate N] [--changes N] [--idle SECONDS] [--rows N]`.
 *
 * Starts private services with the sample's lake, and `post --follow` and `clean --follow` on it. Changes rows in MySQL
 * at a given rate, one per transaction, over the three tables: nine updates of random rows to one new row. Measures the
 * time from the commit's response until a read_committed consumer has the row, and until its batch is in silver. A change
 * that a later one of the same row overtakes counts as seen with the later one.
 *
 * Then changes nothing, and after a minute measures the CPU of `post --follow` and of the database, and of the database
 * alone.
 *
 * @module
 */

import { rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { Connection } from "mysql2/promise";
import { connectMysql } from "../db_conn.ts";
import { keyBytes, valueBytes } from "../io/record_batch.ts";
import { type Table, tableNames, tables } from "../io.ts";
import { connectReader, type KafkaReader } from "../kafka/client.ts";
import { fetchOnce } from "../kafka/fetch.ts";
import { topicOf } from "../kafka/settings.ts";
import { listOffsets } from "../kafka/topics.ts";
import { sampleRow } from "../local/sample/rows.ts";
import { readState } from "../local/state.ts";
import { openServices } from "../test/support/services.ts";
import { ok, type Running, run, start, struck } from "../test/support/support.ts";
import { type Batch, batchesOf, silverAt } from "./batches.ts";
import { cpuOf, shares } from "./measures.ts";

const { values } = parseArgs({
  options: {
    rate: { type: "string", default: "100" },
    changes: { type: "string", default: "6000" },
    idle: { type: "string", default: "60" },
    rows: { type: "string", default: "11154" },
  },
});
const [rate, changes, idle, rows] = [values.rate, values.changes, values.idle, values.rows].map(Number) as [
  number,
  number,
  number,
  number,
];

/** A committed change: its time, and the time and offset at which it was seen. */
interface Change {
  number: number;
  table: Table;
  key: number;
  committed: number;
  seen?: { at: number; partition: number; offset: number };
}

/** The column of a table that stores a change's number. */
const marked = { pin: "title", geo: "country", user: "first_name" } satisfies Record<Table, string>;

const services = await openServices({ rows });
const { data, creds, kafka, mysql } = services;
const common = ["--data", data, "--quiet"];
const trace = join(services.folder.path, "clean.steps");
const connections: Connection[] = [];
const running: Running[] = [];
const readers: KafkaReader[] = [];
let over = false;
const made: Change[] = [];
/** Changes that were not seen yet, by table and key. */
const waiting = new Map<string, Change[]>();

/** Changes rows. Each connection has separate keys, so that the changes of a row are in order. */
async function change(connection: Connection, place: number): Promise<void> {
  const begun = performance.now();
  for (let number = place; number < changes; number += connections.length) {
    const table = tableNames[number % tableNames.length] as Table;
    const { source, key: name } = tables[table];
    const isNew = number % 10 === 9;
    const random = Math.floor((Math.random() * rows) / connections.length) * connections.length + place;
    const key = isNew ? rows + connections.length + number : Math.min(random, rows - connections.length + place);
    const early = begun + (number * 1000) / rate - performance.now();
    if (early > 0) await sleep(early);
    const one: Change = { number, table, key, committed: Number.NaN };
    waiting.set(`${table} ${key}`, [...(waiting.get(`${table} ${key}`) ?? []), one]);
    if (isNew) {
      const columns = Object.keys(tables[table].columns);
      const row = sampleRow(table, key % 1000).map((value, i) =>
        columns[i] === name ? key : columns[i] === marked[table] ? `change ${number}` : value,
      );
      const list = columns.map((column) => `\`${column}\``);
      await connection.query(`INSERT INTO ${source} (${list}) VALUES (?)`, [row]);
    } else {
      await connection.query(`UPDATE ${source} SET \`${marked[table]}\` = ? WHERE \`${name}\` = ?`, [
        `change ${number}`,
        key,
      ]);
    }
    one.committed = Date.now();
    made.push(one);
  }
}

/** Changes a row of each table and waits until it is in silver, so that the start is not measured. */
async function untilFollowed(connection: Connection): Promise<void> {
  const first: Change[] = tableNames.map((table) => ({ number: -1, table, key: 1, committed: 0 }));
  for (const one of first) {
    const { source, key } = tables[one.table];
    waiting.set(`${one.table} ${one.key}`, [one]);
    await connection.query(`UPDATE ${source} SET \`${marked[one.table]}\` = 'change -1' WHERE \`${key}\` = 1`);
  }
  while (!first.every((one) => isInSilver(batchesOf(trace), one))) await sleep(500);
}

const isInSilver = (batches: Batch[], { table, seen }: Change): boolean =>
  seen !== undefined && silverAt(batches, { table, ...seen }) !== undefined;

/** Reads a topic's committed messages, and records the changes that each shows. */
async function watch(reader: KafkaReader, table: Table, positions: Map<number, number>): Promise<void> {
  const endOffsets = new Map([...positions].map(([partition]) => [partition, Number.MAX_SAFE_INTEGER]));
  while (!over) {
    await fetchOnce(reader, {
      ...{ topic: topicOf(kafka, table), positions, endOffsets },
      onRecord: (partition, record) => {
        const seen = { at: Date.now(), partition, offset: record.offset };
        const number = Number(/"change (-?\d+)"/.exec(String(valueBytes(record)))?.[1]);
        for (const one of waiting.get(`${table} ${keyBytes(record)}`) ?? []) {
          if (one.number <= number) one.seen ??= seen;
        }
      },
    });
  }
}

/** CPU of processes over some seconds, percent of one core each. */
async function shareOf(pids: number[], seconds: number): Promise<number[]> {
  const before = pids.map(cpuOf);
  const since = performance.now();
  await sleep(seconds * 1000);
  return pids.map((pid, i) => ((cpuOf(pid) - (before[i] as number)) / (performance.now() - since)) * 100_000);
}

try {
  for (const command of ["post", "clean"]) ok(await run([command, ...common]));
  const watching = tableNames.map(async (table) => {
    const reader = await connectReader(kafka);
    readers.push(reader);
    const ends = (await listOffsets(reader, topicOf(kafka, table))) ?? [];
    await watch(reader, table, new Map(ends.map(({ partition, lastStable }) => [partition, lastStable])));
  });
  const post = start(["post", "--follow", ...common]);
  running.push(post);
  running.push(start(["clean", "--follow", ...common], { env: struck(trace) }));
  while (connections.length < 4) connections.push((await connectMysql(mysql)) as unknown as Connection);
  await untilFollowed(connections[0] as Connection);
  await Promise.all(connections.map(change));
  let batches = batchesOf(trace);
  for (let left = 120; left > 0 && !made.every((one) => isInSilver(batches, one)); left--) {
    await sleep(1_000);
    batches = batchesOf(trace);
  }
  over = true;
  await Promise.all(watching);
  const topic = made.flatMap(({ seen, committed }) => (seen ? [seen.at - committed] : []));
  const silver = made.flatMap(({ table, seen, committed }) => {
    const at = seen && silverAt(batches, { table, ...seen });
    return at ? [at - committed] : [];
  });
  console.log(
    `${made.length} changes, ${rate} a second, ${topic.length} seen in the topics, ${silver.length} in silver`,
  );
  console.log(`commit to topic: ${shares(topic)}`);
  console.log(`commit to silver: ${shares(silver)}`);
  const server = readState(dirname(creds))?.children.findLast(({ name }) => name === "mariadbd")?.pid as number;
  if (idle > 0) {
    await sleep(60_000);
    const [own = 0, database = 0] = await shareOf([post.pid, server], idle);
    post.kill("SIGINT");
    await post.done;
    const [alone = 0] = await shareOf([server], idle);
    console.log(
      `after a minute of silence, % of a core: post --follow ${own.toFixed(2)}, database ${database.toFixed(2)}, without post ${alone.toFixed(2)}`,
    );
  }
} finally {
  for (const connection of connections) connection.destroy();
  for (const reader of readers) await reader.close();
  for (const one of running) one.kill("SIGINT");
  await Promise.all(running.map(({ done }) => done));
  rmSync(trace, { force: true });
  await services.close();
}
process.exit(); // kafkajs leaves a timer behind
