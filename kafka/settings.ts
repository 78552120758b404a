/**
 * Where Kafka is, and the names of the topics.
 *
 * @module
 */
import { type Table, tableNames } from "../io.ts";

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

/** The compacted topic that says how far each table is posted: one partition per table. */
export const checkpointTopic = (settings: KafkaSettings): string => `${settings.prefix}.checkpoints`;

/** The partition of {@link checkpointTopic} that belongs to a table. */
export const checkpointPartition = (table: Table): number => tableNames.indexOf(table);
