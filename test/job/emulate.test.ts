import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { connectMysql } from "../../db_conn.ts";
import { tableNames, tables } from "../../io.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, start } from "../support/support.ts";
import { keysIn } from "../support/topics.ts";

let services: SharedServices;

before(async () => {
  services = await shareServices({ rows: 300, name: "emulate" });
});
after(() => services?.close());

const emulation = (prefix: string, ...args: string[]) => ["emulate", ...services.at, "--prefix", prefix, ...args];

test("emulate prints what it posts, and each post is one row of each topic", async () => {
  const { stdout } = ok(await run(emulation("printed", "--seed", "7", "--limit", "5", "--rate", "100/s")));
  const lines = stdout.trim().split("\n");
  assert.deepEqual(
    lines.map((line) => line.slice(0, line.indexOf(" "))),
    Array.from({ length: 5 }, () => ["pin_result", "geo_result", "user_result"]).flat(),
  );
  for (const [i, table] of tableNames.entries()) {
    const messages = await readTopic(services.kafka, `printed.${table}`);
    const printed = lines.filter((_, line) => line % 3 === i).map((line) => line.slice(line.indexOf(" ") + 1));
    assert.deepEqual(
      messages.map((m) => m.value?.toString()),
      printed,
    );
    for (const { key, value } of messages) {
      const explored = JSON.parse(value?.toString() ?? "") as Record<string, number>;
      assert.equal(String(explored[tables[table].key]), key?.toString());
    }
  }
  await keysIn(services.kafka, "printed");
});

test("emulate ends when the reader of its output closes the pipe", async () => {
  const { code, stdout, stderr } = await run([...emulation("enough", "--rate", "200/s")], { piped: "head -n 2" });
  assert.equal(code, 0, stderr);
  assert.equal(stdout.trim().split("\n").length, 2);
  assert.match(stderr, /emulate [\d,]+ posts in/);
});

test("the same seed gives the same posts, another seed others, and --quiet prints nothing", async () => {
  const args = ["--limit", "50", "--rate", "1000/s", "--quiet"];
  const [one, two, three] = await Promise.all([
    run(emulation("one", ...args, "--seed", "1")),
    run(emulation("two", ...args, "--seed", "1")),
    run(emulation("three", ...args, "--seed", "2")),
  ]);
  for (const result of [one, two, three]) assert.equal(ok(result).stdout, "");
  const keys = await keysIn(services.kafka, "one");
  assert.equal(keys.length, 50);
  assert.deepEqual(await keysIn(services.kafka, "two"), keys);
  assert.notDeepEqual(await keysIn(services.kafka, "three"), keys);
});

test("post and two concurrent emulations on the same topics disturb neither each other nor the checkpoint", async () => {
  const args = ["--rate", "300/s", "--limit", "600", "--json"];
  const [a, posted, b] = await Promise.all([
    run(emulation("shared", ...args)),
    run(["post", ...services.at, "--prefix", "shared", "--json"]),
    run(emulation("shared", ...args)),
  ]);
  for (const result of [a, posted, b]) ok(result);
  for (const { stdout } of [a, b]) assert.equal((JSON.parse(stdout) as { posts: number }).posts, 600);
  const sorted = [];
  for (const table of tableNames) {
    const messages = await readTopic(services.kafka, `shared.${table}`);
    sorted.push(messages.map((m) => Number(m.key)).sort((x, y) => x - y));
  }
  const [pin, geo, user] = sorted as [number[], number[], number[]];
  assert.equal(pin.length, 300 + 2 * 600);
  assert.deepEqual(geo, pin);
  assert.deepEqual(user, pin);
  const again = ok(await run(["post", ...services.at, "--prefix", "shared", "--json"]));
  assert.deepEqual(
    JSON.parse(again.stdout).posted,
    tableNames.map((table) => ({ table, rows: 0, deleted: 0, lastKey: "299" })),
  );
});

test("a key that is missing in one table is skipped with a warning", async () => {
  const db = (await connectMysql(services.mysql)) as unknown as Connection;
  await db.query("CREATE TABLE kept SELECT * FROM geolocation_data");
  await db.query("DELETE FROM geolocation_data WHERE ind >= 150");
  try {
    const args = ["--limit", "40", "--rate", "1000/s", "--seed", "3", "--json"];
    const { stdout, stderr } = ok(await run(emulation("lacking", ...args)));
    const { posts, skipped } = JSON.parse(stdout) as { posts: number; skipped: number };
    assert.equal(posts, 40);
    assert.ok(skipped > 0);
    assert.match(stderr, /Warning: Skipped post \d+: "geolocation_data" has no row with this key\n/);
    const keys = await keysIn(services.kafka, "lacking");
    assert.equal(keys.length, 40);
    assert.ok(keys.every((key) => Number(key) < 150));
    await db.query("DELETE FROM geolocation_data");
    const none = await run(emulation("lacking", ...args));
    assert.equal(none.code, 1);
    assert.match(
      none.stderr,
      /Error: None of [\d,]+ random keys has a row in every table: there is nothing to emulate\n$/,
    );
  } finally {
    await db.query("REPLACE INTO geolocation_data SELECT * FROM kept");
    await db.query("DROP TABLE kept");
    await db.end();
  }
});

test("keys that MySQL pads with zeros are posted as plain decimal text", async () => {
  const db = (await connectMysql(services.mysql)) as unknown as Connection;
  const alter = async (type: string) => {
    await db.query(`ALTER TABLE pinterest_data MODIFY \`index\` ${type} NOT NULL`);
    await db.query(`ALTER TABLE geolocation_data MODIFY ind ${type} NOT NULL`);
  };
  await alter("INT(10) UNSIGNED ZEROFILL");
  try {
    const args = ["--seed", "5", "--rate", "1000/s", "--limit", "30", "--json"];
    const { skipped } = JSON.parse(ok(await run(emulation("padded", ...args))).stdout) as { skipped: number };
    assert.equal(skipped, 0);
    const post = ["post", "--full", ...services.at, "--prefix", "padded", "--json"];
    const { posted } = JSON.parse(ok(await run(post)).stdout) as { posted: { lastKey: string }[] };
    assert.deepEqual(
      posted.map(({ lastKey }) => lastKey),
      ["299", "299", "299"],
    );
  } finally {
    await alter("INT");
    await db.end();
  }
  ok(await run(emulation("plain", "--seed", "5", "--rate", "1000/s", "--limit", "30")));
  const keys = await keysIn(services.kafka, "padded");
  assert.deepEqual(keys.slice(0, 30), await keysIn(services.kafka, "plain"));
  assert.deepEqual(
    keys.slice(30),
    Array.from({ length: 300 }, (_, key) => String(key)),
  );
});

test("a stopped emulation has posted whole batches, and exits with 143", async () => {
  const running = start(emulation("stopped", "--rate", "2000/s"));
  await running.said(/user_result/);
  const stopped = Date.now();
  running.kill("SIGTERM");
  const { code, stdout, stderr } = await running.done;
  assert.equal(code, 143, stderr);
  assert.ok(Date.now() - stopped < 3_500);
  const posts = stdout.match(/^user_result /gm)?.length ?? 0;
  assert.equal((await keysIn(services.kafka, "stopped")).length, posts);
});
