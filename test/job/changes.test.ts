/** Rows that are inserted, updated and deleted after they were posted. */
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mysql2/promise";
import { connectMysql, type MysqlSettings } from "../../db_conn.ts";
import { tableNames } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { assertPosted, differences, newest } from "../support/changes.ts";
import { keysOf } from "../support/oracle.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, start, struck } from "../support/support.ts";

let services: SharedServices;
let at: string[];
let mysql: MysqlSettings;
let kafka: KafkaSettings;
let db: Connection;

before(async () => {
  services = await shareServices({ rows: 1500, name: "changes" });
  ({ at, mysql, kafka } = services);
  db = (await connectMysql(mysql)) as unknown as Connection;
});

after(async () => {
  await db?.end();
  await services?.close();
});

const sql = (text: string) => db.query(text);
const post = (...args: string[]) => run(["post", ...at, ...args]);
const posted = (stdout: string) => {
  const { posted: tables } = JSON.parse(stdout) as { posted: { table: string; rows: number; deleted: number }[] };
  return Object.fromEntries(tables.map(({ table, rows, deleted }) => [table, [rows, deleted]]));
};

test("post sees what was inserted, updated and deleted since the last run, and posts it once", async () => {
  const args = ["--prefix", "seen", "--json"];
  ok(await post(...args));
  await sql("UPDATE user_data SET age = 61, first_name = 'Zoë' WHERE ind IN (3, 1499)");
  await sql("DELETE FROM user_data WHERE ind = 7");
  await sql("UPDATE user_data SET ind = 9000 WHERE ind = 8"); // a key that moves above the last one
  await sql("INSERT INTO user_data VALUES (7, 'Back', 'Again', 30, NULL), (-1, 'Below', 'All', 30, NULL)");
  await sql("DELETE FROM user_data WHERE ind = 10");
  await sql(
    "INSERT INTO geolocation_data SELECT ind + 5000, timestamp, latitude, longitude, country FROM geolocation_data",
  );
  await sql("DELETE FROM pinterest_data");
  const { stdout, stderr } = ok(await post(...args));
  // 3, 1499, 7, 8 and -1, 10, and 9000 as a row above the last key.
  assert.deepEqual(posted(stdout), { pin: [0, 1500], geo: [1500, 0], user: [5, 2] });
  assert.doesNotMatch(stderr, /Warning/);
  for (const table of tableNames) await assertPosted(kafka, "seen", db, table);
  assert.deepEqual(posted(ok(await post(...args)).stdout), { pin: [0, 0], geo: [0, 0], user: [0, 0] });
  assert.equal((await readTopic(kafka, "seen.user")).length, 1507);
});

test("a rolled back transaction and changes of the same table in another database are not posted", async () => {
  await sql("START TRANSACTION");
  await sql("UPDATE user_data SET age = 99");
  await sql("ROLLBACK");
  await sql("CREATE DATABASE pinterest_changes_other");
  await sql("CREATE TABLE pinterest_changes_other.user_data (ind INT PRIMARY KEY)");
  await sql("INSERT INTO pinterest_changes_other.user_data VALUES (1), (2)");
  await sql("TRUNCATE pinterest_changes_other.user_data");
  assert.deepEqual(posted(ok(await post("--prefix", "seen", "--json")).stdout).user, [0, 0]);
});

test("a transaction with more rows than a Kafka transaction holds is posted once, also after a kill", async () => {
  await sql("CREATE TABLE digits (d INT)");
  await sql("INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)");
  const numbers = "a.d + 10 * b.d + 100 * c.d + 1000 * e.d";
  await sql(
    `INSERT INTO user_data SELECT 10000 + 4 * (${numbers}) + f.d, 'Many', 'Rows', 20, NULL
     FROM digits a, digits b, digits c, digits e, digits f WHERE f.d < 4`,
  );
  ok(await post("--prefix", "seen"));
  const before = (await readTopic(kafka, "seen.user")).length;
  await sql("START TRANSACTION");
  await sql("UPDATE user_data SET age = age + 1 WHERE ind >= 10000");
  await sql("DELETE FROM user_data WHERE ind BETWEEN 20000 AND 20999");
  await sql("COMMIT");
  // Three Kafka transactions with records of this table are committed before the fourth.
  const env = struck(join(services.folder.path, "many"), "kill 3 ^committed user");
  assert.equal((await run(["post", ...at, "--prefix", "seen"], { env })).signal, "SIGKILL");
  await sql("UPDATE user_data SET age = 5 WHERE ind = 10000"); // of a key that is already posted
  ok(await post("--prefix", "seen"));
  await assertPosted(kafka, "seen", db, "user");
  const messages = await readTopic(kafka, "seen.user");
  assert.equal(messages.length, before + 40_000 + 1);
});

test("rows that are written while a large transaction is posted are posted once", async () => {
  const trace = join(services.folder.path, "meanwhile");
  const before = (await readTopic(kafka, "seen.user")).length;
  await sql("UPDATE user_data SET age = age + 1 WHERE ind >= 10000");
  await writeFile(`${trace}.hold`, "");
  const posting = start(["post", ...at, "--prefix", "seen"], { env: struck(trace, "pause 1 ^committed user") });
  while (!/struck/.test(await readFile(trace, "utf8").catch(() => ""))) await sleep(20);
  // Rows that are already posted, and rows that are not: the next ones are being read.
  await sql("UPDATE user_data SET age = age + 1 WHERE ind IN (10001, 45000, 45001)");
  await rm(`${trace}.hold`);
  ok(await posting.done);
  ok(await post("--prefix", "seen"));
  await assertPosted(kafka, "seen", db, "user");
  const messages = await readTopic(kafka, "seen.user");
  assert.equal(messages.length, before + 39_000 + 3);
  const last = new Map<string, string>();
  const again = messages.filter(({ key, value }) => {
    const isAgain = last.get(String(key)) === String(value);
    last.set(String(key), String(value));
    return isAgain;
  });
  assert.deepEqual(keysOf(again), []);
  await sql("DELETE FROM user_data WHERE ind >= 10000");
});

test("post --follow runs until it is stopped, and a second post takes over from it", async () => {
  const following = start(["post", "--follow", ...at, "--prefix", "seen"]);
  await following.said(/post {4}user [\d,]+ deletes/);
  const write = async (age: number) => {
    const began = Date.now();
    await sql(`UPDATE user_data SET age = ${age} WHERE ind = 1`);
    for (;;) {
      const found = newest(await readTopic(kafka, "seen.user")).get("1") ?? "";
      if (found.includes(`"age":${age},`)) return Date.now() - began;
      assert.ok(Date.now() - began < 20_000, `the topic has ${found}`);
      await sleep(20);
    }
  };
  await write(41);
  await write(42);
  await assertPosted(kafka, "seen", db, "user");
  ok(await post("--prefix", "seen"));
  await sql("UPDATE user_data SET age = 43 WHERE ind = 1");
  const { code, stderr } = await following.done;
  assert.equal(code, 1);
  assert.match(stderr, /Error: Another post of "\w+" is running: process \d+ on /);
  const last = start(["post", "--follow", ...at, "--prefix", "seen"]);
  await last.said(/post {4}user 1\n/);
  last.kill("SIGTERM");
  assert.equal((await last.done).code, 143);
  await assertPosted(kafka, "seen", db, "user");
});

test("TRUNCATE stops post, which names it; --full posts every row, and a delete for each missing one", async () => {
  const producer = kafkaClient(kafka).producer();
  await producer.connect();
  // Messages of other programs: a key above the last one, one that is not a number, and one that MySQL has.
  const keys = ["77777", "x", "123456789012345678901", "12"];
  await producer.send({ topic: "seen.geo", messages: keys.map((key) => ({ key, value: "{}" })) });
  await producer.disconnect();
  await sql("CREATE TABLE kept AS SELECT * FROM geolocation_data WHERE ind < 300");
  await sql("TRUNCATE geolocation_data");
  await sql("INSERT INTO geolocation_data SELECT * FROM kept");
  const stopped = ok(await post("--prefix", "seen"), 1);
  assert.match(
    stopped.stderr,
    /Error: Cannot follow "geolocation_data" in the binary log of MySQL from \S+:\d+: .*TRUNCATE.*; run post --full\n$/,
  );
  const { stdout } = ok(await post("--prefix", "seen", "--full", "--json"));
  assert.deepEqual(posted(stdout).geo, [300, 2701]);
  await sql("DELETE FROM geolocation_data WHERE ind = 0");
  ok(await post("--prefix", "seen"));
  assert.deepEqual(
    (await differences(kafka, "seen", db, "geo")).map(({ key }) => key),
    ["x", "123456789012345678901"],
  );
  for (const table of ["pin", "user"] as const) await assertPosted(kafka, "seen", db, table);
  assert.equal(posted(ok(await post("--prefix", "seen", "--full", "--json")).stdout).geo?.[1], 0);
});

test("a row above the last key that is inserted and deleted while a full run ends does not stay in the topic", async () => {
  ok(await post("--prefix", "above"));
  const [[last] = []] = (await sql("SELECT MAX(ind) AS ind FROM geolocation_data")) as unknown as [{ ind: number }[]];
  const row = `SELECT ${last?.ind}, timestamp, latitude, longitude, country FROM geolocation_data LIMIT 1`;
  await sql(`DELETE FROM geolocation_data WHERE ind = ${last?.ind}`);
  const trace = join(services.folder.path, "above");
  await writeFile(`${trace}.hold`, "");
  const full = start(["post", "--full", ...at, "--prefix", "above"], { env: struck(trace, "pause 1 ^sweeping geo") });
  while (!/struck/.test(await readFile(trace, "utf8").catch(() => ""))) await sleep(20);
  await sql(`INSERT INTO geolocation_data ${row}`);
  await rm(`${trace}.hold`);
  ok(await full.done);
  await sql(`DELETE FROM geolocation_data WHERE ind = ${last?.ind}`);
  ok(await post("--prefix", "above"));
  await assertPosted(kafka, "above", db, "geo");
});

test("TRUNCATE under the snapshot that post --follow reads stops it too, and is named", async () => {
  ok(await post("--prefix", "under"));
  const following = start(["post", "--follow", ...at, "--prefix", "under"]);
  await sql("UPDATE geolocation_data SET country = 'There' WHERE ind = 1");
  await following.said(/post {4}geo 1\n/);
  await sql("LOCK TABLES geolocation_data WRITE");
  await sql("UPDATE geolocation_data SET country = 'Here' WHERE ind = 1");
  for (let waiting: unknown[] = []; waiting.length === 0; await sleep(20)) {
    const states = "SELECT id FROM information_schema.processlist WHERE state LIKE '%metadata lock%'";
    [waiting] = (await sql(states)) as unknown as [unknown[]];
  }
  await sql("TRUNCATE geolocation_data");
  await sql("UNLOCK TABLES");
  const { code, stderr } = await following.done;
  assert.equal(code, 1);
  assert.match(stderr, /Error: Cannot follow "geolocation_data" .*TRUNCATE.*; run post --full\n/);
});

test("a table that is altered during a full run is inspected again, and its full run restarts", async () => {
  ok(await post("--prefix", "altered"));
  const trace = join(services.folder.path, "altered");
  await writeFile(`${trace}.hold`, "");
  // The first commit of the table claims it, the second begins the full run, the third has its rows.
  const env = struck(trace, "pause 3 ^commit(ted|ting) user");
  const full = start(["post", "--full", ...at, "--prefix", "altered"], { env });
  while (!/struck/.test(await readFile(trace, "utf8").catch(() => ""))) await sleep(20);
  await sql("ALTER TABLE user_data ADD COLUMN zz INT NOT NULL DEFAULT 3 FIRST");
  await rm(`${trace}.hold`);
  ok(await full.done);
  await sql("UPDATE user_data SET first_name = 'Found' WHERE ind BETWEEN 11 AND 15");
  await sql("DELETE FROM user_data WHERE ind = 42");
  assert.deepEqual(posted(ok(await post("--prefix", "altered", "--json")).stdout).user, [5, 1]);
  const found = newest(await readTopic(kafka, "altered.user"));
  assert.match(found.get("11") ?? "", /^\{"zz":3,"ind":11,"first_name":"Found",/);
  assert.equal(found.get("42"), null);
  await sql("ALTER TABLE user_data DROP COLUMN zz");
});
