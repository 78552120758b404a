/**
 * The faults. Each creates separate tables, starts the program, injects faults at seeded random times, and finally runs
 * the same commands undisturbed. {@link Round.finish} compares the result.
 *
 * @module
 */

import { monitorEventLoopDelay } from "node:perf_hooks";
import { setTimeout as sleep } from "node:timers/promises";
import { leader } from "../../api/protocol.ts";
import { type Table, tableNames, tables } from "../../io.ts";
import type { Service } from "../support/bare_services.ts";
import type { Message } from "../support/oracle.ts";
import { type RequestName, requests } from "./proxy.ts";
import {
  connectionsOf,
  foreignMessage,
  others,
  type Sandbox,
  type SandboxOptions,
  type Services,
  type Work,
} from "./sandbox.ts";
import type { Writers } from "./writers.ts";

/** One round of a fault. */
export interface Round {
  services: Services;
  /** All faults together have 2 minutes: one or two strikes each. */
  short: boolean;
  /** Number of strikes in a round. */
  times(wanted: number): number;
  /** Seeded random choices: 0 to 1, an integer between two, one item of a list. */
  random(): number;
  between(least: number, most: number): number;
  pick<T>(items: readonly T[]): T;
  /** Creates the tables, topics and lake of this round, which are deleted with it, and starts to watch its silver. */
  sandbox(options?: Partial<SandboxOptions>): Promise<Sandbox>;
  /** Injects a fault into programs. It counts as a hit for each program that is within a stage at that time. */
  strike(what: string, works: Work[], action: () => unknown): Promise<boolean>;
  /** Counts a strike at a known place, or without a place one that missed. */
  hit(what: string, place: string | undefined): void;
  /** Records an error. */
  wrong(text: string): void;
  note(text: string): void;
  /** Runs `post` and `clean` undisturbed and compares everything. @returns the messages of the topics */
  finish(sandbox: Sandbox): Promise<Record<Table, Message[]>>;
  /**
   * Stops the writers, runs `post` and `clean` undisturbed and compares everything. `again`: messages that may have been
   * posted again unchanged. A full run reposts rows, but deletes only keys that are not deleted yet.
   */
  finishChanges(sandbox: Sandbox, writers: Writers, options?: { again?: "rows" | "all" }): Promise<void>;
  /**
   * Runs `clean` undisturbed and compares the lake with the topics, which are read once.
   *
   * @param options.readAgain if they have changed since
   * @returns their messages
   */
  finishLake(sandbox: Sandbox, options?: { readAgain?: boolean }): Promise<Record<Table, Message[]>>;
}

export interface Fault {
  /** A description for the table of results. */
  text: string;
  /** Skipped in the short run, because it waits for timeouts. */
  long?: true;
  /** The tables are changed meanwhile; the table of results has columns for that. */
  changes?: true;
  /** Only for a broker with ZooKeeper. */
  zookeeper?: true;
  round(round: Round): Promise<void>;
}

/** Checks that the program succeeded or was killed by the test. */
export async function endedWell(round: Round, work: Work, codes: (number | null)[] = [0]): Promise<void> {
  const { code, stderr } = await work.done;
  if (!codes.includes(code)) round.wrong(`"${work.command}" ended with ${code}: ${stderr.trim().split("\n").at(-1)}`);
}

/** Waits for a random time within the work, which is shorter in the short run. */
export const moment = (round: Round, ms: number): Promise<void> => sleep(round.random() * (round.short ? ms / 20 : ms));

/** Kills a command repeatedly, each time within a stage if it gets there. */
async function killAgain(
  round: Round,
  sandbox: Sandbox,
  args: string[],
  { times, steps }: { times: number; steps: number },
): Promise<void> {
  for (let i = 0; i < round.times(times); i++) {
    const work = sandbox.run(args);
    await work.past(round.between(1, round.short ? 8 : steps));
    await moment(round, 400);
    const hit = await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
    await endedWell(round, work, hit ? [null] : [null, 0, 3]);
    if (work.over() && !hit) return;
  }
}

const tick = 20;
const ticks = monitorEventLoopDelay({ resolution: tick });
ticks.enable();
/** How long this process was blocked in all, ms: another round may compare a million messages. */
const blocked = () => (ticks.count > 0 ? ticks.count * (ticks.mean / 1e6 - tick) : 0);

/** Measures time in ms, without the time in which this process was blocked. */
function watchTime(): () => Promise<number> {
  const [since, before] = [Date.now(), blocked()];
  return async () => {
    const took = Date.now() - since;
    await sleep(2 * tick); // until the last pause is counted
    return Math.round(took - Math.max(0, blocked() - before));
  };
}

/** Stops a command that follows, and checks that it stops quickly. */
export async function endFollow(round: Round, work: Work): Promise<void> {
  if (work.over()) {
    const { code, signal, stderr } = await work.done;
    return round.wrong(`"${work.command}" ended unexpectedly with ${code ?? signal}: ${stderr.slice(-300)}`);
  }
  await work.said(/Using .*Kafka/); // before that it does not handle signals yet
  const time = watchTime();
  work.kill("SIGTERM");
  await endedWell(round, work, [143]);
  const took = await time();
  if (took > 3_500) round.wrong(`"${work.command}" took ${took} ms to stop`);
}

/** For commands that meet several outages in a row, which on a busy machine take longer than the usual 60 s. */
const wait = ["--wait", "300"];
const patientPost = ["post", ...wait];
const patientFollow = ["clean", "--follow", ...wait];

/** Runs post with `clean --follow` beside it, and injects faults while either works. */
export async function whileBusy(round: Round, sandbox: Sandbox, bad: (works: Work[]) => Promise<void>): Promise<void> {
  const follow = sandbox.run(patientFollow);
  const post = sandbox.run(patientPost);
  await post.until(/./);
  await bad([post, follow]);
  await endedWell(round, post);
  await endFollow(round, follow);
}

/** Runs post alone, and injects faults while it works. */
async function whilePosting(round: Round, sandbox: Sandbox, bad: (post: Work) => Promise<void>): Promise<void> {
  const post = sandbox.run(patientPost);
  await post.until(/./);
  await bad(post);
  await endedWell(round, post);
}

export const strikes: Record<string, Fault> = {
  "kill-post": {
    text: "SIGKILL of post",
    async round(round) {
      const sandbox = await round.sandbox();
      await killAgain(round, sandbox, ["post"], { times: 6, steps: 40 });
      await round.finish(sandbox);
    },
  },

  "kill-clean": {
    text: "SIGKILL of clean",
    async round(round) {
      const sandbox = await round.sandbox();
      await sandbox.go(["post"]);
      await killAgain(round, sandbox, ["clean"], { times: 6, steps: 30 });
      await round.finish(sandbox);
    },
  },

  "kill-run": {
    text: "SIGKILL of the whole run",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox();
      await killAgain(round, sandbox, [], { times: 6, steps: 100 });
      await round.finish(sandbox);
    },
  },

  "kill-follow": {
    text: "SIGKILL of post and of clean --follow beside it",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox();
      const commands = [["post"], ["clean", "--follow"]] as const;
      const works = commands.map((args) => sandbox.run([...args]));
      for (let i = 0; i < round.times(6); i++) {
        const which = round.pick([0, 1]);
        await works[which]?.past(round.between(1, 40));
        await moment(round, 400);
        const work = works[which] as Work;
        await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
        await endedWell(round, work, [null, 0]);
        works[which] = sandbox.run([...(commands[which] as readonly string[])]);
      }
      await endedWell(round, works[0] as Work);
      await endFollow(round, works[1] as Work);
      await round.finish(sandbox);
    },
  },

  "kill-connection": {
    text: "MySQL KILL CONNECTION of a posting thread",
    async round(round) {
      const sandbox = await round.sandbox();
      await whilePosting(round, sandbox, async (post) => {
        for (let i = 0; i < round.times(5) && !post.over(); i++) {
          await moment(round, 1_500);
          const { admin, ids } = await connectionsOf(round.services, sandbox);
          if (ids.length > 0) {
            await round.strike("KILL CONNECTION", [post], () =>
              admin.query(`KILL CONNECTION ${round.pick(ids)}`).catch(() => {}),
            );
          }
          admin.destroy();
        }
      });
      await round.finish(sandbox);
    },
  },

  "kill-broker": {
    text: "SIGKILL of the broker under post and clean --follow",
    async round(round) {
      const { broker } = round.services;
      const sandbox = await round.sandbox();
      await whileBusy(round, sandbox, async (works) => {
        for (let i = 0; i < round.times(3) && !works[0]?.over(); i++) {
          await moment(round, 3_000);
          await round.strike("SIGKILL of the broker", works.slice(0, 1), () => broker.stop("SIGKILL"));
          await sleep(round.random() * 2_000);
          await broker.start();
          await sleep(1_000);
        }
      });
      await round.finish(sandbox);
    },
  },

  "kill-zookeeper": {
    text: "SIGKILL of ZooKeeper, and of the broker too, under post and clean --follow",
    zookeeper: true,
    async round(round) {
      const { broker, zookeeper } = round.services;
      if (!zookeeper) throw new Error("There is no ZooKeeper to kill: add --zookeeper");
      const sandbox = await round.sandbox();
      await whileBusy(round, sandbox, async (works) => {
        for (let i = 0; i < round.times(3) && !works[0]?.over(); i++) {
          await moment(round, 3_000);
          const both = i % 2 === 1;
          await round.strike(`SIGKILL of ZooKeeper${both ? " and broker" : ""}`, works.slice(0, 1), async () => {
            await Promise.all([zookeeper.stop("SIGKILL"), both && broker.stop("SIGKILL")]);
          });
          await sleep(round.random() * 2_000);
          await zookeeper.start();
          if (both) await broker.start();
          await sleep(1_000);
        }
      });
      await round.finish(sandbox);
    },
  },

  "kill-database": {
    text: "SIGKILL of the database under post",
    async round(round) {
      const { database } = round.services;
      const sandbox = await round.sandbox();
      await whilePosting(round, sandbox, async (post) => {
        for (let i = 0; i < round.times(3) && !post.over(); i++) {
          await moment(round, 2_000);
          await round.strike("SIGKILL of the database", [post], () => database.stop("SIGKILL"));
          await sleep(round.random() * 2_000);
          await database.start();
          await sleep(500);
        }
      });
      await round.finish(sandbox);
    },
  },

  "broker-in-transaction": {
    text: "broker killed or restarted between two trace points of a transaction or of clean",
    async round(round) {
      const { broker } = round.services;
      const sandbox = await round.sandbox({ rows: round.between(15_000, 35_000) });
      for (let i = 0; i < round.times(3); i++) {
        if (round.random() < 0.3) {
          await brokerInClean(round, sandbox);
          continue;
        }
        const step = round.pick(["claiming", "claimed", "begun", "sending", "sent", "committing", "committed"]);
        const table = /claim/.test(step) ? leader : round.pick(tableNames);
        const work = sandbox.run(["post"], {
          strike: `pause ${/claim/.test(step) ? 1 : round.between(1, 2)} ^${step} ${table}`,
        });
        if (await work.until(/^struck/)) {
          const how = round.pick(["SIGKILL", "SIGTERM"] as const);
          await round.strike(`${how} of the broker at "${step} ${table}"`, [work], async () => {
            await broker.stop(how);
            if (round.random() < 0.5) work.release();
            await broker.start();
          });
        }
        work.release();
        await endedWell(round, work);
      }
      await round.finish(sandbox);
    },
  },

  "answer-lost": {
    text: "the broker's response is lost after the request was executed (commit, send, begin, fence)",
    async round(round) {
      const { proxy } = round.services;
      const sandbox = await round.sandbox();
      const work = sandbox.run(["post"]);
      for (let i = 0; i < round.times(6); i++) {
        const request = round.pick<RequestName>([
          "EndTxn",
          "EndTxn",
          "Produce",
          "AddPartitionsToTxn",
          "InitProducerId",
        ]);
        // Each table requests a producer id when it begins, and again after each lost answer.
        const nth = round.between(1, request === "InitProducerId" && i > 0 ? 1 : 3);
        const lost = proxy.loseAnswer(request, nth, "cut");
        if (await Promise.race([lost.then(() => false), work.done.then(() => true)])) break;
        await round.strike(`answer ${nth} to ${request} (API ${requests[request]}) lost`, [work], () => {});
      }
      await endedWell(round, work);
      await round.finish(sandbox);
    },
  },

  proxy: {
    text: "connections cut, delayed, slowed down, half closed",
    async round(round) {
      const { proxy } = round.services;
      const sandbox = await round.sandbox();
      await whileBusy(round, sandbox, async (works) => {
        for (let i = 0; i < round.times(6) && !works[0]?.over(); i++) {
          await moment(round, 1_000);
          const direction = round.pick(["up", "down"] as const);
          const [what, action] = round.pick([
            ["all connections cut", () => proxy.cut()],
            ["one connection cut", () => proxy.cut(round.random())],
            [`connections half closed (${direction})`, () => proxy.half("close", direction, 3_000)],
            [`connections swallow all (${direction})`, () => proxy.half("stall", direction, 4_000)],
            ["every answer late", () => Object.assign(proxy.weather, { delay: round.between(20, 400) })],
            ["a slow line", () => Object.assign(proxy.weather, { speed: round.between(100_000, 2_000_000) })],
          ] as const);
          await round.strike(what, works.slice(0, 1), action);
          await sleep(round.random() * 3_000);
          delete proxy.weather.delay;
          delete proxy.weather.speed;
        }
      });
      await round.finish(sandbox);
    },
  },

  "freeze-program": {
    text: "SIGSTOP of post for longer than the transaction timeout (60 s), then SIGCONT",
    long: true,
    async round(round) {
      // In parallel, because a frozen program uses no CPU.
      const sandboxes = [];
      for (let i = 0; i < 4; i++) sandboxes.push(await round.sandbox({ rows: round.between(15_000, 40_000) }));
      await Promise.all(
        sandboxes.map(async (sandbox) => {
          const post = sandbox.run(["post"]);
          await post.past(round.between(1, 30));
          await round.strike("SIGSTOP for more than 60 s", [post], async () => {
            post.kill("SIGSTOP");
            await sleep(round.between(62_000, 80_000));
            post.kill("SIGCONT");
          });
          await endedWell(round, post);
        }),
      );
      for (const sandbox of sandboxes) await round.finish(sandbox);
    },
  },

  "freeze-broker": {
    text: "SIGSTOP of the broker for longer than the request timeout (30 s), then SIGCONT",
    long: true,
    async round(round) {
      await freeze(round, round.services.broker, round.between(32_000, 70_000));
    },
  },

  "freeze-database": {
    text: "SIGSTOP of the database for longer than a page's timeout (60 s), then SIGCONT",
    long: true,
    async round(round) {
      await freeze(round, round.services.database, round.between(62_000, 80_000));
    },
  },

  "mysql-errors": {
    text: "lock wait timeouts, with the smallest max_allowed_packet",
    long: true,
    async round(round) {
      if (process.getuid?.() !== 0) return round.note("skipped: only root comes in as the database's root");
      const sandbox = await round.sandbox();
      const root = await round.services.root();
      try {
        await root.query("SET GLOBAL lock_wait_timeout = 1");
        await root.query("SET GLOBAL max_allowed_packet = 1024");
        await whilePosting(round, sandbox, async (post) => {
          for (let i = 0; i < round.times(4) && !post.over(); i++) {
            await moment(round, 1_500);
            const source = round.pick(Object.values(tables)).source;
            const place = post.at();
            await root.query(`LOCK TABLES ${sandbox.db.database}.${source} WRITE`);
            await sleep(round.between(1_200, 3_000));
            await root.query("UNLOCK TABLES");
            round.hit(`${source} locked beyond lock_wait_timeout`, place);
          }
        });
      } finally {
        await root.query("SET GLOBAL lock_wait_timeout = 86400");
        await root.query("SET GLOBAL max_allowed_packet = 16777216");
        root.destroy();
      }
      await round.finish(sandbox);
    },
  },

  "foreign-transactions": {
    text: "open, aborted and committed transactions of another producer in the same topics",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox({ rows: round.between(20_000, 50_000) });
      sandbox.isForeign = (key) => key?.startsWith("other ") ?? true;
      await sandbox.run(["post"], { strike: "kill 1 ^committed user" }).done;
      let number = 0;
      const wanted: string[] = [];
      await whileBusy(round, sandbox, async (works) => {
        for (let i = 0; i < round.times(6) && !works[0]?.over(); i++) {
          const producer = others(round.services).producer({
            ...{ transactionalId: `${sandbox.name}-other-${round.pick([1, 2])}`, maxInFlightRequests: 1 },
            ...{ idempotent: true, allowAutoTopicCreation: false, transactionTimeout: 10_000 },
          });
          await producer.connect();
          const transaction = await producer.transaction();
          const table = round.pick(tableNames);
          const messages = Array.from({ length: round.between(1, 500) }, () => foreignMessage(table, number++));
          await transaction.send({ topic: `${sandbox.prefix}.${table}`, messages });
          await moment(round, 1_500);
          const how = (["abort", "commit", "left open"] as const)[i % 3] as "abort" | "commit" | "left open"; // all kinds in every round
          await round.strike(`another's transaction of ${messages.length} in ${table}: ${how}`, works, async () => {
            if (how !== "left open") await transaction[how]();
          });
          if (how === "commit") wanted.push(...messages.map(({ key }) => `${table} ${key}`));
          await producer.disconnect();
        }
      });
      // Open transactions end by their timeout of 10 s, when the broker checks next.
      await sleep(22_000);
      const messages = await round.finish(sandbox);
      const found = tableNames.flatMap((table) =>
        messages[table].filter(({ key }) => sandbox.isForeign(key?.toString())).map(({ key }) => `${table} ${key}`),
      );
      if (found.sort().join() !== wanted.sort().join())
        round.wrong(`Another producer committed ${wanted.length} messages, but the topics hold ${found.length}`);
    },
  },

  stop: {
    text: "Ctrl+C and SIGTERM at any time: it stops within 3 s, or immediately the second time",
    async round(round) {
      const sandbox = await round.sandbox();
      const commands = [["post"], ["clean", "--follow"], ["clean"], ["post"], []];
      for (const args of commands.slice(0, round.times(commands.length))) {
        const work = sandbox.run(args);
        await work.past(round.between(1, 40));
        await moment(round, 500);
        if (work.over()) continue;
        const signal = round.pick(["SIGINT", "SIGTERM"] as const);
        const twice = round.random() < 0.3;
        const time = watchTime();
        await round.strike(`${signal}${twice ? " twice" : ""}`, [work], async () => {
          work.kill(signal);
          if (!twice) return;
          await sleep(400);
          work.kill(signal);
        });
        const { code, signal: killedBy, stderr } = await work.done;
        const took = await time();
        const wanted = signal === "SIGINT" ? 130 : 143;
        // While Node exits, it has no handlers: the second signal then kills it, which a shell reports as the same code.
        const cutShort = twice && killedBy === signal;
        if (code !== wanted && code !== 0 && !cutShort)
          round.wrong(`After ${signal} "${work.command}" ended with ${code}: ${stderr}`);
        // The limits are 3 s and 0.4 s; the rest allows for a busy machine.
        if (took > (twice ? 1_500 : 4_000)) round.wrong(`After ${signal} "${work.command}" took ${took} ms to stop`);
      }
      await round.finish(sandbox);
    },
  },

  outage: {
    text: "broker or database unavailable: a line says so, and it continues later, or gives up after --wait",
    long: true,
    async round(round) {
      const sandbox = await round.sandbox({ rows: round.between(20_000, 50_000) });
      const which = round.pick(["broker", "database"] as const);
      const service = round.services[which];
      const named = which === "broker" ? /Cannot reach Kafka at |Kafka at .* fails: / : /Cannot reach MySQL at /;
      const post = sandbox.run(["post"]);
      await post.past(round.between(0, 20));
      await round.strike(`${which} away for a while`, [post], () => service.stop("SIGKILL"));
      await sleep(round.between(3_000, 6_000));
      await service.start();
      const { stderr } = await post.done;
      await endedWell(round, post);
      if (!/[;?] waiting up to 60 s for it/i.test(stderr) && !/post .* in /.test(stderr))
        round.wrong(`It does not report that it waits: ${stderr}`);
      await service.stop("SIGTERM");
      for (const args of which === "broker" ? [["post"], ["clean"]] : [["post"]]) {
        const given = await sandbox.run([...args, "--wait", "12"]).done;
        const last = given.stderr.trim().split("\n").at(-1) ?? "";
        const good = given.code === 1 && named.test(last) && /[;?] waiting up to 12 s for it/i.test(given.stderr);
        round.hit(`${which} away for longer than --wait 12`, good ? `${args}: ${last}` : undefined);
        if (!good) round.wrong(`"${args} --wait 12" without ${which} ended with ${given.code}: ${given.stderr}`);
      }
      await service.start();
      await round.finish(sandbox);
    },
  },

  mixed: {
    text: "all faults in one run: program, broker, database and connections in any order",
    async round(round) {
      const { broker, database, proxy } = round.services;
      const sandbox = await round.sandbox();
      let post = sandbox.run(patientPost);
      let follow = sandbox.run(patientFollow);
      await post.until(/./);
      for (let i = 0; i < round.times(8); i++) {
        await moment(round, 1_500);
        const what = round.pick(["post", "follow", "broker", "database", "cut", "connection", "slow"] as const);
        const works = [post, follow];
        if (what === "post") {
          await round.strike("SIGKILL of post", [post], () => post.kill("SIGKILL"));
          await post.done;
          post = sandbox.run(patientPost);
        } else if (what === "follow") {
          await round.strike("SIGKILL of clean --follow", [follow], () => follow.kill("SIGKILL"));
          await follow.done;
          follow = sandbox.run(patientFollow);
        } else if (what === "cut") {
          await round.strike("all connections cut", works, () => proxy.cut());
        } else if (what === "slow") {
          await round.strike("a slow line", works, () => Object.assign(proxy.weather, { speed: 500_000 }));
          await sleep(1_000);
          delete proxy.weather.speed;
        } else if (what === "connection") {
          const { admin, ids } = await connectionsOf(round.services, sandbox);
          if (ids.length > 0)
            await round.strike("KILL CONNECTION", [post], () =>
              admin.query(`KILL CONNECTION ${round.pick(ids)}`).catch(() => {}),
            );
          admin.destroy();
        } else {
          const service = { broker, database }[what];
          await round.strike(`SIGKILL of the ${what}`, what === "broker" ? works : [post], () =>
            service.stop("SIGKILL"),
          );
          await sleep(round.random() * 1_500);
          await service.start();
        }
      }
      await endedWell(round, post, [0, null]);
      await endFollow(round, follow);
      await round.finish(sandbox);
    },
  },
};

/** Kills or restarts the broker between two trace points of clean. */
async function brokerInClean(round: Round, sandbox: Sandbox): Promise<void> {
  const { broker } = round.services;
  const step = round.pick(["landing", "written .*bronze", "cleaning", "renamed .*rejects", "renamed .*lake.json"]);
  const work = sandbox.run(["clean"], { strike: `pause 1 ^${step}` });
  if (await work.until(/^struck/)) {
    await round.strike(`SIGKILL of the broker at "${step}"`, [work], async () => {
      await broker.stop("SIGKILL");
      work.release();
      await broker.start();
    });
  }
  work.release();
  await endedWell(round, work);
}

/** Freezes a service under three concurrent programs, so that each frozen minute hits three. */
async function freeze(round: Round, service: Service, ms: number): Promise<void> {
  const sandboxes: Sandbox[] = [];
  for (let i = 0; i < 3; i++) sandboxes.push(await round.sandbox({ rows: round.between(25_000, 60_000) }));
  const posts = sandboxes.map((sandbox) => sandbox.run(patientPost));
  await Promise.all(posts.map((post) => post.past(round.between(1, 12))));
  await round.strike(`SIGSTOP for ${Math.round(ms / 1000)} s`, posts, async () => {
    service.freeze();
    await sleep(ms);
    service.thaw();
  });
  for (const post of posts) await endedWell(round, post);
  for (const sandbox of sandboxes) await round.finish(sandbox);
}
