"""`corelane produce` against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka; what it wrote is read by stock clients."""

import json
import signal
import subprocess
import time

import confluent_kafka as ck
import pytest

from support import clock, load
from support.broker import target
from support.cli import Running, pipe, run

corelane_only = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")


def produce(broker, topic, stdin, *words, code=0, timeout=90):
    return pipe("produce", topic, "--bootstrap-server", broker.bootstrap, *words, stdin=stdin, code=code, timeout=timeout)


def messages(broker, topic, partitions=1):
    """All records, by partition, as confluent-kafka reads them."""
    c = load.consumer(broker)
    found = {p: [] for p in range(partitions)}
    c.assign([ck.TopicPartition(topic, p, 0) for p in found])
    ended = 0
    while ended < partitions:
        m = c.poll(30)
        assert m is not None, "nothing for 30 s"
        if m.error():
            assert m.error().code() == ck.KafkaError._PARTITION_EOF, m.error()
            ended += 1
        else:
            found[m.partition()].append(m)
    c.close()
    return found


def values(broker, topic):
    return [m.value() for m in messages(broker, topic)[0]]


def test_lines_become_records_in_order(broker, topic):
    name = topic()
    done = produce(broker, name, b"one\n\ntw\xff\x00o\r\nlast")
    assert values(broker, name) == [b"one", b"", b"tw\xff\x00o\r", b"last"]
    assert done.out == b"" and done.err == f"corelane: {name}: 4 records acknowledged: 4 in partition 0 (offsets 0 to 3)\n"
    assert produce(broker, name, b"", "--quiet").err == ""
    kcat = ["kcat", "-b", broker.bootstrap, "-C", "-t", name, "-o", "beginning", "-e", "-q", "-f", "%o %S\n"]
    assert subprocess.run(kcat, capture_output=True, timeout=60).stdout == b"0 3\n1 0\n2 6\n3 4\n"


def test_many_lines_keep_their_order_whatever_the_codec(broker, topic):
    lines = [load.line(i) for i in range(50_000)]
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        name = topic()
        done = produce(broker, name, b"\n".join(lines), "--compression", codec)
        assert "50000 records acknowledged" in done.err
        assert values(broker, name) == lines, codec
        heads = load.first_batches(broker, name, 0)
        assert {head.attributes & 7 for head in heads} == {("none", "gzip", "snappy", "lz4", "zstd").index(codec)}
        # No retry can write one twice.
        assert all(head.pid >= 0 for head in heads)


def test_keys_choose_partitions_as_kafkas_producer_does(broker, topic):
    ours, theirs = topic(7), topic(7)
    keys = [f"key-{n}" for n in range(300)] + ["", "\u00fc", "x" * 1000]
    done = produce(broker, ours, "".join(f"{key}\t{key}=\n" for key in keys).encode(), "--key-separator", r"\t")
    assert f"{ours}: 303 records acknowledged\nPARTITION  RECORDS" in done.err
    p = load.producer(broker, partitioner="murmur2")
    for key in keys:
        p.produce(theirs, f"{key}=".encode(), key=key.encode())
    assert p.flush(60) == 0
    both = [{m.key(): (p, m.value()) for p, of in messages(broker, name, 7).items() for m in of} for name in (ours, theirs)]
    assert both[0] == both[1] and len(both[0]) == 303


def test_records_without_keys_are_spread_over_the_partitions(broker, topic):
    name = topic(4)
    produce(broker, name, b"\n".join(b"%0100d" % n for n in range(40_000)), "--batch-size", 10_000)
    counts = [len(of) for of in messages(broker, name, 4).values()]
    # While a batch of a partition is under way its next one may grow to the largest: on a busy machine few are enough for all.
    assert sum(counts) == 40_000 and len([n for n in counts if n]) > 1, counts


def test_headers_keys_and_partitions_for_all(broker, topic):
    name = topic(3)
    words = ["--key", "k", "--header", "a=1", "--header", "b=", "--partition", 2]
    produce(broker, name, b"c:x:y,d:\tv\n\tw\n", *words, "--headers-separator", r"\t")
    read = messages(broker, name, 3)
    assert [len(of) for of in read.values()] == [0, 0, 2]
    first, second = read[2]
    assert first.headers() == [("a", b"1"), ("b", b""), ("c", b"x:y"), ("d", b"")] and first.key() == b"k"
    assert second.headers() == [("a", b"1"), ("b", b"")] and second.value() == b"w"


def test_json_lines(broker, topic):
    name = topic(2, retention_ms=-1)
    given = [
        {"key": "k", "value": "v", "partition": 1, "timestamp_ms": 1_700_000_000_000, "headers": {"h": "1", "n": None}},
        {"key": {"hex": "ff00"}, "value": {"hex": "fe"}, "partition": 1, "headers": [{"key": "h", "value": "1"}, {"key": "h"}]},
        {"key": "gone", "value": None, "partition": 1},
        {"value": {"a": [1, 2]}, "partition": 1},
    ]
    produce(broker, name, "\n".join(map(json.dumps, given)).encode(), "--format", "json")
    read = messages(broker, name, 2)[1]
    assert [(m.key(), m.value()) for m in read] == [(b"k", b"v"), (b"\xff\0", b"\xfe"), (b"gone", None), (None, b'{"a":[1,2]}')]
    assert read[0].timestamp() == (ck.TIMESTAMP_CREATE_TIME, 1_700_000_000_000)
    assert [m.headers() for m in read[:3]] == [[("h", b"1"), ("n", None)], [("h", b"1"), ("h", None)], None]


def test_tombstones_and_records_of_several_lines(broker, topic):
    name = topic(cleanup_policy="compact")
    produce(broker, name, b"a:1\n2\x00a:\x00", "--null-separated", "--key-separator", ":", "--tombstones")
    assert [(m.key(), m.value()) for m in messages(broker, name)[0]] == [(b"a", b"1\n2"), (b"a", None)]


def test_what_cannot_be_read_ends_it_and_is_named(broker, topic):
    name = topic()
    done = produce(broker, name, b'{"value": "a"}\n{"vlaue": "b"}\n{"value": "c"}\n', "--format", "json", code=1)
    assert "standard input, line 2: there is no field vlaue; did you mean value?" in done.err
    done = produce(broker, name, b"k:v\nx\n", "--key-separator", ":", code=1)
    assert "line 2: ':' does not separate a key from a value" in done.err
    done = produce(broker, name, b'{"value": "", "partition": 1}', "--format", "json", code=1)
    assert f"record 1: topic {name} has no partition 1; it has 1" in done.err
    assert values(broker, name) == [b"a", b"v"]


def test_a_topic_that_there_is_not_is_named(broker, topic):
    name = topic()
    done = produce(broker, name[:-2], b"a", code=1)
    assert f"there is no topic {name[:-2]}; did you mean {name}? `corelane topic create {name[:-2]}` makes it" in done.err
    assert "there is no topic quite-another; `corelane topic create quite-another` makes it" in produce(broker, "quite-another", b"a", code=1).err


def test_records_that_the_broker_refuses_are_counted_with_its_reason(broker, topic):
    name = topic()
    large = b"x" * 900_000
    done = produce(broker, name, b"a\n" + large + b"\n" + b"y" * 3_000_000 + b"\nb\n", code=1)
    assert "3 records acknowledged" in done.err
    assert "not acknowledged: 1 of 4 records" in done.err and "MESSAGE_TOO_LARGE" in done.err, done.err
    assert values(broker, name) == [b"a", large, b"b"]
    compacted = topic(cleanup_policy="compact")
    done = produce(broker, compacted, b"no key\n", code=1)
    assert "not acknowledged: 1 of 1 record" in done.err and "INVALID_RECORD" in done.err and "key" in done.err, done.err


def test_batches_fit_a_topic_that_takes_only_small_ones(broker, topic):
    name = topic(max_message_bytes=3000)
    lines = [b"%0100d" % n for n in range(20_000)]
    assert "20000 records acknowledged" in produce(broker, name, b"\n".join(lines)).err
    assert values(broker, name) == lines


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acknowledgements(broker, topic, acks):
    name = topic()
    lines = [load.line(i) for i in range(20_000)]
    done = produce(broker, name, b"\n".join(lines), "--acks", acks)
    assert f"20000 records {'sent' if acks == '0' else 'acknowledged'}" in done.err
    assert values(broker, name) == lines


def test_a_line_is_sent_at_once_and_ctrl_c_ends_in_good_order(broker, topic):
    name = topic()
    with Running("produce", name, "--bootstrap-server", broker.bootstrap) as running:
        running.write(b"first\n")
        until = clock.running() + 20
        while load.end(broker, name) < 1:
            assert clock.running() < until
            time.sleep(0.05)
        running.write(b"second\n")
        time.sleep(0.5)
        said = running.end(signal.SIGINT)
    assert "2 records acknowledged" in said and values(broker, name) == [b"first", b"second"]


def test_words_that_are_refused():
    for words in (
        ["produce"],
        ["produce", "t", "--acks", "2"],
        ["produce", "t", "--compression", "zip"],
        ["produce", "t", "--key-separator", ""],
        ["produce", "t", "--key-separator", r"\q"],
        ["produce", "t", "--header", "novalue"],
        ["produce", "t", "--format", "json", "--key-separator", ":"],
    ):
        done = run(*words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)


@corelane_only
def test_a_broker_that_stays_away_is_told(make_broker):
    b = make_broker()
    b.start()
    load.create_topic(b, "t")
    with Running("produce", "t", "--bootstrap-server", b.bootstrap, "--timeout", 3) as running:
        running.write(b"a\n")
        until = clock.running() + 20
        while load.end(b, "t") < 1:
            assert clock.running() < until
            time.sleep(0.05)
        b.kill()
        running.write(b"b\nc\n")
        said = running.end(code=1)
    assert "1 record acknowledged" in said and "not acknowledged: 2 of 3 records" in said, said
    assert "t-0: 2 records: " in said and "refused" in said.lower(), said


@corelane_only
def test_a_broker_that_comes_back_has_everything_once(make_broker):
    b = make_broker()
    b.start()
    load.create_topic(b, "t", 2)
    lines = [b"%06d" % n for n in range(3000)]
    with Running("produce", "t", "--bootstrap-server", b.bootstrap) as running:
        for place, line in enumerate(lines):
            running.write(line + b"\n")
            if place == 1000:
                b.kill()
            if place == 1500:
                b.start()
            time.sleep(0.0005)
        said = running.end(timeout=60)
    assert "3000 records acknowledged" in said, said
    assert sorted(m.value() for of in messages(b, "t", 2).values() for m in of) == lines


@corelane_only
def test_leaders_that_die_lose_and_repeat_nothing(make_cluster):
    c = make_cluster()
    c.create("t", 6, **{"min.insync.replicas": 2})
    lines = [b"%06d" % n for n in range(4000)]
    with Running("produce", "t", "--bootstrap-server", c.bootstrap, "--key-separator", ":") as running:
        for place, line in enumerate(lines):
            running.write(line + b":" + line + b"\n")
            if place == 1500:
                c[c.leader("t")].kill()
            time.sleep(0.0005)
        said = running.end(timeout=90)
    assert "4000 records acknowledged" in said, said
    read = messages(c, "t", 6)
    assert sorted(m.value() for of in read.values() for m in of) == lines
    assert all([m.value() for m in of] == sorted(m.value() for m in of) for of in read.values())
