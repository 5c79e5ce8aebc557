"""What clients can have the broker keep, each store flooded under a cap of 256 MiB with a well-behaved client beside it: the
bound is told by the protocol's error, the neighbour is served on, and so is a start afterwards."""

import os
import threading
import time
import uuid

import pytest

from support import load, proc, schema, wire
from support.groups import (
    ClassicMember, commit, commit_values, fetch_offsets, name_of, stable, subscription, wait_ready, wait_until,
)  # fmt: skip

MIB = 1 << 20
CAP = 256 * MIB
SMALL = {
    "corelane.shards": 2,
    "corelane.io.memory.bytes": 2 * MIB,
    "corelane.receive.memory.bytes": 8 * MIB,
    "corelane.arena.bytes": 8 * MIB,
    "corelane.tail.cache.bytes": 4 * MIB,
    "corelane.cache.bytes": 16 * MIB,
    "corelane.cold.cache.bytes": 4 * MIB,
    "corelane.index.cache.bytes": MIB,
    "corelane.fetch.memory.bytes": 4 * MIB,
    "corelane.producer.state.max.bytes": 4 * MIB,
    "corelane.group.memory.bytes": 4 * MIB,
    "corelane.fetch.session.memory.bytes": MIB,
    "offsets.topic.num.partitions": 4,
    "group.initial.rebalance.delay.ms": 0,
}


def batched(things, size):
    things = list(things)
    return [things[at : at + size] for at in range(0, len(things), size)]


@pytest.fixture
def capped(make_broker, request, corelane_only, figure):
    """`capped(props)`: a started broker under a cap, where one can be made."""
    cap = proc.MemoryCap.make(f"corelane-stores-{os.getpid()}", CAP)
    figure("memory cap", "a control group of 256 MiB" if cap else "none can be made here: resident memory is looked at instead")

    def make(**props):
        b = make_broker({**SMALL, **props}, cap=cap)
        if cap:
            request.addfinalizer(cap.remove)
            request.addfinalizer(b.kill)
        b.start()
        return b

    return make


class Neighbour:
    """A well-behaved client: produces with a producer id that the broker gave it, reads that back and commits, over and over. No
    answer but the right one is let pass."""

    def __init__(self, broker):
        self.broker, self.topic, self.group = broker, "good", "good-group"
        load.create_topic(broker, self.topic, 1)
        wait_ready(broker, self.group)
        with wire.Conn(broker) as conn:
            self.pid, self.epoch = wire.init_producer_id(conn)
        self.rounds, self.worst, self.failure = 0, 0.0, None
        self._end = threading.Event()

    def __enter__(self):
        self._end.clear()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        wait_until(lambda: self.rounds or self.failure, 60)
        return self

    def __exit__(self, kind, *_):
        self._end.set()
        self._thread.join(120)
        if kind is None:
            assert not self._thread.is_alive(), "the neighbour waits for an answer"
            assert self.failure is None, f"the neighbour: {self.failure!r}"

    def _run(self):
        try:
            with wire.Conn(self.broker, timeout=60) as conn:
                while not self._end.wait(0.02):
                    began = time.monotonic()
                    self.round(conn)
                    self.worst = max(self.worst, time.monotonic() - began)
        except Exception as e:  # told by the test's own thread
            self.failure = e

    def last(self):
        return wire.batch([b"n%d" % (self.rounds - 1)], self.pid, self.epoch, self.rounds - 1, timestamp=self.at)

    def round(self, conn):
        self.at = int(time.time() * 1000)
        sent = wire.batch([b"n%d" % self.rounds], self.pid, self.epoch, self.rounds, timestamp=self.at)
        assert wire.produce(conn, self.topic, 0, sent) == (0, self.rounds)
        got = wire.fetch(conn, self.topic, 0, self.rounds)
        assert [v for b in wire.batches(got["data"]) for v in b.values()] == [b"n%d" % self.rounds]
        told = commit(conn, self.group, {(self.topic, 0): self.rounds})
        assert told == {(self.topic, 0): 0}, told
        self.rounds += 1

    def check(self, conn):
        """After a start: its offset is there, and the repetition of its last batch is known as one."""
        assert fetch_offsets(conn, self.group)[1][self.topic, 0].CommittedOffset == self.rounds - 1
        assert wire.produce(conn, self.topic, 0, self.last()) == (0, self.rounds - 1), "a repetition was taken for a new batch"
        self.round(conn)


def settle(b, neighbour, figure, memory):
    """What every flood ends with: memory, and starts after a kill and after a stop."""
    figure("resident memory at most", f"{memory.peak / MIB:.0f} MiB")
    figure("the neighbour", f"{neighbour.rounds} rounds of three requests, the slowest {neighbour.worst * 1000:.0f} ms")
    assert b.alive() and memory.peak < CAP
    for end in (b.kill, b.stop):
        end()
        figure(f"start after {end.__name__}", f"{b.start(timeout=120, topics=[neighbour.topic]):.2f} s")
        wait_ready(b, neighbour.group)
        with wire.Conn(b, timeout=60) as conn:
            neighbour.check(conn)
        figure(f"resident memory after {end.__name__} and start", f"{b.rss() / MIB:.0f} MiB")
        assert b.rss() < CAP


@pytest.mark.timeout(600)
def test_producer_ids_that_clients_make_up(capped, length, figure):
    """A few connections name a new producer id in each of 40 batches a request."""
    b, count = capped(), length.pick(50_000, 1_100_000)
    neighbour, partitions = Neighbour(b), 40
    load.create_topic(b, "flood", partitions)
    with neighbour, proc.PeakRss(b.pid) as memory, wire.Conn(b, timeout=60) as conn:
        began = time.monotonic()
        for first in range(1 << 40, (1 << 40) + count, partitions):
            body = {"flood": {p: wire.batch([b""], first + p, 0, 0) for p in range(partitions)}}
            answer = wire.read_produce(conn.call(wire.PRODUCE, 7, wire.produce_body(body)))
            assert {error for error, _ in answer.values()} == {0}
        figure("made-up producer ids", f"{count} in {time.monotonic() - began:.1f} s")
        # The oldest is unknown again and may go on as Kafka lets it, the newest is known.
        assert wire.produce(conn, "flood", 0, wire.batch([b""], 1 << 40, 0, 7))[0] == 0
        last = wire.batch([b""], first, 0, 0)
        assert wire.produce(conn, "flood", 0, last) == wire.produce(conn, "flood", 0, last)
    settle(b, neighbour, figure, memory)


@pytest.mark.timeout(300)
def test_producers_stored_under_a_larger_bound(make_broker, corelane_only, figure):
    """The bound is lowered between two starts: the active producer is known, and the start is served."""
    b = make_broker({**SMALL, "corelane.producer.state.max.bytes": 64 * MIB})
    b.start()
    neighbour, partitions = Neighbour(b), 40
    load.create_topic(b, "flood", partitions)
    with wire.Conn(b, timeout=60) as conn:
        for first in range(1 << 40, (1 << 40) + 20_000, partitions):
            body = {"flood": {p: wire.batch([b""], first + p, 0, 0) for p in range(partitions)}}
            conn.call(wire.PRODUCE, 7, wire.produce_body(body))
        neighbour.round(conn)
    b.stop()
    b.props["corelane.producer.state.max.bytes"] = 256 << 10
    b.start(topics=["flood", neighbour.topic])
    wait_ready(b, neighbour.group)
    with wire.Conn(b) as conn:
        neighbour.check(conn)
    b.stop()


@pytest.mark.timeout(300)
def test_offsets_of_groups_that_clients_make_up(capped, figure):
    """Commits without a member, each for a group of its own."""
    b = capped()
    neighbour = Neighbour(b)
    load.create_topic(b, "flood", 10)
    offsets = {("flood", p): 7 for p in range(10)}
    with neighbour, proc.PeakRss(b.pid) as memory, wire.Conn(b, timeout=60) as conn:
        codes, taken = set(), []
        for n in range(20_000):
            schema.send(conn, "OffsetCommit", 9, **commit_values(f"made-up-{n}", offsets, metadata="m" * 100))
            got = schema.receive(conn, "OffsetCommit", 9)
            told = {p.ErrorCode for t in got.Topics for p in t.Partitions}
            codes |= told
            if told == {0}:
                taken.append(n)
            elif n > max(taken) + 200:
                break
        figure("groups made up until the bound", len(taken))
        assert codes == {0, wire.ERR["GROUP_MAX_SIZE_REACHED"]}, set(map(name_of, codes))
        # What is there is kept and moved on.
        assert set(commit(conn, f"made-up-{taken[0]}", {k: 8 for k in offsets}).values()) == {0}
        assert fetch_offsets(conn, f"made-up-{taken[-1]}")[1]["flood", 9].CommittedOffset == 7
        assert fetch_offsets(conn, f"made-up-{n}") == (0, {})
    settle(b, neighbour, figure, memory)
    # Groups are loaded beside the serving of others: each coordinator has some of these.
    for group in ["afterwards", *(f"made-up-{n}" for n in taken[:32])]:
        wait_ready(b, group)
    with wire.Conn(b, timeout=60) as conn:
        assert fetch_offsets(conn, f"made-up-{taken[0]}")[1]["flood", 0].CommittedOffset == 8
        # Room comes back with what is deleted.
        for some in batched(taken, 100):
            got = schema.call(conn, "DeleteGroups", 2, GroupsNames=[f"made-up-{n}" for n in some])
            assert {r.ErrorCode for r in got.Results} == {0}
        assert set(commit(conn, "afterwards", offsets).values()) == {0}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_groups_that_clients_make_up(capped, figure, protocol):
    """Members that join one made-up group each and are not heard of again."""
    # Nobody leaves for want of time, however slow the machine is.
    b = capped(**{"group.consumer.session.timeout.ms": 1_800_000, "group.consumer.max.session.timeout.ms": 1_800_000})
    neighbour = Neighbour(b)
    load.create_topic(b, "flood", 10)

    def join(conn, n):
        if protocol == "classic":
            got = schema.call(
                conn, "JoinGroup", 5, GroupId=f"made-up-{n}", SessionTimeoutMs=1_800_000, RebalanceTimeoutMs=60_000, MemberId="",
                GroupInstanceId=f"instance-{n}", ProtocolType="consumer", Protocols=[{"Name": "range", "Metadata": subscription("flood")}],
            )  # fmt: skip
        else:
            got = schema.call(
                conn, "ConsumerGroupHeartbeat", 1, GroupId=f"made-up-{n}", MemberId=str(uuid.uuid4()), MemberEpoch=0,
                RebalanceTimeoutMs=60_000, SubscribedTopicNames=["flood"], TopicPartitions=[],
            )  # fmt: skip
        return got.ErrorCode

    with ClassicMember(b, "settled", session_ms=1_800_000) as member:
        stable(member)
        with neighbour, proc.PeakRss(b.pid) as memory, wire.Conn(b, timeout=60) as conn:
            codes, last = set(), 0
            for n in range(20_000):
                code = join(conn, n)
                codes.add(code)
                if code == 0:
                    last = n
                elif n > last + 200:
                    break
            figure("groups made up until the bound", last)
            assert codes == {0, wire.ERR["GROUP_MAX_SIZE_REACHED"]}, set(map(name_of, codes))
            # Who is there is served, and his group may still grow.
            assert member.heartbeat() == 0
            assert set(member.commit({("flood", p): 1 for p in range(10)}).values()) == {0}
    settle(b, neighbour, figure, memory)


@pytest.mark.timeout(300)
def test_topics_that_clients_make_up(capped, figure):
    """Metadata requests for topics that do not exist create them until there are as many partitions as there may be."""
    b = capped(**{"corelane.max.partitions": 60})
    neighbour = Neighbour(b)
    refused = wire.ERR["POLICY_VIOLATION"]
    with neighbour, proc.PeakRss(b.pid) as memory, wire.Conn(b, timeout=60) as conn:
        codes = {}
        for some in batched(range(100), 20):
            got = wire.metadata(conn, [f"made-up-{n}" for n in some], auto_create=True)["topics"]
            codes |= {name: topic["error"] for name, topic in got.items()}
        made = [name for name, code in codes.items() if code == 0]
        assert set(codes.values()) == {0, refused}, set(map(name_of, codes.values()))
        # The neighbour's topic, and the four partitions of committed offsets.
        assert len(made) == 60 - 5, len(made)
        assert wire.create_topics(conn, {"by-name": (1, {})}) == {"by-name": refused}
        got = schema.call(conn, "CreatePartitions", 3, Topics=[{"Name": made[0], "Count": 2, "Assignments": None}], TimeoutMs=1000, ValidateOnly=False)
        assert got.Results[0].ErrorCode == refused and "corelane.max.partitions" in got.Results[0].ErrorMessage
        assert wire.produce(conn, made[-1], 0, wire.batch([b"kept"]))[0] == 0
    # More than a lower bound allows is served all the same.
    b.props["corelane.max.partitions"] = 30
    settle(b, neighbour, figure, memory)
    with wire.Conn(b, timeout=60) as conn:
        assert {wire.fetch(conn, name, 0, 0)["error"] for name in made} == {0}
        assert wire.metadata(conn, ["another"], auto_create=True)["topics"]["another"]["error"] == refused


@pytest.mark.timeout(300)
def test_fetch_sessions_that_clients_make_up(capped, figure):
    """Sessions of a thousand partitions of topics with long names, which do not exist: past the bound there are none."""
    b = capped()
    neighbour = Neighbour(b)
    topics = {f"{n}-{'x' * 200}": {p: 0 for p in range(100)} for n in range(10)}
    with neighbour, proc.PeakRss(b.pid) as memory, wire.Conn(b, timeout=60) as conn:
        with_session = 0
        for _ in range(300):
            error, session, parts = wire.read_fetch(conn.call(wire.FETCH, 11, wire.fetch_body(topics, max_wait=0, session=(0, 0))))
            assert error == 0 and len(parts) == 1000
            with_session += session != 0
        figure("sessions of 1,000 partitions until the bound", with_session)
        assert 0 < with_session < 20
    settle(b, neighbour, figure, memory)


@pytest.mark.alone
@pytest.mark.timeout(120)
def test_how_late_deadlines_are(make_broker, figure):
    """Figures only: how long a join without initial delay takes, and how late the end of a session is."""
    b = make_broker({"group.initial.rebalance.delay.ms": 0})
    b.start()
    wait_ready(b, "warm")
    took = []
    for n in range(20):
        with ClassicMember(b, f"fresh-{n}") as member:
            member.know_id()
            began = time.monotonic()
            member.join()
            took.append(time.monotonic() - began)
    figure("first JoinGroup without initial delay", f"mean {sum(took) / len(took) * 1000:.1f} ms, slowest {max(took) * 1000:.1f} ms")
    with ClassicMember(b, "late", session_ms=6000, rebalance_ms=60_000) as silent, ClassicMember(b, "late", rebalance_ms=60_000) as other:
        stable(silent)
        heard = time.monotonic()
        assert silent.heartbeat() == 0
        other.know_id()
        got = other.try_join()
        figure("a session of 6,000 ms ended", f"{(time.monotonic() - heard) * 1000 - 6000:.0f} ms late")
        assert (got.ErrorCode, len(got.Members)) == (0, 1), "the silent member is still waited for"
    b.stop()
