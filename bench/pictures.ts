/**
 * Takes the pictures of the live page and the report into docs/pictures/: `npm run pictures`. They show the page while
 * an emulation runs and is cleaned, light, dark and narrow, and after clean was killed.
 *
 * @module
 */

import { existsSync } from "node:fs";
import { mkdir } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { findBrowser, noBrowser, openBrowser } from "../test/support/browser.ts";
import { hostileRows } from "../test/support/hostile_rows.ts";
import { openServices } from "../test/support/services.ts";
import { run, start } from "../test/support/support.ts";

const folder = new URL("../docs/pictures/", import.meta.url).pathname;
const looks = {
  light: { colorScheme: "light", viewport: { width: 1180, height: 900 } },
  dark: { colorScheme: "dark", viewport: { width: 1180, height: 900 } },
  narrow: { colorScheme: "light", viewport: { width: 390, height: 844 } },
} as const;
/** The section of the report in each look; empty is the top of the page. */
const sections = { light: "", dark: "top_category_by_country", narrow: "" } as const;

const executable = findBrowser();
if (!executable) throw new Error(noBrowser);
await mkdir(folder, { recursive: true });
const services = await openServices({ rows: 11_154 });
const at = ["--data", services.data];
const server = start(["serve", ...at, "--port", "0"]);
const running = [server];
try {
  await server.said(/Listening on \S+\n/);
  const url = /Listening on (\S+)/.exec(server.output())?.[1] as string;
  await run(["post", ...at]);
  await run(["clean", ...at]);
  await run(["report", ...at]);
  for (const [topic, value] of hostileRows) {
    await fetch(`${url}/topics/pinterest.${topic}`, {
      ...{ method: "POST", headers: { "content-type": "application/vnd.kafka.json.v2+json" } },
      body: `{"records":[{"value":${value}}]}`,
    });
  }
  const emulating = start(["emulate", "--rate", "25/s", "--limit", "100000", ...at]);
  const cleaning = start(["clean", "--follow", ...at]);
  running.push(cleaning, emulating);
  await emulating.said(/user_result/);
  await using browser = await openBrowser(executable);
  for (const [name, look] of Object.entries(looks)) {
    await using context = await browser.newContext({ ...look, deviceScaleFactor: 1.5 });
    const page = await context.newPage();
    page.setDefaultTimeout(120_000);
    await page.goto(url);
    await page.locator("#rejects button").first().waitFor();
    await page.locator(".answer").last().waitFor();
    // The first page waits until the chart shows a whole minute of the emulation; the server keeps it for the others.
    await sleep(name === "light" ? 70_000 : 8_000);
    await page.screenshot({ path: join(folder, `page-${name}.png`), fullPage: name === "narrow" });
    if (name === "light") {
      await page.locator("#rejects button", { hasText: "coordinates" }).click();
      await page.locator("dialog[open]").waitFor();
      await page.screenshot({ path: join(folder, "page-reject.png") });
    }
    if (!existsSync(join(services.data, "lake/gold/report.html"))) continue;
    await page.goto(`${url}/report#${sections[name as keyof typeof sections]}`);
    await page.screenshot({ path: join(folder, `report-${name}.png`) });
  }
  cleaning.kill("SIGKILL");
  await sleep(20_000);
  await using context = await browser.newContext({ ...looks.light, deviceScaleFactor: 1.5 });
  const page = await context.newPage();
  await page.goto(url);
  await page.locator("#state-title", { hasText: "no clean is running" }).waitFor();
  await page.locator(".answer").last().waitFor();
  await page.screenshot({ path: join(folder, "page-waiting.png") });
} finally {
  for (const { kill } of running) kill("SIGTERM");
  for (const { done } of running) await done;
  await services.close();
}
