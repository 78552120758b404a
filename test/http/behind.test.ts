/** How far each table is behind MySQL: by status, the HTTP API and the metrics. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { connectMysql } from "../../db_conn.ts";
import { byTable, type Table } from "../../io.ts";
import type { TableStatus } from "../../report/status.ts";
import { openClient, startServer } from "../support/http_api.ts";
import { shareServices } from "../support/services.ts";
import { ok, run } from "../support/support.ts";

test("status, the HTTP API and the metrics report how far each table is behind MySQL", async () => {
  const services = await shareServices({ rows: 20, name: "behind" });
  const at = [...services.at, "--prefix", "behind"];
  const db = await connectMysql(services.mysql);
  const { server, url } = await startServer(at);
  try {
    const { ask } = await openClient(url);
    const look = async () => {
      const said = /^ {2}behind MySQL +(.*)/m.exec(ok(await run(["status", ...at])).stdout)?.[1]?.split(/ {2,}/);
      const json = JSON.parse(ok(await run(["status", ...at, "--json"])).stdout) as Record<Table, TableStatus>;
      await sleep(1_000); // the server's snapshot may be as old as that
      const { tables: live } = (await ask("/status")).body as { tables: Record<Table, TableStatus> };
      const { text: metrics } = await ask("/metrics");
      const gauge = (unit: string, table: Table) =>
        new RegExp(`^pipeline_behind_${unit}{table="${table}"} (\\d+)$`, "m").exec(metrics)?.[1];
      return byTable((table, i) => ({
        said: said?.[i],
        ...{ json: json[table].behind, live: live[table].behind },
        gauges: [gauge("seconds", table), gauge("bytes", table)],
      }));
    };
    const none = { said: "-", json: null, live: null, gauges: [undefined, undefined] };
    assert.deepEqual(
      await look(),
      byTable(() => none),
    );
    ok(await run(["post", ...at]));
    const zero = { seconds: 0, bytes: 0, files: 0 };
    const even = { said: "0 s", json: zero, live: zero, gauges: ["0", "0"] };
    assert.deepEqual(
      await look(),
      byTable(() => even),
    );
    await db.query("UPDATE user_data SET age = age + 1 WHERE ind < 5");
    await sleep(1_100);
    const { user, ...others } = await look();
    assert.match(user.said ?? "", /^[1-9]\d* s, \d+ (bytes|kB)$/);
    for (const found of [user.json, user.live]) assert.ok(found?.seconds && found.bytes, JSON.stringify(found));
    assert.ok(
      user.gauges.every((value) => Number(value) > 0),
      String(user.gauges),
    );
    // A write to another table does not put them behind.
    assert.deepEqual(others, { pin: even, geo: even });
    ok(await run(["post", ...at]));
    assert.deepEqual(
      await look(),
      byTable(() => even),
    );
  } finally {
    db.destroy();
    server.kill("SIGTERM");
    await server.done;
    await services.close();
  }
});
