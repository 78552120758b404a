/**
 * The topics of the tables as the server needs them: created if they are missing, with their partitions and limits.
 *
 * @module
 */
import { type Table, tableNames } from "../io.ts";
import { connectReader } from "../kafka/client.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { ensureTopics, listOffsets } from "../kafka/topics.ts";
import { retry } from "../runtime/retry.ts";

export interface Topics {
  /** Retries until Kafka is available or the signal aborts; returns warnings about the topics' settings. */
  prepare(options: { signal: AbortSignal; onWait: (text: string) => void }): Promise<string[]>;
  /** How many partitions the topic has; `undefined` while Kafka is unavailable. Asks Kafka again if `wanted` is beyond them. */
  partitions(table: Table, wanted: number): Promise<number | undefined>;
  /** The largest message that the topic accepts, bytes. */
  maxMessageBytes(table: Table): number;
}

export function openTopics(kafka: KafkaSettings): Topics {
  const partitions: Partial<Record<Table, number>> = {};
  let maxMessageBytes: Record<Table, number> | undefined;
  let counting: Promise<void> | undefined;
  const count = async () => {
    await using reader = await connectReader(kafka);
    for (const table of tableNames) {
      const ranges = await listOffsets(reader, topicOf(kafka, table));
      if (ranges) partitions[table] = ranges.length;
    }
  };
  return {
    prepare: ({ signal, onWait }) =>
      retry(
        async () => {
          const report = await ensureTopics(kafka);
          await count();
          ({ maxMessageBytes } = report);
          return report.warnings;
        },
        { waitMs: Number.POSITIVE_INFINITY, signal, isTransient: isTransientKafka, onWait },
      ),
    async partitions(table, wanted) {
      if (wanted >= (partitions[table] ?? 0)) {
        counting ??= count()
          .catch(() => {})
          .finally(() => {
            counting = undefined;
          });
        await counting;
      }
      return partitions[table];
    },
    maxMessageBytes: (table) => maxMessageBytes?.[table] ?? Number.POSITIVE_INFINITY,
  };
}
