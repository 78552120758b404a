/**
 * The report as one HTML page that needs nothing else: no script, no network, no other file.
 *
 * @module
 */

import { count, some, sum } from "../io/text.ts";
import { isBalanced, type LedgerRow } from "../lake/ledger.ts";
import { ownText } from "../runtime/program.ts";
import { answerSection, knownRows } from "./answers.ts";
import { stacks } from "./charts.ts";
import { asHtml, type Html, html } from "./html.ts";
import { columnSum, data, figure, groups, key, list, pair, share, table, text } from "./parts.ts";
import type { Answer, Cell, Question, Report } from "./questions.ts";
import { kinds, story } from "./story.ts";
import type { World } from "./world.ts";

/** The data of the page. */
export interface PageData extends Report {
  questions: Question[];
  /** The row of sql/gaps.sql, by column. */
  gaps: Record<string, Cell>;
  /** Posts with coordinates and a country of the map, and how many of them lie in the box around that country. */
  coordinates: { checked: number; inside: number };
  /** Prefix of the topics, if it is known. */
  prefix: string | undefined;
  madeAt: Date;
}

const ledgerTitle = "Are all messages accounted for?";
const limitsTitle = "Limits of the data";

/** Numbers in words, for the heading. */
const numerals = "No One Two Three Four Five Six Seven Eight Nine Ten Eleven Twelve".split(" ");

/** The page as HTML text. */
export function reportPage(facts: PageData, world: World): string {
  const { answers, questions, ledger, matches, madeAt, prefix } = facts;
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
<div class="first">
${story(facts)}
<nav aria-label="Contents">
<p><a href="#ledger">${ledgerTitle}</a></p>
<ol>${questions.map(({ name, title }) => html`<li><a href="#${name}">${title}</a></li>`)}</ol>
<p><a href="#limits">${limitsTitle}</a></p>
</nav>
</div>
</header>
<main>
${ledgerSection(facts)}
${questions.map((question, i) => answerSection(question, { place: i + 1, answer: answers[question.name] as Answer, ledger, world }))}
${limitsSection(facts, world)}
</main>
<footer><p>The tables of the ledger and the answers show the Parquet files in <code>gold/</code>. Maps are in the Equal Earth projection, which keeps areas. Charts by Apache ECharts, outlines of countries by Natural Earth.</p></footer>
</body>
</html>
`;
  return page.html;
}

function ledgerSection({ ledger, matches }: PageData): Html {
  const colors = { clean: "accent", superseded: "faint", deleted: "gone", rejected: "second" };
  const total = (kind: (typeof kinds)[number] | "messages") => sum(ledger, (row) => row[kind]);
  const summary = (row: LedgerRow) => kinds.map((kind) => `${count(row[kind])} ${kind}`).join(", ");
  const wrong = ledger.filter((row) => !isBalanced(row)).map((row) => row.table);
  const reasons = ledger.flatMap((row) => Object.entries(row.reasons).map(([why, n]) => [row.table, why, n]));
  return html`<section id="ledger">
<h2>${ledgerTitle}</h2>
<p class="finding">${
    wrong.length > 0
      ? html`<strong class="alarm">No: the ledger is not balanced for ${list(wrong)}.</strong>`
      : total("messages") === 0
        ? "There are no messages yet."
        : `Yes. ${some(total("messages"), "message")} = ${kinds.map((kind) => `${count(total(kind))} ${kind}`).join(" + ")}.`
  }</p>
${pair(
  html`${figure({
    title: "Messages of each topic",
    unit: html`Number of messages, from 0. ${kinds.map((kind) => key(colors[kind], kind))}`,
    chart: stacks(
      ledger.map((row) => ({ name: row.table, parts: kinds.map((kind) => row[kind]) })),
      {
        colors: kinds.map((kind) => `var(--${colors[kind]})`),
        width: 380,
        label: `Stacked bars, messages of each table: ${ledger.map((row) => `${row.table} ${summary(row)}`).join("; ")}.`,
      },
    ),
  })}
${table({ id: "table-matches", caption: "Posts with a row in the other tables", columns: matches.columns, rows: matches.rows })}
<p class="unit">${matchRates(matches)}</p>`,
  html`${table({
    id: "table-ledger",
    caption: "Messages = clean + superseded + deleted + rejected",
    columns: ["table", "messages", ...kinds, "balanced"],
    rows: ledger.map((row) => [
      row.table,
      row.messages,
      ...kinds.map((kind) => row[kind]),
      isBalanced(row) ? "yes" : "NO",
    ]),
  })}
${
  reasons.length > 0 &&
  table({
    id: "table-rejects_by_reason",
    caption: "Rejected messages by reason",
    columns: ["table", "reason", "rejected"],
    rows: reasons,
    bars: 2,
  })
}`,
)}
</section>
`;
}

/** The shares of posts that have a place, a user, and both. */
function matchRates({ rows }: Answer): string {
  const [pins = 0, place = 0, user = 0, both = 0] = (rows[0] ?? []).map(Number);
  const rates = `${share(place, pins)} of the posts have a place, ${share(user, pins)} a user, ${share(both, pins)} both`;
  return `${pins > 0 ? `${rates}. ` : ""}A post’s place and user have the same number as the post.`;
}

function limitsSection({ answers, gaps, coordinates: { checked, inside } }: PageData, world: World): Html {
  const winners = [...groups(knownRows(answers, "top_category_by_country"), 0)];
  const counts = winners.map(([, rows]) => Number(rows[0]?.[2])).sort((a, b) => a - b);
  const middle = counts[Math.floor((counts.length - 1) / 2)] ?? 0;
  const unknown = winners.map(([country]) => text(country)).filter((country) => !world.find(country));
  const counted = Number(gaps.pins ?? 0) - Number(gaps.no_followers ?? 0);
  const notes: (false | [string, Html | string])[] = [
    winners.length > 0 && [
      "Small numbers",
      `In half of the countries the top category has ${some(middle, "post")} at most.${middle < 30 ? " With so few, chance can decide which category is first." : ""} Ties are kept.`,
    ],
    checked > 0 && [
      "Coordinates",
      `${share(inside, checked)} of the ${some(checked, "post")} with coordinates and a country on the map (${count(inside)}) lie in the box around that country, with a margin of one degree.${inside * 2 < checked ? " The coordinates do not belong to the countries, so the maps show countries and no points." : ""}`,
    ],
    counted > 0 && [
      "Rounded followers",
      `${share(Number(gaps.whole_thousands), counted)} of the follower counts are whole thousands, because the source rounds them, as in 12k or 3M. The last digits of a count or a median mean nothing.`,
    ],
    [
      "Posters and users",
      "Followers are the poster’s. Age and date of joining are those of the user with the same number. Nothing shows that they are one person.",
    ],
    winners.length > 0 && [
      "Countries not on the maps",
      unknown.length === 0
        ? "Every country of the answers is on the maps."
        : html`${count(unknown.length)} of ${some(winners.length, "name")} ${unknown.length === 1 ? "is" : "are"} missing in the atlas or ambiguous, and only in the tables: ${unknown.slice(0, 100).map((name, i) => html`${i > 0 && "; "}${data(name)}`)}${unknown.length > 100 && "; …"}.`,
    ],
  ];
  const leftOut = [
    ["Posts without category", "no_category", "pins", "nothing: they are a category"],
    ["Posts without poster", "no_poster", "pins", "top poster, top country"],
    ["Posts without followers", "no_followers", "pins", "top poster, top country, medians"],
    ["Places without country", "no_country", "places", "answers by country"],
    ["Places without coordinates", "no_coordinates", "places", "nothing: no answer uses them"],
    ["Places without time", "no_time", "places", "posts by year"],
    ["Posted before 2018 or after 2022", "other_year", "places", "posts by year"],
    ["Users without age", "no_age", "users", "answers by age group"],
    ["Users under 18", "under_18", "users", "answers by age group"],
    ["Users without date of joining", "no_join_date", "users", "answers by year of joining"],
    ["Joined before 2015 or after 2020", "other_join_year", "users", "answers by year of joining"],
  ] as const;
  return html`<section id="limits">
<h2>${limitsTitle}</h2>
${pair(
  notes.map((note) => note && html`<h3>${note[0]}</h3><p>${note[1]}</p>\n`),
  table({
    id: "table-gaps",
    caption: "Rows without a value, or outside the range of an answer",
    columns: ["what", "rows", "of", "left out of"],
    rows: leftOut.map(([what, rows, of, where]) => [what, gaps[rows] ?? null, gaps[of] ?? null, where]),
  }),
)}
</section>
`;
}
