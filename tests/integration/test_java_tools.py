"""Apache Kafka's own command-line tools against the broker and against its files."""

import re
import time

import pytest

from support import clock, java, load, wire


def topics(broker, *args, check=True):
    return java.run(java.TOPICS, "--bootstrap-server", broker.bootstrap, *args, check=check)


def test_topics_create_describe_grow_delete(broker):
    name = f"tools-{time.time_ns()}"
    out = topics(broker, "--create", "--topic", name, "--partitions", 3, "--replication-factor", 1, "--config", "segment.bytes=1048576")
    assert f"Created topic {name}" in out.out
    again = topics(broker, "--create", "--topic", name, "--partitions", 3, check=False)
    assert again.code != 0 and "already exists" in again.out + again.log
    listed = topics(broker, "--list").out.split()
    assert name in listed
    text = topics(broker, "--describe", "--topic", name).out
    assert "PartitionCount: 3" in text and "ReplicationFactor: 1" in text and "segment.bytes=1048576" in text, text
    assert re.search(r"TopicId: [A-Za-z0-9_-]{22}", text), text
    assert [int(p) for p in re.findall(r"Partition: (\d+)\tLeader: 0\tReplicas: 0\tIsr: 0", text)] == [0, 1, 2], text
    topics(broker, "--alter", "--topic", name, "--partitions", 5)
    assert "PartitionCount: 5" in topics(broker, "--describe", "--topic", name).out
    shrink = topics(broker, "--alter", "--topic", name, "--partitions", 2, check=False)
    assert shrink.code != 0 and "InvalidPartitions" in shrink.out + shrink.log, str(shrink)
    load.produce_lines(broker, name, 50, 5)
    load.check_lines(broker, name, 50, 5)
    topics(broker, "--delete", "--topic", name)
    end = clock.running() + 20
    while name in topics(broker, "--list").out.split():
        assert clock.running() < end, "still listed 20 s after its deletion"
    gone = topics(broker, "--describe", "--topic", name, check=False)
    assert gone.code != 0 and "does not exist" in gone.out + gone.log


@pytest.mark.parametrize("args,error", [
    (["--topic", "bad/name", "--partitions", 1], "InvalidTopicException"),
    (["--topic", "zero", "--partitions", 0], "InvalidPartitions|greater than 0"),
    (["--topic", "three", "--partitions", 1, "--replication-factor", 3], "InvalidReplicationFactor"),
    (["--topic", "conf", "--config", "retention.ms=soon"], "InvalidConfiguration|Invalid value"),
])  # fmt: skip
def test_topics_refused(broker, args, error):
    got = topics(broker, "--create", *args, check=False)
    assert got.code != 0 and re.search(error, got.out + got.log), str(got)
    assert args[1] not in topics(broker, "--list").out.split()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("size,ci,full,partitions", [(100, 500_000, 5_000_000, 8), (1024, 100_000, 1_000_000, 8)])
def test_producer_performance(broker, topic, length, figure, size, ci, full, partitions):
    count, name = length.pick(ci, full), topic(partitions)
    done = java.run(
        java.PERF, "--topic", name, "--num-records", count, "--record-size", size, "--throughput", -1, "--producer-props",
        f"bootstrap.servers={broker.bootstrap}", "acks=all", "enable.idempotence=true", timeout=1500, heap="512m",
    )  # fmt: skip
    last = done.out.strip().splitlines()[-1]
    assert re.match(rf"{count} records sent", last), str(done)
    assert not re.search(r"exception|error|warn", done.out + done.log, re.I), str(done)
    figure(f"{count} x {size} B, acks=all, idempotent", last)
    assert sum(load.end(broker, name, p) for p in range(partitions)) == count


def dump(*files, args=()):
    """Runs DumpLogSegments and answers its output; any of its complaints fails the test. They go to stderr, except
    `isvalid: false` and a report of trailing bytes."""
    got = java.run(java.DUMP, "--files", ",".join(map(str, files)), *args, heap="512m")
    log = got.log
    for f in files:
        # Of every segment but the first, Kafka 4.3's tool says this about its own logs too: it starts to count at -1.
        log = log.replace(f"Non-consecutive offsets in {f}\n  -1 is followed by {int(f.stem)}\n", "")
    bad = [s for s in log.splitlines() if s.strip() and not s.startswith(("SLF4J", "[main] INFO"))]
    bad += [s for s in got.out.splitlines() if re.search(r"isvalid: false|invalid bytes at the end", s)]
    assert not bad, f"{len(bad)} complaints, first:\n" + "\n".join(bad[:10])
    return got.out


@pytest.fixture
def stopped_log(make_broker):
    """A log of several segments, written by three kinds of producers, after a clean stop."""
    b = make_broker({"log.segment.bytes": 1 << 20, "log.index.interval.bytes": 4096})
    b.start()
    load.create_topic(b, "dump", 2, segment_bytes=1 << 20)
    for codec in ("none", "lz4", "zstd"):
        load.produce_lines(b, "dump", 40_000, 2, compression_type=codec, enable_idempotence=True, batch_size=16384)
    b.stop()
    return b


def test_dump_log_segments(stopped_log):
    folder = stopped_log.partition_dir("dump", 0)
    logs = sorted(folder.glob("*.log"))
    assert len(logs) >= 2, f"one segment only: {sorted(p.name for p in folder.iterdir())}"
    due = 0
    for log in logs:
        assert int(log.stem) == due, f"{log.name} follows a segment that ends at {due}"
        out = dump(log, args=["--deep-iteration"])
        offsets = [int(m) for m in re.findall(r"^\| offset: (\d+)", out, re.M)]
        assert offsets == list(range(due, due + len(offsets))), f"{log.name}: offsets not consecutive"
        assert offsets, f"{log.name}: no records"
        due += len(offsets)
        for kind in (".index", ".timeindex"):
            index = log.with_suffix(kind)
            assert index.exists(), f"{index.name} is missing"
            dump(index)
            dump(index, args=["--index-sanity-check"])
        entries = re.findall(r"offset: (\d+) position: (\d+)", dump(log.with_suffix(".index")))
        if log.stat().st_size > 64 << 10:
            assert len(entries) > 3 and int(entries[-1][1]) > 0, f"{log.name}: index of {len(entries)} entries"
    assert due == 60_000
    assert (folder / "leader-epoch-checkpoint").read_text().split()[:1] == ["0"]


def test_dump_finds_a_spoilt_log(stopped_log):
    """The check above is able to fail."""
    log = sorted(stopped_log.partition_dir("dump", 0).glob("*.log"))[0]
    data = bytearray(log.read_bytes())
    data[len(data) // 2] ^= 0x55
    log.write_bytes(data)
    with pytest.raises(AssertionError):
        dump(log, args=["--deep-iteration"])


def test_get_offset_shell(broker, topic):
    name = topic(2, retention_ms=-1)
    with wire.Conn(broker.leading(name)) as conn:
        for n in range(10):
            wire.produce(conn, name, 0, wire.batch([b"x"], timestamp=1_700_000_000_000 + n * 1000))

    def ask(when):
        out = java.run(java.OFFSETS, "--bootstrap-server", broker.bootstrap, "--topic", name, "--time", when).out
        return [s for s in out.split() if s.startswith(name)]

    assert ask(-1) == [f"{name}:0:10", f"{name}:1:0"]
    assert ask(-2) == [f"{name}:0:0", f"{name}:1:0"]
    # For no record at all the shell prints the partition without an offset, or leaves it out.
    assert ask(-3)[0] == f"{name}:0:9"
    assert ask(1_700_000_004_500)[0] == f"{name}:0:5"


def test_config_command(broker, topic):
    name = topic(1, retention_ms=123456789)
    out = java.run(java.CONFIGS, "--bootstrap-server", broker.bootstrap, "--describe", "--topic", name).out
    assert "retention.ms=123456789" in out, out
    out = java.run(java.CONFIGS, "--bootstrap-server", broker.bootstrap, "--describe", "--all", "--topic", name).out
    for option in ("cleanup.policy=delete", "max.message.bytes=1048588", "retention.ms=123456789", "segment.bytes=1073741824"):
        assert option in out, f"{option} is missing in:\n{out}"


def test_config_command_alters(broker, topic):
    name = topic(1)

    def configs(*args, check=True):
        return java.run(java.CONFIGS, "--bootstrap-server", broker.bootstrap, *args, "--entity-type", "topics", "--entity-name", name, check=check)

    out = configs("--alter", "--add-config", "retention.ms=123456789,segment.bytes=2097152").out
    assert "Completed updating config for topic" in out, out
    out = configs("--describe").out
    assert "retention.ms=123456789" in out and "segment.bytes=2097152" in out, out
    configs("--alter", "--delete-config", "segment.bytes")
    out = configs("--describe").out
    assert "retention.ms=123456789" in out and "segment.bytes" not in out, out
    got = configs("--alter", "--add-config", "retention.ms=soon", check=False)
    assert got.code != 0 and re.search("InvalidConfiguration|Invalid value", got.out + got.log), str(got)
    assert "retention.ms=123456789" in configs("--describe").out
    with wire.Conn(broker) as conn:
        assert wire.produce(conn, name, 0, wire.batch([b"goes on"])) == (0, 0)


def test_cluster_id(broker):
    out = java.run(java.CLUSTER, "cluster-id", "--bootstrap-server", broker.bootstrap).out
    found = re.search(r"Cluster ID: (\S+)", out)
    with wire.Conn(broker) as conn:
        assert found and found[1] == wire.metadata(conn)["cluster"], out


def test_console_clients(broker, topic):
    """The console producer and consumer, Java clients at their newest, without a group."""
    name = topic(1)
    lines = "".join(f"line {i}\n" for i in range(1000))
    java.run("org.apache.kafka.tools.ConsoleProducer", "--bootstrap-server", broker.bootstrap, "--topic", name, stdin=lines)
    out = java.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", name,
        "--partition", 0, "--offset", "earliest", "--max-messages", 1000, "--timeout-ms", 30000,
    ).out  # fmt: skip
    assert out == lines
