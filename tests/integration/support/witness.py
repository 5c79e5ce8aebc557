"""Producers and group consumers that write a history down, through every failure of the brokers."""

import threading
import time

import confluent_kafka as ck

from . import clock, load
from .history import History

RETRIES = {"reconnect.backoff.ms": 10, "reconnect.backoff.max.ms": 200, "socket.timeout.ms": 5000, "topic.metadata.refresh.interval.ms": 2000}

# Standard error, which a failed test shows, tells what a client waits for that does not go on.
DEBUG = "broker,topic,metadata,eos"


class Witness:
    """`rate` records a second into each of the topic's partitions."""

    def __init__(self, cluster, topic, partitions, consumers=2, rate=100):
        self.cluster, self.topic, self.partitions, self.rate = cluster, topic, partitions, rate
        self.history, self.ended, self.failed = History(), threading.Event(), []
        self.longest = 0.0
        """Longest time without an acknowledgement, of any partition."""
        self._acked_at = [time.monotonic()] * partitions
        self._acked = [0] * partitions
        clients = [("producer", self._produce, 0), *((f"consumer {n}", self._consume, n) for n in range(consumers))]
        self.threads = [
            threading.Thread(target=self._guard, args=(work, n), name=name, daemon=True) for name, work, n in clients
        ]
        for thread in self.threads:
            thread.start()

    def _guard(self, work, number):
        try:
            work(number)
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.failed.append(repr(e))

    def _produce(self, number):
        producer = ck.Producer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "enable.idempotence": True,
                "acks": "all",
                "linger.ms": 2,
                "message.timeout.ms": 300_000,
                "debug": DEBUG,
                "retry.backoff.ms": 20,
                "retry.backoff.max.ms": 100,
                **RETRIES,
            }
        )
        value, began = 0, time.monotonic()

        def delivered(entry, error, message):
            if error is not None:
                self.failed.append(f"{message.partition()}: {error}")
                return
            now, p = time.monotonic(), message.partition()
            self.longest, self._acked_at[p] = max(self.longest, now - self._acked_at[p]), now
            self.history.ack(entry, message.offset())
            self._acked[p] += 1

        while not self.ended.is_set():
            if value > (time.monotonic() - began) * self.rate:
                producer.poll(0.005)
                continue
            for p in range(self.partitions):
                entry = self.history.send(number, (self.topic, p), value)
                report = lambda error, message, entry=entry: delivered(entry, error, message)  # noqa: E731
                while True:
                    try:
                        producer.produce(self.topic, b"%d" % value, partition=p, on_delivery=report)
                        break
                    except BufferError:
                        producer.poll(0.02)
            value += 1
            producer.poll(0)
        left = producer.flush(180)
        if left:
            self.failed.append(f"{left} records without a report three minutes after the last failure")

    def _consume(self, number):
        consumer = ck.Consumer(
            {
                "bootstrap.servers": self.cluster.bootstrap,
                "group.id": f"witness-{self.topic}",
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 6000,
                "heartbeat.interval.ms": 500,
                "auto.commit.interval.ms": 500,
                "debug": f"{DEBUG},cgrp",
                **RETRIES,
            }
        )
        session = [0]

        def assigned(*_):
            session[0] += 1

        consumer.subscribe([self.topic], on_assign=assigned)
        while not self.ended.is_set():
            for message in consumer.consume(200, timeout=0.1):
                if message.error() is None:
                    self.history.poll(
                        (number, session[0]), (self.topic, message.partition()), message.offset(), int(message.value())
                    )
        consumer.close()

    def acked(self):
        return self.history.acked()

    def wait_for_acks(self, count=20, timeout=60, partitions=None):
        """Until so many more are acknowledged in each partition, or each of these."""
        wanted = {p: self._acked[p] + count for p in (range(self.partitions) if partitions is None else partitions)}
        end = clock.running() + timeout
        while left := {p: n - self._acked[p] for p, n in wanted.items() if n > self._acked[p]}:
            assert not self.failed, self.failed[:5]
            assert clock.running() < end, f"acknowledgements of {count} missing after {timeout} s, by partition: {left}"
            time.sleep(0.01)

    def finish(self):
        """Ends the load, reads all of the topic, and checks the history. Returns the number of acknowledged records."""
        self.ended.set()
        for thread in self.threads:
            thread.join(240)
            assert not thread.is_alive(), f"{thread.name} does not end; of the others, failed: {self.failed[:5]}"
        assert not self.failed, self.failed[:5]
        self._read_all()
        self.history.check()
        return self.acked()

    def _read_all(self):
        consumer = load.consumer(self.cluster, enable_partition_eof=True, auto_offset_reset="earliest", **RETRIES)
        left = set(range(self.partitions))
        for p in left:
            self.history.final[self.topic, p] = {}
        consumer.assign([ck.TopicPartition(self.topic, p, 0) for p in left])
        end = clock.running() + 120
        while left:
            assert clock.running() < end, f"partitions {left} are not read to their ends"
            for message in consumer.consume(1000, timeout=1):
                error = message.error()
                if error is None:
                    self.history.final[self.topic, message.partition()][message.offset()] = int(message.value())
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    left.discard(message.partition())
        consumer.close()
