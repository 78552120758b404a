/**
 * What this program is: sources that Node, tsx or Deno runs, or the executable of `npm run binary`; how a user types
 * it; and the files of its own (SQL, pages, Maven's POM), which lie beside the sources or inside the executable.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename } from "node:path";
import { fileURLToPath } from "node:url";

// Not in Node before 20.16, nor in Deno.
const sea = process.getBuiltinModule?.("node:sea") as
  | (typeof import("node:sea") & { getAssetKeys?: () => string[] })
  | undefined;

/** Whether this is the executable. */
export const isBinary: boolean = sea?.isSea?.() ?? false;

/** `build/bundle.ts` defines it: the program is two scripts, the command line's and the threads', in the executable or not. */
declare const bundled: true | undefined;
export const isBundled: boolean = typeof bundled !== "undefined";

/** What a user types before the arguments. */
export const programName: string = nameOf();

function nameOf(): string {
  if (isBinary) return process.argv0;
  if (process.versions.deno) return "deno run -A main.ts";
  return process.execArgv.some((argument) => /\btsx\b/.test(argument)) ? "npx tsx main.ts" : "node main.ts";
}

/** The word that completes in a shell: the executable's name, or what an alias of the sources is to be called. */
export const typedAs: string = isBinary ? basename(process.argv0) : "pinterest-data-pipeline";

/** Whether the program's sources can be run as they are; Node 22 reads TypeScript too, but not `await using`. */
export const readsTypeScript: boolean =
  !isBundled && (process.versions.deno !== undefined || Number(process.versions.node.split(".")[0]) >= 24);

const besideUs = (name: string) => new URL(`../${name}`, import.meta.url);

/** One of the program's own files, by its path below the program's folder: `sql/gaps.sql`. */
export function ownFile(name: string): Buffer {
  if (isBinary) return Buffer.from(sea?.getRawAsset(name) as ArrayBuffer);
  // A package's: beside its other files, wherever npm has put it.
  const [, file] = isBundled ? [] : (/^node_modules\/(.*)/.exec(name) ?? []);
  return readFileSync(file ? new URL(import.meta.resolve(file)) : besideUs(name));
}

export const ownText = (name: string): string => ownFile(name).toString("utf8");

/** Whether the executable brings a file. */
export const bringsFile = (name: string): boolean => isBinary && (sea?.getAssetKeys?.().includes(name) ?? false);

/** The names of the files in a folder of the program. */
export function ownFiles(folder: string): string[] {
  if (!isBinary) return readdirSync(besideUs(folder));
  const begin = `${folder}/`;
  const names = sea?.getAssetKeys?.().filter((name) => name.startsWith(begin)) ?? [];
  return names.map((name) => name.slice(begin.length)).filter((name) => !name.includes("/"));
}

/** The path of a file beside the sources; not in the executable. */
export const ownPath = (name: string): string => fileURLToPath(besideUs(name));

/** The command that runs a script of the program in a process of its own; a bundle knows it by its name. */
export function ownCommand(script: string, args: string[]): [string, string[]] {
  const { argv, execPath } = process;
  if (isBundled) return [execPath, [...(isBinary ? [] : [argv[1] as string]), basename(script, ".ts"), ...args]];
  const path = ownPath(script);
  if (process.versions.deno) return [execPath, ["run", "-A", path, ...args]];
  return [execPath, [...(readsTypeScript ? [] : ["--import", import.meta.resolve("tsx")]), path, ...args]];
}
