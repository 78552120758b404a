/**
 * Reads the three topics of a prefix together.
 *
 * @module
 */

import assert from "node:assert/strict";
import { tableNames } from "../../io.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { readTopic } from "./services.ts";

/** The keys of the three topics, in order; they must be equal. */
export async function keysIn(kafka: KafkaSettings, prefix: string): Promise<string[]> {
  const keys = [];
  for (const table of tableNames) {
    keys.push((await readTopic(kafka, `${prefix}.${table}`)).map((m) => m.key?.toString() ?? "none"));
  }
  const [pin, geo, user] = keys as [string[], string[], string[]];
  assert.deepEqual(geo, pin);
  assert.deepEqual(user, pin);
  return pin;
}
