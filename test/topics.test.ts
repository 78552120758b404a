/** Topics as other people leave them: what they hold, how it is packed, and topics that are deleted and made again. */
import assert from "node:assert/strict";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Admin, Producer } from "kafkajs";
import { patiently } from "../io.ts";
import { connectReader, isTransientKafka, type KafkaSettings, kafkaClient, retriable, topicRanges } from "../kafka.ts";
import { paths } from "../lake.ts";
import { openLander } from "../land.ts";
import { openSite, type Site, start } from "./support.ts";

let site: Site;
let kafka: KafkaSettings;
let admin: Admin;
let producer: Producer;

before(async () => {
  site = await openSite({ rows: 10 });
  kafka = site.kafka;
  admin = kafkaClient(kafka).admin();
  producer = kafkaClient(kafka).producer({ allowAutoTopicCreation: false });
  await Promise.all([admin.connect(), producer.connect()]);
});

after(async () => {
  await Promise.all([admin?.disconnect(), producer?.disconnect()]);
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

const geo = (ind: number): string =>
  JSON.stringify({ ind, timestamp: "2020-08-28 03:52:47", latitude: 1.5, longitude: 2.5, country: "Albania" });

test("topics that are missing do not disturb those that are asked for at the same time", async () => {
  await makeTopic("some.geo");
  for (let times = 0; times < 3; times++) {
    await using reader = await connectReader(kafka);
    const found = await Promise.all(["some.pin", "some.geo", "some.user"].map((topic) => topicRanges(reader, topic)));
    assert.deepEqual(found, [undefined, [{ partition: 0, start: 0, stable: 0, end: 0 }], undefined]);
  }
});

test("small messages without a key or without a value share a bronze file, also behind 4 MB of a batch", async () => {
  await makeTopic("keyless.geo");
  const value = geo(1).padEnd(4_000);
  const messages = Array.from({ length: 2_000 }, (_, i) => (i % 3 === 0 ? { key: "1", value: null } : { value }));
  await producer.send({ topic: "keyless.geo", messages });
  const lake = join(site.folder.path, "keyless");
  await Promise.all([paths(lake).tmp, paths(lake).bronze("geo")].map((path) => mkdir(path, { recursive: true })));
  await using lander = await openLander({ kafka, lake });
  const ends = { positions: new Map([[0, 0]]), until: new Map([[0, messages.length]]) };
  const { files } = await lander.land({ table: "geo", topic: "keyless.geo", ...ends });
  assert.equal(files.length, 1);
  assert.equal(files[0]?.messages, messages.length);
  assert.equal((await readdir(paths(lake).bronze("geo"))).length, 1);
});

test("clean lands more files at once than a process may open", async () => {
  await makeTopic("wide.geo", 200);
  const messages = Array.from({ length: 200 }, (_, partition) => ({ partition, value: geo(partition) }));
  await producer.send({ topic: "wide.geo", messages });
  const cleaning = start(
    ["clean", "--creds", site.creds, "--prefix", "wide", "--data", join(site.folder.path, "wide")],
    {
      program: [
        "sh",
        "-c",
        'ulimit -n 120 && exec "$@"',
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
  assert.match(stdout, /geo +200 +200 /);
});
