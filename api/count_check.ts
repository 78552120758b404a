/**
 * Compares the number of rows posted with those of the table, to find changes that the binary log does not have.
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

/** Pause between two counts, ms. */
const pause = 200;

/** Counts the rows up to the last key posted. @returns a warning if the numbers differ */
export async function countMismatch(
  db: Database,
  table: Table,
  { lastKey, rows }: Progress,
): Promise<string | undefined> {
  if (lastKey === null) return undefined;
  const more = (await countRows(db, table, lastKey)) - rows;
  const { source } = tables[table];
  if (more < 0) {
    return `"${source}" has ${difference(more)} up to key ${lastKey} than were posted: the deleted rows stay in the topic and in silver; post --full posts the deletes`;
  }
  if (more === 0) return undefined;
  return `"${source}" has ${difference(more)} up to key ${lastKey} than were posted: post sees only keys above the last one; post --full posts every row again`;
}

/**
 * The same for a table that is followed in the binary log: compares the rows of a snapshot with the rows posted plus the
 * changes in the log up to it, and warns if two counts differ equally. Does nothing on MySQL, whose snapshots may show
 * more than the log up to their place, so that rows would be counted twice.
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
    const found = isExact ? await countRows(db, table, lastKey) : 0;
    await ask(db, "COMMIT");
    if (!isExact) return undefined;
    for await (const { keys, place } of changesBetween(mysql, { table: logTable, from: log, to, signal })) {
      for (const [key, more] of keys) if (BigInt(key) <= greatest) rows += more;
      log = place;
    }
    const more = found - rows;
    if (more === 0) return undefined;
    if (more === last) {
      return `"${source}" has ${difference(more)} up to key ${lastKey} than the binary log of MySQL has: post --full posts every row again, and deletes`;
    }
    last = more;
    await sleep(pause, undefined, { signal });
  }
}

const difference = (more: number) => (more > 0 ? some(more, "more row") : some(-more, "fewer row"));

/** Warns about foreign keys whose changes the binary log does not have. */
export async function unloggedChanges(db: Database, table: Table): Promise<string[]> {
  return (await cascades(db, table)).map(
    ({ constraint, parent }) =>
      `The foreign key "${constraint}" changes rows of "${tables[table].source}" together with those of "${parent}", and MySQL does not log these changes: post --full finds them`,
  );
}
