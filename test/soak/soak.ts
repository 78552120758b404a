/**
 * A long undisturbed run: `npm run test:soak -- [--minutes 60] [--rate 100/s]`.
 *
 * `emulate` posts, `clean --follow` cleans, and `serve` shows its page to a browser. Every minute, a line shows memory and
 * open files of each. At the end the lake must equal the oracle's result for the topics, and no program may have warned
 * of a listener leak.
 *
 * @module
 */

import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { tableNames } from "../../io.ts";
import { findBrowser, openBrowser } from "../support/browser.ts";
import { readSilver } from "../support/lake_of.ts";
import { cleanTable } from "../support/oracle.ts";
import { sameList } from "../support/same_list.ts";
import { openServices, readTopic } from "../support/services.ts";
import { query, run, start } from "../support/support.ts";

const { values } = parseArgs({
  options: { minutes: { type: "string", default: "60" }, rate: { type: "string", default: "100/s" } },
});
const end = Date.now() + Number(values.minutes) * 60_000;
const services = await openServices({ rows: 11_154 });
const browser = findBrowser();
const running = browser === undefined ? undefined : await openBrowser(browser);
try {
  const at = ["--data", services.data, "--creds", services.creds];
  const env = { NODE_OPTIONS: "--trace-warnings" };
  const programs = {
    clean: start(["clean", "--follow", ...at], { env }),
    emulate: start(["emulate", "--quiet", "--rate", values.rate, ...at], { env }),
    serve: start(["serve", "--port", "0", ...at], { env }),
  };
  await programs.serve.said(/Listening on \S+\n/);
  const page = await running?.newPage();
  await page?.goto(/Listening on (\S+)/.exec(programs.serve.output())?.[1] as string);
  const ended = Promise.race(Object.values(programs).map(({ done }) => done));
  const look = (pid: number) => {
    const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8")) ?? [];
    return `${Math.round(Number(kilobytes) / 1000)} MB, ${readdirSync(`/proc/${pid}/fd`).length} files`;
  };
  while (Date.now() < end) {
    const seen = Object.entries(programs).map(([name, { pid }]) => `${name} ${look(pid)}`);
    process.stderr.write(`${new Date().toISOString().slice(11, 19)}  ${seen.join("; ")}\n`);
    const over = await Promise.race([ended, sleep(Math.min(60_000, end - Date.now()))]);
    assert.equal(over, undefined, `A program has ended: ${over?.stderr.slice(-2_000)}`);
  }
  await page?.close();
  for (const name of ["emulate", "clean", "serve"] as const) {
    programs[name].kill("SIGTERM");
    const { code, stderr } = await programs[name].done;
    assert.equal(code, 143, stderr);
    assert.doesNotMatch(stderr, /MaxListenersExceeded|DeprecationWarning/);
  }
  const last = await run(["clean", ...at]);
  assert.equal(last.code, 0, last.stderr);
  for (const table of tableNames) {
    const messages = await readTopic(services.kafka, `${services.kafka.prefix}.${table}`);
    const wanted = cleanTable(table, messages);
    const rows = [...wanted.rows.values()].sort((a, b) => Number(a.ind - b.ind));
    sameList(await readSilver(join(services.data, "lake"), table), rows);
    const [ledger] = await query(`FROM '${services.data}/lake/gold/ledger.parquet' WHERE "table" = '${table}'`);
    assert.deepEqual([ledger?.messages, ledger?.superseded], [BigInt(messages.length), BigInt(wanted.superseded)]);
    process.stderr.write(`${table}: ${messages.length} messages, ${rows.length} rows, as the oracle has them\n`);
  }
} finally {
  await running?.close();
  await services.close();
}
