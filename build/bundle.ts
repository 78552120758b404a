/**
 * Bundles the program and its packages into scripts that need no other code.
 *
 * @module
 */
import { readFileSync, realpathSync } from "node:fs";
import { basename, dirname, resolve } from "node:path";
import { build, type Plugin } from "esbuild";

/** Packages whose native library is in the pack "natives", by its file. */
export const addons = {
  "@duckdb/node-bindings": "duckdb.node",
  "@node-rs/crc32": "crc32.node",
  "lz4-napi": "lz4.node",
  snappy: "snappy.node",
} as const;

/** Loads native libraries from the folder they are unpacked into. */
const nativeLibraries: Plugin = {
  name: "native libraries",
  setup({ onLoad, onResolve }) {
    const names = Object.keys(addons).join("|");
    onResolve({ filter: new RegExp(`^(${names})$`) }, ({ path }) => ({ path, namespace: "addon" }));
    onLoad({ filter: /./, namespace: "addon" }, ({ path }) => ({
      contents: `module.exports = require("./runtime/packs.ts").openNative(${JSON.stringify(addons[path as keyof typeof addons])});`,
      resolveDir: root,
    }));
  },
};

/** Bundles modules that are loaded with `createRequire` too. */
const required: Plugin = {
  name: "createRequire",
  setup({ onLoad }) {
    onLoad({ filter: /\.ts$/ }, ({ path }) => {
      if (path.includes("/node_modules/")) return undefined;
      const text = readFileSync(path, "utf8")
        .replace(/^const require = createRequire\(import\.meta\.url\);$/m, "")
        .replace("createRequire(import.meta.url)(", "require(");
      return { contents: basename(path) === "kafkajs.ts" ? replaceByName(text) : text, loader: "ts" };
    });
  },
};

/** kafka/kafkajs.ts replaces modules of kafkajs through `require.cache`; a bundle uses a map instead. */
function replaceByName(text: string): string {
  const body = /^ {2}const path = require\.resolve\(.*\n {2}require\.cache\[path\] = .*\n/m;
  const replacing = "  ((globalThis as any).replacedModules ??= new Map()).set(name, exports);\n";
  if (!body.test(text)) throw new Error("replaceModule() of kafka/kafkajs.ts is not as build/bundle.ts knows it");
  return text.replace(body, replacing);
}

const replaced = [
  ...readFileSync(new URL("../kafka/kafkajs.ts", import.meta.url), "utf8").matchAll(/^replaceModule\("([^"]+)"/gm),
].map(([, name]) => name as string);

const kafkajs: Plugin = {
  name: "kafkajs",
  setup({ onLoad, onResolve }) {
    const folder = realpathSync(resolve(root, "node_modules/kafkajs/src"));
    onResolve({ filter: /^\./ }, ({ path, importer }) => {
      if (!importer.startsWith(folder)) return undefined;
      const name = replaced.find(
        (module) => resolve(dirname(importer), path) === resolve(folder, module.replace(/\.js$/, "")),
      );
      return name ? { path: name, namespace: "replaced" } : undefined;
    });
    onLoad({ filter: /./, namespace: "replaced" }, ({ path }) => ({
      contents: `module.exports = globalThis.replacedModules.get(${JSON.stringify(path)});`,
    }));
  },
};

const root = resolve(import.meta.dirname, "..");

const ownUrl = 'const ownUrl = require("node:url").pathToFileURL(__filename).href;';

/** The program as two scripts, and the files in them. */
export interface Bundle {
  main: string;
  threads: string;
  /** Paths in the program's folder. A package with a separate native library is listed by its package.json. */
  inputs: string[];
}

/**
 * Bundles the program for the executable (Node 24), or for a folder `bin` beside `sql` and `node_modules`, which holds the
 * native libraries.
 */
export async function bundle(within: "executable" | "folder"): Promise<Bundle> {
  const main = await bundleScript("build/entry.ts", within);
  const threads = await bundleScript("build/threads.ts", within);
  const inputs = [...new Set([...main.inputs, ...threads.inputs])];
  return { main: main.code, threads: threads.code, inputs };
}

async function bundleScript(entry: string, within: "executable" | "folder") {
  const own =
    within === "executable"
      ? { target: "node24", define: { "import.meta.url": "undefined" } }
      : { target: "node20", define: { "import.meta.url": "ownUrl" }, banner: { js: ownUrl } };
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    platform: "node",
    ...own,
    format: "cjs",
    external: ["esbuild", ...(within === "folder" ? Object.keys(addons) : [])], // esbuild runs only from sources
    plugins: [...(within === "executable" ? [nativeLibraries] : []), kafkajs, required],
    define: { ...own.define, "import.meta.resolve": "undefined", bundled: "true" },
    logOverride: { "empty-import-meta": "silent" },
    minifyWhitespace: true,
    minifySyntax: true,
    lineLimit: 160, // an uncaught error prints its line
    charset: "utf8",
    legalComments: "none",
    metafile: true,
    write: false,
  });
  const inputs = Object.keys(metafile.inputs);
  // Otherwise the original modules of kafkajs would run, which lose rows.
  const missing = replaced.find((name) => !inputs.includes(`replaced:${name}`));
  if (missing) throw new Error(`Cannot bundle "${entry}": kafkajs' "${missing}" is not replaced in it`);
  const files = inputs.map((input) => input.replace(/^addon:(.*)/, "node_modules/$1/package.json"));
  return { code: outputFiles[0]?.text ?? "", inputs: files };
}
