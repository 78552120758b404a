/**
 * The part of {@link rowEncoder} that touches every byte, in WebAssembly: `row_kernel.wat`.
 *
 * It copies and checks 16 bytes at a time, and is fast from the first row on. The same loops in JavaScript take 10 µs a
 * row until V8 has compiled them, which is after the 10,000 rows of a small table.
 *
 * @module
 */

import type { ColumnKind } from "../io.ts";
import { rowKernel } from "./row_kernel_bytes.ts";

/** Writes rows as records into its memory, from which they are taken. */
export interface RowKernel {
  /**
   * Reads the row in `bytes` from `start` on: its columns as text, each after its length (MySQL's text protocol). The same
   * buffer must have the same content in each call.
   */
  read(bytes: Buffer, start: number): void;
  /** The key of the row. */
  key(): string;
  /** Appends the row as a record with this offset delta. Returns its bytes. */
  append(delta: number): number;
  /** Removes the record that was appended last; the row can be appended again. */
  undo(): void;
  /** Bytes of the records, and of the whole memory. */
  readonly length: number;
  readonly size: number;
  /** Where the key of the last record begins and ends; call it directly after `append`. */
  readonly keyStart: number;
  readonly keyEnd: number;
  /** Moves the records into a buffer. */
  take(target: Buffer, start: number): void;
}

type Columns = readonly { name: string; kind: ColumnKind }[];

interface Memory {
  /** Replaced when the memory grows. */
  buffer: ArrayBuffer;
  grow(pages: number): void;
}

interface Exports {
  memory: Memory;
  /** Finds the columns of the row at an address. Returns the bytes of its JSON without escapes. */
  scan(row: number): number;
  /** Writes the record of that row to an address. Returns where it ends. */
  write(address: number, delta: number, length: number): number;
}

/** Indexes of the words in the memory, as `row_kernel.wat` describes it, and of those in a column's entry. */
const word = { columns: 0, key: 1, lastKey: 2, entries: 16 };
const field = { name: 0, nullName: 2, isQuoted: 4, start: 5, length: 6 };
const entryWords = 8;
const entryOf = (column: number): number => word.entries + column * entryWords;
const pageBytes = 65_536;
/** So many bytes may be read and written after a text. */
const excess = 16;
/** An escape makes six bytes of one; a record has up to 43 bytes around its value, of which 20 are the key, a number. */
const escapeBytes = 6;
const recordBytes = 64;

/** Node's types do not have it. */
declare const WebAssembly: {
  Module: new (bytes: Buffer) => object;
  Instance: new (module: object) => { exports: object };
};

let compiled: object | undefined;

/** The memory as bytes and as 32-bit words. */
interface Space {
  bytes: Buffer;
  words: Int32Array;
  /** Makes the memory larger if it is too small for data up to an address. */
  reserve(end: number): void;
}

function spaceOf(memory: Memory): Space {
  const view = () => ({ bytes: Buffer.from(memory.buffer), words: new Int32Array(memory.buffer) });
  const space: Space = {
    ...view(),
    reserve(end) {
      const missing = end + excess - space.bytes.length;
      if (missing <= 0) return;
      memory.grow(Math.ceil(missing / pageBytes));
      Object.assign(space, view());
    },
  };
  return space;
}

/** Writes the columns' names into the memory. Returns where they end. */
function placeNames(space: Space, columns: Columns, keyEntry: number): number {
  let end = 4 * entryOf(columns.length);
  const place = (text: string): [number, number] => {
    const [address, length] = [end, Buffer.byteLength(text)];
    end += length;
    space.reserve(end);
    space.bytes.write(text, address);
    return [address, length];
  };
  space.reserve(end);
  space.words[word.columns] = columns.length;
  space.words[word.key] = 4 * keyEntry;
  for (const [i, { name, kind }] of columns.entries()) {
    const quoted = kind === "text" || kind === "datetime";
    const named = `${i === 0 ? "{" : ","}${JSON.stringify(name)}:`;
    const entry = [...place(quoted ? `${named}"` : named), ...place(`${named}null`), Number(quoted)];
    space.words.set(entry, entryOf(i)); // after place(), which may replace the words
  }
  return end;
}

/**
 * Creates a kernel for rows of a table.
 *
 * @param key the index of the key in `columns`
 * @param onFull must take the records, because the memory is full
 */
export function openKernel(columns: Columns, key: number, onFull: () => void): RowKernel {
  compiled ??= new WebAssembly.Module(Buffer.from(rowKernel, "base64"));
  const { memory, scan, write } = new WebAssembly.Instance(compiled).exports as Exports;
  const space = spaceOf(memory);
  const keyEntry = entryOf(key);
  const rowsAt = placeNames(space, columns, keyEntry) + excess;
  let recordsAt = rowsAt + pageBytes + excess;
  let recordsEnd = recordsAt;
  let lastAt = recordsAt;
  let limit = recordsAt + 2 * pageBytes;
  space.reserve(limit);
  let source: Buffer | undefined;
  let length = 0;

  const kernel: RowKernel = {
    read(row, start) {
      if (row !== source) {
        if (rowsAt + row.length + excess > recordsAt) {
          onFull();
          space.reserve(limit + row.length);
          limit += row.length;
          recordsAt += row.length;
          recordsEnd = recordsAt;
        }
        row.copy(space.bytes, rowsAt);
        source = row;
      }
      length = scan(rowsAt + start);
    },
    key() {
      const start = space.words[keyEntry + field.start] as number;
      return space.bytes.toString("latin1", start, start + (space.words[keyEntry + field.length] as number));
    },
    append(delta) {
      const room = escapeBytes * length + recordBytes;
      if (recordsEnd + room > limit) {
        if (recordsEnd > recordsAt) onFull();
        if (recordsEnd + room > limit) {
          space.reserve(recordsEnd + room);
          limit = recordsEnd + room;
        }
      }
      lastAt = recordsEnd;
      recordsEnd = write(recordsEnd, delta, length);
      return recordsEnd - lastAt;
    },
    undo() {
      recordsEnd = lastAt;
    },
    get length() {
      return recordsEnd - recordsAt;
    },
    get size() {
      return space.bytes.length;
    },
    get keyStart() {
      return (space.words[word.lastKey] as number) - recordsAt;
    },
    get keyEnd() {
      return kernel.keyStart + (space.words[keyEntry + field.length] as number);
    },
    take(target, start) {
      space.bytes.copy(target, start, recordsAt, recordsEnd);
      recordsEnd = recordsAt;
    },
  };
  return kernel;
}
