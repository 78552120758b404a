/**
 * Starts threads quickly in every runtime: Node 20 with tsx, Node 24, Deno, a bundle, the executable.
 *
 * @module
 */
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";
import { isBinary, isBundled, ownPath, ownText, readsTypeScript } from "./program.ts";

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
  if (isBundled) return (options) => new Worker(ownPath("bin/threads.cjs"), options);
  // execArgv is empty, because a thread would inherit tsx's loader.
  if (readsTypeScript) return (options) => new Worker(ownPath(module), { ...options, execArgv: [] });
  const code = await bundle(module);
  return (options) => new Worker(code, { ...options, eval: true });
}

/**
 * Bundles a module with its imports into one script: a thread of Node 20 does not inherit tsx's loader, and with a
 * separate loader it takes three times as long to start.
 */
async function bundle(module: string): Promise<string> {
  // Loaded on demand: threads include this file but need no bundler.
  const { build, stop } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [ownPath(module)],
    bundle: true,
    external: ["@node-rs/crc32", "esbuild", "kafkajs", "mysql2", "yaml"],
    platform: "node",
    target: "node20",
    format: "cjs",
    define: { "import.meta.url": "url" },
    logOverride: { "empty-import-meta": "silent" }, // used only in the main thread
    write: false,
  });
  await stop(); // otherwise esbuild's process stays until this one ends
  const url = JSON.stringify(pathToFileURL(ownPath(module)).href);
  return `(function (url, require, module) {${outputFiles[0]?.text}\n})(${url}, require("node:module").createRequire(${url}), {});`;
}
