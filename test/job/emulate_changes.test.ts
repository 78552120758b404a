/** `emulate --changes` changes rows of the embedded database as users would, and refuses other databases. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { isTransientMysql } from "../../db_conn/errors.ts";
import { logTable, readChanges } from "../../db_conn/log.ts";
import { ask, type Database } from "../../db_conn/query.ts";
import { openSnapshot } from "../../db_conn/snapshot.ts";
import { connectMysql, type MysqlSettings } from "../../db_conn.ts";
import { byTableInTurn, type Row, type Table, tableNames, tables } from "../../io.ts";
import { type ChangeFact, changeRows, type Session } from "../../local/sample/changes.ts";
import { loadSample } from "../../local/sample/load.ts";
import { openLogServer } from "../support/log_server.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, start } from "../support/support.ts";

let services: SharedServices;
let db: Database;

before(async () => {
  services = await shareServices({ rows: 300, name: "emulate_changes" });
  db = await connectMysql(services.mysql);
});
after(async () => {
  db?.destroy();
  await services?.close();
});

const changing = (...args: string[]) => ["emulate", "--changes", ...services.at, ...args];

/** All rows of the tables, by table and key. */
const allRows = (from: Database) =>
  byTableInTurn(async (table) => {
    const rows = await ask(from, `SELECT * FROM ${tables[table].source}`);
    return new Map(rows.map((row) => [row[0] as string, row]));
  });

/** The keys of rows that differ. */
const differing = (a: Map<string, Row>, b: Map<string, Row>) =>
  new Set([...a.keys(), ...b.keys()].filter((key) => String(a.get(key)) !== String(b.get(key))));

/** Runs something. Returns by table the keys that changed in the log, with the change of their number of rows. */
async function loggedWhile(action: () => Promise<void>): Promise<Record<Table, Map<string, number>>> {
  const { place: from } = await openSnapshot(db, services.mysql);
  await db.query("COMMIT");
  await action();
  const { place: to } = await openSnapshot(db, services.mysql);
  await db.query("COMMIT");
  const { mysql } = services;
  return byTableInTurn(async (name) => {
    const table = await logTable(db, mysql.database, name);
    return (await readChanges(mysql, { table, from, to, most: 10_000 })).keys;
  });
}

test("each change is printed on a line, was made in the rows, and is in the log", async () => {
  const earlier = await allRows(db);
  let lines: string[] = [];
  const logged = await loggedWhile(async () => {
    const { stdout, stderr } = ok(await run(changing("--seed", "7", "--limit", "150", "--rate", "2000/s")));
    assert.match(stderr, /^emulate 150 changes of \d+ rows: \d+ inserted, \d+ updated, \d+ deleted in /m);
    lines = stdout.trim().split("\n");
  });
  const later = await allRows(db);
  assert.equal(lines.length, 150);
  const printed = lines.map(
    (line) => /^change {2}(\w+) (\d+) (inserted|updated|deleted)(?: \((.*)\))?$/.exec(line) ?? [],
  );
  assert.deepEqual(new Set(printed.map(([, , , kind]) => kind)), new Set(["inserted", "updated", "deleted"]));
  for (const table of tableNames) {
    const keys = new Set(printed.filter(([, what]) => what === table || what === "post").map(([, , key]) => key));
    assert.deepEqual(new Set(logged[table].keys()), keys);
    const changed = differing(earlier[table], later[table]);
    assert.ok(changed.size > 20);
    assert.ok([...changed].every((key) => keys.has(key)));
    for (const [key, more] of logged[table]) {
      assert.equal(more, Number(later[table].has(key)) - Number(earlier[table].has(key)), `${table} ${key}`);
    }
  }
  const birthdays = printed.filter(([, what, , , text]) => what === "user" && text?.startsWith("age "));
  assert.ok(birthdays.length > 0);
  for (const [, , key = "", , text = ""] of birthdays) {
    const [, from, to] = /^age (\d+) -> (\d+)$/.exec(text) ?? [];
    assert.equal(Number(to), Number(from) + 1, `${key} ${text}`);
  }
  const keys = printed.filter(([, , , kind]) => kind === "inserted").map(([, , key]) => Number(key));
  assert.ok(keys.some((key) => key < 300) && keys.some((key) => key >= 300), String(keys));
});

test("--json counts the changed rows by table, and all of them are clean", async () => {
  const countAll = () => byTableInTurn(async (table) => Number((await ask(db, countOf(table)))[0]?.[0]));
  const countOf = (table: Table) => `SELECT COUNT(*) FROM ${tables[table].source}`;
  const earlier = await countAll();
  const args = ["--seed", "8", "--limit", "200", "--rate", "2000/s", "--json"];
  const { seed, changes, inserted, updated, deleted } = JSON.parse(ok(await run(changing(...args))).stdout) as Record<
    "seed" | "changes",
    number
  > &
    Record<"inserted" | "updated" | "deleted", Record<Table, number>>;
  assert.deepEqual([seed, changes], [8, 200]);
  const later = await countAll();
  for (const table of tableNames) assert.equal(later[table] - earlier[table], inserted[table] - deleted[table]);
  // A post is inserted and deleted in all tables; an update is of one row.
  assert.equal(inserted.pin + deleted.pin + updated.pin + updated.geo + updated.user, 200);
  for (const counts of [inserted, deleted]) assert.deepEqual([counts.geo, counts.user], [counts.pin, counts.pin]);
  assert.ok([inserted.pin, deleted.pin, updated.pin, updated.user].every((n) => n > 0));
  ok(await run(["post", ...services.at, "--prefix", "emulate_changes", "--quiet"]));
  ok(await run(["clean", ...services.at, "--prefix", "emulate_changes", "--quiet"]));
});

test("when stopped it has committed what it printed, and exits with 143", async () => {
  const earlier = await allRows(db);
  const running = start(changing("--rate", "500/s"));
  await running.said(/inserted/);
  running.kill("SIGTERM");
  const { code, stdout, stderr } = await running.done;
  assert.equal(code, 143, stderr);
  const later = await allRows(db);
  for (const table of tableNames) {
    const keys = new Set([...stdout.matchAll(new RegExp(`(?:${table}|post) (\\d+) `, "g"))].map(([, key]) => key));
    assert.ok([...differing(earlier[table], later[table])].every((key) => keys.has(key)));
  }
});

/** Changes rows of a new database of 300 posts. Returns its rows and the events. */
async function changeAnother(name: string, { seed = 1, disturb = (session: Session) => session } = {}) {
  const mysql = { ...services.mysql, database: `pinterest_emulate_changes_${name}` };
  await db.query(`CREATE DATABASE ${mysql.database} CHARACTER SET utf8mb4`);
  await loadSample(mysql, { rows: 300 });
  const facts: ChangeFact[] = [];
  const onFact = (fact: ChangeFact) => void facts.push(fact);
  const retrying = { waitMs: 10_000, signal: new AbortController().signal, isTransient: isTransientMysql };
  const connect = async () => disturb(await open(mysql));
  const result = await changeRows({ connect, seed, limit: 120, rate: 10_000, retrying, onFact });
  const other = await connectMysql(mysql);
  const rows = await allRows(other);
  other.destroy();
  return { rows, result, changes: facts.flatMap((fact) => (fact.fact === "changed" ? [fact.changes] : [])) };
}

async function open(mysql: MysqlSettings): Promise<Session> {
  const connection = await connectMysql(mysql);
  return { query: (sql, values = []) => ask(connection, sql, { values }), destroy: () => connection.destroy() };
}

test("the same seed gives the same changes, also over lost connections; some transactions have several", async () => {
  const one = await changeAnother("one");
  const other = await changeAnother("other", { seed: 2 });
  let statements = 0;
  let lost = 0;
  const two = await changeAnother("two", {
    disturb: ({ query, destroy }) => ({
      async query(sql, values) {
        const result = await query(sql, values);
        if (++statements % 100 !== 0 || sql === "COMMIT") return result;
        lost++;
        destroy();
        throw Object.assign(new Error("lost"), { code: "ECONNRESET" });
      },
      destroy,
    }),
  });
  assert.ok(lost > 2);
  assert.deepEqual(two, one);
  assert.notDeepEqual(other.rows, one.rows);
  const sizes = new Set(one.changes.map((changes) => changes.length));
  assert.ok(sizes.has(1) && sizes.size > 2, String([...sizes]));
});

test("it ends with an error if a commit is not answered, because a retry could duplicate the changes", async () => {
  const disturb = ({ query, destroy }: Session): Session => ({
    async query(sql, values) {
      const result = await query(sql, values);
      if (sql === "COMMIT") throw Object.assign(new Error("lost"), { code: "ECONNRESET" });
      return result;
    },
    destroy,
  });
  await assert.rejects(
    changeAnother("unknown", { disturb }),
    /^Error: Cannot know whether these changes were committed: .* (inserted|updated|deleted).*[.] lost$/,
  );
});

test("two concurrent runs do not disturb each other", async () => {
  const args = ["--limit", "300", "--rate", "5000/s", "--json"];
  const results = await Promise.all([run(changing(...args)), run(changing(...args))]);
  for (const result of results) assert.equal((JSON.parse(ok(result).stdout) as { changes: number }).changes, 300);
});

test("a database that the program did not create is refused by its tables or its server", async () => {
  const refusal = /Cannot change rows in a database that this program did not create: /;
  const [[comment = ""] = []] = await ask(
    db,
    "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME = 'user_data'",
  );
  const mark = (text: string | null) => db.query("ALTER TABLE user_data COMMENT = ?", [text]);
  const earlier = await allRows(db);
  await mark("people");
  try {
    const { code, stderr } = await run(changing("--limit", "5", "--rate", "100/s"));
    assert.deepEqual([code, refusal.test(stderr)], [2, true], stderr);
  } finally {
    await mark(comment);
  }
  assert.deepEqual(await allRows(db), earlier);
  const server = await openLogServer(["--report-host=db.example"]);
  try {
    await loadSample(server.mysql, { rows: 10 });
    const retrying = { waitMs: 0, signal: new AbortController().signal, isTransient: isTransientMysql };
    const connect = () => open(server.mysql);
    await assert.rejects(changeRows({ connect, seed: 1, limit: 5, rate: 100, retrying, onFact: () => {} }), refusal);
    assert.deepEqual(await ask(server.reader, "SELECT COUNT(*), MAX(age) <= 60 FROM user_data"), [["10", "1"]]);
  } finally {
    await server.close();
  }
});
