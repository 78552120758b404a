/**
 * Decodes the events of the binary log of MySQL and MariaDB, as far as the keys of rows need it.
 *
 * ```
 * event      time 4 | type 1 | server 4 | size 4 | end in the file 4 | flags 2 | body | checksum 4, if the file has them
 * table map  table 6 | flags 2 | schema | name | columns | type of each | metadata of the types | …
 * rows       table 6 | flags 2 | (extra, version 2) | columns | bits: which are present (twice in an update) | rows
 * row        bits: which are null | values, each with its length unless the type gives it
 * ```
 *
 * @see https://dev.mysql.com/doc/dev/mysql-server/latest/page_protocol_replication_binlog_event.html
 * @module
 */

import { inflateSync } from "node:zlib";

/** The types of the events that matter. */
export const eventTypes = {
  query: 2,
  rotate: 4,
  format: 15,
  loadQuery: 18, // LOAD DATA as a statement
  tableMap: 19,
  incident: 26, // the server failed to log something
  gtid: 33,
  anonymousGtid: 34,
  xaPrepare: 38,
  partialUpdate: 39, // of MySQL's JSON
  payload: 40, // a transaction that MySQL compressed
  taggedGtid: 42,
  mariadbGtid: 162,
  compressedQuery: 165, // MariaDB's
} as const;

/** What a rows event did to its rows. */
export type RowsKind = "insert" | "update" | "delete";

/** Rows events: version 1, version 2, and MariaDB's compressed ones of each. */
const rowsKinds = new Map<number, RowsKind>([
  ...[23, 30, 166, 169].map((type) => [type, "insert"] as const),
  ...[24, 31, 167, 170].map((type) => [type, "update"] as const),
  ...[25, 32, 168, 171].map((type) => [type, "delete"] as const),
]);
const isVersion2 = (type: number) => (type >= 30 && type <= 32) || type >= 169;
const isCompressed = (type: number) => type >= 166;

/** The kind of a rows event; `undefined` for another event. */
export const rowsKind = (type: number): RowsKind | undefined => rowsKinds.get(type);

/** The header of an event, bytes. */
export const headerSize = 19;

/** One event; the bytes are valid while it is handled. */
export interface LogEvent {
  type: number;
  /** When it was written, s since 1970. */
  time: number;
  /** Its end in the file, bytes; 0 if the server created it for the dump, and for most inside MariaDB's transactions. */
  end: number;
  /** The whole event, with its checksum. */
  bytes: Buffer;
}

/** Reads the header of an event. */
export const eventOf = (bytes: Buffer): LogEvent => ({
  type: bytes.readUInt8(4),
  time: bytes.readUInt32LE(0),
  end: bytes.readUInt32LE(13),
  bytes,
});

/** A table as a table map event describes it. */
export interface TableLayout {
  schema: string;
  table: string;
  /** MySQL's number of each column's type. */
  types: number[];
  /** For each column, a function that returns the end of the value that begins at `o`. */
  steps: Step[];
}

type Step = (bytes: Buffer, o: number) => number;

/** The number that identifies the table of a rows event. */
export const tableNumber = (body: Buffer): number => body.readUIntLE(0, 6);

/** Reads only the names in a table map: most are of other tables. */
export function namesIn(body: Buffer): { schema: string; table: string; end: number } {
  const schemaEnd = 9 + body.readUInt8(8);
  const tableEnd = schemaEnd + 2 + body.readUInt8(schemaEnd + 1);
  return {
    schema: body.toString("utf8", 9, schemaEnd),
    table: body.toString("utf8", schemaEnd + 2, tableEnd),
    end: tableEnd + 1,
  };
}

/** Reads a table map. */
export function layoutIn(body: Buffer): TableLayout {
  const { schema, table, end } = namesIn(body);
  const [columns, start] = packed(body, end);
  const types = [...body.subarray(start, start + columns)];
  let [, o] = packed(body, start + columns);
  const steps = types.map((type) => {
    const size = metadataSizes[type] ?? 0;
    const step = stepOf(type, size > 0 ? body.readUInt8(o) : 0, size > 1 ? body.readUInt8(o + 1) : 0);
    o += size;
    return step;
  });
  return { schema, table, types, steps };
}

/** Bytes of metadata of a type in a table map; types not listed have none. */
const metadataSizes: Record<number, number> = {
  ...{ 4: 1, 5: 1 }, // FLOAT, DOUBLE
  ...{ 15: 2, 16: 2 }, // VARCHAR, BIT
  ...{ 17: 1, 18: 1, 19: 1 }, // TIMESTAMP, DATETIME, TIME with fractions
  ...{ 140: 1, 141: 2 }, // MariaDB's compressed BLOB and VARCHAR
  ...{ 242: 1, 245: 1, 246: 2 }, // VECTOR, JSON, DECIMAL
  ...{ 247: 2, 248: 2, 249: 1, 250: 1, 251: 1, 252: 1 }, // ENUM, SET, the four BLOBs
  ...{ 253: 2, 254: 2, 255: 1 }, // VARCHAR, CHAR (also ENUM and SET), GEOMETRY
};

/** Bytes of the types of fixed size. */
const fixedSizes: Record<number, number> = {
  ...{ 1: 1, 2: 2, 3: 4, 8: 8, 9: 3 }, // TINYINT, SMALLINT, INT, BIGINT, MEDIUMINT
  ...{ 4: 4, 5: 8, 6: 0 }, // FLOAT, DOUBLE, NULL
  ...{ 7: 4, 10: 3, 11: 3, 12: 8, 13: 1, 14: 3 }, // TIMESTAMP, DATE, TIME, DATETIME of old, YEAR, DATE
};

/** Bytes of the remaining 0 to 8 digits of a DECIMAL; nine take four bytes. */
const digitBytes = [0, 1, 1, 2, 2, 3, 3, 4, 4];

/**
 * A function that skips a value of a type. Values have a fixed size or begin with their length. `low` and `high` are the
 * bytes of the type's metadata.
 */
function stepOf(type: number, low: number, high: number): Step {
  const fixed =
    (size: number): Step =>
    (_, o) =>
      o + size;
  const counted =
    (size: number): Step =>
    (bytes, o) =>
      o + size + bytes.readUIntLE(o, size);
  const fraction = (low + 1) >> 1;
  if (fixedSizes[type] !== undefined) return fixed(fixedSizes[type]);
  if (type === 17) return fixed(4 + fraction); // TIMESTAMP
  if (type === 18) return fixed(5 + fraction); // DATETIME
  if (type === 19) return fixed(3 + fraction); // TIME
  if (type === 16) return fixed(high + (low > 0 ? 1 : 0)); // BIT
  if (type === 15 || type === 253 || type === 141) return counted(low + high * 256 > 255 ? 2 : 1); // VARCHAR
  if (type === 246) {
    const bytesOf = (digits: number) => Math.floor(digits / 9) * 4 + (digitBytes[digits % 9] as number);
    return fixed(bytesOf(low - high) + bytesOf(high)); // DECIMAL of `low` digits, `high` of them decimals
  }
  // ENUM and SET are marked as CHAR. A CHAR of over 255 bytes has two bits of its length in the type.
  if (type === 254 && (low === 247 || low === 248)) return fixed(high);
  if (type === 254) return counted(high + (((low & 0x30) ^ 0x30) << 4) > 255 ? 2 : 1);
  if (metadataSizes[type] === 1) return counted(low); // BLOB, TEXT, JSON, GEOMETRY, VECTOR
  return () => {
    throw new Error(`the log has a column of type ${type}, which this program does not know`);
  };
}

/** A changed row: its key as decimal text before and after. */
export interface RowChange {
  before: string | undefined;
  after: string | undefined;
}

/** Which column of a table is the key. */
export interface KeyColumn {
  /** Its position in the table, from 0. */
  column: number;
  unsigned: boolean;
}

/**
 * The keys in the body of a rows event, row by row.
 *
 * @throws if the key's column is not a whole number or is missing: `binlog_row_image` may omit it
 */
export function* changesIn(type: number, body: Buffer, layout: TableLayout, key: KeyColumn): Generator<RowChange> {
  const kind = rowsKind(type);
  const read = keyReader(layout.types[key.column], key);
  const [columns, bitsStart] = packed(body, isVersion2(type) ? 8 + body.readUInt16LE(8) : 8);
  const width = (columns + 7) >> 3;
  const images = (kind === "update" ? [0, 1] : [0]).map((i) => {
    const present = body.subarray(bitsStart + i * width, bitsStart + (i + 1) * width);
    return Array.from({ length: columns }, (_, column) => column).filter((column) => bit(present, column));
  });
  const packedRows = body.subarray(bitsStart + images.length * width);
  const rows = isCompressed(type) ? inflate(packedRows) : packedRows;
  let o = 0;
  const keyOf = (image: number[]): string | undefined => {
    let found: string | undefined;
    const nulls = o * 8;
    o += (image.length + 7) >> 3;
    for (const [i, column] of image.entries()) {
      if (bit(rows, nulls + i)) continue;
      if (column === key.column) found = read(rows, o);
      o = (layout.steps[column] as Step)(rows, o);
    }
    return found;
  };
  while (o < rows.length) {
    const [first, second] = images.map(keyOf);
    if (first === undefined) {
      throw new Error("the log omits the key, which is not the primary key: SET GLOBAL binlog_row_image = FULL");
    }
    // A MINIMAL image of the new row has the key only if it was changed.
    if (kind === "update") yield { before: first, after: second ?? first };
    else yield kind === "insert" ? { before: undefined, after: first } : { before: first, after: undefined };
  }
  if (o !== rows.length) throw new Error("a row of the log does not end where its event does");
}

const bit = (bytes: Buffer, i: number): number => ((bytes[i >> 3] as number) >> (i & 7)) & 1;

/** A function that reads the value of a key as decimal text. */
function keyReader(type: number | undefined, { column, unsigned }: KeyColumn): (bytes: Buffer, o: number) => string {
  if (type === 8) return (bytes, o) => String(unsigned ? bytes.readBigUInt64LE(o) : bytes.readBigInt64LE(o));
  if (type === 13) return (bytes, o) => String(bytes[o] === 0 ? 0 : 1900 + bytes.readUInt8(o)); // YEAR
  const size = type !== undefined && [1, 2, 3, 9].includes(type) ? fixedSizes[type] : undefined;
  if (size === undefined) {
    throw new Error(`column ${column + 1} is not a whole number in the log, although it is in the table`);
  }
  return (bytes, o) => String(unsigned ? bytes.readUIntLE(o, size) : bytes.readIntLE(o, size));
}

/** A length-encoded integer, and where it ends. */
function packed(bytes: Buffer, o: number): [value: number, end: number] {
  const first = bytes.readUInt8(o);
  if (first < 0xfb) return [first, o + 1];
  if (first === 0xfc) return [bytes.readUInt16LE(o + 1), o + 3];
  if (first === 0xfd) return [bytes.readUIntLE(o + 1, 3), o + 4];
  return [Number(bytes.readBigUInt64LE(o + 1)), o + 9];
}

/** Decompresses MariaDB's format: a byte whose low bits are the size of the length, the length, zlib data. */
const inflate = (bytes: Buffer): Buffer => inflateSync(bytes.subarray(1 + (bytes.readUInt8(0) & 7)));

/** The statement in the body of a query event, and its default database. */
export function statementIn(type: number, body: Buffer): { schema: string; sql: string } {
  const fixedPart = type === eventTypes.loadQuery ? 26 : 13;
  const schemaStart = fixedPart + body.readUInt16LE(11);
  const schemaEnd = schemaStart + body.readUInt8(8);
  const rest = body.subarray(schemaEnd + 1);
  const text = type === eventTypes.compressedQuery ? inflate(rest) : rest;
  return { schema: body.toString("utf8", schemaStart, schemaEnd), sql: text.toString("utf8") };
}
