/**
 * The Node that the executable is made of.
 *
 * @module
 */
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readFileSync, rmSync } from "node:fs";
import { join, resolve } from "node:path";
import { readPins } from "./pins.ts";

/**
 * Brings Node as npm has it for a system into `folder`, which is made anew: `bin/node`, `LICENSE`. Returns the folder.
 *
 * @throws `Error` when it is not what pins.json says
 */
export function fetchNode(target: "linux-x64" | "linux-arm64", folder: string): string {
  const { node } = readPins();
  const to = resolve(folder);
  rmSync(to, { recursive: true, force: true });
  mkdirSync(to, { recursive: true });
  const name = `node-${target}@${node.version}`;
  const said = execFileSync("npm", ["pack", "--silent", "--pack-destination", to, name], { encoding: "utf8" });
  const archive = join(to, said.trim());
  const found = `sha512-${createHash("sha512").update(readFileSync(archive)).digest("base64")}`;
  if (found !== node[target])
    throw new Error(`Cannot take ${name}: build/pins.json says "${node[target]}" but npm brought "${found}"`);
  execFileSync("tar", ["-xzf", archive, "--strip-components=1", "-C", to]);
  rmSync(archive);
  return to;
}
