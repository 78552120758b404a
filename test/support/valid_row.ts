/**
 * A clean row, for tests that damage, add or check one column.
 *
 * @module
 */
import { type Table, tables } from "../../io.ts";

const rows: Record<Table, Record<string, unknown>> = {
  pin: {
    ...{ index: 7, unique_id: "u", title: "t", description: "d", poster_name: "p", follower_count: "12k" },
    ...{ tag_list: "a,b", is_image_or_video: "image", image_src: "http://x", downloaded: 1 },
    ...{ save_location: "Local save in /data/art", category: "art" },
  },
  geo: { ind: 7, timestamp: "2018-01-02 03:04:05", latitude: -89.9787, longitude: 1e-7, country: "Aruba" },
  user: { ind: 7, first_name: "Ann", last_name: "Lee", age: 21, date_joined: "2016-01-02 03:04:05" },
};

/** A valid row with a key, as it is posted, with its columns in order. `overrides` change or add columns. */
export const validRow = (table: Table, key: number, overrides: object = {}): Record<string, unknown> => ({
  ...rows[table],
  [tables[table].key]: key,
  ...overrides,
});
