/**
 * A real browser for the tests of the page and for its pictures: Debian's `chromium`, or the one that CHROMIUM names.
 *
 * @module
 */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { type Browser, chromium, type Page } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Where a browser is, or undefined. */
export const findBrowser = (): string | undefined => [process.env.CHROMIUM ?? "", ...places].find(existsSync);

/** Said where a test is skipped. */
export const noBrowser = "no browser: install chromium (apt-get install chromium), or name one by CHROMIUM";

/** Starts it without a window. As root it runs without its sandbox: it shows nothing but our own pages. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, chromiumSandbox: process.getuid?.() !== 0, args: ["--disable-dev-shm-usage"] });

/** Notes what a page asks for and what goes wrong in it; `isQuiet` asserts that it asked `url` alone and nothing did. */
export function watchPage(page: Page): { isQuiet: (url: string) => void } {
  const complaints: string[] = [];
  const requests: string[] = [];
  page.on("console", (message) => {
    // The browser itself tells of every answer that is no success.
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
