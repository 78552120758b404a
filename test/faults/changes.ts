/**
 * The faults while the binary log is followed: three writers change the tables, and faults hit `post --follow`,
 * `post --full`, the broker and the database. The result is compared with the history of each row.
 *
 * @module
 */

import { setTimeout as sleep } from "node:timers/promises";
import { leader } from "../../api/protocol.ts";
import { type Table, tableNames } from "../../io.ts";
import type { Service } from "../support/bare_services.ts";
import { killAtSteps } from "./publishing.ts";
import type { Sandbox, SandboxOptions, Work } from "./sandbox.ts";
import { endedWell, endFollow, type Fault, moment, type Round } from "./strikes.ts";
import { startWriters, type Writers } from "./writers.ts";

/** `--wait`, s: a killed broker or database may take long to restart on a busy machine. */
const follow = ["post", "--follow", "--wait", "300"];

/** The trace points of a transaction, in order. */
const steps = ["begun", "sending", "sent", "committing", "committed"] as const;

/** Tables of a round, and writers that change them. `posted`: post the initial rows first, at least in the short run. */
async function changing(
  round: Round,
  { posted = false, ...options }: Partial<SandboxOptions> & { posted?: boolean } = {},
): Promise<{ sandbox: Sandbox; writers: Writers }> {
  const rows = round.short ? 400 : round.between(1_500, 3_000);
  const sandbox = await round.sandbox({ rows, watch: "none", ...options });
  if (posted && (round.short || round.random() < 0.5)) await sandbox.go(["post"]);
  const pauseMs = round.short ? 60 : 12;
  const writers = await startWriters(round.services, sandbox, { seed: round.between(1, 1e6), pauseMs });
  return { sandbox, writers };
}

/** Kills a command at a trace point in the transactions of a table, if it reaches it. */
async function killAtStep(round: Round, sandbox: Sandbox, args: string[], strike: string): Promise<void> {
  const work = sandbox.run(args, { strike: `kill ${strike}` });
  await work.until(/^struck/);
  work.kill("SIGKILL"); // if it never reached the trace point
  const { code, stderr } = await work.done;
  const struck = work.steps().find(({ name }) => name === "struck");
  round.hit(`SIGKILL of ${args.join(" ")}`, struck && `at step ${strike.replace("^", "")}`);
  if (code !== null && (struck || code !== 0))
    round.wrong(`"${args.join(" ")}" ended with ${code}: ${stderr.trim().split("\n").at(-1)}`);
}

/** Kills `post --follow` at a trace point or at a random time. */
async function killFollow(round: Round, sandbox: Sandbox): Promise<void> {
  if (round.random() < 0.6) {
    const claims = round.random() < 0.2;
    const step = claims ? round.pick(["claiming", "claimed"]) : round.pick(steps);
    const nth = claims ? 1 : round.between(1, round.short ? 3 : 10);
    await killAtStep(round, sandbox, follow, `${nth} ^${step} ${claims ? leader : round.pick(tableNames)}$`);
    return;
  }
  const work = sandbox.run(follow);
  await work.past(round.between(1, round.short ? 12 : 60));
  await moment(round, 600);
  await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
  await endedWell(round, work, [null]);
}

/** Starts `post --follow`, and waits until it has posted something. */
async function followed(sandbox: Sandbox): Promise<Work> {
  const work = sandbox.run(follow);
  await work.until(/^committed/);
  return work;
}

/** Sets the largest size of a binary log file, bytes; disposing restores it. */
async function logFiles(round: Round, bytes: number): Promise<AsyncDisposable> {
  const root = await round.services.root();
  const [[found]] = (await root.query("SELECT @@GLOBAL.max_binlog_size AS bytes")) as unknown as [[{ bytes: number }]];
  await root.query(`SET GLOBAL max_binlog_size = ${bytes}`);
  return {
    async [Symbol.asyncDispose]() {
      await root.query(`SET GLOBAL max_binlog_size = ${found.bytes}`);
      root.destroy();
    },
  };
}

/** Kills a service under a follower repeatedly, and restarts it after up to `downMs`. */
async function killUnderFollow(
  round: Round,
  name: string,
  service: Service,
  { times, downMs }: { times: number; downMs: number },
): Promise<void> {
  const { sandbox, writers } = await changing(round);
  const work = await followed(sandbox);
  for (let i = 0; i < round.times(times); i++) {
    await moment(round, 4_000);
    await round.strike(`SIGKILL of the ${name}`, [work], () => service.stop("SIGKILL"));
    await sleep(round.random() * (round.short ? 300 : downMs));
    await service.start();
    await sleep(round.short ? 300 : 1_500);
  }
  await endFollow(round, work);
  await round.finishChanges(sandbox, writers);
}

export const changes: Record<string, Fault> = {
  "kill-post-follow": {
    text: "SIGKILL of post --follow while the tables are changed",
    changes: true,
    async round(round) {
      const { sandbox, writers } = await changing(round, { posted: true });
      for (let i = 0; i < round.times(8); i++) await killFollow(round, sandbox);
      await round.finishChanges(sandbox, writers);
    },
  },

  "kill-post-pieces": {
    text: "SIGKILL of post --follow while all rows are updated together, more than fit in one Kafka transaction",
    changes: true,
    long: true,
    async round(round) {
      const { sandbox, writers } = await changing(round, { rows: round.between(22_000, 26_000) });
      await sandbox.go(["post"]);
      for (let i = 0; i < round.times(4); i++) {
        const table = round.pick(tableNames);
        await writers.sweep(table, "update");
        await killAtStep(round, sandbox, follow, `${round.between(1, 4)} ^${round.pick(steps)} ${table}$`);
      }
      // Rows that change between the first and the last piece may be posted again.
      await round.finishChanges(sandbox, writers, { again: "all" });
    },
  },

  "kill-both-follow": {
    text: "SIGKILL of post --follow and of clean --follow beside it while the tables are changed",
    changes: true,
    long: true,
    async round(round) {
      const { sandbox, writers } = await changing(round, { posted: true, watch: "deletes" });
      const commands = [follow, ["clean", "--follow"]] as const;
      const works = commands.map((args) => sandbox.run([...args]));
      for (let i = 0; i < round.times(6); i++) {
        const which = round.pick([0, 1] as const);
        const work = works[which] as Work;
        await work.past(work.steps().length + round.between(1, 60));
        await moment(round, 600);
        await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
        await endedWell(round, work, [null]);
        works[which] = sandbox.run([...commands[which]]);
      }
      for (const work of works) await endFollow(round, work);
      await round.finishChanges(sandbox, writers);
    },
  },

  "kill-database-follow": {
    text: "SIGKILL of the database under post --follow while the tables are changed",
    changes: true,
    round: (round) => killUnderFollow(round, "database", round.services.database, { times: 4, downMs: 1_500 }),
  },

  "kill-broker-follow": {
    text: "SIGKILL of the broker under post --follow while the tables are changed",
    changes: true,
    long: true,
    round: (round) => killUnderFollow(round, "broker", round.services.broker, { times: 3, downMs: 2_000 }),
  },

  rotate: {
    text: "SIGKILL of post --follow while the log begins a new file every 64 kB or 4 kB, with pauses of the writers",
    changes: true,
    long: true,
    async round(round) {
      if (process.getuid?.() !== 0) return round.note("skipped: only root comes in as the database's root");
      await using _files = await logFiles(round, round.pick([65_536, 65_536, 4_096]));
      const { sandbox, writers } = await changing(round, { posted: true });
      let going = true;
      // Without writes, a new log file is empty, and rows are read with locks.
      const pausing = (async () => {
        while (going) {
          await sleep(50 + round.random() * 300);
          writers.pause();
          await sleep(50 + round.random() * 250);
          writers.resume();
        }
      })();
      for (let i = 0; i < round.times(8); i++) await killFollow(round, sandbox);
      const work = await followed(sandbox);
      await sleep(round.short ? 500 : 3_000);
      await endFollow(round, work);
      going = false;
      await pausing;
      await round.finishChanges(sandbox, writers);
    },
  },

  "truncate-full": {
    text: "TRUNCATE and mass deletes, then SIGKILL of post --full, also in its sweep",
    changes: true,
    async round(round) {
      const { sandbox, writers } = await changing(round);
      for (let i = 0; i < round.times(4); i++) {
        const table = round.pick(tableNames);
        const how = round.short || round.random() < 0.7 ? "truncate" : "delete";
        await stopByTruncate(round, sandbox, { writers, table, how });
        for (let kills = round.between(1, 2); kills > 0; kills--) {
          const sweep = round.random() < 0.4;
          const strike = sweep
            ? `1 ^sweeping ${round.pick(tableNames)}$`
            : `${round.between(1, 4)} ^${round.pick(steps)} ${table}$`;
          await killAtStep(round, sandbox, ["post", "--full"], strike);
        }
        await sandbox.go(["post", "--full"]);
      }
      await round.finishChanges(sandbox, writers, { again: "rows" });
    },
  },

  "two-followers": {
    text: "two post --follow of the same tables, restarted repeatedly: one continues",
    changes: true,
    long: true,
    async round(round) {
      const { sandbox, writers } = await changing(round);
      let first = await followed(sandbox);
      for (let i = 0; i < round.times(5); i++) {
        await moment(round, 1_500);
        const place = first.at();
        const second = sandbox.run(follow);
        await Promise.race([first.done, second.done, sleep(90_000)]);
        await sleep(500);
        const [ended, other] = first.over() ? [first, second] : [second, first];
        const { code, stderr } = ended.over() ? await ended.done : { code: "none", stderr: "" };
        const said = stderr.trim().split("\n").at(-1) ?? "";
        const named = code === 1 && /^Error: Another post of "\w+" is running: process \d+/.test(said);
        round.hit("a second post --follow", place && named ? `the first at ${place}: ${said}` : undefined);
        const last = (work: Work) => work.at() ?? "no step";
        if (!named)
          round.wrong(`Of two post --follow, at ${last(first)} and ${last(second)}, one ended with ${code}: ${said}`);
        if (!ended.over()) ended.kill("SIGKILL");
        if (other.over()) round.wrong(`Both ended: ${(await other.done).stderr.slice(-300)}`);
        const count = other.steps().length;
        if (!other.over() && !(await other.past(count + 10))) round.wrong("The other one makes no progress");
        first = other;
      }
      if (!first.over()) await endFollow(round, first);
      await round.finishChanges(sandbox, writers);
    },
  },

  "fail-points-deletes": {
    text: "SIGKILL of clean at each trace point of landing and publishing, with deletes and changed rows",
    changes: true,
    async round(round) {
      const rows = round.short ? 300 : round.between(400, 900);
      const { sandbox, writers } = await changing(round, { rows });
      const most = round.short ? 2 : 40;
      for (let i = 0; i < 3; i++) {
        await sandbox.go(["post"]);
        if (i < 2) await sandbox.go(["clean"]);
        await sleep(1_000);
      }
      await writers.stop();
      await sandbox.go(["post"]);
      await killAtSteps(round, sandbox, { args: ["clean"], lake: "copy", most });
      if (!round.short) await killAtSteps(round, sandbox, { args: ["clean"], lake: "empty", most });
      await round.finishChanges(sandbox, writers);
      if (!round.short) await killAtSteps(round, sandbox, { args: ["clean", "--rebuild"], lake: "copy", most });
      await sandbox.go(["clean", "--rebuild"]);
      await round.finishLake(sandbox);
    },
  },
};

/** Changes a whole table under `post --follow`, which a TRUNCATE must end; otherwise it is killed. */
async function stopByTruncate(
  round: Round,
  sandbox: Sandbox,
  { writers, table, how }: { writers: Writers; table: Table; how: "truncate" | "delete" },
): Promise<void> {
  const work = await followed(sandbox);
  await moment(round, 1_000);
  await writers.sweep(table, how);
  if (how === "delete") {
    await moment(round, 500);
    await round.strike("SIGKILL after mass deletes", [work], () => work.kill("SIGKILL"));
    await work.done;
    return;
  }
  await Promise.race([work.done, sleep(20_000)]);
  const ended = work.over();
  work.kill("SIGKILL");
  const { code, stderr } = await work.done;
  const said = stderr.trim().split("\n").at(-1) ?? "";
  const named = ended && code === 1 && /^Error: Cannot follow .*TRUNCATE.*; run post --full$/.test(said);
  round.hit(`TRUNCATE of ${table}`, named ? `post --follow: ${said}` : undefined);
  if (!named) round.wrong(`After a TRUNCATE post --follow ended with ${code}: ${stderr.slice(-800)}`);
}
