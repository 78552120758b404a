/**
 * Collects the keys of one table's rows in the log, and refuses events that change rows without naming them.
 *
 * @module
 */

import {
  changesIn,
  eventTypes,
  type KeyColumn,
  layoutIn,
  namesIn,
  rowsKind,
  statementIn,
  type TableLayout,
  tableNumber,
} from "./log_events.ts";
import { same, type TableName, touches } from "./log_statements.ts";

/** A table and its key as the log has them. */
export interface LogTable extends TableName, KeyColumn {}

/** Counts the table's rows in the current transaction and collects their keys; the first `skip` are already done. */
export function rowCounter(table: LogTable, { skip, most }: { skip: number; most: number }) {
  const keys = new Map<string, number>();
  const layouts = new Map<number, TableLayout>();
  let left = skip;
  let done = 0;

  const count = (key: string | undefined, more: number) => {
    if (key !== undefined) keys.set(key, (keys.get(key) ?? 0) + more);
  };
  const readTable = (body: Buffer) => {
    const names = namesIn(body);
    const isOurs = same(names.schema, table.database) && same(names.table, table.table);
    if (isOurs) layouts.set(tableNumber(body), layoutIn(body));
    else layouts.delete(tableNumber(body));
  };
  const readRows = (type: number, body: Buffer): boolean => {
    const layout = layouts.get(tableNumber(body));
    if (!layout) return false;
    for (const { before, after } of changesIn(type, body, layout, table)) {
      if (done >= left && keys.size + 2 > most) return true;
      if (++done <= left) continue;
      count(before, -1);
      count(after, 1);
    }
    return false;
  };

  return {
    keys,
    /** The number of rows of the transaction that are done. */
    skip: () => Math.max(left, done),
    begin(skip: number) {
      [left, done] = [skip, 0];
    },
    /** A restart of the server renumbers the tables. */
    forgetTables: () => layouts.clear(),
    /** Returns whether the keys have reached `most`. */
    take(type: number, body: Buffer): boolean {
      if (type === eventTypes.tableMap) readTable(body);
      else if (rowsKind(type)) return readRows(type, body);
      else if (type === eventTypes.partialUpdate && layouts.has(tableNumber(body))) {
        throw new Error("MySQL logged parts of JSON values; SET GLOBAL binlog_row_value_options = ''");
      } else refuse(type, body, { table, done });
      return false;
    },
  };
}

/** Throws if an event may have changed rows of the table without naming them; `done` rows came before it. */
function refuse(type: number, body: Buffer, { table, done }: { table: LogTable; done: number }): void {
  if (type === eventTypes.query || type === eventTypes.loadQuery || type === eventTypes.compressedQuery) {
    const { schema, sql } = statementIn(type, body);
    if (touches(sql, schema, table)) throw new Error(`"${shortened(sql)}" changed it without naming the rows`);
  } else if (type === eventTypes.xaPrepare && done > 0 && body[0] === 0) {
    throw new Error(
      "XA PREPARE logged rows that become visible only at XA COMMIT, which does not name them; first commit or roll back the transactions that XA RECOVER shows",
    );
  } else if (type === eventTypes.payload) {
    throw new Error("MySQL compressed a transaction; SET GLOBAL binlog_transaction_compression = OFF");
  } else if (type === eventTypes.incident) {
    throw new Error("the server reports that it failed to log a change");
  }
}

const shortened = (sql: string) => {
  const line = sql.replace(/\s+/g, " ").trim();
  return line.length > 100 ? `${line.slice(0, 99)}…` : line;
};
