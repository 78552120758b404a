/**
 * The messages between the main thread and the posting threads: commands to the threads, facts (events) back.
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

/** Events of a posting thread. */
export type PostFact =
  | { fact: "claimed"; table: Table; checkpoint: Checkpoint }
  | { fact: "planned"; table: Table }
  | { fact: "counted"; table: Table; total: number }
  | Notice
  | { fact: "posted"; table: Table; rows: number; deleted: number }
  | { fact: "upToDate"; table: Table }
  | { fact: "done"; table: Table; result: PostResult };

/** Result of posting one table. */
export interface PostResult {
  table: Table;
  /** Rows and deletes posted by this run. */
  rows: number;
  deleted: number;
  lastKey: string | null;
}

/** What a run does, decided when all checkpoints are known: the id of its full run, or null. */
export type Plan = { full: string | null };

/** Commands to a posting thread: claim its table, follow a plan, send rows, stop. */
export type Command =
  | { command: "claim"; maxMessageBytes: Record<Table, number> }
  | ({ command: "plan" } & Plan)
  | { command: "send" }
  | { command: "stop" };

/** What a posting thread does. */
export interface Job {
  kind: "post";
  table: Table;
  owner: Checkpoint["owner"];
  mysql: MysqlSettings;
  kafka: KafkaSettings;
  /** A full run was requested, which does not need the earlier rows in the topic. */
  full: boolean;
  /** Run until stopped. */
  follow: boolean;
  waitMs: number;
}

/** The table whose claim decides which process posts. The sessions of the others open after it. */
export const leader: Table = "pin";
export const followers = tableNames.filter((table) => table !== leader);

/** Whether a retry may succeed after an error of either service. */
export const isTransient = (error: unknown): boolean => isTransientMysql(error) || isTransientKafka(error);

/** The full run of a checkpoint, if it is not finished. */
export const unfinished = ({ full }: Checkpoint) => (full && !full.done ? full : undefined);
