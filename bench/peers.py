"""
What the program is measured beside, as one who knows these tools would write it: a table to its topic with PyMySQL,
orjson and librdkafka, and a file of messages to Parquet with DuckDB. Neither checks, retries from where it was, or
takes out what came twice.
"""

import os
import sys


def post(table: str, key: str, topic: str) -> None:
    import confluent_kafka
    import orjson
    import pymysql

    host, port, user, database, broker = (os.environ[name] for name in ("HOST", "PORT", "DBUSER", "DATABASE", "BROKER"))
    mysql = pymysql.connect(
        host=host, port=int(port), user=user, password=os.environ["MYSQL_PWD"], database=database, charset="utf8mb4",
        cursorclass=pymysql.cursors.SSCursor,
    )
    producer = confluent_kafka.Producer({
        "bootstrap.servers": broker, "acks": "all", "linger.ms": 20, "batch.size": 1_000_000,
        "queue.buffering.max.messages": 500_000,
    })
    with mysql.cursor() as cursor:
        cursor.execute(f"SELECT * FROM `{table}` ORDER BY `{key}`")
        names = [column[0] for column in cursor.description]
        at = names.index(key)
        for n, row in enumerate(cursor):
            value = orjson.dumps(dict(zip(names, row)), default=str)
            while True:
                try:
                    producer.produce(topic, value, str(row[at]).encode(), partition=0)
                    break
                except BufferError:
                    producer.poll(0.1)
            if n % 1000 == 0:
                producer.poll(0)
    if producer.flush(60) > 0:
        sys.exit("messages were not delivered")


def parquet(source: str, columns: str, target: str) -> None:
    import duckdb

    types = ", ".join(f"'{name}': 'VARCHAR'" for name in columns.split(","))
    duckdb.sql("SET preserve_insertion_order = false")
    duckdb.sql(
        f"COPY (SELECT * FROM read_json('{source}', format = 'newline_delimited', columns = {{{types}}}))"
        f" TO '{target}' (FORMAT parquet, COMPRESSION zstd)"
    )


{"post": post, "parquet": parquet}[sys.argv[1]](*sys.argv[2:])
