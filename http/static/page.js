// The live page: receives about one snapshot a second and shows it.

import { addSample, answerCard, rateNow, showRates } from "./charts.js";
import { $, ago, bytesText, copyButton, duration, el, number, oneLine, rateText, say, visible } from "./dom.js";
import { chooseRejects, showFilter } from "./rejects.js";
import { keepsUp, showReportAge, showStarting, showState, showStopped } from "./state.js";

/** All but MySQL count messages, so that a pipeline that is up to date shows equal numbers. */
const stages = [
  { id: "mysql", title: "MySQL", value: (t) => t.in_mysql },
  { id: "kafka", title: "Kafka", value: (t) => t.in_kafka },
  { id: "bronze", title: "Bronze", value: (t) => t.messages },
  { id: "silver", title: "Silver", value: (t) => t.clean + t.superseded + t.deleted + t.rejected },
];

let commands;
let newest;

// ---- the tables

const rows = new Map();
const results = { clean: "clean", superseded: "superseded", deleted: "deleted" };

function makeRow(table) {
  const numbers = {};
  const notes = {};
  const cells = stages.map(({ id, title }) => {
    numbers[id] = el("span", { class: "number", "data-table": table, "data-stage": id }, "–");
    notes[id] = el("span", { class: "note" });
    return el("td", { class: `stage ${id}`, "data-title": title }, numbers[id], notes[id]);
  });
  const name = el("span", { class: "name" });
  const topic = el("span", { class: "topic-name" });
  const lag = el("p", { class: "lag", "data-lag": table });
  const parts = Object.fromEntries(Object.keys(results).map((kind) => [kind, el("span", { class: kind })]));
  const rejected = el("button", { type: "button", class: "rejected", "data-rejected": table, hidden: true });
  rejected.addEventListener("click", () => chooseRejects(table));
  const wrong = el("strong", { class: "wrong", "data-sums": table });
  const result = el(
    "td",
    { class: "result" },
    lag,
    el("p", { class: "parts" }, ...Object.values(parts), rejected, wrong),
  );
  $("tables").append(el("tr", { class: "table" }, el("th", { scope: "row" }, name, topic), ...cells, result));
  return { name, topic, numbers, notes, lag, parts, rejected, wrong };
}

/** What MySQL has that is not posted. */
function mysqlNote({ in_mysql: inMysql, posted, behind }) {
  if (behind && behind.bytes !== 0) {
    const { seconds, bytes, files } = behind;
    const size = bytes !== null ? bytesText(bytes) : files > 0 ? `${files}+ files` : "";
    const parts = [seconds === null ? "" : duration(seconds), size].filter(Boolean);
    if (parts.length > 0) return `${parts.join(", ")} not posted`;
  }
  if (inMysql === null || posted === null) return "";
  const left = inMysql - posted;
  if (left <= 0) return inMysql > 0 ? "all posted" : "";
  return posted === 0 ? "not posted" : `${number(left)} not posted`;
}

function lagText({ waiting, in_topic: inTopic }, now) {
  if (!waiting) return ["unknown", "Kafka is unavailable"];
  if (inTopic === null) return ["unknown", "The topic does not exist yet"];
  if (waiting.messages === 0) return ["even", "Up to date"];
  const ms = waiting.since === null ? undefined : Math.max(0, now - waiting.since);
  const age = ms === undefined ? "" : `, ${duration(Math.ceil(ms / 1000))}`;
  return [
    ms !== undefined && ms <= keepsUp ? "near" : "behind",
    `${waiting.exact ? "" : "about "}${number(waiting.messages)} behind${age}`,
  ];
}

/** A server that was restarted may have other tables: then the table is built anew. */
function checkTables(tables) {
  if (String(Object.keys(tables)) === String([...rows.keys()])) return;
  rows.clear();
  $("tables").replaceChildren();
  for (const table of Object.keys(tables)) rows.set(table, makeRow(table));
}

function showTables({ tables, at }) {
  checkTables(tables);
  $("pipeline").setAttribute("aria-busy", "false");
  for (const [table, row] of rows) {
    const found = tables[table];
    say(row.name, found.label);
    say(row.topic, found.topic);
    for (const { id, value } of stages) {
      const about = id === "kafka" && found.waiting && !found.waiting.exact ? "≈ " : "";
      say(row.numbers[id], `${about}${number(value(found))}`);
      if (id === "mysql") continue;
      const rate = rateNow((sample) => sample.tables && (about ? null : value(sample.tables[table])));
      say(row.notes[id], rate >= 0.05 ? `+${rateText(rate)}/s` : "");
    }
    say(row.notes.mysql, mysqlNote(found));
    const [state, text] = lagText(found, at);
    row.lag.dataset.state = state;
    say(row.lag, text);
    for (const kind of Object.keys(results)) {
      const n = found[kind];
      say(row.parts[kind], n > 0 ? `${number(n)} ${results[kind]}` : "");
    }
    row.rejected.hidden = found.rejected === 0;
    say(row.rejected, `${number(found.rejected)} rejected`);
    say(row.wrong, found.balanced ? "" : "The ledger is not balanced");
  }
}

// ---- posts

const deletedTables = (post, tables) =>
  post.deleted.includes("pin")
    ? "deleted"
    : post.deleted.map((table) => `${(tables?.[table].label ?? table).toLowerCase()} deleted`).join(", ");

function showPosts({ posts, tables, at }) {
  $("no-posts").hidden = posts.length > 0;
  $("posts").replaceChildren(
    ...posts.map((post) => {
      const facts = [post.category, post.country, post.user ?? post.poster].filter(Boolean).map(oneLine);
      const deleted = deletedTables(post, tables);
      const title = post.title ? oneLine(post.title) : post.tables.includes("pin") && !deleted ? "no title" : "…";
      return el(
        "li",
        { "data-deleted": deleted !== "" },
        el(
          "span",
          { class: "title" },
          el(deleted === "deleted" ? "del" : "span", post.title ? {} : { class: "none" }, el("bdi", {}, title)),
          deleted && el("span", { class: "tag" }, deleted),
        ),
        el("span", { class: "when" }, ago(post.at, at)),
        el("bdi", { class: "facts muted" }, facts.join(" · ") || "…"),
        el("span", { class: "id muted" }, `№ ${post.key}`),
      );
    }),
  );
}

// ---- the answers

let drawn;

async function showAnswers({ report }) {
  showReportAge(report);
  if (report.at === drawn) return;
  drawn = report.at;
  const answer = report.at === null ? undefined : await fetch("/answers").catch(() => undefined);
  if (report.at !== null && !answer?.ok) {
    drawn = undefined; // the next snapshot tries again
    const { error } = (await answer?.json().catch(() => undefined)) ?? {};
    if (error) {
      $("answers").replaceChildren();
      $("no-answers").hidden = true;
    }
    say($("answers-error"), error ? visible(error) : "");
    $("answers-error").hidden = !error;
    return;
  }
  const { answers = [] } = (await answer?.json()) ?? {};
  $("answers").replaceChildren(...answers.map(answerCard));
  $("no-answers").hidden = answers.length > 0;
  $("answers-error").hidden = true;
}

// ---- the connection

function link(state, text) {
  $("link").dataset.state = state;
  say($("link").lastElementChild, text);
}

function start(data) {
  const { history, ...given } = JSON.parse(data);
  for (const sample of history) addSample(sample);
  commands = given.commands;
  for (const place of document.querySelectorAll("[data-copy]")) {
    const { copy, label } = place.dataset;
    place.replaceChildren(copyButton(commands[copy], label));
  }
}

function show(snapshot) {
  newest = snapshot;
  delete document.body.dataset.stale;
  if (snapshot.trouble.length === 0) link("live", "Live");
  else link("partly", "Partly live");
  showAnswers(snapshot);
  showPosts(snapshot);
  if (snapshot.tables) {
    addSample({ ...snapshot.totals, at: snapshot.at, tables: snapshot.tables });
    showTables(snapshot);
    showRates(snapshot.at);
    showFilter(snapshot.tables);
  }
  showState(snapshot, commands);
}

let events;

function open() {
  events?.close();
  events = new EventSource("/events");
  events.addEventListener("start", ({ data }) => start(data));
  events.onmessage = ({ data }) => show(JSON.parse(data));
  events.onerror = async () => {
    link("lost", "Reconnecting");
    const answer = await fetch("/status").catch(() => undefined);
    if (answer?.status === 401) location.assign("/login");
    if (!answer) {
      document.body.dataset.stale = "";
      showStopped(newest?.at, commands);
    }
    if (events.readyState === EventSource.CLOSED) setTimeout(open, 2_000);
  };
}

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    events?.close();
    link("waiting", "Paused");
  } else open();
});

fetch("/login", { redirect: "manual" }).then(
  (answer) => {
    // Without a token the login page leads back here.
    $("logout").hidden = answer.type === "opaqueredirect";
  },
  () => {},
);
$("logout").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST" });
  location.assign("/login");
});
showStarting();
open();
