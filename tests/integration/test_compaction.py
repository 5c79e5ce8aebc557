"""Compaction: the log shrinks to the newest record of each key, and whoever reads it from the start finds every one, always."""

import contextlib
import random
import re
import threading
import time

import confluent_kafka as ck
import pytest

from support import clock, java, load, proc, wire

MIB = 1 << 20
# Cleaning is looked for all the time.
OPTIONS = {"log.cleaner.backoff.ms": 50}
TOPIC = {"cleanup_policy": "compact", "segment_bytes": MIB, "min_cleanable_dirty_ratio": "0.01", "file_delete_delay_ms": 100}
PAD = bytes(range(97, 97 + 24)) * 2


def key(k):
    return b"key-%07d" % k


def value(i):
    """Update `i`: its number, and bytes whose length it decides."""
    return b"%010d " % i + PAD[: i % len(PAD)]


class Seen:
    """What one reader from the start to the end found."""

    def __init__(self):
        self.last, self.records, self.offset = {}, 0, -1

    def take(self, message):
        assert message.offset() > self.offset, f"offset {message.offset()} after {self.offset}"
        self.offset = message.offset()
        self.records += 1
        text = message.value()
        if text is None:
            self.last[message.key()] = None
            return
        update = int(text[:10])
        assert text == value(update), f"the value at offset {message.offset()} is spoilt: {text!r}"
        self.last[message.key()] = update


def end_offset(broker, topic):
    with wire.Conn(broker) as conn:
        return wire.offset(conn, topic, 0, -1)


def read_all(broker, topic, timeout=120):
    """Reads partition 0 from its start to at least its end as of now."""
    seen, upto = Seen(), end_offset(broker, topic)
    c = load.consumer(broker)
    c.assign([ck.TopicPartition(topic, 0, 0)])
    end = clock.running() + timeout
    try:
        while True:
            assert clock.running() < end, f"not at the end within {timeout} s, at {seen.offset}"
            for message in c.consume(10_000, 0.5):
                if message.error() is None:
                    seen.take(message)
                elif message.error().code() == ck.KafkaError._PARTITION_EOF:
                    return seen
                else:
                    assert message.error().retriable(), message.error()
            if seen.offset + 1 >= upto:
                return seen
    finally:
        c.close()


def until(what, true, seconds=60):
    end = clock.running() + seconds
    while not true():
        assert clock.running() < end, f"not within {seconds} s: {what}"
        time.sleep(0.2)


def segments(broker, topic):
    return sorted(broker.partition_dir(topic).glob("*.log"))


def fill(broker, topic, records, size=1000):
    """Records of a few other keys, so that what was written before is in segments that are closed."""
    p = load.producer(broker)
    reports = load.Deliveries()
    for n in range(records):
        p.produce(topic, value(n), key=b"filler-%d" % (n % 3), partition=0, headers=[("pad", b"x" * size)], on_delivery=reports)
        p.poll(0)
    assert p.flush(60) == 0 and not reports.errors, reports.errors[:3]


def dump(*files):
    """Kafka's own tool reads the segments; gaps between offsets are what compaction makes."""
    got = java.run(java.DUMP, "--files", ",".join(map(str, files)), "--deep-iteration", heap="512m")
    complaints = re.sub(r"Non-consecutive offsets in .*\n(  -?\d+ is followed by \d+\n?)+", "", got.log)
    bad = [s for s in complaints.splitlines() if s.strip() and not s.startswith(("SLF4J", "[main] INFO"))]
    bad += [s for s in got.out.splitlines() if re.search(r"isvalid: false|invalid bytes at the end", s)]
    assert not bad, f"{len(bad)} complaints, first:\n" + "\n".join(bad[:10])
    return got.out


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_kept(make_broker, codec):
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "codec", 1, **TOPIC)
    p, reports = load.producer(b, compression_type=codec, linger_ms=50), load.Deliveries()
    newest = {}
    for i in range(40_000):
        p.produce("codec", value(i), key=key(i * 7919 % 500), partition=0, headers=[("h", b"%d" % i)], on_delivery=reports)
        newest[key(i * 7919 % 500)] = i
        p.poll(0)
    assert p.flush(60) == 0 and not reports.errors, reports.errors[:3]
    fill(b, "codec", 3_000)
    until("the updates are gone", lambda: read_all(b, "codec").records < 8_000)
    last = read_all(b, "codec").last
    assert {k: v for k, v in last.items() if k.startswith(b"key")} == newest
    b.stop()
    out = dump(*segments(b, "codec"))
    batches = re.findall(r"^baseOffset: .* count: [1-9]\d* .* compresscodec: (\w+)", out, re.M)
    assert codec in batches and set(batches) <= {codec, "none"}, set(batches)


def test_shrinks_to_the_live_set(make_broker, length, figure):
    updates, keys = length.pick(600_000, 10_000_000), length.pick(20_000, 100_000)
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "shrink", 1, **{**TOPIC, "segment_bytes": 8 * MIB, "min_cleanable_dirty_ratio": "0.2"})
    pick, newest, reports = random.Random(5), [-1] * keys, load.Deliveries()
    p = load.producer(b, enable_idempotence=True, batch_size=65536, linger_ms=20)
    peak, since, cpu = proc.PeakRss(b.pid), time.monotonic(), b.cpu()
    with peak:
        for i in range(updates):
            k = pick.randrange(keys)
            newest[k] = i
            while True:
                try:
                    p.produce("shrink", value(i), key=key(k), partition=0, on_delivery=reports)
                    break
                except BufferError:
                    p.poll(0.05)
            if i % 1000 == 0:
                p.poll(0)
        assert p.flush(120) == 0 and not reports.errors, reports.errors[:3]
        took = time.monotonic() - since
        fill(b, "shrink", 20_000)
        live = sum(len(key(0)) + len(value(i)) + 12 for i in newest if i >= 0)
        # Of the filler, what is in the segments at the end may still be there.
        size = lambda: proc.disk_bytes(b.partition_dir("shrink"))  # noqa: E731
        until("the updates are gone", lambda: read_all(b, "shrink").records <= keys + 20_000, 300)
        bound = live * 1.2 + 21 * MIB + 2 * 8 * MIB
        until(f"the log is smaller than {bound / MIB:.0f} MiB", lambda: size() < bound)
        figure("CPU of the broker, s", f"{b.cpu() - cpu:.1f} for {updates} updates in {took:.0f} s")
    figure("peak resident memory, MiB", peak.peak // MIB)
    seen = read_all(b, "shrink")
    last = {k: v for k, v in seen.last.items() if k.startswith(b"key")}
    assert last == {key(k): i for k, i in enumerate(newest) if i >= 0}
    figure("records", f"{updates} updates of {keys} keys, {seen.records} read from the start, {size() / MIB:.1f} MiB on disk")
    assert end_offset(b, "shrink") == updates + 20_000
    b.stop()
    dump(*segments(b, "shrink"))
    b.start(topics=["shrink"])
    assert {k: v for k, v in read_all(b, "shrink").last.items() if k.startswith(b"key")} == last
    assert end_offset(b, "shrink") == updates + 20_000


class Updater(threading.Thread):
    """Writes update after update through every restart and notes the newest acknowledged one of each key."""

    def __init__(self, broker, topic, keys):
        super().__init__(daemon=True)
        self.topic, self.keys, self.random = topic, keys, random.Random(11)
        self.sent, self.acked, self.errors, self.ended = {}, {}, [], threading.Event()
        self.producer = load.producer(
            broker, enable_idempotence=True, message_timeout_ms=300_000, reconnect_backoff_ms=10, reconnect_backoff_max_ms=100,
            retry_backoff_ms=20, socket_timeout_ms=5000, linger_ms=2,
        )  # fmt: skip

    def delivered(self, error, message):
        if error is not None:
            self.errors.append(str(error))
            return
        update = int(message.value()[:10])
        self.acked[message.key()] = max(update, self.acked.get(message.key(), -1))

    def run(self):
        i = 0
        while not self.ended.is_set():
            k = key(self.random.randrange(self.keys))
            try:
                self.producer.produce(self.topic, value(i), key=k, partition=0, headers=[("pad", b"x" * 300)], on_delivery=self.delivered)
                self.sent[k] = i
                i += 1
            except BufferError:
                self.producer.poll(0.01)
            self.producer.poll(0)
            if i % 20 == 0:
                time.sleep(0.001)

    def finish(self):
        self.ended.set()
        self.join(30)
        assert self.producer.flush(120) == 0 and not self.errors, self.errors[:3]


def test_the_last_values_are_there_at_any_moment_also_after_kill(make_broker, length, figure):
    b = make_broker({**OPTIONS, "log.cleaner.backoff.ms": 1})
    b.start()
    load.create_topic(b, "kills", 1, **TOPIC)
    updater = Updater(b, "kills", 2_000)
    updater.start()
    met, reads, pause = 0, 0, random.Random(3)
    for _ in range(length.pick(8, 40)):
        until_then = time.monotonic() + 1 + pause.random() * 1.5
        while time.monotonic() < until_then:
            check_acked(b, updater)
            reads += 1
        b.kill()
        met += any(re.search(r"\.(cleaned|swap|deleted)$", p.name) for p in b.partition_dir("kills").iterdir())
        before = files_of(b, "kills")
        b.start(topics=["kills"])
        check_acked(b, updater)
        # The cleaner is at work again, with files of its own.
        left = [before[file] for file, name in files_of(b, "kills").items() if name.endswith(".swap") and file in before]
        assert not left, left
    updater.finish()
    assert read_all(b, "kills").last == updater.sent
    fill(b, "kills", 5_000)
    until("the log is cleaned", lambda: read_all(b, "kills").records < 2_000 + 20_000)
    last = {k: v for k, v in read_all(b, "kills").last.items() if k.startswith(b"key")}
    assert last == updater.sent
    figure("kills", f"{met} met a cleaning at work; {reads} readers from the start meanwhile; {end_offset(b, 'kills')} records written")
    b.stop()
    dump(*segments(b, "kills"))


def files_of(broker, topic):
    """The names by the files, which a new name leaves the same."""
    found = {}
    for path in broker.partition_dir(topic).iterdir():
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found[(status.st_ino, status.st_mtime_ns)] = path.name
    return found


def check_acked(broker, updater):
    """Of every key the newest update acknowledged before the read, or one sent later."""
    acked = dict(updater.acked)
    last = read_all(broker, "kills").last
    lost = [(k, i, last.get(k)) for k, i in acked.items() if last.get(k, -1) < i]
    assert not lost, f"{len(lost)} keys, first (key, acknowledged, found): {lost[:5]}"


def test_tombstones_go_after_their_time(make_broker):
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "tombs", 1, delete_retention_ms=3000, **TOPIC)
    p = load.producer(b, linger_ms=20)
    for i in range(2_000):
        p.produce("tombs", value(i), key=key(i % 200), partition=0)
    for k in range(100):
        p.produce("tombs", None, key=key(k), partition=0)
    assert p.flush(30) == 0
    began = time.monotonic()
    kept = {key(k): 1_800 + k for k in range(100, 200)}
    mine = lambda: {k: v for k, v in read_all(b, "tombs").last.items() if k.startswith(b"key")}  # noqa: E731
    assert mine() == {**kept, **{key(k): None for k in range(100)}}
    # Tombstones outlast the values by delete.retention.ms from the cleaning that took those.
    fill(b, "tombs", 1_500)
    until("the values are gone", lambda: read_all(b, "tombs").records < 1_900)
    if time.monotonic() - began < 3:
        assert mine() == {**kept, **{key(k): None for k in range(100)}}

    def gone():
        fill(b, "tombs", 1_500)
        return mine() == kept

    until("the tombstones are gone", gone, 60)
    assert time.monotonic() - began >= 3, "before their time"


def test_records_without_a_key_are_refused(make_broker):
    b = make_broker({**OPTIONS, "log.cleaner.enable": "true"})
    b.start()
    load.create_topic(b, "keys", 1, **TOPIC)
    load.create_topic(b, "both", 1, **{**TOPIC, "cleanup_policy": "compact,delete"})
    load.create_topic(b, "plain", 1)
    with wire.Conn(b) as conn:
        for topic in ("keys", "both"):
            error, base = wire.produce(conn, topic, 0, wire.batch([b"a", b"b"]))
            assert (error, base) == (87, -1), f"{topic}: {error}"
            assert wire.offset(conn, topic, 0, -1) == 0
        assert wire.produce(conn, "plain", 0, wire.batch([b"a", b"b"])) == (0, 0)
    for codec in ("none", "lz4", "zstd"):
        p, reports = load.producer(b, compression_type=codec, linger_ms=100), load.Deliveries()
        for n in range(20):
            p.produce("keys", b"v" * 100, key=None if n == 13 else b"k", partition=0, on_delivery=reports)
        assert p.flush(30) == 0
        assert reports.errors, f"{codec}: a batch with one keyless record was accepted"
        p.produce("keys", b"v", key=b"", partition=0)
        assert p.flush(30) == 0


def test_compact_and_delete(make_broker):
    """Both policies: values are compacted, and what is too old goes whatever its key."""
    b = make_broker({**OPTIONS, "log.retention.check.interval.ms": 300})
    b.start()
    load.create_topic(b, "both", 1, **{**TOPIC, "cleanup_policy": "compact,delete"}, retention_ms=4000)
    p = load.producer(b, linger_ms=20)
    for i in range(5_000):
        p.produce("both", value(i), key=key(i % 100), partition=0)
    assert p.flush(30) == 0
    fill(b, "both", 2_000)
    until("the log is compacted", lambda: read_all(b, "both").records < 5_000 + 1_000)
    with wire.Conn(b) as conn:
        until("everything old is deleted", lambda: wire.offset(conn, "both", 0, -2) == 7_000, 60)
        assert wire.offset(conn, "both", 0, -1) == 7_000


def test_max_compaction_lag_closes_the_active_segment(make_broker):
    """The only segment is not full by far, and is cleaned all the same."""
    b = make_broker(OPTIONS)
    b.start()
    load.create_topic(b, "lag", 1, **{**TOPIC, "min_cleanable_dirty_ratio": "1"}, max_compaction_lag_ms=2000)
    p = load.producer(b, linger_ms=20)

    def write(first):
        for i in range(first, first + 1_000):
            p.produce("lag", value(i), key=key(i % 10), partition=0)
        assert p.flush(30) == 0

    write(0)
    time.sleep(3)
    # Kafka rolls with the next append only.
    write(1_000)
    until("the first thousand is cleaned", lambda: read_all(b, "lag").records <= 1_010, 60)
    assert read_all(b, "lag").last == {key(k): 1_990 + k for k in range(10)}
