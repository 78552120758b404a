/** Posting beside another clean or post, after a kill, and to several partitions. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { chmod, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { sendCheckpoint } from "../../api/session.ts";
import { connectMysql } from "../../db_conn.ts";
import { tableNames } from "../../io.ts";
import { readCheckpoints } from "../../kafka/checkpoint.ts";
import { connectReader, kafkaClient } from "../../kafka/client.ts";
import { openProducer } from "../../kafka/producer.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { readSilver } from "../support/lake_of.ts";
import { cleanTable, keysOf } from "../support/oracle.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { sourceMessages } from "../support/source.ts";
import { ok, query, run, start, struck } from "../support/support.ts";

let services: SharedServices;
let folder: SharedServices["folder"];
let creds: string;
let kafka: KafkaSettings;
let db: Connection;

before(async () => {
  services = await shareServices({ rows: 2000, name: "post" });
  ({ folder, creds, kafka } = services);
  db = (await connectMysql(services.mysql)) as unknown as Connection;
});

after(async () => {
  await db?.end();
  await services?.close();
});

test("clean --follow cleans micro-batches until it is stopped, with exit code 130", async (t) => {
  const other = join(folder.path, "follow");
  const trace = join(folder.path, "follow.steps");
  const following = start(["clean", "--follow", "--creds", creds, "--data", other, "--prefix", "follow"], {
    env: struck(trace),
  });
  t.after(() => following.kill("SIGKILL"));
  await following.said(/Using Kafka/);
  ok(await run(["post", "--creds", creds, "--data", other, "--prefix", "follow"]));
  await following.said(/clean {3}pin [\d,]+ messages/);
  const untilLedger = async (column: string, wanted: number) => {
    for (let tries = 0; ; tries++) {
      const rows = existsSync(join(other, "lake/gold/ledger.parquet"))
        ? await query(`SELECT sum(${column})::INT AS messages FROM '${other}/lake/gold/ledger.parquet'`)
        : [];
      if (rows[0]?.messages === wanted) break;
      assert.ok(tries < 100, `follow has ${rows[0]?.messages} messages that are ${column}`);
      await new Promise((done) => setTimeout(done, 100));
    }
  };
  await untilLedger("clean", 6000);
  const second = await run(["clean", "--creds", creds, "--data", other, "--prefix", "follow"]);
  assert.equal(second.code, 1);
  assert.match(
    second.stderr,
    /Error: Another clean of the lake in ".*follow\/lake" is running: process \d+, since .*; let it finish, or stop it first\n$/,
  );
  ok(await run(["status", "--creds", creds, "--data", other, "--prefix", "follow"]));
  writeFileSync(trace, "");
  ok(await run(["post", "--full", "--creds", creds, "--data", other, "--prefix", "follow"]));
  await untilLedger("superseded", 6000);
  for (let tries = 0; !/\tresting\t[1-9]\d* ms/.test(readFileSync(trace, "utf8")); tries++) {
    assert.ok(tries < 50, "it did not rest after it had rewritten blocks");
    await new Promise((done) => setTimeout(done, 100));
  }
  following.kill("SIGINT");
  assert.equal((await following.done).code, 130);
});

test("of two concurrent posts of the same tables one continues, the other names the running one, nothing is duplicated", async () => {
  const args = ["post", "--creds", creds, "--prefix", "twice", "--data", folder.path];
  const runs = await Promise.all([run(args), run(args)]);
  assert.ok(runs.some(({ code }) => code === 0));
  for (const result of runs.filter(({ code }) => code !== 0)) {
    assert.equal(result.code, 1);
    assert.match(
      result.stderr,
      /Error: Another post of "\w+" is running: process \d+ on \S+, since \S+; let it finish, or stop it first\n$/,
    );
  }
  ok(await run(args));
  for (const table of tableNames) {
    assert.deepEqual(keysOf(await readTopic(kafka, `twice.${table}`)), [...(await sourceMessages(db, table)).keys()]);
  }
});

test("the next post finishes a killed full run for all tables", async () => {
  const args = ["post", "--creds", creds, "--prefix", "twice", "--data", folder.path];
  const env = struck(join(folder.path, "steps"), "kill 1 ^sent");
  assert.equal((await run([...args, "--full"], { env })).code, null);
  assert.match(ok(await run(args)).stderr, /A full run was interrupted: it is finished first/);
  for (const table of tableNames) {
    const keys = [...(await sourceMessages(db, table)).keys()];
    assert.deepEqual(keysOf(await readTopic(kafka, `twice.${table}`)), [...keys, ...keys], table);
  }
});

test("the next post finishes a full run that was killed before all tables had begun it", async () => {
  const args = ["post", "--creds", creds, "--prefix", "planned", "--data", folder.path];
  ok(await run(args));
  const settings = { ...kafka, prefix: "planned" };
  await using reader = await connectReader(settings);
  const { geo } = await readCheckpoints(reader, settings, ["geo"]);
  assert.ok(geo);
  const full = { id: "killed", upTo: geo.lastKey, lastKey: null, rows: 0, done: false };
  const producer = await openProducer(settings, { transactionalId: "planned.post.geo" });
  const transaction = await producer.begin();
  await sendCheckpoint(transaction, settings, { ...geo, full });
  await transaction.commit();
  await producer.disconnect();
  assert.match(ok(await run(args)).stderr, /A full run was interrupted: it is finished first/);
  for (const table of tableNames) {
    const keys = [...(await sourceMessages(db, table)).keys()];
    assert.deepEqual(keysOf(await readTopic(kafka, `planned.${table}`)), [...keys, ...keys], table);
  }
});

test("post warns if an open transaction of another program hides its rows", async () => {
  const producer = kafkaClient(kafka).producer({ transactionalId: "other", maxInFlightRequests: 1, idempotent: true });
  await producer.connect();
  const transaction = await producer.transaction();
  const [{ baseOffset } = {}] = await transaction.send({ topic: "twice.geo", messages: [{ key: "x", value: "{}" }] });
  await db.query("INSERT INTO geolocation_data VALUES (6000, NULL, NULL, NULL, NULL)");
  const { stderr } = ok(await run(["post", "--creds", creds, "--prefix", "twice", "--data", folder.path]));
  await transaction.abort();
  await producer.disconnect();
  await db.query("DELETE FROM geolocation_data WHERE ind = 6000");
  const open = `A transaction stays open at offset ${baseOffset} of partition 0 of topic "twice.geo"`;
  assert.ok(stderr.includes(`Warning: ${open}: clean reads the messages behind it only after it ends`), stderr);
});

test("several partitions: each key in the partition of Java's clients, in order within it, and clean reads them all", async () => {
  const path = join(folder.path, "parts.yaml");
  await writeFile(path, `${await readFile(creds, "utf8")}\n`);
  await writeFile(
    path,
    (await readFile(creds, "utf8")).replace(/BROKERS:/, "PARTITIONS: 3\n  PREFIX: parts\n  BROKERS:"),
  );
  await chmod(path, 0o600);
  // The path contains column names: a reader that takes them for partitions would replace these columns.
  const other = join(folder.path, "country=US", "_offset=3");
  ok(await run(["--creds", path, "--data", other]));
  ok(await run(["report", "--creds", path, "--data", other]));
  const status = JSON.parse(ok(await run(["status", "--json", "--creds", path, "--data", other])).stdout);
  assert.deepEqual([status.geo.clean, status.geo.lag], [status.geo.messages, 0]);
  for (const table of tableNames) {
    const messages = await readTopic(kafka, `parts.${table}`);
    assert.deepEqual([...new Set(messages.map((m) => m.partition))].sort(), [0, 1, 2]);
    for (const partition of [0, 1, 2]) {
      const keys = messages.filter((m) => m.partition === partition).map((m) => Number(m.key));
      assert.deepEqual(
        keys,
        [...keys].sort((a, b) => a - b),
      );
    }
    assert.equal(new Set(keysOf(messages)).size, (await sourceMessages(db, table)).size);
    assert.deepEqual(
      await readSilver(join(other, "lake"), table),
      [...cleanTable(table, messages).rows.values()].sort((a, b) => Number(a.ind - b.ind)),
    );
  }
});

test("a deleted silver file is noticed: the ledger is not balanced, and --rebuild fixes it", async () => {
  const other = join(folder.path, "country=US", "_offset=3");
  const args = ["clean", "--creds", join(folder.path, "parts.yaml"), "--data", other];
  for (const name of await readdir(join(other, "lake/silver/geo"))) await rm(join(other, "lake/silver/geo", name));
  const { code, stderr } = await run(args);
  assert.equal(code, 1);
  assert.match(
    stderr,
    /Error: The ledger is not balanced: geo: 2000 messages, but 0 clean \+ 0 superseded \+ 0 deleted \+ 0 rejected\..*clean --rebuild/,
  );
  ok(await run([...args, "--rebuild"]));
  ok(await run(args));
});
