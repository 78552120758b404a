/**
 * Lays texts out for a terminal: columns, tables, bars.
 *
 * @module
 */

import { relative } from "node:path";
import { byteCount, count, duration, printable, sum } from "../io/text.ts";
import type { Table } from "../io.ts";
import { isBalanced, type LedgerRow } from "../lake/ledger.ts";
import type { Behind, Source } from "../report/status.ts";
import type { Finding } from "./finding.ts";

/** Columns of a text: none for a combining mark, two for a wide character. */
export function width(text: string): number {
  let columns = 0;
  for (const character of text) {
    if (/\p{Mn}|\p{Me}|\p{Cf}/u.test(character)) continue;
    columns +=
      /\p{Emoji_Presentation}|[\u1100-\u115f\u2e80-\ua4cf\uac00-\ud7a3\uf900-\ufaff\ufe30-\ufe4f\uff00-\uff60]/u.test(
        character,
      )
        ? 2
        : 1;
  }
  return columns;
}

/** Shortens a text to some columns, with an ellipsis. */
export function cut(text: string, columns: number): string {
  if (width(text) <= columns) return text;
  let kept = "";
  for (const character of text) {
    if (width(kept) + width(character) > columns - 1) break;
    kept += character;
  }
  return `${kept}…`;
}

/** A bar of 8 characters for some eighths of a character, 64 at most; `empty` fills its rest. */
export function bar(eighths: number, empty = " "): string {
  return `${"█".repeat(eighths >> 3)}${["", ..."▏▎▍▌▋▊▉"][eighths % 8]}`.padEnd(8, empty);
}

/** Two texts, each from `lead` characters before their first difference if that is further in than twice as much. */
export function fromDifference(one: string, other: string, lead: number): [string, string] {
  let same = 0;
  while (same < one.length && one[same] === other[same]) same++;
  const from = same > 2 * lead ? same - lead : 0;
  const part = (text: string) => `${from > 0 ? "…" : ""}${text.slice(from)}`;
  return [part(one), part(other)];
}

/** Columns of the terminal; unlimited for a file or a pipe. */
const room = () => (process.stdout.isTTY ? (process.stdout.columns ?? 80) : Number.POSITIVE_INFINITY);

const pad = (text: string, columns: number, toTheRight: boolean): string => {
  const gap = " ".repeat(Math.max(0, columns - width(text)));
  return toTheRight ? gap + text : text + gap;
};

/** A text as one line of the terminal, cut to its width. */
export const oneLine = (text: string): string => cut(printable(text), room());

/** Text in exactly so many columns: control characters are replaced, a long text is cut, a short one is padded. */
export const fit = (text: string, columns: number): string => pad(cut(printable(text), columns), columns, false);

/** Rows as an aligned table, numbers to the right; the widest text is cut to fit a narrow terminal. */
export function formatTable(
  columns: string[],
  rows: (string | number | null)[][],
  { most = Number.POSITIVE_INFINITY }: { most?: number } = {},
): string {
  const cells = rows.slice(0, most).map((row) =>
    row.map((value, i) => {
      if (value === null) return "";
      const grouped = typeof value === "number" && Number.isInteger(value) && !columns[i]?.endsWith("year");
      return grouped ? count(value) : cut(printable(String(value)), 48);
    }),
  );
  const widths = columns.map((name, i) => Math.max(width(name), ...cells.map((row) => width(row[i] ?? ""))));
  const right = columns.map((_, i) => rows.length > 0 && rows.every((row) => typeof row[i] !== "string"));
  const excess = sum(widths) + 2 * widths.length - room();
  const widest = widths.indexOf(Math.max(...widths.filter((_, i) => !right[i])));
  if (excess > 0 && widest >= 0) widths[widest] = Math.max(8, (widths[widest] as number) - excess);
  const line = (row: string[]) =>
    row
      .map((text, i) => pad(cut(text, widths[i] as number), widths[i] as number, right[i] ?? false))
      .join("  ")
      .trimEnd();
  const more = rows.length > most ? [`… ${count(rows.length - most)} more`] : [];
  return [line(columns), line(widths.map((w) => "-".repeat(w))), ...cells.map(line), ...more]
    .map((l) => `  ${l}`)
    .join("\n");
}

/** The title of an answer and its name, on two lines if one is too long for the terminal. */
export const formatTitle = (title: string, name: string): string =>
  `${title}${width(title) + name.length + 3 > room() ? "\n  " : " "}(${name})`;

/** A path below the working folder as a relative one. */
export function shortPath(path: string): string {
  const inside = relative(".", path);
  return inside.startsWith("..") || inside === "" ? path : inside;
}

/** A line for each measure and a column for each table; notes are dropped if they do not fit. */
export function formatByTable(
  names: string[],
  measures: [name: string, values: (string | number | null)[], note?: string][],
): string {
  const cells = measures.map(([, values]) => values.map((v) => (typeof v === "number" ? count(v) : (v ?? "-"))));
  const first = Math.max(...measures.map(([name]) => name.length));
  const widths = names.map((name, i) => Math.max(name.length, 7, ...cells.map((row) => (row[i] as string).length)));
  const line = (name: string, values: string[], note = "") => {
    const text = `  ${name.padEnd(first)}${values.map((v, i) => `  ${pad(v, widths[i] as number, true)}`).join("")}`;
    return note && text.length + 2 + note.length <= Math.min(80, room()) ? `${text}  ${note}` : text;
  };
  return [line("", names), ...measures.map(([name, , note], i) => line(name, cells[i] as string[], note))].join("\n");
}

/** The ledger with the counts of MySQL and the checkpoints, if known, then the rejects by reason. */
export function formatLedger(ledger: LedgerRow[], sources?: Record<Table, Source>): string {
  const of = (name: keyof Source & ("in_mysql" | "posted")) => ledger.map((row) => sources?.[row.table][name] ?? null);
  const reasons = formatReasons(ledger);
  return `${formatByTable(
    ledger.map((row) => row.table),
    [
      ...(sources
        ? ([
            ["rows in MySQL", of("in_mysql")],
            ["rows posted", of("posted")],
            ["behind MySQL", ledger.map((row) => formatBehind(sources[row.table].behind))],
          ] as [string, (string | number | null)[]][])
        : []),
      ["messages", ledger.map((row) => row.messages)],
      ["= clean", ledger.map((row) => row.clean)],
      ["+ superseded", ledger.map((row) => row.superseded), "a newer message of the key won"],
      ["+ deleted", ledger.map((row) => row.deleted)],
      ["+ rejected", ledger.map((row) => row.rejected)],
      ["balanced", ledger.map((row) => (isBalanced(row) ? "yes" : "NO"))],
    ],
  )}${reasons && `\n\nRejects by reason\n${reasons}`}`;
}

/** How far a table is behind MySQL: `0 s`, `4 s, 2.1 kB`; `1+ files` if the bytes are unknown, `-` if all is. */
export function formatBehind(behind: Behind | null): string {
  if (!behind) return "-";
  const { seconds, bytes, files } = behind;
  if (bytes === 0) return "0 s";
  const size = bytes !== null ? byteCount(bytes) : files > 0 ? `${files}+ ${files === 1 ? "file" : "files"}` : "";
  // The log's times are whole seconds.
  const time = seconds === null ? "" : seconds < 100 ? `${seconds} s` : duration(seconds * 1000);
  return [time, size].filter(Boolean).join(", ") || "-";
}

/** Rejects by reason; empty if there are none. */
export function formatReasons(ledger: LedgerRow[]): string {
  const rows = ledger.flatMap((row) => Object.entries(row.reasons).map(([reason, n]) => [row.table, reason, n]));
  return rows.length > 0 ? formatTable(["table", "reason", "rejected"], rows) : "";
}

const marks = { ok: ["32", "✓"], warned: ["33", "!"], failed: ["31", "✗"], skipped: ["90", "-"] } as const;

/** A finding of doctor, its remedy on the next line; coloured in a terminal. */
export function formatFinding({ check, state, text, remedy }: Finding): string {
  const [colour, mark] = marks[state];
  const shown = process.stdout.isTTY && !process.env.NO_COLOR ? `\u001b[${colour}m${mark}\u001b[0m` : mark;
  return `${shown} ${check.padEnd(17)} ${printable(text)}${remedy ? `\n${" ".repeat(20)}${printable(remedy)}` : ""}`;
}

/** The time since `from`, as text. */
export const seconds = (from: number): string => duration(Date.now() - from);
