/**
 * Runs test files: `tsx test/support/run.ts [--services] FILE...`. It runs three at a time, in the given order and each
 * once. With `--services` it starts one MariaDB and one Kafka for all files, and the tests run `bin/pipeline`;
 * without it, the files of a folder share a process.
 *
 * @module
 */

import { setMaxListeners } from "node:events";
import { writeFile } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import { pipeline } from "node:stream/promises";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { pathToFileURL } from "node:url";
import { useServices } from "../../local/services.ts";
import { sharedCreds } from "./services.ts";
import { launcher, temporaryFolder } from "./support.ts";

const [first, ...others] = process.argv.slice(2) as [string, ...string[]];
const needsServices = first === "--services";
const files = [...new Set(needsServices ? others : [first, ...others])];
const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stopping.abort());
const folder = await temporaryFolder();
try {
  const { signal } = stopping;
  setMaxListeners(0, signal); // each file adds one
  const options = { dataDir: join(folder.path, "services"), mysql: true, kafka: true, say: () => {}, signal };
  await using services = needsServices ? await useServices(options) : undefined;
  if (services) process.env[sharedCreds] = services.credsFile;
  if (services) process.env.PIPELINE_PROGRAM ??= launcher;
  // One more than two cores, because files wait for disks, services and timeouts.
  const tests = run({ files: needsServices ? files : await byFolder(files), concurrency: 3, signal });
  tests.on("test:fail", () => {
    process.exitCode = 1;
  });
  await pipeline(tests, new spec(), process.stdout);
} finally {
  await folder.remove();
}

/** A module for each folder that imports its files, because starting a process takes as long as running many files. */
async function byFolder(files: string[]): Promise<string[]> {
  const modules: string[] = [];
  for (const name of new Set(files.map(dirname))) {
    const imports = files
      .filter((file) => dirname(file) === name)
      .map((file) => `import ${JSON.stringify(pathToFileURL(file).href)};\n`);
    const module = join(folder.path, `${modules.length}-${basename(name)}.mjs`);
    await writeFile(module, imports.join(""));
    modules.push(module);
  }
  return modules;
}
