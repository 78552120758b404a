/** Cleaning messages of megabytes: without services, but slow. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { makeLake, readRejects, readSilver } from "../support/lake_of.ts";
import { bigMessages } from "../support/messages.ts";
import { cleanTable } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { temporaryFolder } from "../support/support.ts";

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
