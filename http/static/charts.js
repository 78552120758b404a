// The charts of the live page: the last minute, and a small picture of each answer.

import { $, el, number, oneLine, rateText, say, short, some, svg } from "./dom.js";

// ---- messages per second in the last minute

const span = 60_000;
/** A rate is the mean of so many ms: clean lands and publishes in batches. */
const rateSpan = 5_000;
const series = ["kafka", "bronze", "silver"];
const samples = [];

export function addSample(sample) {
  if (sample.at <= (samples.at(-1)?.at ?? 0)) return;
  samples.push(sample);
  while (samples[0].at < sample.at - span - 3 * rateSpan) samples.shift();
}

/** The rate of a stage at each sample but the first; a sample without a count is passed over. */
function ratesOf(stage, count = (sample) => sample[stage]) {
  const known = samples.filter((sample) => count(sample) !== null && count(sample) !== undefined);
  let first = 0;
  return known.slice(1).map((sample, n) => {
    const i = n + 1;
    while (first < i - 1 && sample.at - known[first + 1].at >= rateSpan) first++;
    const { at } = known[first];
    const grown = count(sample) - count(known[first]);
    return { at: sample.at, rate: Math.max(0, (grown / (sample.at - at)) * 1000) };
  });
}

/** How fast a count grows now, per second. */
export const rateNow = (count) => ratesOf("", count).at(-1)?.rate ?? 0;

/** The first of 1, 2, 5, 10, 20, … that is not below a rate. */
function ceiling(rate) {
  for (let power = 1; ; power *= 10) {
    for (const step of [1, 2, 5]) if (step * power >= rate) return step * power;
  }
}

const lines = Object.fromEntries(series.map((stage) => [stage, svg("path", { class: `line ${stage}` })]));
const area = svg("path", { class: "area" });
const grid = [0, 50, 100].map((y) => svg("path", { class: "grid", d: `M0 ${y}H600` }));
$("rates-plot").append(
  svg("svg", { viewBox: "0 0 600 100", preserveAspectRatio: "none" }, ...grid, area, ...Object.values(lines)),
);

export function showRates(now) {
  const rates = Object.fromEntries(series.map((stage) => [stage, ratesOf(stage).filter(({ at }) => at >= now - span)]));
  const top = ceiling(Math.max(1, ...series.flatMap((stage) => rates[stage].map(({ rate }) => rate))));
  const x = (at) => (600 * (1 - (now - at) / span)).toFixed(1);
  for (const stage of series) {
    const points = rates[stage].map(({ at, rate }) => `${x(at)} ${(100 - (100 * rate) / top).toFixed(1)}`);
    const path = points.length > 1 ? `M${points.join("L")}` : "";
    lines[stage].setAttribute("d", path);
    if (stage === "kafka") {
      const ends = [rates[stage][0], rates[stage].at(-1)];
      area.setAttribute("d", path && `${path}L${x(ends[1].at)} 100L${x(ends[0].at)} 100Z`);
    }
    say($(`rate-${stage}`), `${rateText(rates[stage].at(-1)?.rate ?? 0)}/s`);
  }
  say($("rates-top"), `${number(top)}/s`);
  say($("rates-middle"), `${rateText(top / 2)}/s`.replace(".0/", "/"));
  const most = series.map((stage) => `${stage} ${rateText(Math.max(0, ...rates[stage].map(({ rate }) => rate)))}`);
  $("rates-plot").setAttribute("aria-label", `Messages per second in the last minute, at most: ${most.join(", ")}`);
}

// ---- the answers

/** Gives an element its part of the greatest value, which its style draws. */
function withPart(element, part) {
  element.style.setProperty("--part", String(part));
  return element;
}

/** Horizontal bars, each with its name and its value. */
function bars(points, { text = short } = {}) {
  const most = Math.max(1, ...points.map(({ value }) => value));
  return el(
    "ul",
    { class: "bars" },
    ...points.map(({ name, value }) => {
      const bar = withPart(el("span", { class: "bar", "aria-hidden": "true" }), value / most);
      return el("li", {}, el("bdi", {}, oneLine(name)), el("span", { class: "value" }, text(value)), bar);
    }),
  );
}

/** Vertical bars over years. */
function columns(points) {
  const most = Math.max(1, ...points.map(({ value }) => value));
  return el(
    "ul",
    { class: "years" },
    ...points.map(({ name, value }) => {
      const bar = withPart(el("span", { class: "bar", "aria-hidden": "true" }), value / most);
      return el("li", {}, el("span", { class: "value" }, short(value)), bar, el("span", { class: "name" }, name));
    }),
  );
}

/** A table whose cells are the darker the greater their value. */
function heat(rows, columnNames, cellOf) {
  const values = rows.flatMap((row) => columnNames.map((column) => cellOf(row, column) ?? 0));
  const most = Math.max(1, ...values);
  const cell = (value) => {
    const made = el("td", {}, value === undefined || value === null ? "–" : short(value));
    return withPart(made, (value ?? 0) / most);
  };
  return el(
    "table",
    { class: "heat" },
    el("thead", {}, el("tr", {}, el("td"), ...columnNames.map((name) => el("th", { scope: "col" }, name)))),
    el(
      "tbody",
      {},
      ...rows.map((row) =>
        el("tr", {}, el("th", { scope: "row" }, oneLine(row)), ...columnNames.map((name) => cell(cellOf(row, name)))),
      ),
    ),
  );
}

const shown = 5;
const none = "none";
const text = (value) => String(value ?? none);
const unique = (values) => [...new Set(values)];
const byValue = (a, b) => b.value - a.value;

/** A heat table of rows [row, column, value]. */
function heatOf(rows, [row, column, value], mostRows = 6) {
  const cells = new Map(rows.map((r) => [`${text(r[row])}\n${r[column]}`, r[value]]));
  const sums = new Map();
  for (const r of rows) sums.set(text(r[row]), (sums.get(text(r[row])) ?? 0) + r[value]);
  const names = unique(rows.map((r) => text(r[row])));
  const kept = names.length > mostRows ? names.sort((a, b) => sums.get(b) - sums.get(a)).slice(0, shown) : names;
  const columnNames = unique(rows.map((r) => text(r[column]))).sort();
  return heat(kept, columnNames, (name, year) => cells.get(`${name}\n${year}`));
}

const pictures = {
  top_category_by_country(rows) {
    const countries = groupBy(rows, (row) => text(row[1]));
    const points = [...countries].map(([name, list]) => ({ name, value: list.length })).sort(byValue);
    return bars(points.slice(0, shown), { text: (n) => some(n, "country", "countries") });
  },
  category_by_year: (rows) => heatOf(rows, [1, 0, 2]),
  top_poster_by_country(rows) {
    const posters = [...groupBy(rows, (row) => text(row[1]))].map(([name, list]) => ({
      name: list.length > 1 ? `${name} · ${list.length} countries` : `${name} · ${text(list[0][0])}`,
      value: Math.max(...list.map((row) => row[2])),
    }));
    return bars(posters.sort(byValue).slice(0, shown));
  },
  top_country(rows) {
    const names = rows.map((row) => text(row[0]));
    const list = names.length > 4 ? [...names.slice(0, 3), `${names.length - 3} more`] : names;
    return el(
      "p",
      { class: "figure" },
      el("strong", {}, short(rows[0][1])),
      " followers in ",
      el("bdi", {}, oneLine(list.join(", ").replace(/, ([^,]*)$/, " and $1"))),
    );
  },
  top_category_by_age_group: (rows) =>
    bars(
      rows.slice(0, shown).map(([group, category, value]) => ({ name: `${text(group)} · ${text(category)}`, value })),
    ),
  users_joined_by_year: (rows) => columns(points(rows)),
  median_followers_by_join_year: (rows) => columns(points(rows)),
  median_followers_by_join_year_and_age_group: (rows) => heatOf(rows, [0, 1, 2]),
};

const points = (rows) => rows.map(([name, value]) => ({ name: text(name), value: value ?? 0 }));

function groupBy(rows, key) {
  const groups = new Map();
  for (const row of rows) groups.set(key(row), [...(groups.get(key(row)) ?? []), row]);
  return groups;
}

/** An answer without a picture: its first rows, the last column as a bar if it holds numbers. */
function plain(rows) {
  const isNumber = rows.every((row) => typeof row.at(-1) === "number");
  const nameOf = (row) => (isNumber && row.length > 1 ? row.slice(0, -1) : row).map(text).join(" · ");
  if (isNumber) return bars(rows.slice(0, shown).map((row) => ({ name: nameOf(row), value: row.at(-1) })));
  return el(
    "ul",
    { class: "bars" },
    ...rows.slice(0, shown).map((row) => el("li", {}, el("bdi", {}, oneLine(nameOf(row))))),
  );
}

/** A card with the title of an answer, linked to its place in the report, and its picture. */
export function answerCard({ name, title, rows, total }) {
  const draw = pictures[name] ?? plain;
  return el(
    "article",
    { class: "card answer", "data-answer": name },
    el("h3", {}, el("a", { href: `/report#${name}` }, title)),
    rows.length > 0 ? draw(rows) : el("p", { class: "muted" }, "No rows"),
    draw === plain && total > shown && el("p", { class: "muted" }, `The first ${shown} of ${some(total, "row")}`),
  );
}
