/**
 * The messages between the main thread and the posting threads: commands go down, facts (in the past tense) come up.
 *
 * @module
 */

import { isTransientMysql } from "../db_conn/errors.ts";
import type { MysqlSettings } from "../db_conn.ts";
import { type Table, tableNames } from "../io.ts";
import type { Checkpoint } from "../kafka/checkpoint.ts";
import { isTransientKafka } from "../kafka/errors.ts";
import type { KafkaSettings } from "../kafka/settings.ts";
import type { Notice } from "../runtime/notice.ts";

/** What a posting thread tells, in the past tense. */
export type PostFact =
  | { fact: "claimed"; table: Table; checkpoint: Checkpoint }
  | { fact: "planned"; table: Table }
  | { fact: "counted"; table: Table; total: number }
  | Notice
  | { fact: "posted"; table: Table; rows: number; deleted: number }
  | { fact: "upToDate"; table: Table }
  | { fact: "done"; table: Table; result: PostResult };

/** What became of one table. */
export interface PostResult {
  table: Table;
  /** Rows and deletes posted by this run. */
  rows: number;
  deleted: number;
  lastKey: string | null;
}

/** What a run is to do; known once all checkpoints are. */
export type Plan = { full: string | null };

/** What the main thread asks of a posting thread: to claim its table, to follow a plan, to send rows, to stop. */
export type Command =
  | { command: "claim"; maxMessageBytes: Record<Table, number> }
  | ({ command: "plan" } & Plan)
  | { command: "send" }
  | { command: "stop" };

export interface Job {
  kind: "post";
  table: Table;
  owner: Checkpoint["owner"];
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** A full run was asked for: it needs no earlier row in the topic. */
  full: boolean;
  /** Go on until stopped. */
  follow: boolean;
  waitMs: number;
}

/** The table whose checkpoint decides who posts; the others are claimed after it. */
export const leader: Table = "pin";
export const followers = tableNames.filter((table) => table !== leader);

/** Whether an error of either service may be gone at the next try. */
export const isTransient = (error: unknown): boolean => isTransientMysql(error) || isTransientKafka(error);

/** The full run that the checkpoint is in the middle of. */
export const unfinished = ({ full }: Checkpoint) => (full && !full.done ? full : undefined);
