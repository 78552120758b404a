/** Deletes: messages with a key and no value, against an independent implementation. */
import assert from "node:assert/strict";
import { copyFileSync, existsSync } from "node:fs";
import { mkdir, readdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { cleanLanded, rebuild } from "../../clean/rebuild.ts";
import type { BronzeFile } from "../../lake/bronze.ts";
import { paths } from "../../lake/files.ts";
import { lakeState } from "../../lake/ledger.ts";
import { readSql, useSqlFolder } from "../../lake/sql_files.ts";
import { Random } from "../../runtime/random.ts";
import { type Step, steps } from "../../runtime/steps.ts";
import { landMessages, makeLake, readDeletes, readRejects, readSilver } from "../support/lake_of.ts";
import { cleanTable, type Message } from "../support/oracle.ts";
import { query, temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const settings = (lake: string) => ({ lake, signal: new AbortController().signal, onFact: () => {} });

/** A message of the geo topic: a row of `ind`, or its delete if the value is null. */
const message = (offset: number, ind: number, more: Partial<Message> = {}): Message => ({
  ...{ partition: 0, offset, postedAt: 1_700_000_000_000 + offset, key: Buffer.from(`${ind}`) },
  value: Buffer.from(JSON.stringify(validRow("geo", ind))),
  ...more,
});
const gone = { value: null };

/** Silver, deletes and rejects of geo in a lake. */
const contents = async (lake: string) => ({
  silver: await readSilver(lake, "geo"),
  deletes: await readDeletes(lake, "geo"),
  rejects: await readRejects(lake, "geo"),
});

/** Asserts that a lake, also after a rebuild, equals the result of the oracle. */
async function checkLake(lake: string, messages: Message[], ledger: object | undefined): Promise<void> {
  const wanted = cleanTable("geo", messages);
  const found = await contents(lake);
  const byInd = <T extends { ind: bigint }>(rows: Map<bigint, T>) =>
    [...rows.values()].sort((a, b) => (a.ind < b.ind ? -1 : 1));
  assert.deepEqual(found.silver, byInd(wanted.rows));
  assert.deepEqual(found.deletes, byInd(wanted.deletes));
  const places = (rows: Record<string, unknown>[]) =>
    rows.map((r) => `${r._partition}/${r._offset} ${r.reason}`).sort();
  assert.deepEqual(places(found.rejects), places(wanted.rejects));
  const reasons: Record<string, number> = {};
  for (const { reason } of wanted.rejects) reasons[reason] = (reasons[reason] ?? 0) + 1;
  const counts = {
    ...{ table: "geo", messages: messages.length, clean: wanted.rows.size, superseded: wanted.superseded },
    ...{ deleted: wanted.deletes.size, rejected: wanted.rejects.length, reasons },
  };
  assert.deepEqual(ledger, counts);
  const { geo } = await lakeState(lake);
  assert.deepEqual([geo.ledger, geo.isBalanced], [counts, true]);
  const { table: _, reasons: __, ...numbers } = counts;
  const columns = Object.keys(numbers).map((name) => `${name}::INT AS ${name}`);
  const gold = await query(`SELECT ${columns} FROM '${lake}/gold/ledger.parquet' WHERE "table" = 'geo'`);
  assert.deepEqual(gold, [numbers]);
}

// The messages of an ind in order, and the winner. The number after @ is the time; otherwise times rise.
const stories: [what: string, story: string, wins: "row" | "delete"][] = [
  ["a row that is deleted", "row delete", "delete"],
  ["a delete of an ind that never was", "delete", "delete"],
  ["a delete that comes first and is older", "delete@1 row@2", "row"],
  ["a delete that comes first and is newer", "delete@2 row@1", "delete"],
  ["a delete that comes last and is older", "row@2 delete@1", "row"],
  ["two deletes", "row delete delete", "delete"],
  ["two deletes, the older one last", "row@1 delete@3 delete@2", "delete"],
  ["a row that comes back", "row delete row", "row"],
  ["a row that comes back and goes again", "row delete row delete", "delete"],
  ["a row between two deletes", "delete@1 delete@3 row@2", "delete"],
  ["rows after a row that came back", "delete row row", "row"],
  ["an old row long after the delete", "row@1 delete@3 row@2 row@2", "delete"],
  ["one time: the greater offset wins", "row@1 delete@1", "delete"],
  ["one time, the other way round", "delete@1 row@1", "row"],
  ["no time is the oldest", "delete@1 row@none", "delete"],
  ["a delete without a time", "row@0 delete@none", "row"],
];

test("the newest row or delete of an ind wins, in batches of any size", async () => {
  const messages = stories.flatMap(([, story], i) =>
    story.split(" ").map((event, at) => {
      const [kind, time = `${at}`] = event.split("@");
      const postedAt = time === "none" ? null : Number(time);
      return message(i * 10 + at, i, { postedAt, ...(kind === "delete" && gone) });
    }),
  );
  // A block with only a delete.
  messages.push(message(1000, 2 ** 28, gone));
  for (const size of [1, 4, 100]) {
    const lake = join(folder.path, `stories-${size}`);
    await landMessages(lake, { geo: messages }, { perFile: size });
    const { ledger } = await cleanLanded({ ...settings(lake), batches: (files) => files.map((file) => [file]) });
    const rows = (await readSilver(lake, "geo")).map(({ ind }) => Number(ind));
    const deletes = (await readDeletes(lake, "geo")).map(({ ind }) => Number(ind));
    for (const [i, [what, , wanted]] of stories.entries()) {
      assert.deepEqual([rows.includes(i), deletes.includes(i)], [wanted === "row", wanted === "delete"], what);
    }
    assert.deepEqual([ledger[1]?.superseded, ledger[1]?.rejected], [messages.length - stories.length - 1, 0]);
    await checkLake(lake, messages, ledger[1]);
    assert.equal((await readdir(paths(lake).silver("geo"))).length, 2);
  }
});

test("a delete has a key of digits that fit 64 bits; other messages without a value, and of blanks, are rejects", async () => {
  const keys: [key: string | null, ind?: bigint][] = [
    ...([
      ["0", 0n],
      ["7", 7n],
      ["007", 7n],
      [`${"0".repeat(30)}7`, 7n],
      ["65536", 65_536n],
    ] as [string, bigint][]),
    ...([
      ["9223372036854775807", 2n ** 63n - 1n],
      ["4294967303", 4_294_967_303n],
    ] as [string, bigint][]),
    ...["", "-1", "+7", "7.0", "7e0", " 7", "7 ", "7\n", "7\u0000", "７", "x", "9223372036854775808"].map(
      (key): [string] => [key],
    ),
    ...[null, "12345678901234567890", "99999999999999999999999999", '"7"', "\ufeff7"].map((key): [string | null] => [
      key,
    ]),
  ];
  const values = [null, "", " ", "\n\u200b"].map((text) => (text === null ? null : Buffer.from(text)));
  const messages = values.flatMap((value, v) =>
    keys.map(([key], k) => message(v * keys.length + k, 0, { key: key === null ? null : Buffer.from(key), value })),
  );
  messages.push(message(messages.length, 0, { key: Buffer.from([0xff, 0x37]), value: null }));
  for (const perFile of [1, 1000]) {
    const lake = join(folder.path, `keys-${perFile}`);
    const { ledger } = await makeLake(lake, { geo: messages }, { perFile });
    await checkLake(lake, messages, ledger[1]);
    const inds = (await readDeletes(lake, "geo")).map(({ ind }) => ind);
    assert.deepEqual(inds, [0n, 7n, 65_536n, 4_294_967_303n, 2n ** 63n - 1n]);
    const { rejected, superseded, reasons } = ledger[1] as NonNullable<(typeof ledger)[1]>;
    assert.deepEqual(reasons, { empty_message: rejected });
    assert.deepEqual([rejected, superseded], [messages.length - 7, 2]);
  }
});

/** Rows, deletes and rejects of a few inds in two blocks and two partitions, with repeated times. */
function someMessages(dice: Random, count: number): Message[] {
  const next = [0, 0];
  return Array.from({ length: count }, (_, i) => {
    const partition = dice.below(2);
    const offset = next[partition] as number;
    next[partition] = offset + 1 + dice.below(2);
    const ind = dice.pick([0, 2 ** 40]) + dice.below(6);
    const kind = dice.below(10);
    return message(offset, ind, {
      ...{ partition, postedAt: dice.chance(0.1) ? null : 1_700_000_000_000 + Math.floor(i / 4) * dice.below(3) },
      ...(kind < 4 ? gone : kind < 5 && { value: Buffer.from("no JSON") }),
      ...(kind === 0 && { key: dice.pick([null, Buffer.from("-1"), Buffer.from(`00${ind}`)]) }),
    });
  });
}

test("batches of any size, and a rebuild, give the result of an independent implementation", async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e6));
  t.diagnostic(`repeat with SEED=${seed}`);
  for (const [i, perFile] of [1, 5].entries()) {
    const messages = someMessages(new Random(seed + i), 40);
    const lake = join(folder.path, `sizes-${perFile}`);
    await landMessages(lake, { geo: messages }, { perFile });
    const { ledger } = await cleanLanded({ ...settings(lake), batches: (files) => files.map((file) => [file]) });
    await checkLake(lake, messages, ledger[1]);
    const before = await contents(lake);
    const again = await rebuild(settings(lake));
    assert.deepEqual(again.ledger, ledger);
    assert.deepEqual(await contents(lake), before);
  }
});

/** Groups files at random, in the order of each partition. */
function grouped(files: BronzeFile[], dice: Random): BronzeFile[][] {
  const left = [0, 1].map((partition) => files.filter((file) => file.partition === partition));
  const groups: BronzeFile[][] = [];
  while (left.some((queue) => queue.length > 0)) {
    const group = left.flatMap((queue) => queue.splice(0, dice.below(4)));
    if (group.length > 0) groups.push(group);
  }
  return groups;
}

test("after a stop at each rename, with other groups of files, each file equals the result of the messages applied to it", async (t) => {
  const seed = Number(process.env.SEED ?? Math.floor(Math.random() * 1e6));
  t.diagnostic(`repeat with SEED=${seed}`);
  const kept = join(folder.path, "kept");
  await mkdir(kept);
  for (let stopAt = 1, stopped = true; stopped; stopAt++) {
    const dice = new Random(seed + stopAt);
    const messages = someMessages(dice, 40);
    const lake = join(folder.path, `stopped-${stopAt}`);
    await landMessages(lake, { geo: messages }, { perFile: 8 });
    const published: string[] = [];
    let renames = 0;
    const stop = new AbortController();
    const onStep = (step: unknown) => {
      const { name, subject } = step as Step;
      if (name !== "renamed") return;
      if (/\/(silver|deletes)\//.test(subject)) {
        const copy = join(kept, `${published.length}-${subject.includes("silver") ? "silver" : "deletes"}.parquet`);
        copyFileSync(subject, copy);
        published.push(copy);
      }
      if (++renames === stopAt) stop.abort();
    };
    steps.subscribe(onStep);
    const clean = (signal: AbortSignal) =>
      cleanLanded({ ...settings(lake), signal, batches: (files) => grouped(files, dice) });
    stopped = await clean(stop.signal).then(
      () => false,
      (error: Error) => {
        if (!stop.signal.aborted) throw error;
        return true;
      },
    );
    const { ledger } = await clean(new AbortController().signal).finally(() => steps.unsubscribe(onStep));
    await checkLake(lake, messages, ledger[1]);
    for (const file of published) await checkFile(file, messages);
  }
});

/** Asserts that each file of silver and deletes equals the result of the oracle for the messages applied to it. */
async function checkFile(file: string, messages: Message[]): Promise<void> {
  const [{ applied } = {}] = await query(
    `SELECT decode(value) AS applied FROM parquet_kv_metadata('${file}') WHERE decode(key) = 'applied'`,
  );
  const next = JSON.parse(String(applied)) as Record<string, number>;
  const rows = await query(`SELECT ind, _partition, _offset::DOUBLE AS _offset FROM '${file}' ORDER BY ind`);
  const some = messages.filter(({ partition, offset }) => offset < (next[partition] ?? 0));
  const wanted = cleanTable("geo", some)[file.endsWith("silver.parquet") ? "rows" : "deletes"];
  const blocks = new Set(rows.map(({ ind }) => block(ind as bigint)));
  assert.ok(blocks.size < 2);
  const mine = [...wanted.values()].filter(({ ind }) => blocks.has(block(ind)));
  assert.deepEqual(
    rows.map((row) => Object.values(row)),
    mine.sort((a, b) => (a.ind < b.ind ? -1 : 1)).map((row) => [row.ind, row._partition, Number(row._offset)]),
    file,
  );
}

const block = (ind: bigint) => (ind < 2n ** 28n ? ind / 65_536n : 4096n + ((ind / 65_536n) % 64n));

test("without deletes there is no folder for them, and deletes.sql is not run", async () => {
  const lake = join(folder.path, "none");
  const seen: string[] = [];
  const onStep = (step: unknown) => void seen.push((step as Step).name);
  steps.subscribe(onStep);
  const clean = () => makeLake(lake, { geo: Array.from({ length: 10 }, (_, i) => message(i, i % 7)) }, { perFile: 3 });
  const { ledger } = await clean().finally(() => steps.unsubscribe(onStep));
  assert.equal(ledger[1]?.superseded, 3);
  assert.ok(!seen.includes("deletes"));
  assert.ok(!existsSync(paths(lake).deletes("geo")));
});

test("rejects of an earlier version stay rejects, and balanced, until a rebuild turns them into deletes", async () => {
  const sql = await Promise.all(
    ["earlier", "own"].map(async (name) => {
      const path = join(folder.path, `sql-${name}`);
      await mkdir(path);
      return path;
    }),
  );
  const [earlier, own] = sql as [string, string];
  await writeFile(join(earlier, "deletes.sql"), `${readSql("deletes.sql")} AND false`);
  const lake = join(folder.path, "earlier");
  const messages = Array.from({ length: 30 }, (_, i) => message(i, i % 8, i % 3 === 0 ? gone : {}));
  try {
    useSqlFolder(earlier);
    const before = await makeLake(lake, { geo: messages.slice(0, 15) }, { perFile: 15 });
    assert.deepEqual(before.ledger[1]?.reasons, { empty_message: 5 });
    useSqlFolder(own);
    const after = await makeLake(lake, { geo: messages }, { perFile: 15 });
    assert.deepEqual([after.ledger[1]?.messages, after.ledger[1]?.rejected], [30, 5]);
    assert.ok(Number(after.ledger[1]?.deleted) > 0);
    const rebuilt = await rebuild(settings(lake));
    await checkLake(lake, messages, rebuilt.ledger[1]);
    // With the old SQL the deletes disappear, and the rows that they had removed are back.
    useSqlFolder(earlier);
    const back = await rebuild(settings(lake));
    assert.deepEqual([back.ledger[1]?.deleted, back.ledger[1]?.rejected], [0, 10]);
    assert.deepEqual(await readDeletes(lake, "geo"), []);
  } finally {
    useSqlFolder(own);
  }
});

test("a lost file of deletes shows in the ledger, and a rebuild recreates it", async () => {
  const lake = join(folder.path, "lost");
  const messages = Array.from({ length: 20 }, (_, i) => message(i, i % 8, i % 3 === 0 ? gone : {}));
  await makeLake(lake, { geo: messages }, { perFile: 7 });
  await rm(join(paths(lake).deletes("geo"), "0000.parquet"));
  for (let times = 0; times < 2; times++) {
    await assert.rejects(
      cleanLanded(settings(lake)),
      /^Error: The ledger is not balanced: geo: 20 messages, but \d+ clean \+ \d+ superseded \+ 0 deleted \+ 0 rejected\./,
    );
  }
  const { ledger } = await rebuild(settings(lake));
  await checkLake(lake, messages, ledger[1]);
});
