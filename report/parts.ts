/**
 * Building blocks of the report page: figures, tables, and values as text.
 *
 * @module
 */
import { count, some, sum } from "../io/text.ts";
import { asHtml, type Html, html, oneLine, type Piece } from "./html.ts";
import type { Cell } from "./questions.ts";

/** Rows of a table on the page; Parquet has all of them. */
const mostRows = 1_000;
/** Tables with more rows are folded. */
const mostOpenRows = 24;

/** A chart with its title, and the unit of its numbers. */
export const figure = ({ title, unit, chart }: { title: Piece; unit?: Piece; chart: Html }): Html =>
  html`<figure><figcaption><b>${title}</b>${unit && html`<span class="unit">${unit}</span>`}</figcaption>
${chart}</figure>
`;

/** Two parts side by side where there is room; `broad` gives the left one most of it. */
export const pair = (left: Piece, right: Piece, { broad = false }: { broad?: boolean } = {}): Html =>
  html`<div class="pair${broad && " broad"}"><div>${left}</div><div>${right}</div></div>
`;

/** The meaning of a colour. */
export const key = (color: string, meaning: string): Html =>
  html`<span class="key" style="--key: var(--${color})">${meaning}</span> `;

/** Column headings that differ from the column's name. */
const headings: Record<string, string> = {
  category_count: "Posts",
  post_year: "Year",
  poster_name: "Poster",
  follower_count: "Followers",
  age_group: "Age group",
  median_follower_count: "Median followers",
  join_year: "Year of joining",
  number_users_joined: "People",
  pins: "Posts",
  with_geo: "With a place",
  with_user: "With a user",
  with_both: "With both",
};
const isCount = /_count$|^number_|^\d+$|^(pins|with_.*|messages|clean|superseded|deleted|rejected|rows|of|countries)$/;

/** A table of rows. */
interface TableOptions {
  id: string;
  caption: string;
  columns: string[];
  rows: Cell[][];
  /** The column whose numbers have bars beside them, from 0 to the greatest. */
  bars?: number;
  /** Shades the numbers, more for greater ones. */
  shaded?: boolean;
  /** Folds the table although it is short, because the page says the same in fewer words. */
  folded?: boolean;
}

/** A table of rows with the values of Parquet; a long one is folded. */
export function table({ id, caption, columns, rows, bars, shaded = false, folded = false }: TableOptions): Html {
  const isNumber = columns.map((name) => isCount.test(name));
  const classes = isNumber.map((is) => is && asHtml(' class="n"'));
  const titles = columns.map((name) => headings[name] ?? name.charAt(0).toUpperCase() + name.slice(1));
  const shown = rows.slice(0, mostRows);
  const partOf = bars === undefined ? undefined : partsOf(shown.map((row) => row[bars] ?? null));
  const shadeOf = shaded ? shadesOf(shown.flatMap((row) => row.filter((_, i) => isNumber[i]))) : undefined;
  const styleOf = (value: Cell, i: number) => (i === bars ? partOf?.(value) : isNumber[i] && shadeOf?.(value));
  const head = (title: string, i: number): Html =>
    html`<th scope="col"${i === bars && partOf?.(0)}${classes[i]}>${title}</th>`;
  const cell = (value: Cell, i: number): Html => {
    const content = isNumber[i] ? count(value) : value === null ? html`<i>none</i>` : data(value);
    if (i === 0) return html`<th scope="row"${classes[i]}>${content}</th>`;
    return html`<td${styleOf(value, i)}${classes[i]}>${content}</td>`;
  };
  const body = html`<table id="${id}"><caption>${caption}</caption>
<thead><tr>${titles.map(head)}</tr></thead>
<tbody>
${shown.map((row) => html`<tr>${row.map(cell)}</tr>\n`)}</tbody></table>
`;
  if (folded || rows.length > mostOpenRows) {
    const cut = html`<p class="unit">The first ${count(mostRows)} rows; the file has all of them.</p>`;
    return html`<details${folded && asHtml(' class="repeats"')}><summary>Table of ${some(rows.length, "row")}</summary>${body}${rows.length > mostRows && cut}</details>`;
  }
  if (columns.length <= 4) return body;
  return html`<div class="scroll" role="region" tabindex="0" aria-label="${caption}">${body}</div>`;
}

/** The length of a cell's bar, as an attribute: its part of the greatest value. */
function partsOf(values: Cell[]): (value: Cell) => Html {
  const greatest = values.map(Number).reduce((a, b) => Math.max(a, b), 0);
  return (value) => html` style="--part: ${greatest > 0 ? (Number(value) / greatest).toFixed(4) : 0}"`;
}

/** The shade of a cell, as an attribute: none for the least of the values, the full one for the greatest. */
function shadesOf(values: Cell[]): (value: Cell) => Html {
  const numbers = values.map(Number);
  const least = numbers.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const range = numbers.reduce((a, b) => Math.max(a, b), 0) - least;
  return (value) => html` style="--shade: ${Math.round(range > 0 ? ((Number(value) - least) / range) * 40 : 0)}%"`;
}

/** Text from the data, isolated, because it may run from right to left. */
export const data = (value: Cell): Html => html`<bdi>${value}</bdi>`;

/** A value as text on one line. */
export const text = (value: Cell | undefined): string => oneLine(String(value ?? "none"));

/** The name of a category; null is one too. */
export const category = (value: Cell | undefined): string => (value === null ? "no category" : text(value));

/** A share in percent, rounded down, so that only a complete one is 100 %. */
export const share = (part: number, whole: number): string => {
  if (whole === 0) return "none";
  const tenths = Math.floor((part / whole) * 1000);
  return part > 0 && tenths === 0 ? "under 0.1 %" : `${tenths / 10} %`;
};

/** Texts as a list: "a, b and c". */
export const list = (texts: string[]): string =>
  texts.length < 2 ? texts.join() : `${texts.slice(0, -1).join(", ")} and ${texts.at(-1)}`;

/** Rows by the value of one column, in the order of their first rows. */
export function groups(rows: Cell[][], column: number): Map<Cell, Cell[][]> {
  const found = new Map<Cell, Cell[][]>();
  for (const row of rows) {
    const value = row[column] ?? null;
    const list = found.get(value);
    if (list) list.push(row);
    else found.set(value, [row]);
  }
  return found;
}

/** The sum of a column. */
export const columnSum = (rows: Cell[][], column: number): number => sum(rows, (row) => Number(row[column]));

/** The rows with the greatest value in a column; several if they tie. */
export function topRows(rows: Cell[][], column: number): Cell[][] {
  const most = rows.reduce((max, row) => Math.max(max, Number(row[column] ?? 0)), 0);
  return rows.filter((row) => Number(row[column] ?? 0) === most);
}
