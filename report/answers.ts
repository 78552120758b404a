/**
 * The sections of the answers: a sentence with the finding, a chart, and the table.
 *
 * @module
 */

import { count, some, sum } from "../io/text.ts";
import type { Table } from "../io.ts";
import type { LedgerRow } from "../lake/ledger.ts";
import { columns, logarithmic, type Point, short, steps } from "./charts.ts";
import { type Html, html } from "./html.ts";
import { category, columnSum, data, figure, groups, key, list, pair, share, table, text, topRows } from "./parts.ts";
import type { Answer, Cell, Question } from "./questions.ts";
import type { Place, World } from "./world.ts";

/** Maps or charts side by side, at most. */
const mostPanels = 15;

/** How the page shows an answer. */
interface Section {
  /** The answer's columns. An answer with others, from an edited file, is shown as a table. */
  columns: string[];
  show: (rows: Cell[][], context: Context) => Html;
  /** The section fits half of the page's width. */
  isSmall?: boolean;
  /** For an answer that names the first of each group, or with `column` undefined of all rows: what the rows are of. */
  ranked?: { one: string; several: string; column?: number };
}

interface Context {
  world: World;
  /** The table of the answer's rows. */
  answer: (caption: string, options?: { bars?: number; folded?: boolean }) => Html;
}

/** The section of an answer, if its columns are the expected ones. */
function sectionOf(name: string, answer: Answer | undefined): Section | undefined {
  const section = Object.hasOwn(sections, name) ? sections[name] : undefined;
  return section?.columns.join() === answer?.columns.join() ? section : undefined;
}

/** The rows of an answer; none if there is no such answer or it has other columns than the expected ones. */
export const knownRows = (answers: Record<string, Answer>, name: string): Cell[][] =>
  sectionOf(name, answers[name]) ? (answers[name]?.rows ?? []) : [];

/** An answer's section on the page. */
export function answerSection(
  { name, title, tables }: Question,
  { place, answer, ledger, world }: { place: number; answer: Answer; ledger: LedgerRow[]; world: World },
): Html {
  const section = sectionOf(name, answer);
  const { columns, rows } = answer;
  const tableOf: Context["answer"] = (caption, options = {}) =>
    table({ id: `table-${name}`, caption, columns, rows, ...options });
  const content = section ? section.show(rows, { world, answer: tableOf }) : tableOf(title);
  return html`<section id="${name}"${section?.isSmall && html` class="small"`}>
<h2><span class="number">${place}</span> ${title}</h2>
${rows.length === 0 ? html`<p class="finding">No rows answer this question yet.</p>` : content}
<p class="source">${[tiesOf(section, rows), rejectsOf(tables, ledger)]}All rows: <code>gold/${name}.parquet</code></p>
</section>
`;
}

/** How many first places are shared, for an answer that has them. */
function tiesOf(section: Section | undefined, rows: Cell[][]): string {
  if (!section?.ranked || rows.length === 0) return "";
  const { one, several, column } = section.ranked;
  if (column === undefined)
    return rows.length > 1 ? `Ties: ${some(rows.length, one, several)} share the first place. ` : "Ties: none. ";
  const all = [...groups(rows, column).values()];
  const ties = all.filter((group) => group.length > 1).length;
  return `Ties: the first place is shared in ${count(ties)} of ${some(all.length, one, several)} (${share(ties, all.length)}). `;
}

/** How many messages of an answer's tables were rejected. */
function rejectsOf(tables: Table[], ledger: LedgerRow[]): string {
  const read = ledger.filter(({ table }) => tables.includes(table));
  const [rejected, messages] = [sum(read, (row) => row.rejected), sum(read, (row) => row.messages)];
  if (messages === 0) return "";
  const names = list(read.map(({ table }) => table));
  return `Rejects: ${count(rejected)} of ${some(messages, "message")} of ${names} (${share(rejected, messages)}). `;
}

/** The sections by the names of their answers. An answer without one is shown as a table. */
const sections: Record<string, Section> = {
  top_category_by_country: {
    columns: ["country", "category", "category_count"],
    ranked: { one: "country", several: "countries", column: 0 },
    show(rows, { world, answer }) {
      const winners = groups(rows, 0);
      const isShared = (country: Cell | undefined) => (winners.get(country ?? null)?.length ?? 0) > 1;
      const kinds = [...groups(rows, 1)].sort((a, b) => b[1].length - a[1].length);
      const most = kinds[0]?.[1].length ?? 0;
      const leading = kinds.filter(([, found]) => found.length === most).map(([kind]) => category(kind));
      const panels = kinds.slice(0, mostPanels).map(([kind, found]) => {
        const shared = found.filter(([country]) => isShared(country)).length;
        const unit = `${countries(found.length)}, ${count(shared)} shared`;
        const marks = onMap(world, found, ([country, , posts]) => ({
          color: isShared(country) ? "second" : "accent",
          title: `${text(country)}: ${some(Number(posts), "post")}${isShared(country) ? ", shared" : ""}`,
        }));
        const label = `World map of the countries whose most frequent category is ${category(kind)}: ${unit}. The table lists them.`;
        return figure({ title: category(kind), unit, chart: world.map(marks, label) });
      });
      return html`<p class="finding">${leading.length === 1 ? `The category ${leading[0]} leads in ${countries(most)}, more than any other.` : `${count(leading.length)} categories lead in ${countries(most)} each: ${list(leading)}.`}</p>
<h3>Where each category is the most frequent one</h3>
<p class="unit">Each map shows one category, in equal area; small countries are dots, and the pointer names a country. ${key("accent", "first place alone")}${key("second", "first place shared")}</p>
<div class="maps${leading.length === 1 && " led"}">
${panels}</div>
${
  kinds.length > panels.length &&
  html`<p class="unit">${count(kinds.length - panels.length)} more categories have no map here; the table has them.</p>`
}
${answer("The most frequent categories of each country")}`;
    },
  },

  category_by_year: {
    columns: ["post_year", "category", "category_count"],
    show(rows) {
      const years = [...groups(rows, 0)];
      const points = years.map(([year, found]) => point(year, columnSum(found, 2)));
      const kinds = [...groups(rows, 1)].map(([kind, found]) => {
        const counts = new Map(found.map(([year = null, , posts = null]) => [year, posts]));
        return [kind, ...years.map(([year]) => counts.get(year) ?? 0)];
      });
      const totals = [...groups(rows, 1)].map(([kind, found]): Cell[] => [category(kind), columnSum(found, 2)]);
      const [busiest, largest] = [
        topRows(
          points.map(({ name, value }) => [name, value]),
          1,
        ),
        topRows(totals, 1),
      ];
      return html`<p class="finding">Most posts are of ${list(busiest.map(([year]) => text(year)))}: ${count(busiest[0]?.[1])}. The largest category is ${list(largest.map(([kind]) => text(kind)))} with ${some(Number(largest[0]?.[1]), "post")}.</p>
${pair(
  figure({
    title: "Posts in each year",
    unit: "Number of posts, from 0",
    chart: columns(points, { width: 380, height: 300, label: `Columns, posts in each year: ${summary(points)}.` }),
  }),
  table({
    id: "table-category_by_year",
    caption: "Posts by category and year, shaded by number",
    columns: ["category", ...years.map(([year]) => text(year))],
    rows: kinds,
    shaded: true,
  }),
)}`;
    },
  },

  top_poster_by_country: {
    columns: ["country", "poster_name", "follower_count"],
    ranked: { one: "country", several: "countries", column: 0 },
    show(rows, { world, answer }) {
      const tops = [...groups(rows, 0).values()].map((found) => found[0] ?? []);
      const values = tops.map((row) => Number(row[2]));
      const [least, most] = [-greatest(values.map((n) => -n)), greatest(values)];
      const edges = steps(Math.max(1, least), Math.max(1, most));
      const last = edges.length - 2;
      const shade = (step: number) => `shade${last > 0 ? Math.round((step * 5) / last) : 5}`;
      const stepOf = (n: number) => {
        const step = edges.findLastIndex((edge) => n >= edge);
        return Math.max(0, Math.min(last, step));
      };
      const marks = onMap(world, tops, ([country, poster, followers]) => ({
        color: shade(stepOf(Number(followers))),
        title: `${text(country)}: ${text(poster)}, ${count(followers)} followers`,
      }));
      const ranges = edges.slice(1).map((edge, i): Cell[] => {
        const inRange = values.filter((n) => stepOf(n) === i).length;
        return [`${short(edges[i] ?? 0)} to ${short(edge)}`, inRange];
      });
      const label = `World map of ${countries(tops.length)}, shaded by the followers of their top poster, from ${short(least)} to ${short(most)}. The table has the numbers.`;
      return html`<p class="finding">The top poster of a country has ${least === most ? count(most) : `${count(least)} to ${count(most)}`} followers.</p>
${pair(
  figure({
    title: "Followers of the top poster in each country",
    unit: html`${ranges.map(([range], i) => key(shade(i), text(range)))}${key("land", "none")}`,
    chart: world.map(marks, label),
  }),
  table({
    id: "follower-steps",
    caption: "Countries by the followers of their top poster",
    columns: ["followers", "countries"],
    rows: ranges.reverse(),
    bars: 1,
  }),
  { broad: true },
)}
${answer("The poster with the most followers in each country")}`;
    },
  },

  top_country: {
    columns: ["country", "follower_count"],
    ranked: { one: "country", several: "countries" },
    show(rows, { world, answer }) {
      const tie = rows.length > 1;
      const [[first = null, followers = null] = []] = rows;
      const names = rows.slice(0, 40).map(([country = null], i) => html`${i > 0 && ", "}${data(country)}`);
      const more = rows.length > names.length && ` and ${count(rows.length - names.length)} more`;
      const marks = onMap(world, rows, ([country]) => ({ color: "accent", title: text(country) }));
      const label = `World map with ${tie ? `the ${countries(rows.length)} that share the first place` : text(first)}.`;
      return html`${pair(
        html`<p class="figure-of-all"><span>${count(followers)}</span> followers</p>
<p class="finding">${tie ? `${countries(rows.length)} share the first place: each has a poster with this many followers.` : html`The top poster of ${data(first)} has more followers than that of any other country.`}</p>
${tie && html`<p>${names}${more}.</p>`}${!tie && answer("The country of the greatest top poster")}`,
        figure({
          title: tie ? "The countries that share the first place" : "The country with the greatest top poster",
          chart: world.map(marks, label),
        }),
      )}
${tie && answer("The countries of the greatest top posters", { folded: true })}`;
    },
  },

  top_category_by_age_group: {
    columns: ["age_group", "category", "category_count"],
    isSmall: true,
    ranked: { one: "age group", several: "age groups", column: 0 },
    show(rows, { answer }) {
      const kinds = groups(rows, 1).size;
      const ages = groups(rows, 0).size;
      const finding =
        ages < 2
          ? "Only one age group has posts."
          : kinds === rows.length
            ? "No two age groups share their most frequent category."
            : `${count(ages)} age groups have ${some(kinds, "most frequent category", "most frequent categories")} between them.`;
      return html`<p class="finding">${finding}</p>${answer("Posts in the most frequent category", { bars: 2 })}`;
    },
  },

  median_followers_by_age_group: {
    columns: ["age_group", "median_follower_count"],
    isSmall: true,
    show: medians("Followers of the posters, median of each age group"),
  },

  users_joined_by_year: {
    columns: ["join_year", "number_users_joined"],
    isSmall: true,
    show(rows, { answer }) {
      const most = topRows(rows, 1);
      return html`<p class="finding">Of ${some(columnSum(rows, 1), "person", "people")}, ${count(most[0]?.[1])} joined in ${list(most.map(([year]) => text(year)))}${most.length > 1 && " each"}.</p>${answer("Different people by year of joining", { bars: 1 })}`;
    },
  },

  median_followers_by_join_year: {
    columns: ["join_year", "median_follower_count"],
    isSmall: true,
    show: medians("Followers of the posters, median of each year of joining"),
  },

  median_followers_by_join_year_and_age_group: {
    columns: ["age_group", "join_year", "median_follower_count"],
    show(rows, { answer }) {
      const years = [...groups(rows, 1).keys()].sort();
      const lines = [...groups(rows, 0)].map(([group, found]) => ({
        group: text(group),
        points: years.map((year) => point(year, found.find((row) => row[1] === year)?.[2])),
      }));
      const all = lines.flatMap(({ group, points }) => points.map((p) => ({ ...p, name: `${group} in ${p.name}` })));
      const domain = rangeOf(all);
      const panels = lines.slice(0, mostPanels).map(({ group, points }) => {
        const others = lines
          .filter((line) => line.group !== group)
          .map((line) => ({ points: line.points, faint: true }));
        const label = `Line, median followers of age group ${group}: ${summary(points)}.`;
        const chart = domain && logarithmic([...others, { points }], { domain, width: 230, height: 170, label });
        return figure({ title: group, chart: chart ?? html`<p>No median is above 0.</p>` });
      });
      return html`${extremes(all)}
${pair(
  html`<h3>Median followers by year of joining, one chart for each age group</h3>
<p class="unit">Followers of the posters; all charts have the same logarithmic scale${all.some((p) => p.value === 0) && ", which cannot show a median of 0"}. ${key("accent", "this age group")}${key("faint", "the others")}</p>
<div class="panels">${panels}</div>`,
  answer("Median by age group and year of joining", { bars: 2 }),
)}`;
    },
  },
};

/** Medians by one column: the extremes as a sentence, and the table with bars. */
function medians(caption: string): Section["show"] {
  return (rows, { answer }) =>
    html`${extremes(rows.map(([name, value]) => point(name, value)))}${answer(caption, { bars: 1 })}`;
}

/** The least and the greatest of the values, as a sentence. */
function extremes(points: Point[]): Html | false {
  const sorted = points.filter((p) => p.value !== null).sort((a, b) => (a.value ?? 0) - (b.value ?? 0));
  const [least, most] = [sorted[0], sorted.at(-1)];
  if (sorted.length < 2) return false;
  if (least?.value === most?.value) return html`<p class="finding">All medians are equal: ${count(most?.value)}.</p>`;
  return html`<p class="finding">The median is least for ${least?.name} (${count(least?.value)}) and greatest for ${most?.name} (${count(most?.value)}).</p>`;
}

/** The rows whose country is on the map, with their colours and hover texts. */
const onMap = (world: World, rows: Cell[][], mark: (row: Cell[]) => { color: string; title: string }) =>
  rows.flatMap((row) => {
    const place: Place | undefined = world.find(text(row[0]));
    return place ? [{ place, ...mark(row) }] : [];
  });

const countries = (n: number): string => some(n, "country", "countries");

const point = (name: Cell | undefined, value: Cell | undefined): Point => ({
  name: text(name),
  value: value === null || value === undefined ? null : Number(value),
});

const summary = (points: Point[]): string => points.map((p) => `${p.name} ${count(p.value) || "none"}`).join(", ");

const greatest = (values: number[]): number => values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);

/** The least and the greatest value above 0; undefined if there is none. */
function rangeOf(points: Point[]): [number, number] | undefined {
  const values = points.flatMap((p) => (p.value !== null && p.value > 0 ? [p.value] : []));
  return values.length > 0 ? [-greatest(values.map((n) => -n)), greatest(values)] : undefined;
}
