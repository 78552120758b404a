/**
 * Writes lines and progress. Results go to stdout, progress and warnings to stderr.
 *
 * @module
 */

import { count, duration, printable, sum } from "../io/text.ts";
import { type Table, tableNames } from "../io.ts";
import type { Notice } from "../runtime/notice.ts";
import { bar, width } from "./format.ts";

/** Where a command writes. */
export interface Terminal {
  /** A line of the result. */
  print(text: string): void;
  /** Waits until the reader of stdout has caught up. */
  printed(): Promise<void>;
  /** Aborted when the reader of stdout has closed it, as head does. */
  readerGone: AbortSignal;
  /** A text of the result that replaces the previous one in a terminal. */
  redrawn(text: string): void;
  /** A line of progress, hidden by `--quiet`. */
  say(text: string): void;
  /** A line on stderr that `--quiet` does not hide. */
  note(text: string): void;
  /** A warning, which `--quiet` does not hide. */
  warn(text: string): void;
  /** Shows warnings and waits of a stage; ignores its other facts. */
  notice(fact: Notice | { fact: string }): void;
  /** Shows a progress line, which replaces the previous one of its subject. Without a text the line is removed. */
  show(subject: string, text?: string): void;
  /** Starts the progress of a stage, a line for each table. Several stages are shown together. */
  progress(stage: string, options?: ProgressOptions): Progress;
  /** Whether progress lines are redrawn. */
  isInteractive: boolean;
}

interface ProgressOptions {
  /** The unit of the counts. Default: rows. */
  unit?: string;
  /** It has no end. Outside a terminal nothing is printed; the caller prints each step. */
  follow?: boolean;
}

/** Progress of one stage. */
export interface Progress {
  /** The rate counts what is done after the first call. */
  set(table: Table, done: number, total: number): void;
  add(table: Table, done: number): void;
  /** Marks a table as done, which makes its count the total. */
  finish(table: Table): void;
  end(): void;
}

/** Width of the longest table name. */
const nameWidth = Math.max(...tableNames.map((table) => table.length));

/** Opens stdout and stderr for writing. */
export function openTerminal({ quiet }: { quiet: boolean }): Terminal {
  const { stdout, stderr } = process;
  const readerGone = new AbortController();
  // A closed pipe is not an error.
  for (const stream of [stdout, stderr]) {
    stream.on("error", (error: NodeJS.ErrnoException) => {
      if (error.code === "EPIPE" && stream === stdout) readerGone.abort();
      if (error.code === "EPIPE" || stream === stderr) return;
      process.exitCode = 1;
      stderr.write(`Error: Cannot write the result: ${error.message}\n`);
    });
  }
  const colours = stderr.isTTY && !process.env.NO_COLOR;
  const yellow = (text: string) => (colours ? `\u001b[33m${text}\u001b[0m` : text);
  const stages: (() => string[])[] = [];
  const draw = () => redraw(stages.flatMap((show) => show()));
  const waits = openWaits({ stages, quiet, draw });
  let drawn: string[] = [];
  let overdrawn = 0;
  const erase = () => {
    if (drawn.length > 0) stderr.write(`\u001b[${drawn.length}A\u001b[J`);
  };
  const redraw = (lines: string[]) => {
    erase();
    drawn = lines;
    for (const line of lines) stderr.write(`${line.slice(0, (stderr.columns ?? 80) - 1)}\n`);
  };
  const line = (stream: NodeJS.WriteStream, text: string) => {
    const lines = drawn;
    if (lines.length > 0) redraw([]);
    stream.write(`${text}\n`);
    if (lines.length > 0) redraw(lines);
  };
  const say = (text: string) => {
    if (!quiet) line(stderr, printable(text));
  };
  const warn = (text: string) => line(stderr, yellow(`Warning: ${printable(text)}`));
  return {
    isInteractive: stderr.isTTY,
    print: (text) => line(stdout, text),
    redrawn: (text) => {
      if (!stdout.isTTY) return void stdout.write(`${text}\n\n`);
      const lines = text.split("\n").map(printable);
      const up = overdrawn > 0 ? `\u001b[${overdrawn}A` : "";
      stdout.write(`${up}\u001b[J${lines.join("\n")}\n`);
      overdrawn = sum(lines, (one) => Math.max(1, Math.ceil(width(one) / (stdout.columns ?? 80))));
    },
    readerGone: readerGone.signal,
    printed: async () => {
      if (!stdout.writableNeedDrain) return;
      // A reader that goes away ends the wait too.
      await new Promise<void>((resolve) => {
        const events = ["drain", "error", "close"];
        const done = () => {
          for (const event of events) stdout.off(event, done);
          resolve();
        };
        for (const event of events) stdout.on(event, done);
      });
    },
    say,
    note: (text) => line(stderr, printable(text)),
    warn,
    notice: openNotices({ warn, say }),
    show: waits,
    progress(stage, { unit = "rows", follow = false } = {}) {
      return openProgress({ stage, unit, follow, stages, draw, quiet });
    },
  };
}

/** Shows warnings and waits. Each table reports the same wait: within a minute it is shown once. */
function openNotices({ warn, say }: Pick<Terminal, "warn" | "say">): Terminal["notice"] {
  let last = { text: "", at: 0 };
  return (fact) => {
    const { fact: name, text } = fact as Notice;
    if (name === "warned") warn(text);
    if (name !== "waited" || (text === last.text && Date.now() - last.at < 60_000)) return;
    last = { text, at: Date.now() };
    say(text);
  };
}

/** Shows progress lines by subject; outside a terminal one every 5 s. */
function openWaits({ stages, quiet, draw }: { stages: (() => string[])[]; quiet: boolean; draw: () => void }) {
  const { stderr } = process;
  const texts = new Map<string, string>();
  const printed = new Map<string, number>();
  stages.push(() => [...texts.values()]);
  return (subject: string, text?: string) => {
    if (quiet || (text === undefined && !texts.has(subject))) return;
    if (text === undefined) texts.delete(subject);
    else texts.set(subject, printable(text));
    if (stderr.isTTY) return draw();
    const last = printed.get(subject) ?? Date.now();
    printed.set(subject, last);
    if (text === undefined) printed.delete(subject);
    if (text === undefined || Date.now() - last < 5_000) return;
    printed.set(subject, Date.now());
    stderr.write(`${texts.get(subject)}\n`);
  };
}

/** Counts the rows of each table and shows them on a timer. */
function openProgress({
  stage,
  unit,
  follow,
  stages,
  draw,
  quiet,
}: Required<ProgressOptions> & {
  stage: string;
  /** The lines of each stage that is running. */
  stages: (() => string[])[];
  draw: () => void;
  quiet: boolean;
}): Progress {
  const { stderr } = process;
  // The rate counts what came after the first number: a stage that resumes begins with what earlier runs did.
  type Counted = { done: number; total: number; from: number; since: number; ended?: number | undefined };
  const started = Date.now();
  const counts = new Map<Table, Counted>();
  const countedOf = (table: Table, done = 0): Counted =>
    counts.get(table) ?? { done, total: 0, from: done, since: Date.now() };
  const lineOf = (table: Table, { done, total, from, since, ended }: Counted) => {
    const head = `  ${stage.padEnd(follow ? 5 : 0)} ${table.padEnd(nameWidth)} `;
    const perSecond = (done - from) / Math.max(0.001, ((ended ?? Date.now()) - since) / 1000);
    const rate = `, ${count(Math.round(perSecond))}/s`;
    if (total === 0 && !ended) return `${head}${count(done)} ${unit}${rate}`;
    if (ended && (follow || done === 0)) {
      return `${head}${done > 0 ? `${count(done)} ${unit}, ` : ""}up to date${follow ? ", waiting" : ""}`;
    }
    const left = done < total && perSecond > 0 ? `, ${duration(((total - done) / perSecond) * 1000)} left` : "";
    const share = total > 0 ? Math.min(1, done / total) : 1;
    const text = `${count(done)} of ${ended ? "" : "about "}${count(Math.max(done, total))} ${unit}`;
    // No bar in plain lines. In a narrow terminal the time left matters most.
    if (!stderr.isTTY) return `${head}${text}${rate}${left}`;
    const forms = [
      `${head}${bar(Math.floor(share * 64), "·")} ${text}${rate}${left}`,
      `${head}${text}${rate}${left}`,
      `${head}${text}${left}`,
    ];
    return forms.find((form) => width(form) < (stderr.columns ?? 80)) ?? (forms.at(-1) as string);
  };
  const show = () => {
    if (counts.size > 0)
      return tableNames.flatMap((table) => (counts.has(table) ? [lineOf(table, countedOf(table))] : []));
    return Date.now() - started < 1_000 ? [] : [`  ${stage}: ${duration(Date.now() - started)}`];
  };
  stages.push(show);
  // A terminal is redrawn; elsewhere a plain line now and then shows that it is running.
  const every = stderr.isTTY ? 200 : 5_000;
  let printed = "";
  const timer = setInterval(() => {
    if (quiet) return;
    if (stderr.isTTY) return draw();
    if (counts.size === 0) return;
    const counted = JSON.stringify([...counts]);
    if (counted !== printed && !follow) for (const text of show()) stderr.write(`${text}\n`);
    printed = counted;
  }, every);
  timer.unref();
  return {
    set: (table, done, total) => {
      const counted = countedOf(table, done);
      counts.set(table, { ...counted, done, total, from: Math.min(counted.from, done), ended: undefined });
    },
    add: (table, added) => {
      const counted = countedOf(table);
      counts.set(table, { ...counted, done: counted.done + added, ended: undefined });
    },
    finish: (table) => {
      const counted = countedOf(table);
      counts.set(table, { ...counted, total: counted.done, ended: Date.now() });
    },
    end: () => {
      clearInterval(timer);
      stages.splice(stages.indexOf(show), 1);
      if (stderr.isTTY && !quiet) draw();
    },
  };
}
