"""Full, failing and slow disks: what goes offline is shown, what was full comes back by itself, and what can wait waits."""

import errno
import os
import time

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions

from support import clock, disks, groups, java, load, wire
from support.wire import ERR

FIRST = "00000000000000000000.log"
LEADER_NOT_AVAILABLE = 5


def until(what, check, broker, timeout=120):
    """Waits for something that the broker does by itself."""
    end = clock.running() + timeout
    while True:
        found = check()
        if found:
            return found
        assert clock.running() < end, f"{what}: not within {timeout} s\n{broker.log_tail()}"
        time.sleep(0.1)


def partition_of(broker, topic, partition=0):
    with wire.Conn(broker) as conn:
        return wire.metadata(conn, [topic])["topics"][topic]["partitions"][partition]


def test_an_offline_partition_is_shown(make_broker, corelane_only):
    """As Kafka shows a failed log directory: no leader, an offline replica; and the log says so."""
    b = make_broker({"corelane.acknowledge": "written"}, env={"CORELANE_FAULTS": f"write:EIO:broken-0/{FIRST}:0"})
    b.start()
    load.create_topic(b, "broken", 2)
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "broken", 0, wire.batch([b"x"]))[0] == ERR["KAFKA_STORAGE_ERROR"]
        assert wire.produce(conn, "broken", 1, wire.batch([b"x"])) == (0, 0)
    seen = until("no leader", lambda: (p := partition_of(b, "broken"))["leader"] == -1 and p, b)
    assert (seen["error"], seen["replicas"], seen["isr"], seen["offline"]) == (LEADER_NOT_AVAILABLE, [0], [0], [0])
    other = partition_of(b, "broken", 1)
    assert (other["error"], other["leader"], other["offline"]) == (0, 0, [])
    until("a line for all", lambda: "1 partition(s) are offline: broken-0: " in b.log_text(), b)
    listed = java.run(java.TOPICS, "--bootstrap-server", b.bootstrap, "--describe", "--unavailable-partitions").out
    rows = [line for line in listed.splitlines() if "Topic: broken" in line]
    assert len(rows) == 1 and "Partition: 0" in rows[0] and "Leader: none" in rows[0], listed
    b.kill()
    b.env.clear()
    b.start(topics=["broken"])
    assert partition_of(b, "broken")["leader"] == 0


def test_a_partition_that_cannot_be_opened_is_offline(make_broker, corelane_only):
    """The others are served."""
    b = make_broker()
    b.start()
    load.create_topic(b, "spoilt", 1)
    load.create_topic(b, "sound", 1)
    b.stop()
    named = b.partition_dir("spoilt") / "partition.metadata"
    right = named.read_text()
    named.write_text("version: 0\ntopic_id: AAAAAAAAAAAAAAAAAAAAAA\n")
    b.start(topics=["sound"])
    seen = partition_of(b, "spoilt")
    assert (seen["leader"], seen["offline"]) == (-1, [0])
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "spoilt", 0, wire.batch([b"x"]))[0] == ERR["KAFKA_STORAGE_ERROR"]
        assert wire.produce(conn, "sound", 0, wire.batch([b"x"])) == (0, 0)
    assert str(named.parent) in b.log_text()
    b.stop()
    named.write_text(right)
    b.start(topics=["spoilt"])


def delete_topic(broker, name):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics([name])[name].result(60)


def alter_topic(broker, name, option, value):
    entry = ConfigEntry(option, str(value), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ConfigResource.Type.TOPIC, name, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(60)


def numbers(broker, topic, partition):
    """The number that each record of the partition begins with."""
    out, at = [], 0
    with wire.Conn(broker) as conn:
        end = wire.offset(conn, topic, partition, -1)
        while at < end:
            for b in wire.batches(wire.fetch(conn, topic, partition, at)["data"]):
                assert b.base == at and b.crc_ok()
                out += [int(v[:6]) for v in b.values()]
                at = b.last + 1
    return out


def commits(conn, group, offset):
    """True once the commit is confirmed; only a coordinator that is on its way back may refuse it."""
    code = groups.commit(conn, group, {("full", 0): offset})[("full", 0)]
    assert code == 0 or code in groups.PASSING, groups.name_of(code)
    return code == 0


def take_room(disk, leave=0):
    """Fills the file system of `disk` but for `leave` bytes; -> the file that holds the room."""
    filler = disk / "filler"
    with open(filler, "wb") as f:
        while True:
            stat = os.statvfs(disk)
            free = stat.f_bavail * stat.f_frsize - leave
            if free < stat.f_frsize:
                break
            try:
                os.posix_fallocate(f.fileno(), f.seek(0, 2), min(free, 4 << 20))
            except OSError as e:
                assert e.errno == errno.ENOSPC
                if free < (1 << 20):
                    break
                leave += 1 << 16
    return filler


def test_a_full_disk_passes_without_a_restart(make_broker, corelane_only, small_disk, request):
    """Checkpoints wait, refused records come again, groups go on, and the logs say so."""
    props = {"log.segment.bytes": 2 << 20, "log.flush.offset.checkpoint.interval.ms": 300, "offsets.topic.num.partitions": 1}
    b = make_broker(props, data_dir=small_disk / "data")
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "full", 2)
    load.create_topic(b, "quiet", 1)
    with wire.Conn(b, timeout=30) as conn:
        groups.wait_ready(b, "g")
        assert commits(conn, "g", 1)
        assert wire.produce(conn, "quiet", 0, wire.batch([b"quiet"])) == (0, 0)
        filler = take_room(small_disk)
        acked = [0, 0]
        refused = [False, False]
        for n in range(4000):
            p = n % 2
            error, base = wire.produce(conn, "full", p, wire.batch([b"%06d" % acked[p] + bytes(60_000)]))
            if error:
                assert error == ERR["KAFKA_STORAGE_ERROR"], error
                refused[p] = True
            else:
                assert base == acked[p]
                acked[p] += 1
            if all(refused):
                break
        assert all(refused), f"{acked} appends on a full disk, none refused"
        # What was acknowledged is read, and nothing is offline.
        for p in range(2):
            assert wire.offset(conn, "full", p, -1) == acked[p]
            assert partition_of(b, "full", p)["leader"] == 0
        # Several checkpoints come and go.
        time.sleep(1.5)
        assert partition_of(b, "quiet")["leader"] == 0
        filler.unlink()
        for p in range(2):
            until(
                f"partition {p} takes records",
                lambda p=p: wire.produce(conn, "full", p, wire.batch([b"%06d" % acked[p]])) == (0, acked[p]),
                b,
            )
        assert wire.produce(conn, "quiet", 0, wire.batch([b"again"])) == (0, 1)
        until("the group's commit", lambda: commits(conn, "g", 2), b)
    assert "takes no more records until there is room" in b.log_text() and "there is room again in" in b.log_text()
    b.kill()
    b.start(topics=["full", "quiet"])
    with wire.Conn(b) as conn:
        for p in range(2):
            assert wire.offset(conn, "full", p, -1) == acked[p] + 1
            assert numbers(b, "full", p) == list(range(acked[p] + 1))
    b.kill()


@pytest.fixture
def full_broker(make_broker, small_disk, request):
    """A broker with two topics of several segments on a disk that is full to the last block; -> (broker, the file in the way)"""
    props = {
        "log.segment.bytes": 1 << 20,
        "log.flush.offset.checkpoint.interval.ms": 300,
        "log.retention.check.interval.ms": 300,
        "offsets.topic.num.partitions": 1,
        "corelane.disk.reserve.bytes": 0,
    }
    b = make_broker(props, data_dir=small_disk / "data")
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "kept", 1)
    load.create_topic(b, "going", 1)
    with wire.Conn(b, timeout=30) as conn:
        for n in range(60):
            for topic in ("kept", "going"):
                assert wire.produce(conn, topic, 0, wire.batch([b"%06d" % n + bytes(60_000)])) == (0, n)
        filler = take_room(small_disk)
        for _ in range(200):
            if wire.produce(conn, "kept", 0, wire.batch([b"%06d" % 60 + bytes(60_000)]))[0]:
                break
        else:
            raise AssertionError("two hundred appends, none refused")
    return b, filler


def test_deleting_a_topic_makes_room(full_broker, corelane_only):
    b, _ = full_broker
    with wire.Conn(b, timeout=30) as conn:
        end = wire.offset(conn, "kept", 0, -1)
        delete_topic(b, "going")
        until("records are taken", lambda: wire.produce(conn, "kept", 0, wire.batch([b"%06d" % end])) == (0, end), b)


def test_retention_makes_room(full_broker, corelane_only):
    b, filler = full_broker
    # Room for the new setting, but not for a partition to come back.
    os.truncate(filler, filler.stat().st_size - (128 << 10))
    with wire.Conn(b, timeout=30) as conn:
        end = wire.offset(conn, "kept", 0, -1)
        alter_topic(b, "going", "retention.bytes", 1 << 20)
        until("records are taken", lambda: wire.produce(conn, "kept", 0, wire.batch([b"%06d" % end])) == (0, end), b)
        assert wire.offset(conn, "going", 0, -2) > 0


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_a_start_on_a_full_disk_serves_reads(full_broker, corelane_only, small_disk, ending):
    """And takes records by itself once there is room."""
    b, filler = full_broker
    with wire.Conn(b) as conn:
        end = wire.offset(conn, "kept", 0, -1)
    getattr(b, ending)()
    # What closing has given back.
    more = small_disk / "more"
    take_room(small_disk).rename(more)
    b.start(topics=["kept", "going"])
    assert numbers(b, "going", 0) == list(range(60))
    assert numbers(b, "kept", 0)[:60] == list(range(60))
    with wire.Conn(b, timeout=30) as conn:
        assert wire.offset(conn, "kept", 0, -1) >= end
        more.unlink()
        filler.unlink(missing_ok=True)
        taken = lambda: wire.produce(conn, "kept", 0, wire.batch([b"%06d" % 99]))[0] == 0  # noqa: E731
        until("records are taken", taken, b)
    b.stop()


def test_ordinary_topics_leave_the_reserve(make_broker, corelane_only, small_disk, request):
    """Below it, produce is refused, and groups commit on."""
    props = {"corelane.disk.reserve.bytes": 64 << 20, "offsets.topic.num.partitions": 1, "log.segment.bytes": 1 << 20}
    b = make_broker(props, data_dir=small_disk / "data")
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "full", 1)
    with wire.Conn(b, timeout=30) as conn:
        groups.wait_ready(b, "g")
        for n in range(4000):
            error, _ = wire.produce(conn, "full", 0, wire.batch([bytes(60_000)]))
            if error:
                break
        assert error == ERR["KAFKA_STORAGE_ERROR"]
        stat = os.statvfs(small_disk)
        free, total = stat.f_bavail * stat.f_frsize, stat.f_blocks * stat.f_frsize
        assert total / 50 < free < total / 15, f"{free} of {total} bytes free: a twentieth is the reserve"
        for n in range(200):
            assert commits(conn, "g", n), "a commit is refused beside a reserve"
        load.create_topic(b, "another", 1)
        assert "corelane.disk.reserve.bytes" in b.log_text()
        delete_topic(b, "full")
        until("records are taken", lambda: wire.produce(conn, "another", 0, wire.batch([b"x"]))[0] == 0, b)


def test_sigterm_behind_a_slow_disk_has_a_limit(make_broker, corelane_only, figure):
    """Lines say what is left; the next start has everything that was acknowledged."""
    b = make_broker(
        {"corelane.shutdown.timeout.ms": 7000, "log.flush.offset.checkpoint.interval.ms": 3_600_000},
        env={"CORELANE_FAULTS": f"fdatasync:SLOW600000:slow-0/{FIRST}:0"},
    )
    b.start()
    load.create_topic(b, "slow", 2)
    with wire.Conn(b, timeout=30) as conn:
        for n in range(20):
            assert wire.produce(conn, "slow", n % 2, wire.batch([b"%06d" % (n // 2)])) == (0, n // 2)
    mark = len(b.log_text())
    figure("SIGTERM to exit, limit 7 s", f"{b.stop(timeout=120):.1f} s")
    said = b.log_text()[mark:]
    assert "partitions=1" in said and "left to write and sync" in said and "corelane.shutdown.timeout.ms" in said, said
    assert not (b.data_dir / ".kafka_cleanshutdown").exists()
    b.env.clear()
    b.start(topics=["slow"])
    assert [numbers(b, "slow", p) for p in range(2)] == [list(range(10))] * 2


def create(conn, name, partitions):
    return wire.create_topics(conn, {name: (partitions, {})})[name]


def grow(broker, name, partitions):
    """-> error code"""
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    try:
        admin.create_partitions([NewPartitions(name, partitions)])[name].result(60)
    except KafkaException as e:
        return e.args[0].code()
    return 0


def partitions_shown(broker, topic):
    with wire.Conn(broker) as conn:
        return len(wire.metadata(conn, [topic])["topics"][topic]["partitions"])


def of_topic(data_dir, name):
    """What the data directory has of a topic that is there: its file and its partitions' directories."""
    found = [p.name for p in data_dir.glob(f"{name}-*") if not p.name.endswith("-delete")]
    return found + [p.name for p in (data_dir / "corelane-metadata" / "topics").glob(f"{name}.json")]


@pytest.mark.parametrize("ending", ["kill", "stop"])
def test_topics_and_partitions_on_a_full_disk(make_broker, corelane_only, small_disk, request, ending):
    """Each is made whole or not at all, also to the next start, and is made once there is room."""
    b = make_broker({"corelane.disk.reserve.bytes": 0}, data_dir=small_disk / "data")
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "grown", 2)
    # Room for a metadata file and for some of the partitions; for nothing at all.
    for n, leave in enumerate([600 << 10, 200 << 10, 60 << 10, 0]):
        filler = take_room(small_disk, leave)
        with wire.Conn(b, timeout=60) as conn:
            assert create(conn, f"new{n}", 150) == ERR["KAFKA_STORAGE_ERROR"], f"{leave} bytes are free"
            assert not wire.metadata(conn, [f"new{n}"])["topics"][f"new{n}"]["partitions"]
        until("nothing of it stays", lambda n=n: not of_topic(b.data_dir, f"new{n}"), b)
        assert grow(b, "grown", 150) == ERR["KAFKA_STORAGE_ERROR"], f"{leave} bytes are free"
        assert partitions_shown(b, "grown") == 2
        until("nothing of them stays", lambda: len(of_topic(b.data_dir, "grown")) == 3, b)
        if leave == 200 << 10:
            getattr(b, ending)()
            b.start(topics=["grown"])
            assert partitions_shown(b, "grown") == 2 and not of_topic(b.data_dir, f"new{n}")
        filler.unlink()
    with wire.Conn(b, timeout=60) as conn:
        for n in range(4):
            assert create(conn, f"new{n}", 3) == 0
        assert grow(b, "grown", 5) == 0
        b.kill()
    b.start(topics=["grown", *(f"new{n}" for n in range(4))])
    with wire.Conn(b) as conn:
        for p in range(5):
            assert wire.produce(conn, "grown", p, wire.batch([b"x"])) == (0, 0)
        for n in range(4):
            assert partitions_shown(b, f"new{n}") == 3
            assert wire.produce(conn, f"new{n}", 2, wire.batch([b"x"])) == (0, 0)
    assert "stay" not in "".join(s for s in b.log_text().splitlines() if "no topic claims" in s)


def test_a_data_directory_that_fails(make_broker, corelane_only, root, request):
    """All its partitions go offline, those that nobody writes to as well, as in Kafka; the others are served on."""
    try:
        disk = disks.Disk(root, "ext4", mib=128)
    except disks.Unavailable as e:
        pytest.skip(str(e))
    request.addfinalizer(disk.remove)
    # The first append that meets the failure is to say so.
    b = make_broker({"corelane.acknowledge": "written"})
    request.addfinalizer(b.kill)
    sound, failing = b.folder / "sound", disk.point / "data"
    b.props["log.dirs"] = f"{sound},{failing}"
    b.start()
    load.create_topic(b, "t", 6)
    away = [p for p in range(6) if (failing / f"t-{p}").is_dir()]
    here = [p for p in range(6) if p not in away]
    assert len(away) == len(here) == 3
    with wire.Conn(b, timeout=30) as conn:
        for p in range(6):
            assert wire.produce(conn, "t", p, wire.batch([b"x"])) == (0, 0)
        disk.cut_power()
        error, _ = wire.produce(conn, "t", away[0], wire.batch([b"y"]))
        assert error == ERR["KAFKA_STORAGE_ERROR"]
        seen = lambda: wire.metadata(conn, ["t"])["topics"]["t"]["partitions"]  # noqa: E731
        until("all of them are offline", lambda: [seen()[p]["leader"] for p in away] == [-1] * 3, b)
        for p in away:
            shown = seen()[p]
            assert (shown["error"], shown["replicas"], shown["isr"], shown["offline"]) == (LEADER_NOT_AVAILABLE, [0], [0], [0])
            assert wire.produce(conn, "t", p, wire.batch([b"y"]))[0] == ERR["KAFKA_STORAGE_ERROR"]
        for p in here:
            assert (seen()[p]["leader"], seen()[p]["offline"]) == (0, [])
            assert wire.produce(conn, "t", p, wire.batch([b"y"])) == (0, 1)
        said = until(
            "a line", lambda: [s for s in b.log_text().splitlines() if f"the data directory {failing} has failed" in s], b
        )
        assert "mend or replace its disk and start again" in said[0] and "3 partition(s)" in said[0], said
        # What is new goes where it can be.
        assert create(conn, "after", 4) == 0
        for p in range(4):
            assert wire.produce(conn, "after", p, wire.batch([b"x"])) == (0, 0)
    b.kill()
    disk.unmount()
    disk.mount()
    b.start(topics=["t", "after"])
    with wire.Conn(b) as conn:
        for p in here:
            assert wire.offset(conn, "t", p, -1) == 2
    b.kill()
