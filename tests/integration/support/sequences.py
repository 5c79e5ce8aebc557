"""Writers and readers of numbered records and commits: what was acknowledged is there once, in order, through every restart."""

import struct
import threading
import time

from . import load, schema, wire
from .groups import PASSING, commit_values, name_of

PARTITIONS = 16
PAD = bytes(range(200))


class SequenceWriter(threading.Thread):
    """One idempotent producer that writes 0, 1, 2, ... into each of its partitions, through every restart."""

    def __init__(self, broker, topic, partitions, rate):
        super().__init__(daemon=True)
        self.topic, self.partitions, self.rate = topic, partitions, rate
        self.next = dict.fromkeys(partitions, 0)
        # Per partition: acknowledged sequence -> offset the broker reported for it.
        self.acked = {p: {} for p in partitions}
        self.failed, self.ended = [], threading.Event()
        self.error = None
        self.producer = load.producer(
            broker, enable_idempotence=True, acks="all", linger_ms=2, message_timeout_ms=300_000, reconnect_backoff_ms=10,
            reconnect_backoff_max_ms=100, retry_backoff_ms=20, socket_timeout_ms=5000,
        )  # fmt: skip

    def delivered(self, error, message):
        if error is not None:
            self.failed.append(f"partition {message.partition()}: {error}")
        else:
            seq = struct.unpack_from(">q", message.value())[0]
            self.acked[message.partition()][seq] = message.offset()

    def run(self):
        try:
            began, sent = time.monotonic(), 0
            while not self.ended.is_set():
                if sent > (time.monotonic() - began) * self.rate:
                    self.producer.poll(0.002)
                    continue
                for p in self.partitions:
                    try:
                        self.producer.produce(self.topic, struct.pack(">q", self.next[p]) + PAD, partition=p, on_delivery=self.delivered)
                        self.next[p] += 1
                        sent += 1
                    except BufferError:
                        self.producer.poll(0.01)
                self.producer.poll(0)
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.error = e

    def finish(self):
        self.ended.set()
        self.join(30)
        left = self.producer.flush(120)
        assert self.error is None, f"the load ended early: {self.error}"
        assert left == 0, f"{left} records still without a report two minutes after the last restart"
        assert not self.failed, f"{len(self.failed)} deliveries failed: {self.failed[:3]}"


class SequenceReader:
    """Reads what is new in each partition and holds it against 0, 1, 2, ..."""

    def __init__(self, broker, topic, partitions=PARTITIONS):
        self.broker, self.topic = broker, topic
        self.seen = [0] * partitions

    def catch_up(self, timeout=120):
        def each(p, offset, value):
            seq = struct.unpack_from(">q", value)[0]
            assert offset == self.seen[p], f"partition {p}: offset {offset} where {self.seen[p]} was due"
            assert seq == offset, f"partition {p} offset {offset}: record {seq}, " + ("again" if seq < offset else "some lost")
            assert value[8:] == PAD
            self.seen[p] += 1

        load.read_partitions(self.broker, self.topic, len(self.seen), each, dict(enumerate(self.seen)), timeout=timeout)


def acknowledged(writers):
    """Per partition the acknowledgements so far; copied before the kill, so each of them came from a live broker."""
    return {p: dict(list(w.acked[p].items())) for w in writers for p in w.partitions}


class Committer(threading.Thread):
    """Commits 1, 2, 3, ... for all partitions in a simple group (no members), one request at a time, through every restart."""

    def __init__(self, broker, group, topic, partitions):
        super().__init__(daemon=True)
        self.broker, self.group, self.topic, self.partitions = broker, group, topic, partitions
        self.sent = self.acked = 0
        self.done, self.error = threading.Event(), None

    def run(self):
        conn = None
        while not self.done.is_set():
            try:
                conn = conn or wire.Conn(self.broker, timeout=5)
                n = self.sent + 1
                self.sent = n
                values = commit_values(self.group, {(self.topic, p): n for p in range(self.partitions)})
                got = schema.call(conn, "OffsetCommit", 9, **values)
                errors = {p.ErrorCode for t in got.Topics for p in t.Partitions}
                if errors == {0}:
                    self.acked = n
                elif not errors <= PASSING:
                    self.error = f"{self.group} offset {n}: {[name_of(e) for e in errors]}"
                    return
                else:
                    time.sleep(0.005)
            except (OSError, wire.Closed):
                if conn:
                    conn.close()
                conn = None
                time.sleep(0.01)
            except Exception as e:  # noqa: BLE001 - handed to the test
                self.error = repr(e)
                return
