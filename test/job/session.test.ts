/** The claim of the leading table, on a real broker. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Job } from "../../api/protocol.ts";
import { sendCheckpoint, sessionOpener } from "../../api/session.ts";
import { connectMysql, databaseId, inspectTable } from "../../db_conn.ts";
import { openProducer } from "../../kafka/producer.ts";
import { ensureTopics } from "../../kafka/topics.ts";
import { type SharedServices, shareServices } from "../support/services.ts";

let services: SharedServices;

before(async () => {
  services = await shareServices({ rows: 10, name: "session" });
});

after(() => services?.close());

test("a table waits for the leader's claim, whose commit is acknowledged before it is readable", async () => {
  const { mysql } = services;
  const kafka = { ...services.kafka, prefix: "claimed" };
  const db = await connectMysql(mysql);
  const leader = await openProducer(kafka, { transactionalId: "claimed.leader" });
  try {
    await ensureTopics(kafka);
    const database = await databaseId(db, mysql);
    const owner = (id: string) => ({ id, host: "here", pid: 1, started: "today" });
    const claim = (id: string, n: number) => {
      const fresh = { table: "pin" as const, database, lastKey: null, rows: 0, full: null, last: null };
      return { ...fresh, owner: owner(id), claim: n };
    };
    const earlier = await leader.begin();
    await sendCheckpoint(earlier, kafka, claim("earlier", 1));
    await earlier.commit();
    const current = await leader.begin();
    await sendCheckpoint(current, kafka, claim("current", 2));

    const job: Job = {
      kind: "post",
      table: "geo",
      owner: owner("current"),
      mysql,
      kafka,
      full: false,
      follow: false,
      waitMs: 0,
    };
    const open = sessionOpener({ job, maxMessageBytes: 1_000_000, signal: new AbortController().signal }, () => {});
    const opening = open(await inspectTable(db, mysql.database, "geo"), database);
    opening.catch(() => {}); // awaited below
    assert.equal(await Promise.race([opening.then(() => "opened"), sleep(500, "waits")]), "waits");
    await current.commit();
    const session = await opening;
    assert.deepEqual(session.checkpoint.owner, owner("current"));
    await session.producer.disconnect();
  } finally {
    await leader.disconnect();
    db.destroy();
  }
});
