/**
 * Checks that the lake was landed from these topics, and that no message expired unread.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { bronzeLines } from "../io/bronze_lines.ts";
import type { RecordView } from "../io/record_batch.ts";
import { tableNames } from "../io.ts";
import type { KafkaReader } from "../kafka/client.ts";
import { readRecord } from "../kafka/fetch.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { topicIds } from "../kafka/topic_ids.ts";
import { listOffsets } from "../kafka/topics.ts";
import { type BronzeFile, landedOffsets, lastLine } from "../lake/bronze.ts";
import { checkTopicId, missingTopic, readIdentity, startAgain, writeIdentity } from "../lake/owner.ts";
import { allOf } from "../runtime/retry.ts";
import type { CleanRun } from "./run.ts";

/**
 * Refuses topics that were recreated since the lake was bound to them, and binds the lake to new topics.
 *
 * @returns the existing topics with their ids
 */
export async function checkTopicIds(
  reader: KafkaReader,
  lake: string,
  kafka: KafkaSettings,
): Promise<Map<string, string | null>> {
  const ids = await topicIds(
    reader,
    tableNames.map((table) => topicOf(kafka, table)),
  );
  const identity = await readIdentity(lake);
  const topics = { ...identity?.topics };
  for (const table of tableNames) {
    const topic = topicOf(kafka, table);
    const id = ids.get(topic);
    checkTopicId(topic, topics[table], id);
    if (id) topics[table] = id;
  }
  const isNew = tableNames.some((table) => topics[table] !== identity?.topics?.[table]);
  if (identity && isNew) await writeIdentity(lake, { ...identity, topics });
  return ids;
}

/**
 * Checks that the lake was landed from these topics, and that no unread message expired.
 *
 * A recreated topic has another id. If Kafka has no ids, the last landed message is compared with the one at its offset;
 * an offset that compaction has emptied passes. If unread messages expired, the log start is after the next offset to
 * read.
 *
 * @throws `Error` that says what to do
 */
export async function checkTopics(
  reader: KafkaReader,
  { lake, signal, onFact, tables }: CleanRun,
  kafka: KafkaSettings,
): Promise<void> {
  await checkTopicIds(reader, lake, kafka);
  const found = await allOf(
    tables.map(async ({ table, bronze }) => {
      const topic = topicOf(kafka, table);
      let ranges = await listOffsets(reader, topic);
      // A broker with ZooKeeper answers before it has loaded its topics.
      for (let tries = 0; !ranges && bronze.length > 0 && tries < 20; tries++) {
        await sleep(250, undefined, { signal });
        ranges = await listOffsets(reader, topic);
      }
      return { topic, files: bronze, ranges };
    }),
  );
  for (const { topic, files, ranges } of found) {
    if (!ranges) {
      if (files.length === 0) continue;
      throw new Error(missingTopic(topic, lake));
    }
    const landed = landedOffsets(files);
    for (const { partition, logStart: start } of ranges) {
      if (start === 0 || landed.has(partition)) continue;
      const text = `Partition ${partition} of topic "${topic}" starts at offset ${start}: earlier messages expired before this lake was created`;
      onFact({ fact: "warned", text });
    }
    for (const [partition, next] of landed) {
      const range = ranges.find((r) => r.partition === partition);
      const where = `partition ${partition} of topic "${topic}"`;
      if (!range || next > range.logEnd) {
        throw new Error(
          `Topic "${topic}" was recreated: ${where} ${range ? `ends at offset ${range.logEnd}` : "does not exist"}, but the lake holds messages up to offset ${next}; ${startAgain}`,
        );
      }
      if (range.logStart > next) {
        throw new Error(
          `Messages were lost: ${where} starts at offset ${range.logStart}, so ${range.logStart - next} offsets from ${next} on expired before clean read them; set retention.ms=-1, then ${startAgain}`,
        );
      }
      const last = files.findLast((file) => file.partition === partition && file.messages > 0);
      if (last && !(await sameMessage(reader, topic, { file: last, start: range.logStart }))) {
        throw new Error(
          `Topic "${topic}" was recreated: it no longer holds the last message that was landed from ${where}; ${startAgain}`,
        );
      }
    }
  }
}

/** Whether the topic still holds the last message of a bronze file, byte for byte. */
async function sameMessage(
  reader: KafkaReader,
  topic: string,
  { file, start }: { file: BronzeFile; start: number },
): Promise<boolean> {
  const line = await lastLine(file.path);
  const offset = Number(line.toString("latin1").split("\t", 2)[1]);
  if (offset < start) return true; // expired: nothing to compare with
  const { partition } = file;
  const take = (record: RecordView) => {
    const lines = bronzeLines();
    lines.add(partition, record);
    return lines.take().equals(line);
  };
  const same = await readRecord(reader, topic, { partition, offset, take });
  return same === undefined ? true : (same ?? false); // null: a transaction marker or an aborted message, which the landed one was not
}
