/**
 * The faults of the lake: a kill at each trace point of publishing, two concurrent writers, a full disk, and damaged
 * files and topics.
 *
 * @module
 */

import { execFileSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { type Table, tableNames } from "../../io.ts";
import { paths } from "../../lake/files.ts";
import { foreignMessage, others, type Sandbox, type Step, type Work } from "./sandbox.ts";
import { type Fault, moment, type Round } from "./strikes.ts";

/** Posts messages of another producer to topics: `count` clean ones and one bad one each. */
async function postOthers(
  round: Round,
  sandbox: Sandbox,
  count: number,
  to: readonly Table[] = tableNames,
): Promise<void> {
  sandbox.isForeign = (key) => key?.startsWith("other ") ?? true;
  const producer = others(round.services).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  for (const table of to) {
    const messages = Array.from({ length: count }, (_, i) => foreignMessage(table, i));
    await producer.send({
      topic: `${sandbox.prefix}.${table}`,
      messages: [...messages, { key: "other x", value: "{" }],
    });
  }
  await producer.disconnect();
}

/** The strikes that kill a command at each trace point of an undisturbed run. */
function killsOf(steps: Step[]): { strike: string; text: string }[] {
  const times = new Map<string, number>();
  return steps.map(({ name, subject }) => {
    const text = `${name} ${subject}`;
    const nth = (times.get(text) ?? 0) + 1;
    times.set(text, nth);
    const pattern = subject.replace(/[.]/g, "[.]");
    return { strike: `kill ${nth} ^${name} (.*/)?${pattern}$`, text: nth > 1 ? `${text} (${nth})` : text };
  });
}

/** Kills a command at all or some of its trace points, each time on a copy of the current lake. */
export async function killAtSteps(
  round: Round,
  sandbox: Sandbox,
  options: { args: string[]; lake: "copy" | "empty"; most: number },
) {
  const { args, lake, most } = options;
  const whole = sandbox.twin("whole", lake);
  const undisturbed = whole.run(args);
  await undisturbed.done;
  const kills = killsOf(undisturbed.steps().filter(({ name }) => name !== "ended"));
  await round.finishLake(whole);
  await whole.remove();
  while (kills.length > most) kills.splice(round.between(0, kills.length - 1), 1);
  for (const [i, { strike, text }] of kills.entries()) {
    const twin = sandbox.twin(`kill-${i}`, lake);
    const work = twin.run(args, { strike });
    const { code, stderr } = await work.done;
    const struck = work.steps().find(({ name }) => name === "struck");
    round.hit(`SIGKILL of ${args.join(" ")}`, struck && `at ${text}`);
    if (code !== null && struck) round.wrong(`It ended with ${code} after ${text}: ${stderr}`);
    // Simulates a kill in the middle of a removal.
    const [, removed] = /^removing (.*rebuild.*)/.exec(text) ?? [];
    if (removed) rmSync(join(twin.lake, removed, "silver", "pin"), { recursive: true });
    if (args.includes("--rebuild") && round.random() < 0.5) await twin.go(args);
    await round.finishLake(twin);
    await twin.remove();
  }
}

/** Creates small files, as days of `clean --follow` would: one batch fewer than are compacted. */
async function makeSmallFiles(round: Round, sandbox: Sandbox, files: number): Promise<void> {
  const follow = sandbox.run(["clean", "--follow"]);
  const cleaned = () =>
    follow.steps().filter(({ name, subject }) => name === "renamed" && /rejects.user/.test(subject));
  while (!follow.over()) {
    const before = cleaned().length;
    const landed = () => readdirSync(paths(sandbox.lake).bronze("user")).length;
    if (existsSync(paths(sandbox.lake).bronze("user")) && landed() >= files) break;
    await postOthers(round, sandbox, 3);
    for (let i = 0; i < 200 && cleaned().length === before; i++) await sleep(20);
    await sleep(100);
  }
  follow.kill("SIGTERM");
  await follow.done;
}

/** Runs a command that must fail with a given message. */
async function mustFail(round: Round, sandbox: Sandbox, args: string[], options: { what: string; says: RegExp }) {
  const { code, stderr } = await sandbox.run(args).done;
  const said = stderr.trim().split("\n").at(-1) ?? "";
  const named = code === 1 && options.says.test(said);
  round.hit(options.what, named ? `${args.join(" ")}, which says: ${said}` : undefined);
  if (!named) round.wrong(`${options.what}: "${args.join(" ")}" ended with ${code}: ${said}`);
}

const smallSandbox = (round: Round) => round.sandbox({ rows: round.between(400, 1_500) });

export const publishing: Record<string, Fault> = {
  "fail-points": {
    text: "SIGKILL of clean at each trace point of landing and publishing",
    async round(round) {
      const sandbox = await smallSandbox(round);
      const most = round.short ? 2 : 40;
      await sandbox.go(["post"]);
      await postOthers(round, sandbox, 20);
      await sandbox.go(["clean"]);
      await sandbox.go(["post", "--full"]);
      sandbox.copies = 2;
      await postOthers(round, sandbox, 30);
      await killAtSteps(round, sandbox, { args: ["clean"], lake: "empty", most });
      await killAtSteps(round, sandbox, { args: ["clean"], lake: "copy", most });
    },
  },

  "fail-points-rebuild": {
    text: "SIGKILL of clean --rebuild at each trace point",
    long: true,
    async round(round) {
      const sandbox = await smallSandbox(round);
      await sandbox.go(["post"]);
      await postOthers(round, sandbox, 20);
      await sandbox.go(["clean"]);
      await killAtSteps(round, sandbox, { args: ["clean", "--rebuild"], lake: "copy", most: round.short ? 2 : 40 });
    },
  },

  "fail-points-merge": {
    text: "SIGKILL of clean while it compacts small files",
    long: true,
    async round(round) {
      const sandbox = await smallSandbox(round);
      await sandbox.go(["post"]);
      await makeSmallFiles(round, sandbox, 31);
      await postOthers(round, sandbox, 3);
      await killAtSteps(round, sandbox, { args: ["clean"], lake: "copy", most: 40 });
    },
  },

  "two-posts": {
    text: "two concurrent posts of the same tables",
    async round(round) {
      for (let i = 0; i < (round.short ? 1 : 3); i++) {
        const sandbox = await round.sandbox({ rows: round.between(10_000, 30_000) });
        await twoAtOnce(round, sandbox, ["post"]);
        await round.finish(sandbox);
      }
    },
  },

  "two-cleans": {
    text: "two concurrent cleans of the same lake",
    async round(round) {
      const sandbox = await round.sandbox({ rows: round.between(10_000, 30_000) });
      await sandbox.go(["post"]);
      for (let i = 0; i < (round.short ? 1 : 3); i++) {
        const lake = i === 0 ? sandbox : sandbox.twin(`lake-${i}`, "empty");
        await twoAtOnce(round, lake, ["clean"]);
        if (lake !== sandbox) await round.finishLake(lake);
      }
      await round.finish(sandbox);
    },
  },

  "disk-full": {
    text: "the disk is full while clean lands or publishes",
    long: true,
    async round(round) {
      if (process.getuid?.() !== 0) return round.note("skipped: only root can mount a small file system");
      const sandbox = await round.sandbox({ rows: round.between(5_000, 15_000) });
      await sandbox.go(["post"]);
      mkdirSync(sandbox.lake);
      const mount = (options: string) => execFileSync("mount", ["-t", "tmpfs", "-o", options, "tmpfs", sandbox.lake]);
      mount("size=600k");
      try {
        for (let size = 600; ; size = Math.ceil(size * (1.1 + round.random() * 0.8))) {
          mount(`remount,size=${size}k`);
          const work = sandbox.run(["clean"]);
          const { code, stderr } = await work.done;
          if (code === 0) break;
          const last = work.steps().at(-1);
          const said = stderr.trim().split("\n").at(-1) ?? "";
          const named = code === 1 && /^Error: The disk that holds ".*" is full/.test(said);
          round.hit(`a disk of ${size} kB`, named ? `clean after ${last?.name} ${last?.subject}: ${said}` : undefined);
          if (!named) round.wrong(`With a disk of ${size} kB clean ended with ${code}: ${said}`);
          if (size > 400_000) throw new Error("clean does not succeed on any disk size");
        }
        await round.finish(sandbox);
      } finally {
        execFileSync("umount", ["--lazy", sandbox.lake]);
      }
    },
  },

  "topic-again": {
    text: "a topic deleted and recreated while clean follows: none of its messages may be landed",
    async round(round) {
      const sandbox = await smallSandbox(round);
      await sandbox.go(["post"]);
      const admin = others(round.services).admin();
      await admin.connect();
      for (const table of round.short ? [round.pick(tableNames)] : tableNames) {
        const topic = `${sandbox.prefix}.${table}`;
        const lake = table === tableNames[0] ? sandbox : sandbox.twin(table, "empty");
        const work = lake.run(["clean", "--follow"]);
        await work.until(/^renamed .*ledger\.parquet$/);
        await moment(round, 1_000);
        await recreateTopic(admin, topic);
        await postOthers(round, sandbox, 50, [table]);
        await Promise.race([work.done, sleep(30_000)]);
        work.kill("SIGKILL");
        const { code, stderr } = await work.done;
        const said = stderr.trim().split("\n").at(-1) ?? "";
        const named = code === 1 && /^Error: Topic ".*" was recreated: /.test(said);
        round.hit(`topic of ${table} made again`, named ? `clean --follow, which ended, saying: ${said}` : undefined);
        if (!named) round.wrong(`clean --follow ended with ${code}: ${said}`);
        if (readBronze(lake, table).includes("\tother ")) round.wrong("A message of the new topic was landed");
      }
      await admin.disconnect();
    },
  },

  damage: {
    text: "files and topics damaged by others: each is detected and named",
    long: true,
    async round(round) {
      const sandbox = await smallSandbox(round);
      await sandbox.go(["post"]);
      await postOthers(round, sandbox, 5);
      await sandbox.go(["clean"]);
      const table = round.pick(tableNames);
      const first = (folder: string) => join(folder, readdirSync(folder).sort()[0] as string);
      const halve = (path: string) =>
        truncateSync(path, Math.floor(statSync(path).size * (0.2 + 0.6 * round.random())));
      const twin = (name: string) => sandbox.twin(name, "copy");

      const silver = twin("silver-gone");
      rmSync(first(paths(silver.lake).silver(table)));
      await mustFail(round, silver, ["clean"], {
        what: `silver of ${table} deleted`,
        says: /ledger is not balanced: .*--rebuild/,
      });
      await silver.go(["clean", "--rebuild"]);
      await round.finishLake(silver);

      for (const what of ["silver", "rejects"] as const) {
        const torn = twin(`${what}-torn`);
        const { silver, rejects } = paths(torn.lake);
        const file = what === "silver" ? first(silver(table)) : join(rejects, `${table}-000000.parquet`);
        halve(file);
        const says = new RegExp(`${file}.*clean --rebuild`);
        await mustFail(round, torn, ["clean"], { what: `${what} of ${table} cut off`, says });
        await torn.go(["clean", "--rebuild"]);
        await round.finishLake(torn);
      }

      const bronze = twin("bronze-torn");
      const bronzeFile = first(paths(bronze.lake).bronze(table));
      halve(bronzeFile);
      const rebuild = ["clean", "--rebuild"];
      await mustFail(round, bronze, rebuild, { what: `bronze of ${table} cut off`, says: new RegExp(bronzeFile) });

      const noise = twin("bronze-noise");
      const noiseFile = first(paths(noise.lake).bronze(table));
      writeFileSync(noiseFile, Buffer.from(readFileSync(noiseFile).map((byte, i) => (i % 7 ? byte : 9))));
      await mustFail(round, noise, rebuild, { what: `bronze of ${table} overwritten`, says: new RegExp(noiseFile) });

      const gone = twin("bronze-gone");
      rmSync(first(paths(gone.lake).bronze(table)));
      for (const args of [["clean"], rebuild]) {
        await mustFail(round, gone, args, {
          what: `bronze of ${table} deleted`,
          says: /Messages are missing from the lake: offsets 0 to /,
        });
      }

      const landed = sandbox.twin("landed-torn", "empty");
      await landed.run(["clean"], { strike: `kill 1 ^cleaning ${table}` }).done;
      halve(first(paths(landed.lake).bronze(table)));
      await mustFail(round, landed, ["clean"], {
        what: `landed bronze of ${table} cut off`,
        says: new RegExp(paths(landed.lake).bronze(table)),
      });

      const rejects = twin("rejects-gone");
      rmSync(join(paths(rejects.lake).rejects, `${table}-000000.parquet`));
      await round.finishLake(rejects);

      const admin = others(round.services).admin();
      await admin.connect();
      const topic = `${sandbox.prefix}.${table}`;
      const offsets = await admin.fetchTopicOffsets(topic);
      const early = sandbox.twin("expired", "empty");
      await early.run(["clean"], { strike: "kill 1 ^cleaning" }).done;
      await postOthers(round, sandbox, 10);
      const partitions = offsets.map(({ partition, offset }) => ({ partition, offset: String(Number(offset) + 1) }));
      await admin.deleteTopicRecords({ topic, partitions: partitions.slice(0, 1) });
      await mustFail(round, twin("expired-unread"), ["clean"], {
        what: `unread messages of ${table} expired`,
        says: /Messages were lost: partition \d+ of topic ".*" starts at offset \d+, so \d+ offsets from \d+ on expired/,
      });
      await admin.deleteTopics({ topics: [topic] });
      await sleep(500);
      await mustFail(round, twin("topic-gone"), ["clean"], {
        what: `topic of ${table} deleted`,
        says: /Topic ".*" does not exist/,
      });
      await admin.createTopics({ topics: [{ topic, numPartitions: offsets.length }] });
      await sleep(500);
      for (const args of [["post"], ["clean"]]) {
        await mustFail(round, twin(`topic-again-${args}`), args, {
          what: `topic of ${table} made again`,
          says: /no longer holds the last row posted|was recreated/,
        });
      }
      await sandbox.go(["post", "--full"]);
      await mustFail(round, twin("topic-grown"), ["clean"], {
        what: `topic of ${table} made again and grown`,
        says: /was recreated/,
      });
      await admin.deleteTopics({ topics: [`${sandbox.prefix}.checkpoints`] });
      await admin.disconnect();
      await sleep(500);
      const { stderr } = await sandbox.run(["post"]).done;
      const warned = new RegExp(
        `Topic "${topic}" has messages of other programs, such as emulate or serve, but none of post`,
      ).test(stderr);
      round.hit("topic of checkpoints deleted", warned ? "post, which warns that every row is posted" : undefined);
      if (!warned) round.wrong(`post without its checkpoints does not warn: ${stderr}`);
    },
  },
};

/** Deletes a topic, and creates it again with as many partitions. */
async function recreateTopic(admin: ReturnType<ReturnType<typeof others>["admin"]>, topic: string): Promise<void> {
  const [{ partitions } = { partitions: [] }] = (await admin.fetchTopicMetadata({ topics: [topic] })).topics;
  await admin.deleteTopics({ topics: [topic] });
  // The broker may not have deleted the old topic yet.
  for (let tries = 0; ; tries++) {
    try {
      await admin.createTopics({ topics: [{ topic, numPartitions: partitions.length }] });
      return;
    } catch (error) {
      if (tries === 500) throw error;
      await sleep(20);
    }
  }
}

/** All bronze of a table as text. */
const readBronze = ({ lake }: Sandbox, table: Table): string =>
  readdirSync(paths(lake).bronze(table))
    .map((name) => readFileSync(join(paths(lake).bronze(table), name), "latin1"))
    .join("");

/** Starts a command twice. The first is paused at a trace point until the second has begun, or is only slightly ahead. */
async function twoAtOnce(round: Round, sandbox: Sandbox, args: string[]): Promise<void> {
  const steps =
    args[0] === "post" ? ["begun", "sending", "sent", "committing"] : ["landing", "cleaning", "written .*silver"];
  const held = round.short || round.random() < 0.8;
  const first = sandbox.run(args, held ? { strike: `pause 1 ^${round.pick(steps)}` } : {});
  await (held ? first.until(/^struck/) : first.past(round.between(0, 8)));
  const second = sandbox.run(args);
  if (held) await second.until(/./);
  await sleep(round.random() * 300);
  first.release();
  const ends = await Promise.all([first, second].map(async (work: Work) => ({ work, ...(await work.done) })));
  const refused = ends.filter(({ code }) => code !== 0);
  const [loser] = refused;
  const said = loser?.stderr.trim().split("\n").at(-1) ?? "";
  const named = /^Error: Another (post|clean) of .* is running: process \d+.*; let it finish, or stop it first$/;
  const place = loser && `${loser.work === first ? "the first" : "the second"} ended, saying: ${said}`;
  round.hit(`two at once: ${args.join(" ")}`, place);
  if (refused.length > 1) round.wrong("Both ended with an error");
  if (loser && (loser.code !== 1 || !named.test(said))) round.wrong(`It ended with ${loser.code}: ${said}`);
}
