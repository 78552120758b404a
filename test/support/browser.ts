/**
 * A real browser for the tests and screenshots of the page: Debian's `chromium`, or the one that CHROMIUM names.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** The path of a browser; undefined if there is none. */
export const findBrowser = (): string | undefined => [process.env.CHROMIUM ?? "", ...places].find(existsSync);

/** The reason of a skipped test. */
export const noBrowser = "no browser: install chromium (apt-get install chromium), or name one by CHROMIUM";

/** Starts a headless browser. As root it runs without a sandbox, which is safe for our pages. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, chromiumSandbox: process.getuid?.() !== 0, args: ["--disable-dev-shm-usage"] });

/** Records requests and errors of a page. `isQuiet` asserts that all requests went to `url` and there were no errors. */
export function watchPage(page: Page): { isQuiet: (url: string) => void } {
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on("console", (message) => {
    // The browser logs every unsuccessful response.
    if (message.type() === "error" && !/status of (401|404)/.test(message.text())) complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  page.on("request", (request) => requests.push(request.url()));
  return {
    isQuiet(url) {
      assert.ok(requests.length > 0);
      assert.deepEqual(
        requests.filter((asked) => !asked.startsWith(url)),
        [],
      );
      assert.deepEqual(complaints, []);
    },
  };
}
