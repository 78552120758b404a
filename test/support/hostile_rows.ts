/**
 * Rows with text of injection attacks, which the page must show and not run: by table, as JSON.
 *
 * @module
 */
import type { Table } from "../../io.ts";
import { validRow } from "./valid_row.ts";

const script = "<script>document.title='hacked'</script>";
const image = "<img src=x onerror=\"document.title='hacked'\">";

/** A clean row that is shown among the posts, and rows that are rejected for different reasons. */
export const hostileRows: [Table, string][] = [
  ["pin", JSON.stringify(validRow("pin", 900001, { title: `${script}${image}`, follower_count: "1k" }))],
  ["geo", JSON.stringify(validRow("geo", 900001, { country: `"><svg onload=alert(1)>` }))],
  ["pin", JSON.stringify(validRow("pin", 900002, { follower_count: `${image} \u202eM21` }))],
  ["geo", JSON.stringify(validRow("geo", 900003, { country: script, latitude: 91.5 }))],
  ["geo", JSON.stringify(validRow("geo", 900004, { country: script, timestamp: "2021-02-30 10:00:00" }))],
  ["user", JSON.stringify(validRow("user", 900005, { first_name: script, age: 431 }))],
  ["user", JSON.stringify(validRow("user", 900006, { last_name: undefined }))],
  ["user", JSON.stringify(validRow("user", 7, { ind: "12e3" }))],
  ["pin", `"${"</script>"}"`],
];
