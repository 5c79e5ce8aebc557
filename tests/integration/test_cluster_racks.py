"""Consumers that read from a replica in their own rack (KIP-392)."""

import json
import time

import confluent_kafka
import pytest

from support import wire
from support.broker import target

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
RACK_AWARE = "org.apache.kafka.common.replica.RackAwareReplicaSelector"
NOT_LEADER_OR_FOLLOWER = 6
RECORDS = 2000


@pytest.fixture
def racks(make_cluster):
    def name(c):
        for n, b in c.brokers.items():
            b.props["broker.rack"] = f"rack-{n}"

    return make_cluster(props={"replica.selector.class": RACK_AWARE}, prepare=name)


def test_a_consumer_reads_in_its_rack(racks):
    racks.create("t")
    leader = racks.leader("t")
    near = min(n for n in racks.brokers if n != leader)
    producer = confluent_kafka.Producer({"bootstrap.servers": racks.bootstrap, "acks": "all"})

    def produce(numbers):
        for n in numbers:
            producer.produce("t", b"%d" % n)
        assert producer.flush(60) == 0

    produce(range(RECORDS))

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

    def read(c, count):
        values, end = [], time.monotonic() + 60
        while len(values) < count and time.monotonic() < end:
            message = c.poll(0.2)
            if message is not None:
                assert message.error() is None, message.error()
                values.append(int(message.value()))
        return values

    options = {"group.id": "near", "auto.offset.reset": "earliest", "client.rack": f"rack-{near}"}
    stats = {"statistics.interval.ms": 200, "stats_cb": note}
    c = confluent_kafka.Consumer({"bootstrap.servers": racks.bootstrap, **options, **stats})
    c.subscribe(["t"])
    assert read(c, RECORDS) == list(range(RECORDS))
    # Later records come there as well, and soon: the follower is told what is committed.
    produce(range(RECORDS, 2 * RECORDS))
    assert read(c, RECORDS) == list(range(RECORDS, 2 * RECORDS))
    c.poll(0.5)
    size = sum(len(str(n)) for n in range(RECORDS, 2 * RECORDS))
    assert seen[near] > size, f"bytes received of each broker: {seen}"
    # Its replica dies: the leader serves on.
    racks[near].kill()
    produce(range(2 * RECORDS, 3 * RECORDS))
    assert read(c, RECORDS) == list(range(2 * RECORDS, 3 * RECORDS))
    c.close()
