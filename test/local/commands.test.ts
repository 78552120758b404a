/** `up`, `down` and `reset`, and the whole job on the private services. */
import assert from "node:assert/strict";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { ok, run, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let data: string;
before(async () => {
  folder = await temporaryFolder();
  data = join(folder.path, "own");
});
after(async () => {
  await run(["down", "--data", data]);
  await folder.remove();
});

test("up prints the address of the services, and its credentials file is private", async () => {
  const up = async (...more: string[]) => {
    const { stdout } = ok(await run(["up", "--data", data, "--json", ...more]));
    return (JSON.parse(stdout) as { mysql: { creds_file: string } }).mysql.creds_file;
  };
  const creds = await up("--rows", "10");
  assert.equal((await stat(creds)).mode & 0o777, 0o600);
  assert.equal(await up(), creds);
});

test("the whole job finds these services without credentials", async () => {
  const { ledger } = JSON.parse(ok(await run(["--data", data, "--json"])).stdout) as { ledger: { clean: number }[] };
  assert.deepEqual(
    ledger.map(({ clean }) => clean),
    [10, 10, 10],
  );
});

test("down ends the services, and reset asks before it deletes them", async () => {
  const { pid } = (
    JSON.parse(await readFile(join(data, "services/state.json"), "utf8")) as { supervisor: { pid: number } }
  ).supervisor;
  ok(await run(["down", "--data", data]));
  // Ended, or a zombie.
  assert.equal(await readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => ""), "");
  const asked = await run(["reset", "--data", data]);
  assert.equal(asked.code, 2);
  assert.match(asked.stderr, /there is no terminal to ask on: add --yes/);
  ok(await run(["reset", "--data", data, "--yes"]));
  assert.deepEqual(await readdir(data), []);
});
