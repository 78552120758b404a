/**
 * The whole job on real services: runs the program as a user does, and reads Kafka and the lake without its code.
 */

import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { connectMysql, type MysqlSettings } from "../../db_conn.ts";
import { tableNames, tables } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { sampleRow } from "../../local/sample/rows.ts";
import { readRejects, readSilver } from "../support/lake_of.ts";
import { cleanTable, keysOf } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { sourceMessages } from "../support/source.ts";
import { copyProgram, ok, query, type Run, run } from "../support/support.ts";

let services: SharedServices;
let folder: SharedServices["folder"];
let data: string;
let creds: string;
let at: string[];
let mysql: MysqlSettings;
let kafka: KafkaSettings;
let db: Connection;

before(async () => {
  services = await shareServices({ rows: 2000, name: "pipeline" });
  ({ folder, data, creds, at, mysql, kafka } = services);
  db = (await connectMysql(mysql)) as unknown as Connection;
});

after(async () => {
  await db?.end();
  await services?.close();
});

test("the sample data is in MySQL as it was generated", async () => {
  for (const table of tableNames) {
    const rows = [...(await sourceMessages(db, table)).keys()];
    assert.equal(rows.length, 2000);
    const { source, key } = tables[table];
    const [[row]] = (await db.query({ sql: `SELECT * FROM ${source} WHERE \`${key}\` = 1234`, rowsAsArray: true })) as [
      string[][],
      unknown,
    ];
    assert.deepEqual(
      row,
      Object.values(sampleRow(table, 1234)).map((v) => (v === null ? null : String(v))),
    );
  }
});

test("the whole job: every row is in its topic once and in order, and silver is the source, cleaned", async () => {
  const first = ok(await run([...at, "--prefix", "whole", "--json"]));
  const result = JSON.parse(first.stdout) as {
    ledger: { table: string; messages: number; clean: number }[];
    answers: object;
  };
  assert.ok(Object.keys(result.answers).length >= 9);
  const lake = join(data, "lake");
  for (const table of tableNames) {
    const source = await sourceMessages(db, table);
    const messages = await readTopic(kafka, `whole.${table}`);
    assert.deepEqual(keysOf(messages), [...source.keys()]);
    assert.deepEqual(
      messages.map((m) => m.value?.toString()),
      [...source.values()],
    );
    const wanted = cleanTable(table, messages);
    assert.equal(wanted.rejects.length, 0);
    sameList(await readSilver(lake, table), [...wanted.rows.values()]);
    assert.deepEqual(await readRejects(lake, table), []);
    assert.deepEqual(
      result.ledger.find((row) => row.table === table),
      { table, messages: 2000, clean: 2000, superseded: 0, deleted: 0, rejected: 0, reasons: {} },
    );
  }
  for (const name of ["ledger", "rejects_by_reason", "matches", "top_country", "users_joined_by_year"]) {
    assert.ok(existsSync(join(lake, "gold", `${name}.parquet`)), name);
  }
  const [matches] = await query(`SELECT * FROM '${lake}/gold/matches.parquet'`);
  assert.deepEqual(matches, { pins: 2000n, with_geo: 2000n, with_user: 2000n, with_both: 2000n });
});

test("a second run posts and cleans nothing twice, and posts only the rows added in between", async () => {
  const before = await readTopic(kafka, "whole.geo");
  ok(await run([...at, "--prefix", "whole"]));
  assert.equal((await readTopic(kafka, "whole.geo")).length, before.length);
  await db.query(
    "INSERT INTO geolocation_data VALUES (5000, '2019-01-01 00:00:00', 1.5, -2.25, 'Aruba'), (5001, NULL, NULL, NULL, NULL)",
  );
  ok(await run([...at, "--prefix", "whole"]));
  const now = await readTopic(kafka, "whole.geo");
  assert.deepEqual(keysOf(now.slice(before.length)), ["5000", "5001"]);
  const rows = await readSilver(join(data, "lake"), "geo");
  assert.equal(rows.length, 2002);
  assert.deepEqual(rows.at(-1)?.coordinates, null);
});

test("a row inserted below the last key is posted, and post --full posts every row again", async () => {
  await db.query("INSERT INTO user_data VALUES (-5, 'Low', 'Key', 30, '2016-01-01 00:00:00')");
  const post = ok(await run(["post", ...at, "--prefix", "whole"]));
  assert.doesNotMatch(post.stderr, /Warning/);
  assert.equal((await readTopic(kafka, "whole.user")).at(-1)?.key?.toString(), "-5");
  ok(await run(["post", "--full", ...at, "--prefix", "whole"]));
  assert.equal((await readTopic(kafka, "whole.user")).length, 4002);
  const clean = ok(await run(["clean", ...at, "--prefix", "whole", "--json"]), 3);
  const { ledger } = JSON.parse(clean.stdout) as { ledger: { table: string; reasons: object; superseded: number }[] };
  assert.deepEqual(ledger.find((row) => row.table === "user")?.reasons, { bad_key: 2 });
  assert.equal(ledger.find((row) => row.table === "user")?.superseded, 2000);
  const rows = await readSilver(join(data, "lake"), "user");
  assert.equal(new Set(rows.map((row) => row.ind)).size, rows.length);
  assert.equal(rows.length, 2000);
  await db.query("DELETE FROM user_data WHERE ind = -5");
});

test("clean --rebuild creates the same silver, rejects and gold from bronze alone", async () => {
  const lake = join(data, "lake");
  const read = async () => [
    await Promise.all(tableNames.map((table) => readSilver(lake, table))),
    await Promise.all(tableNames.map((table) => readRejects(lake, table))),
    await query(`SELECT * FROM '${lake}/gold/top_category_by_country.parquet'`),
    await query(`SELECT * FROM '${lake}/gold/ledger.parquet'`),
  ];
  ok(await run(["report", ...at, "--prefix", "whole"]));
  const before = await read();
  for (const name of await readdir(join(lake, "silver", "pin"))) await rm(join(lake, "silver", "pin", name));
  await rm(join(lake, "gold"), { recursive: true });
  ok(await run(["clean", "--rebuild", "--data", data, "--quiet"]));
  assert.deepEqual(await read(), before);
});

test("SQL with other columns than silver is refused, and --rebuild rebuilds all of silver with it", async () => {
  const folderOfCopy = join(folder.path, "edited program");
  const program = await copyProgram(folderOfCopy);
  const file = join(folderOfCopy, "sql", "clean_geo.sql");
  const original = await readFile(file, "utf8");
  const args = ["clean", ...at, "--prefix", "whole"];
  for (const [text, difference] of [
    [original.replace("  ind, country,", "  ind, upper(country) AS shouted, country,"), /"shouted" is new/],
    [original.replace("  ind, country,", "  country, ind,"), /their order differs/],
    [original.replace("  ind, country,", "  country,"), /"ind" must be BIGINT, not missing/],
  ] as const) {
    assert.notEqual(text, original);
    await writeFile(file, text);
    const { stderr } = ok(await run(args, { program }), 2);
    assert.match(stderr, difference);
    assert.match(stderr, /sql\/clean_geo\.sql/);
  }
  await writeFile(file, original.replace("  ind, country,", "  ind, upper(country) AS shouted, country,"));
  ok(await run(["clean", "--rebuild", "--data", data, "--quiet"], { program }));
  ok(await run(args, { program }));
  const wrong = await query(`FROM '${data}/lake/silver/geo/*.parquet' WHERE shouted IS DISTINCT FROM upper(country)`);
  assert.deepEqual(wrong, []);
  assert.match(ok(await run(args), 2).stderr, /"shouted" was dropped; run clean --rebuild/);
  ok(await run(["clean", "--rebuild", "--data", data, "--quiet"]));
});

test("a lake with files but without lake.json is refused, and the error says what to write to it", async () => {
  const file = join(data, "lake", "lake.json");
  const before = await readFile(file, "utf8");
  const args = ["clean", ...at, "--prefix", "whole"];
  await rm(file);
  try {
    const { stderr } = ok(await run(args), 2);
    const [text = ""] = /\{.*\}/.exec(stderr) ?? [];
    const { topics, ...bound } = JSON.parse(before);
    assert.deepEqual(JSON.parse(text), { ...bound, sql: "" });
    await writeFile(file, "{");
    assert.match(ok(await run(args), 1).stderr, /Cannot read ".*lake\.json": .*; restore it from a backup/);
    await writeFile(file, text);
    assert.match(ok(await run(args)).stderr, /The cleaning SQL was edited since silver was made/);
    assert.deepEqual(JSON.parse(await readFile(file, "utf8")).topics, topics);
  } finally {
    await writeFile(file, before);
  }
});

test("an unreadable message of another program is rejected with a reason, and the exit code is 3", async () => {
  const producer = kafkaClient(kafka).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  const hostile = Buffer.from("{'not': \u001b[31m json}");
  await producer.send({
    topic: "whole.pin",
    messages: [
      { key: null, value: hostile },
      { key: "t", value: null },
    ],
  });
  await producer.disconnect();
  const clean = ok(await run(["clean", ...at, "--prefix", "whole"]), 3);
  assert.match(clean.stdout, /pin +not_json +1\n/);
  assert.match(clean.stdout, /pin +empty_message +1\n/);
  assert.match(
    clean.stderr,
    /Warning: 2 new rejects, mainly (not_json|empty_message) \(1\): ".*lake\/rejects\/\*\.parquet" has each message/,
  );
  const rejects = await readRejects(join(data, "lake"), "pin");
  assert.deepEqual(
    rejects.map(({ reason, raw }) => [reason, raw]),
    [
      ["not_json", hostile],
      ["empty_message", null],
    ],
  );
  ok(await run(["clean", ...at, "--prefix", "whole"]));
});

test("a lake refuses another prefix, another database and another cluster", async () => {
  const prefix = await run(["clean", ...at, "--prefix", "other"]);
  assert.equal(prefix.code, 2);
  assert.match(
    prefix.stderr,
    /Error: The lake in ".*" belongs to topics with prefix "whole", not to "other": choose another folder with --data, or the same --prefix as before\n$/,
  );
  await db.query("CREATE DATABASE pinterest_other");
  for (const { source } of Object.values(tables)) {
    await db.query(`CREATE TABLE pinterest_other.${source} AS SELECT * FROM ${source} LIMIT 10`);
  }
  const path = join(folder.path, "other.yaml");
  const text = (await readFile(creds, "utf8")).replace(/DATABASE: .*/, "DATABASE: pinterest_other");
  await writeFile(path, text, { mode: 0o600 });
  const database = await run(["clean", ...at, "--creds", path, "--prefix", "whole"]);
  assert.equal(database.code, 2);
  assert.match(
    database.stderr,
    /belongs to database "pinterest_pipeline@.*", not to "pinterest_other@.*": choose another folder with --data\n$/,
  );
  const post = await run(["post", ...at, "--creds", path, "--prefix", "whole"]);
  assert.equal(post.code, 2);
  assert.match(
    post.stderr,
    /Error: Topic "whole\.\w+" holds the rows of database "pinterest_pipeline@.*", not of "pinterest_other@.*": choose another prefix by --prefix or KAFKA\.PREFIX\n$/,
  );
  const binding = join(data, "lake", "lake.json");
  const kept = await readFile(binding, "utf8");
  await writeFile(binding, kept.replace(/"cluster": "[^"]*"/, '"cluster": "elsewhere"'));
  const cluster = await run(["clean", ...at, "--prefix", "whole"]);
  await writeFile(binding, kept);
  assert.equal(cluster.code, 2);
  assert.match(
    cluster.stderr,
    /belongs to Kafka cluster "elsewhere", not to ".*": choose another folder with --data\n$/,
  );
});

test("explore shows one post of all three tables, readable and as JSON with MySQL's digits", async () => {
  const text = ok(await run(["explore", "--index", "1234", ...at]));
  assert.match(text.stdout, /^pin_result\n {2}index +1234\n.*^geo_result\n {2}ind +1234\n.*^user_result\n/ms);
  const json = ok(await run(["explore", "--index", "1234", ...at, "--json"]));
  const geo = (await sourceMessages(db, "geo")).get("1234") as string;
  assert.ok(json.stdout.includes(`"geo_result":${geo}`));
  assert.deepEqual(Object.keys(JSON.parse(json.stdout)), ["pin_result", "geo_result", "user_result"]);
});

test("explore without a key counts each column and what cleaning would change, in 80 columns and as JSON", async () => {
  const { stdout } = ok(await run(["explore", ...at]));
  assert.match(stdout, /^pinterest_data: sample of 2,000 rows/m);
  assert.match(stdout, /^ {2}category +text +0 +\d+ {2}\S/m);
  assert.match(stdout, /^ {2}poster_name +"User Info Error" becomes null +\d+ /m);
  assert.match(stdout, /^pin_result$/m);
  const tables = stdout.slice(0, stdout.indexOf("pin_result"));
  assert.deepEqual(
    tables.split("\n").filter((line) => [...line].length > 80),
    [],
  );
  const json = JSON.parse(ok(await run(["explore", ...at, "--json"])).stdout);
  assert.deepEqual(Object.keys(json), ["pin_result", "geo_result", "user_result", "columns"]);
  const posts = [...(await sourceMessages(db, "pin")).values()].map((text) => JSON.parse(text));
  const { columns, dirt } = json.columns.pin;
  assert.equal(
    dirt.find(
      (found: { column: string; example: string }) =>
        `${found.column} ${found.example}` === "poster_name User Info Error",
    ).rows,
    posts.filter((post) => post.poster_name === "User Info Error").length,
  );
  assert.equal(
    columns.find((column: { name: string }) => column.name === "category").distinct,
    new Set(posts.map((post) => post.category)).size,
  );
});

test("status shows each table at every stage, also as JSON", async () => {
  const text = ok(await run(["status", ...at, "--prefix", "whole"]));
  assert.match(text.stdout, /^ {2}rows in MySQL +2,000 +2,002 .*\n {2}rows posted +2,000 .*\n {2}up to key +1,999 /m);
  const json = JSON.parse(ok(await run(["status", ...at, "--prefix", "whole", "--json"])).stdout);
  assert.equal(json.geo.in_mysql, 2002);
  assert.equal(json.geo.lag, 0);
  assert.deepEqual(json.pin.reasons, { empty_message: 1, not_json: 1 });
});

test("--wait limits how long each command waits for a table that another session has locked", async () => {
  // With existing topics: creating them may take longer than the wait.
  const own = ["--creds", creds, "--prefix", "whole", "--data", join(folder.path, "locked")];
  const cases: { args: string[]; code: number }[] = [
    { args: ["post", ...own], code: 1 },
    { args: ["emulate", "--limit", "1", ...own], code: 1 },
    { args: ["explore", ...own], code: 1 },
    { args: ["status", ...at, "--prefix", "whole"], code: 0 },
    { args: ["report", ...at, "--prefix", "whole"], code: 0 },
  ];
  const holder = await connectMysql(mysql);
  await holder.query("LOCK TABLES geolocation_data WRITE");
  const late = setTimeout(() => holder.destroy(), 60_000);
  const results = await Promise.all(cases.map(({ args }) => run([...args, "--wait", "2"])));
  clearTimeout(late);
  holder.destroy();
  for (const [i, { args, code }] of cases.entries()) {
    const { stderr, code: found } = results[i] as Run;
    assert.match(
      stderr,
      /Cannot read from MySQL at .*: another session has locked a table \(Lock wait/,
      `${args[0]}: ${stderr}`,
    );
    assert.equal(found, code, stderr);
  }
});

test("a missing bronze file is noticed by clean and by clean --rebuild, and nothing is changed", async () => {
  const lake = join(data, "lake");
  const [name] = await readdir(join(lake, "bronze/geo"));
  const path = join(lake, "bronze/geo", name as string);
  const kept = await readFile(path);
  const before = await readSilver(lake, "geo");
  await rm(path);
  const runs = [await run(["clean", ...at, "--prefix", "whole"]), await run(["clean", "--rebuild", "--data", data])];
  await writeFile(path, kept);
  for (const { code, stderr } of runs) {
    assert.equal(code, 1);
    assert.match(
      stderr,
      /Error: Messages are missing from the lake: offsets 0 to \d+ of partition 0 were cleaned, but ".*geo" has only \d+ to \d+; restore the files/,
    );
  }
  assert.deepEqual(await readSilver(lake, "geo"), before);
});

test("a deleted and recreated topic is noticed by post and by clean", async () => {
  const admin = kafkaClient(kafka).admin();
  await admin.connect();
  await admin.deleteTopics({ topics: ["whole.geo"] });
  await new Promise((done) => setTimeout(done, 1_000));
  await admin.createTopics({ topics: [{ topic: "whole.geo", numPartitions: 1 }] });
  await admin.disconnect();
  const post = await run(["post", ...at, "--prefix", "whole"]);
  assert.equal(post.code, 1);
  assert.match(
    post.stderr,
    /Error: Topic "whole\.geo" no longer holds the last row posted \(key 5001 at offset \d+ of partition 0\): the topic was deleted or recreated; run post --full to post every row again\n$/,
  );
  const clean = await run(["clean", ...at, "--prefix", "whole"]);
  assert.equal(clean.code, 1);
  assert.match(
    clean.stderr,
    /Error: Topic "whole\.geo" was recreated: its id is "[\w-]{22}", but the lake holds messages of the topic with id "[\w-]{22}"; start a new lake/,
  );
  ok(await run(["post", "--full", ...at, "--prefix", "whole"]));
  assert.equal((await readTopic(kafka, "whole.geo")).length, 2002);
  const grown = await run(["clean", ...at, "--prefix", "whole"]);
  assert.equal(grown.code, 1, grown.stderr);
  assert.match(grown.stderr, /was recreated/);
});
