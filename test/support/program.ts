/**
 * Bundles the program into two scripts, as in the executable, for the many starts of the tests: with tsx, its hundred
 * files take three times as long to load.
 *
 * @module
 */

import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { bundle } from "../../build/bundle.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));

/** Bundles the program into a folder with its files; disposing deletes it. */
export async function packProgram(): Promise<{ path: string } & AsyncDisposable> {
  const folder = await mkdtemp(join(tmpdir(), "program-"));
  await mkdir(join(folder, "bin"));
  const { main, threads } = await bundle("folder");
  await writeFile(join(folder, "bin/main.cjs"), main);
  await writeFile(join(folder, "bin/threads.cjs"), threads);
  for (const own of ["sql", "http", "report", "local", "node_modules"])
    await symlink(join(root, own), join(folder, own));
  return {
    path: join(folder, "bin/main.cjs"),
    [Symbol.asyncDispose]: () => rm(folder, { recursive: true, force: true }),
  };
}
