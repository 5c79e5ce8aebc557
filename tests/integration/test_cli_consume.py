"""`corelane consume` against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka; what it reads was written by stock clients."""

import contextlib
import json
import queue
import signal
import subprocess
import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from support import clock, load
from support.broker import binary, target
from support.cli import Cli, Running, pipe, run
from support.groups import wait_ready, wait_until

corelane_only = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")

START = 1_700_000_000_000


def consume(broker, topic, *words, code=0, timeout=90):
    return pipe("consume", topic, "--bootstrap-server", broker.bootstrap, *words, code=code, timeout=timeout)


def lines(broker, topic, *words):
    return consume(broker, topic, "--until-end", *words).out.splitlines()


def fill(broker, topic, count, partition=0, first=0, **conf):
    p = load.producer(broker, **conf)
    for n in range(first, first + count):
        p.produce(topic, b"%d" % n, key=b"k%d" % n, partition=partition, timestamp=START + n * 1000)
    assert p.flush(60) == 0


@pytest.fixture
def ten(broker, topic):
    """Two partitions with the values 0 to 9 and 100 to 109; record n is n seconds after START."""
    name = topic(2, retention_ms=-1)
    fill(broker, name, 10)
    fill(broker, name, 10, partition=1, first=100)
    return name


def test_what_is_there_is_printed(broker, ten):
    done = consume(broker, ten, "--until-end")
    assert done.err == "" and sorted(map(int, done.out.split())) == [*range(10), *range(100, 110)]
    assert lines(broker, ten, "--partition", 0) == [b"%d" % n for n in range(10)]
    kcat = ["kcat", "-b", broker.bootstrap, "-C", "-t", ten, "-p", "1", "-o", "beginning", "-e", "-q", "-f", r"%p %o %k %K %s %S %T\n"]
    theirs = subprocess.run(kcat, capture_output=True, timeout=60).stdout
    assert theirs and consume(broker, ten, "--until-end", "--partition", 1, "--format", r"%p %o %k %K %s %S %T\n").out == theirs


@pytest.mark.parametrize(
    "where, expected",
    [
        ("beginning", range(10)), ("end", []), ("7", [7, 8, 9]), ("0", range(10)), ("50", []), ("-3", [7, 8, 9]), ("-99", range(10)),
        ("2023-11-14T22:13:28", [8, 9]), (f"@{START + 4500}", range(5, 10)), ("2030-01-01", []),
    ],
)  # fmt: skip
def test_beginnings(broker, ten, where, expected):
    assert lines(broker, ten, "--partition", 0, f"--from={where}") == [b"%d" % n for n in expected]


def test_a_count_ends_it(broker, ten):
    assert consume(broker, ten, "--count", 3, "--partition", 0, "--from", "-8").out == b"2\n3\n4\n"
    assert len(consume(broker, ten, "--count", 15).out.splitlines()) == 15


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_every_codec_is_read(broker, topic, codec):
    name = topic(2)
    load.produce_lines(broker, name, 40_000, 2, compression_type=codec)
    for p in range(2):
        assert lines(broker, name, "--partition", p) == [load.line(n) for n in range(p, 40_000, 2)]


def test_binary_and_null_in_every_format(broker, topic):
    name = topic(retention_ms=-1)
    p = load.producer(broker)
    p.produce(name, b"\xff\x00\n", key=b"\xfe", headers=[("h", b"\xfd"), ("h", None)], timestamp=START)
    p.produce(name, None, key=b"gone", timestamp=START)
    p.produce(name, b"", timestamp=START)
    assert p.flush(60) == 0
    assert consume(broker, name, "--until-end").out == b"\xff\x00\n\n\n\n"
    assert consume(broker, name, "--until-end", "--format", "hex").out == b'0 0 fe ff000a\n0 1 676f6e65 -\n0 2 - ""\n'
    assert consume(broker, name, "--until-end", "--format", r"[%k|%v|%h]%K,%V\x00").out == (
        b"[\xfe|\xff\x00\n|h=\xfd,h=NULL]1,3\0[gone||]4,-1\0[||]-1,0\0"
    )
    first, second, third = map(json.loads, lines(broker, name, "--format", "json"))
    assert first == {
        "topic": name, "partition": 0, "offset": 0, "timestamp_ms": START, "timestamp_type": "CreateTime", "key": {"hex": "fe"},
        "value": {"hex": "ff000a"}, "headers": [{"key": "h", "value": {"hex": "fd"}}, {"key": "h", "value": None}],
    }  # fmt: skip
    assert (second["key"], second["value"], third["key"], third["value"]) == ("gone", None, None, "")
    # And back again, with nothing lost.
    copy = topic()
    out = consume(broker, name, "--until-end", "--format", "json").out
    pipe("produce", copy, "--format", "json", "--bootstrap-server", broker.bootstrap, stdin=out)
    assert out.replace(name.encode(), copy.encode()) == consume(broker, copy, "--until-end", "--format", "json").out


def test_large_records(broker, topic):
    name = topic(2, max_message_bytes=12 << 20)
    p = load.producer(broker, message_max_bytes=12 << 20)
    sizes = [10 << 20, 1, 900_000, 5 << 20]
    for n, size in enumerate(sizes):
        p.produce(name, b"%d" % n * size, partition=n % 2)
    assert p.flush(60) == 0
    assert sorted(map(len, lines(broker, name))) == sorted(sizes)


def test_an_empty_topic_has_nothing(broker, topic):
    done = consume(broker, topic(3), "--until-end")
    assert done.out == b"" and done.err == ""


def test_names_that_there_are_not(broker, ten):
    done = consume(broker, ten[:-2], code=1)
    assert f"there is no topic {ten[:-2]}; did you mean {ten}?" in done.err
    done = consume(broker, ten, "--partition", 2, code=1)
    assert f"topic {ten} has no partition 2; it has 2" in done.err


def test_records_that_come_are_printed_at_once(broker, topic):
    name = topic()
    fill(broker, name, 3)
    with Running("consume", name, "--bootstrap-server", broker.bootstrap, "--tail") as running:
        # Until it has begun at the end, what is written is behind it.
        for n in range(10, 60):
            fill(broker, name, 1, first=n)
            with contextlib.suppress(queue.Empty):
                line = running.line(timeout=1)
                break
        for n in range(100, 103):
            began = time.monotonic()
            fill(broker, name, 1, first=n)
            while int(line := running.line()) < 100:
                pass
            assert line == b"%d\n" % n and time.monotonic() - began < 10
        assert running.end(signal.SIGINT) == ""


def test_a_reader_that_has_seen_enough_is_no_failure(broker, topic):
    name = topic()
    load.produce_lines(broker, name, 100_000, 1)
    command = f"{binary()} consume {name} --bootstrap-server {broker.bootstrap} | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"{load.line(0).decode()}\n{load.line(1).decode()}\n0\n" and done.stderr == "", done


def test_partitions_that_are_added_are_read_too(broker, topic):
    name = topic()
    with Running("consume", name, "--bootstrap-server", broker.bootstrap) as running:
        fill(broker, name, 1)
        assert running.line() == b"0\n"
        admin = AdminClient({"bootstrap.servers": broker.bootstrap})
        admin.create_partitions([NewPartitions(name, 2)])[name].result(30)
        load.wait_for_leaders(broker, name, 2)
        fill(broker, name, 1, partition=1, first=7)
        assert running.line(60) == b"7\n"


def test_records_that_were_deleted_are_told(broker, ten):
    Cli(broker.bootstrap)("topic", "trim", ten, "--to-offset", 4)
    assert lines(broker, ten, "--partition", 0, "--from", 2) == [b"%d" % n for n in range(4, 10)]


def test_transactions(make_broker):
    broker = make_broker({"transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1})
    broker.start()
    name = load.create_topic(broker, "t")
    p = load.producer(broker, transactional_id=name)
    p.init_transactions()
    for number, end in enumerate((p.commit_transaction, p.abort_transaction, p.commit_transaction)):
        p.begin_transaction()
        for n in range(3):
            p.produce(name, b"%d" % (10 * number + n))
        p.flush()
        end()
    p.begin_transaction()
    p.produce(name, b"open")
    p.flush()
    committed = [b"0", b"1", b"2", b"20", b"21", b"22"]
    assert lines(broker, name, "--isolation", "read-committed") == committed
    assert lines(broker, name) == [b"0", b"1", b"2", b"10", b"11", b"12", b"20", b"21", b"22", b"open"]
    p.abort_transaction()


def test_words_that_are_refused():
    for words in (
        ["consume"],
        ["consume", "t", "--from", "yesterday"],
        ["consume", "t", "--format", "jsn"],
        ["consume", "t", "--format", "%q"],
        ["consume", "t", "--count", 0],
        ["consume", "t", "--tail", "--until-end"],
        ["consume", "t", "--group", "g", "--partition", 0],
    ):
        done = run(*words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)


# ---- groups


@pytest.fixture
def four(group_broker):
    """Four partitions with ten records each."""
    name = load.create_topic(group_broker, f"cli-{time.time_ns()}", 4)
    for p in range(4):
        fill(group_broker, name, 10, partition=p, first=p * 100)
    return name


ALL = sorted(p * 100 + n for p in range(4) for n in range(10))


def committed(broker, group):
    described = Cli(broker.bootstrap).json("group", "describe", group)[0]
    return {(o["topic"], o["partition"]): o["current_offset"] for o in described["offsets"]}


def test_a_group_goes_on_where_it_was(group_broker, four, group):
    first = consume(group_broker, four, "--group", group, "--count", 15)
    assert len(first.out.split()) == 15 and first.err == ""
    assert sum(committed(group_broker, group).values()) == 15
    second = consume(group_broker, four, "--group", group, "--until-end")
    assert sorted(map(int, (first.out + second.out).split())) == ALL
    assert committed(group_broker, group) == {(four, p): 10 for p in range(4)}
    assert consume(group_broker, four, "--group", group, "--until-end").out == b""
    [described] = Cli(group_broker.bootstrap).json("group", "describe", group)
    assert described["members"] == [] and described["state"] == "Empty"


def test_a_group_has_read_what_was_written_out(group_broker, group):
    """Whoever reads the output goes after five lines; what the pipe took is committed, and nothing else."""
    name = load.create_topic(group_broker, f"cli-{time.time_ns()}", 1)
    p = load.producer(group_broker)
    for n in range(20_000):
        p.produce(name, b"%06d " % n + b"x" * 100)
    assert p.flush(60) == 0
    words = ["consume", name, "--bootstrap-server", group_broker.bootstrap, "--group", group]
    reader = subprocess.Popen([str(binary()), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    read = [reader.stdout.readline() for _ in range(5)]
    assert read == [b"%06d " % n + b"x" * 100 + b"\n" for n in range(5)]
    reader.stdout.close()
    assert reader.wait(30) == 0 and reader.stderr.read() == b""
    reader.stderr.close()
    # A pipe holds 64 KiB, and Python has read ahead.
    [at] = committed(group_broker, group).values()
    assert 5 <= at <= 3 * 65536 // 107, at
    more = consume(group_broker, name, "--group", group, "--count", 1)
    assert more.out.startswith(b"%06d " % at), (at, more.out)


def test_members_share_the_partitions(group_broker, four, group):
    words = ["consume", four, "--bootstrap-server", group_broker.bootstrap, "--group", group, "--from", "end", "--format", "%p %v\n"]

    def assigned():
        done = run("group", "describe", group, "--format", "json", "--bootstrap-server", group_broker.bootstrap)
        # Before the first of them has joined there is no such group.
        members = done.json[0]["members"] if done.code == 0 else []
        return sorted(len(member["assignment"]) for member in members)

    with Running(*words) as a, Running(*words) as b:
        wait_until(lambda: assigned() == [2, 2], 30)
        # The positions of those that begin at the end are looked up after the assignment.
        time.sleep(2)
        for p in range(4):
            fill(group_broker, four, 1, partition=p, first=1000 + p)
        of_a, of_b = ({running.line() for _ in range(2)} for running in (a, b))
        assert of_a | of_b == {b"%d %d\n" % (p, 1000 + p) for p in range(4)} and not of_a & of_b
        began = time.monotonic()
        assert a.end(signal.SIGINT) == ""
        # It has left, so nobody waits for its session to end.
        wait_until(lambda: assigned() == [4], 15)
        assert time.monotonic() - began < 15
        for p in range(4):
            fill(group_broker, four, 1, partition=p, first=2000 + p)
        assert {b.line() for _ in range(4)} == {b"%d %d\n" % (p, 2000 + p) for p in range(4)}
        assert b.end(signal.SIGINT) == ""
    assert set(committed(group_broker, group).values()) == {12}


def test_a_group_may_have_members_of_other_clients(group_broker, four, group):
    c = load.consumer(group_broker, group_id=group, auto_offset_reset="earliest", partition_assignment_strategy="range", enable_auto_commit=True)
    c.subscribe([four])
    wait_until(lambda: c.poll(0.2) is None and len(c.assignment()) == 4, 30)
    with Running("consume", four, "--bootstrap-server", group_broker.bootstrap, "--group", group) as running:
        until = clock.running() + 40
        while len(c.assignment()) != 2:
            c.poll(0.2)
            assert clock.running() < until
        c.close()
        wait_until(lambda: len(Cli(group_broker.bootstrap).json("group", "describe", group)[0]["members"]) == 1, 20)
        running.end(signal.SIGINT)


def test_a_group_of_another_protocol_is_told(group_broker, four, group):
    c = load.consumer(group_broker, group_id=group, auto_offset_reset="earliest", partition_assignment_strategy="roundrobin")
    c.subscribe([four])
    wait_until(lambda: c.poll(0.2) is not None and len(c.assignment()) == 4, 30)
    done = consume(group_broker, four, "--group", group, code=1)
    assert "INCONSISTENT_GROUP_PROTOCOL" in done.err and "another --group" in done.err, done.err
    c.close()


# ---- brokers that die


@corelane_only
def test_a_broker_that_comes_back_is_read_on(make_broker):
    b = make_broker()
    b.start()
    load.create_topic(b, "t", 2)
    fill(b, "t", 5)
    with Running("consume", "t", "--bootstrap-server", b.bootstrap) as running:
        assert [running.line() for _ in range(5)] == [b"%d\n" % n for n in range(5)]
        b.kill()
        time.sleep(1)
        b.start()
        load.wait_for_leaders(b, "t", 2)
        fill(b, "t", 5, first=5)
        assert [running.line() for _ in range(5)] == [b"%d\n" % n for n in range(5, 10)]
        running.end(signal.SIGINT)
    with Running("consume", "t", "--bootstrap-server", b.bootstrap, "--timeout", 2) as running:
        assert [running.line() for _ in range(10)] == [b"%d\n" % n for n in range(10)]
        b.kill()
        running.process.wait(30)
        assert "no broker answers" in running.end(code=1)


@corelane_only
def test_leaders_that_die_are_followed(make_cluster):
    c = make_cluster()
    wait_ready(c.any(), "readers")
    c.create("t", 6)
    load.produce_lines(c, "t", 6000, 6, acks="all")
    with Running("consume", "t", "--bootstrap-server", c.bootstrap, "--group", "readers") as running:
        read = {running.line() for _ in range(6000)}
        gone = c.leader("t")
        c[gone].kill()
        c.wait_for("t", lambda leader, replicas, isr: leader not in (-1, gone))
        load.produce_lines(c, "t", 600, 6, acks="all")
        # The lines have the same numbers again.
        again = [running.line(60) for _ in range(600)]
        assert read == {load.line(n) + b"\n" for n in range(6000)} and sorted(again) == [load.line(n) + b"\n" for n in range(600)]
        assert running.end(signal.SIGINT) == ""
    assert set(committed(c, "readers").values()) == {1100}
