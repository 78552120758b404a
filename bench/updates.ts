/**
 * What updates of random rows cost `clean --follow`: `npm run bench:updates -- [--rows N] [--rate N] [--seconds N]`.
 *
 * Starts services of its own with N sample rows a table in the lake, and sends rows of random keys, so many a second
 * over the three tables, as `post` would, while `clean --follow` runs. Prints what it took of a core, how much of the time
 * it was busy with batches, how many blocks of silver it wrote, and how long an update took from its commit until its
 * batch was in silver. `--data DIR` takes what `up`, `post` and `clean` have made there.
 *
 * @module
 */

import { existsSync, readFileSync, rmSync } from "node:fs";
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
import { cpuOf, peakOf } from "./measures.ts";

const { values } = parseArgs({
  options: {
    rows: { type: "string", default: "1000000" },
    rate: { type: "string", default: "100" },
    seconds: { type: "string", default: "120" },
    data: { type: "string" },
  },
});
const [rows, rate, seconds] = [values.rows, values.rate, values.seconds].map(Number) as [number, number, number];

/** A row of the sample as the program posts it, under another key. */
function update(kafka: KafkaSettings, table: Table) {
  const key = String(Math.floor(Math.random() * rows));
  const columns = Object.entries(tables[table].columns).map(([name, kind]) => ({ name, kind }));
  const row = [key, ...sampleRow(table, Math.floor(Math.random() * rows)).slice(1)];
  return { topic: topicOf(kafka, table), key, value: rowToJson(columns, row) };
}

/** What was committed: when, ms, and where it stands. */
interface Sent {
  table: Table;
  partition: number;
  offset: number;
  at: number;
}

/** Sends updates until the time is over, ten times a second what is due. */
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

/** A batch of one table by the program's steps: from when to when, ms, and how many blocks of silver it wrote. */
interface Batch {
  table: Table;
  begin: number;
  end: number;
  blocks: number;
  /** Up to which offset of a partition it goes. */
  next: Map<number, number>;
}

/** The batches that the file of steps tells of; the last one may not have ended. */
function batchesOf(trace: string): Batch[] {
  const batches: Batch[] = [];
  const landed = new Map<Table, Map<number, number>>(tableNames.map((table) => [table, new Map()]));
  const open = new Map<Table, Batch>();
  for (const line of readFileSync(trace, "utf8").trimEnd().split("\n")) {
    const [, time, name, subject = ""] = line.split("\t");
    const [, room, table] = /\/(bronze|silver|rejects)\/(\w+?)[/-]/.exec(subject) ?? [];
    const of = (name === "cleaning" ? subject : table) as Table;
    if (name === "cleaning") {
      open.set(of, { table: of, begin: Number(time), end: 0, blocks: 0, next: new Map(landed.get(of)) });
    } else if (name !== "renamed") continue;
    else if (room === "bronze") {
      const [, partition, next] = /\/(\d+)-\d+-(\d+)-\d+\.tsv$/.exec(subject) ?? [];
      landed.get(of)?.set(Number(partition), Number(next));
    } else if (room === "silver") (open.get(of) as Batch).blocks++;
    else if (room === "rejects") batches.push({ ...(open.get(of) as Batch), end: Number(time) });
  }
  return batches;
}

/** How long at least one of the batches was at work between two times, ms. */
function busy(batches: Batch[], from: number, to: number): number {
  let [time, until] = [0, from];
  for (const { begin, end } of [...batches].sort((a, b) => a.begin - b.begin)) {
    time += Math.max(0, Math.min(end, to) - Math.max(begin, until));
    until = Math.max(until, Math.min(end, to));
  }
  return time;
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
  const doneAt = (batches: Batch[], { table, partition, offset }: Sent) =>
    batches.find((batch) => batch.table === table && (batch.next.get(partition) ?? 0) > offset)?.end;
  let batches = batchesOf(trace);
  for (; sent.some((one) => doneAt(batches, one) === undefined); batches = batchesOf(trace)) await sleep(1_000);
  follow.kill("SIGINT");
  await follow.done;
  const waits = sent.map((one) => (doneAt(batches, one) as number) - one.at).sort((a, b) => a - b);
  const at = (share: number) => `${((waits[Math.ceil(waits.length * share) - 1] as number) / 1000).toFixed(1)} s`;
  const ours = batches.filter(({ begin }) => begin >= from && begin < to);
  const blocks = ours.reduce((sum, batch) => sum + batch.blocks, 0);
  console.log(
    `${sent.length} updates, ${rate} a second over ${rows.toLocaleString("en")} rows a table, for ${Math.round((to - from) / 1000)} s: ` +
      `${Math.round((taken / (to - from)) * 100_000)} % of a core, ${Math.round(peak)} MB, busy with batches ${Math.round((busy(ours, from, to) / (to - from)) * 100)} % of the time; ` +
      `${ours.length} batches wrote ${blocks} blocks, ${((taken / blocks) * 1000).toFixed(0)} ms of CPU each; ` +
      `from commit to silver: half within ${at(0.5)}, 99 of 100 within ${at(0.99)}, all within ${at(1)}`,
  );
} finally {
  await close();
}
