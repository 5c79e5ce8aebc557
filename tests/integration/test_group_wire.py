"""Every API of groups in each of its versions, by hand: what a member is told, and the error that odd input gets."""

import itertools
import time
import uuid

import pytest

from support import load, schema, wire
from support.groups import (
    ClassicMember, ConsumerMember, assignment, commit, describe, fetch_offsets, list_groups, name_of, subscription, wait_ready,
)  # fmt: skip

_numbers = itertools.count()


@pytest.fixture(scope="module")
def topic(shared_group_broker):
    return load.create_topic(shared_group_broker, f"wire-{time.time_ns()}", 4)


@pytest.fixture
def conn(group_broker):
    with wire.Conn(group_broker, timeout=30) as c:
        yield c


@pytest.fixture
def group(group_broker):
    """A name that no other test uses; its coordinator serves."""
    name = f"g{next(_numbers)}-{time.time_ns()}"
    wait_ready(group_broker, name)
    return name


@pytest.fixture
def classic(group_broker, group):
    """`classic(...)`: a member by hand of the test's group."""
    made = []

    def make(**options):
        made.append(ClassicMember(group_broker, options.pop("group", group), **options))
        return made[-1]

    yield make
    for m in made:
        m.conn.close()


@pytest.fixture
def consumer(group_broker, group):
    made = []

    def make(**options):
        made.append(ConsumerMember(group_broker, options.pop("group", group), **options))
        return made[-1]

    yield make
    for m in made:
        m.conn.close()


def error(code, name):
    assert code == wire.ERR[name], f"{name_of(code)} where {name} was due"


def versions(low, high):
    return pytest.mark.parametrize("version", range(low, high + 1))


def stable(member, what=b"mine"):
    """A group of this one member, with its assignment."""
    member.join()
    got = member.sync({member.id: what})
    error(got.ErrorCode, "NONE")
    return member


def wait_until(check, timeout=10):
    """Polls until `check` answers something true, and answers that."""
    end = time.monotonic() + timeout
    while not (got := check()):
        assert time.monotonic() < end, f"not within {timeout} s"
        time.sleep(0.02)
    return got


# --- the classic protocol -----------------------------------------------------------------------------------------------


@versions(0, 9)
def test_life_of_a_member(classic, conn, group, topic, version):
    m = classic(version=version, protocols={"range": subscription(topic), "roundrobin": b"other"}).know_id()
    assert version < 4 or m.id.startswith("raw-"), m.id
    got = m.join()
    assert (got.GenerationId, got.ProtocolName, got.Leader) == (1, "range", m.id)
    assert version < 7 or got.ProtocolType == "consumer"
    assert [(x.MemberId, x.Metadata) for x in got.Members] == [(m.id, subscription(topic))]
    given = assignment(topic, [0, 1, 2, 3])
    synced = m.sync({m.id: given})
    assert (synced.ErrorCode, synced.Assignment) == (0, given)
    assert version < 5 or (synced.ProtocolType, synced.ProtocolName) == ("consumer", "range")
    error(m.heartbeat(), "NONE")
    assert m.commit({(topic, 0): 7}) == {(topic, 0): 0}
    told = describe(conn, group)
    assert (told.GroupState, told.ProtocolType, told.ProtocolData) == ("Stable", "consumer", "range")
    assert [(x.MemberId, x.ClientId, x.ClientHost, x.MemberAssignment) for x in told.Members] == [(m.id, "raw", "/127.0.0.1", given)]
    error(m.leave(), "NONE")
    assert describe(conn, group).GroupState == "Empty"
    assert fetch_offsets(conn, group)[1][topic, 0].CommittedOffset == 7


@versions(0, 9)
def test_a_second_member_makes_a_rebalance(classic, version):
    first, second = stable(classic(version=version)), classic(version=version).know_id()
    second.send_join()
    wait_until(lambda: first.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    error(list(first.commit({("none", 0): 1}).values())[0], "UNKNOWN_TOPIC_OR_PARTITION")
    got, other = first.try_join(), second.receive_join()
    assert (got.GenerationId, other.GenerationId) == (2, 2)
    assert (got.ErrorCode, other.ErrorCode, got.Leader, other.Leader) == (0, 0, first.id, first.id)
    assert {x.MemberId for x in got.Members} == {first.id, second.id} and not other.Members
    error(first.heartbeat(), "NONE")
    second.send_sync()
    assert first.sync({first.id: b"one", second.id: b"two"}).Assignment == b"one"
    assert second.receive_sync().Assignment == b"two"
    error(second.leave(), "NONE")
    error(first.heartbeat(), "REBALANCE_IN_PROGRESS")


def test_the_protocol_that_all_know_and_most_prefer(classic):
    a = classic(protocols={"only-a": b"a0", "x": b"ax", "y": b"ay"}).know_id()
    b = classic(protocols={"y": b"by", "x": b"bx"}).know_id()
    c = classic(protocols={"y": b"cy", "x": b"cx", "only-c": b"c0"}).know_id()
    for m in (a, b, c):
        m.send_join()
    got = [m.receive_join() for m in (a, b, c)]
    if {x.GenerationId for x in got} != {1}:
        pytest.skip("the three did not come within the initial delay")
    assert {x.ProtocolName for x in got} == {"y"}
    leader = next(x for x in got if x.Leader == x.MemberId)
    assert {x.Metadata for x in leader.Members} == {b"ay", b"by", b"cy"}


@versions(0, 9)
def test_join_refused(classic, group, version):
    short = classic(version=version, session_ms=999)
    error(short.try_join().ErrorCode, "INVALID_SESSION_TIMEOUT")
    error(short.try_join(SessionTimeoutMs=1_800_001).ErrorCode, "INVALID_SESSION_TIMEOUT")
    error(short.try_join(SessionTimeoutMs=-1).ErrorCode, "INVALID_SESSION_TIMEOUT")
    error(classic(version=version, group="").try_join().ErrorCode, "INVALID_GROUP_ID")
    error(classic(version=version, protocols={}).try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    error(classic(version=version, kind="").try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    unknown = classic(version=version)
    unknown.id = "nobody"
    got = unknown.try_join()
    error(got.ErrorCode, "UNKNOWN_MEMBER_ID")
    assert (got.GenerationId, got.MemberId, got.Leader, got.Members) == (-1, "nobody", "", [])
    stable(classic(version=version))
    error(classic(version=version, kind="connect").try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    error(classic(version=version, protocols={"other": b""}).try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    unknown = classic(version=version)
    unknown.id = "nobody"
    error(unknown.try_join().ErrorCode, "UNKNOWN_MEMBER_ID")


@versions(0, 5)
def test_sync_refused(classic, version):
    at = {0: 0, 1: 2, 2: 4, 3: 5, 4: 7, 5: 9}[version]
    nobody = classic(version=at)
    nobody.id, nobody.generation = "nobody", 1
    error(nobody.sync().ErrorCode, "UNKNOWN_MEMBER_ID")
    empty = classic(version=at, group="")
    error(empty.sync().ErrorCode, "INVALID_GROUP_ID")
    m = stable(classic(version=at))
    error(m.sync(GenerationId=m.generation + 1).ErrorCode, "ILLEGAL_GENERATION")
    error(m.sync(GenerationId=m.generation - 1).ErrorCode, "ILLEGAL_GENERATION")
    error(nobody.sync().ErrorCode, "UNKNOWN_MEMBER_ID")
    if version >= 5:
        error(m.sync(ProtocolType="connect").ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
        error(m.sync(ProtocolName="roundrobin").ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
        error(m.sync(ProtocolName=None).ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    again = m.sync({m.id: b"ignored, the group is stable"})
    assert (again.ErrorCode, again.Assignment) == (0, b"mine")
    other = classic(version=at).know_id()
    other.send_join()
    wait_until(lambda: m.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    error(m.sync().ErrorCode, "REBALANCE_IN_PROGRESS")


@versions(0, 4)
def test_heartbeat_refused(classic, version):
    at = {0: 0, 1: 2, 2: 4, 3: 5, 4: 9}[version]
    nobody = classic(version=at)
    nobody.id, nobody.generation = "nobody", 1
    error(nobody.heartbeat(), "UNKNOWN_MEMBER_ID")
    error(nobody.heartbeat(GroupId=""), "INVALID_GROUP_ID")
    m = stable(classic(version=at))
    error(nobody.heartbeat(), "UNKNOWN_MEMBER_ID")
    error(m.heartbeat(GenerationId=2), "ILLEGAL_GENERATION")
    error(m.heartbeat(GenerationId=-1), "ILLEGAL_GENERATION")
    error(m.heartbeat(MemberId=""), "UNKNOWN_MEMBER_ID")
    if version >= 3:
        error(m.heartbeat(GroupInstanceId="not-its-own"), "UNKNOWN_MEMBER_ID")
    error(m.heartbeat(), "NONE")
    error(m.leave(), "NONE")
    error(m.heartbeat(), "UNKNOWN_MEMBER_ID")


def leave(conn, version, group, *members):
    """-> (error of the request, errors of the members)"""
    if version < 3:
        got = schema.call(conn, "LeaveGroup", version, GroupId=group, MemberId=members[0][0])
        return got.ErrorCode, []
    got = schema.call(conn, "LeaveGroup", version, GroupId=group, Members=[{"MemberId": m, "GroupInstanceId": i} for m, i in members])
    return got.ErrorCode, [m.ErrorCode for m in got.Members]


@versions(0, 5)
def test_leave_refused(classic, conn, group, version):
    unknown = wire.ERR["UNKNOWN_MEMBER_ID"]
    assert leave(conn, version, "", ("x", None))[0] == wire.ERR["INVALID_GROUP_ID"]
    gone = leave(conn, version, group, ("x", None))
    assert gone in ((unknown, []), (0, [unknown])), gone
    m = stable(classic())
    gone = leave(conn, version, group, ("x", None))
    assert gone in ((unknown, []), (0, [unknown])), gone
    if version >= 3:
        assert leave(conn, version, group, ("x", None), (m.id, None), ("", "no-instance")) == (0, [unknown, 0, unknown])
        assert leave(conn, version, group) == (0, [])
    else:
        assert leave(conn, version, group, (m.id, None)) == (0, [])
    assert describe(conn, group).GroupState == "Empty"


@versions(3, 5)
def test_an_admin_removes_a_static_member(classic, conn, group, version):
    m = stable(classic(instance="one"))
    assert leave(conn, version, group, ("", "one")) == (0, [0])
    error(m.heartbeat(), "UNKNOWN_MEMBER_ID")


@versions(5, 9)
def test_static_member_comes_back(classic, conn, group, version):
    leader, member = classic(version=version, instance="a"), classic(version=version, instance="b").know_id()
    leader.send_join()
    member.send_join()
    got = [leader.receive_join(), member.receive_join()]
    if leader.generation != member.generation or leader.generation != 1:
        pytest.skip("the two did not come within the initial delay")
    assert {x.ErrorCode for x in got} == {0}
    first, second = (leader, member) if got[0].Leader == leader.id else (member, leader)
    second.send_sync()
    first.sync({first.id: b"first", second.id: b"second"})
    assert second.receive_sync().Assignment == b"second"
    back = classic(version=version, instance=second.instance)
    again = back.join()
    assert again.GenerationId == 1, "a rebalance for a static member that came back with the same subscription"
    assert again.MemberId != second.id and again.Leader == first.id and not again.Members
    assert back.sync().Assignment == b"second"
    error(first.heartbeat(), "NONE")
    error(back.heartbeat(), "NONE")
    error(second.heartbeat(), "FENCED_INSTANCE_ID")
    error(second.sync().ErrorCode, "FENCED_INSTANCE_ID")
    error(second.try_join().ErrorCode, "FENCED_INSTANCE_ID")
    error(list(second.commit({("none", 0): 1}, version=max(7, version)).values())[0], "UNKNOWN_TOPIC_OR_PARTITION")
    assert leave(conn, 5, group, (second.id, second.instance)) == (0, [wire.ERR["FENCED_INSTANCE_ID"]])


@versions(5, 9)
def test_static_leader_comes_back(classic, version):
    """Version 9 tells it that nothing is to be assigned; before, it is not told that it leads, and the group stays as it is."""
    both = {"range": subscription("t"), "roundrobin": subscription("t")}
    m = stable(classic(version=version, instance="a", protocols=both))
    back = classic(version=version, instance="a", protocols=both)
    got = back.join()
    assert got.GenerationId == 1
    if version >= 9:
        assert got.SkipAssignment and got.Leader == back.id and [x.MemberId for x in got.Members] == [back.id]
    else:
        assert got.Leader == m.id and not got.Members
    assert back.sync().Assignment == b"mine"
    wider = classic(version=version, instance="a", protocols={n: subscription("t", "u") for n in both})
    assert wider.join().GenerationId == 1, "Kafka looks at the chosen protocol's name alone"
    other = classic(version=version, instance="a", protocols={"roundrobin": subscription("t")})
    got = other.join()
    assert (got.GenerationId, got.ProtocolName) == (2, "roundrobin")


def test_fenced_commit_of_a_static_member(classic, topic):
    old = stable(classic(instance="a"))
    new = classic(instance="a")
    new.join()
    error(old.commit({(topic, 0): 1})[topic, 0], "FENCED_INSTANCE_ID")
    error(new.commit({(topic, 0): 1})[topic, 0], "NONE")


def test_session_expires(classic, conn, group):
    m = stable(classic(session_ms=1000))
    began = time.monotonic()
    wait_until(lambda: describe(conn, group).GroupState == "Empty")
    assert 0.8 < time.monotonic() - began < 3, "the session timeout was 1 s"
    error(m.heartbeat(), "UNKNOWN_MEMBER_ID")


def test_heartbeats_keep_the_session(classic, conn, group):
    m = stable(classic(session_ms=1000))
    end = time.monotonic() + 2.5
    while time.monotonic() < end:
        error(m.heartbeat(), "NONE")
        time.sleep(0.1)
    assert describe(conn, group).GroupState == "Stable"


def test_a_member_without_its_second_step_is_forgotten(classic, conn, group):
    m = classic(session_ms=1000).know_id()
    time.sleep(1.5)
    error(m.try_join().ErrorCode, "UNKNOWN_MEMBER_ID")


def test_who_does_not_join_again_is_left_out(classic):
    """The rebalance timeout of those who are in: 1.5 s, while its heartbeats go on."""
    lazy = stable(classic(rebalance_ms=1500, session_ms=6000))
    keen = classic(rebalance_ms=1500, session_ms=6000).know_id()
    began = time.monotonic()
    keen.send_join()
    keen.conn.sock.settimeout(10)
    wait_until(lambda: lazy.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    got = keen.receive_join()
    took = time.monotonic() - began
    assert got.ErrorCode == 0 and got.Leader == keen.id and [x.MemberId for x in got.Members] == [keen.id]
    assert 1.2 < took < 4, took
    error(lazy.heartbeat(), "UNKNOWN_MEMBER_ID")


def test_who_does_not_sync_is_left_out(classic, conn, group):
    """A leader that goes quiet between join and sync: after its session the others are asked to join again."""
    leader = classic(session_ms=1000, rebalance_ms=3000).know_id()
    member = classic(session_ms=8000, rebalance_ms=3000).know_id()
    leader.send_join()
    time.sleep(0.02)
    member.send_join()
    if leader.receive_join().GenerationId != member.receive_join().GenerationId:
        pytest.skip("the two did not come within the initial delay")
    if leader.joined.Leader != leader.id:
        leader, member = member, leader
    member.send_sync()
    got = member.receive_sync()
    error(got.ErrorCode, "REBALANCE_IN_PROGRESS")


# --- offsets ------------------------------------------------------------------------------------------------------------


@versions(2, 9)
def test_commit_and_fetch(conn, group, topic, version):
    there, missing, beyond = (topic, 0), ("no-such-topic", 0), (topic, 4)
    got = commit(conn, group, {there: 5, (topic, 1): 0, missing: 1, beyond: 1}, version, metadata="note")
    unknown = wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"]
    assert got == {there: 0, (topic, 1): 0, missing: unknown, beyond: unknown}
    for v in range(1, 10):
        code, offsets = fetch_offsets(conn, group, {topic: [0, 1, 2, 4], "no-such-topic": [0]}, v)
        assert code == 0
        told = {k: (p.CommittedOffset, p.Metadata, p.ErrorCode) for k, p in offsets.items()}
        none = (-1, "", 0)
        assert told == {there: (5, "note", 0), (topic, 1): (0, "note", 0), (topic, 2): none, beyond: none, missing: none}, f"v{v}"
        if v >= 2:
            assert set(fetch_offsets(conn, group, None, v)[1]) == {there, (topic, 1)}
    assert commit(conn, group, {there: 3}, version) == {there: 0}
    assert fetch_offsets(conn, group)[1][there].CommittedOffset == 3, "a simple group may go back"
    assert fetch_offsets(conn, group)[1][there].Metadata == ""


@versions(2, 9)
def test_commit_refused(classic, conn, group, topic, version):
    at = (topic, 0)

    def told(**more):
        return commit(conn, group, {at: 1}, version, **more)[at]

    assert told(metadata="x" * 4096) == 0
    error(told(metadata="x" * 4097), "OFFSET_METADATA_TOO_LARGE")
    error(told(metadata="y" * 30_000), "OFFSET_METADATA_TOO_LARGE")
    assert fetch_offsets(conn, group)[1][at].Metadata == "x" * 4096
    fresh = f"{group}-none"
    got = commit(conn, fresh, {at: 1}, version, generation=0, member="m")[at]
    error(got, "ILLEGAL_GENERATION" if version < 9 else "GROUP_ID_NOT_FOUND")
    m = stable(classic())
    error(told(), "UNKNOWN_MEMBER_ID")
    error(told(generation=1, member="nobody"), "UNKNOWN_MEMBER_ID")
    error(told(generation=2, member=m.id), "ILLEGAL_GENERATION")
    error(told(generation=0, member=m.id), "ILLEGAL_GENERATION")
    error(told(generation=-1, member=m.id), "ILLEGAL_GENERATION")
    assert told(generation=1, member=m.id) == 0
    other = classic().know_id()
    other.send_join()
    wait_until(lambda: m.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    assert told(generation=1, member=m.id) == 0, "a member commits while a rebalance gathers the members"
    m.try_join(), other.receive_join()
    error(told(generation=2, member=m.id), "REBALANCE_IN_PROGRESS")


@pytest.mark.parametrize("offset", [-1, -2, -(1 << 62), (1 << 63) - 1])
def test_commit_of_an_odd_offset(conn, group, topic, offset):
    """The coordinator keeps what it is given."""
    assert commit(conn, group, {(topic, 0): offset}) == {(topic, 0): 0}
    assert fetch_offsets(conn, group)[1][topic, 0].CommittedOffset == offset


def test_commit_keeps_the_leader_epoch(conn, group, topic):
    part = {"PartitionIndex": 0, "CommittedOffset": 9, "CommittedLeaderEpoch": 3, "CommittedMetadata": None}
    for version in range(6, 10):
        part["CommittedOffset"] = version
        got = schema.call(conn, "OffsetCommit", version, GroupId=group, MemberId="", Topics=[{"Name": topic, "Partitions": [part]}])
        assert got.Topics[0].Partitions[0].ErrorCode == 0
        for v in range(5, 10):
            found = fetch_offsets(conn, group, None, v)[1][topic, 0]
            assert (found.CommittedOffset, found.CommittedLeaderEpoch) == (version, 3)
    part["CommittedLeaderEpoch"] = -1
    schema.call(conn, "OffsetCommit", 5, GroupId=group, MemberId="", Topics=[{"Name": topic, "Partitions": [part]}])
    assert fetch_offsets(conn, group)[1][topic, 0].CommittedLeaderEpoch == -1


def test_commit_of_nothing(conn, group, topic):
    got = schema.call(conn, "OffsetCommit", 9, GroupId=group, MemberId="", Topics=[])
    assert got.Topics == []
    got = schema.call(conn, "OffsetCommit", 9, GroupId=group, MemberId="", Topics=[{"Name": topic, "Partitions": []}])
    assert [p for t in got.Topics for p in t.Partitions] == []


def test_the_empty_group_id_keeps_offsets(conn, topic):
    assert commit(conn, "", {(topic, 3): 4}) == {(topic, 3): 0}
    assert fetch_offsets(conn, "", {topic: [3]})[1][topic, 3].CommittedOffset == 4


@versions(1, 9)
def test_fetch_of_an_unknown_group(conn, group, topic, version):
    code, offsets = fetch_offsets(conn, f"{group}-none", {topic: [0, 3]}, version)
    assert code == 0
    assert {k: (p.CommittedOffset, p.ErrorCode, p.Metadata) for k, p in offsets.items()} == {(topic, 0): (-1, 0, ""), (topic, 3): (-1, 0, "")}
    if version >= 2:
        assert fetch_offsets(conn, f"{group}-none", None, version) == (0, {})


@versions(8, 9)
def test_fetch_for_several_groups(conn, group, topic, version):
    names = [f"{group}-{n}" for n in range(5)]
    for n, name in enumerate(names):
        commit(conn, name, {(topic, n % 4): n})
    wanted = [{"GroupId": name, "Topics": None} for name in (*names, f"{group}-none")]
    got = schema.call(conn, "OffsetFetch", version, Groups=wanted, RequireStable=True)
    told = {g.GroupId: {p.PartitionIndex: p.CommittedOffset for t in g.Topics for p in t.Partitions} for g in got.Groups}
    assert told == {**{name: {n % 4: n} for n, name in enumerate(names)}, f"{group}-none": {}}
    assert {g.ErrorCode for g in got.Groups} == {0}


def test_fetch_by_a_member_of_a_consumer_group(consumer, conn, group, topic):
    m = consumer()
    m.join(topic)
    m.settle(4)
    assert commit(conn, group, {(topic, 0): 4}, generation=m.epoch, member=m.id) == {(topic, 0): 0}

    def told(**who):
        return fetch_offsets(conn, group, {topic: [0]}, 9, **who)

    code, found = told(MemberId=m.id, MemberEpoch=m.epoch)
    assert code == 0 and found[topic, 0].CommittedOffset == 4
    assert told()[0] == 0
    error(told(MemberId=m.id, MemberEpoch=m.epoch + 1)[0], "STALE_MEMBER_EPOCH")
    error(told(MemberId="nobody", MemberEpoch=m.epoch)[0], "UNKNOWN_MEMBER_ID")


def delete_offsets(conn, group, topics):
    got = schema.call(
        conn, "OffsetDelete", 0, GroupId=group,
        Topics=[{"Name": t, "Partitions": [{"PartitionIndex": p} for p in parts]} for t, parts in topics.items()],
    )  # fmt: skip
    return got.ErrorCode, {(t.Name, p.PartitionIndex): p.ErrorCode for t in got.Topics for p in t.Partitions}


def test_offset_delete(classic, conn, group, topic):
    error(delete_offsets(conn, f"{group}-none", {topic: [0]})[0], "GROUP_ID_NOT_FOUND")
    error(delete_offsets(conn, "", {topic: [0]})[0], "INVALID_GROUP_ID")
    m = stable(classic(protocols={"range": subscription(topic)}))
    m.commit({(topic, 0): 1, (topic, 1): 2})
    code, told = delete_offsets(conn, group, {topic: [0], "no-such-topic": [0]})
    assert code == 0
    assert told == {(topic, 0): wire.ERR["GROUP_SUBSCRIBED_TO_TOPIC"], ("no-such-topic", 0): wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"]}
    m.leave()
    assert delete_offsets(conn, group, {topic: [0, 3]}) == (0, {(topic, 0): 0, (topic, 3): 0})
    assert set(fetch_offsets(conn, group)[1]) == {(topic, 1)}
    assert delete_offsets(conn, group, {topic: [1]}) == (0, {(topic, 1): 0})
    assert fetch_offsets(conn, group) == (0, {})


def test_offset_delete_in_use_by_another_protocol(classic, conn, group, topic):
    m = stable(classic(kind="connect", protocols={"x": b"y"}))
    assert m.commit({(topic, 0): 1}) == {(topic, 0): 0}
    error(delete_offsets(conn, group, {topic: [0]})[0], "NON_EMPTY_GROUP")


# --- which coordinator, which groups ------------------------------------------------------------------------------------


@versions(0, 6)
def test_find_coordinator(group_broker, conn, group, version):
    if version < 4:
        got = schema.call(conn, "FindCoordinator", version, Key=group)
        assert (got.ErrorCode, got.NodeId, got.Host, got.Port) == (0, 0, group_broker.host, group_broker.port)
        return
    got = schema.call(conn, "FindCoordinator", version, KeyType=0, CoordinatorKeys=[group, "another"])
    assert [(c.Key, c.ErrorCode, c.NodeId, c.Host, c.Port) for c in got.Coordinators] == [
        (key, 0, 0, group_broker.host, group_broker.port) for key in (group, "another")
    ]


@versions(1, 6)
def test_find_coordinator_refused(conn, version):
    more = {"Key": "x"} if version < 4 else {"CoordinatorKeys": ["x"]}
    got = schema.call(conn, "FindCoordinator", version, KeyType=9, **more)
    error(got.ErrorCode if version < 4 else got.Coordinators[0].ErrorCode, "INVALID_REQUEST")


@versions(0, 6)
def test_describe_groups(classic, consumer, conn, group, topic, version):
    empty, unknown, new = f"{group}-empty", f"{group}-none", f"{group}-new"
    commit(conn, empty, {(topic, 0): 1})
    m, other = stable(classic()), consumer(group=new)
    other.join(topic)
    got = schema.call(conn, "DescribeGroups", version, Groups=[group, empty, unknown, new, ""])
    told = {g.GroupId: g for g in got.Groups}
    assert set(told) == {group, empty, unknown, new, ""} and len(got.Groups) == 5
    one = told[group]
    assert (one.ErrorCode, one.GroupState, one.ProtocolType, one.ProtocolData) == (0, "Stable", "consumer", "range")
    assert [(x.MemberId, x.MemberMetadata, x.MemberAssignment) for x in one.Members] == [(m.id, subscription("t"), b"mine")]
    assert (told[empty].ErrorCode, told[empty].GroupState, told[empty].Members) == (0, "Empty", [])
    for name in (unknown, new):
        assert (told[name].GroupState, told[name].Members) == ("Dead", [])
        error(told[name].ErrorCode, "NONE" if version < 6 else "GROUP_ID_NOT_FOUND")
        assert version < 6 or told[name].ErrorMessage
    late = classic().know_id()
    late.send_join()
    wait_until(lambda: describe(conn, group, version).GroupState == "PreparingRebalance")
    m.try_join(), late.receive_join()
    assert describe(conn, group, version).GroupState == "CompletingRebalance"


def test_describe_a_static_member(classic, conn, group):
    m = stable(classic(instance="one"))
    for version in range(4, 7):
        assert [(x.MemberId, x.GroupInstanceId) for x in describe(conn, group, version).Members] == [(m.id, "one")]


@versions(0, 5)
def test_list_groups(classic, consumer, conn, group, topic, version):
    simple, new = f"{group}-simple", f"{group}-new"
    commit(conn, simple, {(topic, 0): 1})
    stable(classic())
    other = consumer(group=new)
    other.join(topic)
    other.settle(4)
    told = list_groups(conn, version)
    assert told[group].ProtocolType == "consumer" and told[simple].ProtocolType == "" and told[new].ProtocolType == "consumer"
    if version >= 4:
        assert [told[g].GroupState for g in (group, simple, new)] == ["Stable", "Empty", "Stable"]
        stables = list_groups(conn, version, states=["stable"])
        assert group in stables and new in stables and simple not in stables
        assert simple in list_groups(conn, version, states=["Empty", "Dead"])
        assert not {group, simple, new} & set(list_groups(conn, version, states=["no-such-state"]))
    if version >= 5:
        assert [told[g].GroupType for g in (group, simple, new)] == ["classic", "classic", "consumer"]
        consumers = list_groups(conn, version, types=["Consumer"])
        assert new in consumers and group not in consumers
        both = list_groups(conn, version, states=["Stable"], types=["classic", "share"])
        assert group in both and new not in both and simple not in both


@versions(0, 2)
def test_delete_groups(classic, conn, group, topic, version):
    simple, unknown = f"{group}-simple", f"{group}-none"
    commit(conn, simple, {(topic, 0): 1})
    m = stable(classic())

    def delete(*names):
        got = schema.call(conn, "DeleteGroups", version, GroupsNames=list(names))
        return {r.GroupId: r.ErrorCode for r in got.Results}

    assert delete(group, simple, unknown) == {
        group: wire.ERR["NON_EMPTY_GROUP"], simple: 0, unknown: wire.ERR["GROUP_ID_NOT_FOUND"],
    }  # fmt: skip
    assert fetch_offsets(conn, simple) == (0, {})
    assert simple not in list_groups(conn)
    m.leave()
    assert delete(group) == {group: 0}
    assert delete(group) == {group: wire.ERR["GROUP_ID_NOT_FOUND"]}
    assert stable(classic()).generation == 1, "a group made anew begins anew"


# --- KIP-848 ------------------------------------------------------------------------------------------------------------


@versions(0, 1)
def test_life_of_a_consumer_member(consumer, conn, group, topic, version):
    a, b = consumer(version=version), consumer(version=version)
    got = a.join(topic)
    assert got.MemberEpoch > 0 and got.HeartbeatIntervalMs == 500 and a.id
    a.settle(4)
    b.join(topic)
    end = time.monotonic() + 10
    while sorted(sum(b.given.values(), [])) == [] or len(sum(a.given.values(), [])) != 2 or len(sum(b.given.values(), [])) != 2:
        assert time.monotonic() < end, f"{a.given} {b.given}"
        for m in (a, b):
            m.beat(TopicPartitions=m.own())
        assert not set(sum(a.given.values(), [])) & set(sum(b.given.values(), [])) or a.epoch != b.epoch
        time.sleep(0.02)
    assert sorted(sum(a.given.values(), []) + sum(b.given.values(), [])) == [0, 1, 2, 3]
    told = schema.call(conn, "ConsumerGroupDescribe", version, GroupIds=[group]).Groups[0]
    assert (told.ErrorCode, told.GroupState, told.AssignorName) == (0, "Stable", "uniform")
    assert told.GroupEpoch == told.AssignmentEpoch == a.epoch == b.epoch
    by_id = {m.MemberId: m for m in told.Members}
    assert set(by_id) == {a.id, b.id}
    for m in (a, b):
        one = by_id[m.id]
        assert (one.MemberEpoch, one.ClientId, one.ClientHost, one.SubscribedTopicNames) == (m.epoch, "raw", "/127.0.0.1", [topic])
        parts = {t.TopicId: sorted(t.Partitions) for t in one.Assignment.TopicPartitions}
        assert parts == m.given and [t.TopicName for t in one.Assignment.TopicPartitions] == [topic]
        assert version < 1 or one.MemberType == 1
    assert b.leave().MemberEpoch == -1
    a.settle(4)


def test_range_is_asked_for(consumer, conn, group, topic):
    a = consumer()
    a.join(topic, ServerAssignor="range")
    a.settle(4)
    b = consumer()
    b.join(topic, ServerAssignor="range")
    wait_until(lambda: (a.beat(TopicPartitions=a.own()), b.beat(TopicPartitions=b.own()), sum(map(len, b.given.values())) == 2)[-1])
    assert schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].AssignorName == "range"
    assert {tuple(p) for m in (a, b) for p in m.given.values()} == {(0, 1), (2, 3)}


@versions(0, 1)
def test_consumer_heartbeat_refused(consumer, group, topic, version):
    def told(**other):
        m = consumer(version=version)
        values = {"SubscribedTopicNames": [topic], "RebalanceTimeoutMs": 5000, "TopicPartitions": []}
        if version == 0:
            values["MemberId"] = ""
        return m.beat(**{**values, **other}).ErrorCode

    error(told(GroupId=""), "INVALID_REQUEST")
    error(told(GroupId="  "), "INVALID_REQUEST")
    if version >= 1:
        error(told(MemberId=""), "INVALID_REQUEST")
        error(told(SubscribedTopicNames=None, SubscribedTopicRegex="(unclosed"), "INVALID_REGULAR_EXPRESSION")
    error(told(RebalanceTimeoutMs=-1), "INVALID_REQUEST")
    error(told(TopicPartitions=None), "INVALID_REQUEST")
    error(told(TopicPartitions=[{"TopicId": uuid.uuid4(), "Partitions": [0]}]), "INVALID_REQUEST")
    error(told(SubscribedTopicNames=None), "INVALID_REQUEST")
    error(told(InstanceId=""), "INVALID_REQUEST")
    error(told(RackId=""), "INVALID_REQUEST")
    error(told(ServerAssignor=""), "UNSUPPORTED_ASSIGNOR")
    error(told(ServerAssignor="no-such"), "UNSUPPORTED_ASSIGNOR")
    error(told(MemberEpoch=-3), "INVALID_REQUEST")
    error(told(MemberEpoch=-2), "INVALID_REQUEST")
    error(told(MemberEpoch=5, MemberId="nobody"), "GROUP_ID_NOT_FOUND")
    error(told(MemberEpoch=-1, MemberId="nobody"), "GROUP_ID_NOT_FOUND")
    m = consumer(version=version)
    m.join(topic)
    error(told(MemberEpoch=5, MemberId="nobody"), "UNKNOWN_MEMBER_ID")
    error(told(MemberEpoch=-1, MemberId="nobody"), "UNKNOWN_MEMBER_ID")
    error(m.beat(MemberEpoch=m.epoch + 1).ErrorCode, "FENCED_MEMBER_EPOCH")
    error(m.beat(MemberEpoch=m.epoch + 1, TopicPartitions=[]).ErrorCode, "FENCED_MEMBER_EPOCH")
    m.settle(4)
    error(m.beat().ErrorCode, "NONE")
    assert m.beat().Assignment is None, "the assignment is sent again though nothing changed"


def test_consumer_member_of_the_epoch_before(consumer, topic):
    """The answer to its last heartbeat was lost: the epoch before is good with what it had, and no other."""
    a = consumer()
    a.join(topic)
    a.settle(4)
    b = consumer()
    b.join(topic)
    before = a.epoch
    wait_until(lambda: (a.beat(TopicPartitions=a.own()), a.epoch > before)[-1])
    assert len(sum(a.given.values(), [])) == 2
    error(a.beat(MemberEpoch=before, TopicPartitions=a.own()).ErrorCode, "NONE")
    error(a.beat(MemberEpoch=before, TopicPartitions=[{"TopicId": uuid.uuid4(), "Partitions": [0]}]).ErrorCode, "FENCED_MEMBER_EPOCH")


def test_consumer_subscribed_to_what_is_not_there_yet(consumer, group_broker, topic):
    m = consumer()
    later = f"{topic}-{uuid.uuid4().hex[:6]}"
    m.join(topic, later)
    m.settle(4)
    load.create_topic(group_broker, later, 3)
    m.settle(7)


def test_consumer_by_regular_expression(consumer, conn, group, topic):
    m = consumer()
    m.join(SubscribedTopicNames=[], SubscribedTopicRegex=topic[:-1] + ".")
    m.settle(4)
    told = schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].Members[0]
    assert told.SubscribedTopicRegex == topic[:-1] + "." and told.SubscribedTopicNames == []
    error(m.beat(SubscribedTopicRegex="[").ErrorCode, "INVALID_REGULAR_EXPRESSION")
    error(m.beat(SubscribedTopicRegex="", SubscribedTopicNames=[]).ErrorCode, "NONE")
    m.settle(0)


def test_consumer_static_member(consumer, conn, group, topic):
    a = consumer(instance="one")
    a.join(topic)
    a.settle(4)
    double = consumer(instance="one")
    got = double.beat(SubscribedTopicNames=[topic], RebalanceTimeoutMs=5000, TopicPartitions=[], InstanceId="one")
    error(got.ErrorCode, "UNRELEASED_INSTANCE_ID")
    error(a.beat(InstanceId="one").ErrorCode, "NONE")
    epoch = a.epoch
    assert a.leave(-2).MemberEpoch == -2
    back = consumer(instance="one")
    back.join(topic)
    back.settle(4)
    assert back.epoch == epoch, "a rebalance for a static member that came back"
    a.epoch = epoch
    error(a.beat(InstanceId="one").ErrorCode, "FENCED_INSTANCE_ID")
    error(a.beat().ErrorCode, "UNKNOWN_MEMBER_ID")
    told = schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0]
    assert [(m.MemberId, m.InstanceId) for m in told.Members] == [(back.id, "one")]


def test_consumer_commits(consumer, conn, group, topic):
    m = consumer()
    m.join(topic)
    m.settle(4)
    at = (topic, 0)

    def told(version=9, **who):
        return commit(conn, group, {at: 1}, version, **who)[at]

    error(told(generation=m.epoch, member=m.id), "NONE")
    error(told(generation=m.epoch - 1, member=m.id), "STALE_MEMBER_EPOCH")
    error(told(generation=m.epoch + 1, member=m.id), "STALE_MEMBER_EPOCH")
    error(told(generation=m.epoch, member="nobody"), "UNKNOWN_MEMBER_ID")
    error(told(), "UNKNOWN_MEMBER_ID")
    error(told(version=8, generation=m.epoch, member=m.id), "UNSUPPORTED_VERSION")
    m.leave()
    error(told(), "NONE")


def test_consumer_session_expires(consumer, conn, group, topic, length):
    if not length.full:
        pytest.skip("takes six seconds; test_groups.py shows it of frozen members")
    m = consumer()
    m.join(topic)
    began = time.monotonic()
    state = lambda: schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].GroupState  # noqa: E731
    wait_until(lambda: state() == "Empty", timeout=15)
    assert 5 < time.monotonic() - began < 9, "the session timeout was 6 s"
    error(m.beat().ErrorCode, "UNKNOWN_MEMBER_ID")


@versions(0, 1)
def test_consumer_describe_refused(classic, conn, group, version):
    stable(classic())
    got = schema.call(conn, "ConsumerGroupDescribe", version, GroupIds=[group, f"{group}-none", ""]).Groups
    told = {g.GroupId: g for g in got}
    assert set(told) == {group, f"{group}-none", ""} and len(got) == 3
    for name in (group, f"{group}-none"):
        error(told[name].ErrorCode, "GROUP_ID_NOT_FOUND")
        assert told[name].ErrorMessage
    error(told[""].ErrorCode, "INVALID_GROUP_ID")


def test_groups_of_one_protocol_refuse_the_other_where_they_must(classic, consumer, topic):
    m = consumer()
    m.join(topic)
    error(classic(kind="connect", protocols={"x": b""}).try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    m.leave()
    connect = stable(classic(kind="connect", protocols={"x": b""}))
    got = consumer().beat(SubscribedTopicNames=[topic], RebalanceTimeoutMs=5000, TopicPartitions=[])
    error(got.ErrorCode, "GROUP_ID_NOT_FOUND")
    error(connect.heartbeat(), "NONE")


@pytest.mark.parametrize("join", [3, 9])
def test_a_classic_member_beside_a_consumer_member(classic, consumer, conn, group, topic, join):
    """The group is turned into one of the newer protocol under its first member, and back when the last of the others leaves."""
    old = classic(version=join, protocols={"range": subscription(topic)})
    old.join()
    error(old.sync({old.id: assignment(topic, [0, 1, 2, 3])}).ErrorCode, "NONE")
    new = consumer()
    new.join(topic)
    assert list_groups(conn)[group].GroupType == "consumer"
    wait_until(lambda: old.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    new.leave()
    assert list_groups(conn)[group].GroupType == "classic"
    assert old.heartbeat() in wire.err("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS")
    got = old.try_join()
    assert got.ErrorCode == 0 and got.Leader == old.id
    error(old.sync({old.id: assignment(topic, [0, 1, 2, 3])}).ErrorCode, "NONE")
    error(old.heartbeat(), "NONE")


def test_what_the_broker_says_it_serves(conn):
    _, served = wire.api_versions(conn)
    due = {
        "JoinGroup": (0, 9), "SyncGroup": (0, 5), "Heartbeat": (0, 4), "LeaveGroup": (0, 5), "OffsetCommit": (2, 9),
        "OffsetFetch": (1, 9), "OffsetDelete": (0, 0), "FindCoordinator": (0, 6), "DescribeGroups": (0, 6), "ListGroups": (0, 5),
        "DeleteGroups": (0, 2), "ConsumerGroupHeartbeat": (0, 1), "ConsumerGroupDescribe": (0, 1),
    }  # fmt: skip
    for api, (low, high) in due.items():
        got = served.get(schema.message(f"{api}Request").api)
        assert got and got[0] == low and got[1] >= high, f"{api}: {got} where {(low, high)} was due"
