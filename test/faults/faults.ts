/**
 * The fault suite: `npm run test:faults -- [--short] [--seed N] [--only NAME,NAME/ROUND] [--rounds N] [--hits N]
 * [--zookeeper] [--resume FILE [--touched NAME,NAME] [--binary FILE]] [--minutes N] [--jobs N]`.
 *
 * Every round creates separate tables, injects faults while the program posts and cleans them, runs the same commands
 * undisturbed, and compares MySQL, topics and lake. A strike counts as a hit only if a stage was running; the log names
 * the trace point that was hit. The exit code is 1 if anything was lost, duplicated or wrong.
 *
 * With `--resume` the results are kept in a file, and the next run adds to them, until each fault has hit 30 times and all
 * 1,000 times; `--binary` runs an executable in every tenth round. Results of other code are dropped, all or those of the
 * `--touched` faults. `--minutes` ends the run after the current round; `--jobs` runs several rounds at once.
 *
 * @module
 */

import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
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
import { addTally, isBad, newTally, openResults, resultTable, type Tally } from "./results.ts";
import { makeSandbox, openServices, type Sandbox, type Services } from "./sandbox.ts";
import { type Fault, type Round, strikes } from "./strikes.ts";

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
    resume: { type: "string" },
    touched: { type: "string" },
    minutes: { type: "string" },
    jobs: { type: "string", default: "1" },
    binary: { type: "string" },
  },
});
const { short, zookeeper } = values;
const faults: Record<string, Fault> = { ...strikes, ...changes, ...people, ...publishing, ...hostile };
const say = (line: string) => process.stderr.write(`${line}\n`);

/** Numbers from 0 to 1 that depend on a text only (xmur3, mulberry32). */
function randomOf(text: string): () => number {
  let state = 1779033703;
  for (const char of text) state = Math.imul(state ^ char.charCodeAt(0), 3432918353) ^ (state >>> 13);
  const dice = new Random(state);
  return () => dice.real();
}

async function runRound(
  name: string,
  number: number,
  { services, tally, program }: { services: Services; tally: Tally; program?: string[] },
): Promise<void> {
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
          ...(program && { program }),
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
    async finishLake(sandbox, { readAgain = false } = {}) {
      await sandbox.go(["clean"]);
      if (readAgain || !topics) topics = await readMessages(brokers, sandbox, python);
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

/** The faults to run: all, or those in `--only`, each perhaps with a single round. */
function chosen(): { name: string; round?: number }[] {
  if (!values.only) {
    return Object.keys(faults)
      .filter((name) => !short || !faults[name]?.long)
      .filter((name) => zookeeper || !faults[name]?.zookeeper)
      .map((name) => ({ name }));
  }
  return values.only.split(",").map((text) => {
    const [name = "", round] = text.split("/");
    if (!faults[name]) throw new Error(`Unknown fault "${name}"; expected one of ${Object.keys(faults).join(", ")}`);
    return { name, ...(round !== undefined && { round: Number(round) }) };
  });
}

/** How long the suite goes on, and with what. */
interface Plan {
  /** Until a fault has so many hits, or so many rounds. */
  hits: number;
  rounds: number;
  /** Until all faults together have so many hits. */
  total: number;
  deadline: number;
}

process.env.PIPELINE_PROGRAM ??= launcher;
const since = Date.now();
const folder = await mkdtemp(join(tmpdir(), "pipeline-faults-"));
const python = await findPython();
const results = values.resume
  ? openResults(values.resume, {
      seed: Number(values.seed),
      ...(values.touched && { touched: values.touched.split(",") }),
    })
  : undefined;
const seed = results?.seed ?? Number(values.seed);
const tallies = new Map(chosen().map(({ name }) => [name, results?.tallyOf(name) ?? newTally()]));
const sumOf = (key: keyof Tally) => [...tallies.values()].reduce((sum, tally) => sum + tally[key], 0);

/** Runs a round, and adds its results. Every tenth round of a file of results runs the executable. */
async function addRound(name: string, number: number, services: Services): Promise<void> {
  const tally = newTally();
  const executable =
    values.binary && (sumOf("rounds") + running.size) % 10 === 9 ? [resolve(values.binary)] : undefined;
  await runRound(name, number, { services, tally, ...(executable && { program: executable }) });
  tally.binary = executable ? 1 : 0;
  results?.add(name, tally);
  addTally(tallies.get(name) as Tally, tally);
}

/** The faults whose rounds run now. */
const running = new Set<string>();

/** Runs the faults of the plan one by one; with several jobs, each takes the next fault. */
async function work(plan: Plan, services: Services): Promise<void> {
  const isOpen = ({ hits, rounds }: Tally) => (hits < plan.hits || sumOf("hits") < plan.total) && rounds < plan.rounds;
  while (Date.now() < plan.deadline && ![...tallies.values()].some((tally) => results && isBad(tally))) {
    const open = [...tallies].filter(([name, tally]) => !running.has(name) && isOpen(tally));
    // In the order of the faults; a file of results is filled evenly.
    const [name, tally] = (results ? open.sort(([, a], [, b]) => a.hits - b.hits) : open)[0] ?? [];
    if (name === undefined || !tally) return;
    if (tally.rounds === 0) say(`${name}: ${faults[name]?.text} (seed ${seed})`);
    running.add(name);
    await addRound(name, tally.rounds, services).finally(() => running.delete(name));
    const { rounds, strikes, hits, lost, doubled, wrong } = tallies.get(name) as Tally;
    const took = Math.round((Date.now() - since) / 1000);
    say(
      `${name}: ${rounds} rounds, ${strikes} strikes, ${hits} hits, ${lost} lost, ${doubled} doubled, ${wrong} wrong; ${sumOf("hits")} hits of all, ${took} s\n`,
    );
  }
}

/** Opens services for a job, and closes them after its work. */
async function runJob(job: number, use: (services: Services) => Promise<void>): Promise<void> {
  const services = await openServices(join(folder, `services-${job}`), say, { zookeeper });
  try {
    await use(services);
  } finally {
    await services.close();
  }
}

const plan: Plan = {
  hits: Number(values.hits ?? (results ? 30 : values.rounds ? Number.POSITIVE_INFINITY : short ? 1 : 20)),
  rounds: Number(values.rounds ?? (results ? Number.POSITIVE_INFINITY : short ? 4 : 40)),
  total: results && !values.only ? 1_000 : 0,
  deadline: values.minutes ? since + Number(values.minutes) * 60_000 : Number.POSITIVE_INFINITY,
};
try {
  const single = chosen().filter(({ round }) => round !== undefined);
  if (single.length > 0)
    await runJob(0, async (services) => {
      for (const { name, round } of single) await addRound(name, round as number, services);
    });
  else
    await Promise.all(Array.from({ length: Number(values.jobs) }, (_, job) => runJob(job, (own) => work(plan, own))));
} finally {
  if (!values.keep) await rm(folder, { recursive: true, force: true });
}
const done = [...tallies].filter(([, { rounds }]) => rounds > 0);
const tables = (["plain", "changes"] as const).flatMap((kind) => {
  const some = done.filter(([name]) => (faults[name]?.changes ?? false) === (kind === "changes"));
  return some.length > 0 ? [resultTable(some, kind)] : [];
});
const took = Math.round((Date.now() - since) / 1000);
const of = results ? `Commit ${results.commits().join(", ")}, seed` : "Seed";
process.stdout.write(`${tables.join("\n\n")}\n\n${of} ${seed}, ${took} s\n`);
const missed = [...tallies].filter(([, { hits }]) => hits === 0);
const bad = done.some(([, tally]) => isBad(tally)) || (!results && !values.rounds && missed.length > 0);
process.exitCode = bad ? 1 : 0;
