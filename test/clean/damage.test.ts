/** Files of the lake that were cut or overwritten: clean and report name them, and a rebuild repairs them. */
import assert from "node:assert/strict";
import { copyFile, readdir, readFile, stat, truncate, writeFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { after, before, test } from "node:test";
import { cleanLanded } from "../../clean/rebuild.ts";
import { explainDisk, paths } from "../../lake/files.ts";
import { report } from "../../report/report.ts";
import { makeLake } from "../support/lake_of.ts";
import { toMessages } from "../support/report_page.ts";
import { ok, query, run, temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

const named =
  /^Error: A file of the lake is damaged: [^\n]*\.parquet[^\n]*; run clean --rebuild, which rebuilds [^\n]*$/;

test("a damaged file of silver, deletes or rejects is named, and a rebuild has no new rejects", async () => {
  const lake = join(folder.path, "data", "lake");
  const posts = toMessages([validRow("pin", 1), validRow("pin", 2), validRow("pin", 3, { index: "no number" })]);
  const deleted = { ...posts[0], offset: 3, key: Buffer.from("1"), value: null } as (typeof posts)[number];
  await makeLake(lake, { pin: [...posts, deleted] });
  const { silver, deletes, rejects } = paths(lake);
  const options = { lake, signal: new AbortController().signal, onFact: () => {} };
  for (const parent of [silver("pin"), deletes("pin"), rejects]) {
    const name = (await readdir(parent)).find((each) => /^(pin-)?\d+\.parquet$/.test(each)) as string;
    const file = join(parent, name);
    const kept = join(folder.path, "kept.parquet");
    await copyFile(file, kept);
    await truncate(file, 100);
    await assert.rejects(cleanLanded(options), named);
    if (parent === silver("pin")) await assert.rejects(report(options), named);
    const rebuilt = ok(await run(["clean", "--rebuild", "--data", dirname(lake)]));
    assert.ok(!rebuilt.stderr.includes("rejected messages"), rebuilt.stderr);
    assert.ok((await stat(file)).size > 100);
    await cleanLanded(options);
  }
});

test("an overwritten page or footer of a Parquet file is explained, and a damaged ledger needs only clean", async () => {
  const file = join(folder.path, "some.parquet");
  await query(`COPY (SELECT range AS i, md5(range::VARCHAR) AS t FROM range(50000)) TO '${file}' (COMPRESSION zstd)`);
  const whole = await readFile(file);
  for (const at of [4, whole.length - 8]) {
    const bytes = Buffer.from(whole).fill(0xa7, at, at + 8);
    await writeFile(file, bytes);
    const failed = await query(`SELECT sum(hash(i, t)) FROM '${file}'`).then(
      () => assert.fail(`no error at ${at}`),
      (error: unknown) => error,
    );
    assert.match(explainDisk(failed, "lake").message, /^A file of the lake is damaged: .*; run clean --rebuild/);
  }
  const ledger = new Error("Invalid Input Error: No magic bytes found at end of file 'lake/gold/ledger.parquet'");
  assert.match(explainDisk(ledger, "lake").message, /; run clean, which writes the ledger again$/);
});
