import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Producer } from "kafkajs";
import { openWaiting } from "../../http/waiting.ts";
import { connectReader, type KafkaReader, kafkaClient } from "../../kafka/client.ts";
import { listOffsets, type PartitionOffsets } from "../../kafka/topics.ts";
import { readTopic, type SharedServices, shareServices } from "../support/services.ts";

const topic = "waiting.pin";
let services: SharedServices;
let reader: KafkaReader;
let producer: Producer;
before(async () => {
  services = await shareServices({ rows: 1, name: "waiting" });
  const client = kafkaClient(services.kafka);
  const admin = client.admin();
  await admin.connect();
  await admin.createTopics({ topics: [{ topic, numPartitions: 2, replicationFactor: 1 }] });
  await admin.disconnect();
  reader = await connectReader(services.kafka);
  producer = client.producer({ transactionalId: "waiting", idempotent: true, maxInFlightRequests: 1 });
  await producer.connect();
});
after(async () => {
  await producer?.disconnect();
  await reader?.close();
  await services?.close();
});

/** Posts so many messages in one transaction. */
async function post(partition: number, messages: number, end: "commit" | "abort" = "commit"): Promise<void> {
  const transaction = await producer.transaction();
  const values = Array.from({ length: messages }, (_, n) => ({ partition, value: String(n) }));
  await transaction.send({ topic, messages: values });
  await transaction[end]();
  await readTopic(services.kafka, topic); // waits for the marker
}
const offsets = async () => (await listOffsets(reader, topic)) as PartitionOffsets[];

test("messages are counted one by one: markers and aborted messages are none, landed and cleaned ones do not wait", async () => {
  const waiting = openWaiting();
  const began = Date.now();
  for (const n of [3, 2, 1]) await post(0, n);
  await post(0, 4, "abort");
  await post(1, 5);
  const read = async (landed: Record<string, number>, cleaned: Record<string, number>) => {
    const found = await waiting.read(reader, { topic, partitions: await offsets(), lake: { landed, cleaned } });
    assert.ok(found.since === null || (found.since >= began - 1_000 && found.since <= Date.now()));
    return [found.messages, found.notLanded, found.exact, found.since === null];
  };
  // Partition 0 has the offsets 0-2, 4-5, 7 and two markers between, and then the aborted ones.
  assert.deepEqual(await read({}, {}), [11, 11, true, false]);
  assert.deepEqual(await read({ 0: 5 }, {}), [11, 7, true, false]);
  assert.deepEqual(await read({ 0: 9, 1: 6 }, { 0: 5 }), [7, 0, true, false]);
  await post(0, 2);
  assert.deepEqual(await read({ 0: 9, 1: 6 }, { 0: 9, 1: 6 }), [2, 2, true, false]);
  const ends = Object.fromEntries((await offsets()).map(({ partition, lastStable }) => [partition, lastStable]));
  assert.deepEqual(await read(ends, ends), [0, 0, true, true]);
  // A rebuild goes back.
  assert.deepEqual(await read(ends, {}), [13, 0, true, false]);
});

test("where very many wait, their number is estimated from the first ones", async () => {
  const waiting = openWaiting();
  const before = (await offsets())[1]?.lastStable as number;
  for (let n = 0; n < 6; n++) await post(1, 20_000);
  const partitions = (await offsets()).slice(1);
  const read = (cleaned: number) =>
    waiting.read(reader, { topic, partitions, lake: { landed: { 1: cleaned }, cleaned: { 1: cleaned } } });
  const { messages, notLanded, exact, since } = await read(before);
  assert.equal(exact, false);
  assert.ok(Math.abs(messages - 120_000) < 100, `${messages}`);
  assert.equal(notLanded, messages);
  assert.ok(since);
  let found = await read(before + 100_000);
  for (let polls = 0; polls < 20 && !found.exact; polls++) found = await read(before + 100_000);
  assert.deepEqual([found.messages, found.exact], [20_004, true]); // 99,996 messages and four markers are cleaned
});
