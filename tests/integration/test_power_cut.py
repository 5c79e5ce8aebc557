"""Power cuts under load, on ext4 and XFS: with a flush before each acknowledgement nothing acknowledged is lost; without,
at most a suffix of about a second is, and the epoch of what follows tells it apart.

A cut is the file system's own shutdown without a flush of its journal. The broker is stopped (SIGSTOP) before: XFS's
fdatasync answers 0 for some milliseconds after its shutdown began, which no power cut does."""

import os
import random
import shutil
import signal
import struct
import time

import pytest

from support import clock, disks, load
from support.sequences import PARTITIONS, SequenceReader, SequenceWriter, acknowledged


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, root):
    try:
        disk = disks.Disk(root, request.param)
    except disks.Unavailable as e:
        pytest.skip(str(e))
    yield disk
    disk.remove()


def cut(broker, disk):
    os.kill(broker.pid, signal.SIGSTOP)
    disk.cut_power()
    broker.kill()
    disk.unmount()
    disk.mount()


@pytest.mark.timeout(3600)
def test_flushed_records_survive_power_cuts(make_broker, corelane_only, disk, length, figure, request):
    cuts = length.pick(3, 50)
    dice = random.Random(30)
    # Small segments, so that cuts also meet rolls and what follows them.
    b = make_broker(
        {"log.flush.interval.messages": 1, "log.segment.bytes": 4 << 20, "log.retention.bytes": -1}, data_dir=disk.point / "data"
    )
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "cut", PARTITIONS)
    writers = [SequenceWriter(b, "cut", range(n, PARTITIONS, 2), 1500) for n in (0, 1)]
    for w in writers:
        w.start()
    reader, before, total = SequenceReader(b, "cut"), 0, 0
    for n in range(cuts):
        time.sleep(dice.uniform(0.1, 1.0))
        until = clock.running() + 120
        while (total := sum(len(w.acked[p]) for w in writers for p in w.partitions)) < before + 200:
            assert clock.running() < until, f"cut {n}: the load does not go on"
            time.sleep(0.05)
        before = total
        cut(b, disk)
        acked = acknowledged(writers)
        b.start(topics=["cut"])
        reader.catch_up()
        for p, seqs in acked.items():
            last = max(seqs, default=-1)
            assert reader.seen[p] > last, f"cut {n} partition {p}: {last} was acknowledged, the log ends at {reader.seen[p]}"
    for w in writers:
        w.finish()
    whole = SequenceReader(b, "cut")
    whole.catch_up()
    assert whole.seen == [w.next[p] for p in range(PARTITIONS) for w in writers if p in w.partitions]
    figure(f"power cuts with flush, {request.node.callspec.params['disk']}", f"{cuts} cuts, {sum(whole.seen)} records, none lost")
    b.stop()


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("level", ["written", "held"])
def test_unflushed_records_are_lost_from_the_end_only(make_broker, corelane_only, disk, level, length, figure, request):
    cuts = length.pick(2, 50)
    dice = random.Random(31)
    b = make_broker({"log.segment.bytes": 4 << 20, "corelane.acknowledge": level}, data_dir=disk.point / "data")
    request.addfinalizer(b.kill)
    lost, oldest = 0, 0.0
    for n in range(cuts):
        b.start()
        topic = load.create_topic(b, f"suffix-{n}", 1)
        producer = load.producer(b, enable_idempotence=False, acks="all", linger_ms=1, retries=0, message_timeout_ms=5000)
        acked, sent = {}, 0

        def delivered(error, message, acked=acked):
            if error is None:
                acked[struct.unpack(">q", message.value()[:8])[0]] = time.monotonic()

        # The longest go beyond what a file system keeps back by itself (ext4: 5 s).
        until = time.monotonic() + (6.5 if n == 0 else dice.uniform(0.3, 2.0))
        while time.monotonic() < until or len(acked) < 100:
            producer.produce(topic, struct.pack(">q", sent) + bytes(500), partition=0, on_delivery=delivered)
            sent += 1
            producer.poll(0.001)
        at = time.monotonic()
        cut(b, disk)
        # What it has not sent yet would follow what is left, on the next broker.
        producer.purge()
        # Another boot would not take it over.
        shutil.rmtree(disk.point / "data" / "corelane-arena", ignore_errors=True)
        b.start()
        there = []
        # The topic itself was flushed when it was made.
        load.read_partitions(b, topic, 1, lambda p, offset, value: there.append((offset, struct.unpack(">q", value[:8])[0])), {0: 0})
        assert there == [(i, i) for i in range(len(there))], f"cut {n}: not a prefix"
        gone = [when for seq, when in acked.items() if seq >= len(there)]
        lost += len(gone)
        oldest = max([oldest] + [at - when for when in gone])
        # About a second by itself; a slow disk has some more.
        assert oldest < 4, f"cut {n}: a record acknowledged {oldest:.1f} s before the cut is lost"
        b.stop()
    what = f"power cuts without flush, {request.node.callspec.params['disk']}, {level}"
    figure(what, f"{cuts} cuts, {lost} acknowledged records lost, the oldest acknowledged {oldest:.2f} s before its cut")
