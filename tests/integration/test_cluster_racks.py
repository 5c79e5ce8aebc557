"""Consumers that read from a replica in their own rack (KIP-392)."""

import json
import shutil
import time

import confluent_kafka
import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from support import cluster as clusters
from support import wire
from support.broker import target

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
NOT_LEADER_OR_FOLLOWER = 6
RECORDS = 2000


@pytest.fixture
def racks(root, request):
    c = clusters.Cluster(root / "racks", props={"replica.selector.class": RACK_AWARE})
    for n, b in c.brokers.items():
        b.props["broker.rack"] = f"rack-{n}"
    yield c.start()
    c.kill()
    for b in c.brokers.values():
        assert "panicked at" not in b.log_text(), b.log_tail()
    if not request.config.getoption("--keep"):
        shutil.rmtree(c.folder, ignore_errors=True)


def test_a_consumer_reads_in_its_rack(racks):
    admin = AdminClient({"bootstrap.servers": racks.bootstrap})
    admin.create_topics([NewTopic("t", 1, 3)], request_timeout=60)["t"].result(90)
    racks.wait_for_isr("t", set(racks.brokers))
    leader = racks.describe("t")[0][0]
    near = min(n for n in racks.brokers if n != leader)
    producer = confluent_kafka.Producer({"bootstrap.servers": racks.bootstrap, "acks": "all"})
    for n in range(RECORDS):
        producer.produce("t", b"%d" % n)
    assert producer.flush(60) == 0

    def fetch(of, rack):
        with wire.Conn(racks[of]) as conn:
            return wire.fetch(conn, "t", 0, 0, rack=rack)

    assert fetch(leader, f"rack-{near}")["preferred"] == near
    for rack in ("", f"rack-{leader}", "elsewhere"):
        got = fetch(leader, rack)
        assert (got["preferred"], bool(got["data"])) == (-1, True), rack
    racks.wait(lambda: fetch(near, f"rack-{near}")["data"], 10, "a follower serves")
    assert fetch(near, "")["error"] == NOT_LEADER_OR_FOLLOWER

    # A real client; where it reads is told by its statistics.
    seen = {}

    def note(stats):
        for broker in json.loads(stats)["brokers"].values():
            seen[broker["nodeid"]] = max(seen.get(broker["nodeid"], 0), broker["rxbytes"])

    def consumer(group, n):
        options = {"group.id": group, "auto.offset.reset": "earliest", "client.rack": f"rack-{n}"}
        return confluent_kafka.Consumer(
            {"bootstrap.servers": racks.bootstrap, "statistics.interval.ms": 200, "stats_cb": note, **options}
        )

    def read(c, count):
        values, end = [], time.monotonic() + 60
        while len(values) < count and time.monotonic() < end:
            message = c.poll(0.2)
            if message is not None:
                assert message.error() is None, message.error()
                values.append(int(message.value()))
        return values

    c = consumer("near", near)
    c.subscribe(["t"])
    assert read(c, RECORDS) == list(range(RECORDS))
    # Later records come there as well, and soon: the follower is told what is committed.
    for n in range(RECORDS, 2 * RECORDS):
        producer.produce("t", b"%d" % n)
    assert producer.flush(60) == 0
    assert read(c, RECORDS) == list(range(RECORDS, 2 * RECORDS))
    c.poll(0.5)
    size = sum(len(str(n)) for n in range(RECORDS, 2 * RECORDS))
    assert seen[near] > size, f"bytes received of each broker: {seen}"
    # Its replica dies: the leader serves on.
    racks[near].kill()
    for n in range(2 * RECORDS, 3 * RECORDS):
        producer.produce("t", b"%d" % n)
    assert producer.flush(60) == 0
    assert read(c, RECORDS) == list(range(2 * RECORDS, 3 * RECORDS))
    c.close()
