/**
 * Rows that are text of an attack, for the page to show and not to run: by table, as JSON.
 *
 * @module
 */
import type { Table } from "../../io.ts";

const script = "<script>document.title='hacked'</script>";
const image = "<img src=x onerror=\"document.title='hacked'\">";

/** A row that is cleaned and shown among the posts, and rows that are rejected, each for another reason. */
export const hostileRows: [Table, string][] = [
  ["pin", JSON.stringify(pin({ index: 900001, title: `${script}${image}`, follower_count: "1k" }))],
  ["geo", JSON.stringify(geo({ ind: 900001, country: `"><svg onload=alert(1)>` }))],
  ["pin", JSON.stringify(pin({ index: 900002, follower_count: `${image} \u202eM21` }))],
  ["geo", JSON.stringify(geo({ ind: 900003, country: script, latitude: 91.5 }))],
  ["geo", JSON.stringify(geo({ ind: 900004, country: script, timestamp: "2021-02-30 10:00:00" }))],
  [
    "user",
    JSON.stringify({ ind: 900005, first_name: script, last_name: "x", age: 431, date_joined: "2016-01-01 10:00:00" }),
  ],
  ["user", JSON.stringify({ ind: 900006, first_name: "Zoë", age: 31, date_joined: "2016-01-01 10:00:00" })],
  [
    "user",
    JSON.stringify({ ind: "12e3", first_name: "A", last_name: "B", age: 31, date_joined: "2016-01-01 10:00:00" }),
  ],
  ["pin", `"${"</script>"}"`],
  ["pin", "null"],
];

function pin(columns: object): object {
  return {
    ...{
      index: 0,
      unique_id: "u",
      title: "t",
      description: "d",
      poster_name: "p",
      follower_count: "1k",
      tag_list: "a,b",
    },
    ...{ is_image_or_video: "image", image_src: "https://i/", downloaded: 1 },
    ...{ save_location: "Local save in /data/art", category: "art" },
    ...columns,
  };
}

function geo(columns: object): object {
  return { ind: 0, timestamp: "2020-01-01 10:00:00", latitude: 1.5, longitude: 2.5, country: "Aruba", ...columns };
}
