"""Topics to Delta tables on Spark: the cleaning and the answers of sql/, where one machine is not enough.

    spark-submit pipeline.py --sql sql --kafka HOST:PORT --checkpoint DIR --tables main.pinterest
    spark-submit pipeline.py --sql sql --bronze data/lake/bronze --tables /data/delta

Every message is applied exactly once, whatever crashes. A batch is a range of offsets of each partition of one topic. It
is published in idempotent steps:
1. progress records the open offsets and counts their messages, in one commit
2. rejects that are not there yet are added
3. rows and deletes are merged into silver if they are newer
4. deletes are merged into deletes if no row is newer
5. progress records that these offsets are done
A run that finds open offsets reads them again and repeats 2 to 5. Spark's checkpoint only says what to read next;
messages that it gives twice are recognized by their offsets. So the tables can also be filled from bronze, or from the
topics again, and a lost checkpoint costs time, not rows.
"""

import argparse
import contextlib
import functools
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

from pyspark.errors import StreamingQueryException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F

# The name in answers of a table whose name is reserved in SQL: "view" in io.ts.
VIEWS = {"user": "users"}


def main() -> None:
    job = arguments()
    spark = SparkSession.builder.appName("pinterest-data-pipeline").getOrCreate()
    if job.secret:
        from pyspark.dbutils import DBUtils  # exists only on Databricks
        job.properties = DBUtils(spark).secrets.get(*job.secret.split("/", 1))
    prepare(spark, job)
    create_tables(spark, job)
    for table in tables_of(job):
        finish_open(spark, job, table)
    if job.kafka:
        read_topics(spark, job)
    else:
        for table in tables_of(job):
            read_landed(spark, job, table)
    report(spark, job)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Cleans the topics, or landed bronze, into Delta tables.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--kafka", metavar="SERVERS", help="brokers; the environment variable KAFKA_PROPERTIES may hold the"
                        " text of a client.properties")
    source.add_argument("--bronze", metavar="PATH", help="the folder bronze of a lake")
    parser.add_argument("--sql", required=True, metavar="PATH", help="the repository's folder sql")
    parser.add_argument("--tables", required=True, metavar="PLACE", help="catalog.schema, or a folder (with a slash)")
    parser.add_argument("--checkpoint", metavar="PATH", help="folder for the checkpoint of Spark")
    parser.add_argument("--secret", metavar="SCOPE/KEY", help="Databricks secret that holds the client.properties instead")
    parser.add_argument("--prefix", default="pinterest", help="prefix of the topics (default: %(default)s)")
    parser.add_argument("--batch", type=int, default=2_000_000, metavar="N",
                        help="approximate number of messages in a batch of a table (default: %(default)s)")
    parser.add_argument("--min-partitions", type=int, metavar="N",
                        help="read a topic with at least this many tasks")
    job = parser.parse_args()
    job.properties = os.environ.get("KAFKA_PROPERTIES", "")
    if job.kafka and not job.checkpoint:
        parser.error('--kafka needs --checkpoint: a folder only for these tables')
    return job


def tables_of(job: argparse.Namespace) -> list[str]:
    """The tables that have a cleaning SQL."""
    return sorted(path.stem.removeprefix("clean_") for path in Path(job.sql).glob("clean_*.sql"))


def read_sql(job: argparse.Namespace, name: str) -> str:
    return (Path(job.sql) / name).read_text(encoding="utf-8")


# Literals, quoted names, comments, blanks and other characters of SQL.
TOKENS = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"|`[^`]*`|--[^\n]*|/\*.*?\*/|\s+|.""", re.DOTALL)


def read_query(job: argparse.Namespace, name: str) -> str:
    """The query of an SQL file, to use in a statement: without a semicolon, blanks and comments at its end."""
    sql = read_sql(job, name)
    ends = [token for token in TOKENS.finditer(sql) if not re.match(r"--|/\*|\s", token[0])]
    if not ends:
        return ""
    return sql[:ends[-1].start() if ends[-1][0] == ";" else ends[-1].end()]


def prepare(spark: SparkSession, job: argparse.Namespace) -> None:
    """Defines the SQL dialect of sql/ in a session. The batches of each query run in a separate session."""
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    spark.conf.set("spark.sql.ansi.enabled", "true")
    spark.conf.set("spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS")
    spark.conf.set("spark.sql.adaptive.enabled", "true")  # off by default in the sessions of streams
    text = re.sub(r"^\s*--.*$", "", read_sql(job, "prelude.spark.sql"), flags=re.MULTILINE)
    for statement in re.split(r";\s*$", text, flags=re.MULTILINE):
        if statement.strip():
            spark.sql(statement)


def name_of(job: argparse.Namespace, name: str) -> str:
    """The SQL name of a table: in a schema, or as a folder."""
    return f"delta.`{job.tables}/{name}`" if "/" in job.tables else f"{job.tables}.{name}"


def create_tables(spark: SparkSession, job: argparse.Namespace) -> None:
    def create(name: str, columns: str, more: str = "") -> None:
        statement = f"CREATE TABLE IF NOT EXISTS {name_of(job, name)} ({columns}) USING delta {more}"
        for tries in range(10):
            try:
                spark.sql(statement)
                return
            except Exception as error:
                # Of two concurrent first runs, one may see an incomplete table of the other.
                print(f"{name}: {str(error).splitlines()[0]}; retrying", file=sys.stderr, flush=True)
                if tries == 9:
                    raise
                time.sleep(2)

    for table in tables_of(job):
        columns = [field for field in cleaned(spark, job, table, no_messages(spark)).schema.fields
                   if not field.name.startswith("reject_")]
        create(f"silver_{table}", ", ".join(f"`{f.name}` {f.dataType.simpleString()}" for f in columns))
    create("rejects", "`table` STRING, _partition INT, _offset BIGINT, _posted_at TIMESTAMP, key BINARY,"
           " reason STRING, detail STRING, raw BINARY", "PARTITIONED BY (`table`)")
    # Partitioned by table, so that all can be written concurrently.
    create("deletes", "`table` STRING, ind BIGINT, _partition INT, _offset BIGINT, _posted_at TIMESTAMP",
           "PARTITIONED BY (`table`)")
    create("progress", "`table` STRING, done MAP<INT, BIGINT>, open STRING, messages BIGINT, superseded BIGINT",
           "PARTITIONED BY (`table`)")
    # Of two concurrent runs Delta lets one add these rows; a plain INSERT would add them twice.
    begun = ", ".join(f"('{table}', map(), NULL, 0, 0)" for table in tables_of(job))
    spark.sql(f"""MERGE INTO {name_of(job, "progress")} AS old
        USING (SELECT * FROM VALUES {begun} AS begun(`table`, done, open, messages, superseded)) AS new
        ON old.`table` = new.`table` WHEN NOT MATCHED THEN INSERT *""")


# ---- Reading: messages with the columns of "bronze" in the prelude

BRONZE = ("_partition INT, _offset BIGINT, posted_ms BIGINT, key_is STRING, key STRING,"
          " value_is STRING, value STRING")


def no_messages(spark: SparkSession) -> DataFrame:
    return spark.createDataFrame([], BRONZE)


def kafka_options(job: argparse.Namespace) -> dict[str, str]:
    pairs = [line.split("=", 1) for line in job.properties.splitlines() if "=" in line and not line.lstrip().startswith("#")]
    return {
        **{f"kafka.{key.strip()}": value.strip() for key, value in pairs},
        "kafka.bootstrap.servers": job.kafka,
        # Rows of aborted transactions are skipped.
        "kafka.isolation.level": "read_committed",
        "failOnDataLoss": "true",
        **({"minPartitions": str(job.min_partitions)} if job.min_partitions else {}),
    }


def from_kafka(records: DataFrame) -> DataFrame:
    def kind(name: str) -> Column:
        # As in landing: text with a zero byte counts as bytes.
        text = F.col(name).cast("string")
        is_text = F.is_valid_utf8(text) & ~F.contains(text, F.lit("\0"))
        return F.when(text.isNull(), "n").when(is_text, "t").otherwise("b")

    def text(name: str) -> Column:
        return F.when(kind(name) == "t", F.col(name).cast("string")).otherwise(F.base64(name))

    return records.select(
        F.col("partition").alias("_partition"), F.col("offset").alias("_offset"),
        F.expr("unix_millis(timestamp)").alias("posted_ms"),
        kind("key").alias("key_is"), text("key").alias("key"),
        kind("value").alias("value_is"), text("value").alias("value"))


def stream(spark: SparkSession, job: argparse.Namespace, table: str):
    """Starts the query that applies the current messages of a topic."""
    def apply(records: DataFrame, _: int) -> None:
        prepare(records.sparkSession, job)
        apply_batch(records.sparkSession, job, table, from_kafka(records))

    records = (spark.readStream.format("kafka").options(**kafka_options(job))
               .option("subscribe", f"{job.prefix}.{table}").option("startingOffsets", "earliest")
               .option("maxOffsetsPerTrigger", job.batch).load())
    return (records.writeStream.queryName(table).foreachBatch(apply).trigger(availableNow=True)
            .option("checkpointLocation", f"{job.checkpoint}/{table}").start())


def read_topics(spark: SparkSession, job: argparse.Namespace) -> None:
    """Applies the current messages of all topics concurrently."""
    waiting = tables_of(job)
    for tries_left in (1, 0):
        queries = {table: stream(spark, job, table) for table in waiting}
        waiting = []
        for table, query in queries.items():
            try:
                query.awaitTermination()
            except StreamingQueryException as error:
                # Spark 4.1.1 ends a query with an error after the batch that it resumes, which is done (SPARK-55271).
                if not tries_left or '"scala.Option.get()" is null' not in str(error):
                    raise
                waiting.append(table)


def landed_files(spark: SparkSession, job: argparse.Namespace, table: str) -> list[dict]:
    """The bronze files, whose names say which offsets they hold. Exits if one is missing between two others."""
    paths = [row.path for row in spark.read.format("binaryFile").option("pathGlobFilter", "*.tsv")
             .load(f"{job.bronze}/{table}").select("path").collect()]
    files: list[dict] = []
    for path in paths:
        if match := re.search(r"/(\d+)-(\d{20})-(\d{20})-(\d+)\.tsv$", path):
            partition, first, next_, messages = map(int, match.groups())
            files.append({"path": path, "partition": partition, "first": first, "next": next_, "messages": messages})
    files.sort(key=lambda f: (f["partition"], f["first"], -f["next"]))
    kept: list[dict] = []
    for file in files:
        before = kept[-1] if kept and kept[-1]["partition"] == file["partition"] else None
        if before and file["next"] <= before["next"]:
            continue  # leftover of an interrupted compaction
        if before and file["first"] != before["next"]:
            raise SystemExit(f'Messages are missing from bronze: offsets {before["next"]} to {file["first"] - 1}, between'
                             f' "{before["path"]}" and "{file["path"]}"; restore the file')
        kept.append(file)
    return kept


def from_landed(spark: SparkSession, files: list[dict]) -> DataFrame:
    if not files:
        return no_messages(spark)
    lines = spark.read.option("lineSep", "\n").text([file["path"] for file in files])
    fields = F.split("value", "\t", 7)
    columns = [column.split() for column in BRONZE.split(", ")]
    return lines.select(*(fields[i].cast(type_).alias(name) for i, (name, type_) in enumerate(columns)))


def read_landed(spark: SparkSession, job: argparse.Namespace, table: str) -> None:
    """Applies the bronze files that are not applied yet, batch by batch."""
    done = progress(spark, job, table)["done"]
    batch: list[dict] = []
    for file in landed_files(spark, job, table):
        if file["next"] <= done.get(file["partition"], 0):
            continue
        if batch and sum(f["messages"] for f in batch) + file["messages"] > job.batch:
            apply_batch(spark, job, table, from_landed(spark, batch))
            batch = []
        batch.append(file)
    apply_batch(spark, job, table, from_landed(spark, batch))


# ---- Applying a batch


def progress(spark: SparkSession, job: argparse.Namespace, table: str) -> dict:
    """The progress of a table: `done`, the next offset by partition; `open`, the ranges of an unfinished batch by
    partition, as JSON; and the number of `messages`."""
    return spark.sql(f"SELECT * FROM {name_of(job, 'progress')} WHERE `table` = '{table}'").first().asDict()


def set_progress(spark: SparkSession, job: argparse.Namespace, table: str, what: str, expected: str) -> None:
    """Updates the progress if it is as expected. Delta refuses concurrent updates."""
    changed = spark.sql(f"UPDATE {name_of(job, 'progress')} SET {what} WHERE `table` = '{table}' AND {expected}").first()
    if changed[0] != 1:
        raise RuntimeError(f'Another run has changed the progress of {table} in "{job.tables}": let it finish,'
                           " then run this again")


def cleaned(spark: SparkSession, job: argparse.Namespace, table: str, bronze: DataFrame) -> DataFrame:
    bronze.createOrReplaceTempView("bronze")
    return spark.sql(read_query(job, f"clean_{table}.sql"))


@contextlib.contextmanager
def read_batch(spark: SparkSession, job: argparse.Namespace, table: str, bronze: DataFrame):
    """Yields the rows and rejects of a batch, and its deletes, which are rejects in the cleaning SQL."""
    every = cleaned(spark, job, table, bronze).persist()
    gone = spark.sql(read_query(job, "deletes.sql")).persist()
    try:
        # Usually there are no deletes: then bronze is not read again.
        if every.where("reject_reason = 'empty_message'").isEmpty():
            yield every, spark.createDataFrame([], gone.schema)
        else:
            yield every.join(gone.select("_partition", "_offset"), ["_partition", "_offset"], "left_anti"), gone
    finally:
        gone.unpersist()
        every.unpersist()


def apply_batch(spark: SparkSession, job: argparse.Namespace, table: str, bronze: DataFrame) -> None:
    """Applies the messages that are not applied yet."""
    known = progress(spark, job, table)
    for partition, next_ in known["done"].items():
        bronze = bronze.where((F.col("_partition") != partition) | (F.col("_offset") >= next_))
    with read_batch(spark, job, table, bronze) as (rows, gone):
        places = rows.select("_partition", "_offset").union(gone.select("_partition", "_offset"))
        counts = places.groupBy("_partition").agg(
            F.min("_offset").alias("first"), F.max("_offset").alias("last"), F.count("*").alias("messages")).collect()
        if not counts:
            return
        ranges = {row._partition: (row.first, row.last + 1) for row in counts}
        messages = sum(row.messages for row in counts)
        inds = rows.where("reject_reason IS NULL").select("ind").union(gone.select("ind"))
        known_inds = spark.table(name_of(job, f"silver_{table}")).select("ind").union(
            spark.table(name_of(job, "deletes")).where(F.col("table") == table).select("ind"))
        superseded = inds.count() - inds.distinct().join(known_inds, "ind", "left_anti").count()
        step("counting", table)
        set_progress(spark, job, table, f"open = '{json.dumps(ranges)}', messages = messages + {messages},"
                     f" superseded = superseded + {superseded}", f"open IS NULL AND messages = {known['messages']}")
        publish(spark, job, table, rows, gone, ranges)
        print(f"{table}: {messages} messages applied", file=sys.stderr, flush=True)


def finish_open(spark: SparkSession, job: argparse.Namespace, table: str) -> None:
    """Publishes the open batch of a run that was killed; its messages are counted already."""
    opened = progress(spark, job, table)["open"]
    if not opened:
        return
    ranges = {int(partition): tuple(two) for partition, two in json.loads(opened).items()}
    print(f"{table}: resuming the unfinished batch", file=sys.stderr, flush=True)
    if job.kafka:
        topic = f"{job.prefix}.{table}"

        def ends(which: int) -> str:
            return json.dumps({topic: {str(partition): two[which] for partition, two in ranges.items()}})

        bronze = from_kafka(spark.read.format("kafka").options(**kafka_options(job))
                            .option("assign", json.dumps({topic: list(ranges)}))
                            .option("startingOffsets", ends(0)).option("endingOffsets", ends(1)).load())
    else:
        def overlaps(file: dict) -> bool:
            first, next_ = ranges.get(file["partition"], (0, 0))
            return file["first"] < next_ and first < file["next"]

        bronze = from_landed(spark, [file for file in landed_files(spark, job, table) if overlaps(file)])
    inside = functools.reduce(Column.__or__, [
        (F.col("_partition") == partition) & F.col("_offset").between(first, next_ - 1)
        for partition, (first, next_) in ranges.items()])
    with read_batch(spark, job, table, bronze.where(inside)) as (rows, gone):
        publish(spark, job, table, rows, gone, ranges)


# A message without a time is the oldest; times are at least 0.
AGE = "struct(coalesce(unix_micros({0}._posted_at), -1), {0}._partition, {0}._offset)"


def is_newer(one: str, other: str) -> str:
    return f"{AGE.format(one)} > {AGE.format(other)}"


def publish(spark: SparkSession, job: argparse.Namespace, table: str, rows: DataFrame, gone: DataFrame,
            ranges: dict) -> None:
    """Adds a batch to rejects, silver and deletes; done again, it changes nothing."""
    rows.createOrReplaceTempView("cleaned")
    step("rejecting", table)
    spark.sql(f"""MERGE INTO {name_of(job, "rejects")} AS old
        USING (
          SELECT '{table}' AS `table`, _partition, _offset, _posted_at, reject_key AS key, reject_reason AS reason,
            reject_detail AS detail, reject_raw AS raw
          FROM cleaned WHERE reject_reason IS NOT NULL
        ) AS new
        ON old.`table` = '{table}' AND old._partition = new._partition AND old._offset = new._offset
        WHEN NOT MATCHED THEN INSERT *""")
    step("merging", table)
    columns = [name for name in rows.columns if not name.startswith("reject_")]
    clean = rows.where("reject_reason IS NULL").select(*columns, F.lit(False).alias("gone"))
    both = clean.unionByName(gone.withColumn("gone", F.lit(True)), allowMissingColumns=True)
    both.createOrReplaceTempView("candidates")
    spark.sql("""SELECT * EXCEPT (place) FROM (
        SELECT *, row_number() OVER (
          PARTITION BY ind ORDER BY _posted_at DESC NULLS LAST, _partition DESC, _offset DESC) AS place
        FROM candidates
      ) WHERE place = 1""").createOrReplaceTempView("newest")
    silver, deletes = name_of(job, f"silver_{table}"), name_of(job, "deletes")
    keys = both.agg(F.min("ind"), F.max("ind")).first()
    # The bounds let Delta skip files.
    bounds = f"BETWEEN {keys[0]} AND {keys[1]}"
    if keys[0] is not None:
        spark.sql(f"""MERGE INTO {silver} AS old
            USING (
              SELECT new.* FROM newest AS new LEFT ANTI JOIN {deletes} AS held
              ON held.`table` = '{table}' AND held.ind = new.ind AND {is_newer("held", "new")}
            ) AS new
            ON old.ind = new.ind AND old.ind {bounds}
            WHEN MATCHED AND new.gone AND {is_newer("new", "old")} THEN DELETE
            WHEN MATCHED AND {is_newer("new", "old")} THEN UPDATE SET *
            WHEN NOT MATCHED AND NOT new.gone THEN INSERT *""")
    step("deleting", table)
    has_deletes = not (gone.isEmpty() and spark.table(deletes).where(F.col("table") == table).isEmpty())
    if keys[0] is not None and has_deletes:
        spark.sql(f"""MERGE INTO {deletes} AS old
            USING (
              SELECT '{table}' AS `table`, new.ind, new._partition, new._offset, new._posted_at, new.gone
              FROM newest AS new LEFT ANTI JOIN {silver} AS held
              ON held.ind = new.ind AND held.ind {bounds} AND {is_newer("held", "new")}
            ) AS new
            ON old.`table` = '{table}' AND old.ind = new.ind
            WHEN MATCHED AND new.gone AND {is_newer("new", "old")} THEN UPDATE SET *
            WHEN MATCHED AND {is_newer("new", "old")} THEN DELETE
            WHEN NOT MATCHED AND new.gone THEN INSERT *""")
    step("finishing", table)
    offsets = ", ".join(f"{partition}, {next_}L" for partition, (_, next_) in ranges.items())
    others = f"map_filter(done, (partition, next) -> NOT map_contains_key(map({offsets}), partition))"
    set_progress(spark, job, table, f"open = NULL, done = map_concat({others}, map({offsets}))",
                 f"open = '{json.dumps(ranges)}'")
    step("finished", table)


# ---- The report


def answers(job: argparse.Namespace) -> list[tuple[str, Path]]:
    """The names and files of sql/answers, by their numbers. Exits if a name is a table of the job."""
    found: dict[str, tuple[int, Path]] = {}
    for file in sorted((Path(job.sql) / "answers").glob("[!.]*.sql")):
        parts = re.fullmatch(r"([0-9]+)_([a-z][a-z0-9_]*)\.sql", file.name)
        if not parts:
            raise SystemExit(f'Cannot use "{file}": expected a name such as "10_posts_by_month.sql" in lower case;'
                             " rename the file")
        name = parts[2]
        if name in found:
            raise SystemExit(f'Cannot use "{file}": "{found[name][1]}" has the same name; rename one of them')
        if re.fullmatch("deletes|ledger|matches|progress|rejects|rejects_by_reason|silver_.*", name):
            raise SystemExit(f'Cannot use "{file}": the job uses the name "{name}" itself; rename the file')
        found[name] = (int(parts[1]), file)
    return [(name, file) for name, (_, file) in sorted(found.items(), key=lambda item: item[1][0])]


def report(spark: SparkSession, job: argparse.Namespace) -> None:
    """Writes the answers, the match rates and the ledger as tables. Exits if the ledger is not balanced."""
    def publish_query(name: str, query: str) -> None:
        spark.sql(f"CREATE OR REPLACE TABLE {name_of(job, name)} USING delta AS {query}")

    step("reporting", "all")
    for table in tables_of(job):
        spark.table(name_of(job, f"silver_{table}")).createOrReplaceTempView(VIEWS.get(table, table))
    spark.table(name_of(job, "rejects")).createOrReplaceTempView("rejects")
    for name, file in answers(job):
        try:
            publish_query(name, read_query(job, f"answers/{file.name}"))
        except Exception as error:
            raise RuntimeError(f'Cannot run "{file}": {error}') from error
    publish_query("matches", read_query(job, "matches.sql"))
    publish_query("rejects_by_reason",
                  "SELECT `table`, reason, count(*) AS rejected FROM rejects GROUP BY `table`, reason")
    clean = " UNION ALL ".join(f"SELECT '{table}' AS `table`, count(*) AS clean FROM "
                               f"{VIEWS.get(table, table)}" for table in tables_of(job))
    publish_query("ledger", f"""SELECT `table`, messages, clean, superseded, coalesce(deleted, 0) AS deleted,
          coalesce(rejected, 0) AS rejected
        FROM {name_of(job, "progress")} JOIN ({clean}) USING (`table`)
        LEFT JOIN (SELECT `table`, count(*) AS deleted FROM {name_of(job, "deletes")} GROUP BY `table`) USING (`table`)
        LEFT JOIN (SELECT `table`, count(*) AS rejected FROM rejects GROUP BY `table`) USING (`table`)""")
    ledger = spark.table(name_of(job, "ledger")).collect()
    print("Ledger: messages = clean + superseded + deleted + rejected")
    wrong = False
    width = max(len(row.table) for row in ledger)
    for row in sorted(ledger, key=lambda row: row.table):
        balanced = row.messages == row.clean + row.superseded + row.deleted + row.rejected
        wrong |= not balanced
        print(f"  {row.table:{width}} {row.messages} = {row.clean} + {row.superseded} + {row.deleted} + {row.rejected}"
              f"{'' if balanced else '  is not balanced'}", flush=True)
    if wrong:
        raise SystemExit(f'The ledger is not balanced: another program changed a table in "{job.tables}", or two jobs'
                         " ran concurrently; create new tables with a new checkpoint")


STRIKE = re.match(r"kill (\d+) (.*)", os.environ.get("PIPELINE_STRIKE", ""))
strikes = [0]


def step(name: str, table: str) -> None:
    """A failpoint for the tests: kills the process group the n-th time that a matching step is reached."""
    if STRIKE and re.search(STRIKE[2], f"{name} {table}"):
        strikes[0] += 1
        if strikes[0] == int(STRIKE[1]):
            Path(os.environ["PIPELINE_STEPS"]).write_text(f"struck {name} {table}", encoding="utf-8")
            os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
