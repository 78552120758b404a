/**
 * Decompresses record batches of Kafka clients.
 *
 * A codec is loaded when the first batch needs it. The decompressed size is limited, because anyone may post a few
 * kilobytes that decompress to gigabytes.
 *
 * @see https://kafka.apache.org/documentation/#recordbatch
 * @module
 */
import { createRequire } from "node:module";
import { gunzipSync } from "node:zlib";

// For native modules, which the bundled scripts of threads cannot contain.
const require = createRequire(import.meta.url);

/** The largest decompressed size of a batch, bytes. */
const maxUnpacked = 1 << 29;

type Unpack = (bytes: Buffer, maxBytes: number) => Promise<Buffer>;

/** By their number in a batch's attributes. */
const codecs: Record<number, { name: string; unpack: Unpack }> = {
  1: { name: "gzip", unpack: async (bytes, maxBytes) => gunzipSync(bytes, { maxOutputLength: maxBytes }) },
  2: { name: "snappy", unpack: unpackSnappy },
  3: { name: "lz4", unpack: unpackLz4 },
  4: { name: "zstd", unpack: unpackZstd },
};

/**
 * Decompresses the records of a batch.
 *
 * @param codec its number in the batch's attributes
 * @param options.where names the batch in errors
 * @throws if the codec is unknown, or the records are damaged or larger than `maxBytes`
 */
export async function unpack(
  bytes: Buffer,
  codec: number,
  { where, maxBytes = maxUnpacked }: { where: string; maxBytes?: number },
): Promise<Buffer> {
  const known = codecs[codec];
  if (!known)
    throw new Error(`Cannot read ${where}: it is compressed with codec ${codec}, which Kafka does not define`);
  try {
    return await known.unpack(bytes, maxBytes);
  } catch (error) {
    const why = `is damaged or decompresses to more than ${maxBytes / 2 ** 20} MB (${(error as Error).message})`;
    const remedy = "make its producer send smaller batches or use another codec";
    throw new Error(`Cannot read ${where}: its record batch, compressed with ${known.name}, ${why}; ${remedy}`, {
      cause: error,
    });
  }
}

/** The magic of snappy-java, which Java's clients use and which writes blocks. Other clients send one block without it. */
const snappyJava = Buffer.from("\x82SNAPPY\0", "latin1");

async function unpackSnappy(bytes: Buffer, maxBytes: number): Promise<Buffer> {
  const { uncompressSync } = require("snappy") as typeof import("snappy");
  const blocks: Buffer[] = [];
  if (!bytes.subarray(0, snappyJava.length).equals(snappyJava)) blocks.push(bytes);
  else {
    // The magic is followed by two versions of four bytes each, then by blocks, each after its length.
    for (let p = snappyJava.length + 8; p < bytes.length; ) {
      const end = p + 4 + bytes.readUInt32BE(p);
      if (end > bytes.length) throw new Error("a block is cut off");
      blocks.push(bytes.subarray(p + 4, end));
      p = end;
    }
  }
  // Each block begins with its size as a varint.
  const sizeOf = (block: Buffer) => {
    let size = 0;
    for (let i = 0; i < 5; i++) {
      const byte = block[i] ?? 0;
      size += (byte & 127) * 128 ** i;
      if (byte < 128) break;
    }
    return size;
  };
  if (blocks.reduce((sum, block) => sum + sizeOf(block), 0) > maxBytes) throw new Error("it is too large");
  return Buffer.concat(blocks.map((block) => uncompressSync(block) as Buffer));
}

/** Flags of an LZ4 frame, in the byte after its magic. */
const lz4 = { magic: 0x184d2204, dictionary: 1, contentChecksum: 4, contentSize: 8, blockChecksum: 16 };

/** @see https://github.com/lz4/lz4/blob/dev/doc/lz4_Frame_format.md */
async function unpackLz4(bytes: Buffer, maxBytes: number): Promise<Buffer> {
  const { decompressFrameSync } = require("lz4-napi") as typeof import("lz4-napi");
  if (bytes.readUInt32LE(0) !== lz4.magic) throw new Error("it is not an LZ4 frame");
  const flags = bytes.readUInt8(4);
  const largestBlock = 4 ** ((bytes.readUInt8(5) >> 4) & 7) * 256;
  // The library has no size limit, so the blocks are counted first.
  let p = 7 + (flags & lz4.contentSize ? 8 : 0) + (flags & lz4.dictionary ? 4 : 0);
  for (let blocks = 0; ; blocks++) {
    const size = bytes.readUInt32LE(p) & 0x7fffffff;
    p += 4;
    if (size === 0) break;
    if ((blocks + 1) * largestBlock > maxBytes + largestBlock) throw new Error("it is too large");
    p += size + (flags & lz4.blockChecksum ? 4 : 0);
  }
  if (p + (flags & lz4.contentChecksum ? 4 : 0) !== bytes.length)
    throw new Error("there are bytes after its LZ4 frame");
  return decompressFrameSync(bytes);
}

async function unpackZstd(bytes: Buffer, maxBytes: number): Promise<Buffer> {
  const { ZSTDDecoder } = await import("zstddec");
  const decoder = new ZSTDDecoder();
  await decoder.init();
  // Java's clients do not write the size. The decoder returns nothing if the output does not fit or the input is damaged.
  const usual = Math.min(maxBytes, Math.max(1 << 20, 16 * bytes.length));
  for (const room of new Set([usual, maxBytes])) {
    const { buffer, byteOffset, length } = decoder.decode(bytes, room);
    if (length > 0) return Buffer.from(buffer, byteOffset, length);
  }
  throw new Error("the decoder returned nothing");
}
