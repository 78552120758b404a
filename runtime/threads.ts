/**
 * Threads that start quickly.
 *
 * @module
 */
import { fileURLToPath } from "node:url";

/**
 * A module and what it imports as one script, for `new Worker(code, { eval: true })`: a thread of Node 20 does not
 * inherit tsx's loader, and with a loader of its own it takes three times as long to start.
 */
export async function threadCode(module: string): Promise<string> {
  // Loaded here: the threads hold this file too, and need no bundler.
  const { build, stop } = await import("esbuild");
  const { outputFiles } = await build({
    entryPoints: [fileURLToPath(module)],
    bundle: true,
    external: ["@node-rs/crc32", "esbuild", "kafkajs", "mysql2", "yaml"],
    platform: "node",
    target: "node20",
    format: "cjs",
    define: { "import.meta.url": "url" },
    write: false,
  });
  await stop(); // else its process stays as long as ours
  const url = JSON.stringify(module);
  return `(function (url, require, module) {${outputFiles[0]?.text}\n})(${url}, require("node:module").createRequire(${url}), {});`;
}
