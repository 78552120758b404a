/** Topics of other people: what they contain, how it is compressed, and topics that are deleted and recreated. */
import assert from "node:assert/strict";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Admin, Producer } from "kafkajs";
import { openLandingThread } from "../../clean/land.ts";
import { encodeMessages } from "../../io/record_batch.ts";
import { connectReader, kafkaClient } from "../../kafka/client.ts";
import { explainKafka, isTransientKafka, retriable } from "../../kafka/errors.ts";
import { openProducer } from "../../kafka/producer.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { topicIds } from "../../kafka/topic_ids.ts";
import { listOffsets, waitForStableOffset } from "../../kafka/topics.ts";
import { names, paths } from "../../lake/files.ts";
import { readIdentity, writeIdentity } from "../../lake/owner.ts";
import { UsageError } from "../../runtime/errors.ts";
import { retry } from "../../runtime/retry.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";
import { ledgerColumn, run, start } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let services: SharedServices;
let kafka: KafkaSettings;
let admin: Admin;
let producer: Producer;

before(async () => {
  services = await shareServices({ rows: 10, name: "topics" });
  kafka = services.kafka;
  admin = kafkaClient(kafka).admin();
  producer = kafkaClient(kafka).producer({ allowAutoTopicCreation: false });
  await Promise.all([admin.connect(), producer.connect()]);
});

after(async () => {
  await Promise.all([admin?.disconnect(), producer?.disconnect()]);
  await services?.close();
});

/** Creates a topic, and waits until the broker leads all of its partitions. */
async function makeTopic(topic: string, numPartitions = 1): Promise<void> {
  const configEntries = [{ name: "max.message.bytes", value: "40000000" }];
  await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false });
  await using reader = await connectReader(kafka);
  const led = async () => {
    if ((await listOffsets(reader, topic))?.length !== numPartitions) throw retriable(`${topic} is not led yet`);
  };
  const { signal } = new AbortController();
  await retry(led, { waitMs: 20_000, signal, isTransient: isTransientKafka, onWait: () => {} });
}

const geo = (ind: number): string => JSON.stringify(validRow("geo", ind));

const cleanArgs = (prefix: string, ...more: string[]) => [
  ...["clean", "--creds", services.creds, "--prefix", prefix, "--data", join(services.folder.path, prefix), ...more],
];

test("missing topics do not disturb concurrent requests for others", async () => {
  await makeTopic("some.geo");
  for (let times = 0; times < 3; times++) {
    await using reader = await connectReader(kafka);
    const found = await Promise.all(["some.pin", "some.geo", "some.user"].map((topic) => listOffsets(reader, topic)));
    assert.deepEqual(found, [undefined, [{ partition: 0, logStart: 0, lastStable: 0, logEnd: 0 }], undefined]);
  }
});

test("small messages without a key or without a value share a bronze file, also after 4 MB of a batch", async () => {
  await makeTopic("keyless.geo");
  const value = geo(1).padEnd(4_000);
  const messages = Array.from({ length: 2_000 }, (_, i) => (i % 3 === 0 ? { key: "1", value: null } : { value }));
  await producer.send({ topic: "keyless.geo", messages });
  const lake = join(services.folder.path, "keyless");
  await Promise.all([paths(lake).tmp, paths(lake).bronze("geo")].map((path) => mkdir(path, { recursive: true })));
  await using lander = await openLandingThread({ kafka, lake });
  const ends = { positions: new Map([[0, 0]]), endOffsets: new Map([[0, messages.length]]) };
  const { files } = await lander.land({ table: "geo", topic: "keyless.geo", topicId: null, ...ends });
  assert.equal(files.length, 1);
  assert.equal(files[0]?.messages, messages.length);
  assert.equal((await readdir(paths(lake).bronze("geo"))).length, 1);
});

test("clean lands more files at the same time than a process may open", async () => {
  await makeTopic("wide.geo", 90);
  const messages = Array.from({ length: 90 }, (_, partition) => ({ partition, value: geo(partition) }));
  await producer.send({ topic: "wide.geo", messages });
  const cleaning = start(
    ["clean", "--creds", services.creds, "--prefix", "wide", "--data", join(services.folder.path, "wide")],
    {
      program: [
        "sh",
        "-c",
        'ulimit -n 80 && exec "$@"',
        "sh",
        process.execPath,
        "--import",
        import.meta.resolve("tsx"),
        "main.ts",
      ],
    },
  );
  const { code, stdout, stderr } = await cleaning.done;
  assert.equal(code, 0, stderr);
  assert.deepEqual(ledgerColumn(stdout, "geo", ["messages", "= clean"]), ["90", "90"]);
});

test("clean reads batches that were compressed with snappy, lz4 or zstd", async () => {
  const { CompressionCodecs } = createRequire(import.meta.url)("kafkajs") as typeof import("kafkajs");
  const packed = JSON.parse(await readFile(new URL("../io/batches.json", import.meta.url), "utf8")) as Record<
    string,
    string
  >;
  await makeTopic("packed.geo");
  // Replaces the records of this batch by those of a real client.
  const messages = Array.from({ length: 800 }, () => ({ value: "-" }));
  for (const [compression, name] of [
    [2, "snappy"],
    [3, "lz4"],
    [4, "zstd"],
  ] as const) {
    const records = Buffer.from(packed[`java ${name}`] as string, "base64").subarray(61);
    CompressionCodecs[compression] = () => ({
      compress: async () => records,
      decompress: async (bytes: Buffer) => bytes,
    });
    await producer.send({ topic: "packed.geo", compression, messages });
  }
  const { code, stdout, stderr } = await run(cleanArgs("packed"));
  assert.equal(code, 0, stderr);
  const sums = ["messages", "= clean", "+ superseded", "+ deleted", "+ rejected", "balanced"];
  assert.deepEqual(ledgerColumn(stdout, "geo", sums), ["2,400", "800", "1,600", "0", "0", "yes"]);
});

/** Deletes and recreates a topic, as an impatient colleague would. */
async function recreateTopic(topic: string): Promise<void> {
  await admin.deleteTopics({ topics: [topic] });
  await makeTopic(topic);
}

const bindingOf = async (prefix: string) =>
  (await readIdentity(join(services.folder.path, prefix, "lake"))) as NonNullable<
    Awaited<ReturnType<typeof readIdentity>>
  >;

test("a topic that is recreated while clean --follow runs is noticed, whatever it contains now", async () => {
  await makeTopic("again.geo");
  await producer.send({ topic: "again.geo", messages: [{ value: geo(1) }, { value: geo(2) }] });
  const following = start(cleanArgs("again", "--follow"));
  try {
    const silver = paths(join(services.folder.path, "again", "lake")).silver("geo");
    for (let tries = 0; tries < 200 && (await names(silver)).length === 0; tries++) await sleep(50);
    await recreateTopic("again.geo");
    await producer.send({ topic: "again.geo", messages: [3, 4, 5].map((ind) => ({ value: geo(ind) })) });
    const ended = await Promise.race([following.done, sleep(15_000)]);
    assert.ok(ended, following.output());
    assert.equal(ended.code, 1);
    assert.match(
      ended.stderr,
      // By its id, or by its messages or its end if these are checked first.
      /Error: Topic "again\.geo" was recreated: (its id is ".{22}", but the lake holds messages of the topic with id ".{22}"|it no longer holds the last message .*|partition 0 of topic "again\.geo" ends at offset \d, but .*); start a new lake with another --data/,
    );
  } finally {
    following.kill("SIGKILL");
  }
  const { code, stderr } = await run(cleanArgs("again"));
  assert.equal(code, 1);
  assert.match(stderr, /Topic "again\.geo" was recreated: its id is/);
});

test("messages of a topic that was recreated after the last check are not landed", async () => {
  await makeTopic("late.geo");
  await producer.send({ topic: "late.geo", messages: [{ value: geo(1) }] });
  const lake = join(services.folder.path, "late");
  await Promise.all([paths(lake).tmp, paths(lake).bronze("geo")].map((path) => mkdir(path, { recursive: true })));
  await using reader = await connectReader(kafka);
  const topicId = (await topicIds(reader, ["late.geo", "none.geo"])).get("late.geo") as string;
  await recreateTopic("late.geo");
  await producer.send({ topic: "late.geo", messages: [{ value: geo(2) }] });
  await using lander = await openLandingThread({ kafka, lake });
  const ends = { positions: new Map([[0, 0]]), endOffsets: new Map([[0, 1]]) };
  await assert.rejects(lander.land({ table: "geo", topic: "late.geo", topicId, ...ends }), /was recreated/);
  assert.deepEqual(await readdir(paths(lake).bronze("geo")), []);
});

test("a missing topic has no id, and neither has one on a broker without ids", async () => {
  await makeTopic("ids.geo");
  await using reader = await connectReader(kafka);
  const ids = await topicIds(reader, ["ids.geo", "ids.pin"]);
  assert.deepEqual([...ids.keys()], ["ids.geo"]);
  assert.match(ids.get("ids.geo") as string, /^[\w-]{22}$/);
  const [old] = [await reader.cluster.brokerPool.findConnectedBroker()];
  const before = { ...old.versions, 3: { maxVersion: 9 } };
  const brokerPool = { findConnectedBroker: async () => ({ ...old, versions: before }) };
  const cluster = { ...reader.cluster, brokerPool } as unknown as typeof reader.cluster;
  assert.deepEqual(await topicIds({ ...reader, cluster }, ["ids.geo"]), new Map([["ids.geo", null]]));
});

for (const end of ["commit", "abort"] as const) {
  test(`a lake without ids notices a recreated topic by what ${end}() left at the last offset landed`, async () => {
    const [prefix, topic] = [`old-${end}`, `old-${end}.geo`];
    await makeTopic(topic);
    await producer.send({ topic, messages: [{ value: geo(1) }, { value: geo(2) }] });
    const first = await run(cleanArgs(prefix));
    assert.equal(first.code, 0, first.stderr);
    const { topics, ...binding } = await bindingOf(prefix);
    assert.deepEqual(Object.keys(topics ?? {}), ["geo"]);
    await writeIdentity(join(services.folder.path, prefix, "lake"), binding);

    // The lake is bound to the topic that it finds, because that still has the last message.
    const second = await run(cleanArgs(prefix));
    assert.equal(second.code, 0, second.stderr);
    assert.deepEqual((await bindingOf(prefix)).topics, topics);
    await writeIdentity(join(services.folder.path, prefix, "lake"), binding);

    // At offset 1 is the marker of the commit, or a record of an aborted transaction.
    await recreateTopic(topic);
    const sender = kafkaClient(kafka).producer({ transactionalId: prefix, idempotent: true, maxInFlightRequests: 1 });
    await sender.connect();
    const messages = [{ value: geo(1) }, ...(end === "abort" ? [{ value: geo(2) }] : [])];
    const transaction = await sender.transaction();
    await transaction.send({ topic, messages });
    await transaction[end]();
    await sender.disconnect();
    await waitForStableOffset({ ...kafka, prefix }, "geo"); // the marker is written after the answer
    await producer.send({ topic, messages: [{ value: geo(3) }] });
    const third = await run(cleanArgs(prefix));
    assert.equal(third.code, 1, third.stderr);
    assert.match(
      third.stderr,
      /was recreated: it no longer holds the last message that was landed from partition 0 of topic ".*"/,
    );
  });
}

test("post and post --full skip unknown records among the checkpoints with one warning", async () => {
  const args = ["post", "--creds", services.creds, "--prefix", "strange", "--data", services.folder.path];
  const first = await run(args);
  assert.equal(first.code, 0, first.stderr);
  const real = await readTopic(kafka, "strange.checkpoints");
  const newest = JSON.parse(String(real.findLast(({ key }) => key?.toString() === "geo")?.value)) as object;
  const values = [
    "no JSON",
    "null",
    "[]",
    "{}",
    JSON.stringify({ ...newest, table: "pin" }),
    JSON.stringify({ ...newest, rows: "many" }),
    JSON.stringify({ ...newest, owner: null }),
    JSON.stringify({ ...newest, full: { id: "x" } }),
    JSON.stringify({ ...newest, last: { partition: 0 } }),
  ];
  const messages = [
    ...values.map((value) => ({ key: "geo", value, partition: 1 })),
    { key: "pin", value: JSON.stringify(newest), partition: 1 },
    { key: "geo", value: null, partition: 1 },
  ];
  await producer.send({ topic: "strange.checkpoints", messages });
  for (const more of [[], ["--full"]]) {
    const { code, stderr } = await run([...args, ...more]);
    assert.equal(code, 0, stderr);
    assert.deepEqual(stderr.match(/Warning: .*/g), [
      'Warning: Topic "strange.checkpoints" holds 11 records in partition 1 that are no checkpoints of "geo": post skips them; find out who writes there',
    ]);
  }
  const sent = await readTopic(kafka, "strange.geo");
  assert.equal(sent.length, 20);
  assert.equal(
    (await run(["status", "--creds", services.creds, "--prefix", "strange", "--data", services.folder.path])).code,
    0,
  );
});

test("post notices a recreated topic even if the last row posted is at its old offset", async () => {
  const args = ["post", "--creds", services.creds, "--prefix", "posted", "--data", services.folder.path];
  const first = await run(args);
  assert.equal(first.code, 0, first.stderr);
  const rows = await readTopic(kafka, "posted.geo");
  await recreateTopic("posted.geo");
  await producer.send({ topic: "posted.geo", messages: rows.map(({ key, value }) => ({ key, value })) });
  const { code, stderr } = await run(args);
  assert.equal(code, 1, stderr);
  assert.match(stderr, /Error: Topic "posted\.geo" no longer holds the last row posted .* recreated; run post --full/);
  const full = await run([...args, "--full"]);
  assert.equal(full.code, 0, full.stderr);
});

test("more replicas than brokers are a wrong setting, and the error names it", async () => {
  const path = join(services.folder.path, "replicas.yaml");
  const text = (await readFile(services.creds, "utf8")).replace(/BROKERS:/, "REPLICATION_FACTOR: 3\n  BROKERS:");
  await writeFile(path, text, { mode: 0o600 });
  const { code, stderr } = await run(["post", "--creds", path, "--prefix", "replicas", "--data", services.folder.path]);
  assert.equal(code, 2);
  assert.match(
    stderr,
    /\nError: Cannot create topics "replicas\.\w+", .*"replicas\.\w+": KAFKA\.REPLICATION_FACTOR of your credentials is 3, but Kafka at 127\.0\.0\.1:\d+ has 1 broker; set it to at most 1, or start more brokers\n$/,
  );
});

test("a transaction timeout that the broker does not allow is a wrong setting, not an outage", async () => {
  const opening = openProducer(kafka, { transactionalId: "slow", transactionTimeout: 2_000_000 });
  await assert.rejects(opening, (error: Error) => {
    assert.ok(error instanceof UsageError);
    assert.ok(!isTransientKafka(error));
    assert.equal(explainKafka(error, kafka), error);
    assert.match(
      error.message,
      /^Kafka at 127\.0\.0\.1:\d+ refuses transactions of up to 2000 s: set transaction\.max\.timeout\.ms of its brokers to 2000000 or more$/,
    );
    return true;
  });
});

test("a batch that the broker refuses fails the send, and the transaction leaves nothing", async () => {
  const topic = "refusing.geo";
  await makeTopic(topic, 2);
  const configEntries = [{ name: "max.message.bytes", value: "1000" }];
  await admin.alterConfigs({ validateOnly: false, resources: [{ type: 2, name: topic, configEntries }] });
  const own = await openProducer(kafka, { transactionalId: "refusing" });
  try {
    const batchOf = (partition: number, value: string) => ({
      topic,
      batch: encodeMessages(partition, [{ key: null, value }]),
    });
    const transaction = await own.begin();
    const sending = transaction.send([batchOf(0, "accepted"), batchOf(1, "too large".padEnd(5_000))]);
    await assert.rejects(sending, { type: "MESSAGE_TOO_LARGE" });
    await transaction.abort();
    assert.deepEqual(await readTopic(kafka, topic), []);
  } finally {
    await own.disconnect();
  }
});
