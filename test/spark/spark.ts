/**
 * The job of deploy/databricks on a real Spark, and its Delta tables read without it.
 *
 * @module
 */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { cacheFolder, findPython, output } from "../support/python.ts";
import { sameList } from "../support/same_list.ts";
import { query, start } from "../support/support.ts";

/** The folder of the job. */
export const deploy = fileURLToPath(new URL("../../deploy/databricks", import.meta.url));
/** The program's own folder of SQL. */
export const sql = fileURLToPath(new URL("../../sql", import.meta.url));

/** What the job needs to run, downloaded once per user and version. */
export interface Spark {
  python: string;
  jars: string;
}

/** Finds pyspark, and the jars that it lacks. */
export async function findSpark(): Promise<Spark> {
  const python = await findPython(join(deploy, "requirements.txt"));
  const pom = join(deploy, "pom.xml");
  const version = createHash("sha256").update(readFileSync(pom)).digest("hex").slice(0, 12);
  const jars = join(cacheFolder(), `spark-jars-${version}`);
  if (!existsSync(jars)) {
    const unfinished = `${jars}.${process.pid}`;
    mkdirSync(unfinished, { recursive: true });
    try {
      await output("mvn", [
        "-q",
        "-B",
        "--strict-checksums",
        "-f",
        pom,
        "dependency:copy-dependencies",
        `-DoutputDirectory=${unfinished}`,
      ]);
      renameSync(unfinished, jars);
    } finally {
      rmSync(unfinished, { recursive: true, force: true });
    }
  }
  return { python, jars };
}

/**
 * Runs the job to its end, on two cores and 2 GB; all that Spark leaves lies in `folder`.
 *
 * @returns how it ended, and what it said: spark-submit puts what Python writes to stderr on its own stdout
 */
export async function runJob(
  { python, jars }: Spark,
  args: string[],
  {
    folder,
    strike,
    sql: sqlFolder = sql,
    program = join(deploy, "pipeline.py"),
  }: { folder: string; strike?: string; sql?: string; program?: string },
): Promise<{ code: number | null; said: string }> {
  const tmp = join(folder, "tmp");
  mkdirSync(tmp, { recursive: true });
  const settings = {
    "spark.driver.extraClassPath": join(jars, "*"),
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    // Runs of a minute are no place for Java's second compiler, and tables of one file none for 50 tasks.
    "spark.driver.extraJavaOptions": `-XX:TieredStopAtLevel=1 -XX:+UseSerialGC -XX:-UsePerfData -Djava.io.tmpdir=${tmp}`,
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.ui.enabled": "false",
    "spark.log.level": "ERROR",
  };
  const bin = dirname(python);
  const { code, stdout, stderr } = await start([...args, "--sql", sqlFolder], {
    cwd: folder,
    env: {
      PATH: `${bin}:${process.env.PATH}`,
      SPARK_LOCAL_DIRS: tmp,
      TMPDIR: tmp,
      PYTHONDONTWRITEBYTECODE: "1",
      ...(strike && { PIPELINE_STRIKE: strike, PIPELINE_STEPS: join(folder, "steps") }),
    },
    // A process group of its own, which a strike kills whole.
    program: [
      ...["setsid", "--wait", join(bin, "spark-submit"), "--master", "local[2]", "--driver-memory", "2g"],
      ...Object.entries(settings).flatMap(([name, value]) => ["--conf", `${name}=${value}`]),
      program,
    ],
  }).done;
  return { code, said: stderr + stdout };
}

/** A Delta table as DuckDB reads it: the files that its log names. */
export function deltaTable(folder: string): string {
  const log = join(folder, "_delta_log");
  const live = new Set<string>();
  const commits = readdirSync(log).filter((name) => /^\d{20}\.json$/.test(name));
  assert.equal(Number(commits.sort().at(-1)?.slice(0, 20)), commits.length - 1);
  for (const name of commits) {
    for (const line of readFileSync(join(log, name), "utf8").trim().split("\n")) {
      const { add, remove } = JSON.parse(line) as Record<
        string,
        { path: string; deletionVector?: unknown } | undefined
      >;
      assert.equal(add?.deletionVector, undefined);
      if (remove) live.delete(remove.path);
      if (add) live.add(add.path);
    }
  }
  const files = [...live].map((path) => `'${join(folder, decodeURIComponent(path))}'`);
  assert.ok(files.length > 0, `${folder} holds no file`);
  return `read_parquet([${files.join(", ")}], hive_partitioning = true)`;
}

/** Fails where two queries give other rows, and shows some of them; their order does not count. */
export async function sameRows(what: string, one: string, other: string): Promise<void> {
  const [missing, extra] = [
    await query(`${one} EXCEPT ALL ${other} LIMIT 3`),
    await query(`${other} EXCEPT ALL ${one} LIMIT 3`),
  ];
  sameList(missing, [], `${what}: what is missing`);
  sameList(extra, [], `${what}: what is too much`);
}
