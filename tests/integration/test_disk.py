"""Full, failing and slow disks: what goes offline is shown, what was full comes back by itself, and what can wait waits."""

import time

from support import java, load, wire
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
