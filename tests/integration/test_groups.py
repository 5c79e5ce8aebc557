"""Consumer groups with stock clients: members that come, go and die under load, and what a group promises its members."""

import itertools
import random
import re
import signal
import threading
import time
from types import SimpleNamespace

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from support import load, wire
from support.broker import QUICK_GROUPS
from support.groups import coordinator, fetch_offsets, list_groups, wait_ready
from support.members import Member, Members

SESSION_MS = 6000
IN_TIME = SESSION_MS / 1000 + 2

CLASSIC = {"session_timeout_ms": SESSION_MS, "heartbeat_interval_ms": 500}
NEW = {"group_protocol": "consumer"}
JAVA = "org.apache.kafka.clients.consumer."


def java_classic(assignor="CooperativeStickyAssignor", **more):
    return {**CLASSIC, "group_protocol": "classic", "partition_assignment_strategy": JAVA + assignor, **more}


def confluent_classic(assignor="cooperative-sticky", **more):
    return {**CLASSIC, "partition_assignment_strategy": assignor, **more}


# What each kind of client can do: the newer protocol is not in kafka-python.
WAYS = {
    "confluent": {
        "range": confluent_classic("range"),
        "roundrobin": confluent_classic("roundrobin"),
        "cooperative-sticky": confluent_classic(),
        "consumer-uniform": {**NEW, "group_remote_assignor": "uniform"},
    },
    "kafka-python": {
        "range": confluent_classic("range"),
        "cooperative-sticky": confluent_classic(),
    },
    "java": {
        "range": java_classic("RangeAssignor"),
        "cooperative-sticky": java_classic(),
        "consumer-uniform": {**NEW, "group_remote_assignor": "uniform"},
        "consumer-range": {**NEW, "group_remote_assignor": "range"},
    },
}  # fmt: skip
PROTOCOLS = {
    "confluent": {"classic": confluent_classic(), "consumer": NEW},
    "java": {"classic": java_classic(), "consumer": NEW},
    "kafka-python": {"classic": confluent_classic()},
}  # fmt: skip

_numbers = itertools.count()


@pytest.fixture
def fresh():
    """A new name for a topic or a group."""
    return lambda what="g": f"{what}-{next(_numbers)}-{time.time_ns() % 10**9}"


@pytest.fixture
def crowd(group_broker, tmp_path, length):
    """At acceptance length one test runs alone, and the times are held to the second."""
    wait_ready(group_broker, "warm-up")
    members = Members(group_broker, tmp_path / "members", spare=length.pick(12, 0))
    yield members
    members.close()


class Writer(threading.Thread):
    """Writes to all partitions in turn, `rate` records a second, until stopped."""

    def __init__(self, broker, topic, partitions, rate):
        super().__init__(daemon=True)
        self.broker, self.topic, self.partitions, self.rate = broker, topic, partitions, rate
        self.reports, self.sent, self.done = load.Deliveries(), 0, threading.Event()

    def run(self):
        producer, began = load.producer(self.broker, linger_ms=50), time.monotonic()
        while not self.done.is_set():
            due = int((time.monotonic() - began) * self.rate)
            for n in range(self.sent, due):
                producer.produce(self.topic, b"%012d" % n + b"x" * 88, partition=n % self.partitions, on_delivery=self.reports)
            self.sent = max(due, self.sent)
            producer.poll(0.02)
        producer.flush(60)

    def finish(self):
        """-> {(topic, partition): end}"""
        self.done.set()
        self.join(90)
        assert not self.reports.errors and self.reports.count == self.sent, f"{self.reports.errors[:3]}"
        return ends_of(self.broker, self.topic, self.partitions)


def ends_of(broker, topic, partitions):
    ends = {}
    for p in range(partitions):
        with wire.Conn(broker.leading(topic, p)) as conn:
            ends[topic, p] = wire.offset(conn, topic, p, -1)
    return ends


def write(broker, topic, partitions, count):
    load.produce_lines(broker, topic, count, partitions)
    return ends_of(broker, topic, partitions)


def committed(broker, group):
    with wire.Conn(coordinator(broker, group)) as conn:
        code, found = fetch_offsets(conn, group)
    assert code == 0
    return {tp: p.CommittedOffset for tp, p in found.items()}


class Churn:
    """Members of several groups, one of each group's in every slot of a host; hosts start and are killed, members leave and return."""

    PARTITIONS = 64

    def __init__(self, crowd, kind, ways, hosts, per_host, topic):
        self.crowd, self.kind, self.ways, self.per_host, self.topic = crowd, kind, ways, per_host, topic
        self.groups = {way: crowd.group(f"churn-{kind}-{way}-{time.time_ns()}", self.PARTITIONS) for way in ways}
        self.times = {}
        self.hosts = []
        self.full, self.dice = hosts, random.Random(5)

    def members(self, host, per_host):
        out = []
        for (way, config), n in itertools.product(self.ways.items(), range(per_host)):
            commit = "async" if len(self.crowd.members) % 2 else "sync"
            out.append(self.crowd.start(host, self.groups[way], self.topic, commit=commit, **config))
        return out

    def settle(self, what, since):
        """Answers nothing; keeps how long it took, less what the machine stood still for."""
        took = self.crowd.settle(since, IN_TIME, list(self.groups.values()), what)
        self.times.setdefault(what, []).append(took - self.crowd.stalls.since(since))

    def fill(self):
        new = [self.crowd.host(self.kind) for _ in range(self.full - len(self.hosts))]
        self.hosts += new
        started = [m for h in new for m in self.members(h, self.per_host)]
        self.settle("join", self.crowd.joined(started))

    def kill(self):
        host = self.hosts.pop(self.dice.randrange(len(self.hosts)))
        since = time.monotonic_ns()
        self.crowd.kill(host)
        self.settle("kill", since)

    def leave_and_return(self):
        leaving = [self.dice.choice(g.live()) for g in self.groups.values()]
        since = time.monotonic_ns()
        for m in leaving:
            self.crowd.stop(m)
        self.settle("leave", since)
        back = [m for host in {m.host.name: m.host for m in leaving}.values() for m in self._again(host, leaving)]
        self.settle("join", self.crowd.joined(back))

    def _again(self, host, left):
        ways = {g.name: way for way, g in self.groups.items()}
        return [
            self.crowd.start(host, m.group, self.topic, commit="sync", **self.ways[ways[m.group.name]]) for m in left if m.host is host
        ]

    def run(self, seconds, figure):
        self.fill()
        end = time.monotonic() + seconds
        while True:
            self.leave_and_return()
            self.kill()
            self.fill()
            if time.monotonic() > end:
                break
            time.sleep(self.dice.uniform(0, 1))
        for what, times in self.times.items():
            figure(f"{what}: until all groups are settled", f"median {sorted(times)[len(times) // 2]:.2f} s, worst {max(times):.2f} s of {len(times)}")


def test_the_history_of_a_wrong_group_is_refused(root, tmp_path):
    """The checks below are able to fail."""

    def refused(*events):
        crowd = Members(SimpleNamespace(folder=root, bootstrap=""), tmp_path / "members")
        group = crowd.group("g", 1)
        crowd.members = {name: Member(None, name, group) for name in ("a", "b")}
        crowd.seen = [{"t": n, "m": m, "e": kind, **more} for n, (m, kind, more) in enumerate(events)]
        try:
            crowd.check_history()
        except AssertionError as e:
            return str(e)
        finally:
            crowd.close()

    have, gone = {"p": [["t", 0]]}, {"r": [["t", 0, 0, 4]]}
    assert refused(("a", "assigned", have), ("a", "batch", gone), ("a", "committed", {"o": [["t", 0, 5]]})) is None
    assert "nobody was given" in refused(("a", "batch", gone), ("a", "committed", {"o": [["t", 0, 6]]}))
    assert "nobody was given" in refused(("a", "batch", {"r": [["t", 0, 1, 4]]}), ("a", "committed", {"o": [["t", 0, 5]]}))
    assert "while a had it" in refused(("a", "assigned", have), ("b", "assigned", have))
    assert refused(("a", "assigned", have), ("a", "revoked", have), ("b", "assigned", have)) is None
    assert "ended" in refused(("a", "error", {"error": "x"}))


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind,hosts,per_host,rate", [("confluent", 8, 1, 1000), ("java", 2, 4, 1000), ("kafka-python", 4, 2, 500)])
def test_churn_under_load(group_broker, crowd, length, figure, fresh, kind, hosts, per_host, rate):
    """8 members a group on 64 partitions. Every record is delivered, none is committed before it is, the shares are even once a
    change is over, and that is so within the session timeout and two seconds."""
    topic = load.create_topic(group_broker, fresh("churn"), Churn.PARTITIONS)
    for way in WAYS[kind]:
        wait_ready(group_broker, f"churn-{kind}-{way}")
    writer = Writer(group_broker, topic, Churn.PARTITIONS, rate)
    writer.start()
    churn = Churn(crowd, kind, WAYS[kind], hosts, per_host, topic)
    churn.run(length.pick(8, 120), figure)
    ends = writer.finish()
    groups = churn.groups.values()
    crowd.until(lambda: all(g.read_to(ends) for g in groups), "delivery of every record", 60)
    crowd.until(lambda: all(g.committed_to(ends) for g in groups), "commits of every record", 30)
    assert all(g.settled() for g in groups)
    crowd.finish()
    crowd.check_history()
    for g in groups:
        assert committed(group_broker, g.name) == ends, f"{g.name}: what the broker keeps is not what was committed"
    figure("records", sum(ends.values()))
    figure("the machine stood still for", f"{crowd.stalls.since(0):.1f} s")


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_ways_to_commit(group_broker, crowd, fresh, kind):
    """Where one member stopped, the next goes on, whether it committed by itself, was told to, waited for it, or did not commit."""
    topic = load.create_topic(group_broker, fresh("commits"), 4)
    ends = write(group_broker, topic, 4, 400)
    ways = [(p, mode) for p in PROTOCOLS[kind] for mode in ("sync", "async", "auto", "none")]
    groups = {way: crowd.group(fresh("-".join(way)), 4) for way in ways}

    def start():
        host = crowd.host(kind)
        return {
            (p, mode): crowd.start(host, groups[p, mode], topic, commit=mode, auto_commit_interval_ms=200, **PROTOCOLS[kind][p])
            for p, mode in ways
        }

    start()
    crowd.until(lambda: all(g.read_to(ends) for g in groups.values()), "delivery", 30)
    crowd.finish()
    for (_, mode), g in groups.items():
        assert committed(group_broker, g.name) == ({} if mode == "none" else ends), g.name
    later, again = write(group_broker, topic, 4, 40), start()
    due = {way: 440 if way[1] == "none" else 40 for way in ways}
    count = lambda m: sum(last - first + 1 for _, _, first, last in m.batches)  # noqa: E731
    crowd.until(lambda: all(g.read_to(later) and count(again[way]) >= due[way] for way, g in groups.items()), "delivery again", 30)
    crowd.finish()
    assert {way: count(m) for way, m in again.items()} == due


RESETS = {
    "confluent": ["earliest", "latest", "error"], "java": ["earliest", "latest", "none", "by_duration:PT1H"], "kafka-python": ["earliest", "latest"],
}  # fmt: skip


@pytest.mark.parametrize("kind", PROTOCOLS)
def test_where_a_group_without_offsets_begins(group_broker, crowd, fresh, kind):
    topic = load.create_topic(group_broker, fresh("reset"), 2)
    ends = write(group_broker, topic, 2, 20)
    host, got = crowd.host(kind), {reset: [] for reset in RESETS[kind]}
    for config, reset in itertools.product(PROTOCOLS[kind].values(), RESETS[kind]):
        group = crowd.group(fresh("reset"), 2)
        got[reset].append(crowd.start(host, group, topic, **{**config, "auto_offset_reset": reset}))
    crowd.joined([m for some in got.values() for m in some])
    for reset in ("earliest", "by_duration:PT1H"):
        crowd.until(lambda r=reset: all(m.group.read_to(ends) for m in got.get(r, [])), f"delivery from {reset}")
    for m in got.get("none", []) + got.get("error", []):
        crowd.until(lambda m=m: m.error, "an error for want of an offset")
        assert "reset" in m.error.lower() or "NoOffset" in m.error, m.error
    # A client asks for the end some time after it has its partitions: writes go on until each has a record.
    late = got["latest"]
    crowd.until(lambda: all(m.group.settled() for m in late), "assignments", 20)

    def records_come():
        write(group_broker, topic, 2, 2)
        time.sleep(0.1)
        crowd.look()
        return all({p for _, p, _, _ in m.batches} == {0, 1} for m in late)

    crowd.until(records_come, "delivery at the end")
    for m in late:
        assert min(first for _, _, first, _ in m.batches) >= 10, f"{m.name} began before the end"


def test_an_offset_out_of_range_is_reset(group_broker, fresh):
    topic, group = load.create_topic(group_broker, fresh("range"), 1), fresh()
    write(group_broker, topic, 1, 10)
    c = load.consumer(group_broker, group_id=group, auto_offset_reset="earliest", enable_partition_eof=False)
    try:
        c.commit(offsets=[ck.TopicPartition(topic, 0, 1000)], asynchronous=False)
        c.subscribe([topic])
        m = poll_one(c)
        assert m.offset() == 0
    finally:
        c.close()


def poll_one(c, timeout=20):
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        m = c.poll(0.2)
        if m is not None and not m.error():
            return m
    raise AssertionError(f"no record within {timeout} s")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_seek_and_positions(group_broker, fresh, protocol):
    topic, group = load.create_topic(group_broker, fresh("seek"), 1), fresh()
    write(group_broker, topic, 1, 100)
    c = load.consumer(group_broker, group_id=group, auto_offset_reset="earliest", group_protocol=protocol, enable_partition_eof=False)
    try:
        c.subscribe([topic])
        assert [poll_one(c).offset() for _ in range(5)] == list(range(5))
        c.commit(offsets=[ck.TopicPartition(topic, 0, 5)], asynchronous=False)
        c.seek(ck.TopicPartition(topic, 0, 90))
        assert [poll_one(c).offset() for _ in range(10)] == list(range(90, 100))
        c.seek(ck.TopicPartition(topic, 0, 2))
        back = poll_one(c)
        assert back.offset() == 2
        assert c.committed([ck.TopicPartition(topic, 0)], 10)[0].offset == 5, "a seek is no commit"
        c.commit(message=back, asynchronous=False)
        assert c.committed([ck.TopicPartition(topic, 0)], 10)[0].offset == 3
        assert c.position([ck.TopicPartition(topic, 0)])[0].offset == 3
    finally:
        c.close()


def test_offsets_of_an_unknown_group(group_broker, fresh):
    topic = load.create_topic(group_broker, fresh("unknown"), 2)
    c = load.consumer(group_broker, group_id=fresh("nobody"))
    try:
        found = c.committed([ck.TopicPartition(topic, p) for p in range(2)], 10)
        assert [(p.offset, p.error) for p in found] == [(ck.OFFSET_INVALID, None)] * 2
    finally:
        c.close()
    admin = AdminClient({"bootstrap.servers": group_broker.bootstrap})
    name = fresh("nobody")
    got = admin.list_consumer_group_offsets([ck.ConsumerGroupTopicPartitions(name)])[name].result(10)
    assert got.topic_partitions == []


@pytest.mark.parametrize("kind", ["confluent", "java"])
def test_static_members(group_broker, crowd, fresh, kind):
    """A static member that is back within its session has what it had, and the other one notices nothing. Of two with one name, the
    classic protocol ends the first, the newer one refuses the second."""
    topic = load.create_topic(group_broker, fresh("static"), 4)
    ways = PROTOCOLS[kind]
    groups = {p: crowd.group(fresh(f"static-{p}"), 4) for p in ways}

    def start(host, name):
        return {p: crowd.start(host, groups[p], topic, group_instance_id=name, **config) for p, config in ways.items()}

    a, b = crowd.host(kind), crowd.host(kind)
    one, two = start(a, "one"), start(b, "two")
    crowd.settle(crowd.joined([*one.values(), *two.values()]), IN_TIME)
    had, seen = {p: set(two[p].own) for p in ways}, {p: len(one[p].events) for p in ways}
    # The newer protocol lets an instance go by its close (epoch -2) alone, the classic one also by silence.
    crowd.stop(two["consumer"])
    crowd.until(lambda: two["consumer"].ended, "close")
    again = crowd.host(kind)
    crowd.kill(b)
    back = start(again, "two")
    crowd.until(lambda: all(back[p].own == had[p] for p in ways), "the partitions it had", SESSION_MS / 1000)
    for p in ways:
        assert [e["e"] for e in one[p].events[seen[p] :]] == [], f"{p}: the other member was disturbed"
    double = start(a, "two")
    ends = {"classic": (back["classic"], "fenced"), "consumer": (double["consumer"], "unreleased|still used")}
    for member, told in ends.values():
        crowd.until(lambda m=member: m.error, "an error for a double")
        assert re.search(told, member.error.lower()), member.error
    crowd.until(lambda: double["classic"].own == had["classic"] and back["consumer"].own == had["consumer"], "the partitions it had")
    crowd.finish()


def test_frozen_members_lose_their_partitions_and_come_back(group_broker, crowd, fresh):
    """SIGSTOP for longer than the session, both protocols at once."""
    topic = load.create_topic(group_broker, fresh("frozen"), 8)
    a, b = crowd.host("confluent"), crowd.host("confluent")
    ways = {"classic": confluent_classic(), "consumer": NEW}
    groups = {way: crowd.group(fresh(way), 8) for way in ways}
    for way, config in ways.items():
        for host in (a, b):
            crowd.start(host, groups[way], topic, **config)
    crowd.settle(crowd.joined(crowd.members.values()), IN_TIME)
    frozen = [m for m in crowd.members.values() if m.host is b]
    since = time.monotonic_ns()
    b.signal(signal.SIGSTOP)
    for m in frozen:
        m.leaving = True
    took = crowd.settle(since, IN_TIME) if all(not m.own for m in frozen) else None
    others = [m for m in crowd.members.values() if m.host is a]
    if took is None:
        crowd.until(lambda: all(len(m.own) == 8 for m in others), "take-over", IN_TIME + crowd.spare)
    assert (time.monotonic_ns() - since) / 1e9 > SESSION_MS / 1000 - 1.5, "taken away before the session ended"
    ends = write(group_broker, topic, 8, 80)
    crowd.until(lambda: all(g.committed_to(ends) for g in groups.values()), "commits of the others")
    for m in frozen:
        m.leaving = False
    since = time.monotonic_ns()
    b.signal(signal.SIGCONT)
    crowd.settle(since, 20)
    assert all("lost" in [e["e"] for e in m.events] for m in frozen), [m.events for m in frozen]
    for g in groups.values():
        assert committed(group_broker, g.name) == ends
    crowd.finish()


@pytest.mark.parametrize("kind", ["confluent", "java", "kafka-python"])
def test_partitions_added_and_a_topic_deleted(group_broker, crowd, fresh, kind):
    """The group gets the new partitions; when one of its topics goes, so do its offsets, and the others are read on."""
    stays, goes = (load.create_topic(group_broker, fresh("stays"), 2), load.create_topic(group_broker, fresh("goes"), 2))
    ways = {"confluent": ("cooperative-sticky", "consumer-uniform"), "java": ("range", "consumer-uniform"), "kafka-python": ("range",)}
    groups = {way: crowd.group(fresh(way), 4) for way in ways[kind]}
    hosts = [crowd.host(kind) for _ in range(2)]
    for way, g in groups.items():
        for host in hosts:
            crowd.start(host, g, f"{stays},{goes}", **WAYS[kind][way])
    ends = write(group_broker, stays, 2, 20) | write(group_broker, goes, 2, 20)
    crowd.until(lambda: all(g.committed_to(ends) for g in groups.values()), "delivery before", 30)
    admin = AdminClient({"bootstrap.servers": group_broker.bootstrap})
    admin.create_partitions([NewPartitions(stays, 5)])[stays].result(30)
    load.wait_for_leaders(group_broker, stays, 5)
    owned = lambda g: sorted(tp for m in g.live() for tp in m.own)  # noqa: E731
    due = sorted([(stays, p) for p in range(5)] + [(goes, p) for p in range(2)])
    crowd.until(lambda: all(owned(g) == due for g in groups.values()), "assignment of the new partitions", 20)
    ends = write(group_broker, stays, 5, 50)
    crowd.until(lambda: all(g.committed_to(ends) for g in groups.values()), "delivery of the new partitions", 20)
    admin.delete_topics([goes])[goes].result(30)
    ends = write(group_broker, stays, 5, 50)
    crowd.until(lambda: all(g.committed_to(ends) for g in groups.values()), "delivery after the deletion", 20)
    for g in groups.values():
        crowd.until(lambda g=g: set(committed(group_broker, g.name)) == set(ends), "the offsets of the deleted topic are gone")


@pytest.mark.timeout(300)
def test_regular_expressions(group_broker, crowd, fresh):
    """By the broker (KIP-848), and by the client."""
    stem = fresh("orders")
    for name, partitions in ((f"{stem}-a", 2), (f"{stem}-b", 3), (f"no-{stem}-x", 1)):
        load.create_topic(group_broker, name, partitions)
    java, librdkafka = crowd.host("java"), crowd.host("confluent")
    started = []
    for host, topics, config in (
        (java, f"~{stem}-.*", NEW), (java, f"^{stem}-.*", NEW), (java, f"^{stem}-.*", java_classic()),
        (librdkafka, f"^{stem}-.*", NEW), (librdkafka, f"^{stem}-.*", confluent_classic()),
    ):  # fmt: skip
        started.append(crowd.start(host, crowd.group(fresh("regex"), 5), topics, **config))
    due = {(f"{stem}-a", p) for p in range(2)} | {(f"{stem}-b", p) for p in range(3)}
    crowd.until(lambda: all(m.own == due for m in started), "assignment of the topics that match", 20)
    load.create_topic(group_broker, f"{stem}-later", 1)
    due.add((f"{stem}-later", 0))
    # Kafka evaluates a group's expressions anew 10 s after the last time at the earliest.
    crowd.until(lambda: all(m.own == due for m in started), "assignment of a later topic", 30)
    crowd.finish()


@pytest.mark.timeout(300)
def test_migration_there_and_back(group_broker, crowd, fresh, figure):
    """Java members change from the classic protocol to the newer one and back, one by one under load."""
    topic = load.create_topic(group_broker, fresh("migrate"), 12)
    group = crowd.group(fresh("migrate"), 12)
    writer = Writer(group_broker, topic, 12, 500)
    writer.start()
    host = crowd.host("java")
    old, new = java_classic("CooperativeStickyAssignor"), NEW
    members = [crowd.start(host, group, topic, **old) for _ in range(3)]
    crowd.settle(crowd.joined(members), IN_TIME)

    def kind():
        with wire.Conn(coordinator(group_broker, group.name)) as conn:
            return list_groups(conn)[group.name].GroupType

    assert kind() == "classic"
    worst = 0
    for config, becomes in ((new, "consumer"), (old, "classic")):
        for n in range(3):
            since = time.monotonic_ns()
            crowd.stop(members[n])
            crowd.until(lambda n=n: members[n].ended, "close")
            worst = max(worst, crowd.settle(since, IN_TIME))
            members[n] = crowd.start(host, group, topic, **config)
            worst = max(worst, crowd.settle(crowd.joined([members[n]]), IN_TIME, what=f"{becomes}, member {n}"))
            if becomes == "consumer":
                assert kind() == "consumer"
        assert kind() == becomes
    ends = writer.finish()
    crowd.until(lambda: group.read_to(ends) and group.committed_to(ends), "delivery of every record", 30)
    crowd.finish()
    crowd.check_history()
    assert committed(group_broker, group.name) == ends
    figure("a step of the migration", f"at most {worst:.2f} s")


@pytest.mark.timeout(120)
def test_a_group_is_full(make_broker, tmp_path, fresh):
    b = make_broker({**QUICK_GROUPS, "group.max.size": 2, "group.consumer.max.size": 2})
    b.start()
    load.create_topic(b, "full", 4)
    wait_ready(b, "warm-up")
    crowd = Members(b, tmp_path / "members")
    try:
        host = crowd.host("confluent")
        for config in (confluent_classic(), NEW):
            group = crowd.group(fresh("full"), 4)
            two = [crowd.start(host, group, "full", **config) for _ in range(2)]
            crowd.until(lambda two=two: all(len(m.own) == 2 for m in two), "assignment of two", 20)
            third = crowd.start(host, group, "full", **config)
            crowd.until(lambda m=third: m.error or any(e["e"] == "warning" for e in m.events), "refusal of the third", 20)
            told = third.error or next(e["error"] for e in third.events if e["e"] == "warning")
            assert "GROUP_MAX_SIZE" in told or "max size" in told.lower() or "maximum" in told.lower(), told
            crowd.stop(two[0])
            crowd.until(lambda m=two[1]: len(m.own) == 4, "assignment of one", 20)
    finally:
        crowd.close()
