/**
 * Runs test files, two at a time, on a MariaDB and a Kafka that it starts once: `tsx test/support/run.ts FILE...`
 *
 * @module
 */

import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { run } from "node:test";
import { spec } from "node:test/reporters";
import { useServices } from "../../local/services.ts";
import { sharedCreds, temporaryFolder } from "./support.ts";

const stopping = new AbortController();
for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => stopping.abort());
const folder = await temporaryFolder();
try {
  const { signal } = stopping;
  const options = { dataDir: join(folder.path, "services"), mysql: true, kafka: true, say: () => {}, signal };
  await using services = await useServices(options);
  process.env[sharedCreds] = services.credsFile;
  // Files that are named twice run once, in the first place.
  const tests = run({ files: [...new Set(process.argv.slice(2))], concurrency: 2, signal });
  tests.on("test:fail", () => {
    process.exitCode = 1;
  });
  await pipeline(tests, new spec(), process.stdout);
} finally {
  await folder.remove();
}
