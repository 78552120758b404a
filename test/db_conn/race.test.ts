/** Checks that a snapshot shows everything in the log before its place, while many sessions write and files rotate. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import mysql from "mysql2/promise";
import { readChanges } from "../../db_conn/log.ts";
import type { LogTable } from "../../db_conn/log_rows.ts";
import { ask } from "../../db_conn/query.ts";
import { openSnapshot } from "../../db_conn/snapshot.ts";
import { type LogServer, openLogServer } from "../support/log_server.ts";

let server: LogServer;
before(async () => {
  server = await openLogServer();
  const { root } = server;
  await root.query("CREATE TABLE digits (d INT PRIMARY KEY)");
  await root.query("INSERT INTO digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)");
});
after(() => server?.close());

/** Existing rows, to be deleted. New ones get greater keys. */
const old = 100_000;

/** Lets `count` sessions insert new rows and delete old ones, one row per transaction, until it is stopped. */
function startWriters(count: number): { stop: () => Promise<void> } {
  let [inserted, deleted, going] = [old, 0, true];
  const write = async () => {
    const db = await mysql.createConnection(server.mysql);
    while (going) {
      if (deleted < old && Math.random() < 0.5) await db.query(`DELETE FROM race WHERE k = ${deleted++}`);
      else await db.query(`INSERT INTO race VALUES (${inserted++})`);
    }
    db.destroy();
  };
  const writers = Array.from({ length: count }, write);
  const stop = async () => {
    going = false;
    await Promise.all(writers);
  };
  return { stop };
}

/** Opens snapshots beside 8 writers for 5 s. Returns counts. */
async function race(fileSize: number) {
  const { reader, root, mysql: settings } = server;
  const table: LogTable = { database: settings.database, table: "race", column: 0, unsigned: false };
  await root.query(`SET GLOBAL max_binlog_size = ${fileSize}`);
  await root.query("DROP TABLE IF EXISTS race");
  await root.query("CREATE TABLE race (k INT PRIMARY KEY)");
  const numbers = "a.d + 10*b.d + 100*c.d + 1000*e.d + 10000*f.d";
  await root.query(`INSERT INTO race SELECT ${numbers} FROM digits a, digits b, digits c, digits e, digits f`);
  let { place } = await openSnapshot(reader, settings);
  const files = new Set<string>();
  let [rounds, locked, read, stale] = [0, 0, 0, 0];
  const writers = startWriters(8);
  const until = Date.now() + 5_000;
  try {
    while (Date.now() < until) {
      const { place: to, mustLock } = await openSnapshot(reader, settings);
      const changes = await readChanges(settings, { table, from: place, to, most: 1_000_000 });
      const keys = [...changes.keys.keys()];
      const sql = `SELECT k FROM race WHERE k IN (?)${mustLock ? " LOCK IN SHARE MODE" : ""}`;
      const rows = keys.length > 0 ? await ask(reader, sql, { values: [keys] }) : [];
      await reader.query("COMMIT");
      const there = new Set(rows.map(([key]) => key));
      for (const [key, more] of changes.keys) if (there.has(key) !== more > 0) stale++;
      place = changes.place;
      files.add(to.file);
      rounds++;
      read += keys.length;
      if (mustLock) locked++;
    }
  } finally {
    await writers.stop();
  }
  return { rounds, locked, read, files: files.size, stale };
}

test("a snapshot shows everything in the log before its place: 5 s of 8 writers, with a new file every 4 kB", async (t) => {
  const happened = await race(4_096);
  t.diagnostic(JSON.stringify(happened));
  assert.ok(happened.rounds > 10 && happened.files > 10 && happened.read > 500, JSON.stringify(happened));
  assert.equal(happened.stale, 0, `${happened.stale} of ${happened.read} rows`);
});

test("the same with several snapshots per file, most of which need no locks", async (t) => {
  const happened = await race(262_144);
  t.diagnostic(JSON.stringify(happened));
  const { rounds, locked, files, read, stale } = happened;
  assert.ok(rounds - locked > 10 && files > 1 && read > 500, JSON.stringify(happened));
  assert.equal(stale, 0, `${stale} of ${read} rows`);
});
