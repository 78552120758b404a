/**
 * Kafka's topic ids, which kafkajs does not request. A recreated topic has a new id.
 *
 * @module
 */
import type { KafkaReader } from "./client.ts";
import { retriable } from "./errors.ts";
import { type Broker, type Decoder, Encoder, request } from "./kafkajs.ts";

/**
 * The ids of topics: null if the brokers give none (before Kafka 2.8), no entry if there is no such topic. Also asks the
 * brokers that lead a topic, because another broker may be behind.
 *
 * @throws a retriable error if the brokers do not agree yet
 */
export async function topicIds(reader: KafkaReader, topics: string[]): Promise<Map<string, string | null>> {
  const { cluster } = reader;
  const first = await cluster.brokerPool.findConnectedBroker();
  const answers = [await askTopicIds(first, topics)];
  for (const nodeId of new Set(answers[0]?.leaders)) {
    if (nodeId < 0 || nodeId === Number(first.nodeId)) continue;
    answers.push(await askTopicIds(await cluster.findBroker({ nodeId: String(nodeId) }), topics));
  }
  const found = new Map<string, string | null>();
  for (const topic of topics) {
    const given = answers.map(({ ids }) => ids.get(topic)).filter((id) => id !== null);
    const id = given.length > 0 ? given[0] : null;
    if (given.some((other) => other !== id)) throw retriable(`The brokers do not agree yet on topic "${topic}"`);
    if (id !== undefined) found.set(topic, id);
  }
  return found;
}

const metadataApi = 3;
/** The first version of Metadata that has ids. Nothing here needs a later one. */
const metadataVersion = 10;
const unknownTopic = 3;

/** Asks one broker. kafkajs itself supports Metadata up to version 6. */
async function askTopicIds(
  broker: Broker,
  topics: string[],
): Promise<{ ids: Map<string, string | null>; leaders: number[] }> {
  const ids = new Map<string, string | null>();
  const leaders: number[] = [];
  if ((broker.versions?.[metadataApi]?.maxVersion ?? 0) < metadataVersion) {
    return { ids: new Map(topics.map((topic) => [topic, null])), leaders };
  }
  const encode = () => {
    const body = new Encoder().writeUVarInt(0); // tagged fields, the last of the request's head
    body.writeUVarInt(topics.length + 1);
    for (const topic of topics) body.writeBuffer(Buffer.alloc(16)).writeUVarIntString(topic).writeUVarInt(0);
    // Do not create topics; leave out the authorized operations of the cluster and of each topic.
    return body.writeBoolean(false).writeBoolean(false).writeBoolean(false).writeUVarInt(0);
  };
  const decode = (from: Decoder) => {
    const skipTags = () => {
      for (let left = from.readUVarInt(); left > 0; left--) {
        from.readUVarInt();
        from.readBytes(from.readUVarInt());
      }
    };
    const skipNumbers = () => from.readUVarIntArray(() => from.readInt32());
    skipTags(); // of the response header
    from.readInt32(); // throttle time
    from.readUVarIntArray(() => {
      from.readInt32(); // node id
      from.readUVarIntString(); // host
      from.readInt32(); // port
      from.readUVarIntString(); // rack
      skipTags();
    });
    from.readUVarIntString(); // cluster id
    from.readInt32(); // controller
    from.readUVarIntArray(() => {
      const error = from.readInt16();
      const name = from.readUVarIntString() as string;
      const id = from.readBytes(16);
      from.readInt8(); // whether it is internal
      from.readUVarIntArray(() => {
        from.readInt16(); // error
        from.readInt32(); // partition
        leaders.push(from.readInt32());
        from.readInt32(); // leader epoch
        for (let lists = 3; lists > 0; lists--) skipNumbers(); // replicas, in sync, offline
        skipTags();
      });
      from.readInt32(); // authorized operations
      skipTags();
      if (error !== unknownTopic) ids.set(name, id.every((byte) => byte === 0) ? null : id.toString("base64url"));
    });
    return { ids, leaders };
  };
  return request(broker, { apiKey: metadataApi, apiVersion: metadataVersion, apiName: "Metadata", encode, decode });
}
