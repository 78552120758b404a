/**
 * The faults while clients post: through the HTTP API, whose every response must be true, and by the emulation, which
 * must leave the same keys in all three topics.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { type Table, tableNames, tables } from "../../io.ts";
import type { RequestName } from "./proxy.ts";
import { foreignMessage, others } from "./sandbox.ts";
import { endedWell, type Fault, type Round } from "./strikes.ts";

/** The response to a client for a row: stored, not stored, or unknown. */
type Answer = { table: Table; ind: number; heard: "stored" | "not stored" | "unknown"; place?: string };

export const people: Record<string, Fault> = {
  "serve-struck": {
    text: "HTTP API: broker killed, connections cut, responses of the broker lost while rows are posted",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox({ rows: 500 });
      sandbox.isForeign = (key) => Number(key) >= firstInd;
      const work = sandbox.run(["serve", "--port", "0"]);
      await work.said(/Listening on \S+\n/);
      const url = /Listening on (\S+)/.exec(work.output())?.[1] as string;
      await untilReady(url);
      const answers: Answer[] = [];
      let posting = true;
      let turn = 0;
      const clients = Array.from({ length: 16 }, async (_, client) => {
        while (posting) {
          const table = tableNames[(turn + client) % 3] as Table;
          answers.push(await send(url, table, firstInd + turn++));
          await sleep(2);
        }
      });
      for (let i = 0; i < round.times(5); i++) {
        await strikeBroker(round, round.short ? 0 : i, () => `serve after ${answers.length} answers`);
      }
      await sleep(1_000);
      posting = false;
      await Promise.all(clients);
      work.kill("SIGTERM");
      await endedWell(round, work, [143]);
      const messages = await round.finish(sandbox);
      const places = new Map<string, string[]>();
      for (const table of tableNames) {
        for (const { key, partition, offset } of messages[table]) {
          const name = `${table} ${key}`;
          places.set(name, [...(places.get(name) ?? []), `${partition}/${offset}`]);
        }
      }
      for (const { table, ind, heard, place } of answers) {
        const found = places.get(`${table} ${ind}`) ?? [];
        const right = heard === "stored" ? found.join() === place : found.length === 0;
        if (heard === "unknown" ? found.length > 1 : !right)
          round.wrong(`Row ${ind} of ${table} was said to be ${heard} at ${place}, but is [${found}]`);
      }
      const count = (what: Answer["heard"]) => answers.filter(({ heard }) => heard === what).length;
      round.note(`${count("stored")} stored, ${count("not stored")} not stored, ${count("unknown")} unknown`);
      if (count("stored") === 0) round.wrong("No row was stored");
    },
  },

  drip: {
    text: "one small message at a time, all of one size, while clean --follow is sometimes killed",
    async round(round) {
      const sandbox = await round.sandbox({ rows: 500 });
      sandbox.isForeign = (key) => Number(key) >= firstInd;
      await sandbox.go(["post"]);
      const producer = others(round.services).producer({ allowAutoTopicCreation: false });
      await producer.connect();
      let dripping = true;
      let sent = 0;
      const drip = (async () => {
        while (dripping) {
          const ind = firstInd + sent++;
          for (const table of ["geo", "user"] as const) {
            const row = { ...(JSON.parse(foreignMessage(table, 0).value) as object), ind };
            const messages = [{ key: String(ind), value: JSON.stringify(row) }];
            await producer.send({ topic: `${sandbox.prefix}.${table}`, messages });
          }
          await sleep(120);
        }
      })();
      for (let i = 0; i < round.times(5); i++) {
        const work = sandbox.run(["clean", "--follow"]);
        const failed = work.done.then(() => work.over());
        await Promise.race([sleep(round.short ? 10_000 : 60_000), failed]);
        round.hit("SIGKILL of the program", work.over() ? undefined : `clean --follow after ${sent} messages`);
        work.kill("SIGKILL");
        await endedWell(round, work, [null]);
      }
      dripping = false;
      await drip;
      await producer.disconnect();
      await round.finishLake(sandbox);
    },
  },

  "emulate-struck": {
    text: "emulation: killed, and its broker killed, connections cut, responses of the broker lost",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox({ rows: round.between(2_000, 5_000) });
      let sure = 0;
      let most = 0;
      for (let i = 0; i < round.times(4); i++) {
        const work = sandbox.run(["emulate", "--rate", "300/s", "--limit", String(limit)]);
        await work.said(/Using /);
        await sleep(1_500 + round.random() * 1_000);
        const place = () => (work.over() ? undefined : "emulate");
        if (i % 2 === 0) await strikeBroker(round, i === 0 ? 0 : round.between(1, 4), place);
        else {
          round.hit("SIGKILL of the program", place());
          work.kill("SIGKILL");
        }
        const { code, stderr } = await work.done;
        most += limit;
        if (code === 0) sure += limit;
        else if (code !== null && !/Cannot know whether/.test(stderr))
          round.wrong(`emulate ended with ${code}: ${stderr}`);
      }
      const messages = await round.finishLake(sandbox);
      const [pin = [], ...others] = tableNames.map((table) => messages[table].map(({ key }) => String(key)).sort());
      if (others.some((keys) => keys.join() !== pin.join())) round.wrong("The three topics hold different keys");
      if (pin.length < sure || pin.length > most)
        round.wrong(`${pin.length} posts are there, but ${sure} to ${most} were made`);
    },
  },
};

/** The first key above all sample posts; rows from here on come from clients. */
const firstInd = 60_000_000;
/** Posts of one emulation. */
const limit = 1_500;

/** Injects faults between the program and its transactions. `place` names what is running, if anything is. */
async function strikeBroker(round: Round, which: number, place: () => string | undefined): Promise<void> {
  const { broker, proxy } = round.services;
  const lose = (request: RequestName, how: "cut" | "hang") => async () => {
    await Promise.race([proxy.loseAnswer(request, 1, how), sleep(5_000)]);
  };
  const kill = async () => {
    await broker.stop("SIGKILL");
    await broker.start();
  };
  const [what, action] = (
    [
      ["answer to EndTxn lost", lose("EndTxn", "cut")],
      ["SIGKILL of the broker", kill],
      ["all connections cut", async () => void proxy.cut()],
      ["answer to Produce lost", lose("Produce", "cut")],
      ["answer to EndTxn never comes", lose("EndTxn", "hang")],
    ] as const
  )[which % 5] as readonly [string, () => Promise<void>];
  round.hit(what, place());
  await action();
  await sleep(500 + round.random() * 2_000);
}

async function untilReady(url: string): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    if ((await fetch(`${url}/readyz`)).ok) return;
    await sleep(100);
  }
  throw new Error("serve did not become ready");
}

async function send(url: string, table: Table, ind: number): Promise<Answer> {
  const row = JSON.parse(foreignMessage(table, 0).value) as Record<string, unknown>;
  const response = await fetch(`${url}/send-data`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ topic_name: table, data: { ...row, [tables[table].key]: ind } }),
  });
  const body = (await response.json()) as { offsets?: { partition: number; offset: number }[]; message?: string };
  const [at] = body.offsets ?? [];
  if (response.status === 200) return { table, ind, heard: "stored", place: `${at?.partition}/${at?.offset}` };
  const known = /Nothing was stored|nothing was stored/.test(JSON.stringify(body));
  return { table, ind, heard: known ? "not stored" : "unknown" };
}
