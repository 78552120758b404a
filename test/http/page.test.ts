/**
 * The live page in a real browser, while posts are emulated and cleaned: skipped where there is no browser.
 */
import assert from "node:assert/strict";
import { readdir, readFile, rename } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { connectMysql } from "../../db_conn.ts";
import { tableNames } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { findBrowser, noBrowser, openBrowser, watchPage } from "../support/browser.ts";
import { hostileRows } from "../support/hostile_rows.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { type Running, run, start } from "../support/support.ts";

const executable = findBrowser();
const skip = executable ? false : noBrowser;
const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
const token = "page-test-token-0123";

let services: SharedServices;
let server: Running;
let url: string;
let browser: Browser;
let page: Page;
let watched: ReturnType<typeof watchPage>;

before(async () => {
  if (!executable) return;
  services = await shareServices({ rows: 200, name: "page" });
  server = start(["serve", ...services.at, "--port", "0"], { env: { PIPELINE_TOKEN: token } });
  await server.said(/Listening on \S+\n/);
  url = /Listening on (\S+)/.exec(server.output())?.[1] as string;
  browser = await openBrowser(executable);
  page = await browser.newPage();
  watched = watchPage(page);
});
after(async () => {
  await browser?.close();
  server?.kill("SIGTERM");
  await server?.done;
  await services?.close();
});

const noRejects = (text: string) => page.locator("#no-rejects:visible", { hasText: text }).waitFor();
const number = async (table: string, stage: string) =>
  Number((await page.locator(`[data-table="${table}"][data-stage="${stage}"]`).textContent())?.replace(/,/g, ""));

test("the login takes the token alone, by keyboard, and leads to the page", { skip }, async () => {
  await page.goto(url);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.keyboard.type("not the token at all");
  await page.keyboard.press("Enter");
  await page.getByText("This is not the token.").waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${url}/`);
  await page.locator('#link[data-state="live"]').waitFor();
  assert.equal(await page.evaluate("document.cookie"), "");
});

test("the numbers move while posts are emulated and cleaned, and end right", { skip }, async () => {
  const { at } = services;
  await noRejects("Nothing is cleaned yet.");
  const cleaning = start(["clean", "--follow", ...at]);
  try {
    const emulating = start(["emulate", "--rate", "50/s", "--seed", "5", "--json", ...at]);
    const seen = new Set<number>();
    while (seen.size < 5) {
      seen.add(await number("pin", "topic"));
      await page.waitForTimeout(200);
    }
    // The two stages that the chart compares grow by one unit.
    for (const stage of ["topic", "bronze"]) {
      const growing = page.locator(`.${stage} .rate`, { hasText: /^\+[\d.,]+ offsets\/s$/ });
      await growing.first().waitFor();
    }
    emulating.kill("SIGTERM");
    const { posts } = JSON.parse((await emulating.done).stdout) as { posts: number };
    assert.ok(posts > 0);
    const allLanded = tableNames.map(
      (table) => `[data-table="${table}"][data-stage="bronze"]:text-is("${posts.toLocaleString("en-US")}")`,
    );
    for (const landed of allLanded) await page.locator(landed).waitFor();
    for (const table of tableNames) {
      await page.locator(`[data-lag="${table}"][data-state="even"]`).waitFor();
      assert.equal(await number(table, "mysql"), 200);
    }
    const status = await run(["status", "--json", ...at]);
    const tables = JSON.parse(status.stdout) as Record<string, { clean: number; in_topic: number }>;
    for (const table of tableNames) {
      assert.equal(await number(table, "silver"), tables[table]?.clean);
      assert.equal(await number(table, "topic"), tables[table]?.in_topic);
    }
    assert.equal(await page.locator("#posts li").count(), 12);
    await noRejects("Nothing was rejected.");
  } finally {
    cleaning.kill("SIGTERM");
    await cleaning.done;
  }
});

test("hostile rows are shown and nothing of them runs; a reject opens by keyboard and shows its message", {
  skip,
}, async () => {
  for (const [table, value] of hostileRows) {
    const answer = await fetch(`${url}/topics/pinterest.${table}`, {
      ...{ method: "POST", body: `{"records":[{"value":${value}}]}` },
      headers: { "content-type": "application/vnd.kafka.json.v2+json", authorization: `Bearer ${token}` },
    });
    assert.equal(answer.status, 200);
  }
  // Neither a row nor a delete: the HTTP API does not take it, but whoever else writes to the topic can.
  const producer = kafkaClient(services.kafka).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  await producer.send({ topic: "pinterest.pin", messages: [{ key: null, value: null }] });
  await producer.disconnect();
  await page.getByText("<script>document.title='hacked'</script><img").first().waitFor();
  await page.getByText('"><svg onload=alert(1)>').first().waitFor();
  // Of this post only the place has come: what its title is nobody knows.
  const placeOnly = page.locator("#posts li", { hasText: "900003" }).locator(".title");
  assert.equal(await placeOnly.textContent(), "…");
  assert.equal((await run(["clean", ...services.at, "--quiet"])).code, 3);
  const rejects = page.locator("#rejects button");
  await page.locator("#rejects button").nth(7).waitFor();
  assert.equal(await rejects.count(), 8);
  await page.locator("#filter").focus();
  await page.locator("#filter").selectOption("geo/bad_coordinates");
  await page.locator("#rejects li:nth-child(2)").waitFor({ state: "detached" });
  await page.keyboard.press("Tab");
  await page.keyboard.press("Enter");
  await page.locator("dialog[open]").waitFor();
  // The list is made anew while the dialog is open, as news makes it.
  await page.evaluate("document.querySelector('#rejects button').id = 'old'");
  await page.evaluate("document.querySelector('#filter').dispatchEvent(new Event('change'))");
  await page.locator("#old").waitFor({ state: "detached" });
  assert.match((await page.locator("#dialog-facts").textContent()) ?? "", /latitude: 91\.5/);
  assert.match(
    (await page.locator("#dialog-raw").textContent()) ?? "",
    /^\{"ind":900003,.*<script>document\.title='hacked'<\/script>"\}$/,
  );
  await page.keyboard.press("Escape");
  await page.locator("dialog[open]").waitFor({ state: "detached" });
  await page.locator("#rejects button[data-place^='geo/0/']:focus").waitFor({ timeout: 5_000 });
  assert.equal(await page.title(), "Pinterest data pipeline");
  assert.equal(
    await page.evaluate(`document.querySelectorAll('#posts script, #posts img, #posts svg, #rejects script').length`),
    0,
  );
});

test("axe finds no violation: the page, a reject, the login; light, dark and narrow", { skip }, async () => {
  const cookies = await page.context().cookies();
  const audit = async (where: Page, what: string) => {
    await where.evaluate(axe);
    const { violations } = (await where.evaluate("axe.run()")) as {
      violations: { id: string; nodes: { html: string }[] }[];
    };
    assert.deepEqual(
      violations.map(({ id, nodes }) => `${what} ${id}: ${nodes.map(({ html }) => html)}`),
      [],
    );
  };
  for (const colorScheme of ["light", "dark"] as const) {
    for (const width of [1180, 390]) {
      const context = await browser.newContext({
        colorScheme,
        viewport: { width, height: 800 },
        bypassCSP: true,
        reducedMotion: "reduce",
      });
      const view = await context.newPage();
      await view.goto(`${url}/login`);
      await audit(view, `login ${colorScheme} ${width}`);
      await context.addCookies(cookies);
      await view.goto(`${url}/report`);
      await view.getByText("There is no report yet.").waitFor();
      await audit(view, `no report ${colorScheme} ${width}`);
      await view.goto(url);
      await view.locator("#rejects button").first().waitFor();
      await audit(view, `page ${colorScheme} ${width}`);
      const wide = await view.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth");
      assert.equal(wide, 0, `${width} scrolls sideways`);
      await view.locator("#rejects button").first().click();
      await view.locator("dialog[open]").waitFor();
      await audit(view, `reject ${colorScheme} ${width}`);
      await context.close();
    }
  }
});

test("of many rejects the newest are shown, and how many there are", { skip }, async () => {
  const records = Array.from({ length: 1_100 }, () => ({ value: "no object" }));
  const answer = await fetch(`${url}/topics/pinterest.user`, {
    ...{ method: "POST", body: JSON.stringify({ records }) },
    headers: { "content-type": "application/vnd.kafka.json.v2+json", authorization: `Bearer ${token}` },
  });
  assert.equal(answer.status, 200);
  assert.equal((await run(["clean", ...services.at, "--quiet"])).code, 3);
  await page.locator("#filter").selectOption("");
  await page.locator("#rejects-shown", { hasText: /^The newest 100 of 1,108$/ }).waitFor();
  assert.equal(await page.locator("#rejects button").count(), 100);
  await page.locator("#filter").selectOption("geo");
  await page.locator("#rejects-shown", { hasText: /^$/ }).waitFor({ state: "attached" });
});

test("a ledger that is not balanced is shown by the page, by status and by report, which then fails", {
  skip,
}, async () => {
  const { at } = services;
  const wrong = page.locator('[data-sums="geo"]:visible');
  const isBalanced = async () => {
    const { stdout } = await run(["status", "--json", ...at]);
    const found = Object.entries(JSON.parse(stdout) as Record<string, { balanced: boolean }>);
    return found.map(([table, { balanced }]) => `${table} ${balanced}`).join(", ");
  };
  assert.equal((await run(["report", "--quiet", ...at])).code, 0);
  assert.equal(await isBalanced(), "pin true, geo true, user true");
  assert.equal(await wrong.count(), 0);
  const bronze = join(services.data, "lake/bronze/geo");
  const [name = ""] = await readdir(bronze);
  const tampered = name.replace(/-(\d+)\.tsv$/, (_, messages: string) => `-${Number(messages) - 1}.tsv`);
  assert.notEqual(tampered, name);
  await rename(join(bronze, name), join(bronze, tampered));
  const told =
    /The ledger is not balanced: geo: \d+ messages, but \d+ clean \+ \d+ superseded \+ \d+ deleted \+ \d+ rejected\./;
  try {
    await wrong.waitFor();
    assert.equal(await wrong.textContent(), "The ledger is not balanced");
    assert.equal(await isBalanced(), "pin true, geo false, user true");
    assert.match((await run(["status", ...at])).stdout, /balanced +yes +NO +yes\n/);
    const cleaned = await run(["clean", ...at]);
    assert.deepEqual([cleaned.code, told.test(cleaned.stderr)], [1, true], cleaned.stderr);
    for (const json of [[], ["--json"]]) {
      const { code, stdout, stderr } = await run(["report", ...json, ...at]);
      assert.deepEqual([code, told.test(stderr)], [1, true], stderr);
      if (json.length > 0) assert.ok("ledger" in JSON.parse(stdout));
      else assert.match(stdout, /balanced +yes +NO +yes\n/);
    }
  } finally {
    await rename(join(bronze, tampered), join(bronze, name));
  }
  assert.equal((await run(["clean", "--quiet", ...at])).code, 0);
  assert.equal((await run(["report", "--quiet", ...at])).code, 0);
  await wrong.waitFor({ state: "hidden" });
});

test("a table that is behind MySQL says so, until it is posted", { skip }, async () => {
  const { at, mysql } = services;
  const behind = (table: string, text: RegExp) => page.locator(`[data-behind="${table}"]`, { hasText: text });
  assert.equal((await run(["post", ...at, "--quiet"])).code, 0);
  const db = await connectMysql(mysql);
  try {
    await db.query("UPDATE user_data SET age = age + 1 WHERE ind = 1");
    await behind("user", /^\d+ s, \d+ (bytes|kB) behind MySQL$/).waitFor();
    await behind("pin", /^$/).waitFor({ state: "attached" });
    assert.equal((await run(["post", ...at, "--quiet"])).code, 0);
    await behind("user", /^$/).waitFor({ state: "attached" });
  } finally {
    db.destroy();
  }
});

test("the page asks nobody but its server, and nothing broke its policy", { skip }, () => {
  watched.isQuiet(url);
});
