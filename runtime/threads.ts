/**
 * Starts threads quickly in every runtime: Node 20 with tsx, Node 24, Deno, a bundle, the executable.
 *
 * @module
 */
import { createRequire } from "node:module";
import { basename } from "node:path";
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";
import { bundledThreads, isBinary, ownPath, ownText, readsTypeScript, type Script } from "./program.ts";

/**
 * Prepares threads that run a module.
 *
 * @param module the path in the program's folder
 * @returns a function that starts one thread
 */
export async function threadOpener(module: string): Promise<(options: WorkerOptions) => Worker> {
  if (isBinary) {
    const code = ownText("threads.cjs");
    return (options) => new Worker(code, { ...options, eval: true });
  }
  // execArgv is empty, because a thread would inherit tsx's loader.
  if (readsTypeScript) return (options) => new Worker(ownPath(module), { ...options, execArgv: [] });
  const code = await codeOf(module);
  return (options) => new Worker(code, { ...options, eval: true });
}

/** The part of `bin/bundle.cjs` that is used here. */
interface Bundling {
  find(): { threads: Script } | undefined;
  make(): Promise<{ threads: Script } | undefined>;
}

/**
 * A script that loads a module from the bundle. A thread of Node 20 does not inherit tsx's loader; if no bundle can be
 * written, it loads its own, which takes three times as long.
 */
async function codeOf(module: string): Promise<string> {
  const loader = ownPath("bin/bundle.cjs");
  const { find, make } = createRequire(import.meta.url)(loader) as Bundling;
  const threads = bundledThreads ?? (find() ?? (await make()))?.threads;
  if (threads) {
    const options = { task: basename(module, ".ts"), threads };
    return `require(${JSON.stringify(loader)}).load(${JSON.stringify(threads)}, ${JSON.stringify(options)});`;
  }
  const [tsx, url] = [import.meta.resolve("tsx/esm/api"), pathToFileURL(ownPath(module)).href];
  return `import(${JSON.stringify(tsx)}).then(({ register }) => { register(); return import(${JSON.stringify(url)}); });`;
}
