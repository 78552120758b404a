/** Tables that other people create, lock and fill. */
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import { type AddressInfo, connect, createServer } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Connection } from "mysql2/promise";
import { connectMysql, countRows, inspectTable, type MysqlSettings, readPage } from "../../db_conn.ts";
import { tables } from "../../io.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { ok, run } from "../support/support.ts";

let services: SharedServices;
let folder: SharedServices["folder"];
let creds: string;
let mysql: MysqlSettings;
let kafka: KafkaSettings;
let db: Connection;

before(async () => {
  services = await shareServices({ rows: 400, name: "source" });
  ({ folder, creds, mysql, kafka } = services);
  db = (await connectMysql(mysql)) as unknown as Connection;
});

after(async () => {
  await db?.end();
  await services?.close();
});

test("post waits for its count of rows if that takes longer than posting, and warns about a difference", async () => {
  await db.query("CREATE DATABASE pinterest_counted");
  for (const { source } of Object.values(tables)) {
    const name = source === "geolocation_data" ? "kept_data" : source;
    await db.query(`CREATE TABLE pinterest_counted.${name} AS SELECT * FROM ${source} LIMIT 40`);
  }
  const view = "CREATE OR REPLACE VIEW pinterest_counted.geolocation_data AS SELECT * FROM pinterest_counted.kept_data";
  await db.query(view);
  const path = join(folder.path, "counted.yaml");
  const text = (await readFile(creds, "utf8")).replace(/DATABASE: .*/, "DATABASE: pinterest_counted");
  await writeFile(path, text, { mode: 0o600 });
  const args = ["post", "--creds", path, "--prefix", "counted", "--data", folder.path, "--json"];
  ok(await run(args));
  await db.query("DELETE FROM pinterest_counted.kept_data WHERE ind = 7");
  await db.query("INSERT INTO pinterest_counted.kept_data VALUES (40, NULL, NULL, NULL, NULL)");
  await db.query(`${view} WHERE SLEEP(0.03 + 0 * ind) = 0`);
  const again = ok(await run(args));
  assert.match(again.stderr, /Warning: "geolocation_data" has 1 fewer row up to key 39 than were posted/);
  assert.deepEqual((JSON.parse(again.stdout) as { posted: object[] }).posted[1], {
    ...{ table: "geo", rows: 1, deleted: 0, lastKey: "40" },
  });
});

/** Copies ten rows of each table into a database, and returns the arguments that post them. */
async function copyTables(name: string): Promise<string[]> {
  await db.query(`CREATE DATABASE pinterest_${name}`);
  for (const { source } of Object.values(tables)) {
    await db.query(`CREATE TABLE pinterest_${name}.${source} AS SELECT * FROM ${source} LIMIT 10`);
  }
  const path = join(folder.path, `${name}.yaml`);
  const text = (await readFile(creds, "utf8")).replace(/DATABASE: .*/, `DATABASE: pinterest_${name}`);
  await writeFile(path, text, { mode: 0o600 });
  return ["post", "--creds", path, "--prefix", name, "--data", folder.path];
}

test("tables without a primary key are posted if their keys are unique, otherwise the error names the ALTER TABLE that fixes them", async () => {
  const args = await copyTables("nokey");
  ok(await run(args));
  assert.equal((await readTopic(kafka, "nokey.geo")).length, 10);
  await db.query("INSERT INTO pinterest_nokey.geolocation_data SELECT * FROM pinterest_nokey.geolocation_data LIMIT 1");
  const doubled = await run(args);
  assert.equal(doubled.code, 2);
  assert.equal(
    doubled.stderr.split("\n").at(-2),
    'Error: Cannot post "geolocation_data": its key "ind" is repeated in 1 of 11 rows; fix them, then run ALTER TABLE `geolocation_data` ADD PRIMARY KEY (`ind`)',
  );
  await db.query("ALTER TABLE pinterest_nokey.geolocation_data MODIFY ind VARCHAR(20)");
  const varchar = await run(args);
  assert.equal(varchar.code, 2);
  assert.match(
    varchar.stderr,
    /by its key "ind": its type is varchar, not a whole number; run ALTER TABLE `geolocation_data` MODIFY `ind` BIGINT NOT NULL, then ALTER TABLE/,
  );
  await db.query("ALTER TABLE pinterest_nokey.geolocation_data DROP COLUMN country");
  assert.match(
    (await run(args)).stderr,
    /Error: Cannot post "geolocation_data": it has no column "country"; add it, or rename the columns that hold the values\n$/,
  );
  await db.query("DROP TABLE pinterest_nokey.geolocation_data");
  const missing = await run(args);
  assert.equal(missing.code, 2);
  assert.equal(
    missing.stderr.split("\n").at(-2),
    'Error: Cannot find table "geolocation_data" in database "pinterest_nokey": create it, set DATABASE, or grant SELECT on it to the user',
  );
});

test("columns that JSON cannot hold are left out with a warning, and names in another case are the contract's", async () => {
  const args = await copyTables("odd");
  await db.query(`ALTER TABLE pinterest_odd.pinterest_data ADD PRIMARY KEY (\`index\`),
    CHANGE \`index\` \`Index\` INT NOT NULL, CHANGE unique_id Unique_ID VARCHAR(36),
    ADD Photo MEDIUMBLOB DEFAULT 0xff00 FIRST, ADD flags BIT(3) DEFAULT 5, ADD spot POINT, ADD shape GEOMETRY,
    ADD short BINARY(2) DEFAULT 'ab', ADD long_one VARBINARY(9) DEFAULT 'abc', ADD Number INT DEFAULT 8,
    ADD device UUID DEFAULT '123e4567-e89b-12d3-a456-426655440000', ADD address INET6 DEFAULT '::1'`);
  await db.query("ALTER TABLE pinterest_odd.user_data CHANGE ind IND INT NOT NULL, ADD PRIMARY KEY (IND)");
  const { stderr } = ok(await run(args));
  const warnings = stderr.split("\n").filter((line) => line.startsWith("Warning: "));
  assert.deepEqual(
    warnings,
    [
      ["Photo", "mediumblob"],
      ["flags", "bit"],
      ["spot", "point"],
      ["shape", "geometry"],
      ["short", "binary"],
      ["long_one", "varbinary"],
    ].map(
      ([column, type]) =>
        `Warning: Column "${column}" of "pinterest_data" is not posted: JSON has no value for its type ${type}`,
    ),
  );
  const rowOf = async (table: "pin" | "user", ind: string) => {
    const messages = await readTopic(kafka, `odd.${table}`);
    return JSON.parse(String(messages.findLast(({ key }) => key?.toString() === ind)?.value)) as Record<
      string,
      unknown
    >;
  };
  const added = { Number: 8, device: "123e4567-e89b-12d3-a456-426655440000", address: "::1" };
  const found = await rowOf("pin", "7");
  assert.deepEqual(Object.keys(found), [...Object.keys(tables.pin.columns), ...Object.keys(added)]);
  assert.deepEqual({ ...found, ...added, index: 7 }, found);
  assert.deepEqual(Object.keys(await rowOf("user", "7")), Object.keys(tables.user.columns));
  // The log of the database has these columns too.
  await db.query("UPDATE pinterest_odd.pinterest_data SET title = 'new', photo = 0xfe WHERE `index` = 7");
  ok(await run(args));
  assert.equal((await rowOf("pin", "7")).title, "new");
  const emulated = ok(await run(["emulate", "--limit", "1", ...args.slice(1)]));
  assert.match(emulated.stderr, /Warning: Column "Photo" of "pinterest_data" is not posted: /);
  const explored = ok(await run(["explore", "--index", "7", ...args.slice(1)]));
  assert.match(explored.stderr, /Warning: Column "Photo" of "pinterest_data" is not posted: /);
  await db.query("ALTER TABLE pinterest_odd.pinterest_data MODIFY category BLOB");
  const refused = await run(args);
  assert.equal(refused.code, 2);
  assert.equal(
    refused.stderr.split("\n").at(-2),
    'Error: Cannot post column "category" of "pinterest_data": JSON has no value for its type blob; run ALTER TABLE `pinterest_data` MODIFY `category` LONGTEXT',
  );
});

test("a table whose primary key is another column is advised a unique key", async () => {
  const args = await copyTables("otherkey");
  await db.query("ALTER TABLE pinterest_otherkey.user_data ADD id INT AUTO_INCREMENT PRIMARY KEY, MODIFY ind INT NULL");
  await db.query("UPDATE pinterest_otherkey.user_data SET ind = NULL WHERE ind = 4");
  const { code, stderr } = await run(args);
  assert.equal(code, 2);
  assert.equal(
    stderr.split("\n").at(-2),
    'Error: Cannot post "user_data": its key "ind" is null in 1 of 10 rows; fix them, then run ALTER TABLE `user_data` ADD UNIQUE (`ind`)',
  );
  await db.query("UPDATE pinterest_otherkey.user_data SET ind = 4 WHERE ind IS NULL");
  await db.query("ALTER TABLE `pinterest_otherkey`.`user_data` ADD UNIQUE (`ind`)");
  ok(await run(args));
});

test("rows of megabytes are posted page by page, in bounded memory", async () => {
  await db.query("CREATE DATABASE pinterest_wide");
  for (const { source } of Object.values(tables)) {
    await db.query(`CREATE TABLE pinterest_wide.${source} AS SELECT * FROM ${mysql.database}.${source} LIMIT 10`);
  }
  await db.query("ALTER TABLE pinterest_wide.pinterest_data MODIFY description LONGTEXT, ADD PRIMARY KEY (`index`)");
  await db.query("UPDATE pinterest_wide.pinterest_data SET description = REPEAT('wide ', 1000000)");
  const wide = await connectMysql({ ...mysql, database: "pinterest_wide" });
  const source = await inspectTable(wide, "pinterest_wide", "pin");
  const page = { after: undefined, upTo: "9", limit: 10, maxBytes: 12_000_000 };
  assert.deepEqual(await readPage(wide, source, page, () => {}), { rows: 3, cut: true });
  await assert.rejects(readPage(wide, source, page, () => {}));

  // No row of a page that timed out arrives later: it would be taken for one of the next page.
  const late = await connectMysql({ ...mysql, database: "pinterest_wide" });
  let rows = 0;
  const reading = readPage(late, source, { ...page, maxBytes: 1e9, timeoutMs: 200 }, () => {
    // As in a program that was frozen: the timeout is over, and the rows wait in the socket.
    if (rows++ === 0) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
  });
  await assert.rejects(reading, /No answer within 0\.2 s/);
  const then = rows;
  await sleep(1_000);
  assert.equal(rows, then);
  assert.ok(then < 10, `${then} rows had come`);

  const path = join(folder.path, "wide.yaml");
  const text = (await readFile(creds, "utf8")).replace(/DATABASE: .*/, "DATABASE: pinterest_wide");
  await writeFile(path, text, { mode: 0o600 });
  ok(await run(["post", "--creds", path, "--prefix", "megabytes", "--data", folder.path]));
  const messages = await readTopic(kafka, "megabytes.pin");
  assert.deepEqual(
    messages.map((m) => [m.key?.toString(), (m.value?.length as number) > 5_000_000]),
    Array.from({ length: 10 }, (_, key) => [String(key), true]),
  );
});

test("an error about wrong credentials does not show the password, and the exit code is 2", async () => {
  const path = join(folder.path, "wrong.yaml");
  await writeFile(path, `HOST: 127.0.0.1\nPORT: ${mysql.port}\nUSER: pipeline\nPASSWORD: hunter2\n`, { mode: 0o600 });
  const { code, stderr } = await run(["explore", "--creds", path]);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /Error: Cannot use MySQL at 127\.0\.0\.1:\d+: Access denied for user 'pipeline'@.*; check HOST, USER and PASSWORD of your credentials\n$/,
  );
  assert.ok(!stderr.includes("hunter2"));
});

test("a table that is locked while it is created is not reported as missing", async () => {
  await db.query("CREATE DATABASE pinterest_made");
  const [maker, reader] = [await connectMysql(mysql), await connectMysql(mysql, { waitMs: 1_000 })];
  const making = maker.query("CREATE TABLE pinterest_made.geolocation_data AS SELECT SLEEP(6) AS ind");
  await sleep(300);
  await assert.rejects(inspectTable(reader, "pinterest_made", "geo"), { code: "ER_LOCK_WAIT_TIMEOUT" });
  await making;
  maker.destroy();
  reader.destroy();
});

test("a statement may take longer than --wait while the database answers other connections, and not otherwise", async () => {
  await db.query("CREATE DATABASE pinterest_slow");
  const slow = `SELECT * FROM ${mysql.database}.geolocation_data WHERE ind < 300 AND SLEEP(0.01 + 0 * ind) = 0`;
  await db.query(`CREATE VIEW pinterest_slow.geolocation_data AS ${slow}`);
  let silent = false;
  const proxy = createServer((client) => {
    const server = connect(mysql.port, mysql.host);
    server.on("data", (bytes) => silent || client.write(bytes)).on("error", () => client.destroy());
    client.pipe(server).on("error", () => {});
    client.on("error", () => {}).on("close", () => server.destroy());
  }).listen(0, "127.0.0.1");
  await once(proxy, "listening");
  const { port } = proxy.address() as AddressInfo;
  const through = await connectMysql({ ...mysql, port, database: "pinterest_slow" }, { waitMs: 1_000 });
  assert.equal(await countRows(through, "geo"), 300);
  silent = true;
  proxy.close();
  const timers = () => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;
  const before = timers();
  await assert.rejects(countRows(through, "geo"), /Cannot reach MySQL at .*ECONNREFUSED/);
  assert.ok(timers() <= before, "no timer keeps the program from ending");
});
