/**
 * Kafka record batches (magic 2): the header of an encoded batch, and decoding.
 *
 * ```
 * batch   base offset 8 | length 4 | leader epoch 4 | magic 1 | CRC-32C 4 | attributes 2 | last offset delta 4 |
 *         first timestamp 8 | max timestamp 8 | producer id 8 | producer epoch 2 | base sequence 4 | records 4 | records
 * record  length | attributes 1 | timestamp delta | offset delta | key length | key | value length | value | headers
 * ```
 *
 * Integers inside a record are zigzag varints. The CRC covers everything after it.
 *
 * @see https://kafka.apache.org/documentation/#recordbatch
 *
 * @module
 */
import { createRequire } from "node:module";
import { unpack } from "./codecs.ts";

const require = createRequire(import.meta.url);

/** Loaded at first use: it is native, and most commands need no checksum. */
let native: typeof import("@node-rs/crc32") | undefined;
const crc32c = (bytes: Buffer): number => {
  native ??= require("@node-rs/crc32") as typeof import("@node-rs/crc32");
  return native.crc32c(bytes);
};

/** Free bytes before each batch for the header of the request, so that the batch is not copied. */
export const requestRoom = 1_024;
/** The positions of the fields in a batch. */
export const at = {
  ...{ length: 8, leaderEpoch: 12, magic: 16, crc: 17, attributes: 21, lastDelta: 23, firstTime: 27, maxTime: 35 },
  ...{ producerId: 43, producerEpoch: 51, sequence: 53, count: 57, records: 61 },
};
/** Bytes that the length field does not count: itself and those before it. */
const uncounted = 12;
/** Bits of the attributes; the lowest three are the codec. */
const bits = { codec: 7, appendTime: 8, transactional: 16, control: 32 };

/** Encoded records of one partition, without the fields that only the producer knows: {@link sealBatch} adds them. */
export interface RecordBatch {
  partition: number;
  /** The number of records. */
  length: number;
  /** The batch; {@link sealBatch} completes its header. */
  value: Buffer;
  /** The key of the last record. */
  lastKey: string;
}

/** A message as texts; null is an absent key or value. */
interface Message {
  key: string | null;
  value: string | null;
}

/** Encodes a few messages of one partition; rows are encoded by {@link rowEncoder}. */
export function encodeMessages(partition: number, messages: Message[]): RecordBatch {
  const fieldSize = (field: Buffer | null) => (field === null ? 1 : varintSize(field.length) + field.length);
  const records = messages.map(({ key, value }, delta) => {
    const fields = [key, value].map((text) => (text === null ? null : Buffer.from(text)));
    const size = fields.reduce((sum, field) => sum + fieldSize(field), 3 + varintSize(delta)); // attributes, time delta, headers
    return { delta, fields, size };
  });
  const bytes = records.reduce((sum, { size }) => sum + varintSize(size) + size, at.records);
  const buffer = Buffer.alloc(requestRoom + bytes);
  let o = requestRoom + at.records;
  for (const { delta, fields, size } of records) {
    o = writeVarint(buffer, o, size) + 2; // attributes, time delta
    o = writeVarint(buffer, o, delta);
    for (const field of fields) {
      if (field === null) {
        buffer[o++] = 1; // -1
      } else {
        o = writeVarint(buffer, o, field.length);
        o += field.copy(buffer, o);
      }
    }
    o++; // headers
  }
  const lastKey = messages.at(-1)?.key ?? "";
  return { partition, length: messages.length, value: buffer.subarray(requestRoom), lastKey };
}

/** Bytes of a whole number >= 0 as a zigzag varint. */
export const varintSize = (n: number): number =>
  n < 64 ? 1 : n < 8_192 ? 2 : n < 1_048_576 ? 3 : n < 134_217_728 ? 4 : 5;

/** Writes a whole number >= 0 as a zigzag varint; returns where it ends. */
export function writeVarint(buffer: Buffer, start: number, n: number): number {
  let o = start;
  let rest = n * 2;
  for (; rest > 127; rest = Math.floor(rest / 128)) buffer[o++] = (rest & 127) | 128;
  buffer[o++] = rest;
  return o;
}

/** The fields of a batch that the producer knows. */
interface BatchOwner {
  producerId: bigint;
  producerEpoch: number;
  baseSequence: number;
}

/** Writes the header of a transactional batch in place, and returns its bytes. */
export function sealBatch(
  { value: bytes, length }: RecordBatch,
  { producerId, producerEpoch, baseSequence }: BatchOwner,
) {
  const now = BigInt(Date.now());
  bytes.fill(0, 0, at.length); // the broker sets offset and leader epoch
  bytes.writeInt32BE(bytes.length - uncounted, at.length);
  bytes.writeInt32BE(0, at.leaderEpoch);
  bytes[at.magic] = 2;
  bytes.writeInt16BE(bits.transactional, at.attributes);
  bytes.writeInt32BE(length - 1, at.lastDelta);
  bytes.writeBigInt64BE(now, at.firstTime);
  bytes.writeBigInt64BE(now, at.maxTime);
  bytes.writeBigInt64BE(producerId, at.producerId);
  bytes.writeInt16BE(producerEpoch, at.producerEpoch);
  bytes.writeInt32BE(baseSequence, at.sequence);
  bytes.writeInt32BE(length, at.count);
  bytes.writeUInt32BE(crc32c(bytes.subarray(at.attributes)), at.crc);
  return bytes;
}

/** Options of {@link decodeRecords}. */
interface DecodeOptions {
  /** Records below this offset are skipped: the broker sends whole batches. */
  from: number;
  /** Batches that begin at or above this offset are not read. */
  endOffset: number;
  /** Aborted transactions, each with its first offset. */
  aborted: { producerId: bigint; first: number }[];
  /** The source, for errors. */
  where: string;
  onRecord: OnRecord;
  /** Called with the first and last offset of each batch of control records or aborted records. */
  onSkipped?: (first: number, last: number) => void;
}

/** One message in a larger buffer. */
export interface RecordView {
  offset: number;
  /** When it was posted, ms. */
  timestamp: number;
  bytes: Buffer;
  /** Where key and value are in `bytes`; start and end are -1 if there is none. */
  keyStart: number;
  keyEnd: number;
  valueStart: number;
  valueEnd: number;
}

/** Receives one message. The view is the same object each time: copy what you keep. */
type OnRecord = (record: RecordView) => void;

/** Copies of a view's key and value, null if there is none. */
export const keyBytes = ({ bytes, keyStart, keyEnd }: RecordView): Buffer | null =>
  keyStart < 0 ? null : Buffer.from(bytes.subarray(keyStart, keyEnd));
export const valueBytes = ({ bytes, valueStart, valueEnd }: RecordView): Buffer | null =>
  valueStart < 0 ? null : Buffer.from(bytes.subarray(valueStart, valueEnd));

/** Bytes of a message: its key and its value. */
export const messageBytes = ({ keyStart, keyEnd, valueStart, valueEnd }: RecordView): number =>
  keyEnd - keyStart + valueEnd - valueStart;

/**
 * Decodes record batches (magic 2) as the broker sent them. An incomplete last one is left for the next fetch. Skips the
 * records of an aborted transaction: those from its first offset to its abort marker.
 *
 * @returns the next offset to fetch
 * @see https://kafka.apache.org/documentation/#recordbatch
 */
export async function decodeRecords(bytes: Buffer, options: DecodeOptions): Promise<number> {
  const { from, endOffset, where, onRecord, onSkipped } = options;
  const aborted = [...options.aborted].sort((a, b) => a.first - b.first);
  const openAborted = new Set<bigint>();
  let next = from;
  for (let start = 0; start + uncounted <= bytes.length; ) {
    const size = uncounted + bytes.readInt32BE(start + at.length);
    const base = Number(bytes.readBigInt64BE(start));
    if (start + size > bytes.length || base >= endOffset) break;
    const batch = bytes.subarray(start, start + size);
    const magic = batch.readInt8(at.magic);
    if (magic !== 2) {
      throw new Error(`Cannot read offset ${base} of ${where}: message format ${magic} is from before Kafka 0.11`);
    }
    if (crc32c(batch.subarray(at.attributes)) !== batch.readUInt32BE(at.crc)) {
      throw new Error(`Cannot read offset ${base} of ${where}: the checksum of its record batch is wrong`);
    }
    const attributes = batch.readInt16BE(at.attributes);
    const last = base + batch.readInt32BE(at.lastDelta);
    const producerId = batch.readBigInt64BE(at.producerId);
    while (aborted[0] && aborted[0].first <= last)
      openAborted.add((aborted.shift() as { producerId: bigint }).producerId);
    if (attributes & bits.control) {
      // The key of the only record is version int16, type int16; type 0 is an abort. A record's first bytes are
      // length, attributes, time and offset deltas, key length: five varints of one byte each.
      if (batch.readInt16BE(at.records + 5 + 2) === 0) openAborted.delete(producerId);
      onSkipped?.(base, last);
    } else if (attributes & bits.transactional && openAborted.has(producerId)) {
      onSkipped?.(base, last);
    } else if (last >= from) {
      const codec = attributes & bits.codec;
      const packed = batch.subarray(at.records);
      const records = codec === 0 ? packed : await unpack(packed, codec, { where: `offset ${base} of ${where}` });
      const count = batch.readInt32BE(at.count);
      const firstTime = Number(batch.readBigInt64BE(at.firstTime));
      const appendTime = attributes & bits.appendTime ? Number(batch.readBigInt64BE(at.maxTime)) : undefined;
      decodeBatch(records, { count, base, from, firstTime, appendTime, onRecord });
    }
    next = Math.max(next, last + 1);
    start += size;
  }
  return next;
}

interface BatchHead {
  count: number;
  base: number;
  from: number;
  firstTime: number;
  appendTime: number | undefined;
  onRecord: OnRecord;
}

function decodeBatch(bytes: Buffer, { count, base, from, firstTime, appendTime, onRecord }: BatchHead): void {
  let p = 0;
  // Zigzag, seven bits a byte, lowest first. Multiplied instead of shifted, because it may exceed 32 bits.
  const varint = (): number => {
    let byte = bytes[p++] as number;
    if (byte < 128) return byte & 1 ? -((byte + 1) >> 1) : byte >> 1;
    let value = byte & 127;
    let scale = 128;
    do {
      byte = bytes[p++] as number;
      value += (byte & 127) * scale;
      scale *= 128;
    } while (byte > 127);
    return value % 2 === 0 ? value / 2 : -(value + 1) / 2;
  };
  const view: RecordView = { offset: 0, timestamp: 0, bytes, keyStart: 0, keyEnd: 0, valueStart: 0, valueEnd: 0 };
  for (let i = 0; i < count; i++) {
    const size = varint();
    const end = p + size;
    p++; // attributes, not used
    const time = firstTime + varint();
    view.offset = base + varint();
    const key = varint();
    view.keyStart = key < 0 ? -1 : p;
    view.keyEnd = key < 0 ? -1 : p + key;
    p += Math.max(0, key);
    const value = varint();
    view.valueStart = value < 0 ? -1 : p;
    view.valueEnd = value < 0 ? -1 : p + value;
    if (view.offset >= from) {
      view.timestamp = appendTime ?? time;
      onRecord(view);
    }
    p = end; // past the headers
  }
}
