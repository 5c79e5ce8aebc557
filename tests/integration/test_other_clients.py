"""Clients in Go, JavaScript, Python and Rust, each in a program of its own (tests/clients), all by one contract."""

import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from support import clients, clock, load, wire
from test_clients import CODECS

FIRST_TIME = 1_700_000_000_000
BY_NAME = {c.name: c for c in clients.CLIENTS}
each_client = pytest.mark.parametrize("client", clients.CLIENTS, ids=BY_NAME)


@pytest.fixture
def broker(group_broker):
    """kafkajs reads in groups only, so all tests here want the shorter times."""
    return group_broker


def of(what):
    """Each client with each value of `what(client)`."""
    pairs = [(c, v) for c in clients.CLIENTS for v in what(c)]
    return pytest.mark.parametrize("client,value", pairs, ids=[f"{c.name}-{v}" for c, v in pairs])


def record(i, partitions):
    """Record i: text that compresses, and now and then null or empty, beside headers and a time of its own."""
    value = {11: None, 12: ""}.get(i % 50, load.line(i).decode())
    # aiokafka wants one of the two.
    key = None if i % 7 == 3 and value is not None else f"key-{i}"
    headers = [] if i % 3 else [["number", str(i)], ["empty", ""], ["schlüssel", "wört"]]
    return {"p": i % partitions, "t": FIRST_TIME + i * 1000, "k": key, "v": value, "h": headers}


def produce(client, broker, topic, records, codec="none", acks="all", idempotent=False):
    (told,) = client.run(broker, "produce", records, topic=topic, codec=codec, acks=acks, idempotent=idempotent)
    return told["offsets"]


def seen(client, r):
    """A record as the client tells it: some take null for empty."""
    return r if client.nulls else {**r, "k": r["k"] or "", "v": r["v"] or ""}


def check(client, broker, topic, partitions, records):
    """Reads everything from the beginning: the records of each partition, in order."""
    told = client.run(broker, "consume", topic=topic, partitions=partitions, count=len(records))
    for p in range(partitions):
        due = [r for r in records if r["p"] == p]
        wanted = [seen(client, {**r, "o": o}) for o, r in enumerate(due)]
        assert [seen(client, r) for r in told if r["p"] == p] == wanted, f"partition {p}"


def offsets(records):
    ends, given = {}, []
    for r in records:
        given.append([r["p"], ends.get(r["p"], 0)])
        ends[r["p"]] = given[-1][1] + 1
    return given


@of(lambda c: c.codecs)
def test_codecs(broker, topic, client, value):
    name, records = topic(3, retention_ms=-1), [record(i, 3) for i in range(600)]
    assert produce(client, broker, name, records, codec=value) == offsets(records)
    check(client, broker, name, 3, records)
    stored = [b for p in range(3) for b in load.first_batches(broker, name, p)]
    assert {b.attributes & 7 for b in stored} == {CODECS[value]}


@of(lambda c: ["0", "1", "all"])
def test_acks(broker, topic, client, value):
    name, records = topic(2, retention_ms=-1), [record(i, 2) for i in range(400)]
    given = produce(client, broker, name, records, acks=value)
    assert value == "0" or given == offsets(records)
    check(client, broker, name, 2, records)


@pytest.mark.parametrize("client", [c for c in clients.CLIENTS if c.idempotent], ids=lambda c: c.name)
def test_idempotent(broker, topic, client):
    name, records = topic(3, retention_ms=-1), [record(i, 3) for i in range(600)]
    assert produce(client, broker, name, records, idempotent=True) == offsets(records)
    check(client, broker, name, 3, records)
    (first, *_) = load.first_batches(broker, name, 0)
    assert first.pid >= 0, "written without a producer id"


@each_client
def test_what_others_wrote(broker, topic, client):
    """Each codec that the client has, as librdkafka writes it, in one log."""
    name, i = topic(1, retention_ms=-1), 0
    for codec in client.codecs:
        p = load.producer(broker, compression_type=codec)
        for _ in range(100):
            r = record(i, 1)
            headers = [(k, v.encode()) for k, v in r["h"]]
            p.produce(name, r["v"], r["k"], 0, headers=headers, timestamp=r["t"])
            i += 1
        assert p.flush(30) == 0
    check(client, broker, name, 1, [record(i, 1) for i in range(i)])


@each_client
def test_long_poll_at_the_end(broker, topic, client):
    """A fetch that waits up to a minute at the end brings the next record once it is there."""
    name = topic(1)
    load.produce_lines(broker, name, 100, 1)
    with client.spawn(broker, "consume", topic=name, partitions=1, offset=100, count=1, wait=60_000) as process:
        time.sleep(1.5)
        assert not process.told
        sent = time.monotonic()
        with wire.Conn(broker.leading(name)) as conn:
            assert wire.produce(conn, name, 0, wire.batch([b"wake"])) == (0, 100)
        process.until(lambda: process.told, timeout=90)
        took = time.monotonic() - sent
        assert (process.told[0]["o"], process.told[0]["v"]) == (100, "wake")
        # Half of the wait tells the two apart on whatever machine.
        assert took < 30, f"{took:.1f} s from produce to the record in a client that waits for 60"
        process.finish()


def described_configs(broker, topic):
    admin, resource = AdminClient({"bootstrap.servers": broker.bootstrap}), ConfigResource("topic", topic)
    return admin.describe_configs([resource])[resource].result(30)


@each_client
def test_administration(broker, client):
    name = f"administered-{client.name}-{time.time_ns()}"
    with client.spawn(broker, "admin") as admin:

        def until_listed(partitions):
            """Kafka's metadata follow a change a little later."""
            end = clock.running() + 30
            while (found := admin.ask("topics")["topics"].get(name)) != partitions:
                assert clock.running() < end, f"listed with {found} partitions, not {partitions}"
                time.sleep(0.05)

        assert admin.ask("create", name, 2, "retention.ms=7200000", "cleanup.policy=compact")["error"] == 0
        until_listed(2)
        assert admin.ask("create", name, 2)["error"] == wire.ERR["TOPIC_ALREADY_EXISTS"]
        described = described_configs(broker, name)
        assert (described["retention.ms"].value, described["cleanup.policy"].value) == ("7200000", "compact")
        assert admin.ask("grow", name, 5)["error"] == 0
        until_listed(5)
        assert admin.ask("grow", name, 3)["error"] == wire.ERR["INVALID_PARTITIONS"]
        assert admin.ask("delete", name)["error"] == 0
        until_listed(None)
        assert admin.ask("delete", name)["error"] == wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"]
        admin.finish()


@each_client
def test_offsets_by_time(broker, topic, client):
    """Also of what the client itself wrote: Sarama before 1.45.1 leaves the largest timestamp of a batch at -1."""
    name, records = topic(2, retention_ms=-1), [record(i, 2) for i in range(100)]
    produce(client, broker, name, records)
    with client.spawn(broker, "admin") as admin:
        # Kafka answers from the time index, which follows the records.
        assert admin.ask("offsets", name, -2)["offsets"] == [0, 0]
        assert admin.ask("offsets", name, -1)["offsets"] == [50, 50]
        for i in (1, 2, 41, 98):
            # Partition 0 has the even ones.
            assert admin.ask("offsets", name, FIRST_TIME + i * 1000)["offsets"] == [(i + 1) // 2, i // 2], f"time of record {i}"
            assert admin.ask("offsets", name, FIRST_TIME + i * 1000 - 1)["offsets"] == [(i + 1) // 2, i // 2], f"before {i}"
        assert admin.ask("offsets", name, FIRST_TIME - 5000)["offsets"] == [0, 0]
        # After the last record: none, which some clients take for the end.
        assert admin.ask("offsets", name, FIRST_TIME + 100_000)["offsets"] in ([-1, -1], [50, 50])
        admin.finish()
    with wire.Conn(broker.leading(name)) as conn:
        assert wire.list_offsets(conn, name, [0], -3, 7)[0] == (0, FIRST_TIME + 98_000, 49), "largest timestamp"


class Members:
    """The members of one group, each a process."""

    def __init__(self, client, broker, topic, partitions):
        self.client, self.broker, self.topic, self.partitions = client, broker, topic, partitions
        self.group, self.all, self.there = f"{topic}-members", [], []

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in self.all:
            process.__exit__()

    def start(self):
        process = self.client.spawn(self.broker, "group", topic=self.topic, group=self.group)
        self.all.append(process)
        self.there.append(process)
        return process

    def leave(self, process):
        self.there.remove(process)
        told = process.finish()
        assert told[-1] == {"e": "closed"} and not [e for e in told if e["e"] == "failed"], str(process)

    def own(self, process):
        return next((e["p"] for e in reversed(list(process.told)) if e["e"] == "assigned"), [])

    def settled(self):
        owned = [self.own(m) for m in self.there]
        return all(owned) and sorted(sum(owned, [])) == list(range(self.partitions))

    def records(self, process):
        return [(e["p"], e["o"]) for e in list(process.told) if e["e"] == "record"]

    def all_records(self):
        return sorted(r for m in self.all for r in self.records(m))

    def committed(self, end):
        """The commits of all members that were acknowledged reach `end` in each partition."""
        told = [tuple(o) for m in self.all for e in list(m.told) if e["e"] == "committed" for o in e["o"]]
        return {p for p, o in told if o == end} == set(range(self.partitions))


@each_client
def test_group(group_broker, client):
    """Two members share, one leaves, another comes after all have gone: every record is read once, since each change finds
    everything committed."""
    name = load.create_topic(group_broker, f"group-{client.name}-{time.time_ns()}", 4)
    ends = 0

    def more():
        nonlocal ends
        ends += 25
        load.produce_lines(group_broker, name, 100, 4)

    with Members(client, group_broker, name, 4) as members:

        def all_read():
            members.there[0].until(lambda: members.committed(ends))
            assert members.all_records() == [(p, o) for p in range(4) for o in range(ends)]

        more()
        first = members.start()
        first.until(members.settled)
        all_read()
        second = members.start()
        second.until(members.settled)
        assert sorted(map(len, map(members.own, members.there))) == [2, 2]
        before = len(members.records(second))
        more()
        all_read()
        assert len(members.records(second)) - before == 50, "each member reads what is its own"
        members.leave(first)
        second.until(members.settled)
        more()
        all_read()
        members.leave(second)
        more()
        third = members.start()
        all_read()
        assert len(members.records(third)) == 100
        members.leave(third)
    c = load.consumer(group_broker, group_id=members.group)
    assert [tp.offset for tp in c.committed([ck.TopicPartition(name, p) for p in range(4)], timeout=30)] == [ends] * 4
    c.close()
