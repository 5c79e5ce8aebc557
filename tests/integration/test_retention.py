"""Retention by bytes and by time, under load: the log shrinks to its limit, its start moves, readers are told."""

import os
import threading
import time

import confluent_kafka as ck
import pytest

from support import clock, java, load, proc, wire

MIB = 1 << 20
OPTIONS = {"log.retention.check.interval.ms": 300}
TOPIC = {"segment_bytes": MIB, "file_delete_delay_ms": 500}


class Writer(threading.Thread):
    """Appends batches of 32 KiB to partition 0 at a steady pace until ended."""

    def __init__(self, broker, topic, mib_per_second):
        super().__init__(daemon=True)
        self.broker, self.topic, self.pace = broker, topic, 32 / 1024 / mib_per_second
        self.ended, self.error, self.records = threading.Event(), None, 0

    def run(self):
        values = [os.urandom(1000) for _ in range(32)]
        try:
            with wire.Conn(self.broker, timeout=30) as conn:
                while not self.ended.wait(self.pace):
                    error, base = wire.produce(conn, self.topic, 0, wire.batch(values))
                    assert (error, base) == (0, self.records), f"produce answered {error}, {base}, due {self.records}"
                    self.records += len(values)
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.error = e

    def finish(self):
        self.ended.set()
        self.join(30)
        assert self.error is None, f"the writer failed: {self.error!r}"


class TailReader(threading.Thread):
    """Follows the log with long polls and finds every batch, whatever is deleted behind it."""

    def __init__(self, broker, topic):
        super().__init__(daemon=True)
        self.broker, self.topic = broker, topic
        self.ended, self.error, self.at = threading.Event(), None, 0

    def run(self):
        try:
            with wire.Conn(self.broker, timeout=30) as conn:
                while not self.ended.is_set():
                    part = wire.fetch(conn, self.topic, 0, self.at, max_wait=200)
                    assert part["error"] == 0, f"error {part['error']} at offset {self.at}"
                    for b in wire.batches(part["data"]):
                        assert b.base == self.at and b.crc_ok(), f"batch at {b.base}, due {self.at}"
                        self.at = b.last + 1
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.error = e

    def finish(self, end):
        until = time.monotonic() + 20
        while self.at < end and time.monotonic() < until and self.error is None:
            time.sleep(0.05)
        self.ended.set()
        self.join(30)
        assert self.error is None, f"the reader at the tail failed: {self.error!r}"
        assert self.at == end, f"the reader at the tail is at {self.at} of {end}"


def until(what, true, seconds=30):
    end = clock.running() + seconds
    while not true():
        assert clock.running() < end, f"not within {seconds} s: {what}"
        time.sleep(0.1)


def start_offset(broker, topic):
    with wire.Conn(broker) as conn:
        return wire.offset(conn, topic, 0, -2)


def check_start_everywhere(broker, topic, start):
    """One log start offset, whoever asks and however."""
    c = load.consumer(broker)
    assert c.get_watermark_offsets(ck.TopicPartition(topic, 0), 10)[0] == start
    c.close()
    out = java.run(java.OFFSETS, "--bootstrap-server", broker.bootstrap, "--topic", topic, "--time", -2).out
    assert f"{topic}:0:{start}" in out.split()
    with wire.Conn(broker) as conn:
        part = wire.fetch(conn, topic, 0, start)
        assert part["error"] == 0 and part["start"] == start
        assert wire.batches(part["data"])[0].base <= start
        for gone in (0, start - 1):
            assert wire.fetch(conn, topic, 0, gone)["error"] == wire.ERR["OFFSET_OUT_OF_RANGE"], f"offset {gone}"


def check_reset(broker, topic, start):
    """A consumer that stood before the start is moved to it by `auto.offset.reset`."""
    c = load.consumer(broker, auto_offset_reset="earliest")
    c.assign([ck.TopicPartition(topic, 0, 0)])
    first = None
    for _ in range(20):
        m = c.poll(1)
        if m is not None and not m.error():
            first = m.offset()
            break
    c.close()
    assert first == start


def size(broker, topic):
    return proc.disk_bytes(broker.partition_dir(topic))


def test_by_bytes_while_written_and_read(make_broker, length, figure):
    limit, total = 4 * MIB, length.pick(24, 200) * MIB
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "bytes", 1, retention_bytes=limit, **TOPIC)
    writer, reader = Writer(b, "bytes", 8), TailReader(b, "bytes")
    writer.start(), reader.start()
    starts, largest = [0], 0
    while writer.records * 1024 < total and writer.error is None and reader.error is None:
        time.sleep(0.3)
        largest = max(largest, size(b, "bytes"))
        starts.append(start_offset(b, "bytes"))
    writer.finish()
    reader.finish(writer.records)
    assert starts == sorted(starts), "the log start offset went back"
    assert len(set(starts)) > 3, f"the log start offset did not move along with the writes: {sorted(set(starts))}"
    # What stays: the limit, the segment that straddles it, the one written to, and its indexes.
    until("the log shrinks to its limit", lambda: size(b, "bytes") <= limit + 2 * MIB + 256 * 1024)
    time.sleep(1)
    start = start_offset(b, "bytes")
    kept = (writer.records - start) * 1024
    assert limit - 2 * MIB <= kept <= limit + 2 * MIB, f"{kept} bytes kept of a limit of {limit}"
    check_start_everywhere(b, "bytes", start)
    check_reset(b, "bytes", start)
    written, left = writer.records // 1024, size(b, "bytes") / MIB
    figure("retention.bytes 4 MiB", f"{written} MiB written, at most {largest / MIB:.1f} MiB on disk, {left:.1f} at the end")
    b.kill()
    b.start(topics=["bytes"])
    again = start_offset(b, "bytes")
    assert again >= start, f"the log start offset fell back from {start} to {again} over a restart"
    with wire.Conn(b) as conn:
        assert wire.offset(conn, "bytes", 0, -1) == writer.records


def test_by_time_while_written_and_read(make_broker, figure):
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "time", 1, retention_ms=2000, **TOPIC)
    writer, reader = Writer(b, "time", 4), TailReader(b, "time")
    writer.start(), reader.start()
    time.sleep(7)
    moving = start_offset(b, "time")
    writer.finish()
    reader.finish(writer.records)
    assert moving > 0, "nothing was deleted while the writer went on"
    # Two seconds at 4 MiB/s and the segments that straddle; without retention it would be 28 MiB.
    assert (writer.records - moving) * 1024 < 20 * MIB
    check_time = lambda: size(b, "time") <= 2 * MIB + 256 * 1024  # noqa: E731
    until("everything but the last segment goes once it is old", check_time)
    start = start_offset(b, "time")
    figure("retention.ms 2000", f"{writer.records - start} of {writer.records} records left after the writes ended")
    with wire.Conn(b) as conn:
        assert wire.fetch(conn, "time", 0, 0)["error"] == wire.ERR["OFFSET_OUT_OF_RANGE"]
        assert wire.offset(conn, "time", 0, -1) == writer.records
        error, base = wire.produce(conn, "time", 0, wire.batch([b"goes on"]))
        assert (error, base) == (0, writer.records)


def test_broker_wide_limit(make_broker):
    """`log.retention.bytes` holds for topics that say nothing of their own; a topic's own value wins."""
    b = make_broker({**OPTIONS, "log.retention.bytes": 2 * MIB, "log.segment.bytes": MIB, "log.segment.delete.delay.ms": 500})
    b.start()
    load.create_topic(b, "short", 1)
    load.create_topic(b, "long", 1, retention_bytes=-1)
    bulk = load.Bulk(records=32)
    for name in ("short", "long"):
        bulk.sent.clear()
        bulk.load(b, name, 1, 10 * MIB)
    until("the topic without a limit of its own shrinks", lambda: size(b, "short") <= 4 * MIB + 256 * 1024)
    assert start_offset(b, "short") > 0
    assert start_offset(b, "long") == 0
    assert size(b, "long") >= 9 * MIB


@pytest.mark.parametrize("stop", ["clean", "kill"])
def test_deleted_segments_stay_deleted(make_broker, stop):
    """What was about to be removed when the broker ended does not come back as data."""
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "gone", 1, retention_bytes=2 * MIB, segment_bytes=MIB)
    bulk = load.Bulk(records=32)
    bulk.load(b, "gone", 1, 10 * MIB)
    until("segments go", lambda: start_offset(b, "gone") > 0)
    time.sleep(1)
    start = start_offset(b, "gone")
    b.stop() if stop == "clean" else b.kill()
    b.start(topics=["gone"])
    assert start_offset(b, "gone") >= start
    until("nothing is left over on disk", lambda: not list(b.partition_dir("gone").glob("*.deleted")), 90)
