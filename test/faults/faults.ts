/**
 * The fault suite: `npm run test:faults -- [--short] [--seed N] [--only NAME,NAME/ROUND] [--rounds N] [--hits N]
 * [--zookeeper]`.
 *
 * Every round creates separate tables, injects faults while the program posts and cleans them, runs the same commands
 * undisturbed, and compares MySQL, topics and lake. A strike counts as a hit only if a stage was running; the log names
 * the trace point that was hit. The exit code is 1 if anything was lost, duplicated or wrong.
 *
 * @module
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../../runtime/random.ts";
import { findPython } from "../support/python.ts";
import { launcher } from "../support/support.ts";
import { changes } from "./changes.ts";
import { compareLake, compareTopics, type Findings, readMessages } from "./compare.ts";
import { compareChanges } from "./compare_changes.ts";
import { hostile } from "./hostile.ts";
import { people } from "./people.ts";
import { publishing } from "./publishing.ts";
import { type Seen, watchSilver } from "./readers.ts";
import { makeSandbox, openServices, type Sandbox, type Services } from "./sandbox.ts";
import { type Fault, type Round, strikes } from "./strikes.ts";

/** Results of one fault, over all its rounds. */
interface Tally {
  rounds: number;
  strikes: number;
  hits: number;
  lost: number;
  doubled: number;
  wrong: number;
  /** If the tables were changed: rows written, messages, keys that should be deleted, and repeated messages. */
  writes: number;
  messages: number;
  notDeleted: number;
  again: number;
  reads: number;
  failedReads: number;
}

const { values } = parseArgs({
  options: {
    seed: { type: "string", default: String(Math.floor(Math.random() * 1e6)) },
    only: { type: "string" },
    rounds: { type: "string" },
    hits: { type: "string" },
    rows: { type: "string" },
    short: { type: "boolean", default: false },
    zookeeper: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});
const { short, zookeeper } = values;
const faults: Record<string, Fault> = { ...strikes, ...changes, ...people, ...publishing, ...hostile };
const seed = Number(values.seed);
const say = (line: string) => process.stderr.write(`${line}\n`);

/** Numbers from 0 to 1 that depend on a text only (xmur3, mulberry32). */
function randomOf(text: string): () => number {
  let state = 1779033703;
  for (const char of text) state = Math.imul(state ^ char.charCodeAt(0), 3432918353) ^ (state >>> 13);
  const dice = new Random(state);
  return () => dice.real();
}

async function runRound(name: string, number: number, services: Services, python: string, tally: Tally): Promise<void> {
  const random = randomOf(`${seed} ${name} ${number}`);
  const between = (least: number, most: number) => least + Math.floor(random() * (most - least + 1));
  const sandboxes: { sandbox: Sandbox; watcher: { stop: () => Promise<Seen> } | undefined }[] = [];
  const log = (text: string) => say(`  ${name}/${number}  ${text}`);
  const wrong = (text: string) => {
    tally.wrong++;
    log(`WRONG: ${text}`);
  };
  const found = ({ lost, doubled, wrong: others }: Findings) => {
    tally.lost += lost;
    tally.doubled += doubled;
    for (const text of others.slice(0, 10)) wrong(text);
    tally.wrong += Math.max(0, others.length - 10);
    if (lost + doubled > 0) log(`LOST ${lost}, DOUBLED ${doubled}`);
  };
  const brokers = [`127.0.0.1:${services.brokerPort}`];
  let topics: Awaited<ReturnType<typeof readMessages>> | undefined;
  const round: Round = {
    short,
    times: (wanted) => (short ? Math.min(2, wanted) : wanted),
    ...{ services, random, between, wrong, note: log },
    pick: (items) => items[between(0, items.length - 1)] as (typeof items)[number],
    async sandbox({ watch = "all", ...options } = {}) {
      const rows = values.rows
        ? Number(values.rows)
        : between(...((short ? [12_000, 16_000] : [200_000, 300_000]) as [number, number]));
      const sandbox = await makeSandbox(
        services,
        `${name}-${number}${sandboxes.length > 0 ? `-${sandboxes.length}` : ""}`,
        {
          ...{ rows, seed: between(1, 1e6), partitions: short || number % 2 === 0 ? 3 : 1 },
          ...options,
        },
      );
      const isWatched = watch !== "none";
      const watcher = isWatched ? watchSilver(python, sandbox.lake, { deletes: watch === "deletes" }) : undefined;
      sandboxes.push({ sandbox, watcher });
      return sandbox;
    },
    hit(what, place) {
      tally.strikes++;
      if (place === undefined) return;
      tally.hits++;
      log(`${what}: hit ${place}`);
    },
    async strike(what, works, action) {
      const places = works.map((work) => work.at());
      await action();
      let any = false;
      for (const [i, place] of places.entries()) {
        round.hit(what, place && `${works[i]?.command} at ${place}`);
        any ||= place !== undefined;
      }
      return any;
    },
    async finish(sandbox) {
      await sandbox.go(["post"]);
      await sandbox.go(["clean"]);
      const messages = await readMessages(brokers, sandbox, python);
      found(await compareTopics(sandbox, messages));
      found(await compareLake(sandbox, messages));
      return messages;
    },
    async finishChanges(sandbox, writers, { again: mayRepeat } = {}) {
      await writers.stop();
      const { stderr } = await sandbox.go(["post"]);
      const [miscounted] = /Warning: .* than the binary log of MySQL has/.exec(stderr) ?? [];
      if (miscounted) wrong(miscounted);
      const messages = await readMessages(brokers, sandbox, python);
      const { history } = writers;
      const kafka = { brokers, prefix: sandbox.prefix, partitions: 1, replicationFactor: 1 };
      const compared = { sandbox, messages, history, kafka, countsExactly: services.isMariaDb };
      const { lost, notDeleted, wrong: others, examples, again, messages: count } = await compareChanges(compared);
      found({ lost, doubled: 0, wrong: others });
      tally.notDeleted += notDeleted;
      tally.writes += writers.writes();
      tally.messages += count;
      tally.again += again.rows + again.deletes;
      if (notDeleted > 0) log(`NOT DELETED ${notDeleted}`);
      for (const text of examples.slice(0, 5)) log(text);
      log(`${writers.writes()} rows written, ${count} messages, ${again.rows} rows and ${again.deletes} deletes again`);
      // MySQL's snapshots may be newer than their log position; those changes are posted again.
      const isFree = mayRepeat === "all" || !services.isMariaDb;
      const mustNot = isFree ? 0 : again.deletes + (mayRepeat === "rows" ? 0 : again.rows);
      if (mustNot > 0) wrong(`${mustNot} messages say what the ones before them said`);
      if (short) return; // fail-points-deletes covers this
      await sandbox.go(["clean"]);
      found(await compareLake(sandbox, messages));
    },
    async finishLake(sandbox) {
      await sandbox.go(["clean"]);
      topics ??= await readMessages(brokers, sandbox, python);
      found(await compareLake(sandbox, topics));
      return topics;
    },
  };
  try {
    await (faults[name] as Fault).round(round);
  } catch (error) {
    wrong((error as Error).message);
  } finally {
    for (const { sandbox, watcher } of sandboxes) {
      const seen = await watcher?.stop();
      tally.reads += seen?.reads ?? 0;
      tally.failedReads += seen?.errors ?? 0;
      for (const text of seen?.wrong ?? []) wrong(text);
      if (!values.keep) await sandbox.remove();
    }
  }
  tally.rounds++;
}

/** The rounds to run: of all faults, or of those in `--only`, each perhaps with a single round. */
function chosen(): { name: string; rounds: number[] | undefined }[] {
  if (!values.only) {
    return Object.keys(faults)
      .filter((name) => !short || !faults[name]?.long)
      .filter((name) => zookeeper || !faults[name]?.zookeeper)
      .map((name) => ({ name, rounds: undefined }));
  }
  return values.only.split(",").map((text) => {
    const [name = "", round] = text.split("/");
    if (!faults[name]) throw new Error(`Unknown fault "${name}"; expected one of ${Object.keys(faults).join(", ")}`);
    return { name, rounds: round === undefined ? undefined : [Number(round)] };
  });
}

/** The columns of the tables of results; the second is for faults with changed tables. */
const columns = {
  plain: {
    ...{ rounds: "rounds", strikes: "strikes", hits: "hits", lost: "lost", doubled: "doubled", wrong: "wrong" },
    ...{ reads: "reads of silver", failedReads: "of them failed" },
  },
  changes: {
    ...{ rounds: "rounds", strikes: "strikes", hits: "hits", writes: "rows written", messages: "messages" },
    ...{ lost: "lost", notDeleted: "not deleted", doubled: "doubled", wrong: "wrong", again: "same again" },
  },
} satisfies Record<string, Partial<Record<keyof Tally, string>>>;

function table(tallies: [string, Tally][], shown: Partial<Record<keyof Tally, string>>): string {
  const head = ["fault", ...Object.values(shown)];
  const rows = tallies.map(([name, tally]) => [name, ...Object.keys(shown).map((key) => tally[key as keyof Tally])]);
  const total = head.slice(1).map((_, i) => rows.reduce((sum, row) => sum + Number(row[i + 1]), 0));
  const lines = [...rows, ["all", ...total]].map((row) => `| ${row.join(" | ")} |`);
  return [`| ${head.join(" | ")} |`, `|${head.map((_, i) => (i === 0 ? " --- " : " --: ")).join("|")}|`, ...lines].join(
    "\n",
  );
}

process.env.PIPELINE_PROGRAM ??= launcher;
const folder = await mkdtemp(join(tmpdir(), "pipeline-faults-"));
const tallies = new Map<string, Tally>();
const python = await findPython();
const services = await openServices(join(folder, "services"), say, { zookeeper });
const since = Date.now();
try {
  for (const { name, rounds } of chosen()) {
    const tally: Tally = {
      ...{ rounds: 0, strikes: 0, hits: 0, lost: 0, doubled: 0, wrong: 0, reads: 0, failedReads: 0 },
      ...{ writes: 0, messages: 0, notDeleted: 0, again: 0 },
    };
    tallies.set(name, tally);
    const most = Number(values.rounds ?? (short ? 4 : 40));
    const wanted = Number(values.hits ?? (values.rounds ? Number.POSITIVE_INFINITY : short ? 1 : 20));
    say(`${name}: ${faults[name]?.text} (seed ${seed})`);
    if (rounds) for (const number of rounds) await runRound(name, number, services, python, tally);
    else for (let i = 0; i < most && tally.hits < wanted; i++) await runRound(name, i, services, python, tally);
    say(
      `${name}: ${tally.rounds} rounds, ${tally.strikes} strikes, ${tally.hits} hits, ${tally.lost} lost, ${tally.doubled} doubled, ${tally.wrong} wrong, ${Math.round((Date.now() - since) / 1000)} s\n`,
    );
  }
} finally {
  await services.close();
  if (!values.keep) await rm(folder, { recursive: true, force: true });
}
const results = [false, true].flatMap((isChange) => {
  const some = [...tallies].filter(([name]) => (faults[name]?.changes ?? false) === isChange);
  return some.length > 0 ? [table(some, columns[isChange ? "changes" : "plain"])] : [];
});
process.stdout.write(`${results.join("\n\n")}\n\nSeed ${seed}, ${Math.round((Date.now() - since) / 1000)} s\n`);
const isBad = (t: Tally) => t.lost + t.doubled + t.wrong + t.notDeleted > 0 || (t.hits === 0 && !values.rounds);
const bad = [...tallies.values()].some(isBad);
process.exitCode = bad ? 1 : 0;
