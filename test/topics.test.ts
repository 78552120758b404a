/** Topics as other people leave them: what they hold, how it is packed, and topics that are deleted and made again. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import type { Admin } from "kafkajs";
import { patiently } from "../io.ts";
import { connectReader, isTransientKafka, type KafkaSettings, kafkaClient, retriable, topicRanges } from "../kafka.ts";
import { openSite, type Site } from "./support.ts";

let site: Site;
let kafka: KafkaSettings;
let admin: Admin;

before(async () => {
  site = await openSite({ rows: 10 });
  kafka = site.kafka;
  admin = kafkaClient(kafka).admin();
  await admin.connect();
});

after(async () => {
  await admin?.disconnect();
  await site.close();
});

/** Makes a topic, and waits until the broker leads all of its partitions. */
async function makeTopic(topic: string, numPartitions = 1): Promise<void> {
  const configEntries = [{ name: "max.message.bytes", value: "40000000" }];
  await admin.createTopics({ topics: [{ topic, numPartitions, configEntries }], waitForLeaders: false });
  await using reader = await connectReader(kafka);
  const led = async () => {
    if ((await topicRanges(reader, topic))?.length !== numPartitions) throw retriable(`${topic} is not led yet`);
  };
  const { signal } = new AbortController();
  await patiently(led, { waitMs: 20_000, signal, isTransient: isTransientKafka, onWait: () => {} });
}

test("topics that are missing do not disturb those that are asked for at the same time", async () => {
  await makeTopic("some.geo");
  for (let times = 0; times < 3; times++) {
    await using reader = await connectReader(kafka);
    const found = await Promise.all(["some.pin", "some.geo", "some.user"].map((topic) => topicRanges(reader, topic)));
    assert.deepEqual(found, [undefined, [{ partition: 0, start: 0, stable: 0, end: 0 }], undefined]);
  }
});
