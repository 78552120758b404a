/**
 * The executable for Linux arm64, built here and run in an emulator. Run by hand, because it needs qemu-user-static,
 * libc6-arm64-cross, libstdc++6-arm64-cross and libgcc-s1-arm64-cross.
 */
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { join } from "node:path";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { run, temporaryFolder } from "../support/support.ts";

const root = fileURLToPath(new URL("../../", import.meta.url));
const emulator = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"];
const skip = spawnSync("qemu-aarch64-static", ["--version"]).status === 0 ? false : "qemu-user-static is not installed";

test("the arm64 executable posts, cleans and answers like the sources", { skip }, async () => {
  const folder = await temporaryFolder();
  try {
    const out = join(folder.path, "arm64");
    const build = ["build/binary.ts", "--level", "1", "--target", "linux-arm64", "--out", out];
    execFileSync(process.execPath, ["--import", import.meta.resolve("tsx"), ...build], { cwd: root });
    const data = join(folder.path, "data");
    const up = await run(["up", "--data", data, "--rows", "300", "--json"], {});
    assert.equal(up.code, 0, up.stderr);
    try {
      const creds = (JSON.parse(up.stdout) as { mysql: { creds_file: string } }).mysql.creds_file;
      const answers = async (name: string, program: string[] | undefined) => {
        const args = ["--json", "--creds", creds, "--prefix", name, "--data", join(folder.path, name)];
        const { code, stdout, stderr } = await run(args, { ...(program && { program }) });
        assert.equal(code, 0, stderr);
        const { answers, ledger } = JSON.parse(stdout);
        return { answers, ledger };
      };
      const [ours, theirs] = [await answers("ours", undefined), await answers("theirs", [...emulator, out])];
      assert.deepEqual(theirs, ours);
    } finally {
      await run(["down", "--data", data]);
    }
  } finally {
    await folder.remove();
  }
});
