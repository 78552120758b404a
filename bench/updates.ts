/**
 * Measures the cost of updates of random rows for `clean --follow`: `npm run bench:updates -- [--rows N] [--rate N] [--seconds N]`.
 *
 * Starts private services with N sample rows a table in the lake, and sends rows with random keys at a given rate over the
 * three tables, as `post` would, while `clean --follow` runs. Prints its share of a core, the share of time it was busy
 * with batches, the number of silver blocks it wrote, and the time of an update from its commit until its batch was in
 * silver. `--data DIR` uses the services and lake that `up`, `post` and `clean` have created there.
 *
 * @module
 */

import { existsSync, rmSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { readCredentials } from "../cli/credentials.ts";
import { rowToJson, type Table, tableNames, tables } from "../io.ts";
import { openPublisher } from "../kafka/publisher.ts";
import { type KafkaSettings, topicOf } from "../kafka/settings.ts";
import { sampleRow } from "../local/sample/rows.ts";
import { openServices } from "../test/support/services.ts";
import { ok, run, start, struck } from "../test/support/support.ts";
import { batchesOf, busy, silverAt } from "./batches.ts";
import { cpuOf, peakOf, shares } from "./measures.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1000000" },
    rate: { type: "string", default: "100" },
    seconds: { type: "string", default: "120" },
    data: { type: "string" },
  },
});
const [rows, rate, seconds] = [values.rows, values.rate, values.seconds].map(Number) as [number, number, number];

/** A sample row as the program posts it, with another key. */
function update(kafka: KafkaSettings, table: Table) {
  const key = String(Math.floor(Math.random() * rows));
  const columns = Object.entries(tables[table].columns).map(([name, kind]) => ({ name, kind }));
  const row = [key, ...sampleRow(table, Math.floor(Math.random() * rows)).slice(1)];
  return { topic: topicOf(kafka, table), key, value: rowToJson(columns, row) };
}

/** A committed message: its time, ms, and its offset. */
interface Sent {
  table: Table;
  partition: number;
  offset: number;
  at: number;
}

/** Sends updates until the time is over, in ten sends a second. */
async function sendUpdates(kafka: KafkaSettings): Promise<Sent[]> {
  await using publisher = openPublisher({ kafka, transactionalId: () => `${kafka.prefix}.bench.updates` });
  const signal = new AbortController().signal;
  const sent: Sent[] = [];
  for (const begun = performance.now(); ; await sleep(100)) {
    const elapsed = Math.min((performance.now() - begun) / 1000, seconds);
    const due = Math.floor(elapsed * rate) - sent.length;
    const names = Array.from({ length: due }, (_, i) => tableNames[(sent.length + i) % tableNames.length] as Table);
    if (due > 0) {
      const result = await publisher.send(
        names.map((table) => update(kafka, table)),
        { signal, timeoutMs: 60_000 },
      );
      if (result.outcome !== "stored") throw result.error;
      const at = Date.now();
      for (const [i, table] of names.entries())
        sent.push({ table, at, ...(result.places[i] as Omit<Sent, "table" | "at">) });
    }
    if (elapsed >= seconds) return sent;
  }
}

async function open() {
  if (values.data === undefined) {
    const services = await openServices({ rows });
    for (const command of ["post", "clean"]) ok(await run([command, "--data", services.data, "--quiet"]));
    return services;
  }
  const up = ok(await run(["up", "--data", values.data, "--json"]));
  const { kafka } = await readCredentials(
    (JSON.parse(up.stdout) as { mysql: { creds_file: string } }).mysql.creds_file,
  );
  return { data: values.data, kafka: kafka as KafkaSettings, close: async () => {} };
}

const { data, kafka, close } = await open();
const trace = join(data, "updates.steps");
try {
  rmSync(trace, { force: true });
  const follow = start(["clean", "--follow", "--data", data, "--quiet"], { env: struck(trace) });
  while (!existsSync(`${data}/lake/.lock`)) await sleep(100);
  await sleep(5_000);
  const [from, cpu] = [Date.now(), cpuOf(follow.pid)];
  const sent = await sendUpdates(kafka);
  const [to, taken, peak] = [Date.now(), cpuOf(follow.pid) - cpu, peakOf(follow.pid)];
  let batches = batchesOf(trace);
  for (; sent.some((one) => silverAt(batches, one) === undefined); batches = batchesOf(trace)) await sleep(1_000);
  follow.kill("SIGINT");
  await follow.done;
  const waits = sent.map((one) => (silverAt(batches, one) as number) - one.at);
  const ours = batches.filter(({ begin }) => begin >= from && begin < to);
  const blocks = ours.reduce((sum, batch) => sum + batch.blocks, 0);
  console.log(
    `${sent.length} updates, ${rate} a second over ${rows.toLocaleString("en")} rows a table, for ${Math.round((to - from) / 1000)} s: ` +
      `${Math.round((taken / (to - from)) * 100_000)} % of a core, ${Math.round(peak)} MB, busy with batches ${Math.round((busy(ours, from, to) / (to - from)) * 100)} % of the time; ` +
      `${ours.length} batches wrote ${blocks} blocks, ${((taken / blocks) * 1000).toFixed(0)} ms of CPU each; ` +
      `from commit to silver: ${shares(waits)}`,
  );
} finally {
  await close();
}
