/**
 * A fourth table takes one entry in `io.ts` and one SQL file: a copy of the program gets both, and uses topics and a lake
 * that the program with three tables has created.
 */

import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import type { Connection } from "mysql2/promise";
import { connectMysql } from "../../db_conn.ts";
import type { Snapshot } from "../../http/live.ts";
import { connectReader } from "../../kafka/client.ts";
import { listOffsets } from "../../kafka/topics.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { copyProgram, ledgerColumn, ok, query, run, start } from "../support/support.ts";

// In the middle: the order of the entries must not matter to existing checkpoints.
const entry = `  board: {
    source: "board_data",
    key: "ind",
    checkpointPartition: 3,
    label: "Boards",
    view: "boards",
    columns: { ind: "int", board_name: "text", followers: "text", created: "datetime" },
  },
`;

const sql = `-- Every message of the board topic as a row of silver.
WITH parsed AS (
  SELECT *, message_fields(value_is, value, 'ind, board_name, followers, created') AS f
  FROM bronze
),

cleaned AS (
  SELECT *,
    whole_number(f.ind) AS ind,
    trim_text(f.board_name) AS board_name,
    whole_number(f.followers) AS followers,
    instant_of(f.created) AS created,
    missing_columns(f, value_is, value, 'ind, board_name, followers, created') AS missing
  FROM parsed
),

judged AS (
  SELECT *,
    coalesce(message_fault(f, value_is, value, missing, ind), CASE
      WHEN f.followers IS NOT NULL AND followers IS NULL THEN 'bad_followers'
      WHEN f.created IS NOT NULL AND created IS NULL THEN 'bad_timestamp'
    END) AS reject_reason
  FROM cleaned
)

SELECT
  ind, board_name, followers, created, _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE reject_reason
    WHEN 'bad_key' THEN 'ind: ' || coalesce(f.ind, 'null')
    WHEN 'bad_followers' THEN 'followers: ' || f.followers
    WHEN 'bad_timestamp' THEN 'created: ' || f.created
    ELSE message_detail(reject_reason, value_is, value, missing)
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
`;

const posts = 12;
const prefix = "grown";

let services: SharedServices;
let program: string[];
let folder: string;
let at: string[];

/** Runs the program with three tables, or the copy with four. */
const three = (command: string, ...more: string[]) => run([command, ...at, ...more]);
const four = (command: string, ...more: string[]) => run([command, ...at, ...more], { program });

const sums = ["messages", "= clean", "+ superseded", "+ deleted", "+ rejected", "balanced"];
const checkpointPartitions = async () => {
  await using reader = await connectReader(services.kafka);
  return (await listOffsets(reader, `${prefix}.checkpoints`))?.length;
};

before(async () => {
  services = await shareServices({ rows: posts, name: "grown" });
  at = [...services.at, "--prefix", prefix];
  ok(await three("post"));
  ok(await three("clean"));
  assert.equal(await checkpointPartitions(), 3);
  const db = (await connectMysql(services.mysql)) as unknown as Connection;
  await db.query(
    "CREATE TABLE board_data (ind int PRIMARY KEY, board_name text, followers varchar(16), created datetime)",
  );
  const rows = Array.from({ length: posts }, (_, ind) => [
    ...[ind, ` Board ${ind}`, ind === 3 ? "many" : String(10 * ind), "2020-01-02 03:04:05"],
  ]);
  await db.query("INSERT INTO board_data VALUES ?", [rows]);
  await db.end();
  folder = join(services.folder.path, "program with four tables");
  program = await copyProgram(folder);
  const file = join(folder, "io.ts");
  const text = await readFile(file, "utf8");
  const user = "  user: {\n";
  assert.ok(text.includes(user));
  await writeFile(file, text.replace(user, entry + user));
  await writeFile(join(folder, "sql", "clean_board.sql"), sql);
});
after(() => services?.close());

test("an entry for a fourth table causes no type error", () => {
  const tsc = new URL("../../node_modules/typescript/bin/tsc", import.meta.url).pathname;
  const { status, stdout } = spawnSync(process.execPath, [tsc], { cwd: folder, encoding: "utf8" });
  assert.equal(status, 0, stdout);
});

test("post adds the partition for its checkpoint, and posts only the fourth table", async () => {
  const { posted } = JSON.parse(ok(await four("post", "--json", "--wait", "20")).stdout) as { posted: unknown };
  assert.deepEqual(posted, [
    { table: "pin", rows: 0, deleted: 0, lastKey: String(posts - 1) },
    { table: "geo", rows: 0, deleted: 0, lastKey: String(posts - 1) },
    { table: "board", rows: posts, deleted: 0, lastKey: String(posts - 1) },
    { table: "user", rows: 0, deleted: 0, lastKey: String(posts - 1) },
  ]);
  assert.equal(await checkpointPartitions(), 4);
  const [first] = await readTopic(services.kafka, `${prefix}.board`);
  assert.equal(
    String(first?.value),
    '{"ind":0,"board_name":" Board 0","followers":"0","created":"2020-01-02 03:04:05"}',
  );
  // The program with three tables continues to work.
  ok(await three("post"));
});

test("clean brings it to bronze, silver, rejects and ledger, also with --rebuild", async () => {
  const { stdout } = ok(await four("clean"), 3);
  assert.deepEqual(ledgerColumn(stdout, "board", sums), [`${posts}`, `${posts - 1}`, "0", "0", "1", "yes"]);
  const silver = `${services.data}/lake/silver/board/*.parquet`;
  const read = () =>
    query(`SELECT ind, board_name, followers, created::VARCHAR AS created FROM '${silver}' ORDER BY ind`);
  const rows = await read();
  assert.equal(rows.length, posts - 1);
  assert.deepEqual(rows[1], { ind: 1n, board_name: "Board 1", followers: 10n, created: "2020-01-02 03:04:05+00" });
  ok(await run(["clean", "--rebuild", "--data", services.data, "--quiet"], { program }));
  assert.deepEqual(await read(), rows);
});

test("status and report show it", async () => {
  const found = JSON.parse(ok(await four("status", "--json")).stdout) as Record<string, Record<string, unknown>>;
  assert.deepEqual(Object.keys(found), ["pin", "geo", "board", "user"]);
  const { label, in_mysql, posted, last_key, lag, clean, rejected, reasons, balanced } = found.board ?? {};
  assert.deepEqual(
    { label, in_mysql, posted, last_key, lag, clean, rejected, reasons, balanced },
    {
      ...{ label: "Boards", in_mysql: posts, posted: posts, last_key: String(posts - 1), lag: 0 },
      ...{ clean: posts - 1, rejected: 1, reasons: { bad_followers: 1 }, balanced: true },
    },
  );
  // An answer can read the view of the new table.
  const matches = join(folder, "sql", "matches.sql");
  const text = await readFile(matches, "utf8");
  await writeFile(
    matches,
    text.replace("FROM pin LEFT", "FROM (FROM pin WHERE ind IN (SELECT ind FROM boards)) AS pin LEFT"),
  );
  assert.deepEqual(
    ledgerColumn(ok(await four("report")).stdout, "board", ["rows in MySQL", "rows posted", "behind MySQL", ...sums]),
    [...[`${posts}`, `${posts}`, "0 s"], ...[`${posts}`, `${posts - 1}`, "0", "0", "1", "yes"]],
  );
  const ledger = await query(`SELECT "table", messages FROM '${services.data}/lake/gold/ledger.parquet'`);
  assert.deepEqual(
    ledger.map((row) => row.table),
    ["pin", "geo", "board", "user"],
  );
  const [{ pins } = {}] = await query(`SELECT pins FROM '${services.data}/lake/gold/matches.parquet'`);
  assert.equal(pins, BigInt(posts - 1));
});

test("serve shows it, and the latest posts keep the names of people", async () => {
  const server = start(["serve", ...at, "--port", "0"], { program });
  try {
    await server.said(/Listening on \S+\n/);
    const url = /Listening on (\S+)/.exec(server.output())?.[1] as string;
    const get = async (path: string) => (await fetch(`${url}${path}`)).text();
    const { tables, posts: latest } = JSON.parse(await get("/status")) as Snapshot;
    assert.deepEqual(
      Object.entries(tables ?? {}).map(([table, { label, clean }]) => [table, label, clean]),
      [
        ["pin", "Posts", posts],
        ["geo", "Places", posts],
        ["board", "Boards", posts - 1],
        ["user", "People", posts],
      ],
    );
    assert.equal(latest.length, posts);
    for (const { user } of latest) assert.match(user ?? "none", / /);
    assert.match(await get("/metrics"), /pipeline_\w+\{table="board"/);
    assert.match(await get("/openapi.json"), /board: ind, board_name, followers, created/);
    const { rejects } = JSON.parse(await get("/rejects?table=board")) as { rejects: { reason: string }[] };
    assert.deepEqual(
      rejects.map(({ reason }) => reason),
      ["bad_followers"],
    );
    const sent = await fetch(`${url}/send-data`, {
      ...{ method: "POST", headers: { "content-type": "application/json" } },
      body: JSON.stringify({ topic_name: "board", data: { ind: 99, board_name: "x", followers: null, created: null } }),
    });
    assert.equal(sent.status, 200);
  } finally {
    server.kill("SIGTERM");
    await server.done;
  }
});

test("explore and emulate read it, and the sample data does not have it", async () => {
  const explored = JSON.parse(ok(await four("explore", "--index", "1", "--json")).stdout) as Record<string, unknown>;
  assert.deepEqual(explored.board_result, {
    ind: 1,
    board_name: " Board 1",
    followers: "10",
    created: "2020-01-02 03:04:05",
  });
  const { stdout } = ok(await four("emulate", "--limit", "2", "--rate", "100/s"));
  assert.equal(stdout.match(/^board_result \{"ind":/gm)?.length, 2);
  const url = pathToFileURL(join(folder, "local/sample/load.ts")).href;
  const { loadSample }: typeof import("../../local/sample/load.ts") = await import(url);
  assert.equal(await loadSample(services.mysql, { rows: posts + 1 }), posts + 1);
});
