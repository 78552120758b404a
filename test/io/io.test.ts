import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createRequire } from "node:module";
import { test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { gzipSync } from "node:zlib";
import { bronzeLines } from "../../io/bronze_lines.ts";
import { decodeRecords, encodeMessages, keyBytes, valueBytes } from "../../io/record_batch.ts";
import { rowToJson, tableNames, tables } from "../../io.ts";
import { isTransientKafka } from "../../kafka/errors.ts";
import { acknowledgedOffsets } from "../../kafka/producer.ts";
import { partitionOf } from "../../kafka/topics.ts";
import { isAlive } from "../../runtime/process.ts";
import { retry } from "../../runtime/retry.ts";
import { viewOf } from "../support/lake_of.ts";
import { sources } from "../support/sources.ts";

test("each table has a separate checkpoint partition, and the first three keep theirs", () => {
  const partitions = new Set(tableNames.map((table) => tables[table].checkpointPartition));
  assert.equal(partitions.size, tableNames.length);
  const [pin, geo, user] = [tables.pin, tables.geo, tables.user].map((table) => table.checkpointPartition);
  assert.deepEqual([pin, geo, user], [0, 1, 2]);
});

test("rowToJson() writes text as JSON.stringify does, and numbers with MySQL's digits", () => {
  const columns = [
    { name: "ind", kind: "int" },
    { name: 'odd "name"', kind: "text" },
    { name: "latitude", kind: "float" },
    { name: "timestamp", kind: "datetime" },
  ] as const;
  const hostile = 'é"\\\n\t\u0000\u2028😀\ud800';
  assert.equal(
    rowToJson(columns, ["9223372036854775807", hostile, "1e-7", "2018-01-02 03:04:05"]),
    `{"ind":9223372036854775807,"odd \\"name\\"":${JSON.stringify(hostile)},"latitude":1e-7,"timestamp":"2018-01-02 03:04:05"}`,
  );
  assert.equal(
    rowToJson(columns, ["7", null, null, null]),
    '{"ind":7,"odd \\"name\\"":null,"latitude":null,"timestamp":null}',
  );
});

test("rowToJson() removes the padding of ZEROFILL, which JSON does not allow", () => {
  const columns = [{ name: "n", kind: "int" }] as const;
  for (const [text, json] of [
    ["0007", "7"],
    ["0", "0"],
    ["000", "0"],
    ["-0.5", "-0.5"],
    ["0.5", "0.5"],
    ["00.50", "0.50"],
  ]) {
    assert.equal(rowToJson(columns, [text as string]), `{"n":${json}}`);
  }
});

test("bronzeLines() writes a message in one line and keeps every byte", () => {
  const values = [
    Buffer.from('{"a":"é😀"}'),
    Buffer.from(""),
    null,
    Buffer.from("a\tb"),
    Buffer.from("a\r\nb"),
    Buffer.from([0xff, 0xfe, 0]),
    Buffer.from([0xff, 0x41]),
    Buffer.from("é\t"),
    Buffer.from("nul\0"),
    Buffer.from('quote " backslash \\ # '),
    Buffer.from("\ufeff{}"),
    Buffer.alloc(300_000, "x"),
  ];
  const lines = bronzeLines();
  const offsets = values.map((_, i) => [i, 9, 10, 999_999_999, 999_999_999_999_999, 2 ** 53 - 1][i % 6] as number);
  for (const [i, value] of values.entries()) {
    const message = {
      partition: 3,
      offset: offsets[i] as number,
      postedAt: i - 1,
      key: value?.subarray(0, 9) ?? null,
      value,
    };
    lines.add(3, viewOf(message));
  }
  const text = lines.take().toString("latin1").split("\n");
  assert.equal(text.pop(), "");
  assert.equal(text.length, values.length);
  const read = (kind: string, field: string) =>
    kind === "n" ? null : Buffer.from(field, kind === "t" ? "latin1" : "base64");
  for (const [i, value] of values.entries()) {
    const [partition, offset, time, keyIs, key, valueIs, field, ...rest] = (text[i] as string).split("\t");
    assert.deepEqual([partition, offset, time, rest.length], ["3", String(offsets[i]), String(i - 1), 0]);
    assert.deepEqual(read(valueIs as string, field as string), value);
    assert.deepEqual(read(keyIs as string, key as string), value?.subarray(0, 9) ?? null);
  }
  assert.equal(lines.take().length, 0);
});

test("bronzeLines() finds the byte that is not plain at every position, and none outside the message", () => {
  const kindOf = (bytes: Buffer, start: number, end: number) => {
    const lines = bronzeLines();
    const whole = { offset: 1, timestamp: 1, keyStart: -1, keyEnd: -1, valueStart: start, valueEnd: end };
    lines.add(0, { ...whole, bytes });
    return lines.take().toString("latin1").split("\t")[5];
  };
  const kinds = { 0: "b", 8: "t", 9: "u", 10: "u", 13: "u", 14: "t", 31: "t", 127: "t", 128: "b", 255: "b" };
  for (const [byte, kind] of Object.entries(kinds)) {
    for (let length = 1; length <= 40; length++) {
      for (let at = 0; at < length; at++) {
        const bytes = Buffer.alloc(length + 20, "\t\xff", "latin1").fill("x", 3, 3 + length);
        bytes[3 + at] = Number(byte);
        assert.equal(kindOf(bytes, 3, 3 + length), kind, `byte ${byte} at ${at} of ${length}`);
      }
    }
  }
  const large = Buffer.alloc(3_000_000, "x");
  assert.equal(kindOf(large, 7, large.length), "t");
  for (const at of [7, 1_000_006, 1_000_007, 2_000_007, 2_999_999]) {
    const bytes = Buffer.from(large);
    bytes[at] = 9;
    assert.equal(kindOf(bytes, 7, bytes.length), "u", `a tab at ${at}`);
  }
});

test("partitionOf() chooses the partition that Java's clients choose", () => {
  // Known values of org.apache.kafka.common.utils.Utils.murmur2.
  assert.equal(partitionOf("21", 1000), (-973932308 & 0x7fffffff) % 1000);
  assert.equal(partitionOf("foobar", 1000), (-790332482 & 0x7fffffff) % 1000);
  assert.equal(partitionOf("anything", 1), 0);
});

// A record batch built by hand after the documentation of the protocol.
function batch(base: number, records: [string | null, string | null][], { attributes = 0, producerId = -1n } = {}) {
  const varint = (n: number) => {
    let zigzag = n < 0 ? -2 * n - 1 : 2 * n;
    const bytes = [];
    for (; zigzag > 127; zigzag = Math.floor(zigzag / 128)) bytes.push((zigzag % 128) + 128);
    return Buffer.from([...bytes, zigzag]);
  };
  const field = (text: string | null) =>
    text === null ? varint(-1) : Buffer.concat([varint(Buffer.byteLength(text)), Buffer.from(text)]);
  const body = Buffer.concat(
    records.map(([key, value], i) => {
      const record = Buffer.concat([Buffer.from([0]), varint(i), varint(i), field(key), field(value), varint(0)]);
      return Buffer.concat([varint(record.length), record]);
    }),
  );
  const packed = (attributes & 7) === 1 ? gzipSync(body) : body;
  const head = Buffer.alloc(61);
  head.writeBigInt64BE(BigInt(base), 0);
  head.writeInt32BE(49 + packed.length, 8);
  head.writeInt8(2, 16);
  head.writeInt16BE(attributes, 21);
  head.writeInt32BE(records.length - 1, 23);
  head.writeBigInt64BE(1000n, 27);
  head.writeBigInt64BE(2000n, 35);
  head.writeBigInt64BE(producerId, 43);
  head.writeInt32BE(records.length, 57);
  const bytes = Buffer.concat([head, packed]);
  bytes.writeUInt32BE(crc32c(bytes.subarray(21)), 17);
  return bytes;
}

// Castagnoli's CRC, bit by bit.
function crc32c(bytes: Buffer): number {
  let crc = 0xffffffff;
  for (const byte of bytes) {
    crc ^= byte;
    for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0x82f63b78 : crc >>> 1;
  }
  return (crc ^ 0xffffffff) >>> 0;
}

type Aborted = { producerId: bigint; first: number }[];

async function decode(bytes: Buffer, { from = 0, endOffset = 1e9, aborted = [] as Aborted } = {}) {
  const records: unknown[] = [];
  const next = await decodeRecords(bytes, {
    from,
    endOffset,
    aborted,
    where: "the test",
    onRecord: (record) =>
      records.push([
        record.offset,
        record.timestamp,
        keyBytes(record)?.toString() ?? null,
        valueBytes(record)?.toString() ?? null,
      ]),
  });
  return { records, next };
}

test("decodeRecords() gives offsets, times, keys and values, also compressed with gzip", async () => {
  const content: [string | null, string | null][] = [
    ["a", "1"],
    [null, "2"],
    ["c", null],
    ["d", "x".repeat(500)],
  ];
  for (const attributes of [0, 1]) {
    assert.deepEqual(await decode(batch(7, content, { attributes })), {
      records: content.map(([key, value], i) => [7 + i, 1000 + i, key, value]),
      next: 11,
    });
  }
  const appendTime = await decode(batch(7, content, { attributes: 8 }));
  assert.deepEqual(
    appendTime.records.map((record) => (record as number[])[1]),
    [2000, 2000, 2000, 2000],
  );
});

test("decodeRecords() skips records before `from`, and leaves batches that are incomplete or begin at `endOffset`", async () => {
  const two = Buffer.concat([
    batch(0, [
      ["a", "1"],
      ["b", "2"],
    ]),
    batch(2, [["c", "3"]]),
  ]);
  assert.deepEqual(
    (await decode(two, { from: 1 })).records.map((r) => (r as number[])[0]),
    [1, 2],
  );
  assert.equal((await decode(two.subarray(0, two.length - 1))).next, 2);
  assert.equal((await decode(two, { endOffset: 2 })).next, 2);
  assert.deepEqual(await decode(Buffer.alloc(0), { from: 5 }), { records: [], next: 5 });
});

test("decodeRecords() skips all records of aborted transactions and no others", async () => {
  const transactional = 0x10;
  const mark = (base: number, type: number, producerId: bigint) =>
    batch(base, [[`\u0000\u0000\u0000${String.fromCharCode(type)}`, "\0\0\0\0\0\0"]], { attributes: 0x30, producerId });
  const data = (base: number, text: string, producerId: bigint) =>
    batch(base, [["k", text]], { attributes: transactional, producerId });
  const log = Buffer.concat([
    data(0, "aborted", 5n),
    data(1, "kept", 6n),
    mark(2, 0, 5n),
    data(3, "kept", 5n),
    mark(4, 1, 5n),
    data(5, "aborted", 5n),
    mark(6, 0, 5n),
    mark(7, 1, 6n),
    // A data record with the key of a marker is not a control record.
    batch(8, [["\0\0\0\0", "kept"]]),
  ]);
  const { records, next } = await decode(log, {
    aborted: [
      { producerId: 5n, first: 5 },
      { producerId: 5n, first: 0 },
    ],
  });
  assert.deepEqual(
    records.map((r) => [(r as unknown[])[0], (r as unknown[])[3]]),
    [
      [1, "kept"],
      [3, "kept"],
      [8, "kept"],
    ],
  );
  assert.equal(next, 9);
});

test("decodeRecords() refuses a wrong checksum, an unknown codec and an old format", async () => {
  const damaged = batch(4, [["a", "1"]]);
  damaged[damaged.length - 2] = 0x7f;
  await assert.rejects(
    decode(damaged),
    /^Error: Cannot read offset 4 of the test: the checksum of its record batch is wrong$/,
  );
  await assert.rejects(
    decode(batch(4, [["a", "1"]], { attributes: 5 })),
    /^Error: Cannot read offset 4 of the test: it is compressed with codec 5, which Kafka does not define$/,
  );
  const old = batch(4, [["a", "1"]]);
  old.writeInt8(1, 16);
  await assert.rejects(decode(old), /message format 1 is from before Kafka 0\.11/);
});

test("decodeRecords() reads a batch of 200,000 records", async () => {
  const many = await decode(
    batch(
      0,
      Array.from({ length: 200_000 }, (_, i) => [String(i), "v"]),
    ),
  );
  assert.equal(many.records.length, 200_000);
  assert.equal(many.next, 200_000);
});

test("isTransientKafka() retries the UNKNOWN error of a broker, by the name that kafkajs gives it", () => {
  const { createErrorFromCode } = createRequire(import.meta.url)("kafkajs/src/protocol/error") as {
    createErrorFromCode(code: number): Error;
  };
  assert.ok(isTransientKafka(createErrorFromCode(-1)));
  assert.ok(!isTransientKafka(createErrorFromCode(29))); // TOPIC_AUTHORIZATION_FAILED
});

test("retry() measures its wait from the first error, so that time in which the program was frozen does not count", async () => {
  let tries = 0;
  const retrying = { waitMs: 400, signal: new AbortController().signal, isTransient: () => true, onWait: () => {} };
  const found = await retry(async () => {
    if (tries++ > 0) return "there";
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    throw new Error("late");
  }, retrying);
  assert.equal(found, "there");
  await assert.rejects(
    retry(() => Promise.reject(new Error("away")), retrying),
    /away/,
  );
});

test("retry() adds how long it waits, as a sentence after a question", async () => {
  const texts: string[] = [];
  const failing = (message: string) => {
    const action = async () => {
      await sleep(510);
      throw new Error(message);
    };
    const waiting = { waitMs: 2_000, signal: AbortSignal.timeout(900), isTransient: () => true };
    return retry(action, { ...waiting, onWait: (text) => texts.push(text) }).catch(() => {});
  };
  await Promise.all([failing("Kafka is away"), failing("Is it running?")]);
  assert.deepEqual(texts, ["Kafka is away; waiting up to 2 s for it", "Is it running? Waiting up to 2 s for it"]);
});

test("a process of any user is alive while it runs, and not after it has ended", async () => {
  assert.ok(isAlive(process.pid));
  assert.ok(isAlive(1));
  const child = spawn("true");
  await once(child, "exit");
  assert.ok(!isAlive(child.pid as number));
});

test("only runtime/process.ts reads /proc of a process, and local/processes.ts uses ps elsewhere", () => {
  const found = sources().filter(({ text }) => text.includes("/proc/$"));
  assert.deepEqual(
    found.map(({ path }) => path),
    ["runtime/process.ts"],
  );
});

test("acknowledgedOffsets() takes no send for done that a partition has not acknowledged", () => {
  const batch = (topic: string, partition: number) => ({
    topic,
    batch: encodeMessages(partition, [{ key: "1", value: "{}" }]),
  });
  const answered = new Map([["pin/0", 7]]);
  assert.deepEqual(acknowledgedOffsets([batch("pin", 0)], answered), [7]);
  for (const other of [batch("pin", 1), batch("geo", 0)]) {
    assert.throws(
      () => acknowledgedOffsets([batch("pin", 0), other], answered),
      (error: Error) => /did not acknowledge/.test(error.message) && isTransientKafka(error),
    );
  }
});
