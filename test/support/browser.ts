/**
 * A real browser for the tests of the page and for its pictures: Debian's `chromium`, or the one that CHROMIUM names.
 *
 * @module
 */
import { existsSync } from "node:fs";
import { type Browser, chromium } from "playwright-core";

const places = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];

/** Where a browser is, or undefined. */
export const findBrowser = (): string | undefined => [process.env.CHROMIUM ?? "", ...places].find(existsSync);

/** Said where a test is skipped. */
export const noBrowser = "no browser: install chromium (apt-get install chromium), or name one by CHROMIUM";

/** Starts it without a window. As root it runs without its sandbox: it shows nothing but our own pages. */
export const openBrowser = (executablePath: string): Promise<Browser> =>
  chromium.launch({ executablePath, chromiumSandbox: process.getuid?.() !== 0, args: ["--disable-dev-shm-usage"] });
