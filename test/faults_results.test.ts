/** The file of results of the fault suite. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { newTally, openResults } from "./faults/results.ts";
import { temporaryFolder } from "./support/support.ts";

test("results are kept from run to run, and those of other code are dropped, all or those of the touched faults", async () => {
  const folder = await temporaryFolder();
  try {
    const file = join(folder.path, "results.json");
    const first = openResults(file, { seed: 7 });
    first.add("stop", { ...newTally(), rounds: 1, hits: 5 });
    first.add("stop", { ...newTally(), rounds: 1, hits: 2, lost: 1 });
    first.add("proxy", { ...newTally(), rounds: 1, hits: 3 });
    const second = openResults(file, { seed: 8 });
    assert.equal(second.seed, 7);
    assert.deepEqual(second.tallyOf("stop"), { ...newTally(), rounds: 2, hits: 7, lost: 1 });
    assert.deepEqual(second.tallyOf("unknown"), newTally());
    assert.equal(second.commits().length, 1);
    // As if the results were of other code.
    writeFileSync(file, readFileSync(file, "utf8").replaceAll(/"inputs": "\w+"/g, '"inputs": "other"'));
    const touched = openResults(file, { seed: 8, touched: ["stop"] });
    assert.deepEqual([touched.tallyOf("stop").hits, touched.tallyOf("proxy").hits], [0, 3]);
    touched.add("stop", { ...newTally(), rounds: 1, hits: 1 });
    const third = openResults(file, { seed: 8 });
    assert.deepEqual([third.tallyOf("stop").hits, third.tallyOf("proxy").hits], [1, 3]);
    writeFileSync(file, readFileSync(file, "utf8").replaceAll(/"inputs": "\w+"/g, '"inputs": "other"'));
    assert.equal(openResults(file, { seed: 8 }).tallyOf("proxy").hits, 0);
  } finally {
    await folder.remove();
  }
});
