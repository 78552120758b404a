/** One more answer on the screen, in gold and on the page. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { programWithAnswer, tableOf } from "../support/report_page.ts";
import { query, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

test("an answer is one SQL file: it is on the screen, in gold and on the page, after the answers of lower numbers", async () => {
  const sql = `-- Posts & their tags, by kind
-- The second line is no part of the title.
SELECT is_image_or_video AS kind, CAST(count(*) AS BIGINT) AS post_count, any_value(tag_list) AS tags
FROM pin GROUP BY is_image_or_video ORDER BY kind
`;
  const { lake, report } = await programWithAnswer(folder.path, "new answer", "10_constructor.sql", sql);
  const { code, stdout, stderr } = await report();
  assert.equal(code, 0, stderr);
  assert.match(
    stdout,
    /\n\nPosts & their tags, by kind \(constructor\)\n {2}kind .*\n.*\n {2}image +1 .*\n {2}video +1 /,
  );
  const names = [...stdout.matchAll(/^\S.* \((\w+)\)$/gm)].map(([, name]) => name);
  assert.deepEqual([names[0], names[1], names.at(-1)], ["top_category_by_country", "category_by_year", "constructor"]);
  const rows = await query(`SELECT kind, post_count FROM '${lake}/gold/constructor.parquet'`);
  assert.deepEqual(rows, [
    { kind: "image", post_count: 1n },
    { kind: "video", post_count: 1n },
  ]);
  const page = await readFile(join(lake, "gold", "report.html"), "utf8");
  assert.match(page, /<li><a href="#constructor">Posts &amp; their tags, by kind<\/a><\/li><\/ol>/);
  assert.match(
    page,
    /<section id="constructor">\n<h2><span class="number">10<\/span> Posts &amp; their tags, by kind</,
  );
  assert.match(page, /<h1>Ten answers from 2 posts</);
  assert.deepEqual(tableOf(page, "constructor"), [
    ["Kind", "Post_count", "Tags"],
    ["image", "1", "a"],
    ["video", "1", "b,<c>"],
  ]);
});
