"""Replicas that move between the data directories of a broker (AlterReplicaLogDirs), against Corelane or Apache Kafka."""

import json
import random
import shutil
import subprocess
import threading
import time
from pathlib import Path

import pytest
from test_disk import take_room

from support import broker as brokers
from support import java, load, schema, wire
from support.broker import target
from support.cli import Cli, Running
from support.groups import commit, fetch_offsets, name_of, wait_ready, wait_until

RATE = "replica.alter.log.dirs.io.max.bytes.per.second"

corelane = pytest.mark.skipif(target() != "corelane", reason="names on disk are Corelane's")


def two_dirs(make_broker, instead=None, **props):
    """A broker over two data directories, some of them in other places than its folder: `instead`, by number."""
    b = make_broker({**brokers.QUICK_GROUPS, "offsets.topic.num.partitions": 1, "offsets.topic.replication.factor": 1, **props})
    b.dirs = [(instead or {}).get(number, b.folder / name) for number, name in enumerate("ab")]
    b.props["log.dirs"] = ",".join(map(str, b.dirs))
    # Kafka's directory of metadata.
    b.data_dir = b.dirs[0]
    b.start()
    return b


def alter(b, *moves):
    """Asks for (directory, topic, partition) -> {(topic, partition): error}"""
    dirs = [{"Path": str(path), "Topics": [{"Name": topic, "Partitions": [partition]}]} for path, topic, partition in moves]
    with wire.Conn(b, timeout=60) as conn:
        got = schema.call(conn, "AlterReplicaLogDirs", 2, Dirs=dirs)
    return {(t.TopicName, p.PartitionIndex): name_of(p.ErrorCode) for t in got.Results for p in t.Partitions}


def places(b, topic, partition=0):
    """Where the replica is, and where a copy of it is on its way to: its directory, lag and size."""
    while True:
        with wire.Conn(b, timeout=60) as conn:
            got = schema.call(conn, "DescribeLogDirs", 4, Topics=[{"Topic": topic, "Partitions": [partition]}])
        found = [(d.LogDir, p) for d in got.Results for t in d.Topics for p in t.Partitions]
        current = [path for path, p in found if not p.IsFutureKey]
        future = [(path, p.OffsetLag, p.PartitionSize) for path, p in found if p.IsFutureKey]
        # Kafka still tells of the old one for a moment.
        if len(current) <= 1 or target() == "corelane":
            assert len(current) <= 1 and len(future) <= 1, found
            return (current or [None])[0], (future or [None])[0]
        time.sleep(0.05)


def other(b, path):
    return next(str(d) for d in b.dirs if str(d) != path)


def move(b, topic, partition=0, timeout=90):
    """To the other directory, and waits until it is there."""
    to = other(b, places(b, topic, partition)[0])
    assert alter(b, (to, topic, partition)) == {(topic, partition): "NONE"}
    wait_until(lambda: places(b, topic, partition) == (to, None), timeout)
    return to


def fill(b, topic, batches):
    """Appends large batches; returns how many records they have."""
    bulk = load.Bulk(record_bytes=4000)
    with wire.Conn(b, timeout=60) as conn:
        for n in range(batches):
            assert wire.produce(conn, topic, 0, bulk.kinds[n % len(bulk.kinds)])[0] == 0
    return batches * bulk.records


def set_rate(b, rate):
    """Of moves, bytes a second; None: as by default."""
    words = (java.CONFIGS, "--bootstrap-server", b.bootstrap, "--alter", "--entity-type", "brokers", "--entity-name", 0)
    change = ("--delete-config", RATE) if rate is None else ("--add-config", f"{RATE}={rate}")
    assert "Completed" in java.run(*words, *change).out


def in_first_dir(b, topic):
    """Makes the topic; whether its replica is in the first data directory."""
    load.create_topic(b, topic, 1)
    return places(b, topic)[0] == str(b.dirs[0])


def on_disk(b, topic, partition=0):
    """Names in the data directories that have to do with the partition, but for those that wait for their removal."""
    found = [p for d in b.dirs for p in d.glob(f"{topic}-{partition}*")]
    return sorted(str(p) for p in found if not p.name.endswith("-delete"))


def test_a_replica_moves_while_it_is_written_and_read(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=1 << 20)
    load.produce_lines(b, "t", 50_000, 1)
    stop, sent, failed = threading.Event(), [50_000], []

    def write():
        reports = load.Deliveries()
        p = load.producer(b, enable_idempotence=True)
        while not stop.is_set():
            for _ in range(200):
                p.produce("t", load.line(sent[0]), partition=0, on_delivery=reports)
                sent[0] += 1
            p.flush(60)
        failed.extend(reports.errors)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(4):
            to = move(b, "t")
    finally:
        stop.set()
        writer.join(120)
    assert not failed, failed[:3]
    load.check_lines(b, "t", sent[0], 1)
    wait_until(lambda: on_disk(b, "t") == [f"{to}/t-0"])
    b.stop()
    b.start(topics=["t"])
    assert places(b, "t") == (to, None)
    load.check_lines(b, "t", sent[0], 1)


def test_what_is_answered(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    at, _ = places(b, "t")
    assert alter(b, (at, "t", 0)) == {("t", 0): "NONE"} and places(b, "t") == (at, None)
    assert alter(b, (b.folder / "c", "t", 0)) == {("t", 0): "LOG_DIR_NOT_FOUND"}
    assert alter(b, (f"{at}/", "t", 0)) == {("t", 0): "LOG_DIR_NOT_FOUND"}
    to = other(b, at)
    got = alter(b, (to, "t", 1), (to, "no-such-topic", 0))
    assert set(got.values()) == {"UNKNOWN_TOPIC_OR_PARTITION"}, got
    longest = "x" * 220
    load.create_topic(b, longest, 1)
    here, _ = places(b, longest)
    assert alter(b, (other(b, here), longest, 0)) == {(longest, 0): "INVALID_TOPIC_EXCEPTION"}
    # There and back again, empty.
    assert move(b, "t") == to and move(b, "t") == at
    assert load.end(b, "t") == 0
    load.produce_lines(b, "t", 10, 1)
    load.check_lines(b, "t", 10, 1)


def test_how_far_a_move_is(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=4 << 20)
    count = fill(b, "t", 200)
    to = other(b, places(b, "t")[0])
    assert alter(b, (to, "t", 0)) == {("t", 0): "NONE"}
    seen = []
    end = time.monotonic() + 60
    while (now := places(b, "t"))[0] != to:
        assert time.monotonic() < end
        if now[1]:
            seen.append(now[1])
    assert seen, "never seen on its way"
    assert {path for path, _, _ in seen} == {to}
    lags = [lag for _, lag, _ in seen]
    assert lags == sorted(lags, reverse=True) and lags[0] > 0 and seen[-1][2] > 0, seen[:5]
    assert load.end(b, "t") == count


def test_a_move_keeps_to_its_rate(make_broker):
    """replica.alter.log.dirs.io.max.bytes.per.second, set while the broker runs; a second's bytes are free."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=2 << 20)
    count = fill(b, "t", 40)
    # Files have less as long as writes are on their way to them.
    with wire.Conn(b, timeout=60) as conn:
        told = schema.call(conn, "DescribeLogDirs", 4, Topics=[{"Topic": "t", "Partitions": [0]}])
    [size] = [p.PartitionSize for d in told.Results for t in d.Topics for p in t.Partitions]
    rate = 5_000_000
    set_rate(b, rate)
    begun = time.monotonic()
    move(b, "t")
    took = time.monotonic() - begun
    # What is left when the log is closed is not held back.
    least = (size - (16 << 20)) / rate - 1.5
    assert took > least > 1, f"{size} bytes in {took:.2f} s"
    set_rate(b, None)
    begun = time.monotonic()
    move(b, "t")
    assert time.monotonic() - begun < took
    assert load.end(b, "t") == count


def test_a_move_is_called_off_by_another(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=4 << 20)
    count = fill(b, "t", 100)
    at, _ = places(b, "t")
    assert alter(b, (other(b, at), "t", 0)) == {("t", 0): "NONE"}
    assert alter(b, (at, "t", 0)) == {("t", 0): "NONE"}
    wait_until(lambda: places(b, "t")[1] is None, 60)
    now, _ = places(b, "t")
    # It may have been there already.
    wait_until(lambda: on_disk(b, "t") == [f"{now}/t-0"])
    assert load.end(b, "t") == count
    move(b, "t")


def test_a_compacted_topic_and_committed_offsets(make_broker):
    b = two_dirs(make_broker, **{"log.cleaner.backoff.ms": 100})
    load.create_topic(b, "c", 1, cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio=0.01)
    newest = {}
    p = load.producer(b)
    for n in range(30_000):
        key = b"%d" % (n % 500)
        newest[key] = b"%d" % n + b"x" * 200
        p.produce("c", newest[key], key=key)
        if n % 10_000 == 9_999:
            p.flush(60)
            move(b, "c")
    load.create_topic(b, "t", 1)
    wait_ready(b, "g")
    with wire.Conn(b, timeout=30) as conn:
        assert commit(conn, "g", {("t", 0): 5}) == {("t", 0): 0}
        move(b, "__consumer_offsets")
        wait_until(lambda: fetch_offsets(conn, "g", {"t": [0]})[0] == 0, 30)
        assert fetch_offsets(conn, "g", {"t": [0]})[1]["t", 0].CommittedOffset == 5
        wait_until(lambda: commit(conn, "g", {("t", 0): 6}) == {("t", 0): 0}, 30)
    for _ in range(2):
        found = {}
        c = load.consumer(b)
        c.assign([load.ck.TopicPartition("c", 0, 0)])
        while (m := c.poll(30)) is not None and not m.error():
            found[m.key()] = m.value()
        c.close()
        assert found == newest
        with wire.Conn(b, timeout=30) as conn:
            wait_until(lambda: fetch_offsets(conn, "g", {"t": [0]})[1]["t", 0].CommittedOffset == 6, 30)  # noqa: B023
        b.stop()
        b.start(topics=["c", "t"])


def test_kafkas_own_tools(make_broker, tmp_path):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    to = other(b, places(b, "t")[0])
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [0], "log_dirs": [to]}]}))
    words = ("--bootstrap-server", b.bootstrap, "--reassignment-json-file", plan)
    out = java.run(java.REASSIGN, *words, "--execute").out
    assert f"Successfully started moving log directory to {to} for replica t-0 with broker 0" in out, out
    wait_until(lambda: places(b, "t") == (to, None), 30)
    out = java.run(java.REASSIGN, *words, "--verify").out
    assert "Reassignment of replica t-0-0 completed successfully" in out, out
    told = java.run(java.LOG_DIRS, "--describe", "--bootstrap-server", b.bootstrap, "--topic-list", "t").out
    [line] = [json.loads(s) for s in told.splitlines() if s.startswith("{")]
    there = {d["logDir"]: [p["partition"] for p in d["partitions"]] for d in line["brokers"][0]["logDirs"]}
    assert there == {to: ["t-0"], other(b, to): []}, there
    load.check_lines(b, "t", 1000, 1)


@corelane
@pytest.mark.timeout(600)
def test_killed_at_any_moment(make_broker, length):
    """One sound replica, whichever: what was acknowledged is there, and what is left of the other goes."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=2 << 20)
    count, moved = 40_000, 0
    load.produce_lines(b, "t", count, 1)
    begun = time.monotonic()
    move(b, "t")
    took = time.monotonic() - begun
    for n in range(60 if length.full else 12):
        at, _ = places(b, "t")
        assert alter(b, (other(b, at), "t", 0)) == {("t", 0): "NONE"}
        time.sleep(random.Random(n).random() * took * 1.2)
        b.kill()
        b.start(topics=["t"])
        now, future = places(b, "t")
        assert future is None and on_disk(b, "t") == [f"{now}/t-0"], on_disk(b, "t")
        moved += now != at
        assert load.end(b, "t") == count
    load.check_lines(b, "t", count, 1)
    assert moved, "no move came to its end"


@corelane
@pytest.mark.parametrize("end", ["stop", "kill"])
def test_a_start_ends_what_was_under_way(make_broker, end):
    """The states that a kill may leave between two renames."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    at, _ = places(b, "t")
    to, tag = other(b, at), "0123456789abcdef0123456789abcdef"
    names = {suffix: f"t-0.{tag}-{suffix}" for suffix in ("future", "moved", "delete")}

    def restart(change):
        getattr(b, end)()
        change()
        b.start(topics=["t"])
        now, future = places(b, "t")
        assert future is None
        load.check_lines(b, "t", 1000, 1)
        wait_until(lambda: on_disk(b, "t") == [f"{now}/t-0"], 30)
        return now

    def copied(suffix):
        return lambda: shutil.copytree(Path(at) / "t-0", Path(to) / names[suffix])

    assert restart(copied("future")) == at
    assert restart(copied("moved")) == at

    def exchanged():
        copied("moved")()
        (Path(at) / "t-0").rename(Path(at) / names["delete"])

    if end == "kill":
        # What only the arena of the old directory held would be missing: a move closes the log first.
        b.stop()
        b.start(topics=["t"])
    assert restart(exchanged) == to
    assert restart(lambda: None) == to


@corelane
def test_a_target_without_room(make_broker, small_disk, request):
    """The replica stays where it is, with a line that says why; with room it moves."""
    b = two_dirs(make_broker, {1: small_disk / "b"})
    request.addfinalizer(b.kill)
    topic = next(name for name in ("t1", "t2", "t3") if in_first_dir(b, name))
    count = fill(b, topic, 25)
    at, _ = places(b, topic)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(46 << 20))
    assert alter(b, (b.dirs[1], topic, 0)) == {(topic, 0): "NONE"}
    wait_until(lambda: "bytes are free in" in b.log_text(), 30)
    wait_until(lambda: places(b, topic) == (at, None), 30)
    assert on_disk(b, topic) == [f"{at}/{topic}-0"]
    filler.unlink()
    assert move(b, topic) == str(b.dirs[1])
    assert load.end(b, topic) == count


@corelane
def test_a_replica_leaves_a_full_disk(make_broker, small_disk, request):
    """Where it found no room, it takes records again on another disk."""
    b = two_dirs(make_broker, {0: small_disk / "a"})
    request.addfinalizer(b.kill)
    topic = next(name for name in ("t1", "t2", "t3") if in_first_dir(b, name))
    # More than is copied while it is closed, in a segment that is not sealed.
    count = fill(b, topic, 25)
    # Less than is kept free for groups and metadata.
    filler = small_disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(small_disk).free - (2 << 20)))
    bulk = load.Bulk(record_bytes=4000)
    with wire.Conn(b, timeout=60) as conn:
        for _ in range(40):
            error, base = wire.produce(conn, topic, 0, bulk.kinds[0])
            if error:
                break
            assert base == count
            count += bulk.records
        assert name_of(error) == "KAFKA_STORAGE_ERROR"
    assert alter(b, (b.dirs[1], topic, 0)) == {(topic, 0): "NONE"}
    wait_until(lambda: places(b, topic) == (str(b.dirs[1]), None), 60)
    assert load.end(b, topic) == count
    fill(b, topic, 1)
    assert load.end(b, topic) == count + bulk.records
    assert on_disk(b, topic) == [f"{b.dirs[1]}/{topic}-0"]
    b.kill()
    b.start(topics=[topic])
    assert load.end(b, topic) == count + bulk.records


@corelane
def test_a_full_disk_keeps_what_is_not_written_yet(make_broker, small_disk, request):
    """A replica whose records cannot be written where it is stays there, served, and moves once there is room."""
    held = {"corelane.disk.reserve.bytes": 0, "corelane.arena.bytes": 8 << 20, "corelane.write.behind.max.ms": 3000}
    b = two_dirs(make_broker, {1: small_disk / "b"}, **held)
    request.addfinalizer(b.kill)
    topic = next(name for name in ("t1", "t2", "t3") if not in_first_dir(b, name))
    with wire.Conn(b, timeout=60) as conn:
        for n in range(100):
            assert wire.produce(conn, topic, 0, wire.batch([b"%06d" % n + bytes(7000)])) == (0, n)
    filler = take_room(small_disk)
    wait_until(lambda: "takes no more records until there is room" in b.log_text(), 60)
    assert alter(b, (b.dirs[0], topic, 0)) == {(topic, 0): "NONE"}
    wait_until(lambda: "moving the replica has failed" in b.log_text(), 60)
    assert load.end(b, topic) == 100 and places(b, topic) == (str(b.dirs[1]), None)
    assert "offline" not in b.log_text()
    filler.unlink()
    with wire.Conn(b, timeout=60) as conn:
        wait_until(lambda: wire.produce(conn, topic, 0, wire.batch([b"more"])) == (0, 100), 60)
    assert move(b, topic) == str(b.dirs[0])
    assert load.end(b, topic) == 101


@corelane
def test_a_target_that_cannot_be_written(make_broker):
    """The partition is served as before, and nothing is moved there until a start has found the directory in order."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    at, _ = places(b, "t")
    to = other(b, at)
    subprocess.run(["mount", "--bind", to, to], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", to], check=True)
        alter(b, (to, "t", 0))
        wait_until(lambda: "moving the replica has failed" in b.log_text(), 30)
        assert places(b, "t") == (at, None)
        load.check_lines(b, "t", 1000, 1)
        wait_until(lambda: alter(b, (to, "t", 0)) == {("t", 0): "KAFKA_STORAGE_ERROR"}, 30)
        b.stop()
    finally:
        subprocess.run(["umount", to], check=True)
    b.start(topics=["t"])
    assert on_disk(b, "t") == [f"{at}/t-0"]
    assert move(b, "t") == to
    load.check_lines(b, "t", 1000, 1)


def test_the_last_one_asked_for_counts(make_broker):
    """Asked to and fro at any moment of a move, also while the copy takes the replica's place."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=1 << 20)
    count, chance = 20_000, random.Random(3)
    load.produce_lines(b, "t", count, 1)
    at = None
    for _ in range(60):
        at = str(chance.choice(b.dirs))
        # Kafka does not take another one while it exchanges the two.
        wait_until(lambda: alter(b, (at, "t", 0)) == {("t", 0): "NONE"}, 30)  # noqa: B023
        time.sleep(chance.random() * 0.25)
    wait_until(lambda: places(b, "t") == (at, None), 60)
    load.check_lines(b, "t", count, 1)
    load.produce_lines(b, "t", 10, 1)
    assert load.end(b, "t") == count + 10


@corelane
def test_asked_again_during_the_exchange(make_broker):
    """To, fro, to and fro: the last one counts, though the copy is just taking the replica's place."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=64 << 20)
    fill(b, "t", 14)
    for n in range(12):
        at, _ = places(b, "t")
        to = other(b, at)
        assert alter(b, (to, "t", 0)) == {("t", 0): "NONE"}
        time.sleep(0.1 + 0.005 * n)
        for path in (at, to, at):
            assert alter(b, (path, "t", 0)) == {("t", 0): "NONE"}
        time.sleep(1)
        wait_until(lambda: places(b, "t") == (at, None), 10)  # noqa: B023


@corelane
def test_a_rate_that_is_taken_away_holds_nothing_back(make_broker):
    """A move that is called off owes nothing to the next one."""
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1, segment_bytes=4 << 20)
    fill(b, "t", 25)
    set_rate(b, 1000)
    at, _ = places(b, "t")
    assert alter(b, (other(b, at), "t", 0)) == {("t", 0): "NONE"}
    wait_until(lambda: places(b, "t")[1], 10)
    time.sleep(1)
    assert alter(b, (at, "t", 0)) == {("t", 0): "NONE"}
    wait_until(lambda: places(b, "t") == (at, None), 10)
    set_rate(b, None)
    move(b, "t", timeout=15)


@corelane
def test_the_new_directory_is_missing_after_a_kill(make_broker):
    """Killed before the metadata had the new home of a topic of this run: it is not taken for one that was being made."""
    b = two_dirs(make_broker, **{"corelane.acknowledge": "written"})
    topic = next(name for name in ("t1", "t2", "t3") if in_first_dir(b, name))
    load.produce_lines(b, topic, 1000, 1)
    at, to = map(str, b.dirs)
    b.kill()
    shutil.copytree(Path(at) / f"{topic}-0", Path(to) / f"{topic}-0")
    (Path(at) / f"{topic}-0").rename(Path(at) / f"{topic}-0.0123456789abcdef0123456789abcdef-delete")
    shutil.move(to, f"{to}.away")
    Path(to).write_text("no directory")
    b.start()
    with wire.Conn(b, timeout=30) as conn:
        assert name_of(wire.list_offsets(conn, topic, [0], -1)[0][0]) == "KAFKA_STORAGE_ERROR"
    b.stop()
    Path(to).unlink()
    shutil.move(f"{to}.away", to)
    b.start(topics=[topic])
    load.check_lines(b, topic, 1000, 1)


@corelane
def test_a_topic_is_deleted_while_it_moves(make_broker):
    b = two_dirs(make_broker, **{"log.segment.delete.delay.ms": 100})
    load.create_topic(b, "t", 1, segment_bytes=2 << 20)
    load.produce_lines(b, "t", 60_000, 1)
    at, _ = places(b, "t")
    assert alter(b, (other(b, at), "t", 0)) == {("t", 0): "NONE"}
    with wire.Conn(b, timeout=60) as conn:
        schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": "t", "TopicId": schema.NIL}], TimeoutMs=30_000)
    wait_until(lambda: on_disk(b, "t") == [], 30)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 10, 1)
    load.check_lines(b, "t", 10, 1)


@corelane
def test_replicas_of_a_cluster(make_cluster):
    """Followers and leaders: a leader leads on, in the next epoch, and nobody leaves the ISR for good. A sole replica as well."""
    c = make_cluster(prepare=with_two_dirs)
    c.create("t", 3)
    c.create("sole", 3, replicas=1, min_insync_replicas=1)
    stop, sent, failed = threading.Event(), [0], []

    def write():
        reports = load.Deliveries()
        p = load.producer(c, enable_idempotence=True, acks="all")
        while not stop.is_set():
            for _ in range(300):
                for topic in ("t", "sole"):
                    p.produce(topic, load.line(sent[0]), partition=sent[0] % 3, on_delivery=reports)
                sent[0] += 1
            p.flush(60)
        failed.extend(reports.errors)

    writer = threading.Thread(target=write)
    writer.start()
    where = {}
    try:
        wait_until(lambda: sent[0] > 3000, 60)
        before = {t: {p: (c.leader(t, p), c.leader_epoch(t, p)) for p in range(3)} for t in ("t", "sole")}
        for number, b in c.brokers.items():
            for topic in ("t", "sole"):
                for partition in range(3):
                    if topic == "t" or before[topic][partition][0] == number:
                        where[number, topic, partition] = move(b, topic, partition)
    finally:
        stop.set()
        writer.join(120)
    assert not failed, failed[:3]
    for topic in ("t", "sole"):
        load.check_lines(c, topic, sent[0], 3)
        for partition in range(3):
            leader, epoch = before[topic][partition]
            assert (c.leader(topic, partition), c.leader_epoch(topic, partition)) == (leader, epoch + 1)
    c.wait_for_isr("t", {1, 2, 3}, 30)
    assert not any("restored from an older copy" in b.log_text() for b in c.brokers.values())
    for number, b in c.brokers.items():
        b.stop()
        b.start()
        own = [key for key in where if key[0] == number]
        wait_until(lambda: all(places(b, t, p)[0] == where[n, t, p] for n, t, p in own), 30)  # noqa: B023
    wait_until(lambda: c.serves(["t", "sole"]), 60)
    load.check_lines(c, "t", sent[0], 3)
    load.check_lines(c, "sole", sent[0], 3)


def with_two_dirs(c):
    for b in c.brokers.values():
        b.dirs = [b.folder / "a", b.folder / "b"]
        b.props["log.dirs"] = ",".join(map(str, b.dirs))


def test_the_command_moves_all_that_a_directory_has(make_broker):
    b = two_dirs(make_broker)
    old, new = map(str, b.dirs)
    for topic in "xy":
        load.create_topic(b, topic, 3)
    count = fill(b, "x", 20)
    cli = Cli(b.bootstrap)
    [node] = cli.json("broker", "list")
    words = ("broker", "move-replicas", node["broker"])

    def held(path):
        """Its replicas, and that no copy is left on its way."""
        told = {d["log_dir"]: d["partitions"] for d in cli.json("broker", "log-dirs")}
        assert not [p for partitions in told.values() for p in partitions if p["future"]]
        return {(p["topic"], p["partition"]) for p in told[path]}

    # All of them on one side, whatever the broker chose for them.
    cli(*words, "--from", new, "--to", old, "--execute", silent=False)
    there = held(old)
    assert {(topic, n) for topic in "xy" for n in range(3)} <= there and not held(new)
    planned = cli.json(*words, "--from", old, "--to", new)
    assert {(p["topic"], p["partition"]) for p in planned["partitions"]} == there
    assert "nothing has been changed" in cli(*words, "--from", old, "--to", new, "--plan").out and held(old) == there
    assert "3 partitions have moved" in cli(*words, "--from", old, "--to", new, "--topic", "x", "--execute", silent=False).out
    assert held(new) == {("x", n) for n in range(3)} and load.end(b, "x") == count
    cli(*words, "--from", old, "--to", new, "--execute", silent=False)
    assert (held(old), held(new)) == (set(), there)
    assert "nothing to move: there is no replica in" in cli(*words, "--from", old, "--to", new, "--execute").out
    assert f"has no data directory /nowhere; it has {old}, {new}" in cli.fails(*words, "--from", "/nowhere", "--to", new)
    assert "are the same" in cli.fails(*words, "--from", old, "--to", old)
    assert "there is no broker 77" in cli.fails("broker", "move-replicas", 77, "--from", old, "--to", new)


def test_the_command_tells_of_a_move_that_was_called_off(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    fill(b, "t", 60)
    set_rate(b, 100_000)
    place = places(b, "t")[0]
    to = other(b, place)
    [node] = Cli(b.bootstrap).json("broker", "list")
    words = ("broker", "move-replicas", node["broker"], "--from", place, "--to", to, "--topic", "t", "--execute")
    with Running(*words, "--bootstrap-server", b.bootstrap) as running:
        wait_until(lambda: places(b, "t")[1], 60)
        assert alter(b, (place, "t", 0)) == {("t", 0): "NONE"}
        said = running.end(code=1, timeout=90)
    assert "t-0 has not moved" in said and places(b, "t") == (place, None), said
