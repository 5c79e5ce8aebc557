"""kill -9 while everything is under way at once: idempotent producers, a compacted topic, commits, a group of consumers,
short retention, topics that come and go. Nothing acknowledged is taken back, and everybody goes on."""

import random
import struct
import threading
import time

import confluent_kafka as ck
import pytest

from support import clock, load, schema, wire
from support.broker import QUICK_GROUPS
from support.groups import fetch_offsets, wait_ready
from support.sequences import Committer, SequenceReader, SequenceWriter, acknowledged

KEYS = 40
PARTITIONS = 64


class Worker(threading.Thread):
    """Runs `step` until told to end; a broker that is away is waited for."""

    def __init__(self, broker):
        super().__init__(daemon=True)
        self.broker, self.ended, self.error = broker, threading.Event(), None

    def run(self):
        conn = None
        while not self.ended.is_set():
            try:
                conn = conn or wire.Conn(self.broker, timeout=10)
                self.step(conn)
            except (OSError, wire.Closed):
                if conn:
                    conn.close()
                conn = None
                time.sleep(0.01)
            except Exception as e:  # noqa: BLE001 - handed to the test
                self.error = repr(e)
                return

    def finish(self):
        self.ended.set()
        self.join(60)
        assert self.error is None, self.error


class KeyWriter(threading.Thread):
    """Rising values of a few keys in a compacted topic."""

    def __init__(self, broker, topic):
        super().__init__(daemon=True)
        self.topic, self.rounds, self.acked, self.ended, self.error = topic, 0, {}, threading.Event(), None
        self.producer = load.producer(
            broker, enable_idempotence=True, acks="all", linger_ms=2, message_timeout_ms=300_000, reconnect_backoff_ms=10,
            reconnect_backoff_max_ms=100, retry_backoff_ms=20, socket_timeout_ms=5000,
        )  # fmt: skip

    def delivered(self, error, message):
        if error is not None:
            self.error = f"{message.key()}: {error}"
        else:
            self.acked[message.key()] = struct.unpack_from(">q", message.value())[0]

    def run(self):
        while not self.ended.is_set():
            self.rounds += 1
            value = struct.pack(">q", self.rounds) + bytes(400)
            for k in range(KEYS):
                try:
                    self.producer.produce(self.topic, value, b"key-%d" % k, on_delivery=self.delivered)
                except BufferError:
                    self.producer.poll(0.05)
            self.producer.poll(0)
            time.sleep(0.02)

    def finish(self):
        self.ended.set()
        self.join(60)
        assert self.producer.flush(120) == 0
        assert self.error is None, self.error


class TopicChurn(Worker):
    """Makes topics and deletes some; remembers what was answered, and what was asked and not answered."""

    def __init__(self, broker):
        super().__init__(broker)
        self.made, self.deleted, self.unsure, self.count = set(), set(), set(), 0

    def step(self, conn):
        name = f"churn-{self.count}"
        self.count += 1
        self.unsure.add(name)
        if wire.create_topics(conn, {name: (2, {})}) == {name: 0}:
            self.made.add(name)
            self.unsure.discard(name)
        if self.count % 2 and self.made:
            victim = min(self.made)
            self.unsure.add(victim)
            self.made.discard(victim)
            answer = schema.call(conn, "DeleteTopics", 5, TopicNames=[victim], TimeoutMs=30000)
            if [r.ErrorCode for r in answer.Responses] == [0]:
                self.deleted.add(victim)
                self.unsure.discard(victim)
        time.sleep(0.05)

    def check(self, conn):
        made, deleted = set(self.made), set(self.deleted)
        seen = {n for n in wire.metadata(conn)["topics"] if n.startswith("churn-")}
        lost = made - seen - set(self.unsure) - set(self.deleted)
        assert not lost, f"made and gone: {lost}"
        assert not deleted & seen, f"deleted and back: {deleted & seen}"


class Follower(threading.Thread):
    """A consumer group's member that commits; each partition is seen in order, after a restart again from a commit on."""

    def __init__(self, broker, topic):
        super().__init__(daemon=True)
        self.ended, self.error, self.seen = threading.Event(), None, 0
        self.consumer = load.consumer(
            broker, group_id="followers", auto_offset_reset="earliest", enable_auto_commit=True, auto_commit_interval_ms=100,
            enable_partition_eof=False, reconnect_backoff_ms=10, reconnect_backoff_max_ms=200, session_timeout_ms=6000,
        )  # fmt: skip
        self.topic = topic

    def run(self):
        try:
            self.consumer.subscribe([self.topic])
            while not self.ended.is_set():
                message = self.consumer.poll(0.1)
                if message is None or message.error():
                    continue
                seq = struct.unpack_from(">q", message.value())[0]
                assert seq == message.offset(), f"partition {message.partition()} offset {message.offset()}: record {seq}"
                self.seen += 1
            self.consumer.close()
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.error = repr(e)


def newest_values(broker, topic):
    newest = {}

    reader = load.consumer(broker)
    try:
        with wire.Conn(broker) as conn:
            start, end = (wire.offset(conn, topic, 0, at) for at in (-2, -1))
        reader.assign([ck.TopicPartition(topic, 0, start)])
        until = clock.running() + 120
        while True:
            assert clock.running() < until, f"{topic} cannot be read to its end"
            message = reader.poll(1)
            if message is None:
                continue
            if message.error():
                assert message.error().code() == ck.KafkaError._PARTITION_EOF, message.error()
                if message.offset() >= end:
                    return newest
                continue
            key, n = message.key(), struct.unpack_from(">q", message.value())[0]
            assert n > newest.get(key, 0), f"{key}: {n} after {newest[key]}"
            newest[key] = n
            # While others write, the reader need never meet the end; and cleaning may leave nothing before it.
            if message.offset() >= end - 1 and len(newest) == KEYS:
                return newest
    finally:
        reader.close()


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("acknowledge", ["written", "held"])
def test_kill_with_everything_busy(make_broker, corelane_only, length, figure, acknowledge):
    cycles = length.pick(3, 100)
    dice = random.Random(40)
    b = make_broker(
        {
            **QUICK_GROUPS,
            "corelane.acknowledge": acknowledge,
            "log.segment.bytes": 1 << 20,
            "log.cleaner.backoff.ms": 200,
            "log.retention.check.interval.ms": 500,
            "log.segment.delete.delay.ms": 500,
        }
    )
    b.start()
    load.create_topic(b, "busy", PARTITIONS)
    load.create_topic(b, "short", 1, retention_bytes=4 << 20, segment_bytes=1 << 20)
    load.create_topic(b, "keys", 1, cleanup_policy="compact", min_cleanable_dirty_ratio="0.1", segment_bytes=1 << 20)
    wait_ready(b, "simple")
    writers = [SequenceWriter(b, "busy", range(n, PARTITIONS, 2), 3000) for n in (0, 1)]
    short = SequenceWriter(b, "short", [0], 1000)
    keys, churn, follower = KeyWriter(b, "keys"), TopicChurn(b), Follower(b, "busy")
    committer = Committer(b, "simple", "busy", 4)
    threads = [*writers, short, keys, churn, follower, committer]
    for t in threads:
        t.start()
    reader, before, served = SequenceReader(b, "busy", PARTITIONS), 0, []
    for cycle in range(cycles):
        time.sleep(dice.uniform(0.1, 1.5))
        until = clock.running() + 120
        while (total := sum(len(w.acked[p]) for w in writers for p in w.partitions)) < before + 200:
            assert clock.running() < until, f"cycle {cycle}: the load does not go on"
            time.sleep(0.05)
        before = total
        b.kill()
        acked, keys_acked, committed = acknowledged(writers), dict(keys.acked), committer.acked
        served.append(b.start(timeout=120, topics=["busy", "keys", "short"]))
        reader.catch_up()
        for p, seqs in acked.items():
            last = max(seqs, default=-1)
            assert reader.seen[p] > last, f"cycle {cycle} partition {p}: {last} was acknowledged, the log ends at {reader.seen[p]}"
        wait_ready(b, "simple", 60)
        with wire.Conn(b, timeout=60) as conn:
            churn.check(conn)
            _, found = fetch_offsets(conn, "simple")
            if committed:
                assert all(found["busy", p].CommittedOffset >= committed for p in range(4)), f"cycle {cycle}: a commit went back"
        newest = newest_values(b, "keys")
        back = {key: (n, newest.get(key)) for key, n in keys_acked.items() if newest.get(key, 0) < n}
        assert not back, f"cycle {cycle}: keys went back from what was acknowledged: {back}"
        for t in threads:
            assert t.error is None, t.error
    committer.done.set()
    for t in (keys, churn):
        t.finish()
    follower.ended.set()
    follower.join(60)
    assert follower.error is None and follower.seen > 0, follower.error
    for w in (*writers, short):
        w.finish()
    whole = SequenceReader(b, "busy", PARTITIONS)
    whole.catch_up()
    assert whole.seen == [w.next[p] for p in range(PARTITIONS) for w in writers if p in w.partitions]
    served.sort()
    needed = b.taken_over()
    # Without it the test would show nothing about the arena.
    assert len(needed) >= cycles * (9 if acknowledge == "held" else 0) // 10
    figure(f"{acknowledge}: cycles of {cycles} in which the arena was needed", f"{len(needed)}, {sum(needed)} batches")
    figure(
        f"{acknowledge}: kill -9 with everything busy, {cycles} cycles, {sum(whole.seen)} records, {keys.rounds} rounds of keys, "
        f"{committer.acked} commits, {churn.count} topics, {follower.seen} consumed",
        f"serving again after {served[cycles // 2]:.2f} s median, {served[-1]:.2f} s worst",
    )
    b.stop()
