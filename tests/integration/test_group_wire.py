"""The classic group protocol and the admin APIs of groups in each of their versions, by hand: what a member is told, and the error
that odd input gets."""

import time

import pytest

from support import schema, wire
from support.groups import (
    ClassicMember, assignment, commit, describe, error, fetch_offsets, list_groups, stable, subscription, versions, wait_ready, wait_until,
)  # fmt: skip


@versions(0, 9)
def test_life_of_a_member(classic, conn, group, group_topic, version):
    m = classic(version=version, protocols={"range": subscription(group_topic), "roundrobin": b"other"}).know_id()
    assert version < 4 or m.id.startswith("raw-"), m.id
    got = m.join()
    assert (got.GenerationId, got.ProtocolName, got.Leader) == (1, "range", m.id)
    assert version < 7 or got.ProtocolType == "consumer"
    assert [(x.MemberId, x.Metadata) for x in got.Members] == [(m.id, subscription(group_topic))]
    given = assignment(group_topic, [0, 1, 2, 3])
    synced = m.sync({m.id: given})
    assert (synced.ErrorCode, synced.Assignment) == (0, given)
    assert version < 5 or (synced.ProtocolType, synced.ProtocolName) == ("consumer", "range")
    error(m.heartbeat(), "NONE")
    assert m.commit({(group_topic, 0): 7}) == {(group_topic, 0): 0}
    told = describe(conn, group)
    assert (told.GroupState, told.ProtocolType, told.ProtocolData) == ("Stable", "consumer", "range")
    assert [(x.MemberId, x.ClientId, x.ClientHost, x.MemberAssignment) for x in told.Members] == [(m.id, "raw", "/127.0.0.1", given)]
    error(m.leave(), "NONE")
    assert describe(conn, group).GroupState == "Empty"
    assert fetch_offsets(conn, group)[1][group_topic, 0].CommittedOffset == 7


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


def test_fenced_commit_of_a_static_member(classic, group_topic):
    old = stable(classic(instance="a"))
    new = classic(instance="a")
    new.join()
    error(old.commit({(group_topic, 0): 1})[group_topic, 0], "FENCED_INSTANCE_ID")
    error(new.commit({(group_topic, 0): 1})[group_topic, 0], "NONE")


def test_session_expires(classic, conn, group):
    m = stable(classic(session_ms=1000))
    began = time.monotonic()
    wait_until(lambda: describe(conn, group).GroupState == "Empty")
    assert 0.8 < time.monotonic() - began, "the session timeout was 1 s"
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
    assert 1.2 < took
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


def test_initial_delay_gathers_the_members(make_broker):
    """group.initial.rebalance.delay.ms: the first generation waits for it, and is put off by each that joins meanwhile."""
    b = make_broker({"group.initial.rebalance.delay.ms": 700})
    b.start()
    wait_ready(b, "slow")
    with ClassicMember(b, "slow") as first, ClassicMember(b, "slow") as second:
        first.know_id(), second.know_id()
        began = time.monotonic()
        first.send_join()
        time.sleep(0.4)
        second.send_join()
        got = [first.receive_join(), second.receive_join()]
        took = time.monotonic() - began
    assert {x.GenerationId for x in got} == {1} and sum(len(x.Members) for x in got) == 2
    assert 1.0 < took


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
def test_describe_groups(classic, consumer, conn, group, group_topic, version):
    empty, unknown, new = f"{group}-empty", f"{group}-none", f"{group}-new"
    commit(conn, empty, {(group_topic, 0): 1})
    m, other = stable(classic()), consumer(group=new)
    other.join(group_topic)
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
def test_list_groups(classic, consumer, conn, group, group_topic, version):
    simple, new = f"{group}-simple", f"{group}-new"
    commit(conn, simple, {(group_topic, 0): 1})
    stable(classic())
    other = consumer(group=new)
    other.join(group_topic)
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
def test_delete_groups(classic, conn, group, group_topic, version):
    simple, unknown = f"{group}-simple", f"{group}-none"
    commit(conn, simple, {(group_topic, 0): 1})
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


def test_what_the_broker_says_it_serves(conn):
    _, served = wire.api_versions(conn)
    due = {
        "JoinGroup": (0, 9), "SyncGroup": (0, 5), "Heartbeat": (0, 4), "LeaveGroup": (0, 5), "OffsetCommit": (2, 10),
        "OffsetFetch": (1, 10), "OffsetDelete": (0, 0), "FindCoordinator": (0, 6), "DescribeGroups": (0, 6), "ListGroups": (0, 5),
        "DeleteGroups": (0, 2), "ConsumerGroupHeartbeat": (0, 1), "ConsumerGroupDescribe": (0, 1),
    }  # fmt: skip
    for api, (low, high) in due.items():
        got = served.get(schema.message(f"{api}Request").api)
        assert got and got[0] == low and got[1] >= high, f"{api}: {got} where {(low, high)} was due"
