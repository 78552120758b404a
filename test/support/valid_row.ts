/**
 * A row that cleaning takes, for tests that spoil, add or look at one column of it.
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

/** A valid row with this key, as it is posted, its columns in order; `overrides` change columns or add further ones. */
export const validRow = (table: Table, key: number, overrides: object = {}): Record<string, unknown> => ({
  ...rows[table],
  [tables[table].key]: key,
  ...overrides,
});
