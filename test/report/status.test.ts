/**
 * Whether the ledger is balanced, as `status` reads it from files, without services.
 */
import assert from "node:assert/strict";
import { readdir, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { test } from "node:test";
import { bronzeLines } from "../../io/bronze_lines.ts";
import { tableNames } from "../../io.ts";
import type { KafkaSettings } from "../../kafka/settings.ts";
import { bronzeName } from "../../lake/bronze.ts";
import { paths } from "../../lake/files.ts";
import { lakeState } from "../../lake/ledger.ts";
import { missingTopics } from "../../report/status.ts";
import { makeLake, viewOf } from "../support/lake_of.ts";
import type { Message } from "../support/oracle.ts";
import { temporaryFolder } from "../support/support.ts";
import { validRow } from "../support/valid_row.ts";

test("balanced covers cleaned messages only: neither landed ones nor a half-published batch", async () => {
  const { path, remove } = await temporaryFolder();
  try {
    const lake = join(path, "lake");
    const message = (offset: number): Message => ({
      ...{ partition: 0, offset, postedAt: 1_700_000_000_000, key: Buffer.from(String(offset)) },
      value: Buffer.from(JSON.stringify(validRow("user", offset))),
    });
    await makeLake(lake, { user: [0, 1, 2].map(message) });
    const look = async () => {
      const states = await lakeState(lake);
      return tableNames.map((table) => states[table].isBalanced).join();
    };
    assert.equal(await look(), "true,true,true");
    const bronze = paths(lake).bronze("user");
    const [cleaned = ""] = await readdir(bronze);
    const lines = bronzeLines();
    lines.add(0, viewOf(message(3)));
    await writeFile(join(bronze, bronzeName({ partition: 0, first: 3, next: 4, messages: 1 })), lines.take());
    assert.equal(await look(), "true,true,true");
    const tampered = cleaned.replace(/-3\.tsv$/, "-2.tsv");
    await rename(join(bronze, cleaned), join(bronze, tampered));
    assert.equal(await look(), "true,true,false");
    await rename(join(bronze, tampered), join(bronze, cleaned));
    await rm(join(paths(lake).rejects, "user-000000.parquet"));
    assert.equal(await look(), "true,true,true");
  } finally {
    await remove();
  }
});

test("a topic that no longer exists is named if the lake holds its messages", async () => {
  const { path, remove } = await temporaryFolder();
  try {
    const lake = join(path, "lake");
    const value = Buffer.from(JSON.stringify(validRow("user", 1)));
    await makeLake(lake, { user: [{ partition: 0, offset: 0, postedAt: 1_700_000_000_000, key: null, value }] });
    const kafka = { prefix: "gone" } as KafkaSettings;
    const states = await lakeState(lake);
    const missing = (ranges: unknown[]) => missingTopics(lake, { kafka, states, ranges });
    assert.deepEqual(missing(tableNames.map(() => [])), []);
    assert.deepEqual(
      missing([]).map((text) => text.split(";")[0]),
      [`Topic "gone.user" does not exist, but the lake in "${lake}" holds its messages`],
    );
  } finally {
    await remove();
  }
});
