/**
 * Messages as lines of bronze: tab-separated, every byte recoverable, readable by DuckDB and Spark.
 *
 * @module
 */

import { isUtf8 } from "node:buffer";
import { viewer, viewOf } from "./bytes.ts";
import type { RecordView } from "./record_batch.ts";

/**
 * Writes messages as bronze's tab-separated lines: partition, offset, time (ms), key_is, key, value_is, value.
 *
 * `*_is` says how the bytes are written: `t` unchanged; `u` base64 of text with a tab or an end of line; `b` base64 of
 * bytes that are not text; `n` none (a tombstone, no key).
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
  const field = (bytes: Buffer, start: number, end: number) => {
    if (start < 0) {
      buffer[o++] = 0x6e; // n
      buffer[o++] = 9;
      return;
    }
    const from = viewOfMessage(bytes);
    // Copies and checks four bytes at a time.
    let p = start;
    let to = o + 2;
    let all = 0;
    let low = 0;
    for (; p + 4 <= end; p += 4, to += 4) {
      const four = from.getInt32(p, true);
      all |= four;
      low |= (four - 0x0e0e0e0e) & ~four; // sets the highest bit of each byte below 14
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
      o = writeNumber(buffer, o, partition);
      o = writeNumber(buffer, o, offset);
      // Usually equal to the previous one. A client may send any 64 bits; -1 means a time that no JS number holds.
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
    /** Takes the lines so far, which are valid until the next `add`. */
    take(): Buffer {
      const lines = buffer.subarray(0, o);
      o = 0;
      return lines;
    },
  };
}

/** Writes a whole number and a tab; returns where they end. */
function writeNumber(buffer: Buffer, start: number, n: number): number {
  let rest = n;
  let digits = 1;
  for (let least = 10; rest >= least; least *= 10) digits++;
  for (let p = start + digits - 1; p >= start; p--) {
    const tenth = Math.floor(rest / 10);
    buffer[p] = 0x30 + (rest - tenth * 10);
    rest = tenth;
  }
  buffer[start + digits] = 9; // tab
  return start + digits + 1;
}

/** How to write bytes: `t`, `u` or `b`, as a character code. */
function kindOf(bytes: Buffer): number {
  if (bytes.includes(0) || !isUtf8(bytes)) return 0x62;
  return bytes.includes(9) || bytes.includes(10) || bytes.includes(13) ? 0x75 : 0x74;
}
