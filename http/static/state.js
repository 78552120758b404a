// The state of the pipeline in one sentence, with the command to run next.

import { rateNow } from "./charts.js";
import { $, clock, copyButton, duration, el, say, some, visible } from "./dom.js";

/** A pipeline that is this far behind while clean runs keeps up, ms. */
export const keepsUp = 10_000;

let shown = "";

/** Shows a state: good, behind, wrong or waiting. */
function show({ state, title, texts = [], command }) {
  const key = JSON.stringify([state, title, texts, command]);
  if (key === shown) return;
  shown = key;
  const box = $("state");
  // A screen reader hears of a new state, not of every number.
  if (box.dataset.state !== state) say($("announce"), title);
  box.dataset.state = state;
  say($("state-title"), title);
  $("state-text").replaceChildren(...texts.map((text) => el("p", {}, visible(text))));
  const button = $("state-command").firstElementChild;
  if (button?.dataset.command !== command) {
    $("state-command").replaceChildren(...(command ? [copyButton(command)] : []));
  }
}

/** The sentences of a message: what happened, and the rest. */
function split(message) {
  const [, title, text] = /^(.*?): (.*)$/s.exec(message) ?? [];
  return title ? { title, texts: [text.charAt(0).toUpperCase() + text.slice(1)] } : { title: message, texts: [] };
}

const sum = (items) => items.reduce((total, n) => total + n, 0);

export function showState(snapshot, commands) {
  const tables = Object.values(snapshot.tables ?? {});
  const [trouble, ...others] = snapshot.trouble;
  if (trouble) {
    const { title, texts } = split(trouble);
    return show({ state: "wrong", title, texts: [...texts, ...others] });
  }
  const known = sum(tables.map((t) => t.in_kafka ?? t.messages));
  const unposted = sum(tables.map((t) => Math.max(0, (t.in_mysql ?? 0) - (t.posted ?? 0))));
  if (known === 0) {
    const texts = [`MySQL holds ${some(unposted, "row")}. This command posts them:`];
    return show({ state: "waiting", title: "Nothing is posted yet", texts, command: commands.post });
  }
  const waiting = tables.map((t) => t.waiting);
  const messages = sum(waiting.map((w) => w?.messages ?? 0));
  const about = waiting.every((w) => w?.exact) ? "" : "about ";
  const since = Math.min(...waiting.map((w) => w?.since ?? Number.POSITIVE_INFINITY));
  const age = Math.max(0, snapshot.at - since);
  const { cleaner } = snapshot;
  const runs = cleaner && `clean is running since ${clock(Date.parse(cleaner.started))} (process ${cleaner.pid})`;
  if (messages === 0) {
    const title = "Up to date";
    const all = `All ${some(known, "message")} are cleaned`;
    if (runs) return show({ state: "good", title, texts: [`${all}; ${runs}`] });
    const texts = [`${all}. No clean is running: new messages wait until this command runs:`];
    return show({ state: "good", title, texts, command: commands.clean });
  }
  const count = `${about}${some(messages, "message")}`;
  const isCleaned = rateNow((sample) => sample.silver) > 0;
  if (runs || isCleaned) {
    const title = `${count}${since < Number.POSITIVE_INFINITY ? `, about ${duration(Math.ceil(age / 1000))}` : ""} behind`;
    return show({
      state: age > keepsUp ? "behind" : "good",
      title: capital(title),
      texts: runs ? [capital(runs)] : [],
    });
  }
  const title = capital(`${count} ${messages === 1 ? "waits" : "wait"}, and no clean is running`);
  const oldest = since < Number.POSITIVE_INFINITY ? `The oldest was posted ${duration(age / 1000)} ago. ` : "";
  return show({ state: "wrong", title, texts: [`${oldest}This command cleans them:`], command: commands.clean });
}

const capital = (text) => text.charAt(0).toUpperCase() + text.slice(1);

export function showStopped(at, commands) {
  const texts = ["It has stopped, or the network is down. The page reconnects by itself."];
  if (at) texts.push(`The numbers below are from ${clock(at)}.`);
  if (commands) texts.push("This command starts it again:");
  show({ state: "wrong", title: "Cannot reach the server", texts, command: commands?.serve });
}

export function showStarting() {
  show({ state: "waiting", title: "Reading the first numbers", texts: ["From MySQL, Kafka and the lake"] });
}

/** How old the report is, against the rows. */
export function showReportAge({ at, rows_at: rowsAt }) {
  const isOld = at !== null && rowsAt !== null && rowsAt > at;
  const late = isOld ? `The rows have changed since, last at ${clock(rowsAt)}` : "No row has changed since";
  const text = at === null ? "There is no report yet" : `Report of ${clock(at)}. ${late}`;
  say($("report-age"), text);
  $("report-age").dataset.state = isOld ? "old" : "fresh";
}
