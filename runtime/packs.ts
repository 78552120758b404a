/**
 * Unpacks the parts of the executable that only work from a disk: native libraries, and in the complete executable
 * Kafka, MariaDB and Java. Each pack is unpacked once into the per-user cache, into a folder named for its contents.
 *
 * @module
 */
import { existsSync, mkdirSync, readdirSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as zlib from "node:zlib";
import { beginCached, cacheFolder, checkOwner, finishCached } from "./cache.ts";
import { readCommandLine } from "./process.ts";
import { bringsFile, ownFile, ownText } from "./program.ts";

export type PackName = "natives" | "kafka" | "mariadb" | "java";

/** The index of a pack. Its files are concatenated in `packs/NAME.zst`. */
export interface Pack {
  version: string;
  /** The first 12 hexadecimal digits of the SHA-256 of the file list and the files. */
  hash: string;
  /** Bytes of all files together. */
  bytes: number;
  files: { path: string; bytes: number; mode: number }[];
}

/** Whether this executable contains a pack. */
export const brings = (name: PackName): boolean => bringsFile(`packs/${name}.json`);

/** Unpacked packs are deleted when no program has used them for this time, ms. */
const unusedMs = 24 * 3600 * 1000;

/**
 * The folder of a pack. Unpacks it if it is missing or damaged.
 *
 * @param say gets a line when the pack is unpacked
 * @throws `Error` with what to do, if the cache belongs to another user or the disk is full
 */
export function packFolder(name: PackName, say: (line: string) => void = () => {}): string {
  const pack = JSON.parse(ownText(`packs/${name}.json`)) as Pack;
  const base = `${name}-${pack.version}-${pack.hash}`;
  const folder = join(cacheFolder(), base);
  if (existsSync(folder)) checkOwner(folder);
  // Checked at each call, because the cache may be emptied while services run.
  if (!isWhole(folder, pack)) {
    say(`Unpacking ${name} ${pack.version} (${Math.ceil(pack.bytes / 1e6)} MB), once, into "${cacheFolder()}"`);
    unpack(name, base, pack);
    deleteUnused(name, base);
  }
  checkOwner(cacheFolder());
  try {
    utimesSync(folder, new Date(), new Date());
  } catch {
    // A read-only cache cannot record the use.
  }
  return folder;
}

/** Whether all files exist with their sizes; a power cut can leave empty ones. */
const isWhole = (folder: string, { files }: Pack): boolean =>
  files.every(({ path, bytes }) => statSync(join(folder, path), { throwIfNoEntry: false })?.size === bytes);

/** Remedies for system errors. */
const troubles: Record<string, string> = {
  ENOSPC: "its disk is full; make room there",
  EDQUOT: "your quota is used up; make room there",
  EACCES: "you may not write there; change the mode of that folder",
  EROFS: "its disk is read-only; remount it for writing",
};

function unpack(name: PackName, base: string, pack: Pack): void {
  let folder = "";
  try {
    folder = beginCached(base);
    const all = decompress(ownFile(`packs/${name}.zst`));
    let at = 0;
    for (const { path, bytes, mode } of pack.files) {
      const target = join(folder, path);
      mkdirSync(dirname(target), { recursive: true, mode: 0o700 });
      writeFileSync(target, all.subarray(at, at + bytes), { mode, flush: true }); // a rename may survive a power cut without the data
      at += bytes;
    }
    const damaged = join(cacheFolder(), base);
    if (!isWhole(damaged, pack)) rmSync(damaged, { recursive: true, force: true });
    finishCached(folder, base);
  } catch (error) {
    const { code, message, syscall } = error as NodeJS.ErrnoException;
    if (!code || !syscall) throw error;
    const why = troubles[code] ?? `${message}; fix that`;
    const size = `${Math.ceil(pack.bytes / 1e6)} MB`;
    throw new Error(
      `Cannot unpack ${name} (${size}) into "${cacheFolder()}": ${why}, or choose another folder with XDG_CACHE_HOME`,
      { cause: error },
    );
  } finally {
    if (folder) rmSync(folder, { recursive: true, force: true });
  }
}

/** The executable is Node 24, which has zstd; the types are of Node 20. */
function decompress(bytes: Buffer): Buffer {
  const { zstdDecompressSync } = zlib as unknown as { zstdDecompressSync(b: Buffer, o: object): Buffer };
  const windowLogMax = (zlib.constants as unknown as { ZSTD_d_windowLogMax: number }).ZSTD_d_windowLogMax;
  return zstdDecompressSync(bytes, { params: { [windowLogMax]: 27 } });
}

/** Deletes other versions of a pack, unless a program has used them in the last day or runs from them. */
function deleteUnused(name: PackName, base: string): void {
  const cache = cacheFolder();
  const another = new RegExp(`^${name}-[^-]+-[0-9a-f]{12}$`);
  for (const other of readdirSync(cache).filter((entry) => entry !== base && another.test(entry))) {
    const folder = join(cache, other);
    const used = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (Date.now() - used > unusedMs && !isRunFrom(folder)) rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether the command line of a process contains a path in a folder. Linux only, as is the executable. */
function isRunFrom(folder: string): boolean {
  const pids = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
  return pids.some((pid) => readCommandLine(Number(pid)).includes(`${folder}/`));
}

/**
 * Loads a native library of the executable.
 *
 * @throws `Error` with what to do, if the disk of the cache does not allow programs to run
 */
export function openNative(file: string): unknown {
  const addon = { exports: {} };
  const path = join(packFolder("natives"), file);
  try {
    process.dlopen(addon, path);
  } catch (error) {
    const reason = (error as Error).message.replace(`${path}: `, "");
    throw new Error(
      `Cannot load "${path}": ${reason}; if its disk is mounted noexec, choose another folder with XDG_CACHE_HOME, otherwise delete that file`,
      { cause: error },
    );
  }
  return addon.exports;
}
