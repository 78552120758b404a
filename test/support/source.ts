/**
 * The expected messages of MySQL rows.
 *
 * @module
 */

import type { Connection } from "mysql2/promise";
import { rowToJson, type Table, tables } from "../../io.ts";

/** The expected messages of a topic: every row of the table as JSON, by key. */
export async function sourceMessages(connection: Connection, table: Table): Promise<Map<string, string>> {
  const { source, key, columns } = tables[table];
  const [rows, fields] = await connection.query({
    sql: `SELECT * FROM ${source} ORDER BY \`${key}\``,
    rowsAsArray: true,
  });
  const described = fields.map(({ name }) => ({ name, kind: columns[name as keyof typeof columns] }));
  return new Map((rows as string[][]).map((row) => [row[0] as string, rowToJson(described, row)]));
}
