/**
 * Creates Python environments for tests and benchmarks.
 *
 * @module
 */

import { spawn } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

/** Runs a program to its end. @returns its stdout */
export function output(command: string, args: string[]): Promise<Buffer> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] });
    const chunks: Buffer[] = [];
    let errors = "";
    child.stdout.on("data", (chunk: Buffer) => chunks.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk;
    });
    child.on("error", reject);
    child.on("close", (code) => {
      if (code === 0) resolve(Buffer.concat(chunks));
      else reject(new Error(`"${command} ${args.join(" ")}" ended with ${code}: ${errors.slice(-800)}`));
    });
  });
}

/** The per-user cache for downloads of the tests. */
export const cacheFolder = (): string =>
  join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "pinterest-data-pipeline");

/** A Python with the packages of a requirements.txt, created once per user and text of the file. */
export async function findPython(
  requirements = fileURLToPath(new URL("requirements.txt", import.meta.url)),
): Promise<string> {
  const wanted = readFileSync(requirements, "utf8").trim().replace(/\s+/g, "_");
  const cache = cacheFolder();
  const home = join(cache, `python-${wanted}`);
  const python = join(home, "bin", "python");
  if (existsSync(python)) return python;
  mkdirSync(cache, { recursive: true });
  // An environment contains its path, so it cannot be renamed: it is created in place, and complete once `bin` has its name.
  rmSync(home, { recursive: true, force: true });
  await output("python3", ["-m", "venv", home]);
  await output(python, ["-m", "pip", "install", "--quiet", "--requirement", requirements]).catch((error: Error) => {
    renameSync(home, `${home}.unfinished`);
    throw error;
  });
  return python;
}
