/** Changes that are missing in the binary log, on a server for this file alone. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mysql2/promise";
import { stringify } from "yaml";
import { connectMysql } from "../../db_conn.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { loadSample } from "../../local/sample/load.ts";
import { assertPosted, differences } from "../support/changes.ts";
import { type LogServer, openLogServer } from "../support/log_server.ts";
import { keysOf } from "../support/oracle.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, struck } from "../support/support.ts";

let services: SharedServices;
let server: LogServer;
let root: Connection;
let kafka: KafkaSettings;
let creds: string;
let db: Connection;

before(async () => {
  services = await shareServices({ rows: 1, name: "log" });
  ({ kafka } = services);
  server = await openLogServer();
  ({ root } = server);
  const { host: HOST, port: PORT, user: USER, password: PASSWORD, database: DATABASE } = server.mysql;
  creds = join(services.folder.path, "own.yaml");
  const text = stringify({ HOST, PORT, USER, PASSWORD, DATABASE, KAFKA: { BROKERS: kafka.brokers } });
  await writeFile(creds, text, { mode: 0o600 });
  await loadSample(server.mysql, { rows: 300 });
  db = (await connectMysql(server.mysql)) as unknown as Connection;
});

after(async () => {
  await db?.end();
  await server?.close();
  await services?.close();
});

const sql = (text: string) => db.query(text);
const post = (prefix: string, ...args: string[]) =>
  run(["post", "--creds", creds, "--data", services.data, "--prefix", prefix, ...args]);

/** Purges all files of the log except the newest. For a while MariaDB keeps one that InnoDB may need. */
async function purge(): Promise<void> {
  const files = async () =>
    ((await root.query("SHOW BINARY LOGS"))[0] as { Log_name: string }[]).map((f) => f.Log_name);
  await root.query("FLUSH BINARY LOGS");
  for (let tries = 0; (await files()).length > 1; tries++) {
    assert.ok(tries < 100, String(await files()));
    await root.query(`PURGE BINARY LOGS TO '${(await files()).at(-1)}'`);
    await sleep(50);
  }
}

for (const [name, lose, pattern] of [
  ["reset", () => root.query("RESET MASTER"), /the log was reset|another file of the same name|impossible position/i],
  ["purged", purge, /could not find|not find/i],
] as const) {
  test(`post stops if the log was ${name}, and --full fixes it`, async () => {
    ok(await post(`log-${name}`));
    await sql("UPDATE user_data SET age = age + 1 WHERE ind = 1");
    await lose();
    await sql("DELETE FROM user_data ORDER BY ind LIMIT 1");
    const { stderr } = ok(await post(`log-${name}`), 1);
    assert.match(stderr, /Error: Cannot follow "\w+" in the binary log of MySQL from \S+:\d+: .*; run post --full\n$/);
    assert.match(stderr, pattern);
    ok(await post(`log-${name}`, "--full"));
    await assertPosted(kafka, `log-${name}`, db, "user");
  });
}

test("in a new file of the log, rows are read with locks, and rows written meanwhile are posted once", async () => {
  await sql("DELETE FROM user_data WHERE ind = 150");
  await root.query("FLUSH BINARY LOGS"); // the new file has no transaction, so a place in it proves nothing
  const holder = (await connectMysql(server.mysql)) as unknown as Connection;
  await holder.query("START TRANSACTION");
  await holder.query("UPDATE user_data SET age = age + 1 ORDER BY ind LIMIT 1");
  const posting = post("locked");
  let ended = "it still runs";
  void posting.then(({ code, stderr }) => {
    ended = `it ended with ${code}: ${stderr}`;
  });
  const waiting = "SELECT COUNT(*) AS n FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT'";
  // InnoDB refreshes this at most every 0.1 s.
  for (let n = 0, tries = 0; n === 0; await sleep(200)) {
    assert.ok(tries++ < 50, `post does not wait for the row: ${ended}`);
    [[{ n }]] = (await root.query(waiting)) as unknown as [[{ n: number }]];
  }
  await sql("INSERT INTO user_data VALUES (150, 'Mean', 'While', 30, NULL)");
  await holder.query("ROLLBACK");
  await holder.end();
  ok(await posting);
  ok(await post("locked"));
  await assertPosted(kafka, "locked", db, "user");
  const keys = keysOf(await readTopic(kafka, "locked.user"));
  assert.equal(keys.filter((key) => key === "150").length, 1);
});

test("a log that was reset is noticed even if it ends exactly at the place of the checkpoint", async () => {
  await root.query("RESET MASTER");
  ok(await post("log-same"));
  await sql("UPDATE user_data SET age = age + 1 WHERE ind = 1");
  await sleep(1_100); // the time of a file is in whole seconds
  await root.query("RESET MASTER");
  assert.match(
    ok(await post("log-same"), 1).stderr,
    /is another file of the same name: the log was reset; run post --full\n$/,
  );
  ok(await post("log-same", "--full"));
  await assertPosted(kafka, "log-same", db, "user");
});

test("a full run restarts if the log is lost during it", async () => {
  ok(await post("begun-again"));
  const env = struck(join(services.folder.path, "begun-again"), "kill 1 ^sent");
  assert.equal(
    (await run(["post", "--creds", creds, "--data", services.data, "--prefix", "begun-again", "--full"], { env }))
      .signal,
    "SIGKILL",
  );
  await sql("UPDATE user_data SET age = age + 1");
  ok(await post("begun-again"));
  await assertPosted(kafka, "begun-again", db, "user");
  const second = struck(join(services.folder.path, "again too"), "kill 2 ^committed user");
  const killed = await run(["post", "--creds", creds, "--data", services.data, "--prefix", "begun-again", "--full"], {
    env: second,
  });
  assert.equal(killed.signal, "SIGKILL");
  await sql("UPDATE user_data SET age = age + 1");
  await root.query("RESET MASTER");
  ok(await post("begun-again"));
  await assertPosted(kafka, "begun-again", db, "user");
});

test("post warns about a foreign key that deletes rows, and about rows that are missing in the log", async () => {
  await sql("CREATE TABLE people (id INT PRIMARY KEY)");
  await sql("INSERT INTO people SELECT ind FROM user_data");
  await sql(
    "ALTER TABLE user_data ADD CONSTRAINT of_people FOREIGN KEY (ind) REFERENCES people (id) ON DELETE CASCADE",
  );
  const begun = ok(await post("log-cascade"));
  const cascade =
    /Warning: The foreign key "of_people" changes rows of "user_data" together with those of "people", and MySQL does not log/;
  assert.match(begun.stderr, cascade);
  assert.doesNotMatch(ok(await post("log-cascade")).stderr, /fewer row/);
  await sql("DELETE FROM people WHERE id BETWEEN 10 AND 12");
  const { stderr } = ok(await post("log-cascade"));
  assert.match(
    stderr,
    /Warning: "user_data" has 3 fewer rows up to key 299 than the binary log of MySQL has: post --full/,
  );
  ok(await post("log-cascade", "--full"));
  await assertPosted(kafka, "log-cascade", db, "user");
  await sql("ALTER TABLE user_data DROP FOREIGN KEY of_people");
});

test("the log has no changes of a view: post says so, and sees only new keys", async () => {
  await sql("RENAME TABLE geolocation_data TO places");
  await sql("CREATE VIEW geolocation_data AS SELECT * FROM places WHERE ind < 200");
  const { stderr } = ok(await post("log-view"));
  assert.match(
    stderr,
    /Warning: Cannot follow "geolocation_data" in the binary log of MySQL: it is a view, and the log has only/,
  );
  await sql("DELETE FROM places WHERE ind = 5");
  assert.match(ok(await post("log-view")).stderr, /Warning: "geolocation_data" has 1 fewer row up to key 199/);
  ok(await post("log-view", "--full"));
  assert.deepEqual(await differences(kafka, "log-view", db, "geo"), []);
  await sql("DROP VIEW geolocation_data");
  await sql("RENAME TABLE places TO geolocation_data");
});

test("if the log cannot be read, post says in one line what to grant, and sees only new keys", async () => {
  const user = `'limited'@'%'`;
  await root.query(`CREATE USER ${user} IDENTIFIED BY 'secret'`);
  await root.query(`GRANT SELECT ON ${server.mysql.database}.* TO ${user}`);
  const path = join(services.folder.path, "limited.yaml");
  const text = (await readFile(creds, "utf8"))
    .replace(/USER: .*/, "USER: limited")
    .replace(/PASSWORD: .*/, "PASSWORD: secret");
  await writeFile(path, text, { mode: 0o600 });
  const args = ["post", "--creds", path, "--data", services.data, "--prefix", "log-limited"];
  const warnings = ({ stderr }: { stderr: string }) => stderr.split("\n").filter((line) => line.startsWith("Warning"));
  assert.deepEqual(warnings(ok(await run(args))), [
    "Warning: Cannot follow the binary log of MySQL: run GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'limited'; post sees only new rows with keys above the last one",
  ]);
  await sql("INSERT INTO user_data VALUES (-2, 'Below', 'All', 30, NULL), (9500, 'Above', 'All', 30, NULL)");
  const { stderr } = ok(await run(args));
  assert.match(stderr, /Warning: "user_data" has 1 more row up to key 299 than were posted: post sees only keys above/);
  await root.query(`GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO ${user}`);
  const granted = ok(await run(args));
  assert.match(
    granted.stderr,
    /"user_data" is followed in the binary log of MySQL from now on: post --full posts earlier changes/,
  );
  await sql("UPDATE user_data SET age = 50 WHERE ind = 9500");
  ok(await run(args));
  assert.deepEqual(
    (await differences(kafka, "log-limited", db, "user")).map(({ key }) => key),
    ["-2"],
  );
  ok(await run([...args, "--full"]));
  await assertPosted(kafka, "log-limited", db, "user");
});
