"""Full, failing and slow disks: what goes offline is shown, what was full comes back by itself, and what can wait waits."""

import errno
import os
import time

from support import groups, java, load, wire
from support.wire import ERR

FIRST = "00000000000000000000.log"
LEADER_NOT_AVAILABLE = 5


def until(what, check, broker, timeout=30):
    """Waits for something that the broker does by itself."""
    end = time.monotonic() + timeout
    while True:
        found = check()
        if found:
            return found
        assert time.monotonic() < end, f"{what}: not within {timeout} s\n{broker.log_tail()}"
        time.sleep(0.1)


def partition_of(broker, topic, partition=0):
    with wire.Conn(broker) as conn:
        return wire.metadata(conn, [topic])["topics"][topic]["partitions"][partition]


def test_an_offline_partition_is_shown(make_broker, corelane_only):
    """As Kafka shows a failed log directory: no leader, an offline replica; and the log says so."""
    b = make_broker(env={"CORELANE_FAULTS": f"write:EIO:broken-0/{FIRST}:0"})
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
