/**
 * Bundles the program for `bin/pipeline`, which runs this when the sources have changed.
 *
 * @module
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { bundle } from "./bundle.ts";

const { cache, inputsFile, cannotWrite, keyOf, writeSynced } = createRequire(import.meta.url)("../bin/bundle.cjs") as {
  cache: string;
  inputsFile: string;
  cannotWrite: number;
  keyOf: (inputs: string[], read: (path: string) => string | Buffer) => string;
  writeSynced: (path: string, content: string) => void;
};

/** Files that decide how the sources are bundled, and which packages are installed. */
const others = ["build/bundle.ts", "bin/bundle.cjs", "package.json", "node_modules/.package-lock.json"];
/** Bundles to keep, for edits that are undone. */
const kept = 5;

const root = resolve(import.meta.dirname, "..");
const scripts = await bundle("folder").catch(() => process.exit(1)); // esbuild has said why
try {
  const { main, threads, sources } = scripts;
  const inputs = [...new Set([...sources.keys(), ...others.filter((path) => existsSync(join(root, path)))])].sort();
  // By the text that was bundled: the file may have changed since.
  const key = keyOf(inputs, (path) => sources.get(path) ?? readFileSync(join(root, path)));
  const unfinished = join(cache, `.${key}.${process.pid}`);
  mkdirSync(unfinished, { recursive: true });
  writeSynced(join(unfinished, "main.cjs"), main);
  writeSynced(join(unfinished, "threads.cjs"), threads);
  try {
    renameSync(unfinished, join(cache, key));
  } catch {
    rmSync(unfinished, { recursive: true }); // another start was faster
  }
  writeSynced(inputsFile, JSON.stringify(inputs));
  const changed = (name: string) => statSync(join(cache, name)).mtimeMs;
  const bundles = readdirSync(cache).filter((name) => /^[0-9a-f]{20}$/.test(name));
  for (const name of bundles.sort((a, b) => changed(b) - changed(a)).slice(kept))
    rmSync(join(cache, name), { recursive: true, force: true });
} catch (error) {
  if (!(error as NodeJS.ErrnoException).code) throw error;
  process.exitCode = cannotWrite; // the sources then run without a bundle
}
