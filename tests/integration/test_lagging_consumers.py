"""Consumers that are behind the arena and are served from memory (corelane.cache.bytes)."""

import os
from pathlib import Path

import pytest

from support import load, metrics, proc, wire
from support.groups import wait_until

MIB = 1 << 20


class Reader:
    """Reads one partition on and on, and compares each batch with what was sent."""

    def __init__(self, b, bulk):
        self.conn, self.bulk, self.batches = wire.Conn(b, timeout=60), bulk, 0

    def read(self, count):
        end = min(self.batches + count, self.bulk.sent[0])
        while self.batches < end:
            got = wire.fetch(self.conn, "t", 0, self.batches * self.bulk.records, part_bytes=2 * self.bulk.size)
            assert got["error"] == 0, got["error"]
            found = wire.batches(got["data"])
            assert found, f"an empty fetch at batch {self.batches}"
            for each in found:
                due = self.bulk.kinds[self.batches % len(self.bulk.kinds)]
                assert each.base == self.batches * self.bulk.records and each.data[21:] == due[21:], self.batches
                self.batches += 1


def known_reader(b):
    """One that has read on from where it was, which is how a consumer is known."""
    bulk = load.Bulk()
    reader = Reader(b, bulk)
    bulk.load(b, "t", 1, 8 * bulk.size)
    reader.read(1)
    reader.read(1)
    return bulk, reader


def read_from_device(b):
    return int(next(line.split()[1] for line in Path(f"/proc/{b.pid}/io").read_text().splitlines() if line.startswith("read_bytes")))


def used(b):
    return metrics.samples(b).sum("corelane_memory_used_bytes", memory="cache")


@pytest.mark.parametrize("cache", [256 * MIB, 0])
def test_a_consumer_that_lags_costs_no_reads_of_the_device(corelane_only, make_broker, figure, cache):
    b = metrics.serve(make_broker({"corelane.arena.bytes": 8 * MIB, "corelane.cache.bytes": cache, "corelane.shards": 1}))
    b.start()
    load.create_topic(b, "t", 1, segment_bytes=16 * MIB)
    bulk, reader = known_reader(b)
    before = read_from_device(b)
    # Behind by six times the arena; then by less and less.
    most = 0
    for step in range(30):
        bulk.load(b, "t", 1, 8 * bulk.size)
        most = max(most, used(b))
        if step > 20:
            reader.read(24)
    reader.read(1 << 30)
    assert reader.batches == bulk.sent[0] == 248
    found = read_from_device(b) - before
    figure("read from the device", f"{found / MIB:.1f} of {248 * bulk.size / MIB:.0f} MiB")
    if cache:
        assert found < MIB and 16 * MIB < most < 64 * MIB
        wait_until(lambda: used(b) == 0)
    else:
        assert found > 32 * MIB and most == 0


def test_memory_runs_short(corelane_only, make_broker, request):
    """In a control group of 256 MiB a consumer lags by more than that: it gets what is right, and the broker lives."""
    cap = proc.MemoryCap.make(f"corelane-lag-{os.getpid()}", 256 * MIB)
    if cap is None:
        pytest.skip("no control group with a limit of memory can be made here")
    b = metrics.serve(make_broker({"corelane.arena.bytes": 8 * MIB, "corelane.cache.bytes": 4096 * MIB, "corelane.shards": 1}, cap=cap))
    request.addfinalizer(cap.remove)
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "t", 1, segment_bytes=64 * MIB)
    bulk, reader = known_reader(b)
    most = 0
    for _ in range(50):
        bulk.load(b, "t", 1, 32 * bulk.size)
        reader.read(1)
        most = max(most, used(b))
    assert 32 * MIB < most < 200 * MIB, most
    reader.read(1 << 30)
    assert reader.batches == bulk.sent[0] and b.alive()
