/**
 * Threads that start quickly, whatever runs the program.
 *
 * @module
 */
import { pathToFileURL } from "node:url";
import { Worker, type WorkerOptions } from "node:worker_threads";
import { isBinary, isBundled, ownPath, ownText, readsTypeScript } from "./program.ts";

/**
 * Prepares threads that run a module.
 *
 * @param module its path below the program's folder
 * @returns opens one such thread
 */
export async function threadOpener(module: string): Promise<(options: WorkerOptions) => Worker> {
  if (isBinary) {
    const code = ownText("threads.cjs");
    return (options) => new Worker(code, { ...options, eval: true });
  }
  if (isBundled) return (options) => new Worker(ownPath("bin/threads.cjs"), options);
  // Without tsx's loader, which a thread would inherit.
  if (readsTypeScript) return (options) => new Worker(ownPath(module), { ...options, execArgv: [] });
  const code = await bundle(module);
  return (options) => new Worker(code, { ...options, eval: true });
}

/**
 * A module and what it imports as one script: a thread of Node 20 does not inherit tsx's loader, and with a loader of
 * its own it takes three times as long to start.
 */
async function bundle(module: string): Promise<string> {
  // Loaded here: the threads hold this file too, and need no bundler.
  const { build, stop } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [ownPath(module)],
    bundle: true,
    external: ["@node-rs/crc32", "esbuild", "kafkajs", "mysql2", "yaml"],
    platform: "node",
    target: "node20",
    format: "cjs",
    define: { "import.meta.url": "url" },
    logOverride: { "empty-import-meta": "silent" }, // of the main thread only
    write: false,
  });
  await stop(); // else its process stays as long as ours
  const url = JSON.stringify(pathToFileURL(ownPath(module)).href);
  return `(function (url, require, module) {${outputFiles[0]?.text}\n})(${url}, require("node:module").createRequire(${url}), {});`;
}
