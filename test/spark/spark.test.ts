import assert from "node:assert/strict";
import { readFileSync, rmSync } from "node:fs";
import { cp, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { fileURLToPath } from "node:url";
import { parse } from "yaml";
import { byTable, type Table, tableNames } from "../../io.ts";
import { kafkaClient } from "../../kafka/client.ts";
import { topicOf } from "../../kafka/settings.ts";
import { ensureTopics } from "../../kafka/topics.ts";
import { readQuestions } from "../../report/questions.ts";
import { report } from "../../report/report.ts";
import { makeLake } from "../support/lake_of.ts";
import { bigMessages, hostileMessages } from "../support/messages.ts";
import { leftOpen, type Message, reasons } from "../support/oracle.ts";
import { output } from "../support/python.ts";
import { openServices, type Services } from "../support/services.ts";
import { query, run, temporaryFolder } from "../support/support.ts";
import { deltaTable, deploy, findSpark, runJob, type Spark, sameRows, sql } from "./spark.ts";

const seed = Number(process.env.SEED ?? 1 + Math.floor(Math.random() * 1e6));
const decisive = (table: Table, count: number, seed: number) =>
  hostileMessages(table, count, seed).filter((message) => !leftOpen(table, message));

let folder: Awaited<ReturnType<typeof temporaryFolder>>;
let spark: Spark;
before(async () => {
  folder = await temporaryFolder();
  spark = await findSpark();
});
after(() => folder.remove());

/** The spec leaves open the text of numbers with point or exponent and of nested values, which a reject's detail may show. */
const detail = `CASE WHEN NOT starts_with(detail, 'value: ')
    AND regexp_matches(detail, '^\\w+: "?(-?\\d*[.eE0-9+-]*[.eE]|-?Infinity|[[{])')
  THEN split_part(detail, ':', 1) ELSE detail END AS detail`;

/** Fails if the rows of a lake differ from those of the Delta tables. */
async function sameTables(lake: string, tables: string): Promise<void> {
  for (const table of tableNames) {
    const [one, other] = [`'${lake}/silver/${table}/*.parquet'`, deltaTable(`${tables}/silver_${table}`)];
    const columns = (await query(`DESCRIBE FROM ${one}`)).map(({ column_name }) => column_name).join(", ");
    await sameRows(`silver of ${table}`, `SELECT ${columns} FROM ${one}`, `SELECT ${columns} FROM ${other}`);
  }
  const deletes = tableNames.map(
    (table) =>
      `SELECT '${table}' AS "table", ind, _partition, _offset, _posted_at FROM '${lake}/deletes/${table}/*.parquet'`,
  );
  const deleted = `SELECT "table", ind, _partition, _offset, _posted_at FROM ${deltaTable(`${tables}/deletes`)}`;
  await sameRows("deletes", `FROM (${deletes.join(" UNION ALL ")})`, deleted);
  const columns = `"table", _partition, _offset, _posted_at, key, reason, ${detail}, raw`;
  const rejects = deltaTable(`${tables}/rejects`);
  await sameRows("rejects", `SELECT ${columns} FROM '${lake}/rejects/*.parquet'`, `SELECT ${columns} FROM ${rejects}`);
  const answers = readQuestions().map(({ name }) => name);
  for (const name of ["ledger", "rejects_by_reason", "matches", ...answers]) {
    await sameRows(name, `FROM '${lake}/gold/${name}.parquet'`, `FROM ${deltaTable(`${tables}/${name}`)}`);
  }
}

/** Creates a lake from a number of hostile messages per table, cleaned and with a report. */
async function reportedLake(lake: string, counts: Record<Table, number>, perFile: number): Promise<void> {
  await makeLake(
    lake,
    byTable((table) => decisive(table, counts[table], seed)),
    { perFile },
  );
  await report({ lake, signal: new AbortController().signal });
}

test("one SQL, two engines: thousands of hostile messages give the same silver, rejects, ledger and answers", async (t) => {
  t.diagnostic(`repeat with SEED=${seed}`);
  const lake = `${folder.path}/lake é`;
  const messages = byTable((table) => decisive(table, 3_000, seed));
  const tooBig = bigMessages("geo").filter(({ value }) => value && value.length > 16 * 1024 * 1024);
  const next = 1 + Math.max(...messages.geo.filter((m) => m.partition === 0).map((m) => m.offset));
  messages.geo.push(...tooBig.slice(0, 1).map((message) => ({ ...message, offset: next })));
  await makeLake(lake, messages, { perFile: 500 });
  await report({ lake, signal: new AbortController().signal });
  const tables = `${folder.path}/tables é`;
  // An additional answer needs only its file.
  const withAnswer = join(folder.path, "sql");
  await cp(sql, withAnswer, { recursive: true });
  const kinds = "SELECT is_image_or_video AS kind, CAST(count(*) AS BIGINT) AS post_count FROM pin GROUP BY 1";
  await writeFile(join(withAnswer, "answers", "10_posts_by_kind.sql"), `-- Posts by kind\n${kinds};\n-- The end\n`);
  const job = await runJob(spark, ["--bronze", `${lake}/bronze`, "--tables", tables, "--batch", "5000"], {
    folder: folder.path,
    sql: withAnswer,
  });
  assert.equal(job.code, 0, job.said.slice(-20_000));
  await sameTables(lake, tables);
  const silver = `FROM (WITH pin AS (FROM '${lake}/silver/pin/*.parquet') ${kinds})`;
  await sameRows("posts by kind", silver, `FROM ${deltaTable(`${tables}/posts_by_kind`)}`);
  const found = await query(`SELECT DISTINCT reason FROM ${deltaTable(`${tables}/rejects`)}`);
  assert.deepEqual(found.map(({ reason }) => reason).sort(), [...reasons].sort());
});

test("killed between batches and inside them, the job on the topics gives the same result as clean", async (t) => {
  t.diagnostic(`repeat with SEED=${seed}`);
  const services = await openServices({ rows: 1 });
  try {
    await ensureTopics({ ...services.kafka, partitions: 3 });
    const tables = `${folder.path}/killed`;
    const args = ["--kafka", services.kafka.brokers.join(), "--prefix", services.kafka.prefix, "--tables", tables];
    args.push("--checkpoint", `${folder.path}/checkpoint`, "--batch", "400");
    const struck = async (time: number, place: string) => {
      const job = await runJob(spark, args, { folder: folder.path, strike: `kill ${time} ${place}` });
      assert.equal(job.code, null, job.said.slice(-20_000));
      const steps = join(folder.path, "steps");
      assert.equal(readFileSync(steps, "utf8"), `struck ${place}`);
      rmSync(steps);
    };
    await produce(services, 1);
    await struck(1, "merging geo");
    await struck(1, "finished pin");
    await produce(services, 2);
    await struck(2, "rejecting pin");
    // Without the checkpoint Spark reads the whole topic again; the tables know that it is done.
    rmSync(`${folder.path}/checkpoint/geo`, { recursive: true });
    const job = await runJob(spark, args, { folder: folder.path });
    assert.equal(job.code, 0, job.said.slice(-20_000));
    assert.match(job.said, /user: \d+ messages applied/);

    const own = ["--data", services.data, "--creds", services.creds];
    const clean = await run(["clean", ...own]);
    assert.equal(clean.code, 3, clean.stderr);
    const reported = await run(["report", ...own]);
    assert.equal(reported.code, 0, reported.stderr);
    const lake = join(services.data, "lake");
    await sameTables(lake, tables);

    // Messages are recognized by their offsets, even if they come from another source the next time.
    const again = await runJob(spark, ["--bronze", `${lake}/bronze`, "--tables", tables], { folder: folder.path });
    assert.equal(again.code, 0, again.said.slice(-20_000));
    assert.doesNotMatch(again.said, /messages applied/);
    await sameTables(lake, tables);
  } finally {
    await services.close();
  }
});

test("interrupted at every step of a batch, rows and deletes are merged once", async (t) => {
  t.diagnostic(`repeat with SEED=${seed}`);
  const lake = `${folder.path}/stops`;
  await reportedLake(lake, { pin: 100, geo: 600, user: 100 }, 70);
  const tables = `${folder.path}/stops-tables`;
  const job = await runJob(spark, [deploy, "geo", "--bronze", `${lake}/bronze`, "--tables", tables, "--batch", "210"], {
    folder: folder.path,
    program: fileURLToPath(new URL("stops.py", import.meta.url)),
  });
  assert.equal(job.code, 0, job.said.slice(-20_000));
  const stops = [...job.said.matchAll(/broken off at (\w+)/g)].map(([, step]) => step);
  assert.deepEqual(
    [...new Set(stops)],
    ["counting", "rejecting", "merging", "deleting", "finishing", "finished"],
    job.said.slice(-20_000),
  );
  await sameTables(lake, tables);
});

/** Posts hostile messages to all topics, and some in an aborted transaction. */
async function produce({ kafka }: Services, round: number): Promise<void> {
  const options = { transactionalId: "spark-test", idempotent: true, maxInFlightRequests: 1 };
  const producer = kafkaClient(kafka).producer(options);
  await producer.connect();
  try {
    for (const table of tableNames) {
      const some = decisive(table, 600, seed + round);
      const send = async (messages: Message[], end: "commit" | "abort") => {
        const transaction = await producer.transaction();
        await transaction.send({ topic: topicOf(kafka, table), messages });
        await transaction[end]();
      };
      await send(some.slice(0, 300), "commit");
      await send(some.slice(0, 50), "abort");
      await send(some.slice(300), "commit");
    }
  } finally {
    await producer.disconnect();
  }
}

test("two concurrent jobs count each message once, and the next run finishes their work", async () => {
  const lake = `${folder.path}/twice`;
  await reportedLake(lake, { pin: 400, geo: 400, user: 400 }, 100);
  const tables = `${folder.path}/twice-tables`;
  const job = (name: string) =>
    runJob(spark, ["--bronze", `${lake}/bronze`, "--tables", tables, "--batch", "200"], {
      folder: join(folder.path, name),
    });
  const both = await Promise.all([job("one"), job("other")]);
  for (const { code, said } of both) assert.ok(code === 0 || /Another run|Concurrent/.test(said), said.slice(-20_000));
  const last = await job("last");
  assert.equal(last.code, 0, last.said.slice(-20_000));
  await sameTables(lake, tables);
});

test("the bundle's job has only fields that Databricks knows and parameters that the job accepts", async () => {
  const bundle = parse(readFileSync(join(deploy, "databricks.yml"), "utf8"));
  const job = bundle.resources.jobs.pinterest;
  const check = async (job: unknown) => {
    const path = join(folder.path, "job.json");
    await writeFile(path, JSON.stringify(job));
    return JSON.parse(
      String(await output(spark.python, [fileURLToPath(new URL("bundle.py", import.meta.url)), deploy, path])),
    );
  };
  const given = await check(job);
  assert.deepEqual([given.kafka, given.tables], ["${var.kafka}", "${var.schema}"]);
  assert.equal(given.sql, "${workspace.file_path}/sql");
  assert.ok(bundle.sync.paths.includes("../../sql"));
  const used = JSON.stringify(bundle.resources).matchAll(/\$\{var\.(\w+)\}/g);
  assert.deepEqual([...new Set([...used].map(([, name]) => name))].sort(), Object.keys(bundle.variables).sort());
  await assert.rejects(check({ ...job, max_retry: 3 }), /Unexpected field 'max_retry'/);
});
