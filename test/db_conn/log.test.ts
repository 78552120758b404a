/** The keys in the binary log between two places, on a real server, for every kind of statement. */
import assert from "node:assert/strict";
import { Readable } from "node:stream";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { isTransientMysql } from "../../db_conn/errors.ts";
import { datePlace, readChanges } from "../../db_conn/log.ts";
import type { LogTable } from "../../db_conn/log_rows.ts";
import { openSnapshot } from "../../db_conn/snapshot.ts";
import { comparePlaces, type LogPlace } from "../../io/log_place.ts";
import { type LogServer, openLogServer } from "../support/log_server.ts";

let server: LogServer;
let from: LogPlace;
let database = "";
before(async () => {
  server = await openLogServer();
  database = server.mysql.database;
  await begin();
});
after(() => server?.close());

const sql = (text: string) => server.root.query(text);

/** The end of the log, when everything before it is visible. */
async function end(): Promise<LogPlace> {
  const { place } = await openSnapshot(server.reader, server.mysql);
  await server.reader.query("COMMIT");
  return place;
}

/** Skips what was written so far. */
const begin = async () => {
  from = await end();
};

const table = (name: string, column = 0, unsigned = false): LogTable => ({ database, table: name, column, unsigned });

/** The changes of a table since the last call: `7` for an updated row, `7+` for a new one, `7-` for a deleted one. */
async function changes(of: LogTable, most = 1_000_000): Promise<string> {
  const to = await end();
  const before = from;
  from = to;
  const keys = new Map<string, number>();
  let place = before;
  while (comparePlaces(place, to) < 0) {
    const read = await readChanges(server.mysql, { table: of, from: place, to, most });
    assert.ok(read.keys.size <= most, `${read.keys.size} keys`);
    for (const [key, more] of read.keys) keys.set(key, (keys.get(key) ?? 0) + more);
    assert.ok(comparePlaces(place, read.place) < 0, "it does not advance");
    place = read.place;
  }
  assert.deepEqual({ file: place.file, position: place.position, skip: place.skip }, to);
  const signs: Record<number, string> = { [-1]: "-", 0: "", 1: "+" };
  return [...keys].map(([key, more]) => key + signs[more]).join(" ");
}

/** Columns of every type before the key, which is the 19th, and some after it. */
const everyType = `CREATE TABLE t (
  a VARCHAR(300), e ENUM('x','y'), s SET('p','q'), d DECIMAL(20,5), c CHAR(10) CHARACTER SET utf8mb4,
  c2 CHAR(255) CHARACTER SET utf8mb4, tx TEXT, bt BIT(9), dt DATETIME(3), ts TIMESTAMP(6) NULL, tm TIME(2), dd DATE, yy YEAR,
  f FLOAT, db DOUBLE, ti TINYINT, si SMALLINT, mi MEDIUMINT, k INT NOT NULL PRIMARY KEY,
  bi BIGINT, bl LONGBLOB, n VARCHAR(20), js JSON, tt TINYTEXT, mt MEDIUMTEXT, vb VARBINARY(400), bn BINARY(5), dt0 DATETIME,
  dc DECIMAL(65,30), dc2 DECIMAL(9,0), b1 BIT(1), b64 BIT(64), t0 TIME, ts0 TIMESTAMP NULL, po POINT
) CHARACTER SET utf8mb4`;

const row = (k: number, r = Math.abs(k)) => `(
  'ä${"x".repeat(r % 250)}','y','p,q',-123456.789,'abc','é','text ${"y".repeat(r % 300)}',b'101010101','2020-01-02 03:04:05.678',
  '2020-01-02 03:04:05.678901','-12:34:56.78','2020-02-03',2020,1.5,2.5,-1,-2,-3,${k},
  99999999999,REPEAT('z',${(r % 5) * 1000}),NULL,'{"a":[1]}','t',REPEAT('m',70000),'v','b','2020-01-02 03:04:05',
  -1.5,123456789,1,b'1','-01:02:03','2020-01-02 03:04:05',POINT(1,2))`;
const rowsFrom = (first: number, count: number) => Array.from({ length: count }, (_, i) => row(first + i)).join();

/** Statements, and the changes of table `t` in the log, or a pattern for the error at which the reader stops. */
const statements: [name: string, sql: string, keys: string | RegExp][] = [
  ["INSERT of one row", `INSERT INTO t VALUES ${row(1)}`, "1+"],
  ["INSERT of a negative key", `INSERT INTO t VALUES ${row(-5)}`, "-5+"],
  ["INSERT of several rows", `INSERT INTO t VALUES ${rowsFrom(2, 3)}`, "2+ 3+ 4+"],
  ["INSERT of nulls", "INSERT INTO t (k) VALUES (10),(11),(12)", "10+ 11+ 12+"],
  ["UPDATE of one row", "UPDATE t SET n = 'new' WHERE k = 3", "3"],
  ["UPDATE that changes nothing", "UPDATE t SET n = 'new' WHERE k = 3", ""],
  ["UPDATE of the key", "UPDATE t SET k = 5000 WHERE k = 4", "4- 5000+"],
  ["UPDATE of several rows", "UPDATE t SET n = CONCAT(k) WHERE k BETWEEN 1 AND 3", "1 2 3"],
  ["DELETE", "DELETE FROM t WHERE k IN (10, 11)", "10- 11-"],
  ["REPLACE", "REPLACE INTO t (k, n) VALUES (2, 'r')", "2"],
  ["REPLACE of a new row", "REPLACE INTO t (k, n) VALUES (20, 'r')", "20+"],
  ["ON DUPLICATE KEY UPDATE", "INSERT INTO t (k) VALUES (2) ON DUPLICATE KEY UPDATE n = 'dup'", "2"],
  ["INSERT and DELETE of the same row", "INSERT INTO t (k) VALUES (30); DELETE FROM t WHERE k = 30", "30"],
  ["another table", "INSERT INTO other VALUES (1,'x'),(2,'y')", ""],
  [
    "a table of that name elsewhere",
    "INSERT INTO pinterest_elsewhere.t VALUES (1); TRUNCATE pinterest_elsewhere.t",
    "",
  ],
  ["UPDATE of two tables", "UPDATE t JOIN other ON other.id = t.k SET t.n = 'j', other.v = 'j'", "1 2"],
  ["ROLLBACK", "START TRANSACTION; UPDATE t SET n='never' WHERE k=12; ROLLBACK", ""],
  [
    "ROLLBACK TO a savepoint",
    "START TRANSACTION; UPDATE t SET n='yes' WHERE k=12; SAVEPOINT a; UPDATE t SET n='never' WHERE k=1; ROLLBACK TO a; COMMIT",
    "12",
  ],
  ["a transaction", "START TRANSACTION; UPDATE t SET n='t1' WHERE k=12; DELETE FROM t WHERE k=1; COMMIT", "12 1-"],
  [
    "a transaction with a savepoint",
    "START TRANSACTION; UPDATE t SET n='a' WHERE k=12; SAVEPOINT a; UPDATE t SET n='b' WHERE k=3; COMMIT",
    "12 3",
  ],
  [
    "a new file of the log",
    "INSERT INTO t (k) VALUES (40); FLUSH BINARY LOGS; INSERT INTO t (k) VALUES (41)",
    "40+ 41+",
  ],
  ["a row of 20 MB", "INSERT INTO t (k, bl) VALUES (50, REPEAT('w', 20000000)); DELETE FROM t WHERE k = 50", "50"],
  ["XA in one phase", "XA START 'x2'; INSERT INTO t (k) VALUES (60); XA END 'x2'; XA COMMIT 'x2' ONE PHASE", "60+"],
  [
    "XA of another table",
    "XA START 'x3'; INSERT INTO other VALUES (70,''); XA END 'x3'; XA PREPARE 'x3'; XA COMMIT 'x3'",
    "",
  ],
  ["ANALYZE", "ANALYZE TABLE t", ""],
  ["CREATE TABLE IF NOT EXISTS", "CREATE TABLE IF NOT EXISTS t (k INT)", ""],
  ["CREATE TABLE LIKE it", "CREATE TABLE like_t LIKE t; DROP TABLE like_t", ""],
  ["CREATE VIEW of it", "CREATE VIEW view_of_t AS SELECT k FROM t; DROP VIEW view_of_t", ""],
  ["a temporary table of that name", "CREATE TEMPORARY TABLE t (k INT); DROP TEMPORARY TABLE t", ""],
  [
    "XA PREPARE",
    "XA START 'x1'; INSERT INTO t (k) VALUES (9001); XA END 'x1'; XA PREPARE 'x1'",
    /XA PREPARE logged rows/,
  ],
  ["XA COMMIT", "XA COMMIT 'x1'", ""],
  ["ALTER of a column", "ALTER TABLE t ADD COLUMN extra INT", /"ALTER TABLE t ADD COLUMN extra INT" changed it/],
  ["INSERT after it", "INSERT INTO t (k, extra) VALUES (8001, 1)", "8001+"],
  ["ALTER by mysqldump", "/*!40000 ALTER TABLE `t` DISABLE KEYS */", /ALTER TABLE `t` DISABLE KEYS/],
  ["CREATE INDEX", "CREATE INDEX n ON t (n)", ""],
  ["TRUNCATE", "TRUNCATE TABLE t", /"TRUNCATE TABLE t" changed it without naming the rows; run post --full/],
  ["TRUNCATE from elsewhere", "USE pinterest_elsewhere; TRUNCATE pinterest_faults.t; USE pinterest_faults", /TRUNCATE/],
  ["RENAME", "CREATE TABLE t2 LIKE t; RENAME TABLE t TO t_old, t2 TO t", /"RENAME TABLE t TO t_old, t2 TO t"/],
  ["INSERT into the renamed", "INSERT INTO t (k) VALUES (8002)", "8002+"],
  [
    "UPDATE as a statement",
    "SET SESSION binlog_format = 'STATEMENT'; UPDATE t SET n = 's' WHERE k = 8002; SET SESSION binlog_format = 'ROW'",
    /"UPDATE t SET n = 's' WHERE k = 8002" changed it/,
  ],
  ["DROP", "DROP TABLE t", /DROP TABLE .?t/],
];

test("the log gives the keys of every statement that changes rows, and stops at those that do not name them", async (t) => {
  await sql("CREATE DATABASE pinterest_elsewhere");
  await sql("CREATE TABLE pinterest_elsewhere.t (k INT PRIMARY KEY)");
  await sql("CREATE TABLE other (id INT PRIMARY KEY, v TEXT)");
  await sql(everyType);
  await begin();
  for (const [name, text, expected] of statements) {
    await t.test(name, async () => {
      for (const statement of text.split("; ")) await sql(statement);
      if (typeof expected === "string") assert.equal(await changes(table("t", 18)), expected);
      else await assert.rejects(changes(table("t", 18)), expected);
    });
  }
});

test("the log gives the keys of LOAD DATA", async () => {
  await sql("CREATE TABLE loaded (k INT PRIMARY KEY, n TEXT)");
  await begin();
  const infileStreamFactory = () => Readable.from([Buffer.from("7001\ta\n7002\tb\n7003\tc\n")]);
  await server.root.query({ sql: "LOAD DATA LOCAL INFILE 'x' INTO TABLE loaded", infileStreamFactory });
  assert.equal(await changes(table("loaded")), "7001+ 7002+ 7003+");
});

test("keys of every whole number type are read, at both ends of its range", async () => {
  const types: [type: string, least: string, greatest: string][] = [
    ["TINYINT", "-128", "127"],
    ["TINYINT UNSIGNED", "0", "255"],
    ["SMALLINT", "-32768", "32767"],
    ["SMALLINT UNSIGNED", "0", "65535"],
    ["MEDIUMINT", "-8388608", "8388607"],
    ["MEDIUMINT UNSIGNED", "0", "16777215"],
    ["INT", "-2147483648", "2147483647"],
    ["INT UNSIGNED", "0", "4294967295"],
    ["BIGINT", "-9223372036854775808", "9223372036854775807"],
    ["BIGINT UNSIGNED", "0", "18446744073709551615"],
    ["YEAR", "1901", "2155"],
  ];
  for (const [type, least, greatest] of types) {
    const name = type.toLowerCase().replace(" ", "_");
    await sql(`CREATE TABLE k_${name} (v VARCHAR(10), k ${type} PRIMARY KEY)`);
    await begin();
    await sql(`INSERT INTO k_${name} VALUES ('a', ${least}), (NULL, ${greatest})`);
    assert.equal(await changes(table(`k_${name}`, 1, type.endsWith("UNSIGNED"))), `${least}+ ${greatest}+`, type);
  }
  await sql("CREATE TABLE k_text (k VARCHAR(10) PRIMARY KEY)");
  await begin();
  await sql("INSERT INTO k_text VALUES ('a')");
  await assert.rejects(changes(table("k_text")), /column 1 is not a whole number in the log/);
});

test("the key is found after columns of every type, in row images FULL, MINIMAL and NOBLOB", async (t) => {
  for (const image of ["FULL", "MINIMAL", "NOBLOB"]) {
    await t.test(image, async () => {
      await sql("DROP TABLE IF EXISTS t");
      await sql(everyType);
      await sql(`SET SESSION binlog_row_image = '${image}'`);
      await begin();
      await sql(`INSERT INTO t VALUES ${rowsFrom(1, 40)}`);
      assert.equal(await changes(table("t", 18)), Array.from({ length: 40 }, (_, i) => `${i + 1}+`).join(" "));
      await sql("INSERT INTO t (n, k) VALUES ('m', 700)");
      assert.equal(await changes(table("t", 18)), "700+");
      await sql("UPDATE t SET tx = 'm', n = 'q' WHERE k IN (12, 700)");
      assert.equal(await changes(table("t", 18)), "12 700");
      await sql("UPDATE t SET k = k + 100000 WHERE k = 700");
      assert.equal(await changes(table("t", 18)), "700- 100700+");
      await sql("DELETE FROM t WHERE k = 7 OR k = 100700");
      assert.equal(await changes(table("t", 18)), "7- 100700-");
      await sql("SET SESSION binlog_row_image = 'FULL'");
    });
  }
});

test("a key that the log omits is an error that says what to set", async () => {
  await sql("CREATE TABLE second_key (id INT PRIMARY KEY, k INT NOT NULL UNIQUE, v INT)");
  await sql("INSERT INTO second_key VALUES (1, 10, 0)");
  await sql("SET SESSION binlog_row_image = 'MINIMAL'");
  await begin();
  await sql("UPDATE second_key SET v = 1");
  await assert.rejects(changes(table("second_key", 1)), /SET GLOBAL binlog_row_image = FULL/);
  await sql("SET SESSION binlog_row_image = 'FULL'");
});

test("types that only MariaDB has are skipped", async (t) => {
  if (server.name !== "MariaDB") return t.skip("this is MySQL");
  await sql(
    "CREATE TABLE own (u UUID, i INET6, j INET4, c VARCHAR(400) COMPRESSED, b BLOB COMPRESSED, k INT PRIMARY KEY)",
  );
  await begin();
  await sql(
    "INSERT INTO own VALUES (UUID(), '::1', '1.2.3.4', REPEAT('c', 300), REPEAT('b', 300), 1), (NULL, NULL, NULL, '', '', 2)",
  );
  await sql("INSERT INTO own VALUES ('00000000-0000-0000-0000-000000000000', '::', '0.0.0.0', NULL, NULL, 3)");
  assert.equal(await changes(table("own", 5)), "1+ 2+ 3+");
});

test("events are read with and without checksums, and across a change of the setting", async () => {
  await sql("CREATE TABLE summed (k INT PRIMARY KEY)");
  await begin();
  for (const [i, kind] of ["CRC32", "NONE", "CRC32"].entries()) {
    await sql(`SET GLOBAL binlog_checksum = '${kind}'`);
    await sql(`INSERT INTO summed VALUES (${i})`);
  }
  assert.equal(await changes(table("summed")), "0+ 1+ 2+");
  await sql("SET GLOBAL binlog_checksum = 'NONE'");
  await begin();
  await sql("INSERT INTO summed VALUES (10)");
  assert.equal(await changes(table("summed")), "10+");
  await sql("SET GLOBAL binlog_checksum = 'CRC32'");
});

test("MariaDB's compressed events are read", async (t) => {
  if (server.name !== "MariaDB") return t.skip("this is MySQL");
  await sql("CREATE TABLE pressed (k INT PRIMARY KEY, v TEXT)");
  await sql("SET GLOBAL log_bin_compress = ON");
  await begin();
  await sql("INSERT INTO pressed VALUES (1, REPEAT('a', 3000)), (2, REPEAT('b', 3000))");
  await sql("UPDATE pressed SET v = REPEAT('c', 4000), k = k + 10 WHERE k = 2");
  await sql("DELETE FROM pressed WHERE k = 1");
  const [events] = await sql(`SHOW BINLOG EVENTS IN '${from.file}' FROM ${from.position}`);
  const types = (events as { Event_type: string }[]).map((event) => event.Event_type);
  assert.equal(types.filter((type) => /compressed/.test(type)).length, 3, `${types}`);
  assert.equal(await changes(table("pressed")), "1 2 12+");
  await sql(`TRUNCATE /* ${"long ".repeat(200)} */ TABLE pressed`);
  await assert.rejects(changes(table("pressed")), /"TRUNCATE/);
  await sql("SET GLOBAL log_bin_compress = OFF");
});

test("40 new files of the log are followed", async () => {
  await sql("CREATE TABLE rotated (k INT PRIMARY KEY)");
  await begin();
  const first = from;
  for (let i = 0; i < 40; i++) {
    await sql(`INSERT INTO rotated VALUES (${i})`);
    await sql("FLUSH BINARY LOGS");
  }
  const all = Array.from({ length: 40 }, (_, i) => `${i}+`).join(" ");
  assert.equal(await changes(table("rotated")), all);
  from = first;
  assert.equal(await changes(table("rotated"), 5), all);
});

test("a reader that stops after any number of keys misses none and counts none twice", async () => {
  await sql("CREATE TABLE cut (k INT PRIMARY KEY, n INT, v VARCHAR(100))");
  await begin();
  const first = from;
  await sql(`INSERT INTO cut VALUES ${Array.from({ length: 300 }, (_, i) => `(${i}, 0, REPEAT('v', ${i % 100}))`)}`);
  for (let i = 0; i < 10; i++) {
    await sql("START TRANSACTION");
    await sql(`UPDATE cut SET n = n + 1 WHERE k BETWEEN ${i * 20} AND ${i * 20 + 9}`);
    await sql("INSERT INTO other VALUES (1000, '') ON DUPLICATE KEY UPDATE v = CONCAT(v, 'x')");
    if (i % 2 === 0) await sql("SAVEPOINT a");
    await sql(`UPDATE cut SET k = k + 1000 WHERE k BETWEEN ${i * 20 + 5} AND ${i * 20 + 7}`);
    await sql(`DELETE FROM cut WHERE k IN (${i * 20 + 8}, ${i * 20 + 1006})`);
    await sql("COMMIT");
    if (i % 3 === 0) await sql("FLUSH BINARY LOGS");
  }
  const [rows] = await sql("SELECT k FROM cut");
  const there = new Set((rows as { k: number }[]).map(({ k }) => k));
  const whole = await changes(table("cut"));
  const news = whole.split(" ").filter((key) => key.endsWith("+"));
  assert.deepEqual(new Set(news.map((key) => Number.parseInt(key, 10))), there);
  for (const most of [2, 3, 5, 7, 64, 301]) {
    from = first;
    const pieces = await changes(table("cut"), most);
    assert.deepEqual(new Set(pieces.split(" ")), new Set(whole.split(" ")), `by ${most}`);
  }
});

test("a place inside a transaction counts the rows of it that are done, also after later transactions", async () => {
  await sql("CREATE TABLE inside (k INT PRIMARY KEY)");
  await begin();
  const first = from;
  await sql("INSERT INTO inside VALUES (1),(2),(3)");
  const read = async (place: LogPlace, most: number) =>
    readChanges(server.mysql, { table: table("inside"), from: place, to: await end(), most });
  const one = await read(first, 2);
  assert.deepEqual([...one.keys], [["1", 1]]);
  assert.deepEqual({ position: one.place.position, skip: one.place.skip }, { position: first.position, skip: 1 });
  await sql("INSERT INTO inside VALUES (4)");
  assert.deepEqual([...(await read(one.place, 100)).keys.keys()], ["2", "3", "4"]);
  const atEnd = { ...one.place, skip: 3 };
  assert.deepEqual([...(await read(atEnd, 100)).keys.keys()], ["4"]);
});

test("a transaction of 1,000,000 rows is read in pieces, in bounded memory", async (t) => {
  await sql("CREATE TABLE digits (d INT PRIMARY KEY)");
  await sql("INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)");
  await sql("CREATE TABLE million (k INT PRIMARY KEY, v VARCHAR(100))");
  await begin();
  const numbers = "a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d + 100000*g.d";
  await sql(
    `INSERT INTO million SELECT ${numbers}, REPEAT('v', 100) FROM digits a, digits b, digits c, digits e, digits f, digits g`,
  );
  const to = await end();
  setFlagsFromString("--expose-gc");
  const collectGarbage = runInNewContext("gc") as () => void;
  const used = () => {
    collectGarbage();
    const { heapUsed, external } = process.memoryUsage();
    return heapUsed + external; // including the buffers
  };
  const start = used();
  let peak = start;
  const watch = setInterval(() => {
    peak = Math.max(peak, used());
  }, 100);
  let [count, sum, reads] = [0, 0, 0];
  while (comparePlaces(from, to) < 0) {
    const { keys, place } = await readChanges(server.mysql, { table: table("million"), from, to, most: 200_000 });
    assert.ok(keys.size <= 200_000, `${keys.size} keys`);
    for (const key of keys.keys()) sum += Number(key);
    count += keys.size;
    from = place;
    reads++;
  }
  clearInterval(watch);
  assert.deepEqual({ count, sum, reads }, { count: 1_000_000, sum: 499_999_500_000, reads: 6 });
  // The transaction has 110 MB in the log.
  const megabytes = (peak - start) / 2 ** 20;
  t.diagnostic(`${megabytes.toFixed(1)} MB`);
  assert.ok(megabytes < 50, `${megabytes.toFixed(0)} MB`);
});

test("a read ends when its signal aborts, and when its connection is lost", async () => {
  await begin();
  const wide = from;
  await sql("CREATE TABLE wide (k INT PRIMARY KEY, v LONGBLOB)");
  for (let k = 0; k < 5; k++) await sql(`INSERT INTO wide VALUES (${k}, REPEAT('w', 20000000))`);
  const options = { table: table("none"), from: wide, to: await end(), most: 2 };
  const stop = new AbortController();
  const stopped = readChanges(server.mysql, { ...options, signal: stop.signal });
  stop.abort(new Error("Told to"));
  await assert.rejects(stopped, /^Error: Told to$/);
  for (let tries = 0; ; tries++) {
    const read = readChanges(server.mysql, options).then(
      () => undefined,
      (error: Error) => error,
    );
    let killed = false;
    const watch = setInterval(async () => {
      const [rows] = await sql("SELECT id FROM information_schema.processlist WHERE command = 'Binlog Dump'");
      killed ||= (rows as unknown[]).length > 0;
      for (const { id, ID = id } of rows as { id?: number; ID?: number }[]) await sql(`KILL ${ID}`).catch(() => {});
    }, 5);
    const error = await read;
    clearInterval(watch);
    if (!error && tries < 10) continue; // it ended before the kill
    assert.ok(error && killed, `${error}`);
    assert.ok(isTransientMysql(error), error.message);
    break;
  }
});

test("a log that was purged or reset is an error that says what to do", async () => {
  await sql("CREATE TABLE lost (k INT PRIMARY KEY)");
  await sql("FLUSH BINARY LOGS");
  await begin();
  await sql("INSERT INTO lost VALUES (1)");
  const { place } = await readChanges(server.mysql, { table: table("lost"), from, to: await end(), most: 10 });
  assert.ok(place.made !== undefined && place.time !== undefined && place.time >= place.made, JSON.stringify(place));
  await sql("FLUSH BINARY LOGS");
  await sql("INSERT INTO lost VALUES (2)");
  await begin();
  // A server keeps a file that it is still sending, and MariaDB one that InnoDB may need.
  for (let tries = 0; tries < 100; tries++) {
    await sql(`PURGE BINARY LOGS TO '${from.file}'`);
    const [files] = await sql("SHOW BINARY LOGS");
    if (!(files as { Log_name: string }[]).some((file) => file.Log_name === place.file)) break;
    await sleep(50);
  }
  const read = async (since: LogPlace) =>
    readChanges(server.mysql, { table: table("lost"), from: since, to: await end(), most: 10 });
  await assert.rejects(read(place), /Cannot follow "lost" in the binary log of MySQL from binlog.*; run post --full$/);

  await sql("RESET MASTER");
  await sql("INSERT INTO lost VALUES (3)");
  const { place: file } = await read({ ...(await end()), position: 4 });
  assert.deepEqual(await datePlace(server.mysql, table("lost"), await end()), { ...(await end()), made: file.made });
  await sleep(1_100); // the time of a file is in whole seconds
  await sql("RESET MASTER");
  for (let i = 4; i < 40; i++) await sql(`INSERT INTO lost VALUES (${i})`);
  assert.equal((await end()).file, file.file);
  await assert.rejects(read(file), /is another file of the same name: the log was reset; run post --full/);
  const later = { ...file, file: "binlog.000099", position: 4 };
  await assert.rejects(read(later), /it ends before that, at binlog[.]000001:\d+: the log was reset; run post --full$/);
  const to = { ...file, position: 5_000_000 };
  const beyond = readChanges(server.mysql, {
    table: table("lost"),
    from: { ...file, position: 4_000_000 },
    to,
    most: 10,
  });
  await assert.rejects(beyond, /Cannot follow "lost".*4000000: .*; run post --full$/);
});

test("a new file of the log proves nothing before its first transaction, whatever else the server writes into it", async (t) => {
  if (server.name !== "MariaDB") return t.skip("MySQL's places need no proof by locks");
  for (let i = 0; i < 100; i++) {
    await sql("FLUSH BINARY LOGS"); // soon the server adds a Binlog_checkpoint event
    for (let n = 0; n < 2; n++) {
      const { mustLock, place } = await openSnapshot(server.reader, server.mysql);
      assert.ok(mustLock, `${place.file}:${place.position}`);
    }
  }
  await sql("CREATE TABLE proven (k INT)");
  assert.equal((await openSnapshot(server.reader, server.mysql)).mustLock, false);
  await server.reader.query("COMMIT");
});
