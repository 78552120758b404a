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

/** Another process that takes a lake's lock and says what came of it. */
async function takeElsewhere(lake: string): Promise<string> {
  const script = join(folder.path, "take.mts");
  const owner = new URL("../../lake/owner.ts", import.meta.url).href;
  await writeFile(
    script,
    `const { lockLake } = await import(${JSON.stringify(owner)});
    await lockLake(process.argv[2]).then(() => console.log("taken"), (error) => console.log(error.message));
    process.exit();`,
  );
  const program = [process.execPath, "--import", import.meta.resolve("tsx"), script];
  return (await start([lake], { program }).done).stdout;
}

// DuckDB's messages have the path in them.
for (const name of ["plain", "corrupt", "could not read"]) {
  test(`a lake in the folder "${name}" has one writer at a time`, async () => {
    const lake = join(folder.path, name, "lake");
    {
      await using _lock = await lockLake(lake);
      assert.match(
        await takeElsewhere(lake),
        new RegExp(`^Another clean of the lake .* process ${process.pid}, since`),
      );
    }
    assert.equal(await takeElsewhere(lake), "taken\n");
  });
}

test("a lock file that was left half made is made again", async () => {
  const lake = join(folder.path, "half");
  await (await lockLake(lake))[Symbol.asyncDispose]();
  await writeFile(join(lake, ".lock"), "DUCK");
  assert.equal(await takeElsewhere(lake), "taken\n");
});
