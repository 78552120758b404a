/** The report page in a real browser; skipped without one. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { join } from "node:path";
import { test } from "node:test";
import { pathToFileURL } from "node:url";
import { findBrowser, noBrowser, openBrowser } from "../support/browser.ts";
import { makeHostilePage, makePage, makeScriptPage } from "../support/report_page.ts";
import { temporaryFolder } from "../support/support.ts";

const browser = findBrowser();

test("in a browser: no error, no request, no script runs, no accessibility violation, nothing wider than a phone", {
  skip: browser === undefined && noBrowser,
}, async () => {
  const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
  const folder = await temporaryFolder();
  const at = (name: string) => join(folder.path, name);
  const running = await openBrowser(browser as string);
  try {
    for (const { lake } of [
      await makeHostilePage(at("hostile")),
      await makeScriptPage(at("scripts")),
      await makePage(at("empty"), {}),
    ]) {
      const url = pathToFileURL(join(lake, "gold", "report.html")).href;
      for (const [width, colorScheme] of [
        [1200, "light"],
        [1200, "dark"],
        [500, "light"],
        [360, "light"],
      ] as const) {
        const page = await running.newPage({ viewport: { width, height: 800 }, colorScheme });
        const complaints: string[] = [];
        page.on("console", (message) => complaints.push(message.text()));
        page.on("pageerror", (error) => complaints.push(error.message));
        page.on("request", (request) => request.url() !== url && complaints.push(request.url()));
        await page.goto(url);
        // Checks the folded tables too.
        await page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true");
        assert.equal(await page.evaluate("window.hacked"), undefined);
        assert.equal(await page.evaluate("document.documentElement.scrollWidth"), width);
        await page.evaluate(
          "for (const cell of document.querySelectorAll('#table-ledger td.n')) cell.textContent = '12,345'",
        );
        const ledger = page.locator(".scroll", { has: page.locator("#table-ledger") });
        const hidden = await ledger.evaluate((box) => box.scrollWidth - box.clientWidth);
        if (width > 500) assert.equal(hidden, 0, "the ledger is cut off");
        const gap = await page.evaluate<number>(`(() => {
          const box = (cell) => {
            const text = document.createRange();
            text.selectNodeContents(cell);
            return text.getBoundingClientRect();
          };
          const rows = [...document.querySelectorAll("#table-ledger tr")].map((row) => [...row.children].map(box));
          return Math.min(...rows.flatMap((cells) => cells.slice(1).map(({ left }, i) => left - cells[i].right)));
        })()`);
        assert.ok(gap >= 6, `${gap} px between two columns of the ledger at ${width} px`);
        await page.evaluate(axe);
        const violations = await page.evaluate(
          "axe.run().then((r) => r.violations.map((v) => v.id + ': ' + v.nodes[0].html))",
        );
        assert.deepEqual(violations, []);
        assert.deepEqual(complaints, []);
        await page.close();
      }
    }
  } finally {
    await running.close();
    await folder.remove();
  }
});
