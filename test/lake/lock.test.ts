import assert from "node:assert/strict";
import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { lockLake } from "../../lake/owner.ts";
import { start, temporaryFolder } from "../support/support.ts";

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
before(async () => {
  folder = await temporaryFolder();
});
after(() => folder.remove());

/** Locks lakes in another process; returns "taken" or the error of each. */
async function takeElsewhere(...lakes: string[]): Promise<string[]> {
  const script = join(folder.path, "take.mts");
  const owner = new URL("../../lake/owner.ts", import.meta.url).href;
  await writeFile(
    script,
    `const { lockLake } = await import(${JSON.stringify(owner)});
    for (const lake of process.argv.slice(2)) {
      await lockLake(lake).then(() => console.log("taken"), (error) => console.log(error.message));
    }
    process.exit();`,
  );
  const program = [process.execPath, "--import", import.meta.resolve("tsx"), script];
  const { stdout } = await start(lakes, { program }).done;
  return stdout.trimEnd().split("\n");
}

test("a lake has one writer at a time, even if its folder is named like damage in DuckDB's messages", async () => {
  const lakes = ["plain", "corrupt", "could not read"].map((name) => join(folder.path, name, "lake"));
  const locks = [];
  for (const lake of lakes) locks.push(await lockLake(lake));
  const refused = await takeElsewhere(...lakes);
  assert.equal(refused.length, lakes.length);
  for (const [i, said] of refused.entries()) {
    const lake = `the lake in "${lakes[i]}"`;
    assert.ok(said.startsWith(`Another clean of ${lake} is running: process ${process.pid}, since`), said);
  }
  for (const lock of locks) await lock[Symbol.asyncDispose]();
  assert.deepEqual(
    await takeElsewhere(...lakes),
    lakes.map(() => "taken"),
  );
});

test("an incomplete lock file is recreated", async () => {
  const lake = join(folder.path, "half");
  await (await lockLake(lake))[Symbol.asyncDispose]();
  await writeFile(join(lake, ".lock"), "DUCK");
  assert.deepEqual(await takeElsewhere(lake), ["taken"]);
});
