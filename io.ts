/**
 * Serialization: the three tables defined once, rows to JSON bytes, atomic files.
 *
 * @module
 */

/** How a column of a source table is held in MySQL, as far as the program cares. */
export type ColumnKind = "int" | "float" | "text" | "datetime";

/** The three tables: MySQL name, key column and columns in their order (spec, section 1). */
export const tables = {
  pin: {
    source: "pinterest_data",
    key: "index",
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
    columns: { ind: "int", timestamp: "datetime", latitude: "float", longitude: "float", country: "text" },
  },
  user: {
    source: "user_data",
    key: "ind",
    columns: { ind: "int", first_name: "text", last_name: "text", age: "int", date_joined: "datetime" },
  },
} as const satisfies Record<string, { source: string; key: string; columns: Record<string, ColumnKind> }>;

/** Short name of a table, as in topics, the lake and on the screen. */
export type Table = keyof typeof tables;

/** The tables in the order in which they are always shown. */
export const tableNames = Object.keys(tables) as Table[];
