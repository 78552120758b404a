/**
 * The answers as charts and tables, each with a sentence that says what is to be seen. A question without an entry in
 * `sections` has a table.
 *
 * @module
 */

import { count, some } from "../io/text.ts";
import { bars, columns, logarithmic, type Point, short, steps } from "./charts.ts";
import { type Html, html } from "./html.ts";
import { category, columnSum, data, figure, groups, key, more, pair, table, text } from "./parts.ts";
import type { Answer, Cell, Question } from "./questions.ts";
import type { Place, World } from "./world.ts";

/** Charts of one kind that stand side by side, at most. */
const mostPanels = 15;

/** What stands in the section of a question below its title. */
export function showAnswer(
  { name, title }: Pick<Question, "name" | "title">,
  { columns, rows }: Answer,
  world: World,
): Html {
  if (rows.length === 0) return html`<p class="finding">No row answers this question yet.</p>`;
  const answer = (caption: string) => table({ id: `table-${name}`, caption, columns, rows });
  const section = Object.hasOwn(sections, name) ? sections[name] : undefined;
  return section ? section(rows, { world, answer }) : answer(title);
}

interface Context {
  world: World;
  /** The table of the answer's rows. */
  answer: (caption: string) => Html;
}

/** What is shown of an answer, by its name. */
const sections: Record<string, (rows: Cell[][], context: Context) => Html> = {
  top_category_by_country(rows, { world, answer }) {
    const winners = groups(rows, 0);
    const isShared = (country: Cell | undefined) => (winners.get(country ?? null)?.length ?? 0) > 1;
    const kinds = [...groups(rows, 1)].sort((a, b) => b[1].length - a[1].length);
    const most = kinds[0]?.[1].length ?? 0;
    const leading = kinds.filter(([, list]) => list.length === most).map(([kind]) => category(kind));
    const panels = kinds.slice(0, mostPanels).map(([kind, list]) => {
      const unit = `${countries(list.length)}, ${count(list.filter(([country]) => isShared(country)).length)} shared`;
      const marks = onMap(world, list, ([country, , posts]) => ({
        color: isShared(country) ? "second" : "accent",
        title: `${text(country)}: ${count(posts)} posts${isShared(country) ? ", shared" : ""}`,
      }));
      const label = `World map of where ${category(kind)} is the most frequent category: ${unit}. The table lists them.`;
      return figure({ title: category(kind), unit, chart: world.map(marks, label) });
    });
    const shared = [...winners.keys()].filter(isShared).length;
    return html`<p class="finding">Most often first: ${leading.join(" and ")}, in ${countries(most)}. In ${count(shared)} of ${countries(winners.size)} two or more categories share the first place.</p>
<h3>Where each category is the most frequent one</h3>
<p class="unit">A map for each category; small countries are dots. ${key("accent", "first alone")}${key("second", "first place shared")}</p>
<div class="maps">
${panels}</div>
${more(kinds.length - panels.length, "categories")}
${answer("The most frequent categories of each country")}`;
  },

  category_by_year(rows) {
    const years = [...groups(rows, 0)];
    const kinds = [...groups(rows, 1)].map(([kind, list]) => {
      const counts = new Map(list.map(([year = null, , posts = null]) => [year, posts]));
      return { kind, total: columnSum(list, 2), counts: years.map(([year]) => counts.get(year) ?? 0) };
    });
    const largest = kinds.toSorted((a, b) => b.total - a.total);
    const [busiest] = years
      .map(([year, list]) => ({ year, total: columnSum(list, 2) }))
      .sort((a, b) => b.total - a.total);
    const max = greatest(rows.map((row) => Number(row[2])));
    const panels = largest.slice(0, mostPanels).map(({ kind, total, counts }) => {
      const points = years.map(([year], i) => point(year, counts[i] ?? null));
      const label = `Columns, posts in ${category(kind)}: ${told(points)}.`;
      const chart = columns(points, { max, width: 180, height: 116, label });
      return figure({ title: category(kind), unit: some(total, "post"), chart });
    });
    return html`<p class="finding">The busiest year is ${text(busiest?.year)} with ${some(busiest?.total ?? 0, "post")}. The largest category is ${category(largest[0]?.kind)} with ${some(largest[0]?.total ?? 0, "post")}.</p>
<h3>Posts of each category, year by year</h3>
<p class="unit">Number of posts in a year; all charts have one scale, from 0. The largest category comes first.</p>
<div class="panels">
${panels}</div>
${more(largest.length - panels.length, "categories")}
${table({
  id: "table-category_by_year",
  caption: "Posts by category and year",
  columns: ["category", ...years.map(([year]) => text(year))],
  rows: kinds.map(({ kind, counts }) => [kind, ...counts]),
})}`;
  },

  top_poster_by_country(rows, { world, answer }) {
    const tops = [...groups(rows, 0).values()].map((list) => list[0] ?? []);
    const values = tops.map((row) => Number(row[2]));
    const [least, most] = [-greatest(values.map((n) => -n)), greatest(values)];
    const edges = steps(Math.max(1, least), Math.max(1, most));
    const last = edges.length - 2;
    const shade = (step: number) => `shade${last > 0 ? Math.round((step * 5) / last) : 5}`;
    const stepOf = (n: number) =>
      Math.max(
        0,
        Math.min(
          last,
          edges.findLastIndex((edge) => n >= edge),
        ),
      );
    const marks = onMap(world, tops, ([country, , followers]) => ({
      color: shade(stepOf(Number(followers))),
      title: `${text(country)}: ${count(followers)} followers`,
    }));
    const keys = edges.slice(1).map((edge, i) => key(shade(i), `${short(edges[i] ?? 0)} to ${short(edge)}`));
    return html`<p class="finding">The top poster of a country has from ${count(least)} to ${count(most)} followers.</p>
${figure({
  title: "Followers of the top poster in each country",
  unit: html`Followers, in steps of a logarithmic scale. ${keys}${key("land", "none")}`,
  chart: world.map(
    marks,
    `World map of ${countries(tops.length)}, shaded by the followers of their top poster, from ${short(least)} to ${short(most)}. The table has the numbers.`,
  ),
})}
${answer("The poster with the most followers in each country")}`;
  },

  top_country(rows, { answer }) {
    const finding =
      rows.length > 1
        ? `${countries(rows.length)} share the first place: each has a poster with so many.`
        : html`So many has the top poster of ${data(rows[0]?.[0] ?? null)}, more than that of any other country.`;
    return pair(
      html`<div><p class="figure-of-all"><span>${count(rows[0]?.[1])}</span> followers</p><p class="finding">${finding}</p></div>`,
      answer("The country of the greatest top poster"),
    );
  },

  top_category_by_age_group(rows, { answer }) {
    const points = rows.slice(0, mostPanels).map(([group, kind, posts]) => ({
      name: text(group),
      value: Number(posts),
      text: `${category(kind)}, ${some(Number(posts), "post")}`,
    }));
    const label = `Bars: ${points.map((p) => `${p.name} ${p.text}`).join("; ")}.`;
    return pair(
      figure({
        title: "Posts in the most frequent category of each age group",
        unit: "Number of posts, from 0",
        chart: bars(points, { width: 380, label }),
      }),
      answer("The most frequent category of each age group"),
    );
  },

  median_followers_by_age_group: (rows, { answer }) =>
    medians(rows, { what: "age group", join: false, answer: answer("Median by age group") }),

  users_joined_by_year(rows, { answer }) {
    const points = rows.map(([year, people]) => point(year, people));
    const [most] = points.toSorted((a, b) => (b.value ?? 0) - (a.value ?? 0));
    return html`<p class="finding">${some(columnSum(rows, 1), "person", "people")} in all; most of them, ${count(most?.value)}, joined in ${most?.name}.</p>
${pair(
  figure({
    title: "People who joined in each year",
    unit: "Number of different people, from 0",
    chart: columns(points, { width: 380, height: 200, label: `Columns, people who joined: ${told(points)}.` }),
  }),
  answer("People by year of joining"),
)}`;
  },

  median_followers_by_join_year: (rows, { answer }) =>
    medians(rows, { what: "year of joining", join: true, answer: answer("Median by year of joining") }),

  median_followers_by_join_year_and_age_group(rows, { answer }) {
    const years = [...groups(rows, 1).keys()].sort();
    const lines = [...groups(rows, 0)].map(([group, list]) => ({
      group: text(group),
      points: years.map((year) => point(year, list.find((row) => row[1] === year)?.[2])),
    }));
    const all = lines.flatMap(({ group, points }) => points.map((p) => ({ ...p, name: `${group}, ${p.name}` })));
    const domain = rangeOf(all);
    const panels = lines.map(({ group, points }) => {
      const others = lines.filter((line) => line.group !== group).map((line) => ({ points: line.points, faint: true }));
      const label = `Line, median followers of age group ${group}: ${told(points)}.`;
      const chart = domain && logarithmic([...others, { points }], { domain, width: 230, height: 170, label });
      return figure({ title: group, chart: chart ?? html`<p>No median above 0.</p>` });
    });
    return html`${extremes(all)}
<h3>Median followers by year of joining, for each age group</h3>
<p class="unit">Followers of the posters; all charts have one scale, a logarithmic one${zeros(all)}. ${key("accent", "this age group")}${key("faint", "the others")}</p>
${pair(html`<div class="panels two">${panels}</div>`, answer("Median by age group and year of joining"))}`;
  },
};

function medians(rows: Cell[][], { what, join, answer }: { what: string; join: boolean; answer: Html }): Html {
  const points = rows.map(([name, median]) => point(name, median));
  const domain = rangeOf(points);
  const label = `Points, median followers by ${what}: ${told(points)}.`;
  const chart = domain && logarithmic([{ points }], { domain, join, width: 380, height: 200, label });
  return html`${extremes(points)}
${pair(
  figure({
    title: `Median followers by ${what}`,
    unit: `Followers of the posters, logarithmic scale${zeros(points)}`,
    chart: chart ?? html`<p>No median above 0.</p>`,
  }),
  answer,
)}`;
}

/** Between which values the points lie. */
function extremes(points: Point[]): Html | false {
  const sorted = points.filter((p) => p.value !== null).sort((a, b) => (a.value ?? 0) - (b.value ?? 0));
  const [least, most] = [sorted[0], sorted.at(-1)];
  if (sorted.length < 2) return false;
  return html`<p class="finding">Least for ${least?.name} (${count(least?.value)}), greatest for ${most?.name} (${count(most?.value)}).</p>`;
}

/** The rows whose country the map has, each with how it is drawn. */
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

const told = (points: Point[]): string => points.map((p) => `${p.name} ${count(p.value) || "none"}`).join(", ");

const zeros = (points: Point[]): string =>
  points.some((p) => p.value === 0) ? "; a median of 0 has no place on it" : "";

const greatest = (values: number[]): number => values.reduce((a, b) => Math.max(a, b), Number.NEGATIVE_INFINITY);

/** The least and the greatest value above 0. */
function rangeOf(points: Point[]): [number, number] | undefined {
  const values = points.flatMap((p) => (p.value !== null && p.value > 0 ? [p.value] : []));
  return values.length > 0 ? [-greatest(values.map((n) => -n)), greatest(values)] : undefined;
}
