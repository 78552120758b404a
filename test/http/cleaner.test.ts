import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import { after, before, test } from "node:test";
import { findCleaner } from "../../http/cleaner.ts";
import { paths } from "../../lake/files.ts";
import { lockLake } from "../../lake/owner.ts";
import { temporaryFolder } from "../support/support.ts";

let lake: string;
let remove: () => Promise<void>;
before(async () => {
  ({ path: lake, remove } = await temporaryFolder());
});
after(() => remove());

test("the cleaner is the process that holds the lake's lock", async () => {
  assert.equal(await findCleaner(lake), null);
  {
    await using _lock = await lockLake(lake);
    assert.equal((await findCleaner(lake))?.pid, process.pid);
  }
  assert.equal(await findCleaner(lake), null);
});

test("the file that a killed cleaner leaves names no cleaner, even if another process has its id", async () => {
  const { lock } = paths(lake);
  await mkdir(lake, { recursive: true });
  const leave = (pid: number, started: Date) => writeFile(`${lock}.json`, JSON.stringify({ pid, started }));
  const killed = spawn("sleep", ["60"]);
  await leave(killed.pid as number, new Date());
  assert.equal((await findCleaner(lake))?.pid, killed.pid);
  killed.kill("SIGKILL");
  await once(killed, "exit");
  assert.equal(await findCleaner(lake), null);
  await leave(process.pid, new Date(Date.now() - 3_600_000));
  assert.equal(await findCleaner(lake), null);
});
