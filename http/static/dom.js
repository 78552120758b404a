// Elements and text of the live page. Nothing that the server sends becomes markup.

export const $ = (id) => document.getElementById(id);

function make(element, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== undefined && child !== false));
  return element;
}

/** An element with attributes and children; strings become text. */
export const el = (name, attributes = {}, ...children) => make(document.createElement(name), attributes, children);

export const svg = (name, attributes = {}, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);

/** Sets a text if it differs, so that a selection and a screen reader are not disturbed. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const whole = new Intl.NumberFormat("en-US");
const compact = new Intl.NumberFormat("en-US", { notation: "compact", maximumFractionDigits: 1 });
export const number = (n) => (n === null || n === undefined ? "–" : whole.format(n));
/** A number for little room: 1.5k, 30M. */
export const short = (n) => (n < 10_000 ? whole.format(n) : compact.format(n).replace("K", "k"));
export const some = (n, one, many = `${one}s`) => `${number(n)} ${n === 1 ? one : many}`;
export const rateText = (r) => (r >= 10 || r < 0.05 ? whole.format(Math.round(r)) : r.toFixed(1));

/** A text in which control and formatting characters, which could turn or hide a line, are named. */
export const visible = (text) =>
  text.replace(/[\p{Cc}\p{Cf}\u2028\u2029]/gu, (c) =>
    c === "\n" || c === "\t" || c === "\u200d"
      ? c
      : `⟨U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`,
  );
export const oneLine = (text) => visible(String(text).replace(/\s+/g, " ").trim());

export function duration(seconds) {
  if (seconds < 60) return `${Math.round(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  return seconds < 172_800 ? `${Math.floor(seconds / 3600)} h` : `${Math.floor(seconds / 86_400)} days`;
}

export function ago(at, now) {
  const seconds = Math.max(0, (now - at) / 1000);
  return seconds < 86_400 ? duration(seconds) : new Date(at).toISOString().slice(0, 10);
}

/** A time of today as 14:03:05, of another day with its date. */
export function clock(at) {
  const time = new Date(at);
  const text = time.toLocaleTimeString("en-GB");
  return time.toDateString() === new Date().toDateString() ? text : `${time.toISOString().slice(0, 10)} ${text}`;
}

export function bytesText(bytes) {
  let at = 0;
  let size = bytes;
  for (; size >= 999.5 && at < 3; at++) size /= 1000;
  return `${at > 0 && size < 9.95 ? size.toFixed(1) : Math.round(size)} ${["bytes", "kB", "MB", "GB"][at]}`;
}

/** A button that copies a command; `label` is what it shows of it. */
export function copyButton(command, label = command) {
  const code = el("code", {}, label);
  const done = el("span", { class: "copied" }, "Copy");
  const button = el("button", { type: "button", class: "copy", title: command, "data-command": command }, code, done);
  button.addEventListener("click", async () => {
    const copied = await copy(command);
    say(done, copied ? "Copied" : "Press Ctrl+C");
    say($("announce"), copied ? "Copied" : "The command is selected: press Ctrl+C");
    setTimeout(() => say(done, "Copy"), 2_000);
  });
  return button;
}

/** Browsers allow the clipboard only on this machine and over HTTPS; elsewhere the older way may work. */
async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    const area = el("textarea", { class: "hidden", readonly: true });
    area.value = text;
    document.body.append(area);
    area.select();
    const copied = document.execCommand("copy");
    area.remove();
    return copied;
  }
}
