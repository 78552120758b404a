/**
 * Compares a topic with its table after updates and deletes.
 *
 * @module
 */

import assert from "node:assert/strict";
import type { Connection } from "mysql2/promise";
import type { Table } from "../../io.ts";
import { readCheckpoints } from "../../kafka/checkpoint.ts";
import { connectReader } from "../../kafka/client.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import type { Message } from "./oracle.ts";
import { readTopic } from "./services.ts";
import { sourceMessages } from "./source.ts";

/** The newest value of each key; null for a delete. */
export const newest = (messages: Message[]): Map<string, string | null> =>
  new Map(messages.map(({ key, value }) => [String(key), value?.toString() ?? null]));

/**
 * The differences between a topic and its table. There are none if the newest message of each key is the row, or a
 * delete if the table has no such row.
 */
export async function differences(kafka: KafkaSettings, prefix: string, db: Connection, table: Table) {
  const rows = await sourceMessages(db, table);
  const posted = newest(await readTopic(kafka, `${prefix}.${table}`));
  const keys = [...new Set([...rows.keys(), ...posted.keys()])];
  const wrong = keys.filter((key) => (posted.get(key) ?? null) !== (rows.get(key) ?? null));
  return wrong.map((key) => ({ key, row: rows.get(key) ?? null, posted: posted.get(key) }));
}

/** Fails if a topic differs from its table, or the checkpoint from the number of rows. */
export async function assertPosted(kafka: KafkaSettings, prefix: string, db: Connection, table: Table): Promise<void> {
  assert.deepEqual(await differences(kafka, prefix, db, table), [], `${prefix}.${table}`);
  await using reader = await connectReader(kafka);
  const { [table]: checkpoint } = await readCheckpoints(reader, { ...kafka, prefix }, [table]);
  assert.equal(checkpoint?.rows, (await sourceMessages(db, table)).size, `rows of ${prefix}.${table}`);
}
