/**
 * Creates report pages from messages, without services.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Table } from "../../io.ts";
import { report } from "../../report/report.ts";
import { makeLake } from "./lake_of.ts";
import { hostileMessages } from "./messages.ts";
import type { Message } from "./oracle.ts";
import { copyProgram, run } from "./support.ts";
import { validRow } from "./valid_row.ts";

/** Converts rows to messages of one partition. */
export const toMessages = (rows: object[]): Message[] =>
  rows.map((row, offset) => ({
    ...{ partition: 0, offset, postedAt: 1_666_000_000_000, key: null },
    value: Buffer.from(JSON.stringify(row)),
  }));

/** Creates a lake from messages in a folder, and its report page. */
export async function makePage(
  lake: string,
  messages: Partial<Record<Table, Message[]>>,
): Promise<{ lake: string; page: string }> {
  await makeLake(lake, messages);
  await report({ lake, signal: new AbortController().signal });
  return { lake, page: await readFile(join(lake, "gold", "report.html"), "utf8") };
}

/** A page from messages with every kind of damage. */
export const makeHostilePage = (lake: string) =>
  makePage(lake, {
    pin: hostileMessages("pin", 3000, 5),
    geo: hostileMessages("geo", 3000, 5),
    user: hostileMessages("user", 3000, 5),
  });

/** Texts that would run or change the page if they were not escaped. */
export const scripts = [
  "<script>window.hacked=1</script>",
  `"><img src=x onerror="window.hacked=1">`,
  "</style></svg></title><script>window.hacked=1</script>",
  "]]><!-- {{x}} ${x} &lt;b&gt; & \\",
  "\u202egnp.exe\u2066",
];

/** A page from messages with such texts. */
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

/** A copy of the program without services, with a lake of two posts and one additional answer. */
export async function programWithAnswer(folder: string, name: string, file: string, sql: string) {
  const root = join(folder, `program ${name}`);
  const program = await copyProgram(root);
  await writeFile(join(root, "sql", "answers", file), sql);
  const data = join(folder, `data ${name}`);
  await makeLake(join(data, "lake"), {
    pin: toMessages([
      validRow("pin", 1, { tag_list: "a" }),
      validRow("pin", 2, { is_image_or_video: "video", tag_list: "b,<c>" }),
    ]),
  });
  const creds = join(root, "creds.yaml");
  const mysql = "HOST: 127.0.0.1\nPORT: 1\nUSER: nobody\nPASSWORD: none\n";
  await writeFile(creds, `${mysql}KAFKA:\n  BROKERS: ["127.0.0.1:1"]\n`, { mode: 0o600 });
  const args = ["report", "--data", data, "--creds", creds, "--wait", "0"];
  return { root, lake: join(data, "lake"), report: () => run(args, { program }) };
}

/** The cells of a table of the page as text; numbers without thousands separators. */
export function tableOf(page: string, id: string): string[][] {
  const found = new RegExp(`<table id="table-${id}">[^]*?</table>`).exec(page)?.[0];
  assert.ok(found, `The page has no table "${id}"`);
  return [...found.matchAll(/<tr>(.*?)<\/tr>/gs)].map(([, row = ""]) =>
    [...row.matchAll(/<t[hd][^>]*?( class="n")?>(.*?)<\/t[hd]>/gs)].map(([, isNumber, cell = ""]) =>
      isNumber ? decode(cell).replaceAll(",", "") : decode(cell),
    ),
  );
}

const decode = (text: string) =>
  text
    .replace(/<i>none<\/i>/g, "null")
    .replace(/<[^>]*>/g, "")
    .replace(
      /&lt;|&gt;|&quot;|&#39;|&amp;/g,
      (e) => ({ "&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'" })[e] ?? "&",
    );
