// The rejects of the live page: a list with a filter, and a dialog that shows one message.

import { $, el, number, oneLine, say, visible } from "./dom.js";

let names = {};
let shown = "";
/** How many rejects each choice of the filter has. */
let counts = new Map();

export function showFilter(tables) {
  const entries = Object.entries(tables);
  names = Object.fromEntries(entries.map(([table, { label }]) => [table, label]));
  const isCleaned = entries.some(([, { cleaned }]) => Object.keys(cleaned).length > 0);
  say($("no-rejects"), isCleaned ? "No message was rejected." : "No message has been cleaned yet.");
  const options = [["", "All", entries.reduce((sum, [, { rejected }]) => sum + rejected, 0)]];
  for (const [table, { rejected, reasons }] of entries) {
    if (rejected === 0) continue;
    options.push([table, names[table], rejected]);
    for (const [reason, n] of Object.entries(reasons)) {
      options.push([`${table}/${reason}`, `${names[table]}: ${reason.replaceAll("_", " ")}`, n]);
    }
  }
  const state = JSON.stringify(options);
  if (state === shown) return;
  shown = state;
  counts = new Map(options.map(([value, , n]) => [value, n]));
  const chosen = $("filter").value;
  $("filter").replaceChildren(...options.map(([value, text, n]) => el("option", { value }, `${text} (${number(n)})`)));
  $("filter").value = counts.has(chosen) ? chosen : "";
  void loadRejects();
}

/** Shows the rejects of one table. */
export function chooseRejects(table) {
  $("filter").value = table;
  void loadRejects();
  $("rejected").scrollIntoView({ block: "start" });
}

let requests = 0;

async function loadRejects() {
  const mine = ++requests;
  const choice = $("filter").value;
  const [table, reason] = choice.split("/");
  const query = new URLSearchParams({ ...(table && { table }), ...(reason && { reason }) });
  const answer = await fetch(`/rejects?${query}`).catch(() => undefined);
  // Only the newest request counts; if it fails, the next snapshot repeats it.
  if (!answer?.ok || mine !== requests) {
    if (mine === requests) shown = "";
    return;
  }
  const { rejects } = await answer.json();
  $("no-rejects").hidden = rejects.length > 0;
  const all = counts.get(choice);
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
  if (!answer?.ok) return say($("rejects-shown"), "Cannot read this reject now; try again");
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
  // The list may have been replaced meanwhile, and its button with it.
  $("dialog").onclose = () => focusReject(place);
  $("dialog").showModal();
}

$("filter").addEventListener("change", loadRejects);
$("dialog").addEventListener("click", (event) => {
  if (event.target === $("dialog")) $("dialog").close();
});
