"""Failing disks: nothing is acknowledged after a failed write or sync, and what was acknowledged stays.

`CORELANE_FAULTS` makes the broker's own file operations fail: `op:error:part of the path:how many pass first`.
"""

import os
import socket
import time

import pytest

from support import load, proc, wire
from support.wire import ERR

FIRST = "00000000000000000000.log"
REFUSED = {ERR["KAFKA_STORAGE_ERROR"], ERR["NOT_LEADER_OR_FOLLOWER"]}


def append_until_refused(broker, topic, limit=20_000):
    """-> (acknowledged values, the error that ended it)"""
    acked = []
    with wire.Conn(broker, timeout=30) as conn:
        for n in range(limit):
            value = b"%06d" % n + bytes(3000)
            error, base = wire.produce(conn, topic, 0, wire.batch([value]))
            if error:
                return acked, error
            assert base == n
            acked.append(value)
    raise AssertionError(f"{limit} appends, none refused: the fault did not bite\n{broker.log_tail()}")


def stored(broker, topic, partition=0):
    out, at = [], 0
    with wire.Conn(broker) as conn:
        end = wire.offset(conn, topic, partition, -1)
        while at < end:
            for b in wire.batches(wire.fetch(conn, topic, partition, at)["data"]):
                assert b.base == at and b.crc_ok()
                out += b.values()
                at = b.last + 1
    return out


@pytest.mark.parametrize("fault", ["write:EIO", "write:ENOSPC", "write:SHORT"])
@pytest.mark.parametrize("passing", [0, 1, 20])
@pytest.mark.parametrize("acknowledge", ["written", "held"])
def test_write_fails(make_broker, corelane_only, fault, passing, acknowledge):
    b = make_broker(
        # Held batches are written soon, so that not many are needed for so many writes.
        {"corelane.acknowledge": acknowledge, "corelane.write.behind.max.ms": 1},
        env={"CORELANE_FAULTS": f"{fault}:broken-0/{FIRST}:{passing}"},
    )
    b.start()
    load.create_topic(b, "broken", 2)
    load.create_topic(b, "sound", 1)
    acked, error = append_until_refused(b, "broken")
    assert error in REFUSED, f"error {error}"
    with wire.Conn(b, timeout=30) as conn:
        for _ in range(5):
            late, _ = wire.produce(conn, "broken", 0, wire.batch([b"late"]))
            # A disk that was full is tried again after a while, and what is held is acknowledged until its write fails.
            if late == 0 and (fault, acknowledge) == ("write:ENOSPC", "held"):
                acked.append(b"late")
                continue
            assert late in REFUSED, "acknowledged after a failed write"
        assert wire.produce(conn, "broken", 1, wire.batch([b"other partition"])) == (0, 0)
        assert wire.produce(conn, "sound", 0, wire.batch([b"other topic"])) == (0, 0)
    lines = [s for s in b.log_text().splitlines() if "broken-0" in s and ("ERROR" in s or "offline" in s)]
    assert lines, f"the log does not say that broken-0 is offline, and why:\n{b.log_tail()}"
    b.kill()
    b.env.clear()
    b.start(topics=["broken", "sound"])
    there = stored(b, "broken")
    assert there[: len(acked)] == acked, f"{len(acked)} acknowledged, {len(there)} there"
    assert len(there) <= len(acked) + 6
    assert stored(b, "broken", 1) == [b"other partition"] and stored(b, "sound") == [b"other topic"]
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "broken", 0, wire.batch([b"again"])) == (0, len(there))


@pytest.mark.parametrize("where", ["broker", "topic"])
def test_sync_before_the_acknowledgement(make_broker, corelane_only, where):
    """With flush.messages=1 a failing fdatasync refuses the append, which shows that the sync comes before the answer."""
    props = {"log.flush.interval.messages": 1} if where == "broker" else {}
    b = make_broker(props, env={"CORELANE_FAULTS": f"fdatasync:EIO:/synced-0/{FIRST}:0"})
    b.start()
    load.create_topic(b, "synced", 2, **({"flush_messages": 1} if where == "topic" else {}))
    with wire.Conn(b, timeout=30) as conn:
        for _ in range(3):
            assert wire.produce(conn, "synced", 0, wire.batch([b"x"]))[0] in REFUSED
        assert wire.produce(conn, "synced", 1, wire.batch([b"x"])) == (0, 0)


def test_no_sync_is_waited_for_by_default(make_broker, corelane_only):
    """The counterpart, or the test above would pass on a broker that refuses everything."""
    b = make_broker({"corelane.checkpoint.bytes": 1 << 30}, env={"CORELANE_FAULTS": f"fdatasync:EIO:/unsynced-0/{FIRST}:0"})
    b.start()
    load.create_topic(b, "unsynced", 1)
    with wire.Conn(b, timeout=30) as conn:
        assert wire.produce(conn, "unsynced", 0, wire.batch([b"x"])) == (0, 0)


def test_flush_messages_keeps_its_order_and_speed(make_broker, figure):
    """Synced appends from many requests at once share their syncs."""
    b = make_broker()
    b.start()
    load.create_topic(b, "flush", 4, flush_messages=1)
    began = time.monotonic()
    load.produce_lines(b, "flush", 20_000, 4, enable_idempotence=True)
    figure("flush.messages=1, 20,000 lines", f"{time.monotonic() - began:.2f} s")
    load.check_lines(b, "flush", 20_000, 4)


def test_full_disk(make_broker, corelane_only, small_disk, request):
    """A disk that fills up refuses writes and loses nothing; with room again the broker goes on after a restart."""
    b = make_broker({"log.segment.bytes": 8 << 20}, data_dir=small_disk / "data")
    request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "full", 1)
    filler = small_disk / "filler"
    filler.write_bytes(bytes(8 << 20))
    values, acked, n = [os.urandom(60_000) for _ in range(4)], 0, 0
    with wire.Conn(b, timeout=30) as conn:
        for n in range(4000):
            error, _ = wire.produce(conn, "full", 0, wire.batch([values[n % 4]]))
            if error:
                break
            acked += 1
        assert error in REFUSED, f"error {error} after {n} appends of 60 kB on a disk of 64 MiB"
        assert acked > 500, f"only {acked} appends of 60 kB fitted on a disk of 64 MiB"
        assert wire.api_versions(conn)[0] == 0, "the broker still answers"
    b.kill()
    filler.unlink()
    b.start(topics=["full"])
    there = stored(b, "full")
    assert there[:acked] == [values[i % 4] for i in range(acked)], f"{acked} acknowledged, {len(there)} there"
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "full", 0, wire.batch([b"room again"])) == (0, len(there))
    b.kill()


def test_sigterm_is_clean(make_broker, figure):
    """SIGTERM under load ends with exit code 0, keeps what was acknowledged and leaves no preallocated tail."""
    b = make_broker()
    b.start()
    load.create_topic(b, "clean", 2)
    load.produce_lines(b, "clean", 50_000, 2, enable_idempotence=True)
    figure("SIGTERM to exit", f"{b.stop():.2f} s")
    for log in b.data_dir.glob("clean-*/*.log"):
        data = log.read_bytes()
        assert sum(len(x.data) for x in wire.batches(data)) == len(data), f"{log} does not end with its last batch"
    assert proc.disk_bytes(b.data_dir) < 64 << 20
    if b.kind == "corelane":
        mark = len(b.log_text())
        b.start(topics=["clean"])
        said = b.log_text()[mark:]
        assert "clean" in said.lower(), f"the log does not say that the last stop was clean:\n{said}"
    else:
        b.start(topics=["clean"])
    load.check_lines(b, "clean", 50_000, 2)


def test_a_flood_of_connections_takes_no_partition_offline(make_broker, corelane_only):
    """Few descriptors, more connections than fit, and a partition that opens a new segment every few appends."""
    b = make_broker(args=["--override", "corelane.shards=2"])
    plain = b.command
    b.command = lambda config: ["prlimit", "--nofile=160:160", *plain(config)]
    b.spawn()
    b.wait(time.monotonic())
    load.create_topic(b, "rolling", 2, segment_bytes=1 << 20)
    flood = []
    try:
        with wire.Conn(b, timeout=60) as conn:
            # It has its place before the others come.
            assert wire.produce(conn, "rolling", 0, wire.batch([b"x"]))[0] == 0
            for _ in range(400):
                sock = socket.socket()
                sock.setblocking(False)
                sock.connect_ex((b.host, b.port))
                flood.append(sock)
            time.sleep(0.5)
            for n in range(40):
                assert wire.produce(conn, "rolling", n % 2, wire.batch([bytes(300_000)]))[0] == 0, f"append {n}"
    finally:
        for sock in flood:
            sock.close()
    time.sleep(0.5)
    with wire.Conn(b, timeout=30) as conn:
        assert [wire.offset(conn, "rolling", p, -1) for p in range(2)] == [21, 20]
