"""Load whose every byte is known beforehand, so what is read back can be compared and not only counted."""

import os
import random
import time

import confluent_kafka as ck
from confluent_kafka.admin import AdminClient, NewTopic

from . import clock, wire

_words = random.Random(7)
TEXTS = [
    " ".join(_words.choice(("batch", "shard", "log", "offset", "segment", "fetch")) for _ in range(_words.randint(3, 20))).encode()
    for _ in range(997)
]


def line(i):
    """Line `i`: its number and some text that compresses."""
    return b"%09d %s" % (i, TEXTS[i % 997])


def create_topic(broker, name, partitions=1, replicas=None, **configs):
    """Creates a topic and waits until it has leaders. Config names with `_` for `.`; `replicas`: not as many as the broker's."""
    # A failed test shows what its clients waited for.
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "debug": "admin,broker,metadata,protocol"})
    config = {k.replace("_", "."): str(v) for k, v in configs.items()}
    made = admin.create_topics([NewTopic(name, partitions, replicas or broker.replicas, config=config)], request_timeout=60)
    made[name].result(90)
    wait_for_leaders(broker, name, partitions)
    return name


def wait_for_leaders(broker, name, partitions, timeout=60):
    """Until each partition answers as leader. Metadata alone is early: Kafka names a leader before it serves, and a
    producer without idempotence whose first batch is refused reorders on the retry."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        with wire.Conn(broker) as conn:
            topic = wire.metadata(conn, [name], version=8)["topics"][name]
        if len(topic["partitions"]) >= partitions and broker.serves([name]):
            return topic
        time.sleep(0.05)
    raise AssertionError(f"topic {name} has no leaders for its {partitions} partitions after {timeout} s: {topic}")


def end(broker, topic, partition=0):
    """The end of a partition, as its leader tells it."""
    with wire.Conn(broker.leading(topic, partition)) as conn:
        return wire.offset(conn, topic, partition, -1)


def first_batches(broker, topic, partition):
    """Batches at the start of a partition, as they lie in the leader's log."""
    with wire.Conn(broker.leading(topic, partition)) as conn:
        return wire.batches(wire.fetch(conn, topic, partition, 0, part_bytes=4 << 20)["data"])


def producer(broker, **conf):
    base = {"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "queue.buffering.max.messages": 200000}
    return ck.Producer({**base, **{k.replace("_", "."): v for k, v in conf.items()}})


def consumer(broker, **conf):
    base = {
        "bootstrap.servers": broker.bootstrap,
        "group.id": "unused",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
        "auto.offset.reset": "error",
    }
    return ck.Consumer({**base, **{k.replace("_", "."): v for k, v in conf.items()}})


class Deliveries:
    """Counts delivery reports and keeps the failed ones."""

    def __init__(self):
        self.count, self.errors = 0, []

    def __call__(self, error, message):
        self.count += 1
        if error is not None:
            self.errors.append((message.partition(), str(error)))


def produce_lines(broker, topic, count, partitions, **conf):
    """Line i goes to partition i % partitions; every delivery is waited for."""
    reports = Deliveries()
    p = producer(broker, **conf)
    for i in range(count):
        while True:
            try:
                p.produce(topic, line(i), partition=i % partitions, on_delivery=reports)
                break
            except BufferError:
                p.poll(0.05)
        if i % 1000 == 0:
            p.poll(0)
    left = p.flush(120)
    assert left == 0, f"{left} records without a delivery report"
    assert not reports.errors, f"{len(reports.errors)} deliveries failed, first {reports.errors[:3]}"
    assert reports.count == count


def read_partitions(broker, topic, partitions, on_message, starts=None, timeout=300, **conf):
    """Reads each partition from its start (0) to its end, in assign mode; `on_message(partition, offset, value)`."""
    starts = starts or {}
    c = consumer(broker, **conf)
    try:
        c.assign([ck.TopicPartition(topic, p, starts.get(p, 0)) for p in range(partitions)])
        ended, until = set(), clock.running() + timeout
        while len(ended) < partitions:
            assert clock.running() < until, f"partitions {set(range(partitions)) - ended} not at their end after {timeout} s"
            m = c.poll(1.0)
            if m is None:
                continue
            if m.error():
                assert m.error().code() == ck.KafkaError._PARTITION_EOF, f"consumer: {m.error()}"
                ended.add(m.partition())
            else:
                on_message(m.partition(), m.offset(), m.value())
    finally:
        c.close()


def check_lines(broker, topic, count, partitions, **conf):
    """Every partition holds exactly its lines, byte for byte, in order, from offset 0 without a hole."""
    seen = [0] * partitions

    def each(p, offset, value):
        n = seen[p]
        assert offset == n, f"partition {p}: offset {offset} where {n} was due"
        assert value == line(n * partitions + p), f"partition {p} offset {offset}: {value!r}"
        seen[p] = n + 1

    read_partitions(broker, topic, partitions, each, **conf)
    assert seen == [len(range(p, count, partitions)) for p in range(partitions)]


class Bulk:
    """Ready-made batches of random bytes, sent pipelined over one connection and compared when read back."""

    def __init__(self, kinds=5, records=256, record_bytes=1024):
        self.records = records
        self.kinds = [wire.batch([os.urandom(record_bytes) for _ in range(records)]) for _ in range(kinds)]
        self.size = len(self.kinds[0])
        self.sent = {}

    def load(self, broker, topic, partitions, total_bytes, depth=8):
        """Appends until `total_bytes` more were acknowledged, round robin. Answers the seconds it took."""
        began, todo = time.monotonic(), max(1, total_bytes // self.size)
        with wire.Conn(broker, timeout=60) as conn:
            started = done = 0
            while done < todo:
                while started < todo and started - done < depth:
                    part = started % partitions
                    n = self.sent.get(part, 0)
                    conn.send(wire.PRODUCE, 7, wire.produce_body({topic: {part: self.kinds[n % len(self.kinds)]}}))
                    self.sent[part] = n + 1
                    started += 1
                _, reader = conn.recv()
                for where, (error, _) in wire.read_produce(reader).items():
                    assert error == 0, f"{where}: error {error}"
                done += 1
        return time.monotonic() - began

    def check(self, broker, topic, partitions):
        """Reads every partition from 0 and compares each batch's bytes. Answers the bytes read."""
        total = 0
        with wire.Conn(broker, timeout=60) as conn:
            for part in range(partitions):
                n, due = 0, self.sent[part]
                while n < due:
                    got = wire.fetch(conn, topic, part, n * self.records, part_bytes=4 << 20)
                    assert got["error"] == 0, f"partition {part} at batch {n}: error {got['error']}"
                    found = wire.batches(got["data"])
                    assert found, f"partition {part} at batch {n}: an empty fetch before the end"
                    for b in found:
                        want = self.kinds[n % len(self.kinds)]
                        assert b.base == n * self.records, f"partition {part}: base {b.base}, due {n * self.records}"
                        # Offset, length, leader epoch and magic stand before the CRC, the rest is the producer's own.
                        assert b.data[16:] == want[16:], f"partition {part} batch {n}: other bytes than were sent"
                        total += len(b.data)
                        n += 1
                assert n == due and got["hw"] == due * self.records
        return total
