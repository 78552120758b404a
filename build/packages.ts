/**
 * Fetches npm packages of the executable that `npm ci` does not install: Node itself, and native libraries of another
 * system. Each is fetched once into the per-user cache, and its integrity is checked.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import { beginCached, cacheFolder, finishCached } from "../runtime/cache.ts";
import { readPins } from "./pins.ts";

/** The systems that an executable can be built for. */
export type Target = "linux-x64" | "linux-arm64";

/** An npm package. */
interface Wanted {
  name: string;
  version: string;
  /** In npm's format: `sha512-` and base64. */
  integrity: string;
}

/**
 * Fetches a package.
 *
 * @returns the folder of its files
 * @throws `Error` if it is not the pinned package
 */
export function fetchPackage({ name, version, integrity }: Wanted): string {
  const base = `npm-${name.replaceAll(/[@/]/g, "_")}-${version}`;
  const folder = join(cacheFolder(), base);
  if (existsSync(folder)) return folder;
  const unfinished = beginCached(base);
  mkdirSync(unfinished);
  try {
    const npm = (args: string[]) => execFileSync("npm", args, { cwd: unfinished, encoding: "utf8" });
    const [file = ""] = npm(["pack", `${name}@${version}`, "--silent"])
      .trim()
      .split("\n")
      .slice(-1);
    const archive = join(unfinished, file);
    const found = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
    if (found !== integrity)
      throw new Error(`Cannot use ${name} ${version}: its integrity is "${found}", but "${integrity}" is pinned`);
    execFileSync("tar", ["-xzf", archive, "--strip-components=1", "-C", unfinished]);
    rmSync(archive);
    finishCached(unfinished, base);
  } finally {
    rmSync(unfinished, { recursive: true, force: true });
  }
  return folder;
}

/** The folder of Node's npm package in the pinned version: `bin/node` and `LICENSE`. */
export function fetchNode(target: Target): string {
  const { node } = readPins();
  return fetchPackage({ name: `node-${target}`, version: node.version, integrity: node[target] });
}

/** The folder of a native package in the lock file: installed, or fetched for another system. */
export function fetchNative(name: string): string {
  const root = new URL("../", import.meta.url).pathname;
  const installed = join(root, "node_modules", name);
  if (existsSync(installed)) return installed;
  const lock = JSON.parse(readFileSync(join(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, { version: string; integrity: string } | undefined>;
  };
  const entry = lock.packages[`node_modules/${name}`];
  if (!entry) throw new Error(`Cannot find "${name}" in package-lock.json`);
  return fetchPackage({ name, ...entry });
}
