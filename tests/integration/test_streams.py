"""Kafka Streams with exactly_once_v2: every word is counted once, whatever is killed meanwhile."""

import collections
import random
import re
import struct
import threading
import time

import confluent_kafka as ck
import pytest

from support import java, load
from support.applications import Application, Follower, committed, through_kills
from support.broker import QUICK_TRANSACTIONS

LINES, COUNTS, NAME, PARTITIONS = "lines", "counts", "word-count", 4
REPARTITION, CHANGELOG = f"{NAME}-words-repartition", f"{NAME}-counts-changelog"
WORDS = [b"word-%02d" % n for n in range(40)]


class Writer(threading.Thread):
    """Writes lines of words steadily, on through kills of the broker."""

    def __init__(self, broker, seed, rate=200):
        super().__init__(daemon=True)
        self.dice, self.rate, self.written, self.errors = random.Random(seed), rate, collections.Counter(), []
        self.done = threading.Event()
        self.producer = load.producer(
            broker, enable_idempotence=True, message_timeout_ms=600_000, reconnect_backoff_ms=50, reconnect_backoff_max_ms=500
        )

    def run(self):
        while not self.done.wait(1 / self.rate):
            words = self.dice.choices(WORDS, k=self.dice.randint(1, 8))
            self.written.update(words)
            self.producer.produce(LINES, b" ".join(words), partition=self.dice.randrange(PARTITIONS), on_delivery=self.delivered)
            self.producer.poll(0)

    def delivered(self, error, message):
        if error:
            self.errors.append(str(error))

    def finish(self):
        self.done.set()
        self.join(30)
        assert self.producer.flush(120) == 0
        assert not self.errors, self.errors[:3]


class Counted:
    """The counts as they come: each word's go up by one, from one."""

    def __init__(self):
        self.counts, self.places = collections.Counter(), {}

    def __call__(self, partition, word, value):
        count = struct.unpack(">q", value)[0]
        assert count == self.counts[word] + 1, f"{word}: {count} follows {self.counts[word]}"
        assert self.places.setdefault(word, partition) == partition
        self.counts[word] = count


def application(broker, folder, **more):
    options = {
        "bootstrap.servers": broker.bootstrap,
        "application.id": NAME,
        "processing.guarantee": "exactly_once_v2",
        "state.dir": folder / "state",
        "replication.factor": 1,
        "num.stream.threads": 2,
        "commit.interval.ms": 100,
        # Each count goes out, not the last before a commit.
        "statestore.cache.max.bytes": 0,
        "repartition.purge.interval.ms": 1000,
        "consumer.session.timeout.ms": 3000,
        "consumer.heartbeat.interval.ms": 500,
        "reconnect.backoff.max.ms": 200,
        **more,
    }
    words = [f"{k}={v}" for k, v in options.items()]
    return Application(folder, java.compiled("WordCount"), "WordCount", LINES, COUNTS, *words)


def beginnings(broker, topic, partitions):
    c = load.consumer(broker)
    try:
        return [c.get_watermark_offsets(ck.TopicPartition(topic, p), timeout=30)[0] for p in range(partitions)]
    finally:
        c.close()


@pytest.mark.timeout(3600)
def test_words_are_counted_once_through_kills(make_broker, length, figure):
    rounds, dice = length.pick(2, 30), random.Random(15)
    b = make_broker(QUICK_TRANSACTIONS)
    b.start()
    for topic in (LINES, COUNTS):
        load.create_topic(b, topic, PARTITIONS)
    applications = [application(b, b.folder / f"application-{n}") for n in range(2)]
    counted, waits = Counted(), []
    follower, writer = Follower(b, COUNTS, PARTITIONS, counted), Writer(b, 15)
    try:
        for a in applications:
            a.start()
        writer.start()

        def go_on(what):
            """Until counts come that were made after now: those before do not tell that anything is alive."""
            began, total = time.monotonic(), sum(writer.written.values())
            follower.until(lambda: follower.count > total, what, applications)
            waits.append(time.monotonic() - began)

        go_on("the first counts")
        kills = through_kills(b, applications, "application", dice, rounds, lambda kill: go_on(f"counts after {kill}"))
        writer.finish()
        follower.until(lambda: counted.counts == writer.written, "all words", applications)
        # What was read is purged from the repartition topic.
        follower.until(lambda: all(beginnings(b, REPARTITION, PARTITIONS)), "purged records", applications)
        # One that was killed last may not be back yet: its parts are the other's meanwhile.
        follower.until(lambda: all(a.told()[-1] == "state RUNNING" for a in applications), "both instances", applications)
        for a in applications:
            a.stop()
            # The process may end before its listener has told the last state.
            assert a.told()[-1] in ("state PENDING_SHUTDOWN", "state NOT_RUNNING"), a.tail()
    finally:
        writer.done.set()
        for a in applications:
            a.kill()
        follower.close()
    again = Counted()
    for partition, records in committed(b, COUNTS, PARTITIONS).items():
        for record in records:
            again(partition, *record)
    assert again.counts == writer.written
    stored = dict(record for part in committed(b, CHANGELOG, PARTITIONS).values() for record in part)
    assert {word: struct.unpack(">q", value)[0] for word, value in stored.items()} == writer.written
    listed = java.run(java.TRANSACTIONS, "--bootstrap-server", b.bootstrap, "list").out
    assert NAME in listed and not re.search("Ongoing|Prepare", listed), listed
    replaced = [s for a in applications for s in a.told() if s.startswith("replaced ")]
    waits.sort()
    figure(
        f"{sum(writer.written.values())} words, kills: {dict(kills)}, threads replaced: {len(replaced)}",
        f"counts went on after {waits[len(waits) // 2]:.1f} s (median), {waits[-1]:.1f} s at most",
    )
