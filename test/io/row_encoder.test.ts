/** Encodes rows into record batches, compared byte for byte with JSON.stringify and the encoder of kafkajs. */
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import { test } from "node:test";
import {
  decodeRecords,
  encodeMessages,
  keyBytes,
  type RecordBatch,
  sealBatch,
  valueBytes,
} from "../../io/record_batch.ts";
import { rowEncoder } from "../../io/row_encoder.ts";
import { type ColumnKind, type Row, rowToJson } from "../../io.ts";
import { partitionOf } from "../../kafka/topics.ts";

const require = createRequire(import.meta.url);
const { RecordBatch: plainBatch } = require("kafkajs/src/protocol/recordBatch/v0") as {
  RecordBatch: (options: object) => Promise<{ buffer: Buffer }>;
};
const plainRecord = require("kafkajs/src/protocol/recordBatch/record/v0") as (options: object) => object;

/** A row in MySQL's text protocol, with other bytes before and after. */
function packet(row: Row): Buffer {
  const parts = row.map((text) => {
    if (text === null) return Buffer.of(0xfb);
    const bytes = Buffer.from(text);
    const { length } = bytes;
    const head = Buffer.alloc(length < 251 ? 1 : length < 65_536 ? 3 : length < 1 << 24 ? 4 : 9);
    if (head.length === 1) head[0] = length;
    else head[0] = head.length === 3 ? 0xfc : head.length === 4 ? 0xfd : 0xfe;
    if (head.length > 1) head.writeUIntLE(length, 1, Math.min(6, head.length - 1));
    return Buffer.concat([head, bytes]);
  });
  return Buffer.concat([Buffer.from("before"), ...parts, Buffer.from("after")]);
}

const columns: { name: string; kind: ColumnKind }[] = [
  { name: 'a "quoted" name é', kind: "text" },
  { name: "index", kind: "int" },
  { name: "number", kind: "float" },
  { name: "when", kind: "datetime" },
  { name: "text", kind: "text" },
];

/** A small generator of random numbers: the same rows for the same seed. */
function random(seed: number) {
  let state = seed;
  return (below: number) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return state % below;
  };
}

const alphabet = [
  "a",
  "Z",
  " ",
  '"',
  "\\",
  "\n",
  "\r",
  "\t",
  "\0",
  "\u0007",
  "\u001f",
  "\u007f",
  "é",
  "\u2028",
  "😀",
  "…",
  "\u00a0",
  "/",
];

/** Long texts to cut from: of one letter, plain, and (twice as often) mixed with escapes. */
function pools(pick: (below: number) => number): string[] {
  const mixed = Array.from({ length: 30_000 }, () => alphabet[pick(alphabet.length)]).join("");
  return ["a".repeat(30_000), Array.from({ length: 30_000 }, () => alphabet[pick(3)]).join(""), mixed, mixed];
}

function hostileRow(pick: (below: number) => number, texts: string[], key: number): Row {
  const text = () => {
    const length = [0, 1, 7, 8, 9, 31, 33, 62, 63, 64, 65, 250, 251, 4_090, 8_192][pick(15)] as number;
    const at = pick(20_000);
    const cut = (texts[pick(texts.length)] as string).slice(at, at + length);
    return cut.replace(/^[\udc00-\udfff]|[\ud800-\udbff]$/g, "/"); // no half of a surrogate pair
  };
  const maybe = (value: string) => (pick(6) === 0 ? null : value);
  const numbers = [
    "0",
    "-0",
    "007",
    "000",
    "0.50",
    "-89.9787",
    "1e-7",
    "18446744073709551615",
    "0000.5",
    "12345678901234567890.12",
  ];
  return [
    maybe(text()),
    String(key),
    maybe(numbers[pick(numbers.length)] as string),
    maybe("2019-01-01 00:00:00"),
    maybe(text()),
  ];
}

/** A row to post, or the key of a deleted one. */
type Posted = Row | { gone: string };

const keyOf = (posted: Posted) => ("gone" in posted ? posted.gone : (posted[1] as string));

type Message = { key: string | null; value: string | null };
type Owner = { producerId: bigint; producerEpoch: number; baseSequence: number };

/** What kafkajs makes of the same messages. */
async function plainMessages({ value: bytes, length }: RecordBatch, messages: Message[], owner: Owner) {
  const time = Number(bytes.readBigInt64BE(27));
  const asBytes = (text: string | null) => (text === null ? null : Buffer.from(text));
  const records = messages.map(({ key, value }, offsetDelta) =>
    plainRecord({ key: asBytes(key), value: asBytes(value), offsetDelta, timestampDelta: 0 }),
  );
  assert.equal(length, messages.length);
  const { producerId, producerEpoch, baseSequence: firstSequence } = owner;
  const batch = {
    records,
    firstTimestamp: time,
    maxTimestamp: time,
    lastOffsetDelta: messages.length - 1,
    transactional: true,
  };
  return (await plainBatch({ ...batch, compression: 0, producerId, producerEpoch, firstSequence })).buffer;
}

/** What kafkajs makes of the same rows and deletes. */
const plain = (batch: RecordBatch, rows: Posted[], owner: Owner) =>
  plainMessages(
    batch,
    rows.map((row) => ({ key: keyOf(row), value: "gone" in row ? null : rowToJson(columns, row) })),
    owner,
  );

test("encodeMessages() gives the bytes that kafkajs would, without key, without value, short and long", async () => {
  const texts = [null, "", "7", "é😀", "x".repeat(63), "y".repeat(64), "z".repeat(10_000)];
  const all = texts.flatMap((key) => texts.map((value) => ({ key, value })));
  for (const messages of [all, all.slice(0, 1), [...all, ...all, ...all]]) {
    const batch = encodeMessages(3, messages);
    const owner = { producerId: 4_000_000_007n, producerEpoch: 5, baseSequence: 2_147_483_600 };
    const bytes = sealBatch(batch, owner);
    const wanted = await plainMessages(batch, messages, owner);
    assert.deepEqual([bytes.length, bytes.findIndex((byte, i) => byte !== wanted[i])], [wanted.length, -1]);
    assert.deepEqual([batch.partition, batch.lastKey], [3, messages.at(-1)?.key ?? ""]);
  }
});

test("rows and deletes become the bytes that JSON.stringify and kafkajs would make of them, in one partition and in several", async (t) => {
  const seed = Number(process.env.SEED ?? Date.now() % 1_000_000);
  t.diagnostic(`repeat with SEED=${seed}`);
  const pick = random(seed);
  const texts = pools(pick);
  for (const partitions of [1, 3]) {
    for (const maxBytes of [2_000, 100_000]) {
      const encoder = rowEncoder({ columns, key: 1, partitions, partitionOf, maxBytes });
      for (let round = 0; round < 6; round++) {
        const rows = Array.from({ length: 400 }, (_, i): Posted => {
          const key = [i, -i, 70_000 + i][pick(3)] as number;
          return pick(4) === 0 ? { gone: String(key) } : hostileRow(pick, texts, key);
        });
        // Rows come in separate buffers, or all in one.
        const packets = rows.map((row) => ("gone" in row ? Buffer.alloc(0) : packet(row)));
        const all = round % 2 === 0 ? Buffer.concat(packets) : undefined;
        let start = "before".length;
        for (const [i, row] of rows.entries()) {
          const bytes = packets[i] as Buffer;
          if ("gone" in row) encoder.remove(row.gone);
          else encoder.add(all ?? bytes, all ? start : "before".length);
          start += bytes.length;
        }
        assert.equal(encoder.rows, rows.length);
        assert.equal(encoder.deleted, rows.filter((row) => "gone" in row).length);
        assert.equal(encoder.lastKey, keyOf(rows.at(-1) as Posted));
        const batches = encoder.take();
        const left = Array.from({ length: partitions }, (_, p) =>
          rows.filter((row) => partitionOf(keyOf(row), partitions) === p),
        );
        for (const batch of batches) {
          const ours = (left[batch.partition] as Posted[]).splice(0, batch.length);
          const owner = { producerId: 2n ** 40n + 7n, producerEpoch: pick(30_000), baseSequence: pick(2 ** 31) };
          const sealed = sealBatch(batch, owner);
          assert.ok(sealed.equals(await plain(batch, ours, owner)));
          assert.ok(sealed.length <= maxBytes || batch.length === 1);
          assert.equal(batch.lastKey, keyOf(ours.at(-1) as Posted));
        }
        assert.deepEqual(
          left,
          Array.from({ length: partitions }, () => []),
        );
        encoder.release(batches);
      }
    }
  }
});

test("a row of more than 16 MB is a separate batch, also if every byte of it is escaped", async () => {
  const encoder = rowEncoder({ columns, key: 1, partitions: 1, partitionOf, maxBytes: 1_000_000 });
  const rows: Row[] = [
    ["small", "1", null, null, null],
    ["\n".repeat(17_000_000), "2", "1", null, "\u0001"],
    ["x".repeat(17_000_000), "3", "1", null, "after"],
    ["small", "4", null, null, null],
  ];
  for (const row of rows) encoder.add(packet(row), "before".length);
  const found: [string | undefined, string | undefined][] = [];
  for (const batch of encoder.take()) {
    const bytes = sealBatch(batch, { producerId: 1n, producerEpoch: 0, baseSequence: 0 });
    await decodeRecords(bytes, {
      from: 0,
      endOffset: 10,
      aborted: [],
      where: "here",
      onRecord: (record) => void found.push([keyBytes(record)?.toString(), valueBytes(record)?.toString()]),
    });
  }
  assert.deepEqual(
    found,
    rows.map((row) => [row[1], rowToJson(columns, row)]),
  );
});

test("a table may have 1,000 columns with long names", () => {
  const wide = Array.from({ length: 1_000 }, (_, i) => ({
    name: `column ${i} é`.padEnd(60, "x"),
    kind: "text" as const,
  }));
  const encoder = rowEncoder({ columns: wide, key: 999, partitions: 1, partitionOf, maxBytes: 1_000_000 });
  const row: Row = wide.map((_, i) => (i % 7 === 0 ? null : String(i)));
  encoder.add(packet(row), "before".length);
  const [batch] = encoder.take();
  assert.ok(batch?.value.includes(rowToJson(wide, row)));
});

test("a batch is never empty, however small the largest message may be", () => {
  for (const maxBytes of [1, 60, 100, 130]) {
    const encoder = rowEncoder({ columns, key: 1, partitions: 1, partitionOf, maxBytes });
    for (const key of ["1", "2", "18446744073709551615"]) encoder.remove(key);
    for (const key of ["3", "4"]) encoder.add(packet(["text", key, null, null, null]), "before".length);
    encoder.remove("5");
    const batches = encoder.take();
    for (const { length, value } of batches) assert.ok(length === 1 || (length > 1 && value.length <= maxBytes));
    assert.equal(
      batches.reduce((sum, { length }) => sum + length, 0),
      6,
      `maxBytes ${maxBytes}`,
    );
    assert.equal(batches.at(-1)?.lastKey, "5");
  }
});
