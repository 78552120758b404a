/**
 * Compares the number of rows that were posted with what the table has: what the log did not tell shows there.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { changesBetween } from "../db_conn/log.ts";
import { cascades } from "../db_conn/log_checks.ts";
import type { LogTable } from "../db_conn/log_rows.ts";
import { ask, type Database } from "../db_conn/query.ts";
import { openSnapshot } from "../db_conn/snapshot.ts";
import { countRows, type MysqlSettings } from "../db_conn.ts";
import { some } from "../io/text.ts";
import { type Table, tables } from "../io.ts";
import type { Progress } from "../kafka/checkpoint.ts";

/** Pause between two looks, ms. */
const pause = 200;

/** Counts the rows up to the last key posted; says in one line what is wrong, if anything is. */
export async function countMismatch(
  db: Database,
  table: Table,
  { lastKey, rows }: Progress,
): Promise<string | undefined> {
  if (lastKey === null) return undefined;
  const more = (await countRows(db, table, lastKey)) - rows;
  const { source } = tables[table];
  if (more < 0) {
    return `"${source}" has ${difference(more)} up to key ${lastKey} than were posted: what was deleted stays in the topic and in silver; post --full posts the deletes`;
  }
  if (more === 0) return undefined;
  return `"${source}" has ${difference(more)} up to key ${lastKey} than were posted: post sees only keys above the last one; post --full posts every row again`;
}

/**
 * The same where the log is followed: the rows as of a snapshot, and what the log tells up to it; a difference must stay.
 * Not on MySQL, whose snapshots may show more than its log up to then: such rows were counted twice.
 */
export async function countMismatchInLog(
  db: Database,
  table: Table,
  {
    mysql,
    logTable,
    begun,
    signal,
  }: { mysql: MysqlSettings; logTable: LogTable; begun: Progress; signal: AbortSignal },
): Promise<string | undefined> {
  const { lastKey } = begun;
  if (lastKey === null || !begun.log) return undefined;
  const { source } = tables[table];
  const greatest = BigInt(lastKey);
  let { rows, log } = begun;
  for (let last: number | undefined; ; ) {
    const { place: to, isExact } = await openSnapshot(db, mysql);
    const there = isExact ? await countRows(db, table, lastKey) : 0;
    await ask(db, "COMMIT");
    if (!isExact) return undefined;
    for await (const { keys, place } of changesBetween(mysql, { table: logTable, from: log, to, signal })) {
      for (const [key, more] of keys) if (BigInt(key) <= greatest) rows += more;
      log = place;
    }
    const more = there - rows;
    if (more === 0) return undefined;
    if (more === last) {
      return `"${source}" has ${difference(more)} up to key ${lastKey} than the log of MySQL tells: post --full posts every row again, and deletes`;
    }
    last = more;
    await sleep(pause, undefined, { signal });
  }
}

const difference = (more: number) => (more > 0 ? some(more, "more row") : some(-more, "fewer row"));

/** Says which rows the log will not name, if any. */
export async function untold(db: Database, table: Table): Promise<string[]> {
  return (await cascades(db, table)).map(
    ({ constraint, parent }) =>
      `The foreign key "${constraint}" changes rows of "${tables[table].source}" with those of "${parent}", and the log of MySQL does not tell: post --full finds them`,
  );
}
