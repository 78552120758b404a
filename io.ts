/**
 * The tables, defined once, and a row as JSON.
 *
 * @module
 */

/** How a column of a source table is held in MySQL, as far as the program cares. */
export type ColumnKind = "int" | "float" | "text" | "datetime";

/** What there is to say of a table; the cleaning rules are in `sql/clean_<table>.sql`. */
interface TableEntry {
  /** Name in MySQL. */
  source: string;
  key: string;
  /**
   * Its partition of the checkpoint topic, a number that no other table has. It must never change: existing clusters
   * hold the table's checkpoint there.
   */
  checkpointPartition: number;
  /** What people read on the live page. */
  label: string;
  /** What the answers' SQL calls its rows. */
  view: string;
  /** In the order of MySQL's table. */
  columns: Record<string, ColumnKind>;
}

/** The tables, in the order in which they are always shown. */
export const tables = {
  pin: {
    source: "pinterest_data",
    key: "index",
    checkpointPartition: 0,
    label: "Posts",
    view: "pin",
    columns: {
      index: "int",
      unique_id: "text",
      title: "text",
      description: "text",
      poster_name: "text",
      follower_count: "text",
      tag_list: "text",
      is_image_or_video: "text",
      image_src: "text",
      downloaded: "int",
      save_location: "text",
      category: "text",
    },
  },
  geo: {
    source: "geolocation_data",
    key: "ind",
    checkpointPartition: 1,
    label: "Places",
    view: "geo",
    columns: { ind: "int", timestamp: "datetime", latitude: "float", longitude: "float", country: "text" },
  },
  user: {
    source: "user_data",
    key: "ind",
    checkpointPartition: 2,
    label: "People",
    // Not "user": that is a function of SQL.
    view: "users",
    columns: { ind: "int", first_name: "text", last_name: "text", age: "int", date_joined: "datetime" },
  },
} as const satisfies Record<string, TableEntry>;

/** Short name of a table, as in topics, the lake and on the screen. */
export type Table = keyof typeof tables;

/** The tables in the order in which they are always shown. */
export const tableNames = Object.keys(tables) as Table[];

/** A value for each table; `i` is its place in {@link tableNames}. */
export const byTable = <T>(value: (table: Table, i: number) => T): Record<Table, T> =>
  Object.fromEntries(tableNames.map((table, i) => [table, value(table, i)])) as Record<Table, T>;

/** The same for values that take time, one table after another. */
export async function byTableInTurn<T>(value: (table: Table) => Promise<T>): Promise<Record<Table, T>> {
  const values: T[] = [];
  for (const table of tableNames) values.push(await value(table));
  return byTable((_, i) => values[i] as T);
}

/** One row of a source table: each column's text as MySQL gives it, null for NULL. */
export type Row = (string | null)[];

/**
 * One row as the JSON object that is posted: columns in order, numbers with MySQL's own digits.
 *
 * @example
 * rowToJson([{ name: "ind", kind: "int" }, { name: "country", kind: "text" }], ["7", "Aruba"])
 * // {"ind":7,"country":"Aruba"}
 */
export function rowToJson(columns: readonly { name: string; kind: ColumnKind }[], row: Row): string {
  let json = "";
  for (let i = 0; i < columns.length; i++) {
    const { name, kind } = columns[i] as { name: string; kind: ColumnKind };
    const text = row[i] ?? null;
    json += `${i === 0 ? "{" : ","}${JSON.stringify(name)}:`;
    if (text === null) json += "null";
    else if (kind === "int" || kind === "float") json += jsonNumber(text);
    else json += JSON.stringify(text);
  }
  return `${json}}`;
}

/** A number as MySQL writes it, without the zeros that pad a ZEROFILL column: JSON and keys have none. */
export function jsonNumber(text: string): string {
  return text.charCodeAt(0) === 48 /* 0 */ && text.length > 1 ? text.replace(/^0+(?=\d)/, "") : text;
}
