/** Whether the binary log can be followed, changes that it does not have, and the lag of a place. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import mysql from "mysql2/promise";
import { logTable, readChanges } from "../../db_conn/log.ts";
import { canFollow, canReadLog, cascades, hasPrepared, logBehind, tableBehind } from "../../db_conn/log_checks.ts";
import type { LogTable } from "../../db_conn/log_rows.ts";
import { openSnapshot } from "../../db_conn/snapshot.ts";
import { connectMysql } from "../../db_conn.ts";
import { loadSample } from "../../local/sample/load.ts";
import { type LogServer, openLogServer } from "../support/log_server.ts";

let server: LogServer;
before(async () => {
  server = await openLogServer();
});
after(() => server?.close());

const sql = (text: string) => server.root.query(text);

test("sample posts are not logged", async () => {
  const { place } = await openSnapshot(server.reader, server.mysql);
  await loadSample(server.mysql, { rows: 500 });
  const { place: after } = await openSnapshot(server.reader, server.mysql);
  await server.reader.query("COMMIT");
  assert.deepEqual(after, place);
});

test("a table's key is described as the log has it", async () => {
  const { reader, mysql: settings } = server;
  const { database } = settings;
  const expected: LogTable = { database, table: "geolocation_data", column: 0, unsigned: false };
  assert.deepEqual(await logTable(reader, database, "geo"), expected);
  await sql("CREATE DATABASE pinterest_moved");
  await sql("CREATE TABLE pinterest_moved.geolocation_data (a TEXT, b INT, ind BIGINT UNSIGNED PRIMARY KEY)");
  const moved = await logTable(reader, "pinterest_moved", "geo");
  assert.deepEqual(moved, { database: "pinterest_moved", table: "geolocation_data", column: 2, unsigned: true });
  const { place: from } = await openSnapshot(reader, server.mysql);
  await sql("INSERT INTO pinterest_moved.geolocation_data VALUES ('', 1, 18446744073709551615)");
  const { place: to } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  const { keys } = await readChanges(settings, { table: moved, from, to, most: 10 });
  assert.deepEqual([...keys], [["18446744073709551615", 1]]);
});

test("a snapshot does not change, whatever isolation level the server defaults to", async () => {
  const db = await mysql.createConnection(server.mysql);
  try {
    await sql("CREATE TABLE still (k INT PRIMARY KEY)");
    await db.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED");
    const { place } = await openSnapshot(db, server.mysql);
    await sql("INSERT INTO still VALUES (1)");
    assert.deepEqual((await db.query("SELECT * FROM still"))[0], []);
    const { place: later } = await openSnapshot(db, server.mysql);
    assert.equal(((await db.query("SELECT * FROM still"))[0] as unknown[]).length, 1);
    assert.equal(later.file, place.file);
    assert.ok(later.position > place.position, `${later.position}`);
  } finally {
    db.destroy();
  }
});

test("a snapshot whose place proves nothing can be read with locks, also a row that has changed since", async (t) => {
  if (server.name !== "MariaDB") return t.skip("MySQL's places need no proof by locks");
  const db = await mysql.createConnection(server.mysql);
  try {
    await sql("CREATE TABLE locked (k INT PRIMARY KEY, n INT)");
    await sql("INSERT INTO locked VALUES (1, 0)");
    await db.query("SET SESSION innodb_snapshot_isolation = ON");
    const { mustLock } = await openSnapshot(db, server.mysql);
    assert.equal(mustLock, false, "a transaction is in the file before it");
    await sql("FLUSH BINARY LOGS");
    assert.equal((await openSnapshot(db, server.mysql)).mustLock, true, "a new file");
    await sql("UPDATE locked SET n = 1");
    const [rows] = await db.query("SELECT n FROM locked LOCK IN SHARE MODE");
    assert.deepEqual(rows, [{ n: 1 }]);
    assert.equal((await openSnapshot(db, server.mysql)).mustLock, false, "a later place");
  } finally {
    db.destroy();
  }
});

test("for an account without the privilege the message says what to grant", async () => {
  const { reader, mysql: settings } = server;
  assert.equal(await canReadLog(reader), undefined);
  await sql("CREATE USER plain IDENTIFIED BY 'secret'");
  await sql("GRANT ALL ON `pinterest\\_%`.* TO plain");
  const plain = { ...settings, user: "plain", password: "secret" };
  const { place: from } = await openSnapshot(reader, server.mysql);
  await sql("INSERT INTO still VALUES (2)");
  const { place: to } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  const db = await connectMysql(plain);
  try {
    const grant =
      /^Cannot follow the binary log of MySQL: .*run GRANT REPLICATION SLAVE, REPLICATION CLIENT ON \*\.\* TO 'plain'$/;
    assert.match((await canReadLog(db)) ?? "", grant);
    const table: LogTable = { database: settings.database, table: "still", column: 0, unsigned: false };
    await assert.rejects(readChanges(plain, { table, from, to, most: 10 }), { name: "UsageError", message: grant });
    await sql("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO 'plain'");
    assert.equal(await canReadLog(db), undefined);
    const { keys } = await readChanges(plain, { table, from, to, most: 10 });
    assert.deepEqual([...keys], [["2", 1]]);
  } finally {
    db.destroy();
  }
});

test("for a log in another format the message says what to set", async () => {
  await sql("SET GLOBAL binlog_format = 'MIXED'");
  assert.match((await canReadLog(server.reader)) ?? "", /binlog_format is not ROW; SET GLOBAL binlog_format = 'ROW'/);
  await sql("SET GLOBAL binlog_format = 'ROW'");
  assert.equal(await canReadLog(server.reader), undefined);
});

test("for a server without a log the message says how to start it", async () => {
  const without = await openLogServer(["--skip-log-bin"]);
  try {
    assert.match((await canReadLog(without.reader)) ?? "", /it keeps none; start it with --log-bin --server-id=1/);
    await assert.rejects(openSnapshot(without.reader, server.mysql), { name: "UsageError", message: /it keeps none/ });
    assert.equal(await logBehind(without.reader, { file: "binlog.000001", position: 4, skip: 0 }), undefined);
  } finally {
    await without.close();
  }
});

test("a log without the database, or without replicated changes, is not followed", async (t) => {
  if (server.name !== "MariaDB") return t.skip("MySQL logs what it replicates");
  const database = server.mysql.database;
  for (const flag of [`--binlog-ignore-db=${database}`, "--binlog-do-db=others"]) {
    const filtered = await openLogServer([flag]);
    try {
      await loadSample(filtered.mysql, { rows: 1 });
      const message = new RegExp(`it leaves out database "${database}"; start it without --binlog-do-db`);
      assert.match((await canFollow(filtered.reader, "pin")) ?? "", message, flag);
    } finally {
      await filtered.close();
    }
  }
  await loadSample(server.mysql, { rows: 1 });
  assert.equal(await canFollow(server.reader, "pin"), undefined);
  await sql("SET GLOBAL gtid_slave_pos = '1-7-1'");
  assert.match((await canFollow(server.reader, "pin")) ?? "", /it is a replica and does not log what it replicates/);
  await sql("SET GLOBAL gtid_slave_pos = ''");
});

test("prepared XA transactions are found", async () => {
  assert.equal(await hasPrepared(server.reader), false);
  await sql("CREATE TABLE prepared (k INT PRIMARY KEY)");
  for (const statement of ["XA START 'p'", "INSERT INTO prepared VALUES (1)", "XA END 'p'", "XA PREPARE 'p'"]) {
    await sql(statement);
  }
  assert.equal(await hasPrepared(server.reader), server.name === "MariaDB");
  await sql("XA ROLLBACK 'p'");
});

test("a data folder that was created without a log gets one", async () => {
  const again = await openLogServer([], ["--skip-log-bin"]);
  try {
    assert.equal(await canReadLog(again.reader), undefined);
    await again.root.query("CREATE TABLE t (k INT PRIMARY KEY)");
    const { place: from } = await openSnapshot(again.reader, server.mysql);
    await again.root.query("INSERT INTO t VALUES (1)");
    const { place: to } = await openSnapshot(again.reader, server.mysql);
    const table: LogTable = { database: again.mysql.database, table: "t", column: 0, unsigned: false };
    assert.deepEqual([...(await readChanges(again.mysql, { table, from, to, most: 10 })).keys], [["1", 1]]);
  } finally {
    await again.close();
  }
});

test("for a MySQL without GTIDs the message says what to set", async (t) => {
  if (server.name !== "MySQL") return t.skip("MariaDB has no gtid_mode");
  const without = await openLogServer(["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"]);
  try {
    const message =
      /^Cannot follow the binary log of MySQL: gtid_mode is not ON; SET GLOBAL enforce_gtid_consistency = ON, then/;
    assert.match((await canReadLog(without.reader)) ?? "", message);
    await assert.rejects(openSnapshot(without.reader, server.mysql), { name: "UsageError", message });
  } finally {
    await without.close();
  }
});

test("foreign keys with cascades are found, because the log does not have their changes", async () => {
  const { reader, mysql: settings } = server;
  await sql("CREATE TABLE boards (id INT PRIMARY KEY)");
  await sql("ALTER TABLE pinterest_data ADD COLUMN board INT, ADD COLUMN owner INT");
  assert.deepEqual(await cascades(reader, "pin"), []);
  await sql("ALTER TABLE pinterest_data ADD CONSTRAINT of_owner FOREIGN KEY (owner) REFERENCES boards (id)");
  assert.deepEqual(await cascades(reader, "pin"), []);
  await sql(
    "ALTER TABLE pinterest_data ADD CONSTRAINT of_board FOREIGN KEY (board) REFERENCES boards (id) ON DELETE CASCADE",
  );
  assert.deepEqual(await cascades(reader, "pin"), [{ constraint: "of_board", parent: "boards" }]);
  await sql("INSERT INTO boards VALUES (1)");
  await sql("UPDATE pinterest_data SET board = 1 WHERE `index` < 5");
  const table = await logTable(reader, settings.database, "pin");
  const { place: from } = await openSnapshot(reader, server.mysql);
  await sql("DELETE FROM boards WHERE id = 1");
  const { place: to } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  const [[left]] = (await sql("SELECT COUNT(*) AS n FROM pinterest_data WHERE `index` < 5")) as unknown as [
    { n: number }[],
  ];
  assert.equal(left?.n, 0);
  assert.deepEqual([...(await readChanges(settings, { table, from, to, most: 10 })).keys], []);
});

test("the lag of a place is given in bytes and seconds, in the same file and in others", async () => {
  const { reader, mysql: settings } = server;
  const table: LogTable = { database: settings.database, table: "still", column: 0, unsigned: false };
  const { place: from } = await openSnapshot(reader, server.mysql);
  await sql("INSERT INTO still VALUES (10)");
  const { place: to } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  const { place } = await readChanges(settings, { table, from, to, most: 10 });
  assert.deepEqual(await logBehind(reader, place), { seconds: 0, bytes: 0, files: 0 });
  const unread = await logBehind(reader, from);
  assert.deepEqual(unread, { seconds: undefined, bytes: to.position - from.position, files: 0 });
  await sleep(1_100);
  await sql("INSERT INTO still VALUES (11)");
  const behind = await logBehind(reader, place);
  assert.ok(behind?.seconds && behind.seconds >= 1 && behind.bytes && behind.bytes > 0, JSON.stringify(behind));
  await sql("FLUSH BINARY LOGS");
  await sql("FLUSH BINARY LOGS");
  const [files] = (await sql("SHOW BINARY LOGS")) as unknown as [{ Log_name: string; File_size: number }[]];
  const since = files.filter((file) => file.Log_name >= place.file).reduce((sum, file) => sum + file.File_size, 0);
  const far = await logBehind(reader, place);
  assert.deepEqual({ bytes: far?.bytes, files: far?.files }, { bytes: since - place.position, files: 2 });
  assert.equal((await logBehind(reader, { ...place, file: "gone.000000" }))?.bytes, undefined);
});

test("the lag of a table begins at its next change, not at the place or at changes of other tables", async () => {
  const { reader, mysql: settings } = server;
  await sql("CREATE TABLE other (k INT PRIMARY KEY)");
  const hourAgo = Math.floor(Date.now() / 1_000) - 3_600;
  const { place } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  const user = { table: "user" as const, place: { ...place, time: hourAgo } };
  assert.deepEqual((await tableBehind(reader, settings, user)).lag, { seconds: 0, bytes: 0, files: 0 });
  await sql("INSERT INTO other VALUES (1)");
  await sql("FLUSH BINARY LOGS"); // as a restart of the server does
  await sql("UPDATE geolocation_data SET country = 'Chad' WHERE ind = 1");
  const quiet = await tableBehind(reader, settings, user);
  assert.deepEqual(quiet.lag, { seconds: 0, bytes: 0, files: 0 });
  assert.notEqual(quiet.seen.file, place.file);
  await sql("INSERT INTO user_data VALUES (900, 'A', 'B', 20, NULL)");
  await sleep(1_100);
  await sql("INSERT INTO other VALUES (2)");
  const { place: end } = await openSnapshot(reader, server.mysql);
  await reader.query("COMMIT");
  for (const from of [user.place, quiet.seen]) {
    const { lag, seen } = await tableBehind(reader, settings, { table: "user", place: from });
    assert.deepEqual(lag, { seconds: lag?.seconds, bytes: end.position - seen.position, files: 0 });
    assert.ok(lag?.seconds !== undefined && lag.seconds >= 1 && lag.seconds < 600, `${lag?.seconds}`);
    assert.equal(seen.file, quiet.seen.file);
    // MariaDB may write the checkpoint event of the new file in between.
    assert.ok([0, 40, 44].includes(seen.position - quiet.seen.position), `${seen.position - quiet.seen.position}`);
  }
  // After a change that no row names: the lag of the place itself.
  const { seen: before } = await tableBehind(reader, settings, { table: "geo", place: end });
  await sql("TRUNCATE geolocation_data");
  const { lag, seen } = await tableBehind(reader, settings, { table: "geo", place: before });
  assert.ok(lag?.bytes && lag.bytes > 0);
  assert.deepEqual(seen, before);
});
