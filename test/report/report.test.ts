/**
 * The report page: its numbers against the Parquet answers, hostile text, and lakes with little in them.
 */
import assert from "node:assert/strict";
import { readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { pathToFileURL } from "node:url";
import { countries } from "../../local/sample/words.ts";
import { oneLine } from "../../report/html.ts";
import { readQuestions } from "../../report/questions.ts";
import { report } from "../../report/report.ts";
import { openWorld } from "../../report/world.ts";
import {
  makeHostilePage,
  makePage,
  makeScriptPage,
  programWithAnswer,
  scripts,
  tableOf,
  toMessages,
} from "../support/report_page.ts";
import { query, temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const pin = (index: number, more: object = {}) => validRow("pin", index, more);
const geo = (ind: number, more: object = {}) => validRow("geo", ind, more);
const user = (ind: number, more: object = {}) => validRow("user", ind, more);

/** The rows of a Parquet file of gold as the page shows them: each value as text on one line. */
async function goldOf(lake: string, name: string): Promise<string[][]> {
  const rows = await query(`SELECT * FROM '${lake}/gold/${name}.parquet'`);
  // Only of numbers: a country may be the text "1000.0".
  const shown = (value: unknown) => (typeof value === "string" ? value : String(value).replace(/^(\d+)\.0$/, "$1"));
  return rows.map((row) => Object.values(row).map((value) => oneLine(shown(value))));
}

test("every number in the tables of the ledger and of the answers is the one in Parquet", async () => {
  const { lake, page } = await makeHostilePage(join(folder.path, "hostile"));
  for (const { name } of readQuestions()) {
    if (name === "category_by_year") continue;
    const rows = await goldOf(lake, name);
    assert.ok(rows.length > 0, name);
    assert.deepEqual(tableOf(page, name).slice(1), rows, name);
  }
  const [header = [], ...pivot] = tableOf(page, "category_by_year");
  const byYear = pivot.flatMap(([category, ...counts]) => counts.map((n, i) => [header[i + 1], category, n]));
  const wanted = await goldOf(lake, "category_by_year");
  assert.deepEqual(byYear.filter(([, , n]) => n !== "0").sort(), wanted.sort());
  assert.deepEqual(
    tableOf(page, "ledger").slice(1),
    (await goldOf(lake, "ledger")).map((row) => [...row, "yes"]),
  );
  assert.deepEqual(
    tableOf(page, "rejects_by_reason").slice(1).sort(),
    (await goldOf(lake, "rejects_by_reason")).sort(),
  );
  assert.deepEqual(tableOf(page, "matches").slice(1), await goldOf(lake, "matches"));
});

test("text from the data is shown as text only", async () => {
  const { page } = await makeScriptPage(join(folder.path, "scripts"));
  assert.doesNotMatch(page, /<script|<img|<!--|<b>[^<]*&lt;b|\u202e|\u2066/i);
  assert.equal(page.match(/<style/g)?.length, 1);
  const safe = (text: string) => text.replace(/[\u202e\u2066]/g, "\ufffd");
  const inTable = tableOf(page, "top_poster_by_country")
    .slice(1)
    .map(([country, poster]) => [country, poster]);
  assert.deepEqual(inTable.sort(), scripts.map((text) => [`${safe(text)} land`, `${safe(text)} poster`]).sort());
});

test("an empty lake has a page that says so", async () => {
  const { page } = await makePage(join(folder.path, "empty"), {});
  assert.match(page, /answers from 0 posts/);
  assert.deepEqual(storyOf(page), ["0 messages The lake has no messages yet; run post, clean and report."]);
  assert.equal(page.match(/No rows answer this question yet/g)?.length, readQuestions().length);
  assert.doesNotMatch(page, /NaN|Infinity|undefined/);
});

test("a lake of one post has a page, also with a median of 0 or null, or a null category", async () => {
  for (const [name, followers, category] of [
    ["one", "12k", "art"],
    ["zero", "0", null],
    ["none", "User Info Error", "art"],
    ["huge", "9223372036854775807", "art"],
  ] as const) {
    const { lake, page } = await makePage(join(folder.path, name), {
      pin: toMessages([pin(1, { follower_count: followers, category })]),
      geo: toMessages([geo(1)]),
      user: toMessages([user(1)]),
    });
    assert.match(page, /answers from 1 post</);
    assert.doesNotMatch(page, /NaN|Infinity|undefined/);
    const [median] = await goldOf(lake, "median_followers_by_age_group");
    const shown = tableOf(page, "median_followers_by_age_group")[1];
    assert.deepEqual(
      shown?.map((cell) => cell || "null"),
      median,
    );
    if (name === "huge") {
      assert.equal(tableOf(page, "top_country")[1]?.[1], followers);
      assert.equal(median?.[1], followers);
    }
  }
});

test("the page names the table whose ledger is not balanced", async () => {
  const { reportPage } = await import("../../report/page.ts");
  const { lake } = await makePage(join(folder.path, "wrong"), { pin: toMessages([pin(1)]) });
  const found = await report({ lake, signal: new AbortController().signal });
  const ledger = found.ledger.map((row) => (row.table === "pin" ? { ...row, messages: row.messages + 1 } : row));
  const questions = readQuestions();
  const facts = { questions, gaps: {}, coordinates: { checked: 0, inside: 0 }, prefix: undefined, madeAt: new Date(0) };
  const page = reportPage({ ...found, ...facts, ledger }, openWorld());
  assert.match(page, /is not balanced for pin\./);
  assert.match(storyOf(page)[0] ?? "", /^2 messages The ledger of pin is not balanced: /);
  assert.deepEqual(tableOf(page, "ledger")[1], ["pin", "2", "1", "0", "0", "0", "NO"]);
});

/** The lines of the story at the top of a page, as text. */
const storyOf = (page: string): string[] =>
  [...(/<ul class="story">(.*?)<\/ul>/s.exec(page)?.[1] ?? "").matchAll(/<li>(.*?)<\/li>/gs)].map(([, line = ""]) =>
    line.replace(/<p>/g, " ").replace(/<[^>]*>/g, ""),
  );

/** The foot of an answer's section, as text. */
const footOf = (page: string, name: string): string =>
  new RegExp(`<section id="${name}"[^]*?<p class="source">([^]*?)</p>`).exec(page)?.[1]?.replace(/<[^>]*>/g, "") ?? "";

test("the story and the feet of the answers count ties and rejects", async () => {
  const country = (ind: number) => (ind < 3 ? "Spain" : "Fiji");
  const category = (ind: number) => (ind === 1 ? "art" : "travel");
  const inds = [1, 2, 3, 4];
  const { page } = await makePage(join(folder.path, "story"), {
    pin: [
      ...toMessages(inds.map((ind) => pin(ind, { category: category(ind), follower_count: "5k", poster_name: "P" }))),
      ...toMessages([pin(9, { follower_count: "many" })]).map((message) => ({ ...message, offset: 4 })),
    ],
    geo: toMessages(inds.map((ind) => geo(ind, { country: country(ind), timestamp: "2019-01-01 00:00:00" }))),
    user: toMessages(inds.map((ind) => user(ind, { age: 20 + ind, date_joined: `201${4 + ind}-05-05 00:00:00` }))),
  });
  assert.deepEqual(storyOf(page), [
    "13 messages Every message that came from Kafka is accounted for: 12 clean and 1 rejected.",
    "2 categories The largest category in 2019 is travel, with 3 posts, the smallest art with 1.",
    "2 countries The most frequent leader among categories is travel, in 2 countries; in 1 several categories tie for the first place.",
    "5k followers The greatest count of any poster, 5,000, occurs in 2 countries, which share the first place.",
    "4 people The busiest year of joining is 2015, 2016, 2017 and 2018, with 1.",
  ]);
  assert.match(
    footOf(page, "top_category_by_country"),
    /^Ties: the first place is shared in 1 of 2 countries \(50 %\)\. Rejects: 1 of 9 messages of pin and geo \(11\.1 %\)\. All rows: gold/,
  );
  assert.match(
    footOf(page, "top_country"),
    /^Ties: 2 countries share the first place\. Rejects: 1 of 9 messages of pin and geo /,
  );
  assert.match(footOf(page, "users_joined_by_year"), /^Rejects: 0 of 4 messages of user \(0 %\)\. All rows: gold/);
});

test("an answer with other columns than the expected ones is shown as a table, and left out of the story", async () => {
  const { root, lake } = await programWithAnswer(
    folder.path,
    "other columns",
    "4_top_country.sql",
    "-- Posts by kind\nSELECT is_image_or_video AS kind, 'x' AS note FROM pin ORDER BY kind\n",
  );
  const copy: typeof import("../../report/report.ts") = await import(
    pathToFileURL(join(root, "report/report.ts")).href
  );
  await copy.report({ lake, signal: new AbortController().signal });
  const page = await readFile(join(lake, "gold", "report.html"), "utf8");
  assert.deepEqual(tableOf(page, "top_country"), [
    ["Kind", "Note"],
    ["image", "x"],
    ["video", "x"],
  ]);
  assert.deepEqual(
    storyOf(page).map((line) => line.split(" ").slice(0, 2).join(" ")),
    ["2 messages"],
  );
  assert.match(footOf(page, "top_country"), /^Rejects: 0 of 2 messages of pin \(0 %\)\./);
});

test("an answer that cannot be used names its file and why", async () => {
  const { root, lake } = await programWithAnswer(
    folder.path,
    "bad answers",
    "10_fine.sql",
    "-- Fine\nSELECT 1 AS one\n",
  );
  const copy: typeof import("../../report/report.ts") = await import(
    pathToFileURL(join(root, "report/report.ts")).href
  );
  for (const [name, sql, message] of [
    [
      "11_over.sql",
      "-- Over\nSELECT 9223372036854775807 + count(*) AS n FROM pin",
      /^Cannot run ".*": Out of Range Error/,
    ],
    ["11_typo.sql", "-- Typo\nSELEC 1", /^Cannot run ".*": Parser Error/],
    ["11_two.sql", "-- Two\nSELECT 1 AS one; SELECT 2 AS two;", /^Cannot run ".*": Parser Error/],
    ["11_no_title.sql", "SELECT 1 AS one -- Not a title", /: expected a comment with the title in the first line/],
    ["no_number.sql", "-- Title\nSELECT 1 AS one", /: expected a name such as "10_posts_by_month.sql"/],
    ["11_fine.sql", "-- Title\nSELECT 1 AS one", /: "sql\/answers\/10_fine.sql" has the same name; rename one/],
    ["11_matches.sql", "-- Title\nSELECT 1 AS one", /: the program uses the name "matches" itself; rename the file$/],
  ] as const) {
    const file = join(root, "sql", "answers", name);
    await writeFile(file, sql);
    await assert.rejects(copy.report({ lake, signal: new AbortController().signal }), (error: Error) => {
      assert.match(error.message, message);
      assert.ok(error.message.includes(`"sql/answers/${name}"`), error.message);
      return true;
    });
    await rm(file);
  }
});

test("an answer may end with a semicolon, blanks and comments", async () => {
  const sql = "-- Ends\nSELECT 'a;--b' AS \"/*;\" -- not the end;\n; -- the 'end;\n/* of\nit; */ ";
  const { root, lake } = await programWithAnswer(folder.path, "semicolon", "10_ends.sql", sql);
  const copy: typeof import("../../report/report.ts") = await import(
    pathToFileURL(join(root, "report/report.ts")).href
  );
  const ends = async () => (await copy.report({ lake, signal: new AbortController().signal })).answers.ends;
  assert.deepEqual(await ends(), { columns: ["/*;"], rows: [["a;--b"]] });
  await writeFile(join(root, "sql/answers/10_ends.sql"), "-- Ends\nSELECT 'a;--b' AS one -- without a line end");
  assert.deepEqual(await ends(), { columns: ["one"], rows: [["a;--b"]] });
});

test("the map knows the countries of the sample, except those that are missing in the atlas", () => {
  const world = openWorld();
  assert.deepEqual(
    countries.filter((name) => !world.find(name)),
    [
      ...["Bouvet Island (Bouvetoya)", "Christmas Island", "Cocos (Keeling) Islands", "French Guiana", "Gibraltar"],
      ...["Guadeloupe", "Korea", "Martinique", "Netherlands Antilles", "Reunion", "Svalbard & Jan Mayen Islands"],
      ...["Tuvalu", "United States Minor Outlying Islands"],
    ],
  );
  for (const name of ["", "?", "日本", "constructor"]) assert.equal(world.find(name), undefined);
});

test("coordinates count as within a country, also across the date line", async () => {
  const places = [
    geo(1, { country: "Fiji", longitude: 179, latitude: -17 }),
    geo(2, { country: "Fiji", longitude: -180, latitude: -17 }),
    geo(3, { country: "Fiji", longitude: 0, latitude: -17 }),
    geo(4, { country: "Aruba", longitude: 12.5, latitude: -70 }),
    geo(5, { country: "Nowhere", longitude: 12.5, latitude: -70 }),
    geo(6, { country: "Fiji", longitude: null, latitude: null }),
    geo(7, { country: "'Fiji\0'", longitude: 179, latitude: -17 }),
  ];
  const { page } = await makePage(join(folder.path, "places"), {
    pin: toMessages(places.map(({ ind }) => pin(Number(ind)))),
    geo: toMessages(places),
  });
  assert.match(page, /60 % of the 5 posts with coordinates and a country on the map \(3\) lie/);
  assert.match(page, /1 of 4 names [^:]*: <bdi>Nowhere<\/bdi>/);
});
