/**
 * The program as one script, for the many starts of the tests: tsx and some hundred files take twice as long to load.
 *
 * @module
 */

import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { build } from "esbuild";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Packs main.ts into a script within the program's folder, where it finds its packages; disposing deletes it. */
export async function packProgram(): Promise<{ path: string } & AsyncDisposable> {
  const cache = join(root, "node_modules", ".cache");
  await mkdir(cache, { recursive: true });
  const folder = await mkdtemp(join(cache, "program-"));
  const path = join(folder, "main.mjs");
  await build({
    ...{ entryPoints: [join(root, "main.ts")], outfile: path, bundle: true, packages: "external" },
    ...{ platform: "node", target: "node20", format: "esm", logLevel: "error" },
    plugins: [
      {
        name: "each module looks for its files where it is",
        setup: ({ onLoad }) =>
          onLoad({ filter: /\.ts$/ }, async ({ path }) => ({
            contents: (await readFile(path, "utf8")).replaceAll(
              /(?<!")import\.meta\.url/g,
              JSON.stringify(pathToFileURL(path).href),
            ),
            loader: "ts",
          })),
      },
    ],
  });
  return { path, [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }) };
}
