/**
 * The definitions of the tables, and rows as JSON.
 *
 * @module
 */

/** The kind of a column in MySQL. */
export type ColumnKind = "int" | "float" | "text" | "datetime";

/** The definition of a table. Its cleaning rules are in `sql/clean_<table>.sql`. */
interface TableEntry {
  /** Name in MySQL. */
  source: string;
  key: string;
  /**
   * Its partition of the checkpoint topic, different for each table. It must never change: existing clusters have the
   * table's checkpoint there.
   */
  checkpointPartition: number;
  /** Its name on the live page. */
  label: string;
  /** Its name in the SQL of the answers. */
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
    // Not "user", which is a function in SQL.
    view: "users",
    columns: { ind: "int", first_name: "text", last_name: "text", age: "int", date_joined: "datetime" },
  },
} as const satisfies Record<string, TableEntry>;

/** Short name of a table, as in topics, in the lake and on the terminal. */
export type Table = keyof typeof tables;

/** The tables in the order in which they are always shown. */
export const tableNames = Object.keys(tables) as Table[];

/** A value for each table; `i` is its index in {@link tableNames}. */
export const byTable = <T>(value: (table: Table, i: number) => T): Record<Table, T> =>
  Object.fromEntries(tableNames.map((table, i) => [table, value(table, i)])) as Record<Table, T>;

/** The same for asynchronous values, one table after another. */
export async function byTableInTurn<T>(value: (table: Table) => Promise<T>): Promise<Record<Table, T>> {
  const values: T[] = [];
  for (const table of tableNames) values.push(await value(table));
  return byTable((_, i) => values[i] as T);
}

/** One row of a source table: the text of each column as MySQL sends it, null for NULL. */
export type Row = (string | null)[];

/**
 * One row as the JSON object to post: columns in order, numbers with MySQL's digits.
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

/** The text of a number without the padding of a ZEROFILL column, which JSON and keys do not allow. */
export function jsonNumber(text: string): string {
  return text.charCodeAt(0) === 48 /* 0 */ && text.length > 1 ? text.replace(/^0+(?=\d)/, "") : text;
}
