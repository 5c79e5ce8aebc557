"""librdkafka through confluent-kafka: so many records produced, or read by assignment. Prints one JSON line."""

import json
import sys
import time


def produce(bootstrap, topic, records, size):
    from confluent_kafka import Producer

    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "batch.size": 65536, "queue.buffering.max.messages": 100000})
    failed = []

    def done(error, _):
        if error:
            failed.append(str(error))

    value, since = bytes(size), time.monotonic()
    for _ in range(records):
        while True:
            try:
                producer.produce(topic, value, partition=0, on_delivery=done)
                break
            except BufferError:
                producer.poll(0.01)
    producer.flush(60)
    if failed:
        sys.exit(f"{len(failed)} not delivered: {failed[0]}")
    return records, time.monotonic() - since


def consume(bootstrap, topic, records, size):
    from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "compare", "enable.auto.commit": False})
    consumer.assign([TopicPartition(topic, 0, OFFSET_BEGINNING)])
    seen, since = 0, time.monotonic()
    while seen < records:
        for message in consumer.consume(5000, timeout=10) or sys.exit(f"only {seen} of {records} records came"):
            if message.error():
                sys.exit(str(message.error()))
            seen += 1
    seconds = time.monotonic() - since
    consumer.close()
    return seen, seconds


if __name__ == "__main__":
    what, bootstrap, topic, records, size = sys.argv[1:]
    count, seconds = {"produce": produce, "consume": consume}[what](bootstrap, topic, int(records), int(size))
    print(json.dumps({"records": count, "seconds": seconds}))
