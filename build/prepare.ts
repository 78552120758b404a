/**
 * Bundles the program for `bin/pipeline`, which runs this when the sources have changed.
 *
 * @module
 */
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync } from "node:fs";
import { createRequire } from "node:module";
import { join, resolve } from "node:path";
import { isAlive } from "../runtime/process.ts";
import { type Bundle, bundle } from "./bundle.ts";

/** The files of a bundle. */
interface Inputs {
  sources: string[];
  packages: string[];
}

const { cache, inputsFile, sourceError, keyOf, open, writeSynced } = createRequire(import.meta.url)(
  "../bin/bundle.cjs",
) as {
  cache: string;
  inputsFile: string;
  sourceError: number;
  keyOf: (inputs: Inputs, read: (path: string) => Buffer) => string;
  open: (folder: string) => object | undefined;
  writeSynced: (path: string, content: string) => void;
};

/** Files that decide how the sources are bundled. */
const others = ["build/bundle.ts", "bin/bundle.cjs", "package.json", "tsconfig.json"];
/** Bundles to keep, for edits that are undone. */
const kept = 5;

const root = resolve(import.meta.dirname, "..");

/** Writes a bundle to the cache, where no program sees half of it. */
function store({ main, threads, sources, inputs }: Bundle): string {
  const files: Inputs = {
    sources: [...new Set([...sources.keys(), ...others])].sort(),
    packages: inputs.filter((path) => path.includes("node_modules/") && !path.includes(":")).sort(),
  };
  // By the text that was bundled: the file may have changed since.
  const key = keyOf(files, (path) => sources.get(path) ?? readFileSync(join(root, path)));
  const [folder, unfinished] = [join(cache, key), join(cache, `.${key}.${process.pid}`)];
  try {
    mkdirSync(unfinished, { recursive: true });
    writeSynced(join(unfinished, `main-${Buffer.byteLength(main)}.cjs`), main);
    writeSynced(join(unfinished, `threads-${Buffer.byteLength(threads)}.cjs`), threads);
    if (!isComplete(folder)) {
      drop(key);
      renameSync(unfinished, folder);
    }
  } catch (error) {
    if (!isComplete(folder)) throw error; // otherwise another start was faster
  } finally {
    remove(unfinished);
  }
  writeSynced(inputsFile, JSON.stringify(files));
  return key;
}

function isComplete(folder: string): boolean {
  try {
    return open(folder) !== undefined;
  } catch {
    return false;
  }
}

/** Deletes a bundle, under another name, so that no program sees half of it. */
function drop(name: string): void {
  const old = join(cache, `.${name}.old.${process.pid}`);
  try {
    renameSync(join(cache, name), old);
  } catch {
    return; // there is none
  }
  remove(old);
}

function remove(folder: string): void {
  try {
    rmSync(folder, { recursive: true, force: true });
  } catch {
    // only a waste of space
  }
}

/** Deletes old bundles, and what killed programs have left. */
function prune(key: string): void {
  const names = readdirSync(cache);
  for (const name of names) {
    const pid = /^[.].*[.](\d+)$/.exec(name)?.[1];
    if (pid && !isAlive(Number(pid))) remove(join(cache, name));
  }
  const changed = (name: string) => statSync(join(cache, name), { throwIfNoEntry: false })?.mtimeMs ?? 0;
  const bundles = names.filter((name) => /^[0-9a-f]{20}$/.test(name) && name !== key);
  for (const name of bundles.sort((a, b) => changed(b) - changed(a)).slice(kept - 1)) drop(name);
}

try {
  prune(store(await bundle("folder")));
} catch (error) {
  const { code, errors, message } = error as NodeJS.ErrnoException & { errors?: unknown };
  // esbuild has printed the errors of a source. Otherwise the sources run without a bundle, as where nothing can be written.
  if (!errors && !code) process.stderr.write(`Warning: Cannot bundle the sources, so the start is slow: ${message}\n`);
  process.exitCode = errors ? sourceError : 1;
}
