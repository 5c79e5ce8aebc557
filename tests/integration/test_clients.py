"""Stock clients: what goes in through kcat, confluent-kafka and kafka-python comes out byte-equal and in order."""

import subprocess
import time

import confluent_kafka as ck
import pytest
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from support import load, wire

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}


def kcat(broker, *args, stdin=None, stdout=None, timeout=300):
    command = ["kcat", "-b", broker.bootstrap, *map(str, args)]
    done = subprocess.run(command, stdin=stdin, stdout=stdout or subprocess.PIPE, stderr=subprocess.PIPE, timeout=timeout)
    assert done.returncode == 0, f"{command}: exit {done.returncode}\n{done.stderr.decode()[-2000:]}"
    return done.stdout.decode() if done.stdout is not None else ""


def stored_codecs(broker, topic, partitions):
    """The codecs of the first batches as they lie in the log, so a client that silently sent plain is found out. A batch of
    a few records counts only if it is compressed: librdkafka sends what compression makes larger as it is."""
    return {
        b.attributes & 7
        for p in range(partitions)
        for b in load.first_batches(broker, topic, p)
        if b.n > 10 or b.attributes & 7
    }


def check_codec(broker, topic, partitions, codec):
    """librdkafka leaves a batch plain that would not get smaller (a single line, say)."""
    found = stored_codecs(broker, topic, partitions)
    assert CODECS[codec] in found and found <= {0, CODECS[codec]}, found


def test_kcat_lists(broker, topic):
    name = topic(3)
    out = kcat(broker, "-L")
    assert all(address in out for address in broker.bootstrap.split(","))
    assert f'topic "{name}" with 3 partitions' in out


@pytest.mark.parametrize("partitions", [1, 8])
@pytest.mark.parametrize("codec", CODECS)
def test_kcat_lines(broker, topic, length, root, codec, partitions):
    count = length.pick(100_000, 1_000_000)
    name = topic(partitions)
    for p in range(partitions):
        sent, got = root / f"{name}-{p}.sent", root / f"{name}-{p}.got"
        with open(sent, "wb") as f:
            f.writelines(load.line(i) + b"\n" for i in range(p, count, partitions))
        with open(sent, "rb") as f:
            kcat(broker, "-P", "-t", name, "-p", p, "-z", codec, stdin=f)
        with open(got, "wb") as f:
            kcat(broker, "-C", "-t", name, "-p", p, "-o", "beginning", "-e", "-q", stdout=f)
        assert subprocess.run(["cmp", sent, got]).returncode == 0, f"partition {p} differs"
        sent.unlink(), got.unlink()
    check_codec(broker, name, partitions, codec)


@pytest.mark.parametrize("partitions", [1, 8])
@pytest.mark.parametrize("codec", CODECS)
def test_confluent_lines(broker, topic, length, codec, partitions):
    count = length.pick(100_000, 1_000_000)
    name = topic(partitions)
    load.produce_lines(broker, name, count, partitions, compression_type=codec)
    load.check_lines(broker, name, count, partitions)
    check_codec(broker, name, partitions, codec)


def test_confluent_million(broker, topic, figure):
    """One million lines in every run, whatever its length."""
    name = topic(8)
    began = time.monotonic()
    load.produce_lines(broker, name, 1_000_000, 8, compression_type="lz4", enable_idempotence=True)
    written = time.monotonic()
    load.check_lines(broker, name, 1_000_000, 8)
    figure("1,000,000 lines from Python", f"written in {written - began:.1f} s, read in {time.monotonic() - written:.1f} s")


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(broker, topic, acks):
    name = topic(2)
    load.produce_lines(broker, name, 20_000, 2, acks=acks)
    end = time.monotonic() + 20
    while acks == 0 and time.monotonic() < end:
        if sum(load.end(broker, name, p) for p in (0, 1)) == 20_000:
            break
        time.sleep(0.1)
    load.check_lines(broker, name, 20_000, 2)


def test_keys_headers_timestamps_and_nulls(broker, topic):
    name = topic(1, retention_ms=-1)
    p = load.producer(broker)
    sent = [
        (b"k1", b"v1", [("h", b"1"), ("h", b"2"), ("empty", b""), ("null", None)], 1_700_000_000_000),
        (None, b"", [], 1_700_000_000_001),
        (b"", None, [("only", b"header")], 1_700_000_000_002),
        ("schlüssel".encode(), bytes(range(256)) * 100, [], 1_700_000_000_003),
    ]
    for key, value, headers, ts in sent:
        p.produce(name, value, key, 0, headers=headers, timestamp=ts)
    assert p.flush(30) == 0
    c = load.consumer(broker)
    c.assign([ck.TopicPartition(name, 0, 0)])
    got = []
    while len(got) < len(sent):
        m = c.poll(10)
        assert m is not None, f"only {len(got)} records came back"
        if not m.error():
            got.append((m.key(), m.value(), m.headers() or [], m.timestamp()[1]))
    c.close()
    assert got == sent


def test_log_append_time(broker, topic):
    name = topic(1, message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    p = load.producer(broker)
    p.produce(name, b"x", partition=0, timestamp=1_000_000)
    assert p.flush(30) == 0
    c = load.consumer(broker)
    c.assign([ck.TopicPartition(name, 0, 0)])
    m = c.poll(20)
    c.close()
    kind, stamp = m.timestamp()
    assert kind == ck.TIMESTAMP_LOG_APPEND_TIME
    assert before - 1000 <= stamp <= int(time.time() * 1000) + 1000


def test_auto_create(broker):
    """A producer that names a new topic gets it, with the broker's default partition count."""
    name = f"auto-{time.time_ns()}"
    load.produce_lines(broker, name, 10, 1)
    load.check_lines(broker, name, 10, 1)


def test_long_poll_wakes_on_append(broker, topic):
    """A fetch that waits up to a minute answers once a record has come, and not before."""
    name = topic(1)
    at = broker.leading(name)
    with wire.Conn(at, timeout=90) as waiting, wire.Conn(at) as writing:
        waiting.send(wire.FETCH, 11, wire.fetch_body({name: {0: 0}}, max_wait=60_000))
        time.sleep(0.5)
        waiting.sock.settimeout(0.01)
        with pytest.raises(TimeoutError):
            waiting.recv()
        waiting.sock.settimeout(90)
        sent = time.monotonic()
        assert wire.produce(writing, name, 0, wire.batch([b"wake"])) == (0, 0)
        _, _, parts = wire.read_fetch(waiting.recv()[1])
        took = time.monotonic() - sent
        assert wire.batches(parts[name, 0]["data"])[0].values() == [b"wake"]
        # Half of the wait tells the two apart on whatever machine.
        assert took < 30, f"{took:.2f} s from produce to the answer of a fetch that waits for 60"


@pytest.mark.parametrize("first,last", [(4, 18)])
def test_every_fetch_version(broker, topic, first, last):
    name = topic(1)
    with wire.Conn(broker) as conn:
        topic_id = wire.metadata(conn, [name])["topics"][name]["id"]
        assert wire.produce(conn, name, 0, wire.batch([b"a", b"b", b"c"])) == (0, 0)
        for version in range(first, last + 1):
            who = topic_id if version >= 13 else name
            part = wire.fetch(conn, who, 0, 1, version=version)
            assert part["error"] == 0 and part["hw"] == 3, f"version {version}: {part}"
            (b,) = wire.batches(part["data"])
            assert b.base == 0 and b.crc_ok() and b.values() == [b"a", b"b", b"c"], f"version {version}"


def test_every_produce_version(broker, topic):
    name = topic(1)
    with wire.Conn(broker) as conn:
        topic_id = wire.metadata(conn, [name])["topics"][name]["id"]
        for n, version in enumerate(range(3, 14)):
            who = topic_id if version >= 13 else name
            assert wire.produce(conn, who, 0, wire.batch([b"v%d" % version]), version) == (0, n), f"version {version}"


def test_fetch_session(broker, topic):
    """A session is made, an incremental fetch brings only what changed, a foreign session is refused."""
    name = topic(2)
    with wire.Conn(broker) as conn:
        full = wire.fetch_body({name: {0: 0, 1: 0}}, max_wait=0, min_bytes=0, session=(0, 0))
        error, session, parts = wire.read_fetch(conn.call(wire.FETCH, 11, full))
        assert error == 0 and session > 0 and len(parts) == 2
        empty = wire.fetch_body({}, max_wait=0, min_bytes=0, session=(session, 1))
        assert wire.read_fetch(conn.call(wire.FETCH, 11, empty)) == (0, session, {})
        assert wire.produce(conn, name, 1, wire.batch([b"x"])) == (0, 0)
        more = wire.fetch_body({}, session=(session, 2))
        error, _, parts = wire.read_fetch(conn.call(wire.FETCH, 11, more))
        assert error == 0 and list(parts) == [(name, 1)] and parts[name, 1]["data"]
        again = wire.fetch_body({}, max_wait=0, session=(session, 9))
        assert wire.read_fetch(conn.call(wire.FETCH, 11, again))[0] == wire.ERR["INVALID_FETCH_SESSION_EPOCH"]
        foreign = wire.fetch_body({}, max_wait=0, session=(session ^ 0x5A5A5A, 1))
        assert wire.read_fetch(conn.call(wire.FETCH, 11, foreign))[0] == wire.ERR["FETCH_SESSION_ID_NOT_FOUND"]


def test_offsets_by_time(broker, topic):
    name = topic(1, retention_ms=-1)
    with wire.Conn(broker) as conn:
        for n in range(10):
            assert wire.produce(conn, name, 0, wire.batch([b"x"], timestamp=1_700_000_000_000 + n * 1000)) == (0, n)
        for version in range(1, 12):
            ask = lambda t: wire.list_offsets(conn, name, [0], t, version)[0]  # noqa: E731, B023
            assert ask(-2)[::2] == (0, 0), f"earliest, version {version}"
            assert ask(-1)[::2] == (0, 10), f"latest, version {version}"
            assert ask(1_700_000_004_500) == (0, 1_700_000_005_000, 5), f"by time, version {version}"
            assert ask(1_800_000_000_000) == (0, -1, -1), f"after the end, version {version}"
            if version >= 7:
                assert ask(-3) == (0, 1_700_000_009_000, 9), f"max timestamp, version {version}"
            # Without tiered storage nothing has got there, and nothing is about to.
            unsupported = wire.ERR["UNSUPPORTED_VERSION"]
            assert ask(-5) == (0 if version >= 9 else unsupported, -1, -1), f"latest tiered, version {version}"
            assert ask(-6) == (0 if version >= 11 else unsupported, -1, -1), f"earliest pending upload, version {version}"
            assert ask(-7) == (unsupported, -1, -1), f"version {version}"


# kafka-python still speaks to brokers of 2017, which had only the classic encodings: None is "as the broker offers".
@pytest.mark.parametrize("api_version", [(0, 11), (1, 1), (2, 3), None], ids=["0.11", "1.1", "2.3", "newest"])
@pytest.mark.parametrize("codec", [None, "gzip", "snappy", "lz4", "zstd"])
def test_kafka_python(broker, topic, api_version, codec):
    if codec == "zstd" and api_version and api_version < (2, 1):
        pytest.skip("zstd came with Kafka 2.1")
    name, count = topic(3), 2_000
    p = KafkaProducer(
        bootstrap_servers=broker.bootstrap, api_version=api_version, compression_type=codec, linger_ms=5,
        acks="all", enable_idempotence=codec is None and api_version is None,
    )  # fmt: skip
    sent = [p.send(name, load.line(i), partition=i % 3) for i in range(count)]
    p.flush(60)
    assert [f.get(30).offset for f in sent] == [i // 3 for i in range(count)]
    p.close()
    c = KafkaConsumer(bootstrap_servers=broker.bootstrap, api_version=api_version, group_id=None, consumer_timeout_ms=20_000)
    parts = [TopicPartition(name, n) for n in range(3)]
    c.assign(parts)
    assert c.end_offsets(parts) == {tp: len(range(tp.partition, count, 3)) for tp in parts}
    c.seek_to_beginning()
    seen = [0, 0, 0]
    for m in c:
        assert (m.offset, m.value) == (seen[m.partition], load.line(seen[m.partition] * 3 + m.partition))
        seen[m.partition] += 1
        if sum(seen) == count:
            break
    c.close()
    assert sum(seen) == count
    if codec:
        assert stored_codecs(broker, name, 3) == {CODECS[codec]}


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_kafka_python_acks(broker, topic, acks):
    name = topic(1)
    p = KafkaProducer(bootstrap_servers=broker.bootstrap, api_version=(0, 11), acks=acks, enable_idempotence=False)
    for i in range(500):
        p.send(name, load.line(i), partition=0)
    p.flush(30)
    p.close()
    end = time.monotonic() + 20
    while time.monotonic() < end:
        if load.end(broker, name) == 500:
            break
        time.sleep(0.05)
    load.check_lines(broker, name, 500, 1)
