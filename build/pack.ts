/**
 * Writes packs: files in one zstd stream, with an index. runtime/packs.ts reads them.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { extname, join } from "node:path";
import * as zlib from "node:zlib";
import type { Pack } from "../runtime/packs.ts";

/** Writes `NAME.json` and `NAME.zst` into `to`; `files` maps names in the pack to paths. */
export function writePack(
  files: Record<string, string>,
  { name, version, level, to }: { name: string; version: string; level: number; to: string },
): { bytes: number; packed: number } {
  // Files of one kind are adjacent, so that zstd finds their common parts.
  const sorted = Object.entries(files).sort(
    ([a], [b]) => extname(a).localeCompare(extname(b)) || (a < b ? -1 : a > b ? 1 : 0),
  );
  const list = sorted.map(([path, from]) => {
    const { size, mode } = statSync(from);
    return { path, bytes: size, mode: mode & 0o100 ? 0o700 : 0o600 };
  });
  const all = Buffer.concat(sorted.map(([, from]) => readFileSync(from)));
  const hash = createHash("sha256").update(JSON.stringify(list)).update(all).digest("hex").slice(0, 12);
  const packed = compress(all, level);
  writeFileSync(
    join(to, `${name}.json`),
    JSON.stringify({ version, hash, bytes: all.length, files: list } satisfies Pack),
  );
  writeFileSync(join(to, `${name}.zst`), packed);
  return { bytes: all.length, packed: packed.length };
}

/** Node 24 has zstd; the types are of Node 20. */
function compress(bytes: Buffer, level: number): Buffer {
  const { constants, zstdCompressSync } = zlib as unknown as {
    constants: Record<"ZSTD_c_compressionLevel" | "ZSTD_c_windowLog", number>;
    zstdCompressSync(bytes: Buffer, options: object): Buffer;
  };
  const params = { [constants.ZSTD_c_compressionLevel]: level, [constants.ZSTD_c_windowLog]: 27 };
  return zstdCompressSync(bytes, { params });
}
