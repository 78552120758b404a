/** Hostile messages: the cleaning SQL against an independent implementation of the spec. */
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { byTable, type Table, tableNames } from "../../io.ts";
import { report } from "../../report/report.ts";
import { makeLake, readDeletes, readRejects, readSilver } from "../support/lake_of.ts";
import { hostileMessages } from "../support/messages.ts";
import { answers, cleanTable, leftOpen, reasons } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const seed = Number(process.env.SEED ?? 1 + Math.floor(Math.random() * 1e6));
const hostile = byTable((table) =>
  hostileMessages(table, 4_000, seed).map((message) => ({ message, isOpen: leftOpen(table, message) })),
);
const messagesWith = (open: boolean) =>
  byTable((table) => hostile[table].flatMap(({ message, isOpen }) => (isOpen === open ? [message] : [])));

const byInd = <T extends { ind: bigint }>(rows: Map<bigint, T>): T[] =>
  [...rows.values()].sort((a, b) => (a.ind < b.ind ? -1 : 1));

test("thousands of hostile messages are cleaned as by an independent implementation of the spec, row for row", async (t) => {
  t.diagnostic(`repeat with SEED=${seed}`);
  const lake = `${folder.path}/hostile`;
  const messages = messagesWith(false);
  const { ledger } = await makeLake(lake, messages);
  const clean: Partial<Record<Table, Map<bigint, unknown>>> = {};
  const seen = new Set<string>();
  for (const table of tableNames) {
    const wanted = cleanTable(table, messages[table]);
    clean[table] = wanted.rows;
    sameList(await readSilver(lake, table), byInd(wanted.rows));
    const rejects = [...wanted.rejects].sort(
      (a, b) => a._partition - b._partition || Number(a._offset) - Number(b._offset),
    );
    const found = await readRejects(lake, table);
    sameList(
      found.map(({ table, _partition, _offset, posted, key, reason, raw }) => ({
        table,
        _partition,
        _offset,
        posted,
        key,
        reason,
        raw,
      })),
      rejects.map(({ _partition, _offset, _posted_at, key, reason, raw }) => ({
        ...{ table, _partition, _offset: Number(_offset), posted: _posted_at, key, reason, raw },
      })),
    );
    for (const { reason } of rejects) seen.add(reason);
    const row = ledger.find((r) => r.table === table);
    assert.equal(row?.messages, messages[table].length);
    assert.equal(row?.superseded, wanted.superseded);
    sameList(await readDeletes(lake, table), byInd(wanted.deletes));
    assert.ok(wanted.deletes.size > 100);
    assert.equal(row?.deleted, wanted.deletes.size);
  }
  assert.deepEqual([...seen].sort(), [...reasons].filter((reason) => reason !== "too_big").sort());

  const { answers: found } = await report({ lake, signal: new AbortController().signal });
  const rows = <T>(table: Table) => (clean[table] as Map<bigint, T>).values();
  const wanted = answers(rows("pin"), rows("geo"), rows("user"));
  for (const [name, answer] of Object.entries(wanted)) {
    const plain = answer.map((row) => Object.values(row).map((v) => (typeof v === "bigint" ? String(v) : v)));
    const got = found[name]?.rows.map((row, i) =>
      row.map((v, j) => (typeof v === "number" && typeof plain[i]?.[j] === "string" ? String(v) : v)),
    );
    sameList(got ?? [], plain, name);
  }
});

test("messages that the spec leaves open are cleaned or rejected, and each is counted once", async (t) => {
  t.diagnostic(`repeat with SEED=${seed}`);
  const messages = messagesWith(true);
  const { ledger } = await makeLake(`${folder.path}/open`, messages);
  for (const row of ledger) {
    assert.ok(row.messages > 50);
    assert.equal(row.messages, messages[row.table].length);
    assert.equal(row.clean + row.superseded + row.deleted + row.rejected, row.messages);
  }
});

test("the size of batches does not change the result", async () => {
  const messages = { geo: hostileMessages("geo", 1_500, 11).filter((m) => !leftOpen("geo", m)) };
  const [one, many] = [`${folder.path}/one`, `${folder.path}/many`];
  const a = await makeLake(one, messages, { perFile: 10_000 });
  const b = await makeLake(many, messages, { perFile: 7 });
  sameList(await readSilver(many, "geo"), await readSilver(one, "geo"));
  sameList(await readDeletes(many, "geo"), await readDeletes(one, "geo"));
  sameList(await readRejects(many, "geo"), await readRejects(one, "geo"));
  assert.deepEqual(b.ledger, a.ledger);
});
