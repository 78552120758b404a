/**
 * How long a post takes to be seen in silver: `npm run bench:latency -- [--rate N/s] [--posts N]`.
 *
 * Starts services of its own with the sample's lake, runs `clean --follow` and `emulate` beside it, and looks at each
 * silver file that appears: the time of a message in Kafka, which is right after MySQL was read, against the time at
 * which the file that holds it took its place.
 *
 * @module
 */

import { readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { tableNames } from "../io.ts";
import { openServices } from "../test/support/services.ts";
import { query, run, start } from "../test/support/support.ts";

const { values } = parseArgs({
  options: { rate: { type: "string", default: "100/s" }, posts: { type: "string", default: "3000" } },
});

const services = await openServices({ rows: 11_154 });
const common = ["--data", services.data, "--quiet"];
try {
  for (const command of ["post", "clean"]) await run([command, ...common]);
  const follow = start(["clean", "--follow", ...common]);
  await sleep(5_000);
  const begun = Date.now();
  let over = false;
  const emulate = run(["emulate", "--rate", values.rate, "--limit", values.posts, ...common]).then(() => {
    over = true;
  });
  /** Of each file the time at which it took its place, and of each message when it was seen first. */
  const changed = new Map<string, number>();
  const seen = new Map<string, number>();
  for (let left = 30; left > 0; left -= over ? 1 : 0) {
    for (const table of tableNames) {
      const folder = join(services.data, "lake", "silver", table);
      for (const name of await readdir(folder)) {
        const path = join(folder, name);
        const { ctimeMs } = await stat(path);
        if (changed.get(path) === ctimeMs) continue;
        changed.set(path, ctimeMs);
        const rows = await query(
          `SELECT _offset, epoch_ms(_posted_at)::DOUBLE AS posted FROM '${path.replaceAll("'", "''")}' WHERE epoch_ms(_posted_at) >= ${begun}`,
        ).catch(() => []); // replaced meanwhile
        for (const { _offset, posted } of rows) {
          const message = `${table} ${_offset}`;
          if (!seen.has(message)) seen.set(message, ctimeMs - Number(posted));
        }
      }
    }
    await sleep(100);
  }
  await emulate;
  follow.kill("SIGTERM");
  await follow.done;
  const sorted = [...seen.values()].sort((a, b) => a - b);
  const at = (share: number) => `${((sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN) / 1000).toFixed(2)} s`;
  console.log(
    `${sorted.length} of ${3 * Number(values.posts)} messages at ${values.rate} posts: half within ${at(0.5)}, 99 of 100 within ${at(0.99)}, all within ${at(1)}`,
  );
  console.log("A message whose row a newer one replaced before it was looked at is not among them.");
} finally {
  await services.close();
}
