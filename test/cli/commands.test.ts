/** What `status` shows, the summary of a run, the seed of `emulate`. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdir, rename, utimes } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { paths } from "../../lake/files.ts";
import type { TableStatus } from "../../report/status.ts";
import { makeLake } from "../support/lake_of.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { ok, run, start } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

let services: SharedServices;
before(async () => {
  services = await shareServices({ rows: 20, name: "status" });
});
after(() => services?.close());

test("status without running services shows what the lake's files say, and starts nothing", async () => {
  const data = join(services.folder.path, "still");
  const message = { partition: 0, offset: 0, postedAt: 1_700_000_000_000, key: Buffer.from("0") };
  await makeLake(join(data, "lake"), { pin: [{ ...message, value: Buffer.from(JSON.stringify(validRow("pin", 0))) }] });
  const { stdout, stderr } = ok(await run(["status", "--data", data], { cwd: services.folder.path }));
  assert.match(stderr, /The program's MySQL and Kafka are not running.* up --data .*still/);
  assert.match(stdout, /^ {2}rows in MySQL +- +- +-\n/m);
  assert.match(stdout, /^ {2}clean rows +1 +0 +0\n/m);
  const json = ok(await run(["status", "--json", "--data", data], { cwd: services.folder.path })).stdout;
  const { pin } = JSON.parse(json) as Record<string, TableStatus>;
  assert.deepEqual([pin?.in_mysql, pin?.in_topic, pin?.lag, pin?.clean], [null, null, null, 1]);
  assert.equal(existsSync(join(data, "services")), false);
});

test("status --watch shows each change, as text and as lines of JSON, until stopped", async () => {
  const at = [...services.at, "--prefix", "watched"];
  const [text, json] = [start(["status", "--watch", ...at]), start(["status", "--watch", "--json", ...at])];
  await Promise.all([text.said(/rows posted +0 /), json.said(/"posted":0,/)]);
  ok(await run(["post", ...at]));
  await Promise.all([text.said(/rows posted +20 /), json.said(/"posted":20,/)]);
  for (const watching of [text, json]) watching.kill("SIGINT");
  const [texts, lines] = await Promise.all([text.done, json.done]);
  assert.deepEqual([texts.code, lines.code], [130, 130]);
  assert.match(texts.stdout, /^\d\d:\d\d:\d\d {2}every 2 s; Ctrl\+C stops\n +pin +geo +user\n/);
  for (const line of lines.stdout.trim().split("\n")) {
    const found = JSON.parse(line) as { at: string; tables: Record<string, TableStatus> };
    assert.ok(Date.parse(found.at) > 0);
    assert.equal(found.tables.pin?.in_mysql, 20);
  }
  const first = ok(await run(["status", "--watch", ...at], { piped: "head -1" }));
  assert.match(first.stdout, /every 2 s/);
});

test("status says when the report is older than the rows", async () => {
  const at = [...services.at, "--prefix", "watched"];
  const note = /The report is .* older than the rows; to update it: .* report --data/;
  for (const command of ["clean", "report"]) ok(await run([command, ...at]));
  assert.doesNotMatch(ok(await run(["status", ...at])).stderr, note);
  const { gold } = paths(join(services.data, "lake"));
  const early = new Date(Date.now() - 3_600_000);
  await utimes(join(gold, "report.html"), early, early);
  assert.match(ok(await run(["status", ...at])).stderr, note);
  await mkdir(join(gold, "aside"));
  await rename(join(gold, "report.html"), join(gold, "aside", "report.html"));
  assert.doesNotMatch(ok(await run(["status", ...at])).stderr, note);
});

test("a run ends with one summary that names the page and the next commands", async () => {
  const { stderr } = ok(await run([...services.at, "--prefix", "watched", "--wait", "30"]));
  assert.match(stderr, /^post {4}pin 0, geo 0, user 0 in /m);
  const summary = /\nDone in .*: 60 messages, 60 clean, 0 rejected; ledger balanced\n\n([\s\S]*)$/.exec(stderr)?.[1];
  const options = `--data '${services.data}' --creds ${services.creds} --prefix watched`;
  const gold = join(services.data, "lake", "gold");
  assert.equal(
    summary?.replace(/(npx tsx main\.ts|\S+ \S*main\S*|\S+) (serve|status) /g, "$2 "),
    `  Report   open ${gold}/report.html
  Data     all rows of each answer: ${gold}/*.parquet
  Live     serve ${options}
  Status   status ${options}
`,
  );
});

test("emulate shows the seed with --quiet too", async () => {
  const { stdout, stderr } = ok(await run(["emulate", "--quiet", "--limit", "1", ...services.at, "--prefix", "seed"]));
  assert.deepEqual([stdout, /^Posting with seed \d+$/m.test(stderr)], ["", true]);
});
