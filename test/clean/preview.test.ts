import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { isDeepStrictEqual } from "node:util";
import { previewRebuild } from "../../clean/preview.ts";
import { cleanLanded, rebuild } from "../../clean/rebuild.ts";
import { tableNames } from "../../io.ts";
import type { TableDifference } from "../../lake/compare.ts";
import { paths } from "../../lake/files.ts";
import type { LedgerRow } from "../../lake/ledger.ts";
import { lockLake } from "../../lake/owner.ts";
import { readSql, useSqlFolder } from "../../lake/sql_files.ts";
import { type Step, steps } from "../../runtime/steps.ts";
import { landMessages, makeLake, readRejects, readSilver } from "../support/lake_of.ts";
import { hostileMessages } from "../support/messages.ts";
import { leftOpen, type Message } from "../support/oracle.ts";
import { ok, run, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let rules: string;
before(async () => {
  folder = await temporaryFolder();
  rules = join(folder.path, "rules");
  await mkdir(rules);
  // Ages up to 99 instead of 130, and "old" is 77; names in upper case; another reason; a new and a dropped column.
  const edited = readSql("clean_user.sql")
    .replace("BETWEEN 0 AND 130", "BETWEEN 0 AND 99")
    .replace("whole_number(f.age)", "whole_number(CASE f.age WHEN 'old' THEN '77' ELSE f.age END)")
    .replace("'bad_timestamp'\n      WHEN", "'bad_date'\n      WHEN")
    .replace(
      "  ind, user_name, age, date_joined, _p",
      "  ind, upper(user_name) AS user_name, age, age // 10 AS decade, _p",
    );
  await writeFile(join(rules, "clean_user.sql"), `${edited}; -- The end`);
});
after(() => folder.remove());

const settings = (lake: string) => ({ lake, signal: new AbortController().signal, onFact: () => {} });

/** A user as a message; the name is "ann N" where none is given. */
const user = (offset: number, fields: Record<string, unknown>): Message => {
  const row = { first_name: "ann", last_name: String(fields.ind), age: 30, date_joined: null, ...fields };
  return { partition: 0, offset, postedAt: 1_000 + offset, key: null, value: Buffer.from(JSON.stringify(row)) };
};

/** Users in two key blocks that the old rules, the edited rules, both or neither reject; some are older than a reject. */
const messages = [
  user(0, { ind: 1 }),
  user(1, { ind: 2, first_name: "7", last_name: null }),
  user(2, { ind: 3, age: "old" }),
  user(3, { ind: 4, age: 120 }),
  user(4, { ind: 5, age: 131 }),
  user(5, { ind: 6, date_joined: "never" }),
  user(6, { ind: 70_007 }),
  user(7, { ind: 70_007, age: 121 }),
  user(8, { ind: 70_008, age: 40 }),
  user(9, { ind: 70_008, age: "old" }),
];

const undatedMessage = `value: ${messages[5]?.value}`;

/** What the edited rules change of them. */
const wanted: Omit<TableDifference, "before" | "after"> = {
  table: "user",
  rows: { added: 1, removed: 1, changed: 3 },
  columns: [
    { column: "date_joined", before: "TIMESTAMP WITH TIME ZONE", after: null },
    { column: "decade", before: null, after: "INTEGER" },
  ],
  reordered: false,
  values: [
    { column: "user_name", rows: 3 },
    { column: "age", rows: 2 },
  ],
  rejects: [
    { before: "bad_age", after: null, messages: 2, example: "age: old" },
    { before: null, after: "bad_age", messages: 2, example: "age: 120" },
    { before: "bad_timestamp", after: "bad_date", messages: 1, example: undatedMessage },
  ],
  examples: [
    { ind: "1", column: "user_name", before: "ann 1", after: "ANN 1" },
    { ind: "70007", column: "user_name", before: "ann 70007", after: "ANN 70007" },
    { ind: "70008", column: "user_name", before: "ann 70008", after: "ANN 70008" },
    { ind: "70007", column: "age", before: "121", after: "30" },
    { ind: "70008", column: "age", before: "40", after: "77" },
  ],
};

/** A hash of each file in a folder. */
async function hashes(path: string): Promise<Record<string, string>> {
  const found: Record<string, string> = {};
  for (const entry of await readdir(path, { recursive: true, withFileTypes: true })) {
    const file = join(entry.parentPath, entry.name);
    if (entry.isFile())
      found[file] = createHash("sha256")
        .update(await readFile(file))
        .digest("hex");
  }
  return found;
}

test("clean --rebuild --dry-run shows what edited rules change, and changes no file", async () => {
  const data = join(folder.path, "edited");
  const lake = join(data, "lake");
  await makeLake(lake, { user: messages }, { perFile: 4 });
  await (await lockLake(lake))[Symbol.asyncDispose]();
  const files = await hashes(lake);
  const args = ["clean", "--rebuild", "--dry-run", "--sql", rules, "--data", data];
  const { stdout, stderr } = ok(await run([...args, "--json"]));
  assert.match(stderr, /; nothing was changed: without --dry-run the same command does it\n/);
  const unedited = ok(await run(["clean", "--rebuild", "--dry-run", "--data", data]));
  assert.match(unedited.stdout, /\n\nNothing changes\n$/);
  assert.match(unedited.stderr, /; nothing was changed\n/);
  const { tables } = JSON.parse(stdout) as { tables: TableDifference[] };
  assert.deepEqual(
    tables.map(({ table }) => table),
    tableNames,
  );
  const { before, after, ...rest } = tables.find(({ table }) => table === "user") as TableDifference;
  assert.deepEqual(rest, wanted);
  const sums = ({ messages, clean, superseded, rejected }: LedgerRow) => [messages, clean, superseded, rejected];
  assert.deepEqual(
    [sums(before), sums(after)],
    [
      [10, 5, 1, 4],
      [10, 5, 1, 4],
    ],
  );
  const text = ok(await run(args)).stdout;
  for (const line of [
    /^ {2}user +5 +1 +1 +3 +4 +0$/m,
    /^ {2}user +date_joined +TIMESTAMP WITH TIME ZONE +\(none\)$/m,
    /^ {2}user +bad_age +\(clean\) +2 +age: old$/m,
    /^ {2}user +age +2$/m,
    /^ {2}user 70007, age\n {4}- 121\n {4}\+ 30$/m,
  ]) {
    assert.match(text, line);
  }
  assert.deepEqual(await hashes(lake), files);
  assert.match(ok(await run(args.filter((arg) => arg !== "--sql" && arg !== rules))).stdout, /^Nothing changes$/m);
});

test("what a preview counts is what the rebuild then changes", async () => {
  const lake = join(folder.path, "hostile");
  const edited = join(folder.path, "rules-geo");
  await mkdir(edited);
  const sql = readSql("clean_geo.sql")
    .replaceAll("-90 AND 90", "-20 AND 20")
    .replace("trim_text(f.country)", "f.country");
  await writeFile(join(edited, "clean_geo.sql"), sql);
  const hostile = hostileMessages("geo", 3_000, 7).filter((message) => !leftOpen("geo", message));
  await makeLake(lake, { geo: hostile }, { perFile: 400 });
  const read = async () => ({ rows: await readSilver(lake, "geo"), rejects: await readRejects(lake, "geo") });
  const old = await read();
  try {
    useSqlFolder(edited);
    const found = (await previewRebuild(settings(lake))).find(({ table }) => table === "geo") as TableDifference;
    const { ledger } = await rebuild(settings(lake));
    const now = await read();
    assert.deepEqual(found.after, ledger[1]);
    assert.deepEqual([found.before.clean, found.before.rejected], [old.rows.length, old.rejects.length]);
    const byInd = (rows: Record<string, unknown>[]) => new Map(rows.map((row) => [row.ind, row]));
    const [before, after] = [byInd(old.rows), byInd(now.rows)];
    const differs =
      (column: string) =>
      ([ind, row]: [unknown, Record<string, unknown>]) =>
        before.has(ind) && !isDeepStrictEqual(before.get(ind)?.[column], row[column]);
    const columns = ["country", "coordinates", "timestamp"];
    const rows = {
      added: [...after.keys()].filter((ind) => !before.has(ind)).length,
      removed: [...before.keys()].filter((ind) => !after.has(ind)).length,
      changed: [...after].filter((entry) => columns.some((column) => differs(column)(entry))).length,
    };
    assert.ok(rows.removed > 100 && rows.changed > 50, JSON.stringify(rows));
    assert.deepEqual(found.rows, rows);
    assert.deepEqual(
      found.values,
      columns
        .map((column) => ({ column, rows: [...after].filter(differs(column)).length }))
        .filter(({ rows }) => rows > 0),
    );
    const isNew = (reject: Record<string, unknown>) =>
      !old.rejects.some((r) => r._partition === reject._partition && r._offset === reject._offset);
    assert.equal(
      found.rejects.find(({ before, after }) => before === null && after === "bad_coordinates")?.messages,
      now.rejects.filter(isNew).length,
    );
    const again = (await previewRebuild(settings(lake))).find(({ table }) => table === "geo");
    assert.deepEqual([again?.rows, again?.rejects], [{ added: 0, removed: 0, changed: 0 }, []]);
  } finally {
    useSqlFolder(await noRules());
  }
});

test("messages that are landed but not cleaned are left out of a preview", async () => {
  const lake = join(folder.path, "landed");
  await makeLake(lake, { user: messages.slice(0, 4) }, { perFile: 4 });
  await landMessages(lake, { user: messages }, { perFile: 4 });
  const [found] = (await previewRebuild(settings(lake))).filter(({ table }) => table === "user");
  assert.deepEqual([found?.after.messages, found?.rows], [4, { added: 0, removed: 0, changed: 0 }]);
});

test("a preview refuses a lake that is being cleaned, that a stop left half done, or that is not there", async () => {
  const lake = join(folder.path, "busy", "lake");
  const preview = () => previewRebuild(settings(lake));
  await assert.rejects(preview(), /There is no lake in ".*" yet: run clean first/);
  assert.equal(existsSync(lake), false);
  await makeLake(lake, { user: messages.slice(0, 4) }, { perFile: 4 });
  await landMessages(lake, { user: messages }, { perFile: 4 });
  const stop = new AbortController();
  const onStep = (message: unknown) => {
    const { name, subject } = message as Step;
    if (name === "renamed" && subject.endsWith("silver/user/0001.parquet")) stop.abort(new Error("Stopped"));
  };
  steps.subscribe(onStep);
  await assert.rejects(cleanLanded({ ...settings(lake), signal: stop.signal }), /Stopped/);
  steps.unsubscribe(onStep);
  await assert.rejects(preview(), /was stopped halfway: run clean first/);
  await cleanLanded(settings(lake));
  await preview();
  const ready = join(paths(lake).tmp, "rebuild-ready");
  await mkdir(ready);
  await writeFile(join(ready, "plan.json"), "{}");
  await assert.rejects(preview(), /was stopped halfway: run clean first/);
  await rm(ready, { recursive: true });
  await using _lock = await lockLake(lake);
  // From another process: a process does not lock out itself.
  const { stderr } = ok(await run(["clean", "--rebuild", "--dry-run", "--data", dirname(lake)]), 1);
  assert.match(stderr, /^Error: Another clean of the lake in ".*" is running: process \d+/m);
});

/** A folder without SQL files, so that the program's are used. */
async function noRules(): Promise<string> {
  const path = join(folder.path, "no-rules");
  await mkdir(path, { recursive: true });
  return path;
}
