/**
 * Compressed batches of real clients: `batches.json` has the batches that Kafka's Java client 4.2.1 and librdkafka 2.16.0
 * sent for the same 800 messages, as the broker returned them.
 */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { gzipSync } from "node:zlib";
import { compressFrameSync } from "lz4-napi";
import { compressSync } from "snappy";
import { unpack } from "../../io/codecs.ts";
import { decodeRecords, valueBytes } from "../../io/record_batch.ts";

const path = new URL("batches.json", import.meta.url);
const batches = Object.entries(JSON.parse(await readFile(path, "utf8")) as Record<string, string>).map(
  ([name, base64]) => ({ name, bytes: Buffer.from(base64, "base64") }),
);
/** Where the records and the attributes of a batch begin. The lowest bits of the attributes are the codec. */
const [head, attributes] = [61, 21];
const codecOf = (bytes: Buffer) => bytes.readInt16BE(attributes) & 7;

const sent = Array.from({ length: 800 }, (_, ind) =>
  JSON.stringify({ ind, timestamp: "2020-08-28 03:52:47", latitude: 1.5, longitude: 2.5, country: "Albania" }),
);

for (const { name, bytes } of batches) {
  test(`decodeRecords() reads what ${name} has compressed`, async () => {
    assert.equal(["", "gzip", "snappy", "lz4", "zstd"][codecOf(bytes)], name.split(" ")[1]);
    const found: (string | undefined)[] = [];
    const next = await decodeRecords(bytes, {
      ...{ from: 0, endOffset: 800, aborted: [], where: "here" },
      onRecord: (record) => void found.push(valueBytes(record)?.toString()),
    });
    assert.equal(next, 800);
    assert.deepEqual(found, sent);
  });

  test(`unpack() refuses what ${name} has compressed if it is too large or damaged`, async () => {
    const packed = bytes.subarray(head);
    const refused =
      /^Error: Cannot read offset 7: its record batch, compressed with \w+, is damaged or decompresses to more than/;
    const wants = (some: Buffer, maxBytes: number) => unpack(some, codecOf(bytes), { where: "offset 7", maxBytes });
    const whole = await wants(packed, 1 << 20);
    assert.ok(whole.length > 60_000);
    await assert.rejects(wants(packed, 10_000), refused);
    for (const length of [0, 3, 20, packed.length >> 1, packed.length - 5]) {
      await assert.rejects(wants(packed.subarray(0, length), 1 << 20), refused, `${length} bytes`);
    }
    // The codec still works afterwards.
    assert.ok((await wants(packed, 1 << 20)).equals(whole));
  });
}

test("unpack() reads batches of megabytes, in blocks of every size", async () => {
  const large = Buffer.from("one row after another\n".repeat(1_000_000));
  const options = { where: "here" };
  assert.ok((await unpack(gzipSync(large), 1, options)).equals(large));
  assert.ok((await unpack(compressSync(large), 2, options)).equals(large));
  for (const blockChecksums of [false, true]) {
    for (const contentChecksum of [false, true]) {
      const frame = compressFrameSync(large, { blockChecksums, contentChecksum });
      assert.ok((await unpack(frame, 3, options)).equals(large));
    }
  }
});

test("unpack() refuses a few bytes that claim to be gigabytes, before it allocates memory", async () => {
  const options = { where: "here" };
  const claim = Buffer.from([0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]); // 4 GB in snappy
  await assert.rejects(unpack(claim, 2, options), /it is too large/);
  const half = Buffer.concat([Buffer.of(0x80, 0x80, 0x80, 0x90, 0x01), Buffer.of(0)]); // 290 MB
  const length = Buffer.of(0, 0, 0, half.length);
  const blocks = Buffer.concat([Buffer.from("\x82SNAPPY\0", "latin1"), Buffer.alloc(8), length, half, length, half]);
  await assert.rejects(unpack(blocks, 2, options), /it is too large/);
  const frame = compressFrameSync(Buffer.alloc(1_000));
  await assert.rejects(unpack(Buffer.concat([frame, frame]), 3, options), /there are bytes after its LZ4 frame/);
});
