import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFile, mkdir } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { type Table, tableNames } from "../../io.ts";
import { lockLake } from "../../lake/owner.ts";
import { makeLake, readDeletes, readRejects, readSilver } from "../support/lake_of.ts";
import { cleanTable, type Message } from "../support/oracle.ts";
import { query, temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const micros = (iso: string) => BigInt(Date.parse(iso)) * 1000n;

// Each line: table, column, its value as JSON text, output column, and its expected value; "!reason" is a reject.
const rules: [Table, string, string, string, unknown][] = [
  ["pin", "title", '"No Title Data Available"', "title", null],
  ["pin", "title", '" No Title Data Available\\u200b"', "title", null],
  ["pin", "title", '"no title data available"', "title", "no title data available"],
  ["pin", "title", '"\\u00a0\\ufeff x\\u2003y \\u3000"', "title", "x\u2003y"],
  ["pin", "title", '"end…\\u00a0"', "title", "end…"],
  ["pin", "title", '" \\t\\n"', "title", null],
  ["pin", "title", "12", "title", "12"],
  ["pin", "title", "true", "title", "true"],
  ["pin", "title", "null", "title", null],
  ["pin", "description", '"No description available Story format"', "description", null],
  ["pin", "description", '"No description available"', "description", null],
  ["pin", "description", '"No description available."', "description", "No description available."],
  ["pin", "poster_name", '"User Info Error"', "poster_name", null],
  ["pin", "follower_count", '"User Info Error"', "follower_count", null],
  ["pin", "follower_count", '"12k"', "follower_count", 12_000n],
  ["pin", "follower_count", '"1.2M"', "follower_count", 1_200_000n],
  ["pin", "follower_count", '"1,234"', "follower_count", 1234n],
  ["pin", "follower_count", '"0.5K"', "follower_count", 500n],
  ["pin", "follower_count", '"2B"', "follower_count", 2_000_000_000n],
  ["pin", "follower_count", "1234", "follower_count", 1234n],
  ["pin", "follower_count", '"9223372036854775807"', "follower_count", 9223372036854775807n],
  ["pin", "follower_count", '"9223372036854775808"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"1.2345k"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"1.2340k"', "follower_count", 1234n],
  ["pin", "follower_count", '"1.2"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"1,23"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"-1"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"+1k"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"12 k"', "follower_count", "!bad_follower_count"],
  ["pin", "follower_count", '"many"', "follower_count", "!bad_follower_count"],
  ["pin", "tag_list", '"N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e"', "tag_list", null],
  ["pin", "tag_list", '" a ,b,, \\u00a0,b,c\\u200b"', "tag_list", ["a", "b", "b", "c"]],
  ["pin", "tag_list", '" , "', "tag_list", null],
  ["pin", "image_src", '"Image src error."', "image_src", null],
  ["pin", "save_location", '"Local save in /data/art "', "save_location", "/data/art"],
  ["pin", "save_location", '"/data/art"', "save_location", "/data/art"],
  ["pin", "save_location", '"Local save in "', "save_location", "Local save in"],
  ["pin", "downloaded", "undefined", "ind", 7n],
  ["pin", "category", "undefined", "ind", "!missing_column"],
  ["pin", "index", "undefined", "ind", "!missing_column"],
  ["pin", "index", '"007"', "ind", 7n],
  ["pin", "index", "-1", "ind", "!bad_key"],
  ["pin", "index", "7.0", "ind", "!bad_key"],
  ["pin", "index", "null", "ind", "!bad_key"],
  ["pin", "index", "9223372036854775807", "ind", 9223372036854775807n],
  ["pin", "index", "9223372036854775808", "ind", "!bad_key"],
  ["geo", "latitude", "90", "coordinates", [90, 1e-7]],
  ["geo", "latitude", "90.001", "coordinates", "!bad_coordinates"],
  ["geo", "latitude", '"-12.5"', "coordinates", [-12.5, 1e-7]],
  ["geo", "latitude", "null", "coordinates", "!bad_coordinates"],
  ["geo", "latitude", '"north"', "coordinates", "!bad_coordinates"],
  ["geo", "latitude", "true", "coordinates", "!bad_coordinates"],
  ["geo", "longitude", "-180", "coordinates", [-89.9787, -180]],
  ["geo", "longitude", "180.5", "coordinates", "!bad_coordinates"],
  ["geo", "country", '" Aruba "', "country", "Aruba"],
  ["geo", "timestamp", '"2018-01-02T03:04:05.123456Z"', "timestamp", micros("2018-01-02T03:04:05Z") + 123_456n],
  ["geo", "timestamp", '"2020-02-29 00:00:00"', "timestamp", micros("2020-02-29T00:00:00Z")],
  ["geo", "timestamp", '"2018-02-30 00:00:00"', "timestamp", "!bad_timestamp"],
  ["geo", "timestamp", '"2018-01-02 24:00:00"', "timestamp", "!bad_timestamp"],
  ["geo", "timestamp", '"2018-01-02 23:59:60"', "timestamp", "!bad_timestamp"],
  ["geo", "timestamp", '"2018-01-02"', "timestamp", "!bad_timestamp"],
  ["geo", "timestamp", '"2018-01-02 03:04:05+01:00"', "timestamp", "!bad_timestamp"],
  ["geo", "timestamp", "null", "timestamp", null],
  ["user", "first_name", '" Ann\\u00a0"', "user_name", "Ann Lee"],
  ["user", "first_name", "null", "user_name", "Lee"],
  ["user", "last_name", '" "', "user_name", "Ann"],
  ["user", "age", '"21"', "age", 21],
  ["user", "age", "130", "age", 130],
  ["user", "age", "131", "age", "!bad_age"],
  ["user", "age", "-1", "age", "!bad_age"],
  ["user", "age", "21.5", "age", "!bad_age"],
  ["user", "age", "null", "age", null],
  ["user", "date_joined", '"2016-13-01 00:00:00"', "date_joined", "!bad_timestamp"],
];

// Whole messages, byte for byte.
const wholes: [Buffer | null, string][] = [
  [null, "empty_message"],
  [Buffer.from(""), "empty_message"],
  [Buffer.from(" \n\u200b\u00a0"), "empty_message"],
  [Buffer.from('{"ind":7'), "not_json"],
  [Buffer.from("{'ind':7}"), "not_json"],
  [Buffer.from('{"a":"\u0001"}'), "not_json"],
  [Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d]), "not_json"],
  [Buffer.from('{"a":1} x'), "not_json"],
  [Buffer.from("[1]"), "not_an_object"],
  [Buffer.from('"text"'), "not_an_object"],
  [Buffer.from("7"), "not_an_object"],
  [Buffer.from("{}"), "missing_column"],
];

test("every rule of the cleaning table, with good and bad values, and the raw message of each reject", async () => {
  const messages: Record<Table, Message[]> = { pin: [], geo: [], user: [] };
  const expected: { table: Table; offset: number; column: string; value: unknown; raw: Buffer | null }[] = [];
  for (const [table, name, json, column, value] of rules) {
    const fields = Object.entries(validRow(table, 7)).map(([key, usual]) => [
      key,
      key === name ? json : JSON.stringify(usual),
    ]);
    const text = `{${fields.flatMap(([key, field]) => (field === "undefined" ? [] : [`"${key}":${field}`])).join(",")}}`;
    // Rows with one ind supersede each other, so each gets another ind, unless ind is tested; silver is read by offset.
    const offset = messages[table].length;
    const raw = Buffer.from(column === "ind" ? text : text.replace(/"(index|ind)":7/, `"$1":${1000 + offset}`));
    messages[table].push({ partition: 0, offset, postedAt: 1_700_000_000_000, key: Buffer.from("k"), value: raw });
    expected.push({ table, offset, column, value, raw });
  }
  for (const [value, reason] of wholes) {
    for (const table of tableNames) {
      const offset = messages[table].length;
      messages[table].push({ partition: 0, offset, postedAt: null, key: null, value });
      expected.push({ table, offset, column: "", value: `!${reason}`, raw: value });
    }
  }
  const lake = `${folder.path}/rules`;
  const byTable = await Promise.all(tableNames.map(async (table) => [table, messages[table]] as const));
  await makeLake(lake, Object.fromEntries(byTable));
  for (const table of tableNames) {
    const rows = new Map((await readSilver(lake, table)).map((row) => [Number(row._offset), row]));
    const rejects = new Map((await readRejects(lake, table)).map((row) => [row._offset, row]));
    for (const { offset, column, value, raw } of expected.filter((e) => e.table === table)) {
      const what = `${table} ${raw?.toString().slice(0, 300)}`;
      if (typeof value === "string" && value.startsWith("!")) {
        const reject = rejects.get(offset);
        assert.equal(reject?.reason, value.slice(1), what);
        assert.deepEqual(reject?.raw, raw, what);
        assert.equal(reject?.table, table);
        assert.ok(String(reject?.detail ?? "").length <= 200);
      } else if (column !== "ind") {
        assert.deepEqual(rows.get(offset)?.[column], value, what);
      } else {
        // Rows with the same ind supersede each other; none is rejected.
        assert.ok(!rejects.has(offset), what);
        assert.ok(
          [...rows.values()].some((row) => row.ind === value),
          what,
        );
      }
    }
  }
});

test("message keys and rejects do not change which block a row is in", async () => {
  const number = (n: number) => Buffer.from(String(n));
  // Files with the keys of one block and rows of it, of others or of none, and files with the keys of several blocks.
  const kinds: ((n: number) => { key: Buffer | null; value: Buffer | null })[] = [
    (n) => ({ key: number(n), value: Buffer.from(JSON.stringify(validRow("geo", n))) }),
    (n) => ({ key: number(5), value: Buffer.from(JSON.stringify(validRow("geo", (n % 1000) * 97))) }),
    (n) => ({
      key: number(n * 97),
      value: Buffer.from(JSON.stringify(validRow("geo", n % 3 ? (n % 1000) * 97 : 2 ** 40 + n))),
    }),
    (n) => ({ key: number(n), value: n % 2 ? null : Buffer.from("no JSON") }),
    (n) => ({ key: null, value: Buffer.from(JSON.stringify(validRow("geo", 7, { ind: n % 7 ? n + 60_000 : "x" }))) }),
  ];
  const messages: Message[] = [];
  for (let offset = 0; offset < 20_000; offset++) {
    const kind = kinds[Math.floor(offset / 1000) % kinds.length] as (typeof kinds)[number];
    messages.push({ ...{ partition: 0, offset, postedAt: 1_000 + offset }, ...kind(offset) });
  }
  const wanted = cleanTable("geo", messages);
  for (const perFile of [1000, 3000]) {
    const lake = `${folder.path}/keys${perFile}`;
    const { ledger } = await makeLake(lake, { geo: messages }, { perFile });
    assert.deepEqual(
      await readSilver(lake, "geo"),
      [...wanted.rows.values()].sort((a, b) => (a.ind < b.ind ? -1 : 1)),
    );
    assert.deepEqual(
      await readDeletes(lake, "geo"),
      [...wanted.deletes.values()].sort((a, b) => (a.ind < b.ind ? -1 : 1)),
    );
    assert.deepEqual(
      (await readRejects(lake, "geo")).map(({ _offset, reason }) => [_offset, reason]),
      wanted.rejects.map(({ _offset, reason }) => [Number(_offset), reason]),
    );
    assert.deepEqual([ledger[1]?.superseded, ledger[1]?.deleted], [wanted.superseded, wanted.deletes.size]);
  }
});

test("silver has the columns of the contract, in order", async () => {
  const lake = `${folder.path}/columns`;
  const columns = async (table: Table) => {
    const rows = await query(`DESCRIBE FROM read_parquet('${lake}/silver/${table}/*.parquet')`);
    return rows.map(({ column_name: name, column_type: type }) => `${name} ${type}`).join(", ");
  };
  const message = (table: Table) => ({
    ...{ partition: 0, offset: 0, postedAt: 1_700_000_000_000, key: null },
    value: Buffer.from(JSON.stringify(validRow(table, 7))),
  });
  await makeLake(lake, { pin: [message("pin")], geo: [message("geo")], user: [message("user")] });
  const source = "_partition INTEGER, _offset BIGINT, _posted_at TIMESTAMP WITH TIME ZONE";
  assert.equal(
    await columns("pin"),
    `ind BIGINT, unique_id VARCHAR, title VARCHAR, description VARCHAR, follower_count BIGINT, poster_name VARCHAR, tag_list VARCHAR[], is_image_or_video VARCHAR, image_src VARCHAR, save_location VARCHAR, category VARCHAR, ${source}`,
  );
  assert.equal(
    await columns("geo"),
    `ind BIGINT, country VARCHAR, coordinates DOUBLE[], timestamp TIMESTAMP WITH TIME ZONE, ${source}`,
  );
  assert.equal(
    await columns("user"),
    `ind BIGINT, user_name VARCHAR, age INTEGER, date_joined TIMESTAMP WITH TIME ZONE, ${source}`,
  );
});

test("a full disk while the lake is locked is reported, and the lock is free once there is room", async (t) => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return t.skip("only root can mount a small disk");
  const disk = join(folder.path, "small");
  const lake = join(disk, "lake");
  await mkdir(disk);
  // Room for nothing, for the first page of the lock, and for all but the name of its holder.
  for (const room of [0, 4_096, 12_288]) {
    execFileSync("mount", ["-t", "tmpfs", "-o", "size=64k", "tmpfs", disk]);
    try {
      await mkdir(lake);
      const filled = join(disk, "filled");
      await appendFile(filled, Buffer.alloc(65_536 - room)).catch(() => {});
      await assert.rejects(lockLake(lake), /^Error: The disk that holds ".*lake" is full \(.*\): make room there/);
      execFileSync("rm", [filled]);
      await (await lockLake(lake))[Symbol.asyncDispose]();
    } finally {
      execFileSync("umount", [disk]);
    }
  }
});
