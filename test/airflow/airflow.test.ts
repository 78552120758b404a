/** The DAG under Airflow's real scheduler, checked through its REST API: `npm run test:airflow`. */
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { readdir, rename } from "node:fs/promises";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { connectMysql } from "../../db_conn.ts";
import type { LedgerRow } from "../../lake/ledger.ts";
import { type Airflow, installAirflow, openAirflow, postRows } from "../support/airflow.ts";
import { openServices, type Services } from "../support/services.ts";
import { run, start } from "../support/support.ts";

const rows = 300;
let python: string;
let services: Services;
let airflow: Airflow;
/** Messages of the callback. */
const alerts: string[] = [];
let listener: Server;

before(async () => {
  python = await installAirflow();
  services = await openServices({ rows });
  listener = createServer((request, response) => {
    let body = "";
    request.on("data", (chunk) => {
      body += chunk;
    });
    request.on("end", () => {
      alerts.push((JSON.parse(body) as { text: string }).text);
      response.end();
    });
  }).listen(0, "127.0.0.1");
  await new Promise((resolve) => listener.once("listening", resolve));
  const { port } = listener.address() as AddressInfo;
  // Many retries, because the broker may take long to start.
  const settings = { data: services.data, schedule: null, retries: 20, retry_seconds: 5 };
  airflow = await openAirflow(services.folder.path, {
    AIRFLOW_VAR_PINTEREST: JSON.stringify(settings),
    AIRFLOW_VAR_PINTEREST_ALERT_URL: `http://127.0.0.1:${port}`,
  });
});
after(async () => {
  await airflow?.close();
  listener?.close();
  await services?.close();
});

const states = (tasks: Record<string, { state: string | null }>) =>
  Object.fromEntries(Object.entries(tasks).map(([name, { state }]) => [name, state]));

const allWell = { post: "success", clean: "success", ledger: "success", check: "success", report: "success" };

test("from an empty metadata database to a published report", async () => {
  const { id, state, tasks } = await airflow.ended(await airflow.trigger());
  assert.deepEqual(states(tasks), { ...allWell, rejects: "skipped" }, await airflow.log(id, "post"));
  assert.equal(state, "success");
  assert.match(await airflow.log(id, "post"), /info post {4}pin 300, /);
  const cleaned = await airflow.result<{ messages: number; rejected: number }>(id, "clean");
  assert.deepEqual({ ...cleaned, ledger: undefined }, { messages: 3 * rows, rejected: 0, ledger: undefined });
  const path = `assets/events?source_dag_id=pinterest&source_run_id=${id}`;
  const { asset_events: events } = await airflow.api<{
    asset_events: { name: string; extra: { page: string; ledger: LedgerRow[] } }[];
  }>("GET", path);
  assert.deepEqual(
    events.map(({ name, extra }) => [name, extra.ledger.map(({ clean }) => clean)]),
    [["pinterest_report", [rows, rows, rows]]],
  );
  assert.ok(existsSync(events[0]?.extra.page as string));
});

test("a second run without new data posts and cleans nothing, and succeeds", async () => {
  const { id, state, tasks } = await airflow.ended(await airflow.trigger());
  assert.deepEqual(states(tasks), { ...allWell, rejects: "skipped" });
  assert.equal(state, "success");
  const { posted } = await airflow.result<{ posted: { rows: number }[] }>(id, "post");
  assert.deepEqual(
    posted.map((table) => table.rows),
    [0, 0, 0],
  );
  assert.equal((await airflow.result<{ messages: number }>(id, "clean")).messages, 0);
});

test("a broker that is down is retried until it is up, with credentials", async () => {
  services.killKafka();
  const id = await airflow.trigger({ creds: services.creds, wait: 2 });
  for (let tries = 0; (await airflow.tasks(id)).post?.state !== "up_for_retry"; tries++) {
    assert.ok(tries < 2000, "post did not fail without a broker");
    await sleep(200);
  }
  assert.match(await airflow.log(id, "post"), /"post" ended with exit code 1/);
  assert.deepEqual(alerts, []);
  const up = await run(["up", "--data", services.data]);
  assert.equal(up.code, 0, up.stderr);
  const { state, tasks } = await airflow.ended(id);
  assert.equal(state, "success");
  assert.ok((tasks.post?.try_number as number) >= 2);
});

test("wrong settings fail without a retry, and are reported", async () => {
  const { id, state, tasks } = await airflow.ended(await airflow.trigger({ creds: "/nowhere.yaml" }));
  assert.equal(state, "failed");
  assert.deepEqual([tasks.post?.state, tasks.post?.try_number, tasks.clean?.state], ["failed", 1, "upstream_failed"]);
  assert.match(await airflow.log(id, "post"), /Wrong use or settings/);
  assert.equal(alerts.length, 1);
  assert.match(alerts.pop() as string, /^pinterest .*: post failed at try 1: .*nowhere\.yaml/);
});

test("new rejects are a success with a warning, and pending messages fail the check", async () => {
  await postRows(services.data, "geo", [{ ind: 1 }, { ind: "x" }, "text"]);
  const { id, state, tasks } = await airflow.ended(
    await airflow.trigger({ max_reject_share: 1, max_lag: 0, max_behind_seconds: 0 }),
  );
  assert.deepEqual(states(tasks), { ...allWell, rejects: "success" });
  assert.equal(state, "success");
  assert.match(
    await airflow.log(id, "clean"),
    /warning .*3 new messages were rejected[\s\S]*warning +geo missing_column: 2/,
  );
  const found = await airflow.result(id, "rejects");
  assert.deepEqual(found, { new: 3, all: ["geo missing_column: 2", "geo not_an_object: 1"] });
  assert.match(await airflow.log(id, "check"), /user: .* lag 0; behind MySQL 0 s/);
  await postRows(services.data, "geo", [{ ind: 1 }]);
  const db = await connectMysql(services.mysql);
  await db.query("UPDATE user_data SET age = age + 1 WHERE ind = 1");
  db.destroy();
  await sleep(1_100);
  await airflow.again(id, "ledger");
  const second = await airflow.ended(id);
  assert.deepEqual([second.state, second.tasks.check?.state], ["failed", "failed"]);
  const attempt = second.tasks.check?.try_number as number;
  const why = await airflow.log(id, "check", attempt);
  assert.match(why, /offsets of geo wait to be cleaned, over 0/);
  assert.match(why, /user is [1-9]\d* s behind MySQL, over 0 s/);
  assert.match(alerts.pop() as string, /check failed at try .*wait to be cleaned/);
});

test("too many rejects fail the check, once, before anything is reported", async () => {
  const { id, state, tasks } = await airflow.ended(await airflow.trigger({ max_reject_share: 0.001 }));
  assert.equal(state, "failed");
  assert.deepEqual([tasks.clean?.state, tasks.check?.state], ["success", "failed"]);
  assert.deepEqual([tasks.check?.try_number, tasks.report?.state], [1, "upstream_failed"]);
  assert.match(await airflow.log(id, "check"), /1\.32% of all geo messages are rejects, over 0\.10%/);
  assert.match(alerts.pop() as string, /check failed/);
});

test("a ledger that is not balanced fails the check", async () => {
  const conf = { max_reject_share: 1 };
  const { id, state } = await airflow.ended(await airflow.trigger(conf));
  assert.equal(state, "success");
  const bronze = join(services.data, "lake/bronze/pin");
  const [name = ""] = await readdir(bronze);
  const tampered = name.replace(/-(\d+)\.tsv$/, (_, messages: string) => `-${Number(messages) - 1}.tsv`);
  assert.notEqual(tampered, name);
  await rename(join(bronze, name), join(bronze, tampered));
  await airflow.again(id, "ledger");
  const second = await airflow.ended(id);
  await rename(join(bronze, tampered), join(bronze, name));
  assert.deepEqual(
    [second.state, second.tasks.check?.state, second.tasks.report?.state].join(),
    "failed,failed,upstream_failed",
  );
  const log = await airflow.log(id, "check", second.tasks.check?.try_number);
  assert.match(log, /the ledger of pin is not balanced: 299 messages, 300 clean/);
  assert.match(alerts.pop() as string, /is not balanced/);
});

/** Loads the DAG with settings, and prints the value of `code` for `dag`. */
async function parse(settings: Record<string, unknown>, code: string) {
  const folder = fileURLToPath(new URL("../../deploy/airflow", import.meta.url));
  const { done } = start(
    ["-c", `import sys; sys.path.insert(0, ${JSON.stringify(folder)}); sys.dont_write_bytecode = True\n${code}`],
    {
      program: [python],
      env: { AIRFLOW_HOME: join(services.folder.path, "parse"), AIRFLOW_VAR_PINTEREST: JSON.stringify(settings) },
    },
  );
  const { code: exit, stdout, stderr } = await done;
  return { exit, stdout, stderr };
}

test("a setting replaces clean with the Databricks job; without it the provider is not needed", async () => {
  const fields = `
import json, pinterest
clean = pinterest.dag.get_task("clean")
print(json.dumps([type(clean).__name__, clean.job_name, clean.databricks_conn_id, clean.deferrable,
  clean.forward_dag_params, clean.retries, sorted(clean.downstream_task_ids), sorted(pinterest.dag.task_ids)]))`;
  const settings = { clean_with: "databricks", databricks_job: "my-job", databricks_connection: "mine", retries: 2 };
  const bricks = await parse(settings, fields);
  assert.equal(bricks.exit, 0, bricks.stderr);
  const found = JSON.parse(bricks.stdout.trim().split("\n").at(-1) as string);
  const tasks = ["check", "clean", "ledger", "post", "report"];
  assert.deepEqual(found, ["DatabricksRunNowOperator", "my-job", "mine", true, false, 2, ["ledger"], tasks]);
  const operators = '[name for name in sys.modules if name.startswith("airflow.providers.databricks.operators")]';
  const alone = await parse({}, `import pinterest\nprint(pinterest.dag.max_active_runs, ${operators})`);
  assert.deepEqual([alone.exit, alone.stdout.trim().split("\n").at(-1)], [0, "1 []"], alone.stderr);
});

test("an unknown setting is refused", async () => {
  const { exit, stderr } = await parse({ shedule: "@daily" }, "import pinterest");
  assert.equal(exit, 1);
  assert.match(stderr, /unknown \['shedule'\]/);
});

test("Airflow stopped during a task leaves no process behind", async () => {
  services.killKafka();
  const id = await airflow.trigger({ creds: services.creds, wait: 3600 });
  for (let tries = 0; !/Waiting/i.test(await airflow.log(id, "post").catch(() => "")); tries++) {
    assert.ok(tries < 2000, "post did not begin to wait");
    await sleep(200);
  }
  await airflow.close();
});
