/**
 * The five numbers and sentences at the top of the report, computed from the ledger and the answers.
 *
 * @module
 */

import { count, some, sum } from "../io/text.ts";
import { isBalanced, type LedgerRow } from "../lake/ledger.ts";
import { knownRows } from "./answers.ts";
import { short } from "./charts.ts";
import { type Html, html } from "./html.ts";
import { category, columnSum, data, groups, list, text, topRows } from "./parts.ts";
import type { Answer, Cell } from "./questions.ts";

/** A number with its unit, and a sentence. */
interface Line {
  number: string;
  unit: string;
  sentence: Html;
  /** The section that has more, by its id. */
  section: string;
}

/** The kinds of messages that the ledger counts. */
export const kinds = ["clean", "superseded", "deleted", "rejected"] as const;

/** The top of the page. An answer without rows, or with other columns than the expected ones, has no line. */
export function story({ ledger, answers }: { ledger: LedgerRow[]; answers: Record<string, Answer> }): Html {
  const rows = (name: string) => knownRows(answers, name);
  const lines = [
    messages(ledger),
    categories(rows("category_by_year")),
    countries(rows("top_category_by_country")),
    followers(rows("top_country"), rows("top_poster_by_country")),
    people(rows("users_joined_by_year"), rows("median_followers_by_age_group")),
  ];
  return html`<ul class="story">
${lines.map(
  (line) =>
    line &&
    html`<li><a href="#${line.section}"><b>${line.number}</b> ${line.unit}</a><p>${line.sentence}</p></li>
`,
)}</ul>
`;
}

function messages(ledger: LedgerRow[]): Line {
  const total = sum(ledger, (row) => row.messages);
  const wrong = ledger.filter((row) => !isBalanced(row)).map((row) => row.table);
  const line = { number: count(total), unit: total === 1 ? "message" : "messages", section: "ledger" };
  if (wrong.length > 0) {
    const sentence = html`<strong class="alarm">The ledger of ${list(wrong)} is not balanced: messages are missing or are counted twice.</strong>`;
    return { ...line, sentence };
  }
  if (total === 0) return { ...line, sentence: html`The lake has no messages yet; run post, clean and report.` };
  const counts = kinds.flatMap((kind) => {
    const n = sum(ledger, (row) => row[kind]);
    return n > 0 ? [`${n === total ? "all of them" : count(n)} ${kind}`] : [];
  });
  return { ...line, sentence: html`Every message that came from Kafka is accounted for: ${list(counts)}.` };
}

function categories(rows: Cell[][]): Line | false {
  if (rows.length === 0) return false;
  const totals = [...groups(rows, 1)].map(([kind, found]): Cell[] => [category(kind), columnSum(found, 2)]);
  const years = [...groups(rows, 0).keys()].map(Number).sort((a, b) => a - b);
  const span = years.length > 1 ? `from ${years[0]} to ${years.at(-1)}` : `in ${years[0]}`;
  const line = { number: count(totals.length), unit: totals.length === 1 ? "category" : "categories" };
  const largest = topRows(totals, 1);
  const most = Number(largest[0]?.[1]);
  const smallest = totals.filter((row) => row[1] === Math.min(...totals.map(([, n]) => Number(n))));
  const [least = null] = smallest[0] ?? [];
  const end =
    largest.length < totals.length &&
    (smallest.length === 1
      ? html`, the smallest ${data(least)} with ${count(smallest[0]?.[1])}`
      : html`; the smallest ${count(smallest.length)} have ${count(smallest[0]?.[1])} each`);
  const sentence = html`The largest category ${span} is ${names(largest)}, with ${some(most, "post")}${end}.`;
  return { ...line, sentence, section: "category_by_year" };
}

function countries(rows: Cell[][]): Line | false {
  if (rows.length === 0) return false;
  const winners = groups(rows, 0);
  const led = [...groups(rows, 1)].map(([kind, found]): Cell[] => [category(kind), found.length]);
  const most = topRows(led, 1);
  const ties = [...winners.values()].filter((found) => found.length > 1).length;
  const shared = ties > 0 && `; in ${count(ties)} several categories tie for the first place`;
  return {
    ...{ number: count(winners.size), unit: winners.size === 1 ? "country" : "countries" },
    sentence: html`The most frequent leader among categories is ${names(most)}, in ${some(Number(most[0]?.[1]), "country", "countries")}${shared}.`,
    section: "top_category_by_country",
  };
}

function followers(rows: Cell[][], posters: Cell[][]): Line | false {
  const [[country = null, most = null] = []] = rows;
  if (rows.length === 0) return false;
  const best = posters.filter((row) => row[0] === country);
  const who =
    best.length === 1 ? html`${data(best[0]?.[1] ?? null)} in ${data(country)}` : html`one in ${data(country)}`;
  return {
    ...{ number: short(Number(most)), unit: "followers" },
    sentence:
      rows.length > 1
        ? html`The greatest count of any poster, ${count(most)}, occurs in ${some(rows.length, "country", "countries")}, which share the first place.`
        : html`The poster with the most followers, ${count(most)}, is ${who}.`,
    section: "top_country",
  };
}

function people(joined: Cell[][], medians: Cell[][]): Line | false {
  const total = columnSum(joined, 1);
  if (total === 0) return false;
  const most = topRows(joined, 1);
  const known = medians.filter(([, median]) => median !== null);
  const best = topRows(known, 1);
  const ages = known.length > 1 && best.length === 1;
  return {
    ...{ number: count(total), unit: total === 1 ? "person" : "people" },
    sentence: html`The busiest year of joining is ${list(most.map(([year]) => text(year)))}, with ${count(most[0]?.[1])}${
      ages && html`; the age group ${text(best[0]?.[0])} has the greatest median follower count, ${count(best[0]?.[1])}`
    }.`,
    section: "users_joined_by_year",
  };
}

/** The names that tie for a first place; many are only counted. */
const names = (rows: Cell[][]): Html =>
  rows.length > 3
    ? html`shared by ${count(rows.length)}`
    : html`${rows.map(([name = null], i) => html`${i > 0 && (i === rows.length - 1 ? " and " : ", ")}${data(name)}`)}`;
