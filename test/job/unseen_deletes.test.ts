/** Rows that silver holds and MySQL no longer does: `status` and `report` warn about them, and about nothing else. */
import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Connection } from "mysql2/promise";
import { connectMysql } from "../../db_conn.ts";
import { tables } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { ok, run } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let services: SharedServices;
let db: Connection;
let at: string[];

const rows = 30;

before(async () => {
  services = await shareServices({ rows, name: "unseen" });
  db = (await connectMysql(services.mysql)) as unknown as Connection;
  await db.query("CREATE DATABASE pinterest_views");
  for (const { source } of Object.values(tables)) {
    await db.query(`CREATE TABLE pinterest_views.kept_${source} AS SELECT * FROM ${source}`);
    // The log does not show the changes of a view.
    await db.query(`CREATE VIEW pinterest_views.${source} AS SELECT * FROM pinterest_views.kept_${source}`);
  }
  const path = join(services.folder.path, "unseen.yaml");
  const text = (await readFile(services.creds, "utf8")).replace(/DATABASE: .*/, "DATABASE: pinterest_views");
  await writeFile(path, text, { mode: 0o600 });
  at = ["--creds", path, "--prefix", "unseen", "--data", services.data];
});
after(async () => {
  await db?.end();
  await services?.close();
});

/** Posts and cleans; returns the warnings of `status` and `report`, which must be the same. */
async function warnings({ full = false, code = 0 } = {}): Promise<string[]> {
  ok(await run(["post", ...at, ...(full ? ["--full"] : [])]));
  ok(await run(["clean", ...at]), code);
  const found = [];
  for (const command of ["status", "report"]) {
    const { stderr } = ok(await run([command, ...at]));
    found.push(stderr.split("\n").filter((line) => line.startsWith("Warning: Silver")));
  }
  assert.deepEqual(found[1], found[0]);
  return found[0] as string[];
}

test("rejects and rows of other producers are no rows that MySQL lost", async () => {
  await db.query("UPDATE pinterest_views.kept_user_data SET age = 131 WHERE ind IN (1, 2, 3)");
  assert.deepEqual(await warnings({ code: 3 }), []);
  const producer = kafkaClient(services.kafka).producer();
  await producer.connect();
  const messages = [5, 1000, 1001, 1002, 1003].map((ind) => ({
    ...{ key: String(ind), value: JSON.stringify(validRow("geo", ind)) },
  }));
  await producer.send({ topic: "unseen.geo", messages });
  await producer.disconnect();
  assert.deepEqual(await warnings(), []);
});

test("rows deleted without the log are counted, until post --full has posted their deletes", async () => {
  for (const { source, key } of Object.values(tables)) {
    await db.query(`DELETE FROM pinterest_views.kept_${source} WHERE \`${key}\` BETWEEN 10 AND 14`);
  }
  const warning = (rows: number, table: string) =>
    `Warning: Silver holds ${rows} or more rows of "${table}" that MySQL no longer has, because they were deleted without its log: run post --full, then clean, which remove them`;
  // Of user, three rows were rejected, which may be among those that are deleted.
  assert.deepEqual(await warnings(), [warning(5, "pin"), warning(5, "geo"), warning(2, "user")]);
  assert.deepEqual(await warnings({ full: true, code: 3 }), []);
});
