/**
 * What the page is made of: figures, tables, and how values are said.
 *
 * @module
 */
import { count, some, sum } from "../io/text.ts";
import { asHtml, type Html, html, oneLine, type Piece } from "./html.ts";
import type { Cell } from "./questions.ts";

/** Rows of a table that the page shows at most; Parquet has them all. */
const mostRows = 1_000;
/** Longer tables are folded away. */
const mostOpenRows = 24;

/** A chart with its title and, below that, what its numbers are. */
export const figure = ({ title, unit, chart }: { title: Piece; unit?: Piece; chart: Html }): Html =>
  html`<figure><figcaption><b>${title}</b>${unit && html`<span class="unit">${unit}</span>`}</figcaption>
${chart}</figure>
`;

/** A chart and its numbers, side by side where there is room. */
export const pair = (left: Html, right: Html): Html => html`<div class="pair">${left}${right}</div>
`;

/** What a colour of a chart stands for. */
export const key = (color: string, meaning: string): Html =>
  html`<span class="key" style="--key: var(--${color})">${meaning}</span> `;

/** Says that some charts were left out. */
export const more = (n: number, what: string): Html | false =>
  n > 0 && html`<p class="unit">${count(n)} more ${what} have no chart here; the table has them.</p>`;

/** How columns are called on the page. */
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
const isCount = /_count$|^number_|^\d+$|^(pins|with_.*|messages|clean|superseded|deleted|rejected|rows|of)$/;

/** A table of rows as they are in Parquet. */
export function table({
  id,
  caption,
  columns,
  rows,
}: {
  id: string;
  caption: string;
  columns: string[];
  rows: Cell[][];
}): Html {
  const classes = columns.map((name) => isCount.test(name) && asHtml(' class="n"'));
  const titles = columns.map((name) => headings[name] ?? name.charAt(0).toUpperCase() + name.slice(1));
  const cell = (value: Cell, i: number): Html => {
    const content = classes[i] ? count(value) : value === null ? html`<i>none</i>` : data(value);
    return i === 0 ? html`<th scope="row"${classes[i]}>${content}</th>` : html`<td${classes[i]}>${content}</td>`;
  };
  const body = html`<table id="${id}"><caption>${caption}</caption>
<thead><tr>${titles.map((title, i) => html`<th scope="col"${classes[i]}>${title}</th>`)}</tr></thead>
<tbody>
${rows.slice(0, mostRows).map((row) => html`<tr>${row.map(cell)}</tr>\n`)}</tbody></table>
`;
  if (rows.length > mostOpenRows) {
    const cut = html`<p class="unit">The first ${count(mostRows)} rows; the file has them all.</p>`;
    return html`<details><summary>Table of ${some(rows.length, "row")}</summary>${body}${rows.length > mostRows && cut}</details>`;
  }
  if (columns.length <= 4) return body;
  return html`<div class="scroll" role="region" tabindex="0" aria-label="${caption}">${body}</div>`;
}

/** Text from the data, isolated, since it may run from right to left. */
export const data = (value: Cell): Html => html`<bdi>${value}</bdi>`;

/** A value as text on one line. */
export const text = (value: Cell | undefined): string => oneLine(String(value ?? "none"));

/** The name of a category; null is one too. */
export const category = (value: Cell | undefined): string => (value === null ? "no category" : text(value));

/** A share in percent, rounded down, so that only all of it is 100 %. */
export const share = (part: number, whole: number): string =>
  whole === 0 ? "none" : `${Math.floor((part / whole) * 1000) / 10} %`;

/** Rows by the value of one column, in the order in which the values come. */
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
