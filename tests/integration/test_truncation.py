"""A power cut takes the end of a log that was not synced. Consumers that had read it are told (KIP-320), although the offsets
are used again for other records."""

import os
import subprocess
import threading
import time

import pytest
from confluent_kafka import Consumer, KafkaError, TopicPartition

from support import broker as brokers
from support import clock, java, load, wire

TOPIC = "cut"
FIRST = "00000000000000000000.log"


def value(history, n):
    return b"%s-%05d" % (history, n)


def write(b, history, count):
    with wire.Conn(b, timeout=30) as conn:
        for n in range(count):
            error, _ = wire.produce(conn, TOPIC, 0, wire.batch([value(history, n)]))
            assert error == 0


def epoch(b):
    with wire.Conn(b) as conn:
        return wire.metadata(conn, [TOPIC])["topics"][TOPIC]["partitions"][0]["epoch"]


def epoch_end(b, asked):
    """OffsetForLeaderEpoch v3 -> (error, epoch, end)"""
    with wire.Conn(b) as conn:
        body = wire.Writer(False).i32(-1).count(1).string(TOPIC).count(1).i32(0).i32(-1).i32(asked).done()
        r = conn.call(23, 3, body)
        r.i32(), r.count(), r.string(), r.count()
        error, _, found, end = r.i16(), r.i32(), r.i32(), r.i64()
        return error, found, end


def cut_to(b, keep):
    """Leaves the first `keep` batches of the log, all of one size."""
    path = b.partition_dir(TOPIC) / FIRST
    first = wire.batches(path.read_bytes()[:4096])[0]
    os.truncate(path, keep * len(first.data))


def test_the_epoch_ends_where_the_log_was_cut(make_broker, corelane_only):
    # What the cut takes must not stand in an arena.
    b = make_broker({"corelane.acknowledge": "written"})
    b.start()
    load.create_topic(b, TOPIC, 1)
    write(b, b"old", 400)
    assert epoch(b) == 0
    b.stop()
    b.start(topics=[TOPIC])
    assert epoch(b) == 0, "a clean stop begins no epoch"
    b.kill()
    b.start(topics=[TOPIC])
    assert (epoch(b), epoch_end(b, 0)) == (1, (0, 0, 400)), "nothing was lost, and the old epoch ends at the end"
    write(b, b"more", 100)
    b.kill()
    # What the kill left on the disk, a power cut takes; the checkpoint was at 400.
    log = b.partition_dir(TOPIC) / FIRST
    sizes = [len(batch.data) for batch in wire.batches(log.read_bytes().rstrip(b"\0"))]
    os.truncate(log, sum(sizes[:450]) + 10)
    b.start(topics=[TOPIC])
    assert (epoch(b), epoch_end(b, 1), epoch_end(b, 0)) == (2, (0, 1, 450), (0, 0, 400))
    write(b, b"new", 100)
    assert epoch_end(b, 1) == (0, 1, 450), "the offsets are used again, by another epoch"
    b.kill()
    b.start(topics=[TOPIC])
    assert (epoch(b), epoch_end(b, 1), epoch_end(b, 2)) == (3, (0, 1, 450), (0, 2, 550))
    # Topics that are made now, or changed, keep their place among the starts.
    load.create_topic(b, "later", 1)
    b.stop()
    b.start(topics=[TOPIC, "later"])
    assert epoch(b) == 3
    with wire.Conn(b) as conn:
        assert wire.metadata(conn, ["later"])["topics"]["later"]["partitions"][0]["epoch"] == 0
        assert wire.produce(conn, "later", 0, wire.batch([b"x"]))[0] == 0


def follow(b, seen, stop, errors):
    consumer = Consumer(
        {
            "bootstrap.servers": b.bootstrap,
            "group.id": "follower",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
            "fetch.wait.max.ms": 50,
            "reconnect.backoff.max.ms": 500,
            "topic.metadata.refresh.interval.ms": 2000,
        }
    )
    consumer.assign([TopicPartition(TOPIC, 0, 0)])
    while not stop.is_set():
        message = consumer.poll(0.2)
        if message is None:
            continue
        if message.error():
            errors.append(message.error())
        else:
            seen.append(message.value())
    consumer.close()


def follow_java(b, seen, stop, errors):
    config = {
        "bootstrap.servers": b.bootstrap,
        "auto.offset.reset": "earliest",
        "fetch.max.wait.ms": 50,
        "reconnect.backoff.max.ms": 500,
        "metadata.max.age.ms": 2000,
        "default.api.timeout.ms": 120_000,
    }
    command = java.command("Follower", TOPIC, *(f"{k}={v}" for k, v in config.items()))
    command[command.index("-cp") + 1] = java.compiled("Follower")
    with open(b.folder / "follower.log", "wb") as log:
        process = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log)

    def read():
        for line in process.stdout:
            kind, text = line.rstrip(b"\n").split(b" ", 1)
            (seen if kind == b"record" else errors).append(text)

    reader = threading.Thread(target=read)
    reader.start()
    stop.wait()
    process.stdin.close()
    try:
        process.wait(30)
    finally:
        process.kill()
        reader.join()


FOLLOWERS = {"librdkafka": follow, "java": follow_java}


def wait_for(condition, what, seconds=60):
    end = clock.running() + seconds
    while not condition():
        assert clock.running() < end, what() if callable(what) else what
        time.sleep(0.05)


@pytest.mark.parametrize("client", FOLLOWERS)
@pytest.mark.parametrize("grown", [True, False], ids=["grown-again", "shorter"])
def test_a_consumer_beyond_the_cut_misses_nothing(make_broker, corelane_only, grown, client):
    # So that there is a file to cut as soon as records were read.
    b = make_broker({"corelane.acknowledge": "written"})
    b.start()
    load.create_topic(b, TOPIC, 1)
    write(b, b"old", 400)
    seen, errors, stop = [], [], threading.Event()
    follower = threading.Thread(target=FOLLOWERS[client], args=(b, seen, stop, errors))
    follower.start()
    try:
        wait_for(lambda: len(seen) >= 400, lambda: f"{len(seen)} of 400 consumed")
        b.kill()
        cut_to(b, 219)
        count = 300 if grown else 50
        port = b.port
        if grown:
            # Where the consumer does not find it: it comes back when its offset exists again.
            b.port = brokers.free_port()
            b.start(topics=[TOPIC])
            write(b, b"new", count)
            b.stop()
            b.port = port
        b.start(topics=[TOPIC])
        if not grown:
            write(b, b"new", count)
        wanted = {value(b"new", n) for n in range(count)}
        wait_for(
            lambda: wanted <= set(seen),
            lambda: f"{len(wanted - set(seen))} of {count} new records never came, from {min(wanted - set(seen))}; {errors}",
        )
    finally:
        stop.set()
        follower.join()
