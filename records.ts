/**
 * Kafka's record batches, byte by byte: rows of MySQL's wire format into them, and messages out of them.
 *
 * Rows never become objects or strings on their way: a row's bytes are escaped as JSON straight into the batch that
 * goes to the broker, which costs a tenth of what objects and kafkajs' own encoder do.
 *
 * ```
 * batch   base offset 8 | length 4 | leader epoch 4 | magic 1 | CRC-32C 4 | attributes 2 | last offset delta 4 |
 *         first time 8 | greatest time 8 | producer id 8 | producer epoch 2 | base sequence 4 | records 4 | records
 * record  size | attributes 1 | time delta | offset delta | key size | key | value size | value | headers
 * ```
 *
 * Numbers of a record are zigzag varints. The CRC covers what follows it.
 *
 * @see https://kafka.apache.org/documentation/#recordbatch
 * @module
 */

import { isUtf8 } from "node:buffer";
import { crc32c } from "@node-rs/crc32";
import { unpack } from "./codecs.ts";
import type { ColumnKind } from "./io.ts";

/** Free bytes before each batch, where a request's own head is put, so that nothing is copied once more. */
export const requestRoom = 1_024;
/** Where things stand in a batch. */
const at = {
  ...{ length: 8, leaderEpoch: 12, magic: 16, crc: 17, attributes: 21, lastDelta: 23, firstTime: 27, maxTime: 35 },
  ...{ producerId: 43, producerEpoch: 51, sequence: 53, count: 57, records: 61 },
};
/** The length counts what follows it. */
const uncounted = 12;
/** Bits of the attributes; the lowest three are the codec. */
const bits = { codec: 7, appendTime: 8, transactional: 16, control: 32 };

/** Records of one partition, encoded but for what only the producer knows: {@link sealBatch} adds that. */
export interface RecordBatch {
  partition: number;
  /** Records. */
  length: number;
  /** The batch, its head not yet filled in; named as kafkajs wants a message's bytes to be. */
  value: Buffer;
  /** The key of the last record. */
  lastKey: string;
}

/** What the producer knows of a batch. */
export interface BatchOwner {
  producerId: bigint;
  producerEpoch: number;
  baseSequence: number;
}

/** Fills in the head of a batch of one transaction, in place, and returns its bytes. */
export function sealBatch(
  { value: bytes, length }: RecordBatch,
  { producerId, producerEpoch, baseSequence }: BatchOwner,
) {
  const now = BigInt(Date.now());
  bytes.fill(0, 0, at.length); // the offset is the broker's, as the leader epoch is
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

/** What {@link rowEncoder} needs to know. */
export interface RowEncoderOptions {
  columns: readonly { name: string; kind: ColumnKind }[];
  /** Which column is the key. */
  key: number;
  partitions: number;
  /** The partition of a key. */
  partitionOf: (key: string, partitions: number) => number;
  /** Bytes of a batch at most; a row that is larger gets one of its own. */
  maxBytes: number;
}

/** Turns rows into record batches. */
export interface RowEncoder {
  /** Adds the row that stands in `bytes` from `start` on: its columns as texts, each after its length (MySQL's text protocol). */
  add(bytes: Buffer, start: number): void;
  /** Since the last `take`. */
  rows: number;
  bytes: number;
  /** Of the last row added, until its batch is released. */
  lastKey: string;
  /** The batches so far, in order; new rows begin new ones. */
  take(): RecordBatch[];
  /** Gives back batches that nobody needs any more; their memory is used again. */
  release(batches: RecordBatch[]): void;
}

/** A batch in the making. */
interface Growing {
  buffer: Buffer;
  view: DataView;
  end: number;
  rows: number;
  /** Where the key of the last record stands. */
  keyStart: number;
  keyEnd: number;
}

/** Bytes that stand inside JSON strings not as they are. */
const escaped = new Uint8Array(256);
for (let byte = 0; byte < 32; byte++) escaped[byte] = 1;
escaped[0x22] = 1; // "
escaped[0x5c] = 1; // \

/** How JSON.stringify writes each of them. */
const escapes = Array.from({ length: 93 }, (_, byte) =>
  Buffer.from(escaped[byte] ? JSON.stringify(String.fromCharCode(byte)).slice(1, -1) : ""),
);

/** Whether one of four bytes needs an escape: is below 32, or leaves 0 when `"` or `\` is taken from it. */
const anyEscaped = (four: number): number => {
  const quote = four ^ 0x22222222;
  const backslash = four ^ 0x5c5c5c5c;
  const low = (four - 0x20202020) & ~four;
  return (low | ((quote - 0x01010101) & ~quote) | ((backslash - 0x01010101) & ~backslash)) & 0x80808080;
};

/**
 * Encodes rows as the records that {@link rowToJson} and kafkajs would make of them, byte for byte.
 *
 * Texts are looked at and copied four bytes at a time, and so are the columns' names: up to three bytes more than
 * wanted are written behind a name, and overwritten by what follows.
 *
 * Memory: the batches that were taken and not yet released, each up to `maxBytes` or one row.
 */
export function rowEncoder({ columns, key, partitions, partitionOf, maxBytes }: RowEncoderOptions): RowEncoder {
  const quoted = columns.map(({ kind }) => kind === "text" || kind === "datetime");
  const names = columns.map(({ name }, i) => `${i === 0 ? "{" : ","}${JSON.stringify(name)}:`);
  const heads = names.map((name, i) => Buffer.from(quoted[i] ? `${name}"` : name));
  const nullHeads = names.map((name) => Buffer.from(`${name}null`));
  const headWords = heads.map(wordsOf);
  const nullWords = nullHeads.map(wordsOf);
  const starts = new Int32Array(columns.length);
  const ends = new Int32Array(columns.length);
  const usual = requestRoom + maxBytes;
  const free: Buffer[] = [];
  const growing: (Growing | undefined)[] = new Array(partitions).fill(undefined);
  let last: Growing | undefined;
  let sealed: RecordBatch[] = [];
  const viewOfSource = viewer();

  const begin = (partition: number, room: number): Growing => {
    const wanted = requestRoom + Math.max(maxBytes, at.records + room);
    const buffer = (wanted === usual && free.pop()) || Buffer.allocUnsafeSlow(wanted);
    const end = requestRoom + at.records;
    const fresh = { buffer, view: viewOf(buffer), end, rows: 0, keyStart: end, keyEnd: end };
    growing[partition] = fresh;
    return fresh;
  };
  const keyOf = ({ buffer, keyStart, keyEnd }: Growing) => buffer.toString("latin1", keyStart, keyEnd);
  const seal = (partition: number, batch: Growing) => {
    const { buffer, end, rows } = batch;
    sealed.push({ partition, length: rows, value: buffer.subarray(requestRoom, end), lastKey: keyOf(batch) });
    growing[partition] = undefined;
  };

  const encoder: RowEncoder = {
    rows: 0,
    bytes: 0,
    get lastKey() {
      return last ? keyOf(last) : "";
    },
    add(source, start) {
      const from = viewOfSource(source);
      // Where the columns stand, and how long the JSON is when nothing needs to be escaped.
      let value = 1; // the closing brace
      for (let i = 0, p = start; i < columns.length; i++) {
        let length = source[p++] as number;
        if (length === 0xfb) {
          starts[i] = -1;
          value += (nullHeads[i] as Buffer).length;
          continue;
        }
        if (length === 0xfc) {
          length = (source[p] as number) | ((source[p + 1] as number) << 8);
          p += 2;
        } else if (length === 0xfd) {
          length = source.readUIntLE(p, 3);
          p += 3;
        } else if (length === 0xfe) {
          length = source.readUIntLE(p, 6);
          p += 8;
        }
        // MySQL pads ZEROFILL columns with zeros, which JSON does not allow.
        if (!quoted[i]) {
          for (; length > 1 && source[p] === 0x30 && isDigit(source[p + 1] as number); length--) p++;
        }
        starts[i] = p;
        p += length;
        ends[i] = p;
        value += (heads[i] as Buffer).length + length + (quoted[i] ? 1 : 0);
      }
      const keyStart = starts[key] as number;
      const keyLength = (ends[key] as number) - keyStart;
      const partition =
        partitions === 1 ? 0 : partitionOf(source.toString("latin1", keyStart, keyStart + keyLength), partitions);

      let batch = growing[partition];
      const room = value + keyLength + 40;
      if (batch && batch.end + room > usual) {
        seal(partition, batch);
        batch = undefined;
      }
      batch ??= begin(partition, room);
      let size = recordSize(batch.rows, keyLength, value);
      let { buffer, view } = batch;
      let o = writeHead(buffer, batch.end, { size, delta: batch.rows, keyLength, value });
      const valueStart = o;
      const head = o - batch.end;
      for (let i = 0; i < columns.length; i++) {
        const begun = starts[i] as number;
        const prefix = (begun < 0 ? nullHeads[i] : heads[i]) as Buffer;
        const words = (begun < 0 ? nullWords[i] : headWords[i]) as Int32Array;
        for (let j = 0; j < words.length; j++) view.setInt32(o + 4 * j, words[j] as number, true);
        o += prefix.length;
        if (begun < 0) continue;
        const to = ends[i] as number;
        for (let p = begun; ; ) {
          for (; p + 4 <= to; p += 4, o += 4) {
            const four = from.getInt32(p, true);
            if (anyEscaped(four)) break;
            view.setInt32(o, four, true);
          }
          while (p < to && escaped[source[p] as number] === 0) buffer[o++] = source[p++] as number;
          if (p === to) break;
          // Each byte may become six, and the rest of the row still has to fit.
          const need = o + 6 * (to - p) + value + 40;
          if (batch.rows > 0 && need > usual) {
            seal(partition, batch);
            return encoder.add(source, start);
          }
          if (need > buffer.length) {
            const larger = Buffer.allocUnsafeSlow(need);
            buffer.copy(larger, 0, 0, o);
            buffer = larger;
            view = viewOf(buffer);
            batch.buffer = buffer;
            batch.view = view;
          }
          const written = escapes[source[p++] as number] as Buffer;
          for (let j = 0; j < written.length; j++) buffer[o++] = written[j] as number;
        }
        if (quoted[i]) buffer[o++] = 0x22; // "
      }
      buffer[o++] = 0x7d; // }
      const written = o - valueStart;
      if (written !== value) {
        // Escapes have made it longer than its head says.
        size = recordSize(batch.rows, keyLength, written);
        const shift = headSize(size, batch.rows, keyLength) + keyLength + varintSize(written) - head;
        if (shift > 0) buffer.copyWithin(valueStart + shift, valueStart, o);
        writeHead(buffer, batch.end, { size, delta: batch.rows, keyLength, value: written });
        o += shift;
      }
      batch.keyStart = batch.end + headSize(size, batch.rows, keyLength);
      batch.keyEnd = batch.keyStart + keyLength;
      for (let j = 0; j < keyLength; j++) buffer[batch.keyStart + j] = source[keyStart + j] as number;
      buffer[o++] = 0; // headers
      encoder.rows++;
      encoder.bytes += o - batch.end;
      batch.end = o;
      batch.rows++;
      last = batch;
    },
    take() {
      for (const [partition, batch] of growing.entries()) if (batch) seal(partition, batch);
      const taken = sealed;
      sealed = [];
      encoder.rows = 0;
      encoder.bytes = 0;
      return taken;
    },
    release(batches) {
      for (const { value } of batches) {
        if (value.buffer.byteLength === usual && free.length < 4 * partitions) free.push(Buffer.from(value.buffer));
      }
    },
  };
  return encoder;
}

/** Bytes as numbers of four each, the last one filled up with zeros. */
const wordsOf = (bytes: Buffer): Int32Array => {
  const padded = Buffer.concat([bytes], 4 * Math.ceil(bytes.length / 4));
  return Int32Array.from({ length: padded.length / 4 }, (_, i) => padded.readInt32LE(4 * i));
};

const viewOf = ({ buffer, byteOffset, length }: Buffer): DataView => new DataView(buffer, byteOffset, length);

/** {@link viewOf}, made once for many calls with the same buffer: rows and messages come many to one. */
function viewer(): (bytes: Buffer) => DataView {
  let last: Buffer = Buffer.alloc(0);
  let view = viewOf(last);
  return (bytes) => {
    if (bytes !== last) view = viewOf(bytes);
    last = bytes;
    return view;
  };
}

const isDigit = (byte: number): boolean => byte >= 0x30 && byte <= 0x39;

/** Bytes of a whole number >= 0 as a zigzag varint. */
const varintSize = (n: number): number => (n < 64 ? 1 : n < 8_192 ? 2 : n < 1_048_576 ? 3 : n < 134_217_728 ? 4 : 5);

/** Bytes of a record without its own size. */
const recordSize = (delta: number, keyLength: number, value: number): number =>
  3 + varintSize(delta) + varintSize(keyLength) + keyLength + varintSize(value) + value;

/** Bytes before a record's key. */
const headSize = (size: number, delta: number, keyLength: number): number =>
  varintSize(size) + 2 + varintSize(delta) + varintSize(keyLength);

/** Writes what stands before a record's value, the key left out; returns where the value begins. */
function writeHead(
  buffer: Buffer,
  start: number,
  { size, delta, keyLength, value }: { size: number; delta: number; keyLength: number; value: number },
): number {
  let o = writeVarint(buffer, start, size);
  buffer[o++] = 0; // attributes
  buffer[o++] = 0; // time delta
  o = writeVarint(buffer, o, delta);
  o = writeVarint(buffer, o, keyLength) + keyLength;
  return writeVarint(buffer, o, value);
}

function writeVarint(buffer: Buffer, start: number, n: number): number {
  let o = start;
  let rest = n * 2;
  for (; rest > 127; rest = Math.floor(rest / 128)) buffer[o++] = (rest & 127) | 128;
  buffer[o++] = rest;
  return o;
}

/** What {@link decodeRecords} needs to know beside the bytes. */
export interface DecodeOptions {
  /** Records below this offset are skipped: a batch comes whole. */
  from: number;
  /** Batches that begin here or later are left. */
  until: number;
  abortedTransactions: { producerId: string; firstOffset: string }[];
  /** Named in errors. */
  where: string;
  onRecord: OnRecord;
  /** Told the first and the last offset of each batch that is a mark or was aborted. */
  onSkipped?: (first: number, last: number) => void;
}

/** One message, as it stands in a larger buffer. */
export interface RecordView {
  offset: number;
  /** When it was posted, ms. */
  timestamp: number;
  bytes: Buffer;
  /** Where key and value stand in `bytes`; start and end are -1 where there is none. */
  keyStart: number;
  keyEnd: number;
  valueStart: number;
  valueEnd: number;
}

/** Takes one message. The view is the same object each time: what is kept must be copied. */
export type OnRecord = (record: RecordView) => void;

/** A view's key and value as buffers of their own, null where there is none. */
export const keyBytes = ({ bytes, keyStart, keyEnd }: RecordView): Buffer | null =>
  keyStart < 0 ? null : Buffer.from(bytes.subarray(keyStart, keyEnd));
export const valueBytes = ({ bytes, valueStart, valueEnd }: RecordView): Buffer | null =>
  valueStart < 0 ? null : Buffer.from(bytes.subarray(valueStart, valueEnd));

/** Bytes of a message: its key and its value. */
export const messageBytes = ({ keyStart, keyEnd, valueStart, valueEnd }: RecordView): number =>
  keyEnd - keyStart + valueEnd - valueStart;

/**
 * Decodes record batches (magic 2) as the broker sent them; a last one that is cut off is left for the next fetch.
 * Transactions that were aborted open at their first offset and close at their abort marker.
 *
 * @returns the next offset to fetch
 * @see https://kafka.apache.org/documentation/#recordbatch
 */
export async function decodeRecords(bytes: Buffer, options: DecodeOptions): Promise<number> {
  const { from, until, where, onRecord, onSkipped } = options;
  const aborted = options.abortedTransactions
    .map(({ producerId, firstOffset }) => ({ producerId: BigInt(producerId), first: Number(firstOffset) }))
    .sort((a, b) => a.first - b.first);
  const openAborted = new Set<bigint>();
  let next = from;
  for (let start = 0; start + uncounted <= bytes.length; ) {
    const size = uncounted + bytes.readInt32BE(start + at.length);
    const base = Number(bytes.readBigInt64BE(start));
    if (start + size > bytes.length || base >= until) break;
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
  // Zigzag, seven bits a byte, lowest first; multiplied rather than shifted where it may pass 32 bits.
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

/**
 * Writes messages as bronze's tab-separated lines: partition, offset, time (ms), key_is, key, value_is, value.
 *
 * `*_is` says how the bytes stand: `t` as they are; `u` base64 of text that holds a tab or an end of line; `b` base64
 * of bytes that are not text; `n` none (a tombstone, no key). So DuckDB and Spark read the lines as they are, and
 * every byte comes back.
 */
export function bronzeLines() {
  let time: Buffer = Buffer.alloc(0);
  let timeOf: number | undefined;
  let buffer = Buffer.allocUnsafe(1 << 16);
  let view = viewOf(buffer);
  let o = 0;
  const viewOfMessage = viewer();
  const room = (bytes: number) => {
    if (o + bytes <= buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(buffer.length * 2, o + bytes));
    buffer.copy(larger, 0, 0, o);
    buffer = larger;
    view = viewOf(buffer);
  };
  const number = (n: number) => {
    let rest = n;
    let digits = 1;
    for (let least = 10; rest >= least; least *= 10) digits++;
    for (let p = o + digits - 1; p >= o; p--) {
      const tenth = Math.floor(rest / 10);
      buffer[p] = 0x30 + (rest - tenth * 10);
      rest = tenth;
    }
    o += digits;
    buffer[o++] = 9; // tab
  };
  const field = (bytes: Buffer, start: number, end: number) => {
    if (start < 0) {
      buffer[o++] = 0x6e; // n
      buffer[o++] = 9;
      return;
    }
    const from = viewOfMessage(bytes);
    // Copied as they are, four at a time, and looked at on the way.
    let p = start;
    let to = o + 2;
    let all = 0;
    let low = 0;
    for (; p + 4 <= end; p += 4, to += 4) {
      const four = from.getInt32(p, true);
      all |= four;
      low |= (four - 0x0e0e0e0e) & ~four; // a highest bit where a byte is below 14
      view.setInt32(to, four, true);
    }
    for (; p < end; p++) {
      const byte = bytes[p] as number;
      all |= byte;
      low |= (byte - 14) & ~byte;
      buffer[to++] = byte;
    }
    const plain = (low & 0x80808080) === 0 && ((all & 0x80808080) === 0 || isUtf8(bytes.subarray(start, end)));
    const kind = plain ? 0x74 : kindOf(bytes.subarray(start, end));
    buffer[o++] = kind;
    buffer[o++] = 9;
    if (kind === 0x74) o = to;
    else o += buffer.write(bytes.toString("base64", start, end), o, "latin1");
  };
  return {
    add(partition: number, { offset, timestamp, bytes, keyStart, keyEnd, valueStart, valueEnd }: RecordView): void {
      room(100 + Math.ceil((keyEnd - keyStart) / 3) * 4 + Math.ceil((valueEnd - valueStart) / 3) * 4);
      number(partition);
      number(offset);
      // Mostly that of the one before. A client's may be any 64 bits; what a number cannot hold is no time at all.
      if (timestamp !== timeOf) time = Buffer.from(`${Number.isSafeInteger(timestamp) ? timestamp : -1}\t`);
      timeOf = timestamp;
      for (let i = 0; i < time.length; i++) buffer[o++] = time[i] as number;
      field(bytes, keyStart, keyEnd);
      buffer[o++] = 9;
      field(bytes, valueStart, valueEnd);
      buffer[o++] = 10; // line feed
    },
    /** Bytes of the lines so far. */
    get bytes(): number {
      return o;
    },
    /** The lines so far, valid until the next is added; they begin anew. */
    take(): Buffer {
      const lines = buffer.subarray(0, o);
      o = 0;
      return lines;
    },
  };
}

/** How bytes stand in a line: `t`, `u` or `b`, as its code. */
function kindOf(bytes: Buffer): number {
  if (bytes.includes(0) || !isUtf8(bytes)) return 0x62;
  return bytes.includes(9) || bytes.includes(10) || bytes.includes(13) ? 0x75 : 0x74;
}
