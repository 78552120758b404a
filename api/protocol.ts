/**
 * The messages between the main thread and the posting threads: orders go down, facts (in the past tense) come up.
 *
 * @module
 */

import { isTransientMysql, type MysqlSettings } from "../db_conn.ts";
import { type Table, tableNames } from "../io.ts";
import type { Checkpoint } from "../kafka/checkpoint.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import type { KafkaSettings } from "../kafka/settings.ts";

/** What a posting thread tells, in the past tense. */
export type PostFact =
  | { fact: "claimed"; table: Table; checkpoint: Checkpoint }
  | { fact: "planned"; table: Table }
  | { fact: "counted"; table: Table; total: number }
  | { fact: "warned"; table: Table; text: string }
  | { fact: "waited"; table: Table; text: string }
  | { fact: "posted"; table: Table; rows: number }
  | { fact: "done"; table: Table; result: PostResult };

/** What became of one table. */
export interface PostResult {
  table: Table;
  /** Rows posted by this run. */
  rows: number;
  lastKey: string | null;
}

/** What a run is to do; known once all checkpoints are. */
export type Plan = { full: string | null };

/** What a thread waits for: to claim its table, to learn the plan, to send rows. */
export type Order =
  | { order: "claim"; maxMessageBytes: Record<Table, number> }
  | ({ order: "plan" } & Plan)
  | { order: "send" }
  | { order: "stop" };

export interface Job {
  kind: "post";
  table: Table;
  owner: Checkpoint["owner"];
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** A full run was asked for: it needs no earlier row in the topic. */
  full: boolean;
  waitMs: number;
}

/** The table whose checkpoint decides who posts; the others are claimed after it. */
export const leader: Table = "pin";
export const followers = tableNames.filter((table) => table !== leader);

export const isTransient = (error: unknown): boolean => isTransientMysql(error) || isTransientKafka(error);

/** The full run that the checkpoint is in the middle of. */
export const unfinished = ({ full }: Checkpoint) => (full && !full.done ? full : undefined);
