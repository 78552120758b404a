/** Services that are killed while commands and the page work. */
import assert from "node:assert/strict";
import { chmod, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import type { Browser, Page } from "playwright-core";
import { kafkaClient } from "../../kafka/client.ts";
import { findBrowser, noBrowser, openBrowser, watchPage } from "../support/browser.ts";
import { openClient, startServer } from "../support/http_api.ts";
import { openServices, readTopic, type Services } from "../support/services.ts";
import { ok, query, type Running, run, start, struck } from "../support/support.ts";
import { keysIn } from "../support/topics.ts";
import { validRow } from "../support/valid_row.ts";

const rows = 2000;
const executable = findBrowser();
const skip = executable ? false : noBrowser;

let services: Services;
let at: string[];
let server: Running;
let url: string;
let api: Awaited<ReturnType<typeof openClient>>;
let browser: Browser | undefined;
let page: Page;
let watched: ReturnType<typeof watchPage>;

before(async () => {
  services = await openServices({ rows });
  at = ["--data", services.data];
  ({ server, url } = await startServer([...at, "--prefix", "away"]));
  api = await openClient(url);
});
after(async () => {
  await browser?.close();
  server?.kill("SIGTERM");
  await server?.done;
  await services?.close();
});

const emulation = (prefix: string, ...args: string[]) => ["emulate", ...at, "--prefix", prefix, ...args];

test("the broker is killed repeatedly: no post is lost, duplicated or half posted", async () => {
  const args = ["--seed", "11", "--rate", "300/s", "--limit", "1500", "--json"];
  ok(await run(emulation("calm", ...args, "--rate", "5000/s")));
  const stormy = start(emulation("stormy", ...args));
  let ended = false;
  void stormy.done.then(() => {
    ended = true;
  });
  await stormy.said(/Posting with seed/);
  let kills = 0;
  for (; kills < 2; kills++) {
    await new Promise((done) => setTimeout(done, 1_000 + Math.random() * 500));
    if (ended) break;
    services.killKafka();
    ok(await run(["up", "--data", services.data]));
  }
  const { posts } = JSON.parse(ok(await stormy.done).stdout) as { posts: number };
  assert.equal(posts, 1500);
  assert.equal(kills, 2);
  assert.deepEqual(await keysIn(services.kafka, "stormy"), await keysIn(services.kafka, "calm"));
});

test("the broker is killed during requests: every row answered with 200 is in the topic once, refused ones are not", async () => {
  const { server: own, url: there } = await startServer([...at, "--prefix", "killed"]);
  const statuses = new Map<string, number>();
  let going = true;
  const client = async (name: number) => {
    for (let n = 0; going; n++) {
      const key = `${name}${String(n).padStart(6, "0")}`;
      const { status, headers, body } = await api.sendData({ topic_name: "user", data: { ind: Number(key) } }, there);
      if (status === 503) assert.ok(headers.get("retry-after"));
      const unknown = status === 503 && /not known/.test(String(body.error));
      statuses.set(String(Number(key)), unknown ? 0 : status);
      if (status !== 200) await sleep(100);
    }
  };
  const clients = [1, 2, 3, 4].map(client);
  try {
    await sleep(700);
    services.killKafka();
    const up = await run(["up", "--data", services.data]);
    assert.equal(up.code, 0, up.stderr);
    const stored = () => [...statuses.values()].filter((status) => status === 200).length;
    const then = stored();
    for (let tries = 0; tries < 200 && stored() < then + 50; tries++) await sleep(100);
    assert.ok(stored() >= then + 50);
  } finally {
    going = false;
    await Promise.all(clients);
    own.kill("SIGTERM");
    await own.done;
  }
  const times = new Map<string, number>();
  for (const { key } of await readTopic(services.kafka, "killed.user")) {
    times.set(String(key), (times.get(String(key)) ?? 0) + 1);
  }
  for (const [key, status] of statuses) {
    const found = times.get(key) ?? 0;
    if (status === 200) assert.equal(found, 1, `key ${key}`);
    if (status === 503) assert.equal(found, 0, `key ${key}`);
  }
  assert.ok([...statuses.values()].includes(200));
});

/** Waits until the state of the page and its sentences say this; without patterns, until the header says "Live". */
async function shows(patterns: RegExp[]): Promise<void> {
  let said: string[] = [];
  for (let tries = 0; tries < 300; tries++) {
    said = await page.locator("#state-title, #state-text p").allTextContents();
    const link = await page.locator("#link").getAttribute("data-state");
    const isWanted = said.length === patterns.length && patterns.every((pattern, i) => pattern.test(said[i] ?? ""));
    if (patterns.length === 0 ? link === "live" : isWanted && link === "partly") return;
    await page.waitForTimeout(100);
  }
  assert.fail(`The page says ${JSON.stringify(said)}`);
}

test("the page shows an unavailable service once, in plain words, and its header does not say that all is live", {
  skip,
}, async () => {
  browser = await openBrowser(executable as string);
  page = await browser.newPage();
  watched = watchPage(page);
  await page.goto(url);
  await shows([]);
  services.killMysql();
  const mysqlAway = [
    /^Cannot reach MySQL at 127\.0\.0\.1:\d+$/,
    /^Its rows are not counted until it is back; check that it is running$/,
  ];
  await shows(mysqlAway);
  services.killKafka();
  await shows([...mysqlAway, /^Cannot reach Kafka at 127\.0\.0\.1:\d+: nothing can be posted [a-z ]+; [a-z ]+$/]);
});

test("while Kafka is unavailable, rows are refused after a while with a message that says so", async () => {
  if (skip) services.killKafka();
  try {
    const answers = await Promise.all([
      api.sendData({ topic_name: "pin", data: { index: 1 } }),
      api.produce("geo", { records: [{ value: { ind: 1 } }] }),
    ]);
    for (const { status, headers, body } of answers) {
      assert.deepEqual([status, body.error ?? body.message], [503, "Nothing was stored: Kafka is unavailable"]);
      assert.equal(headers.get("retry-after"), "5");
    }
  } finally {
    const up = await run(["up", "--data", services.data]);
    assert.equal(up.code, 0, up.stderr);
  }
});

test("services that are back are live on the page, which has sent requests only to its server", { skip }, async () => {
  await shows([]);
  watched.isQuiet(url);
});

test("messages that are landed and wait for the next batch are cleaned although Kafka becomes unavailable", async () => {
  const [path, other, trace] = [
    join(services.folder.path, "landed.yaml"),
    join(services.folder.path, "landed"),
    join(services.folder.path, "trace"),
  ];
  await writeFile(
    path,
    (await readFile(services.creds, "utf8")).replace(/BROKERS:/, "PARTITIONS: 3\n  PREFIX: landed\n  BROKERS:"),
  );
  await chmod(path, 0o600);
  ok(await run(["post", "--creds", path, "--data", other]));
  // More than one batch, in three partitions: the file of one partition is cleaned first, and the others wait.
  const producer = kafkaClient(services.kafka).producer();
  await producer.connect();
  const pad = "x".repeat(3_000_000);
  for (let i = 0; i < 150; i += 3) {
    const messages = [0, 1, 2].map((partition) => ({
      ...{ key: String(5000 + i + partition), partition },
      value: JSON.stringify(validRow("geo", 5000 + i + partition, { pad })),
    }));
    await producer.send({ topic: "landed.geo", messages });
  }
  await producer.disconnect();
  await writeFile(`${trace}.hold`, "");
  const env = struck(trace, "pause 1 ^cleaning geo");
  const clean = start(["clean", "--creds", path, "--data", other], { env });
  while (!(await readFile(trace, "utf8").catch(() => "")).includes("struck")) await sleep(20);
  services.killKafka();
  await rm(`${trace}.hold`);
  await clean.said(/waiting/i);
  ok(await run(["up", "--data", services.data]));
  ok(await clean.done);
  const found = await query(`SELECT count(*)::INT AS n FROM '${other}/lake/silver/geo/*.parquet'`);
  assert.deepEqual(found, [{ n: rows + 150 }]);
});
