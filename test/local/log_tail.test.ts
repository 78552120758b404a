/** The end of a message about a service that did not start. */
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { logTail } from "../../local/processes.ts";
import { temporaryFolder } from "../support/support.ts";

test("the end of a log is shown if it has one", async () => {
  const { path, remove } = await temporaryFolder();
  const log = join(path, "service.log");
  assert.equal(logTail(log), "");
  await writeFile(log, "\n");
  assert.equal(logTail(log), "");
  await writeFile(log, "began\n\tat Java.frame\nfailed\n");
  assert.equal(logTail(log), `. The end of "${log}":\n  began\n  failed`);
  await remove();
});

test("a full disk is named, although nothing could be written to the log", async (t) => {
  if (process.platform !== "linux" || process.getuid?.() !== 0) return t.skip("only root can mount a small disk");
  const { path, remove } = await temporaryFolder();
  execFileSync("mount", ["-t", "tmpfs", "-o", "size=256k", "tmpfs", path]);
  try {
    const log = join(path, "service.log");
    await writeFile(log, "");
    assert.equal(logTail(log), "");
    await appendFile(join(path, "filled"), Buffer.alloc(300_000)).catch(() => {});
    assert.equal(logTail(log), ". Its disk is full: make room there, or choose another folder with --data");
  } finally {
    execFileSync("umount", [path]);
    await remove();
  }
});
