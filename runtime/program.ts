/**
 * Describes this program: whether it runs from sources (with Node, tsx or Deno) or is the executable of
 * `npm run binary`, how a user starts it, and its files (SQL, pages, Maven's POM) beside the sources or in the executable.
 *
 * @module
 */
import { readdirSync, readFileSync } from "node:fs";
import { basename, relative } from "node:path";
import { fileURLToPath } from "node:url";

// Missing in Node before 20.16 and in Deno.
const sea = process.getBuiltinModule?.("node:sea") as
  | (typeof import("node:sea") & { getAssetKeys?: () => string[] })
  | undefined;

/** Whether this is the executable. */
export const isBinary: boolean = sea?.isSea?.() ?? false;

/** A script of a bundle, for `load` of `bin/bundle.cjs`. */
export interface Script {
  path: string;
  /** Its file descriptor. */
  file: number;
}

/** Defined by `build/bundle.ts`: the program is two scripts, for the command line and for threads. */
declare const bundled: Script | undefined;
/** The script of the threads, open; undefined if this is no bundle. */
export const bundledThreads: Script | undefined = typeof bundled === "undefined" ? undefined : bundled;
export const isBundled: boolean = bundledThreads !== undefined;

/** A text as one word of a shell's command line, in quotes where it needs them. */
export const shellWord = (text: string): string =>
  /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;

/** The command that a user types before the arguments. */
export const programName: string = nameOf();

function nameOf(): string {
  if (isBinary) return shellWord(process.argv0);
  const script = process.argv[1] ?? "";
  if (isBundled || basename(script) === "pipeline") {
    const path = relative(process.cwd(), script);
    return shellWord(path.startsWith("..") ? script : path.includes("/") ? path : `./${path}`);
  }
  if (process.versions.deno) return "deno run -A main.ts";
  return process.execArgv.some((argument) => /\btsx\b/.test(argument)) ? "npx tsx main.ts" : "node main.ts";
}

/** The command word for shell completion: the name of the executable, or of an alias for the sources. */
export const typedAs: string = isBinary ? basename(process.argv0) : "pinterest-data-pipeline";

/** Whether the runtime reads the sources without tsx. Node 22 reads TypeScript too, but not `await using`. */
export const readsTypeScript: boolean =
  !isBundled && (process.versions.deno !== undefined || Number(process.versions.node.split(".")[0]) >= 24);

const besideUs = (name: string) => new URL(`../${name}`, import.meta.url);

/** A file of the program, by its path in the program's folder: `sql/gaps.sql`. */
export function ownFile(name: string): Buffer {
  if (isBinary) return Buffer.from(sea?.getRawAsset(name) as ArrayBuffer);
  // A file of a package, wherever npm has installed it.
  const [, file] = isBundled ? [] : (/^node_modules\/(.*)/.exec(name) ?? []);
  return readFileSync(file ? new URL(import.meta.resolve(file)) : besideUs(name));
}

export const ownText = (name: string): string => ownFile(name).toString("utf8");

/** Whether this is the executable and contains a file. */
export const bringsFile = (name: string): boolean => isBinary && (sea?.getAssetKeys?.().includes(name) ?? false);

/** The names of the files in a folder of the program. */
export function ownFiles(folder: string): string[] {
  if (!isBinary) return readdirSync(besideUs(folder));
  const begin = `${folder}/`;
  const names = sea?.getAssetKeys?.().filter((name) => name.startsWith(begin)) ?? [];
  return names.map((name) => name.slice(begin.length)).filter((name) => !name.includes("/"));
}

/** The path of a file beside the sources; not for the executable. */
export const ownPath = (name: string): string => fileURLToPath(besideUs(name));

/** The command that runs a script of the program in a separate process. A bundle selects the script by its name. */
export function ownCommand(script: string, args: string[]): [string, string[]] {
  const { argv, execPath } = process;
  if (isBundled) return [execPath, [...(isBinary ? [] : [argv[1] as string]), basename(script, ".ts"), ...args]];
  const path = ownPath(script);
  if (process.versions.deno) return [execPath, ["run", "-A", path, ...args]];
  return [execPath, [...(readsTypeScript ? [] : ["--import", import.meta.resolve("tsx")]), path, ...args]];
}
