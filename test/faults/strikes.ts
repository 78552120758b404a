/**
 * The faults. Each makes tables of its own, lets the program work, strikes it at seeded random moments, and at last
 * lets the same commands run undisturbed; {@link Round.finish} compares what is left.
 *
 * @module
 */
import { setTimeout as sleep } from "node:timers/promises";
import { type RequestName, requests } from "./proxy.ts";
import { connectionsOf, type Site, type Work, type World, type WorldOptions } from "./world.ts";

/** One round of a fault. */
export interface Round {
  site: Site;
  /** Seeded: 0 to 1, a whole number between two, one of some. */
  random(): number;
  between(least: number, most: number): number;
  pick<T>(items: readonly T[]): T;
  /** Tables, topics and lake of this round; they go away with it. Its silver is watched from now on. */
  world(options?: Partial<WorldOptions>): Promise<World>;
  /** Does something bad to programs; it counts as a hit for each that is within a stage at this moment. */
  strike(what: string, works: Work[], action: () => unknown): Promise<boolean>;
  /** Tells of something that must not be. */
  wrong(text: string): void;
  note(text: string): void;
  /** Runs `post` and `clean` undisturbed and compares everything. */
  finish(world: World): Promise<void>;
}

export interface Fault {
  /** What happens, for the table in the README. */
  text: string;
  /** Not in the short run: it waits for time-outs. */
  long?: true;
  round(round: Round): Promise<void>;
}

/** The program ended as it should: well, or killed by us. */
async function endedWell(round: Round, work: Work, codes: (number | null)[] = [0]): Promise<void> {
  const { code, stderr } = await work.done;
  if (!codes.includes(code)) round.wrong(`"${work.command}" ended with ${code}: ${stderr.trim().split("\n").at(-1)}`);
}

/** Kills a command again and again, each time within a stage if it gets there. */
async function killAgain(
  round: Round,
  world: World,
  args: string[],
  { times, steps }: { times: number; steps: number },
): Promise<void> {
  for (let i = 0; i < times; i++) {
    const work = world.run(args);
    await work.past(round.between(1, steps));
    await sleep(round.random() * 400);
    const hit = await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
    await endedWell(round, work, hit ? [null] : [null, 0, 3]);
    if (work.over() && !hit) return;
  }
}

/** Ends `clean --follow`, which must be quick about it. */
async function endFollow(round: Round, work: Work): Promise<void> {
  if (work.over()) return round.wrong(`"${work.command}" ended by itself: ${(await work.done).stderr.slice(-300)}`);
  const since = Date.now();
  work.kill("SIGTERM");
  await endedWell(round, work, [143]);
  if (Date.now() - since > 3_500) round.wrong(`"${work.command}" took ${Date.now() - since} ms to stop`);
}

/** Runs post with `clean --follow` beside it, and something bad while either is at work. */
async function whileBusy(round: Round, world: World, bad: (works: Work[]) => Promise<void>): Promise<void> {
  const follow = world.run(["clean", "--follow"]);
  const post = world.run(["post"]);
  await post.until(/./);
  await bad([post, follow]);
  await endedWell(round, post);
  await endFollow(round, follow);
}

export const faults: Record<string, Fault> = {
  "kill-post": {
    text: "SIGKILL of post",
    async round(round) {
      const world = await round.world();
      await killAgain(round, world, ["post"], { times: 6, steps: 40 });
      await round.finish(world);
    },
  },

  "kill-clean": {
    text: "SIGKILL of clean",
    async round(round) {
      const world = await round.world();
      await world.go(["post"]);
      await killAgain(round, world, ["clean"], { times: 6, steps: 30 });
      await round.finish(world);
    },
  },

  "kill-run": {
    text: "SIGKILL of the whole run",
    async round(round) {
      const world = await round.world();
      await killAgain(round, world, [], { times: 6, steps: 100 });
      await round.finish(world);
    },
  },

  "kill-follow": {
    text: "SIGKILL of post and of clean --follow beside it",
    async round(round) {
      const world = await round.world();
      const commands = [["post"], ["clean", "--follow"]] as const;
      const works = commands.map((args) => world.run([...args]));
      for (let i = 0; i < 6; i++) {
        const which = round.pick([0, 1]);
        await works[which]?.past(round.between(1, 40));
        await sleep(round.random() * 400);
        const work = works[which] as Work;
        await round.strike("SIGKILL of the program", [work], () => work.kill("SIGKILL"));
        await endedWell(round, work, [null, 0]);
        works[which] = world.run([...(commands[which] as readonly string[])]);
      }
      await endedWell(round, works[0] as Work);
      await endFollow(round, works[1] as Work);
      await round.finish(world);
    },
  },

  "kill-connection": {
    text: "MySQL KILL CONNECTION of a posting thread",
    async round(round) {
      const world = await round.world();
      await whileBusy(round, world, async (works) => {
        const [post] = works as [Work];
        for (let i = 0; i < 5 && !post.over(); i++) {
          await sleep(round.random() * 1_500);
          const { admin, ids } = await connectionsOf(round.site, world);
          if (ids.length > 0) {
            await round.strike("KILL CONNECTION", [post], () =>
              admin.query(`KILL CONNECTION ${round.pick(ids)}`).catch(() => {}),
            );
          }
          admin.destroy();
        }
      });
      await round.finish(world);
    },
  },

  "kill-broker": {
    text: "SIGKILL of the broker under post and clean --follow",
    async round(round) {
      const { broker } = round.site;
      const world = await round.world();
      await whileBusy(round, world, async (works) => {
        for (let i = 0; i < 3 && !works[0]?.over(); i++) {
          await sleep(round.random() * 3_000);
          await round.strike("SIGKILL of the broker", works.slice(0, 1), () => broker.stop("SIGKILL"));
          await sleep(round.random() * 2_000);
          await broker.start();
          await sleep(1_000);
        }
      });
      await round.finish(world);
    },
  },

  "kill-database": {
    text: "SIGKILL of the database under post",
    async round(round) {
      const { database } = round.site;
      const world = await round.world();
      await whileBusy(round, world, async (works) => {
        for (let i = 0; i < 3 && !works[0]?.over(); i++) {
          await sleep(round.random() * 2_000);
          await round.strike("SIGKILL of the database", works.slice(0, 1), () => database.stop("SIGKILL"));
          await sleep(round.random() * 2_000);
          await database.start();
          await sleep(500);
        }
      });
      await round.finish(world);
    },
  },

  "broker-in-transaction": {
    text: "broker killed or restarted between two named steps of a transaction",
    async round(round) {
      const { broker } = round.site;
      const world = await round.world({ rows: round.between(15_000, 35_000) });
      for (let i = 0; i < 3; i++) {
        const step = round.pick(["claiming", "claimed", "begun", "sending", "sent", "committing", "committed"]);
        const table = round.pick(["pin", "geo", "user"]);
        const work = world.run(["post"], {
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
      await round.finish(world);
    },
  },

  "answer-lost": {
    text: "the broker's answer is lost after it has acted (commit, send, begin, fence)",
    async round(round) {
      const { proxy } = round.site;
      const world = await round.world({ rows: round.between(15_000, 35_000) });
      for (let i = 0; i < 2; i++) {
        const request = round.pick<RequestName>([
          "EndTxn",
          "EndTxn",
          "Produce",
          "AddPartitionsToTxn",
          "InitProducerId",
        ]);
        const nth = round.between(1, request === "InitProducerId" ? 3 : 10);
        const work = world.run(["post"]);
        const lost = proxy.loseAnswer(request, nth, "cut");
        const struck = await Promise.race([lost.then(() => true), work.done.then(() => false)]);
        if (struck) await round.strike(`answer ${nth} to ${request} (API ${requests[request]}) lost`, [work], () => {});
        await endedWell(round, work);
      }
      await round.finish(world);
    },
  },

  proxy: {
    text: "connections cut, delayed, slowed down, half closed",
    async round(round) {
      const { proxy } = round.site;
      const world = await round.world();
      await whileBusy(round, world, async (works) => {
        for (let i = 0; i < 6 && !works[0]?.over(); i++) {
          await sleep(round.random() * 1_000);
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
      await round.finish(world);
    },
  },
};
