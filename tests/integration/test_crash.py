"""kill -9 under load: everything acknowledged is there once and in order, and the broker serves again at once."""

import random
import re
import time

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from support import broker, clock, load, wire
from support.sequences import PARTITIONS, SequenceReader, SequenceWriter, acknowledged

NO_CHECKPOINTS_BY_AGE = {"log.flush.offset.checkpoint.interval.ms": 3_600_000}


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("acknowledge", ["written", "held"])
def test_kill_under_load(make_broker, length, figure, acknowledge):
    cycles = length.pick(10, 100)
    dice = random.Random(20)
    b = make_broker({"corelane.acknowledge": acknowledge} if broker.target() == "corelane" else {})
    b.start()
    load.create_topic(b, "crash", PARTITIONS)
    writers = [SequenceWriter(b, "crash", range(n, PARTITIONS, 2), 10_000) for n in (0, 1)]
    for w in writers:
        w.start()
    reader, restarts, cycle_acked = SequenceReader(b, "crash"), [], 0
    for cycle in range(cycles):
        before = cycle_acked
        time.sleep(dice.uniform(0.2, 1.5))
        until = clock.running() + 60
        while (cycle_acked := sum(len(w.acked[p]) for w in writers for p in w.partitions)) < before + 200:
            assert clock.running() < until, f"cycle {cycle}: the load does not go on"
            time.sleep(0.05)
        b.kill()
        acked = acknowledged(writers)
        restarts.append(b.start(topics=["crash"]))
        reader.catch_up()
        for p, seqs in acked.items():
            last = max(seqs, default=-1)
            assert reader.seen[p] > last, f"cycle {cycle} partition {p}: {last} was acknowledged, the log ends at {reader.seen[p]}"
    for w in writers:
        w.finish()
    whole = SequenceReader(b, "crash")
    # As fast as Python reads all that was written in the meantime: some GB at full length.
    whole.catch_up(timeout=1800)
    total = 0
    for w in writers:
        for p in w.partitions:
            assert whole.seen[p] == w.next[p], f"partition {p}: {w.next[p]} sent and acknowledged, {whole.seen[p]} there"
            wrong = [(s, o) for s, o in w.acked[p].items() if o >= 0 and s != o]
            assert not wrong, f"partition {p}: acknowledged at one offset, stored at another: {wrong[:3]}"
            total += w.next[p]
    assert total > cycles * 200
    restarts.sort()
    if broker.target() == "corelane":
        taken_over = b.taken_over()
        figure(f"{acknowledge}: cycles of {cycles} in which the arena was needed", f"{len(taken_over)}, {sum(taken_over)} batches")
        # Without it the test would show nothing about the arena.
        assert len(taken_over) >= cycles * (9 if acknowledge == "held" else 0) // 10
        assert acknowledge == "held" or not taken_over
    figure(f"kill -9 to serving, {cycles} cycles, {total} records", f"median {restarts[cycles // 2]:.3f} s, worst {restarts[-1]:.3f} s")
    b.stop()
    b.start(topics=["crash"])
    after = SequenceReader(b, "crash")
    after.catch_up(timeout=1800)
    assert after.seen == whole.seen, "a clean stop and start changed the log"


@pytest.mark.alone
@pytest.mark.timeout(900)
def test_restart_with_a_gigabyte(make_broker, length, figure):
    """The time to serve again after kill -9 does not grow with the log; every byte is still there."""
    b = make_broker()
    first = b.start()
    load.create_topic(b, "gigabyte", 8)
    bulk = load.Bulk()
    took = bulk.load(b, "gigabyte", 8, 1 << 30)
    b.kill()
    crashed = b.start(topics=["gigabyte"])
    with wire.Conn(b) as conn:
        for p, n in bulk.sent.items():
            assert wire.offset(conn, "gigabyte", p, -1) == n * bulk.records
    assert bulk.check(b, "gigabyte", 8) >= 1 << 29
    stopped = b.stop()
    clean = b.start(topics=["gigabyte"])
    assert bulk.check(b, "gigabyte", 8) >= 1 << 29
    figure("1 GiB written at", f"{1024 / took:.0f} MiB/s")
    figure("start to serving", f"empty {first:.3f} s, 1 GiB after kill -9 {crashed:.3f} s, after a clean stop {clean:.3f} s")
    figure("clean stop with 1 GiB", f"{stopped:.3f} s")


def scanned_bytes(b, starts):
    """Read by the last of so many starts. The line comes a moment after the listeners open."""
    until = clock.running() + 60
    while len(lines := re.findall(r"(\d+) bytes scanned", b.log_text())) < starts:
        assert clock.running() < until, lines
        time.sleep(0.01)
    return int(lines[-1])


def test_a_log_that_is_always_synced_has_checkpoints_too(make_broker, corelane_only):
    """A sync spares a start nothing: it reads from the last checkpoint on."""
    bound, batch = 4 << 20, wire.batch([bytes(100_000)] * 5)
    b = make_broker({"corelane.checkpoint.bytes": bound, "corelane.shards": 1, **NO_CHECKPOINTS_BY_AGE})
    b.start()
    load.create_topic(b, "synced", 1, flush_messages=1)
    with wire.Conn(b) as conn:
        for _ in range(60):
            assert wire.produce(conn, "synced", 0, batch)[0] == 0
            time.sleep(0.02)
    b.kill()
    b.start(topics=["synced"])
    assert scanned_bytes(b, 2) < 3 * bound, "of 30 MB"


def test_kills_in_a_row_read_no_more_each_time(make_broker, corelane_only):
    """A start that had to read much stores a checkpoint, although little has been written since."""
    bound, life = 8 << 20, 5
    b = make_broker({"corelane.checkpoint.bytes": bound, "corelane.shards": 1})
    b.start()
    load.create_topic(b, "row", 1)
    for kill in range(6):
        with wire.Conn(b) as conn:
            for _ in range(life):
                assert wire.produce(conn, "row", 0, wire.batch([bytes(100_000)] * 10))[0] == 0
        b.kill()
        begun = time.time()
        b.start(topics=["row"])
        scanned = scanned_bytes(b, kill + 2)
        assert scanned < bound + life * 1_100_000, f"kill {kill}: {scanned} bytes scanned"
        checkpoint, until = b.partition_dir("row") / "checkpoint", clock.running() + 60
        while scanned >= bound and not (checkpoint.exists() and checkpoint.stat().st_mtime > begun):
            assert clock.running() < until, f"kill {kill}: {scanned} bytes scanned, and no checkpoint"
            time.sleep(0.05)


def test_logs_with_much_to_read_have_checkpoints_before_those_with_little(make_broker, corelane_only):
    """4 MiB came since the last checkpoints: the partition with a 64th of them has its next one, those with less wait."""
    b = make_broker({"corelane.checkpoint.bytes": 4 << 20, "corelane.shards": 1, **NO_CHECKPOINTS_BY_AGE})
    b.start()
    load.create_topic(b, "little", 200)
    load.create_topic(b, "much", 1)
    with wire.Conn(b) as conn:
        for p in range(200):
            assert wire.produce(conn, "little", p, wire.batch([bytes(30_000)]))[0] == 0
        assert wire.produce(conn, "much", 0, wire.batch([bytes(100_000)]))[0] == 0
    until = clock.running() + 60
    while not (b.partition_dir("much") / "checkpoint").exists():
        assert clock.running() < until, "no checkpoint"
        time.sleep(0.1)
    assert not [p for p in range(200) if (b.partition_dir("little", p) / "checkpoint").exists()]
    b.kill()
    b.start(topics=["little", "much"])
    with wire.Conn(b) as conn:
        assert all(wire.offset(conn, "little", p, -1) == 1 for p in range(200)) and wire.offset(conn, "much", 0, -1) == 1


def test_kill_while_topics_come_and_go(make_broker):
    """Topics acknowledged as made or deleted stay so through kill -9, with their ids."""
    b = make_broker()
    b.start()
    there, gone = {}, set()
    for cycle in range(4):
        with wire.Conn(b, timeout=30) as conn:
            for n in range(5):
                name = f"made-{cycle}-{n}"
                assert wire.create_topics(conn, {name: (3, {"retention.ms": 1000000 + n})}) == {name: 0}
                load.wait_for_leaders(b, name, 3)
                there[name] = wire.metadata(conn, [name])["topics"][name]["id"]
        admin = ck.admin.AdminClient({"bootstrap.servers": b.bootstrap})
        name = f"made-{cycle}-0"
        admin.delete_topics([name])[name].result(30)
        gone.add(name)
        del there[name]
        b.kill()
        b.start(topics=list(there))
        with wire.Conn(b) as conn:
            seen = {n: t["id"] for n, t in wire.metadata(conn)["topics"].items()}
        assert seen == there, f"cycle {cycle}"
        assert not gone & set(seen)
    for name in there:
        load.produce_lines(b, name, 30, 3)
        load.check_lines(b, name, 30, 3)
