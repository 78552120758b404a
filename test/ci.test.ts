/**
 * Which big suites CI runs: `.ci/suite` in a separate repository, with an npm that only records its calls.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { appendFile, copyFile, mkdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { temporaryFolder } from "./support/support.ts";

test("a big suite runs unless it has passed with the very same inputs, and CI says why it skips one", async () => {
  const { path, remove } = await temporaryFolder();
  const repository = join(path, "repository");
  const cache = join(path, "cache");
  const git = (...args: string[]) =>
    execFileSync("git", ["-c", "user.name=test", "-c", "user.email=test@localhost", ...args], { cwd: repository });
  const commit = () => {
    git("add", "--all");
    git("commit", "--quiet", "--message", "A change");
  };
  const change = async (file: string) => {
    await appendFile(join(repository, file), "\n");
    commit();
  };
  /** Runs `.ci/suite`; tells whether the suite itself ran, by the file that it writes. */
  const suite = async (env: Record<string, string> = {}) => {
    const ran = join(path, "ran");
    await rm(ran, { force: true });
    const { status, stdout, stderr } = spawnSync("bash", [join(repository, ".ci/suite"), "spark"], {
      encoding: "utf8",
      env: { ...process.env, PATH: `${path}:${process.env.PATH}`, XDG_CACHE_HOME: cache, RAN: ran, ...env },
    });
    const did = await readFile(ran, "utf8").then(
      () => "ran",
      () => "skipped",
    );
    return { did: `${did} ${status}`, said: stdout + stderr };
  };
  const does = async (env?: Record<string, string>) => (await suite(env)).did;
  try {
    for (const folder of [".ci", "bin", "build", "docs", "http", "test/spark", "test/cluster"]) {
      await mkdir(join(repository, folder), { recursive: true });
    }
    await copyFile(new URL("../.ci/suite", import.meta.url), join(repository, ".ci/suite"));
    const npm = `#!/bin/sh\n[ "$*" = "run test:spark" ] && : >"$RAN" && exit \${FAIL:-0}\n`;
    await writeFile(join(path, "npm"), npm, { mode: 0o755 });
    const others = ["README.md", "docs/note.txt", "test/io.test.ts", "test/cluster/cluster.ts"];
    const program = ["http/guard.ts", "package-lock.json", "bin/bundle.cjs", "build/bundle.ts"];
    const inputs = [...program, "test/support.ts", "test/spark/spark.test.ts"];
    for (const file of [...others, ...inputs]) await writeFile(join(repository, file), "");
    git("init", "--quiet");
    commit();

    assert.equal(await does({ FAIL: "1" }), "ran 1");
    assert.equal(await does(), "ran 0", "a failure is not remembered");
    const head = git("rev-parse", "--short", "HEAD").toString().trim();
    for (const file of others) await change(file);
    const again = await suite();
    assert.equal(again.did, "skipped 0");
    assert.match(
      again.said,
      new RegExp(
        `^Skipped: npm run test:spark\\. It passed at ${head} on \\S+ with the same inputs \\([0-9a-f]{64}\\)`,
      ),
    );
    for (const file of inputs) await change(file);
    for (const file of [...inputs].reverse()) {
      assert.equal(await does(), "ran 0", file);
      git("reset", "--quiet", "--hard", "HEAD~1");
    }
    assert.equal(await does(), "skipped 0", "the inputs that passed first are there again");

    await appendFile(join(repository, "http/guard.ts"), "// not committed\n");
    const dirty = await suite();
    assert.deepEqual([dirty.did, /not recorded/.test(dirty.said)], ["ran 0", true], dirty.said);
    commit();
    assert.equal(await does(), "ran 0", "what is not committed is not remembered");
    assert.equal(await does(), "skipped 0");
    await writeFile(join(repository, "http/new.ts"), "");
    assert.equal(await does(), "ran 0", "a new file");
    await rm(join(repository, "http/new.ts"));
    await rm(cache, { recursive: true });
    assert.equal(await does(), "ran 0", "without a cache");
    await rm(cache, { recursive: true });
    await writeFile(cache, "");
    assert.equal(await does(), "ran 0", "with a cache that cannot be written");
  } finally {
    await remove();
  }
});
