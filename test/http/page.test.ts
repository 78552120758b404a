/**
 * The live page in a real browser while posts are emulated and cleaned; skipped without a browser.
 */
import assert from "node:assert/strict";
import { readdir, readFile, rename, writeFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { after, before, test } from "node:test";
import type { Browser, Page } from "playwright-core";
import { connectMysql } from "../../db_conn.ts";
import { serve } from "../../http/server.ts";
import { tableNames } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { readQuestions } from "../../report/questions.ts";
import { findBrowser, noBrowser, openBrowser, watchPage } from "../support/browser.ts";
import { hostileRows } from "../support/hostile_rows.ts";
import { type SharedServices, shareServices } from "../support/services.ts";
import { query, type Running, run, start } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

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
/** What the page says of the state, in the browser. */
const readState = `({
  title: document.querySelector("#state-title").textContent,
  state: document.querySelector("#state").dataset.state,
  text: document.querySelector("#state-text").innerText,
  command: document.querySelector("#state-command button")?.dataset.command ?? null,
})`;
/** Waits until the page names this state, and returns its text and the command to copy, all as of one moment. */
const stateIs = async (title: RegExp, where = page) => {
  for (;;) {
    await where.locator("#state-title", { hasText: title }).waitFor();
    const found = (await where.evaluate(readState)) as {
      title: string;
      state: string;
      text: string;
      command: string | null;
    };
    const { title: shown, state, text, command } = found;
    if (title.test(shown)) return { state, text, command: command === null ? null : argsOf(command) };
  }
};
/** A command line without the program's name. */
const argsOf = (command: string | null) => command?.replace(/^(npx tsx main\.ts|node main\.ts|\S+) /, "");
/** The arguments of a command of the page, with the options that lead to its services and lake. */
const command = (text: string) => `${text} --data '${services.data}' --creds ${services.creds}`;
/** Posts records over HTTP, and returns the status. */
const produce = async (table: string, records: unknown): Promise<number> => {
  const answer = await fetch(`${url}/topics/pinterest.${table}`, {
    ...{ method: "POST", body: `{"records":${typeof records === "string" ? records : JSON.stringify(records)}}` },
    headers: { "content-type": "application/vnd.kafka.json.v2+json", authorization: `Bearer ${token}` },
  });
  return answer.status;
};
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
const number = async (table: string, stage: string) =>
  Number((await page.locator(`[data-table="${table}"][data-stage="${stage}"]`).textContent())?.replace(/,/g, ""));

test("the login accepts only the token, works by keyboard, and leads to the page", { skip }, async () => {
  await page.goto(url);
  assert.equal(new URL(page.url()).pathname, "/login");
  await page.keyboard.type("not the token at all");
  await page.keyboard.press("Enter");
  await page.getByText("This token is wrong.").waitFor();
  await page.keyboard.type(token);
  await page.keyboard.press("Enter");
  await page.waitForURL(`${url}/`);
  await page.locator('#link[data-state="live"]').waitFor();
  assert.equal(await page.evaluate("document.cookie"), "");
});

test("the numbers move while posts are emulated and cleaned, and are equal at the end", { skip }, async () => {
  const { at } = services;
  await noRejects("No message has been cleaned yet.");
  const empty = await stateIs(/^Nothing is posted yet$/);
  assert.deepEqual(empty, {
    state: "waiting",
    text: "MySQL holds 600 rows. This command posts them:",
    command: command("post"),
  });
  const cleaning = start(["clean", "--follow", ...at]);
  try {
    const emulating = start(["emulate", "--rate", "50/s", "--seed", "5", "--json", ...at]);
    const seen = new Set<number>();
    while (seen.size < 5) {
      seen.add(await number("pin", "kafka"));
      await page.waitForTimeout(200);
    }
    for (const stage of ["kafka", "bronze", "silver"]) {
      const growing = page.locator(`td.${stage} .note`, { hasText: /^\+[\d.,]+\/s$/ });
      await growing.first().waitFor();
      assert.match((await page.locator(`#rate-${stage}`).textContent()) ?? "", /^[1-9][\d.,]*\/s$/);
    }
    // A page that is loaded again has the chart of what was before.
    await page.reload();
    await page.locator("#tables tr").first().waitFor();
    assert.match((await page.locator(".line.kafka").getAttribute("d")) ?? "", /^M[\d.]+ [\d.]+(L[\d.]+ [\d.]+){3}/);
    emulating.kill("SIGTERM");
    const { posts } = JSON.parse((await emulating.done).stdout) as { posts: number };
    assert.ok(posts > 0);
    // Offsets would be twice as many, since each post has a transaction marker.
    for (const table of tableNames) {
      for (const stage of ["kafka", "bronze", "silver"]) {
        const all = `[data-table="${table}"][data-stage="${stage}"]:text-is("${posts.toLocaleString("en-US")}")`;
        await page.locator(all).waitFor();
      }
      await page.locator(`[data-lag="${table}"][data-state="even"]`).waitFor();
      assert.equal(await number(table, "mysql"), 200);
    }
    const status = await run(["status", "--json", ...at]);
    const tables = JSON.parse(status.stdout) as Record<string, { clean: number }>;
    for (const table of tableNames) {
      const result = page.locator(".table", { has: page.locator(`[data-lag="${table}"]`) }).locator(".clean");
      assert.equal(await result.textContent(), `${tables[table]?.clean} clean`);
    }
    const even = await stateIs(/^Up to date$/);
    assert.deepEqual([even.state, even.command], ["good", null]);
    const clock = String.raw`\d\d:\d\d:\d\d`;
    const expected = `^All ${(3 * posts).toLocaleString("en-US")} messages are cleaned; clean is running since ${clock} \\(process ${cleaning.pid}\\)$`;
    assert.match(even.text, new RegExp(expected));
    assert.equal(await page.locator("#posts li").count(), 12);
    await noRejects("No message was rejected.");
  } finally {
    cleaning.kill("SIGKILL");
    await cleaning.done;
  }
});

test("messages that wait while no clean runs are an alarm with a command to copy", { skip }, async () => {
  const idle = await stateIs(/^Up to date$/);
  while (!idle.command) Object.assign(idle, await stateIs(/^Up to date$/));
  assert.match(idle.text, /No clean is running: new messages wait until this command runs:$/);
  const records = [{ value: validRow("pin", 900_100, { title: "Deleted later" }) }];
  assert.equal(await produce("pin", records), 200);
  const wait = await stateIs(/^1 message waits, and no clean is running$/);
  assert.deepEqual([wait.state, wait.command], ["wrong", command("clean --follow")]);
  assert.match(wait.text, /^The oldest was posted \d+ s ago\. This command cleans them:$/);
  await page.context().grantPermissions(["clipboard-read", "clipboard-write"], { origin: url });
  await page.locator("#state-command button").click();
  await page.locator("#state-command .copied", { hasText: "Copied" }).waitFor();
  assert.equal(argsOf(await page.evaluate("navigator.clipboard.readText()")), wait.command);
  const rebuild = await page.locator("[data-copy=rebuild] button").getAttribute("data-command");
  assert.equal(argsOf(rebuild), command("clean --rebuild"));
});

test("a deleted post is shown as deleted", { skip }, async () => {
  const post = page.locator("#posts li", { hasText: "900100" });
  await post.locator(".title", { hasText: /^Deleted later$/ }).waitFor();
  assert.equal(await produce("pin", [{ key: "900100", value: null }]), 200);
  await post.locator(".tag", { hasText: /^deleted$/ }).waitFor();
  assert.equal(await post.locator("del").textContent(), "Deleted later");
  assert.equal(await produce("geo", [{ value: validRow("geo", 900_100, { country: "Peru" }) }]), 200);
  await post.locator(".facts", { hasText: "Peru" }).waitFor();
  assert.equal((await run(["clean", ...services.at, "--quiet"])).code, 0);
});

test("hostile rows are shown as text and never run; a reject opens by keyboard and shows its message", {
  skip,
}, async () => {
  for (const [table, value] of hostileRows) assert.equal(await produce(table, `[{"value":${value}}]`), 200);
  // Neither a row nor a delete: the HTTP API refuses it, but another producer can write it to the topic.
  const producer = kafkaClient(services.kafka).producer({ allowAutoTopicCreation: false });
  await producer.connect();
  await producer.send({ topic: "pinterest.pin", messages: [{ key: null, value: null }] });
  await producer.disconnect();
  await page.getByText("<script>document.title='hacked'</script><img").first().waitFor();
  await page.getByText('"><svg onload=alert(1)>').first().waitFor();
  // Only the place of this post was posted, so its title is unknown.
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
  // The list is rebuilt while the dialog is open, as new rejects would do.
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

test("the newest of many rejects are shown, with the number of all", { skip }, async () => {
  const records = Array.from({ length: 1_100 }, () => ({ value: "no object" }));
  assert.equal(await produce("user", records), 200);
  assert.equal((await run(["clean", ...services.at, "--quiet"])).code, 3);
  await page.locator("#filter").selectOption("");
  await page.locator("#rejects-shown", { hasText: /^The newest 100 of 1,108$/ }).waitFor();
  assert.equal(await page.locator("#rejects button").count(), 100);
  await page.locator("#filter").selectOption("geo");
  await page.locator("#rejects-shown", { hasText: /^$/ }).waitFor({ state: "attached" });
});

test("the answers are small pictures beside their links, and a report older than the rows says so", {
  skip,
}, async () => {
  await page.locator("#report-age", { hasText: /^There is no report yet$/ }).waitFor();
  assert.equal((await run(["report", "--quiet", ...services.at])).code, 0);
  await page.locator('#report-age[data-state="fresh"]', { hasText: /No row has changed since$/ }).waitFor();
  await page.locator(".answer").nth(8).waitFor();
  const gold = await query(`SELECT * FROM '${services.data}/lake/gold/users_joined_by_year.parquet'`);
  const years = page.locator('[data-answer="users_joined_by_year"] .years li');
  assert.deepEqual(
    await years.locator(".name, .value").allTextContents(),
    gold.flatMap(({ join_year, number_users_joined }) => [String(number_users_joined), String(join_year)]),
  );
  const links = await page.locator(".answer a").evaluateAll((all) => all.map((a) => a.getAttribute("href")));
  for (const { name } of readQuestions()) assert.ok(links.includes(`/report#${name}`), name);
  assert.equal(await produce("pin", [{ key: "900200", value: null }]), 200);
  assert.equal((await run(["clean", ...services.at, "--quiet"])).code, 0);
  await page.locator('#report-age[data-state="old"]', { hasText: /The rows have changed since, last at / }).waitFor();
  for (const colorScheme of ["light", "dark"] as const) {
    const context = await browser.newContext({ colorScheme, bypassCSP: true, reducedMotion: "reduce" });
    await context.addCookies(await page.context().cookies());
    const view = await context.newPage();
    await view.goto(url);
    await view.locator(".answer").nth(8).waitFor();
    await audit(view, `answers ${colorScheme}`);
    await context.close();
  }
});

test("a broken file of answers is named where the answers would be", { skip }, async () => {
  const file = join(services.data, "lake", "gold", "top_country.parquet");
  const kept = await readFile(file);
  const context = await browser.newContext();
  await context.addCookies(await page.context().cookies());
  const view = await context.newPage();
  try {
    await writeFile(file, kept.subarray(0, 100));
    await view.goto(url);
    await view.locator("#answers-error:visible", { hasText: "top_country.parquet" }).waitFor();
    await writeFile(file, kept);
    await view.locator(".answer").nth(8).waitFor();
    await view.locator("#answers-error").waitFor({ state: "hidden" });
  } finally {
    await writeFile(file, kept);
    await context.close();
  }
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
  const message =
    /The ledger is not balanced: geo: \d+ messages, but \d+ clean \+ \d+ superseded \+ \d+ deleted \+ \d+ rejected\./;
  try {
    await wrong.waitFor();
    assert.equal(await wrong.textContent(), "The ledger is not balanced");
    assert.equal(await isBalanced(), "pin true, geo false, user true");
    assert.match((await run(["status", ...at])).stdout, /balanced +yes +NO +yes\n/);
    const cleaned = await run(["clean", ...at]);
    assert.deepEqual([cleaned.code, message.test(cleaned.stderr)], [1, true], cleaned.stderr);
    for (const json of [[], ["--json"]]) {
      const { code, stdout, stderr } = await run(["report", ...json, ...at]);
      assert.deepEqual([code, message.test(stderr)], [1, true], stderr);
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

test("the page shows how far a table is behind MySQL until it is posted", { skip }, async () => {
  const { at, mysql } = services;
  const behind = (table: string, text: RegExp) =>
    page.locator(`td:has([data-table="${table}"][data-stage="mysql"]) .note`, { hasText: text });
  assert.equal((await run(["post", ...at, "--quiet"])).code, 0);
  const db = await connectMysql(mysql);
  try {
    await db.query("UPDATE user_data SET age = age + 1 WHERE ind = 1");
    await behind("user", /^\d+ s, \d+ (bytes|kB) not posted$/).waitFor();
    await behind("pin", /^all posted$/).waitFor();
    assert.equal((await run(["post", ...at, "--quiet"])).code, 0);
    await behind("user", /^all posted$/).waitFor();
  } finally {
    db.destroy();
  }
});

test("without Kafka and MySQL the page says which is missing, and what to check", { skip }, async () => {
  const nowhere = { host: "127.0.0.1", port: 1 };
  const stop = new AbortController();
  let listening = (_url: string) => {};
  const address = new Promise<string>((resolve) => {
    listening = resolve;
  });
  const commands = { post: "post", clean: "clean", rebuild: "rebuild", report: "report", serve: "program serve" };
  const serving = serve({
    ...{ mysql: { ...nowhere, user: "nobody", password: "", database: "none" }, commands, anyPrefix: false },
    ...{ kafka: { ...services.kafka, brokers: ["127.0.0.1:1"] }, lake: join(services.folder.path, "none") },
    ...{ host: nowhere.host, port: 0, signal: stop.signal },
    onFact: (fact) => void (fact.fact === "listening" && listening(fact.url)),
  });
  const view = await browser.newPage();
  try {
    await view.goto(await address);
    const away = await stateIs(/^Cannot reach MySQL at 127\.0\.0\.1:1$/, view);
    assert.match(away.text, /^Its rows are not counted until it is back; check that it is running/);
    assert.match(
      away.text,
      /Cannot reach Kafka at 127\.0\.0\.1:1: nothing can be posted or landed until it is back; check/,
    );
  } finally {
    stop.abort();
    await serving;
  }
  const stopped = await stateIs(/^Cannot reach the server$/, view);
  assert.equal(stopped.command, "serve");
  assert.match(stopped.text, /The numbers below are from \d\d:\d\d:\d\d\./);
  await view.close();
});

test("the page with its scripts is under 100 kB", { skip }, async () => {
  const view = await browser.newPage();
  let bytes = 0;
  view.on("response", async (answer) => {
    bytes += (await answer.body().catch(() => Buffer.alloc(0))).length;
  });
  await view.goto(`${url}/login`);
  for (const name of [
    "index.html",
    "page.css",
    "page.js",
    "dom.js",
    "charts.js",
    "state.js",
    "rejects.js",
    "icon.svg",
  ]) {
    await view.goto(`${url}/page/${name}`);
  }
  assert.ok(bytes > 20_000 && bytes < 100_000, `${bytes}`);
  await view.close();
});

test("the page requests only from its server, and never violates its policy", { skip }, () => {
  watched.isQuiet(url);
});
