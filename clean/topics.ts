/**
 * Checks that the topics are the ones the lake was landed from, and that nothing expired unread.
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
import { checkTopicId, readIdentity, startAgain, writeIdentity } from "../lake/owner.ts";
import type { CleanRun } from "./run.ts";

/**
 * Refuses topics that were made again since the lake was bound to them, and binds it to those that are new.
 *
 * @returns the topics that there are, with their ids
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
 * Makes sure that the topics are those that were landed from, and that nothing unread is gone.
 *
 * A topic that was made again has another id. Where Kafka gives none, it has other bytes where the last landed message
 * was; only compaction leaves a hole there. A topic whose messages expired begins after the next offset to read.
 */
export async function checkTopics(
  reader: KafkaReader,
  { lake, signal, onFact, tables }: CleanRun,
  kafka: KafkaSettings,
): Promise<void> {
  await checkTopicIds(reader, lake, kafka);
  for (const { table, bronze: files } of tables) {
    const topic = topicOf(kafka, table);
    let ranges = await listOffsets(reader, topic);
    // A broker by ZooKeeper that has just started answers before it has learned of its topics.
    for (let tries = 0; !ranges && files.length > 0 && tries < 20; tries++) {
      await sleep(250, undefined, { signal });
      ranges = await listOffsets(reader, topic);
    }
    if (!ranges) {
      if (files.length === 0) continue;
      throw new Error(`Topic "${topic}" is gone, but the lake in "${lake}" holds messages of it; ${startAgain}`);
    }
    const landed = landedOffsets(files);
    for (const { partition, logStart: start } of ranges) {
      if (start === 0 || landed.has(partition)) continue;
      const text = `Partition ${partition} of topic "${topic}" begins at offset ${start}: what stood before it had expired before this lake was begun`;
      onFact({ fact: "warned", text });
    }
    for (const [partition, next] of landed) {
      const range = ranges.find((r) => r.partition === partition);
      const where = `partition ${partition} of topic "${topic}"`;
      if (!range || next > range.logEnd) {
        throw new Error(
          `Topic "${topic}" was made again: ${where} ${range ? `ends at offset ${range.logEnd}` : "is gone"}, but was landed up to ${next}; ${startAgain}`,
        );
      }
      if (range.logStart > next) {
        throw new Error(
          `Messages were lost: ${where} begins at offset ${range.logStart}, so ${range.logStart - next} messages from ${next} on expired before they were landed; set retention.ms=-1, then ${startAgain}`,
        );
      }
      const last = files.findLast((file) => file.partition === partition && file.messages > 0);
      if (last && !(await sameMessage(reader, topic, { file: last, start: range.logStart }))) {
        throw new Error(
          `Topic "${topic}" was made again: the last message landed from ${where} is another one now; ${startAgain}`,
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
  return same === undefined ? true : (same ?? false); // a record never becomes a mark or an aborted one
}
