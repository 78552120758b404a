/**
 * What a rebuild would change, as text.
 *
 * @module
 */

import { count, printable } from "../io/text.ts";
import type { TableDifference } from "../lake/compare.ts";
import { cut, formatTable, fromDifference } from "./format.ts";

/** Formats the differences as tables and pairs of lines, at most 79 columns wide. */
export function formatDifferences(tables: TableDifference[]): string {
  const counts = tables.map(({ table, before, after, rows }) => [
    ...[table, change(before.clean, after.clean), rows.added, rows.removed, rows.changed],
    change(before.rejected, after.rejected),
    change(before.deleted, after.deleted),
  ]);
  const names = ["table", "rows of silver", "added", "removed", "changed", "rejects", "deletes"];
  const parts = [`What clean --rebuild would change\n${formatTable(names, counts)}`];
  const add = (title: string, names: string[], rows: (string | number | null)[][]) => {
    if (rows.length > 0) parts.push(`${title}\n${formatTable(names, rows)}`);
  };
  add(
    "Columns of silver",
    ["table", "column", "type now", "type then"],
    tables.flatMap(({ table, columns, reordered }) => [
      ...columns.map(({ column, before, after }) => [table, column, before ?? "(none)", after ?? "(none)"]),
      ...(reordered ? [[table, "(all)", "", "in another order"]] : []),
    ]),
  );
  add(
    "Messages that become clean, become rejects, or get another reason",
    ["table", "now", "then", "messages", "example"],
    tables.flatMap(({ table, rejects }) =>
      rejects.map(({ before, after, messages, example }) => [
        ...[table, before ?? "(clean)", after ?? "(clean)", messages, cut(example, 30)],
      ]),
    ),
  );
  add(
    "Values that change",
    ["table", "column", "rows"],
    tables.flatMap(({ table, values }) => values.map(({ column, rows }) => [table, column, rows])),
  );
  const examples = tables.flatMap(({ table, examples }) =>
    examples.map(({ ind, column, before, after }) => {
      const [one, other] = fromDifference(before ?? "null", after ?? "null", 20).map((text) =>
        cut(printable(text), 72),
      );
      return `  ${table} ${ind}, ${column}\n    - ${one}\n    + ${other}`;
    }),
  );
  if (examples.length > 0) parts.push(`Examples\n${examples.join("\n")}`);
  if (!changesAnything(tables)) parts.push("Nothing changes");
  return parts.join("\n\n");
}

/** Whether a rebuild would change anything. */
export const changesAnything = (tables: TableDifference[]): boolean =>
  tables.some(
    ({ rows, columns, reordered, rejects, values }) =>
      rows.added + rows.removed + rows.changed + columns.length + rejects.length + values.length > 0 || reordered,
  );

const change = (before: number, after: number): string =>
  before === after ? count(before) : `${count(before)} -> ${count(after)}`;
