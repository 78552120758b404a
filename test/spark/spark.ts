/**
 * Runs the job of deploy/databricks on a real Spark, and reads its Delta tables without Spark.
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
/** The program's folder of SQL. */
export const sql = fileURLToPath(new URL("../../sql", import.meta.url));

/** Dependencies of the job, downloaded once per user and version. */
export interface Spark {
  python: string;
  jars: string;
}

/** Finds pyspark and the jars that are not part of it. */
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
 * Runs the job to its end, on two cores and 2 GB. Spark writes all its files to `folder`.
 *
 * @returns exit code and output; spark-submit writes Python's stderr to stdout
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
    // Short runs do not profit from Java's optimizing compiler, nor small tables from 50 tasks.
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
    // A separate process group, so that all of it can be killed.
    program: [
      ...["setsid", "--wait", join(bin, "spark-submit"), "--master", "local[2]", "--driver-memory", "2g"],
      ...Object.entries(settings).flatMap(([name, value]) => ["--conf", `${name}=${value}`]),
      program,
    ],
  }).done;
  return { code, said: stderr + stdout };
}

/** A Delta table for DuckDB: the files in its log. */
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

/** Fails if two queries return different rows in any order, and shows some of them. */
export async function sameRows(what: string, one: string, other: string): Promise<void> {
  const [missing, extra] = [
    await query(`${one} EXCEPT ALL ${other} LIMIT 3`),
    await query(`${other} EXCEPT ALL ${one} LIMIT 3`),
  ];
  sameList(missing, [], `${what}: what is missing`);
  sameList(extra, [], `${what}: what is too much`);
}
