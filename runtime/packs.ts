/**
 * What travels inside the executable and only works from a disk: native libraries, and in the complete executable
 * Kafka, MariaDB and a Java. Each pack is unpacked once into the per-user cache, in a folder named by its contents.
 *
 * @module
 */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import * as zlib from "node:zlib";
import { beginCached, cacheFolder, checkOwner, finishCached } from "./cache.ts";
import { bringsFile, ownFile, ownText } from "./program.ts";

export type PackName = "natives" | "kafka" | "mariadb" | "java";

/** The list of a pack; its files follow one another in `packs/NAME.zst`, which zstd compresses as one. */
export interface Pack {
  version: string;
  /** The first 12 hexadecimal digits of the SHA-256 of the list of files and of their bytes. */
  hash: string;
  /** Bytes of all files together. */
  bytes: number;
  files: { path: string; bytes: number; mode: number }[];
}

/** Whether this executable brings a pack. */
export const brings = (name: PackName): boolean => bringsFile(`packs/${name}.json`);

/** Unpacked packs that no program has used for so long are deleted, ms. */
const unusedMs = 24 * 3600 * 1000;

/**
 * The folder of a pack, which is unpacked where it is missing or damaged.
 *
 * @param say is told that it is unpacked
 * @throws where the cache is not the user's own or the disk is full, with what to do
 */
export function packFolder(name: PackName, say: (line: string) => void = () => {}): string {
  const pack = JSON.parse(ownText(`packs/${name}.json`)) as Pack;
  const base = `${name}-${pack.version}-${pack.hash}`;
  const folder = join(cacheFolder(), base);
  if (existsSync(folder)) checkOwner(folder);
  // Each time: while services run, somebody may empty the cache.
  if (!isWhole(folder, pack)) {
    say(`Unpacking ${name} ${pack.version} (${Math.ceil(pack.bytes / 1e6)} MB), once, into "${cacheFolder()}"`);
    unpack(name, base, pack);
    deleteUnused(name, base);
  }
  checkOwner(cacheFolder());
  try {
    utimesSync(folder, new Date(), new Date());
  } catch {
    // A cache that is read-only keeps what it has.
  }
  return folder;
}

/** Whether all files are there and as long as they should be; a power cut can leave empty ones. */
const isWhole = (folder: string, { files }: Pack): boolean =>
  files.every(({ path, bytes }) => statSync(join(folder, path), { throwIfNoEntry: false })?.size === bytes);

/** What to do about errors of the system. */
const troubles: Record<string, string> = {
  ENOSPC: "its disk is full; make room there",
  EDQUOT: "your quota is used up; make room there",
  EACCES: "you may not write there; change the mode of that folder",
  EROFS: "its disk is read-only; mount it otherwise",
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
      writeFileSync(target, all.subarray(at, at + bytes), { mode, flush: true }); // a rename can outlive a power cut
      at += bytes;
    }
    const damaged = join(cacheFolder(), base);
    if (!isWhole(damaged, pack)) rmSync(damaged, { recursive: true, force: true });
    finishCached(folder, base);
  } catch (error) {
    const { code, message, syscall } = error as NodeJS.ErrnoException;
    if (!code || !syscall) throw error;
    const why = troubles[code] ?? `${message}; mend that`;
    const size = `${Math.ceil(pack.bytes / 1e6)} MB`;
    throw new Error(
      `Cannot unpack ${name} (${size}) into "${cacheFolder()}": ${why}, or choose another folder by XDG_CACHE_HOME`,
      { cause: error },
    );
  } finally {
    if (folder) rmSync(folder, { recursive: true, force: true });
  }
}

/** Node 24 has zstd, and the executable is Node 24; the types are those of Node 20. */
function decompress(bytes: Buffer): Buffer {
  const { zstdDecompressSync } = zlib as unknown as { zstdDecompressSync(b: Buffer, o: object): Buffer };
  const windowLogMax = (zlib.constants as unknown as { ZSTD_d_windowLogMax: number }).ZSTD_d_windowLogMax;
  return zstdDecompressSync(bytes, { params: { [windowLogMax]: 27 } });
}

/** Deletes the same pack of other versions, unless a program has used it in the last day or runs from it. */
function deleteUnused(name: PackName, base: string): void {
  const cache = cacheFolder();
  const another = new RegExp(`^${name}-[^-]+-[0-9a-f]{12}$`);
  for (const other of readdirSync(cache).filter((entry) => entry !== base && another.test(entry))) {
    const folder = join(cache, other);
    const used = statSync(folder, { throwIfNoEntry: false })?.mtimeMs ?? 0;
    if (Date.now() - used > unusedMs && !isRunFrom(folder)) rmSync(folder, { recursive: true, force: true });
  }
}

/** Whether the command line of a process names something in a folder; the executable is for Linux. */
function isRunFrom(folder: string): boolean {
  const pids = readdirSync("/proc").filter((entry) => /^\d+$/.test(entry));
  return pids.some((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`${folder}/`);
    } catch {
      return false; // it has ended, or is another user's
    }
  });
}

/**
 * Loads a native library of the executable.
 *
 * @throws where the cache lies on a disk that nothing may be run from, with what to do
 */
export function openNative(file: string): unknown {
  const addon = { exports: {} };
  const path = join(packFolder("natives"), file);
  try {
    process.dlopen(addon, path);
  } catch (error) {
    throw new Error(
      `Cannot load "${path}": where its disk is mounted noexec, choose another folder by XDG_CACHE_HOME, else delete that one (${(error as Error).message})`,
      { cause: error },
    );
  }
  return addon.exports;
}
