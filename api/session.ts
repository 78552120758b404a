/**
 * A posting session: fences the previous producer and reads the table's checkpoint; the leader also claims its table.
 *
 * @module
 */
import type { SourceTable } from "../db_conn.ts";
import type { LogPlace } from "../io/log_place.ts";
import { encodeMessages, keyBytes, type RecordView } from "../io/record_batch.ts";
import { type RowEncoder, rowEncoder } from "../io/row_encoder.ts";
import { some } from "../io/text.ts";
import { type Table, tables } from "../io.ts";
import { type Checkpoint, checkDatabase, type Last, readCheckpoints } from "../kafka/checkpoint.ts";
import { connectReader, type KafkaReader } from "../kafka/client.ts";
import { explainKafka, retriable } from "../kafka/errors.ts";
import { readRecord } from "../kafka/fetch.ts";
import { openProducer, type Producer, type Transaction } from "../kafka/producer.ts";
import { checkpointTopic, type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { topicIds } from "../kafka/topic_ids.ts";
import { listOffsets, partitionOf } from "../kafka/topics.ts";
import { allOf } from "../runtime/retry.ts";
import { step } from "../runtime/steps.ts";
import { type Job, leader, type PostFact, unfinished } from "./protocol.ts";

/** Bytes of one send, about, for all its partitions together. The limit of the topic may be lower. */
const sendBytes = 4_000_000;
const leastBatchBytes = 256_000;

/** A producer that owns the transactional id of its table, and the checkpoint from which it continues. */
export interface Session {
  producer: Producer;
  /** As committed, except for the owner, and for a newer place in the log if nothing had to be posted up to it. */
  checkpoint: Checkpoint;
  /** The last committed place in the log, and when it was committed, ms since 1970. */
  committed: { log: LogPlace | null; at: number };
  encoder: RowEncoder;
}

/** The job of a thread, the largest message of its topic, and its stop signal. */
export interface Limits {
  job: Job;
  maxMessageBytes: number;
  signal: AbortSignal;
}

/** Sends a checkpoint within a transaction. */
export function sendCheckpoint(transaction: Transaction, kafka: KafkaSettings, checkpoint: Checkpoint) {
  const { table } = checkpoint;
  const message = { key: table, value: JSON.stringify(checkpoint) };
  const batch = encodeMessages(tables[table].checkpointPartition, [message]);
  return transaction.send([{ topic: checkpointTopic(kafka), batch }]);
}

/**
 * Opens the sessions of one thread: fences the previous producer, aborts its transaction and reads the checkpoint. The
 * leader's thread claims its table in a first transaction; the others name the owner in their next one.
 *
 * Being fenced means only that another process began to post, or that this transaction timed out. So the claim of the
 * leading table decides: if it is neither this run's nor the one that was there first, another post is running, and this
 * one ends. The process with that claim posts the other tables too, so that one of two posts continues with all.
 */
export function sessionOpener(
  { job, maxMessageBytes }: Limits,
  emit: (fact: PostFact) => void,
): (source: SourceTable, database: string) => Promise<Session> {
  const { table, kafka, owner } = job;
  const topic = topicOf(kafka, table);
  let firstSeen: number | undefined;
  let warned = false;
  const onStrange = (of: Table, records: number) => {
    if (warned || of !== table) return;
    warned = true;
    const text = `Topic "${checkpointTopic(kafka)}" holds ${some(records, "record")} in partition ${tables[table].checkpointPartition} that ${records === 1 ? "is no checkpoint" : "are no checkpoints"} of "${table}": post skips ${records === 1 ? "it" : "them"}; find out who writes there`;
    emit({ fact: "warned", text });
  };
  /** Checks the leader's claim. */
  const check = (claimed: Checkpoint | undefined) => {
    firstSeen ??= table === leader ? (claimed?.claim ?? 0) : -1;
    if (!claimed || claimed.owner.id === owner.id || claimed.claim === firstSeen) return;
    const { host, pid, started } = claimed.owner;
    throw new Error(
      `Another post of "${table}" is running: process ${pid} on ${host}, since ${started}; let it finish, or stop it first`,
    );
  };
  const open = async (source: SourceTable, database: string): Promise<Session> => {
    const reader = await connectReader(kafka);
    try {
      // A follower waits for the leader's claim, which is readable only some time after its commit was acknowledged.
      check((await readCheckpoints(reader, kafka, [leader], { complete: table !== leader }))[leader]);
      const producer = await openProducer(kafka, { transactionalId: `${kafka.prefix}.post.${table}`, reader });
      const [found, ranges = [], ids] = await allOf([
        readCheckpoints(reader, kafka, [...new Set([leader, table])], { complete: true, onStrange }),
        listOffsets(reader, topic),
        topicIds(reader, [topic]),
      ]);
      const { [table]: checkpoint } = found;
      check(found[leader]);
      checkDatabase(kafka, checkpoint, database);
      const partitions = ranges.length;
      if (!partitions) throw retriable(`Topic "${topic}" is not known to the broker yet`);
      const topicId = ids.get(topic);
      const isRecreated = topicId && checkpoint?.topicId && topicId !== checkpoint.topicId;
      const inTopic = !checkpoint?.last || (!isRecreated && (await holdsLast(reader, topic, checkpoint.last)));
      if (!inTopic && !job.full) throw new Error(topicGone(topic, checkpoint.last as Last));
      const fresh = { table, database, lastKey: null, rows: 0, full: null, last: null };
      const claim = (checkpoint?.claim ?? 0) + 1;
      if (!checkpoint && ranges.some(({ logStart: start, logEnd: end }) => end > start)) {
        const text = `Topic "${topic}" has messages of other programs, such as emulate or serve, but none of post: every row is posted`;
        emit({ fact: "warned", text });
      }
      const claimed = { ...fresh, ...(inTopic ? checkpoint : undefined), owner, claim, ...(topicId && { topicId }) };
      if (table === leader) {
        const transaction = await producer.begin();
        await sendCheckpoint(transaction, kafka, claimed);
        step("claiming", table);
        await transaction.commit();
        step("claimed", table);
      }
      const maxBytes = Math.min(maxMessageBytes, Math.max(Math.floor(sendBytes / partitions), leastBatchBytes));
      const { columns, key } = source;
      const encoder = rowEncoder({ columns, key, partitions, partitionOf, maxBytes });
      const { log = null } = unfinished(claimed) ?? claimed;
      return { producer, checkpoint: claimed, committed: { log, at: Date.now() }, encoder };
    } catch (error) {
      void reader.close();
      throw error;
    }
  };
  return (source, database) =>
    open(source, database).catch((error: unknown) => {
      throw explainKafka(error, kafka);
    });
}

/** Whether the last row posted is still at its offset; usually not in a topic that was deleted and recreated. */
async function holdsLast(reader: KafkaReader, topic: string, { partition, offset, key }: Last): Promise<boolean> {
  const range = (await listOffsets(reader, topic))?.find((r) => r.partition === partition);
  if (!range || offset >= range.logEnd) return false;
  if (offset < range.logStart) return true; // expired by retention: nothing to compare with
  const take = (record: RecordView) => keyBytes(record)?.toString() === key;
  return (await readRecord(reader, topic, { partition, offset, take })) ?? false;
}

const topicGone = (topic: string, { partition, offset, key }: Last): string =>
  `Topic "${topic}" no longer holds the last row posted (key ${key} at offset ${offset} of partition ${partition}): the topic was deleted or recreated; run post --full to post every row again`;
