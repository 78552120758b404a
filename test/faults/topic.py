"""Writes the committed messages of topics to stdout, each after a head of the topic's place among the arguments,
partition, offset, time (ms) and the lengths of key and value (-1: none). Run as: topic.py BROKER TOPIC ..."""

import struct
import sys
import time

from confluent_kafka import Consumer, KafkaError, TopicPartition

broker, *topics = sys.argv[1:]
consumer = Consumer(
    {
        "bootstrap.servers": broker,
        "group.id": "faults",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
        "enable.partition.eof": True,
        "check.crcs": True,
        "fetch.message.max.bytes": 4_000_000,
        "receive.message.max.bytes": 500_000_000,  # a message of 100 MB comes whole
    }
)
found = consumer.list_topics(timeout=30).topics
open_partitions = {(topic, partition) for topic in topics for partition in found[topic].partitions}
consumer.assign([TopicPartition(topic, partition, 0) for topic, partition in open_partitions])
out = sys.stdout.buffer
heard = time.monotonic()
while open_partitions:
    if time.monotonic() - heard > 120:
        raise SystemExit(f"No message for 2 minutes from {open_partitions}")
    for message in consumer.consume(10_000, timeout=0.2):
        heard = time.monotonic()
        error = message.error()
        if error is not None and error.code() == KafkaError._PARTITION_EOF:
            open_partitions.discard((message.topic(), message.partition()))
            continue
        if error is not None:
            raise SystemExit(str(error))
        key, value = message.key(), message.value()
        lengths = [-1 if part is None else len(part) for part in (key, value)]
        place = (topics.index(message.topic()), message.partition(), message.offset(), message.timestamp()[1])
        out.write(struct.pack(">iiqqii", *place, *lengths))
        out.write((key or b"") + (value or b""))
