/**
 * Report pages from messages, without services.
 *
 * @module
 */

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Table } from "../../io.ts";
import { report } from "../../report/report.ts";
import { makeLake } from "./lake_of.ts";
import { hostileMessages } from "./messages.ts";
import type { Message } from "./oracle.ts";
import { validRow } from "./valid_row.ts";

/** Rows as messages of one partition. */
export const toMessages = (rows: object[]): Message[] =>
  rows.map((row, offset) => ({
    ...{ partition: 0, offset, postedAt: 1_666_000_000_000, key: null },
    value: Buffer.from(JSON.stringify(row)),
  }));

/** Makes a lake of these messages in a folder, and its report page. */
export async function makePage(
  lake: string,
  messages: Partial<Record<Table, Message[]>>,
): Promise<{ lake: string; page: string }> {
  await makeLake(lake, messages);
  await report({ lake, signal: new AbortController().signal });
  return { lake, page: await readFile(join(lake, "gold", "report.html"), "utf8") };
}

/** A page of messages that were spoiled in every way. */
export const makeHostilePage = (lake: string) =>
  makePage(lake, {
    pin: hostileMessages("pin", 3000, 5),
    geo: hostileMessages("geo", 3000, 5),
    user: hostileMessages("user", 3000, 5),
  });

/** Text that would run, or look otherwise, where it is taken for more than text. */
export const scripts = [
  "<script>window.hacked=1</script>",
  `"><img src=x onerror="window.hacked=1">`,
  "</style></svg></title><script>window.hacked=1</script>",
  "]]><!-- {{x}} ${x} &lt;b&gt; & \\",
  "\u202egnp.exe\u2066",
];

/** A page of messages that are such text. */
export const makeScriptPage = (lake: string) =>
  makePage(lake, {
    pin: toMessages(
      scripts.map((text, i) =>
        validRow("pin", i, { title: text, poster_name: `${text} poster`, category: text, follower_count: i }),
      ),
    ),
    geo: toMessages(scripts.map((text, i) => validRow("geo", i, { country: `${text} land` }))),
    user: toMessages(scripts.map((text, i) => validRow("user", i, { first_name: text, age: 18 + i * 9 }))),
  });
