// The live page: takes one snapshot a second from the server and shows it. Nothing it gets ever becomes markup.

const $ = (id) => document.getElementById(id);
/** The tables and what people call them, as the newest snapshot has them. */
let tables = [];
let names = {};
const total = (offsets) => Object.values(offsets).reduce((sum, n) => sum + n, 0);
/** Bronze grows by offsets here as the topic does: beside the marks of transactions messages would seem to lag. */
const stages = [
  { id: "mysql", title: "MySQL", unit: "rows", value: (t) => t.in_mysql },
  { id: "topic", title: "Topic", unit: "offsets", value: (t) => t.in_topic },
  {
    id: "bronze",
    title: "Bronze",
    unit: "messages",
    value: (t) => t.messages,
    grows: (t) => total(t.landed),
    by: "offsets",
  },
  { id: "silver", title: "Silver", unit: "rows", value: (t) => t.clean },
];
/** Snapshots that are kept for rates and curves: two minutes. */
const kept = 120;
/** A rate is taken over so many seconds. */
const rateSpan = 5_000;

/** An element with attributes and children; strings become text. */
function el(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) made.setAttribute(key, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

function svg(name, attributes = {}) {
  const made = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

/** Changes a text only where it differs: what stands still is not touched. */
function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en-US");
const number = (n) => (n === null || n === undefined ? "–" : whole.format(n));
const rateText = (r) => (r >= 10 ? whole.format(Math.round(r)) : r.toFixed(1));

/** Text in which nothing is hidden: what could turn or blank the line is named. */
const visible = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) =>
    c === "\n" || c === "\t" || c === "\u200d"
      ? c
      : `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
const oneLine = (text) => visible(text.replace(/\s+/g, " ").trim());

function duration(seconds) {
  if (seconds < 60) return `${seconds} s`;
  return seconds < 3600 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`;
}

function ago(at, now) {
  const seconds = Math.max(0, Math.round((now - at) / 1000));
  return seconds < 86_400 ? duration(seconds) : new Date(at).toISOString().slice(0, 10);
}

/** How far what is posted is behind MySQL; nothing where it is not, or where that is not known. */
function behindText({ behind }) {
  if (!behind || behind.bytes === 0) return "";
  const { seconds, bytes, files } = behind;
  const size = bytes !== null ? bytesText(bytes) : files > 0 ? `${files}+ files` : "";
  const parts = [seconds === null ? "" : duration(seconds), size].filter(Boolean);
  return parts.length > 0 ? `${parts.join(", ")} behind MySQL` : "";
}

function bytesText(bytes) {
  let at = 0;
  let size = bytes;
  for (; size >= 999.5 && at < 3; at++) size /= 1000;
  return `${at > 0 && size < 9.95 ? size.toFixed(1) : Math.round(size)} ${["bytes", "kB", "MB", "GB"][at]}`;
}

// ---- the tables' way

const cards = new Map();

function makeCard(table) {
  const numbers = {};
  const rates = {};
  const list = el("ol", { class: "stages" });
  for (const [i, { id, title, unit }] of stages.entries()) {
    numbers[id] = el("span", { class: "number", "data-table": table, "data-stage": id }, "–");
    rates[id] = el("span", { class: "rate" });
    const flow = i === 0 ? [] : [el("span", { class: "flow", "aria-hidden": "true" })];
    list.append(
      el(
        "li",
        { class: `stage ${id}`, "data-moving": "no" },
        ...flow,
        el("span", { class: "stage-title" }, title),
        numbers[id],
        el("span", { class: "unit" }, unit),
        rates[id],
      ),
    );
  }
  const lag = el("p", { class: "lag", "data-lag": table });
  const rejected = el("button", { type: "button", class: "rejected", "data-rejected": table, hidden: true });
  rejected.addEventListener("click", () => {
    $("filter").value = table;
    void loadRejects();
    $("rejected").scrollIntoView({ block: "start" });
  });
  const topic = el("span", { class: "topic-name" });
  const sums = el("strong", { class: "wrong", "data-sums": table });
  const [superseded, deleted] = ["superseded", "deleted"].map((kind) => el("span", { class: `${kind} sum muted` }));
  const behind = el("span", { class: "muted", "data-behind": table });
  const curve = svg("svg", { viewBox: `0 0 ${kept - 1} 32`, preserveAspectRatio: "none", class: "curve", role: "img" });
  const [areaIn, lineIn, lineOut] = ["area", "line in", "line out"].map((name) => svg("path", { class: name }));
  curve.append(areaIn, lineIn, lineOut);
  const card = el(
    "article",
    { class: "card table", "aria-labelledby": `name-${table}` },
    el(
      "div",
      { class: "card-head" },
      el("h3", { id: `name-${table}` }, names[table]),
      topic,
      superseded,
      deleted,
      rejected,
      sums,
      behind,
      lag,
    ),
    el("div", { class: "card-body" }, list, curve),
  );
  $("tables").append(card);
  return {
    ...{ numbers, rates, lag, behind, rejected, topic, superseded, deleted, sums },
    ...{ curve, areaIn, lineIn, lineOut, list },
  };
}

const history = [];

/** How much a stage grows, per second, over the last seconds. */
function rateOf(value, from = history.length - 1) {
  const last = history[from];
  if (!last) return 0;
  let first = last;
  for (let i = from; i >= 0 && last.at - history[i].at <= rateSpan; i--) first = history[i];
  const [a, b] = [value(first), value(last)];
  if (a === null || b === null || last.at === first.at) return 0;
  return Math.max(0, ((b - a) / (last.at - first.at)) * 1000);
}

function path(values, top) {
  const offset = kept - values.length;
  return values.map((v, i) => `${i === 0 ? "M" : "L"}${offset + i} ${(30 - (v / top) * 27).toFixed(1)}`).join("");
}

/** A server that was started again may have other tables: what was drawn and kept is of no use then. */
function takeTables(snapshot) {
  const found = Object.keys(snapshot.tables);
  if (String(found) === String(tables)) return;
  tables = found;
  names = Object.fromEntries(found.map((table) => [table, snapshot.tables[table].label]));
  history.length = 0;
  cards.clear();
  $("tables").replaceChildren();
}

function showTables(snapshot) {
  $("tables").setAttribute("aria-busy", "false");
  for (const table of tables) {
    if (!cards.has(table)) cards.set(table, makeCard(table));
    const card = cards.get(table);
    const found = snapshot.tables[table];
    const items = card.list.children;
    for (const [i, { id, value, unit, grows = value, by = unit }] of stages.entries()) {
      say(card.numbers[id], number(value(found)));
      const rate = rateOf((p) => grows(p.tables[table]));
      say(card.rates[id], rate >= 0.05 ? `+${rateText(rate)} ${by}/s` : "");
      items[i].dataset.moving = rate >= 0.05 ? "yes" : "no";
    }
    say(card.topic, found.topic);
    const cleaning = rateOf((p) => total(p.tables[table].cleaned));
    card.lag.dataset.state = found.lag === null ? "unknown" : found.lag === 0 ? "even" : "behind";
    const left = found.lag > 0 && cleaning > 1 ? `, about ${Math.ceil(found.lag / cleaning)} s` : "";
    say(
      card.lag,
      found.lag === null
        ? "Kafka is away"
        : found.lag === 0
          ? "All cleaned"
          : `${number(found.lag)} offsets behind${left}`,
    );
    say(card.behind, behindText(found));
    card.rejected.hidden = found.rejected === 0;
    say(card.rejected, `${number(found.rejected)} rejected`);
    say(card.sums, found.balanced ? "" : "The ledger is not balanced");
    say(card.superseded, found.superseded > 0 ? `${number(found.superseded)} superseded` : "");
    say(card.deleted, found.deleted > 0 ? `${number(found.deleted)} deleted` : "");
    const into = history.map((_, i) => rateOf((p) => p.tables[table].in_topic, i));
    const out = history.map((_, i) => rateOf((p) => total(p.tables[table].landed), i));
    const top = Math.max(1, ...into, ...out);
    card.lineIn.setAttribute("d", path(into, top));
    card.areaIn.setAttribute("d", `${path(into, top)}L${kept - 1} 32L${kept - into.length} 32Z`);
    card.lineOut.setAttribute("d", path(out, top));
    card.curve.setAttribute("aria-label", `Offsets per second in the last two minutes, at most ${rateText(top)}`);
  }
}

// ---- posts

function showPosts(snapshot) {
  $("no-posts").hidden = snapshot.posts.length > 0;
  $("posts").replaceChildren(
    ...snapshot.posts.map((post) => {
      const facts = [post.category, post.country, post.user ?? post.poster].filter(Boolean).map(oneLine);
      return el(
        "li",
        {},
        el(
          "bdi",
          post.title ? { class: "title" } : { class: "title none" },
          post.title ? oneLine(post.title) : post.tables.includes("pin") ? "no title" : "…",
        ),
        el("span", { class: "when" }, ago(post.at, snapshot.at)),
        el("bdi", { class: "facts muted" }, facts.join(" · ") || "…"),
        el("span", { class: "id muted" }, `№ ${post.key}`),
      );
    }),
  );
}

// ---- rejects

let shownRejects = "";
/** How many rejects each choice of the filter has. */
let rejectCounts = new Map();

function showFilter(snapshot) {
  const cleaned = tables.some((t) => Object.keys(snapshot.tables[t].cleaned).length > 0);
  say($("no-rejects"), cleaned ? "Nothing was rejected." : "Nothing is cleaned yet.");
  const options = [["", "All", tables.reduce((sum, t) => sum + snapshot.tables[t].rejected, 0)]];
  for (const table of tables) {
    const { rejected, reasons } = snapshot.tables[table];
    if (rejected === 0) continue;
    options.push([table, names[table], rejected]);
    for (const [reason, n] of Object.entries(reasons)) {
      options.push([`${table}/${reason}`, `${names[table]}: ${reason.replaceAll("_", " ")}`, n]);
    }
  }
  const state = JSON.stringify(options);
  if (state === shownRejects) return;
  shownRejects = state;
  rejectCounts = new Map(options.map(([value, , n]) => [value, n]));
  const chosen = $("filter").value;
  $("filter").replaceChildren(...options.map(([value, text, n]) => el("option", { value }, `${text} (${number(n)})`)));
  $("filter").value = rejectCounts.has(chosen) ? chosen : "";
  void loadRejects();
}

let asked = 0;

async function loadRejects() {
  const mine = ++asked;
  const choice = $("filter").value;
  const [table, reason] = choice.split("/");
  const query = new URLSearchParams({ ...(table && { table }), ...(reason && { reason }) });
  const answer = await fetch(`/rejects?${query}`).catch(() => undefined);
  // The newest question counts; one that failed is asked again when the numbers move.
  if (!answer?.ok || mine !== asked) {
    if (mine === asked) shownRejects = "";
    return;
  }
  const { rejects } = await answer.json();
  $("no-rejects").hidden = rejects.length > 0;
  const all = rejectCounts.get(choice);
  say($("rejects-shown"), rejects.length < all ? `The newest ${number(rejects.length)} of ${number(all)}` : "");
  const focused = document.activeElement?.dataset?.place;
  $("rejects").replaceChildren(
    ...rejects.map((reject) => {
      const place = `${reject.table}/${reject.partition}/${reject.offset}`;
      const button = el(
        "button",
        { type: "button", "data-place": place },
        el("span", { class: "reason" }, reject.reason.replaceAll("_", " ")),
        el("span", { class: "where muted" }, `${names[reject.table]} ${reject.partition}:${reject.offset}`),
        el("bdi", { class: "detail" }, oneLine(reject.detail ?? "")),
      );
      button.addEventListener("click", () => openReject(place));
      return el("li", {}, button);
    }),
  );
  if (focused) focusReject(focused);
}

const focusReject = (place) => document.querySelector(`[data-place="${CSS.escape(place)}"]`)?.focus();

async function openReject(place) {
  const answer = await fetch(`/rejects/${place}`).catch(() => undefined);
  if (!answer?.ok) return trouble(["This reject can't be read now; try again"]);
  const found = await answer.json();
  say($("dialog-title"), found.reason.replaceAll("_", " "));
  const facts = {
    Table: names[found.table],
    Place: `partition ${found.partition}, offset ${found.offset}`,
    Posted: found.posted_at ? found.posted_at.replace("T", " ").replace("Z", " UTC") : "without a time",
    Key: found.key === null ? "none" : visible(found.key),
    Detail: found.detail ? visible(found.detail) : "–",
    Size: `${number(found.bytes)} bytes${found.utf8 ? "" : ", not valid UTF-8"}`,
  };
  $("dialog-facts").replaceChildren(
    ...Object.entries(facts).map(([name, value]) =>
      el("div", {}, el("dt", {}, name), el("dd", {}, el("bdi", {}, value))),
    ),
  );
  say($("dialog-raw"), found.raw === null ? "(no value)" : visible(found.raw));
  $("dialog-raw").classList.toggle("none", found.raw === null);
  // The list may have been made anew meanwhile; without this the focus would be lost with the button.
  $("dialog").onclose = () => focusReject(place);
  $("dialog").showModal();
}

// ---- the connection

function trouble(texts) {
  const shown = $("trouble");
  const state = JSON.stringify(texts);
  if (shown.dataset.state === state) return;
  shown.dataset.state = state;
  shown.replaceChildren(...texts.map((text) => el("p", {}, visible(text))));
}

function link(state, text) {
  $("link").dataset.state = state;
  say($("link").lastElementChild, text);
}

let events;

function open() {
  events?.close();
  events = new EventSource("/events");
  events.onmessage = ({ data }) => {
    const snapshot = JSON.parse(data);
    if (snapshot.trouble.length === 0) link("live", "Live");
    else link("partly", "Partly live");
    trouble(snapshot.trouble);
    if (snapshot.tables) {
      takeTables(snapshot);
      history.push(snapshot);
      if (history.length > kept) history.shift();
      showTables(snapshot);
      showFilter(snapshot);
    }
    showPosts(snapshot);
  };
  events.onerror = async () => {
    link("lost", "Reconnecting");
    // A session that has ended is no outage.
    const answer = await fetch("/status").catch(() => undefined);
    if (answer?.status === 401) location.assign("/login");
    else if (events.readyState === EventSource.CLOSED) setTimeout(open, 2_000);
  };
}

// A page that nobody sees asks for nothing.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    events?.close();
    link("waiting", "Paused");
  } else open();
});

$("filter").addEventListener("change", loadRejects);
$("dialog").addEventListener("click", (event) => {
  if (event.target === $("dialog")) $("dialog").close();
});
fetch("/login", { redirect: "manual" }).then((answer) => {
  // Without a token the login page leads back here.
  $("logout").hidden = answer.type === "opaqueredirect";
});
$("logout").addEventListener("click", async () => {
  await fetch("/logout", { method: "POST" });
  location.assign("/login");
});
open();
