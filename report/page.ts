/**
 * The report as one HTML page that needs nothing else: no script, no network, no other file.
 *
 * @module
 */

import { count, some, sum } from "../io/text.ts";
import { isBalanced, type LedgerRow } from "../lake/ledger.ts";
import { ownText } from "../runtime/program.ts";
import { showAnswer } from "./answers.ts";
import { bars, stacks } from "./charts.ts";
import { asHtml, type Html, html } from "./html.ts";
import { columnSum, data, figure, groups, key, pair, share, table, text } from "./parts.ts";
import type { Answer, Cell, Question, Report } from "./questions.ts";
import type { World } from "./world.ts";

/** What the page shows. */
interface PageData extends Report {
  questions: Question[];
  /** The row of sql/gaps.sql, by column. */
  gaps: Record<string, Cell>;
  /** Posts with coordinates in a country of the map, and how many of them lie in the box around that country. */
  coordinates: { checked: number; inside: number };
  /** Prefix of the topics, where it is known. */
  prefix: string | undefined;
  madeAt: Date;
}

/** Numbers as words, for the heading. */
const numerals = "No One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve".split(" ");

/** The text of the page. */
export function reportPage(facts: PageData, world: World): string {
  const { answers, questions, matches, madeAt, prefix } = facts;
  const style = asHtml(ownText("report/page.css"));
  const time = madeAt.toISOString();
  const page = html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Pinterest data pipeline: report</title>
<style>
${style}</style>
</head>
<body>
${world.shapes}
<header>
<p class="eyebrow">Pinterest data pipeline</p>
<h1>${numerals[questions.length] ?? questions.length} ${questions.length === 1 ? "answer" : "answers"} from ${some(columnSum(matches.rows, 0), "post")}</h1>
<p class="lead">Made on <time datetime="${time}">${time.slice(0, 10)} at ${time.slice(11, 16)} UTC</time> from the clean rows of the lake${prefix !== undefined && html`, topics <code>${prefix}.*</code>`}.</p>
<nav aria-label="Contents">
<p><a href="#ledger">Is everything there?</a></p>
<ol>${questions.map(({ name, title }) => html`<li><a href="#${name}">${title}</a></li>`)}</ol>
<p><a href="#limits">What the data can’t say</a></p>
</nav>
</header>
<main>
${ledgerSection(facts)}
${questions.map(
  ({ name, title }, i) => html`<section id="${name}">
<h2><span class="number">${i + 1}</span> ${title}</h2>
${showAnswer({ name, title }, answers[name] as Answer, world)}
<p class="source">All rows: <code>gold/${name}.parquet</code></p>
</section>
`,
)}
${limitsSection(facts, world)}
</main>
<footer><p>The numbers in the tables of the ledger and the answers are those of the Parquet files in <code>gold/</code>. Charts by Apache ECharts, outlines of countries by Natural Earth.</p></footer>
</body>
</html>
`;
  return page.html;
}

function ledgerSection({ ledger, matches }: PageData): Html {
  const kinds = ["clean", "superseded", "deleted", "rejected"] as const;
  const colors = { clean: "accent", superseded: "faint", deleted: "gone", rejected: "second" };
  const total = (kind: (typeof kinds)[number] | "messages") => sum(ledger, (row) => row[kind]);
  const told = (row: LedgerRow) => kinds.map((kind) => `${count(row[kind])} ${kind}`).join(", ");
  const wrong = ledger.filter((row) => !isBalanced(row)).map((row) => row.table);
  const reasons = ledger.flatMap((row) => Object.entries(row.reasons).map(([why, n]) => [row.table, why, n]));
  const [pins = 0, ...matched] = (matches.rows[0] ?? []).map(Number);
  const rates = ["With a place", "With a user", "With both"].map((name, i) => {
    const value = matched[i] ?? 0;
    return { name, value, text: `${share(value, pins)}, ${count(value)} of ${count(pins)}` };
  });
  return html`<section id="ledger">
<h2>Is everything there?</h2>
<p class="finding">${
    wrong.length > 0
      ? html`<strong class="alarm">No: the ledger is not balanced for ${wrong.join(" and ")}.</strong>`
      : `Yes. Of ${some(total("messages"), "message")} ${kinds.map((kind) => `${count(total(kind))} are ${kind}`).join(", ")}; none is missing.`
  }</p>
${pair(
  figure({
    title: "What became of the messages of each topic",
    unit: html`Number of messages, from 0. ${kinds.map((kind) => key(colors[kind], kind))}`,
    chart: stacks(
      ledger.map((row) => ({ name: row.table, parts: kinds.map((kind) => row[kind]) })),
      {
        colors: kinds.map((kind) => `var(--${colors[kind]})`),
        width: 380,
        label: `Stacked bars, messages of each table: ${ledger.map((row) => `${row.table} ${told(row)}`).join("; ")}.`,
      },
    ),
  }),
  table({
    id: "table-ledger",
    caption: "Messages = clean + superseded + deleted + rejected",
    columns: ["table", "messages", ...kinds, "balanced"],
    rows: ledger.map((row) => [
      row.table,
      row.messages,
      ...kinds.map((kind) => row[kind]),
      isBalanced(row) ? "yes" : "NO",
    ]),
  }),
)}
${
  reasons.length > 0 &&
  table({
    id: "table-rejects_by_reason",
    caption: "Rejected messages by reason",
    columns: ["table", "reason", "rejected"],
    rows: reasons,
  })
}
${pair(
  figure({
    title: "How many posts have a row in the other tables",
    unit: "Share of all posts. A post’s place and user have the same number as the post.",
    chart: bars(rates, {
      max: pins,
      width: 380,
      label: `Bars: ${rates.map(({ name, text }) => `${name.toLowerCase()} ${text}`).join("; ")}.`,
    }),
  }),
  table({ id: "table-matches", caption: "Posts and what they match", columns: matches.columns, rows: matches.rows }),
)}
</section>
`;
}

function limitsSection({ answers, gaps, coordinates: { checked, inside } }: PageData, world: World): Html {
  const winners = [...groups(answers.top_category_by_country?.rows ?? [], 0)];
  const posters = [...groups(answers.top_poster_by_country?.rows ?? [], 0)];
  const ties = (found: typeof winners) => count(found.filter(([, rows]) => rows.length > 1).length);
  const counts = winners.map(([, rows]) => Number(rows[0]?.[2])).sort((a, b) => a - b);
  const middle = counts[Math.floor((counts.length - 1) / 2)] ?? 0;
  const unknown = winners.map(([country]) => text(country)).filter((country) => !world.find(country));
  const notes: [string, Html | string][] = [
    [
      "Who is first, where several are",
      `Ties are kept. Several categories share the first place in ${ties(winners)} of ${some(winners.length, "country", "countries")}, several posters in ${ties(posters)} of ${count(posters.length)}.`,
    ],
    [
      "Whether a first place means much",
      `In half of the countries the top category has ${some(middle, "post")} at most. ${middle < 30 ? "With so few, chance can decide which is first." : ""}`,
    ],
    [
      "Where a post was made",
      `${count(checked)} posts have coordinates and a country that the map knows. ${share(inside, checked)} of them (${count(inside)}) lie in the box around that country, with a degree of margin. ${inside * 2 < checked ? "The coordinates don’t belong to the countries; so the maps show countries, never points." : ""}`,
    ],
    [
      "How many followers exactly",
      `${share(Number(gaps.whole_thousands), Number(gaps.pins) - Number(gaps.no_followers))} of the counts are whole thousands, since they come rounded, as 12k or 3M. Their last digits say nothing, nor do a median’s.`,
    ],
    [
      "Whose followers",
      "Followers are the poster’s; age and date of joining are those of the user with the same number. Nothing says that the two are one person.",
    ],
    [
      "What is not on the maps",
      unknown.length === 0
        ? "Every country of the answers is on the maps."
        : html`${some(unknown.length, "name")} of ${count(winners.length)} mean no country of the atlas, or not just one, and stand in the tables only: ${unknown.slice(0, 100).map((name, i) => html`${i > 0 && "; "}${data(name)}`)}${unknown.length > 100 && "; …"}.`,
    ],
  ];
  const leftOut = [
    ["Posts without category", "no_category", "pins", "none: a category of their own"],
    ["Posts without poster", "no_poster", "pins", "top poster, top country"],
    ["Posts without followers", "no_followers", "pins", "top poster, top country, medians"],
    ["Places without country", "no_country", "places", "answers by country"],
    ["Places without coordinates", "no_coordinates", "places", "none: no answer uses them"],
    ["Places without time", "no_time", "places", "posts by year"],
    ["Posted before 2018 or after 2022", "other_year", "places", "posts by year"],
    ["Users without age", "no_age", "users", "answers by age group"],
    ["Users under 18", "under_18", "users", "answers by age group"],
    ["Users without date of joining", "no_join_date", "users", "answers by year of joining"],
    ["Joined before 2015 or after 2020", "other_join_year", "users", "answers by year of joining"],
  ] as const;
  return html`<section id="limits">
<h2>What the data can’t say</h2>
<div class="limits">
${notes.map(([title, note]) => html`<div><h3>${title}</h3><p>${note}</p></div>\n`)}</div>
${table({
  id: "table-gaps",
  caption: "Rows that lack a value or lie outside the range that is asked for",
  columns: ["what", "rows", "of", "left out of"],
  rows: leftOut.map(([what, rows, of, where]) => [what, gaps[rows] ?? null, gaps[of] ?? null, where]),
})}
</section>
`;
}
