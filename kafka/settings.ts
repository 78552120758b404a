/**
 * How to reach Kafka, and the names of the topics.
 *
 * @module
 */
import { type Table, tableNames, tables } from "../io.ts";

/** How to reach Kafka, and the settings of new topics: the `KAFKA` part of db_creds.yaml. */
export interface KafkaSettings {
  brokers: string[];
  /** Topics are `<prefix>.pin` and so on. */
  prefix: string;
  /** For new topics; existing ones are left unchanged. */
  partitions: number;
  replicationFactor: number;
  ssl?: true | { ca?: string; cert?: string; key?: string };
  sasl?: { mechanism: "plain" | "scram-sha-256" | "scram-sha-512"; username: string; password: string };
}

/** The topic of a table. */
export const topicOf = (settings: KafkaSettings, table: Table): string => `${settings.prefix}.${table}`;

/** The compacted topic of checkpoints: a partition per table, numbered in {@link tables}. */
export const checkpointTopic = (settings: KafkaSettings): string => `${settings.prefix}.checkpoints`;

/** How many partitions {@link checkpointTopic} needs. */
export const checkpointPartitions = Math.max(...tableNames.map((table) => tables[table].checkpointPartition)) + 1;
