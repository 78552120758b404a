/**
 * Threads that start quickly.
 *
 * @module
 */
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

/**
 * A module and what it imports as one script, for `new Worker(code, { eval: true })`: a thread of Node 20 does not
 * inherit tsx's loader, and with a loader of its own it takes three times as long to start.
 */
export async function threadCode(module: string): Promise<string> {
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
  const url = JSON.stringify(module);
  return `(function (url, require, module) {${outputFiles[0]?.text}\n})(${url}, require("node:module").createRequire(${url}), {});`;
}
