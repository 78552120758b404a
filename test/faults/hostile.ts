/**
 * Malicious input, which must end in rejects or clear errors with bounded memory.
 *
 * @module
 */

import { readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { foreignMessage, others, type Sandbox, type Work } from "./sandbox.ts";
import type { Fault, Round } from "./strikes.ts";

/** Memory bound, bytes: Node's 150 MB, DuckDB's limit, and several copies of the largest message. */
const memoryBound = 2_000_000_000;

type Messages = { key: Buffer | string | null; value: Buffer | string | null }[];

const other = (number: number, value: Buffer | string | null) => ({ key: `other bad ${number}`, value });

/** Messages of a request, at most: kafkajs groups them by partition in quadratic time. */
const messagesAtOnce = 1_000;

/** Sends messages in requests that the broker accepts. */
async function send(round: Round, topic: string, messages: Messages): Promise<void> {
  const producer = others(round.services).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  let some: Messages = [];
  let bytes = 0;
  const flush = async () => {
    const request = { topic, messages: some as { key: Buffer; value: Buffer }[] };
    if (some.length > 0) await producer.send(request);
    [some, bytes] = [[], 0];
  };
  for (const message of messages) {
    const size = 100 + (message.value?.length ?? 0);
    if (bytes + size > 5_000_000 || some.length === messagesAtOnce) await flush();
    some.push(message);
    bytes += size;
  }
  await flush();
  await producer.disconnect();
}

/** The peak memory of a program, bytes, after it has ended. */
async function peakMemory(work: Work): Promise<number> {
  let peak = 0;
  while (!work.over()) {
    try {
      const found = /VmHWM:\s+(\d+) kB/.exec(readFileSync(`/proc/${work.pid}/status`, "utf8"));
      peak = Math.max(peak, Number(found?.[1] ?? 0) * 1024);
    } catch {
      // it has just ended
    }
    await sleep(100);
  }
  return peak;
}

/** Cleans with bounded memory, and compares. */
async function cleanAll(round: Round, sandbox: Sandbox, what: string): Promise<void> {
  const work = sandbox.run(["clean"]);
  const peak = await peakMemory(work);
  const { code, stderr } = await work.done;
  const megabytes = Math.round(peak / 1e6);
  const good = code === 3 && peak < memoryBound;
  round.hit(what, good ? `clean, with ${megabytes} MB` : undefined);
  if (!good) round.wrong(`${what}: clean ended with ${code} and used ${megabytes} MB: ${stderr.slice(-600)}`);
  await round.finishLake(sandbox, { readAgain: true });
}

/** Creates the topics of this round with special settings. */
async function makeTopics(round: Round, sandbox: Sandbox, configs: Record<string, string>): Promise<void> {
  const admin = others(round.services).admin();
  await admin.connect();
  const configEntries = Object.entries(configs).map(([name, value]) => ({ name, value }));
  const topics = ["pin", "geo", "user"].map((table) => ({ topic: `${sandbox.prefix}.${table}`, configEntries }));
  await admin.createTopics({ topics });
  await admin.disconnect();
}

async function attacked(round: Round, configs: Record<string, string> = {}): Promise<Sandbox> {
  const sandbox = await round.sandbox({ rows: 500 });
  sandbox.isForeign = (key) => !/^\d{1,7}$/.test(key ?? "");
  await makeTopics(round, sandbox, { "max.message.bytes": "40000000", ...configs });
  return sandbox;
}

export const hostile: Record<string, Fault> = {
  "hostile-bytes": {
    text: "NUL, broken UTF-8, deep nesting, huge numbers, no key, no value",
    long: true,
    async round(round) {
      const sandbox = await attacked(round);
      const { value } = foreignMessage("geo", 1);
      const bytes = () => Buffer.from(Array.from({ length: round.between(1, 300) }, () => round.between(0, 255)));
      const values = [
        ...[null, "", " \t\n", "\u0000", `${value}\u0000`, value.replace("Aruba", "A\u0000B"), "[".repeat(500_000)],
        ...[`{"a":`.repeat(200_000), "{".repeat(1_000_000), `"${"\\".repeat(999_999)}`, "1e400", "null", "[]"],
        ...[
          value.replace("-89.9787", "9".repeat(400)),
          value.replace("-89.9787", "1e999"),
          value.replace("}", ',"ind":'),
          "'a'",
        ],
        ...[Buffer.from(value).subarray(0, -1), Buffer.concat([Buffer.from(value), Buffer.from([0xc3])])],
        ...[Buffer.from([0xff, 0xfe, 0x7b, 0x7d]), Buffer.from([0xed, 0xa0, 0x80])],
      ];
      for (let i = 0; i < round.times(3); i++) {
        for (const table of ["pin", "geo", "user"]) {
          const messages: Messages = values.map((v, i) => other(i, v));
          await send(round, `${sandbox.prefix}.${table}`, [
            ...messages,
            ...Array.from({ length: 200 }, (_, i) => other(i, bytes())),
            { key: null, value: "x" },
            { key: bytes(), value: "y" },
          ]);
        }
        await sandbox.go(["post"]);
        await cleanAll(round, sandbox, `${(values.length + 202) * 3} broken messages`);
      }
    },
  },

  "hostile-size": {
    text: "messages of 100 MB, 17 MB and 15 MB",
    long: true,
    async round(round) {
      const sandbox = await attacked(round, { "max.message.bytes": "104000000" });
      const text = (bytes: number) => foreignMessage("geo", 7).value.replace("Aruba", "A".repeat(bytes));
      for (let i = 0; i < round.times(3); i++) {
        for (const bytes of [100_000_000, 17_000_000, 15_000_000, 100_000_000]) {
          await send(round, `${sandbox.prefix}.geo`, [other(bytes, text(bytes))]);
        }
        await sandbox.go(["post"]);
        await cleanAll(round, sandbox, "messages of up to 100 MB");
      }
    },
  },

  "hostile-count": {
    text: "up to a million messages that must be rejected",
    long: true,
    async round(round) {
      const sandbox = await attacked(round);
      for (let i = 0, most = 20; i < round.times(3); i++) {
        const count = round.between(2, most) * 50_000;
        for (let sent = 0; sent < count; sent += 50_000) {
          const messages = Array.from({ length: 50_000 }, (_, j) => other(j, round.random() < 0.5 ? "{" : '{"ind":1}'));
          await send(round, `${sandbox.prefix}.user`, messages);
        }
        await sandbox.go(["post"]);
        await cleanAll(round, sandbox, `${count} rejects`);
        most = 5; // the comparison reads all of them again
      }
    },
  },

  "hostile-gaps": {
    text: "topics with holes: compacted, and with aborted transactions",
    long: true,
    async round(round) {
      const sandbox = await attacked(round, {
        ...{ "cleanup.policy": "compact", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.01" },
        ...{ "max.compaction.lag.ms": "1000", "min.compaction.lag.ms": "0" },
      });
      const topic = `${sandbox.prefix}.user`;
      for (let i = 0; i < 8; i++) {
        const messages = Array.from({ length: 400 }, (_, j) => foreignMessage("user", (i * 37 + j) % 500));
        await send(round, topic, messages);
        const producer = others(round.services).producer({
          transactionalId: `${sandbox.name}-gaps`,
          idempotent: true,
          maxInFlightRequests: 1,
        });
        await producer.connect();
        const transaction = await producer.transaction();
        await transaction.send({ topic, messages: [foreignMessage("user", 900 + i)] });
        await transaction.abort();
        await producer.disconnect();
        await sleep(700);
        if (i === 3) await sandbox.run(["clean"]).done;
      }
      await send(round, topic, [other(1, "{")]);
      await sandbox.go(["post"]);
      // The broker's log cleaner runs every 15 s.
      await sleep(20_000);
      const twin = sandbox.twin("after", "empty");
      await cleanAll(round, twin, "a compacted topic");
    },
  },
};
