/** Cleaning messages of megabytes: without services, but slow. */
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { after, before, test } from "node:test";
import { paths } from "../../lake/files.ts";
import { makeLake, readRejects, readSilver } from "../support/lake_of.ts";
import { bigMessages } from "../support/messages.ts";
import { cleanTable } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { query, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

test("messages around 16 MB are read, and over it rejected as too_big", async () => {
  const lake = `${folder.path}/big`;
  const messages = bigMessages("geo");
  await makeLake(lake, { geo: messages });
  const wanted = cleanTable("geo", messages);
  sameList(await readSilver(lake, "geo"), [...wanted.rows.values()]);
  assert.deepEqual(
    (await readRejects(lake, "geo")).map(({ _offset, reason, raw }) => [_offset, reason, (raw as Buffer).length]),
    wanted.rejects.map(({ _offset, reason, raw }) => [Number(_offset), reason, raw?.length]),
  );
});

test("messages that need far more memory parsed than as text are cleaned in pieces", async () => {
  const lake = `${folder.path}/dense`;
  const value = Buffer.from(
    `{"ind":1,"timestamp":null,"latitude":null,"longitude":null,"country":"x","more":${"[".repeat(2_000_000)}1${"]".repeat(2_000_000)}}`,
  );
  const messages = Array.from({ length: 30 }, (_, offset) => ({ partition: 0, offset, postedAt: 1, key: null, value }));
  const { ledger } = await makeLake(lake, { geo: messages });
  assert.deepEqual(ledger[1], {
    table: "geo",
    messages: 30,
    clean: 1,
    superseded: 29,
    deleted: 0,
    rejected: 0,
    reasons: {},
  });
});

test("rejects of 90 and 100 MB are cleaned one by one, and none is written again with the next", async () => {
  const lake = `${folder.path}/rejects`;
  // Made when needed, and each of another letter: Parquet would store equal ones once.
  const messages = Array.from("abcdef", (letter, offset) => ({
    ...{ partition: 0, offset, postedAt: 1, key: null },
    get value() {
      return Buffer.alloc(offset < 2 ? 90_000_000 : 100_000_000, letter);
    },
  }));
  const { ledger } = await makeLake(lake, { geo: messages });
  assert.deepEqual([ledger[1]?.rejected, ledger[1]?.reasons], [6, { too_big: 6 }]);
  const files = await query(
    `SELECT count(*)::INT AS rows FROM read_parquet('${paths(lake).rejects}/*.parquet') WHERE "table" = 'geo' GROUP BY filename`,
  );
  assert.deepEqual(files, Array(6).fill({ rows: 1 }));
});

test("a key block with more text than fits into memory takes new and updated rows", async () => {
  const lake = `${folder.path}/wide`;
  const text = "wide text ".repeat(6_000);
  const wide = (offset: number, ind: number, at: string) => ({
    ...{ partition: 0, offset, postedAt: 1, key: Buffer.from(String(ind)) },
    /** Made when needed, because all of them are 900 MB; different, because Parquet would store equal ones once. */
    get value() {
      const row = { ind, timestamp: at, latitude: 1, longitude: 2, country: `${String(ind).padStart(5, "0")}${text}` };
      return Buffer.from(JSON.stringify(row));
    },
  });
  const rows = 15_000;
  const messages = Array.from({ length: rows + 100 }, (_, i) =>
    i < rows ? wide(i, i, "2020-01-01 00:00:00") : wide(i, 150 * (i - rows), "2021-01-01 00:00:00"),
  );
  const { ledger } = await makeLake(lake, { geo: messages });
  assert.deepEqual([ledger[1]?.clean, ledger[1]?.superseded, ledger[1]?.rejected], [rows, 100, 0]);
  const [found] = await query(
    `SELECT count(DISTINCT ind) AS rows, count(*) FILTER (year(timestamp) = 2021 AND ind % 150 = 0) AS updated,
      count(*) FILTER (length(country) <> 60004) AS other
      FROM read_parquet('${paths(lake).silver("geo")}/*.parquet', hive_partitioning = false)`,
  );
  assert.deepEqual(found && Object.values(found).map(Number), [rows, 100, 0]);
});

test("rows that need more memory than there is end clean with what to do", async () => {
  const value = (ind: number) => {
    const country = randomBytes(6_000_000).toString("base64");
    return Buffer.from(JSON.stringify({ ind, timestamp: null, latitude: 1, longitude: 2, country }));
  };
  const messages = Array.from({ length: 100 }, (_, offset) => ({
    ...{ partition: 0, offset, postedAt: 1, key: null },
    get value() {
      return value(offset);
    },
  }));
  await assert.rejects(
    makeLake(`${folder.path}/limit`, { geo: messages }),
    /Cannot clean "geo": its rows need more than the 800MB of memory/,
  );
});
