/** Three brokers with three replicas, two of them required: brokers are killed under load. */
import assert from "node:assert/strict";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { tableNames } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { compareLake, compareTopics, readMessages } from "../faults/compare.ts";
import { makeSandbox, type Sandbox, type Work } from "../faults/sandbox.ts";
import { findPython } from "../support/python.ts";
import { temporaryFolder } from "../support/support.ts";
import { type Cluster, openCluster } from "./cluster.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let cluster: Cluster;
let sandbox: Sandbox;
let python: string;
before(async () => {
  python = await findPython();
  folder = await temporaryFolder();
  cluster = await openCluster(join(folder.path));
  sandbox = await makeSandbox(cluster, "replicated", { rows: 48_000, seed: 7, partitions: 4 });
});
after(async () => {
  await sandbox?.remove();
  await cluster?.close();
  await folder.remove();
});

const nothing = { lost: 0, doubled: 0, wrong: [] };

/** Compares MySQL with the topics, and the topics with the lake. */
async function compare(): Promise<void> {
  const messages = await readMessages(cluster.kafka.BROKERS, sandbox, python);
  assert.deepEqual(await compareTopics(sandbox, messages), nothing);
  assert.deepEqual(await compareLake(sandbox, messages), nothing);
}

/** The partitions of the three topics, with leader, replicas and those in sync. */
async function partitions() {
  const settings = { brokers: cluster.kafka.BROKERS, prefix: sandbox.prefix, partitions: 4, replicationFactor: 3 };
  const admin = kafkaClient(settings).admin();
  try {
    const { topics } = await admin.fetchTopicMetadata({ topics: tableNames.map((t) => `${sandbox.prefix}.${t}`) });
    return topics.flatMap((topic) => topic.partitions);
  } finally {
    await admin.disconnect();
  }
}

/** Waits until a condition on the partitions holds, at most a minute. */
async function untilPartitions(holds: (all: Awaited<ReturnType<typeof partitions>>) => boolean): Promise<void> {
  for (let tries = 0; tries < 120; tries++) {
    if (holds(await partitions())) return;
    await sleep(500);
  }
  assert.fail(`Partitions stayed ${JSON.stringify(await partitions())}`);
}

/** Waits for a trace point, however slow the machine. */
async function reached(work: Work, step: RegExp): Promise<void> {
  while (!(await work.until(step))) assert.equal(work.over(), false, work.output());
}

test("one of three brokers is killed under load: leaders move, nothing is lost or duplicated", async () => {
  const follow = sandbox.run(["clean", "--follow"]);
  const post = sandbox.run(["post"]);
  await reached(post, /^committed pin/);
  const found = await partitions();
  assert.equal(found.length, 12);
  for (const { replicas } of found) assert.equal(replicas.length, 3);
  const killed = found[0]?.leader as number;
  assert.ok(post.at(), "post had ended before it was struck");
  await cluster.brokers.get(killed)?.stop("SIGKILL");
  const { code, stderr } = await post.done;
  assert.equal(code, 0, stderr);
  await untilPartitions((all) => all.every(({ leader }) => leader !== killed && leader >= 0));
  assert.equal(follow.over(), false, follow.output());
  follow.kill("SIGTERM");
  assert.equal((await follow.done).code, 143);
  await sandbox.go(["post"]);
  await sandbox.go(["clean"]);
  await compare();
  await cluster.brokers.get(killed)?.start();
  await untilPartitions((all) => all.every(({ isr }) => isr.length === 3));
});

test("two of three are killed: post waits, says for what, and continues when they are back", async () => {
  sandbox.copies = 2;
  const post = sandbox.run(["post", "--full", "--wait", "300"]);
  await reached(post, /^committed geo/);
  const gone = [...cluster.brokers].slice(1).map(([, service]) => service);
  assert.ok(post.at(), "post had ended before it was struck");
  await Promise.all(gone.map((service) => service.stop("SIGKILL")));
  await post.said(/[;?] waiting up to 300 s for it/i);
  assert.equal(post.over(), false);
  const line = /.*[;?] waiting up to 300 s for it/i.exec(post.output())?.[0] ?? "";
  assert.match(line, /(Cannot reach Kafka at|Kafka at) 127[.]0[.]0[.]1:\d+.*: \S/);
  process.stdout.write(`It says: ${line}\n`);
  await Promise.all(gone.map((service) => service.start()));
  const { code, stderr } = await post.done;
  assert.equal(code, 0, stderr);
  await untilPartitions((all) => all.every(({ isr }) => isr.length === 3));
  await sandbox.go(["clean"]);
  await compare();
});

/** The partition that Java's clients choose, implemented again: murmur2 of the key's bytes. */
function javaPartition(key: string, count: number): number {
  const data = Buffer.from(key);
  let hash = 0x9747b28c ^ data.length;
  let at = 0;
  for (; at + 4 <= data.length; at += 4) {
    let word = Math.imul(data.readInt32LE(at), 0x5bd1e995);
    word = Math.imul(word ^ (word >>> 24), 0x5bd1e995);
    hash = Math.imul(hash, 0x5bd1e995) ^ word;
  }
  for (let left = data.length - at - 1; left >= 0; left--) hash ^= (data[at + left] as number) << (8 * left);
  if (at < data.length) hash = Math.imul(hash, 0x5bd1e995);
  hash = Math.imul(hash ^ (hash >>> 13), 0x5bd1e995);
  return ((hash ^ (hash >>> 15)) & 0x7fffffff) % count;
}

test("rows are spread over the partitions by key as Java's clients do, and emulated posts with them", async () => {
  await sandbox.go(["emulate", "--limit", "300", "--rate", "1000/s", "--seed", "3", "--quiet"]);
  await sandbox.go(["clean"]);
  const messages = await readMessages(cluster.kafka.BROKERS, sandbox, python);
  assert.deepEqual(await compareLake(sandbox, messages), nothing);
  for (const table of tableNames) {
    assert.equal(messages[table].length, 2 * 48_000 + 300);
    const counts = [0, 0, 0, 0];
    for (const { key, partition } of messages[table]) {
      const wanted = javaPartition(String(key), 4);
      if (partition !== wanted) assert.fail(`${table}: key ${key} is in partition ${partition}, not ${wanted}`);
      counts[partition] = (counts[partition] ?? 0) + 1;
    }
    for (const n of counts) assert.ok(n > 20_000 && n < 28_000, `${table}: ${counts}`);
  }
});
