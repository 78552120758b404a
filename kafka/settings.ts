/**
 * Where Kafka is, and the names of the topics.
 *
 * @module
 */
import { type Table, tableNames, tables } from "../io.ts";

/** Where Kafka is and how the topics are to be; the `KAFKA` part of db_creds.yaml. */
export interface KafkaSettings {
  brokers: string[];
  /** Topics are `<prefix>.pin` and so on. */
  prefix: string;
  /** For topics that are made; those that exist are kept as they are. */
  partitions: number;
  replicationFactor: number;
  ssl?: true | { ca?: string; cert?: string; key?: string };
  sasl?: { mechanism: "plain" | "scram-sha-256" | "scram-sha-512"; username: string; password: string };
}

/** What the messages of one table are called in Kafka. */
export const topicOf = (settings: KafkaSettings, table: Table): string => `${settings.prefix}.${table}`;

/** The compacted topic that says how far each table is posted: a partition per table, by {@link tables}. */
export const checkpointTopic = (settings: KafkaSettings): string => `${settings.prefix}.checkpoints`;

/** How many partitions {@link checkpointTopic} needs. */
export const checkpointPartitions = Math.max(...tableNames.map((table) => tables[table].checkpointPartition)) + 1;
