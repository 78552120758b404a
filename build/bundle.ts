/**
 * Bundles the program and its packages into scripts that need no other code.
 *
 * @module
 */
import { readFileSync, realpathSync } from "node:fs";
import { createRequire } from "node:module";
import { basename, dirname, join, relative, resolve } from "node:path";
import { pathToFileURL } from "node:url";
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

/** Leaves packages with native libraries where the package manager has installed them for the package that needs them. */
const installedLibraries: Plugin = {
  name: "installed libraries",
  setup({ onResolve }) {
    const names = Object.keys(addons).join("|");
    onResolve({ filter: new RegExp(`^(${names})$`) }, ({ path, importer }) => ({
      path: createRequire(importer).resolve(path),
      external: true,
    }));
  },
};

/** Bundles modules that are loaded with `createRequire` too, and adds the program's own files to `sources`. */
const ownFiles = (sources: Map<string, Buffer>): Plugin => ({
  name: "own files",
  setup({ onLoad }) {
    onLoad({ filter: /\.(ts|json)$/ }, ({ path }) => {
      const name = relative(root, path);
      if (/(^|\/)node_modules\//.test(name)) return undefined;
      const source = readFileSync(path);
      sources.set(name, source);
      if (path.endsWith(".json")) return { contents: source, loader: "json" };
      const text = source
        .toString("utf8")
        .replace(/^const require = createRequire\(import\.meta\.url\);$/m, "")
        .replace("createRequire(import.meta.url)(", "require(");
      return { contents: basename(path) === "kafkajs.ts" ? replaceByName(text) : text, loader: "ts" };
    });
  },
});

/** kafka/kafkajs.ts replaces modules of kafkajs through `require.cache`; a bundle uses a map instead. */
function replaceByName(text: string): string {
  const body = /^ {2}const path = require\.resolve\([^\n]*\n {2}require\.cache\[path\] = [^\n]*\n/m;
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
    const endings = replaced.map((module) => basename(module, ".js")).join("|");
    onResolve({ filter: new RegExp(`^\\..*/(${endings})(\\.js)?$`) }, ({ path, importer }) => {
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

/** The program as two scripts, and the files in them. */
export interface Bundle {
  main: string;
  threads: string;
  /** Paths in the program's folder. A package with a separate native library is listed by its package.json. */
  inputs: string[];
  /** The program's own files, by path, as they were read. */
  sources: Map<string, Buffer>;
}

/**
 * Bundles the program for the executable (Node 24), or for this folder, whose `node_modules` holds the native libraries.
 *
 * @throws `Error` if a source has errors, which esbuild has printed
 */
export async function bundle(within: "executable" | "folder"): Promise<Bundle> {
  const sources = new Map<string, Buffer>();
  const ownUrl = JSON.stringify(pathToFileURL(join(root, "bin/main.cjs")).href);
  const own =
    within === "executable" ? { target: "node24", minifyWhitespace: true, minifySyntax: true } : { target: "node20" };
  const { outputFiles, metafile } = await build({
    absWorkingDir: root,
    entryPoints: { main: "build/entry.ts", threads: "build/threads.ts" },
    outdir: "dist",
    bundle: true,
    platform: "node",
    ...own,
    format: "cjs",
    plugins: [within === "executable" ? nativeLibraries : installedLibraries, kafkajs, ownFiles(sources)],
    define: {
      "import.meta.url": within === "executable" ? "undefined" : ownUrl,
      "import.meta.resolve": "undefined",
      bundled: within === "executable" ? "{}" : "threads",
    },
    logOverride: { "empty-import-meta": "silent" },
    lineLimit: 160, // an uncaught error prints its line
    charset: "ascii", // half the memory of a script with other characters
    legalComments: "none",
    metafile: true,
    write: false,
  });
  const inputs = Object.keys(metafile.inputs);
  // Otherwise the original modules of kafkajs would run, which lose rows.
  const missing = replaced.find((name) => !inputs.includes(`replaced:${name}`));
  if (missing) throw new Error(`Cannot bundle the program: kafkajs' "${missing}" is not replaced in it`);
  const files = inputs.map((input) => input.replace(/^addon:(.*)/, "node_modules/$1/package.json"));
  const textOf = (name: string) => outputFiles.find(({ path }) => basename(path) === `${name}.js`)?.text ?? "";
  return { main: textOf("main"), threads: textOf("threads"), inputs: files, sources };
}
