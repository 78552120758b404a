/** The files that `npm run generate` writes are those of the present sources. */
import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";
import { test } from "node:test";
import { generated } from "../../build/generate.ts";

test("the generated files belong to the present sources", async () => {
  for (const [file, content] of Object.entries(await generated())) {
    const found = await readFile(new URL(`../../${file}`, import.meta.url), "utf8");
    assert.ok(found === content, `${file} is of other sources: run npm run generate`);
  }
});
