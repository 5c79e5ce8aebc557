"""OffsetCommit, OffsetFetch and OffsetDelete in each of their versions, by hand."""

import pytest

from support import load, schema, wire
from support.groups import (
    ClassicMember, commit, error, fetch_offsets, list_groups, stable, subscription, versions, wait_ready, wait_until,
)  # fmt: skip


@versions(2, 10)
def test_commit_and_fetch(conn, group, group_topic, version):
    there, missing, beyond = (group_topic, 0), ("no-such-group_topic", 0), (group_topic, 4)
    got = commit(conn, group, {there: 5, (group_topic, 1): 0, missing: 1, beyond: 1}, version, metadata="note")
    unknown, unknown_id = wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"], wire.ERR["UNKNOWN_TOPIC_ID"]
    assert got == {there: 0, (group_topic, 1): 0, missing: unknown_id if version >= 10 else unknown, beyond: unknown}
    for v in range(1, 11):
        code, offsets = fetch_offsets(conn, group, {group_topic: [0, 1, 2, 4], "no-such-group_topic": [0]}, v)
        assert code == 0
        told = {k: (p.CommittedOffset, p.Metadata, p.ErrorCode) for k, p in offsets.items()}
        none = (-1, "", 0)
        assert told == {there: (5, "note", 0), (group_topic, 1): (0, "note", 0), (group_topic, 2): none, beyond: none, missing: (-1, "", unknown_id) if v >= 10 else none}, f"v{v}"
        if v >= 2:
            found = {partition: p.CommittedOffset for (_, partition), p in fetch_offsets(conn, group, None, v)[1].items()}
            assert found == {0: 5, 1: 0}
    assert commit(conn, group, {there: 3}, version) == {there: 0}
    assert fetch_offsets(conn, group)[1][there].CommittedOffset == 3, "a simple group may go back"
    assert fetch_offsets(conn, group)[1][there].Metadata == ""


@versions(2, 10)
def test_commit_refused(classic, conn, group, group_topic, version):
    at = (group_topic, 0)

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
def test_commit_of_an_odd_offset(conn, group, group_topic, offset):
    """The coordinator keeps what it is given."""
    assert commit(conn, group, {(group_topic, 0): offset}) == {(group_topic, 0): 0}
    assert fetch_offsets(conn, group)[1][group_topic, 0].CommittedOffset == offset


def test_commit_keeps_the_leader_epoch(conn, group, group_topic):
    part = {"PartitionIndex": 0, "CommittedOffset": 9, "CommittedLeaderEpoch": 3, "CommittedMetadata": None}
    for version in range(6, 10):
        part["CommittedOffset"] = version
        got = schema.call(conn, "OffsetCommit", version, GroupId=group, MemberId="", Topics=[{"Name": group_topic, "Partitions": [part]}])
        assert got.Topics[0].Partitions[0].ErrorCode == 0
        for v in range(5, 10):
            found = fetch_offsets(conn, group, None, v)[1][group_topic, 0]
            assert (found.CommittedOffset, found.CommittedLeaderEpoch) == (version, 3)
    part["CommittedLeaderEpoch"] = -1
    schema.call(conn, "OffsetCommit", 5, GroupId=group, MemberId="", Topics=[{"Name": group_topic, "Partitions": [part]}])
    assert fetch_offsets(conn, group)[1][group_topic, 0].CommittedLeaderEpoch == -1


def test_commit_of_nothing(conn, group, group_topic):
    got = schema.call(conn, "OffsetCommit", 9, GroupId=group, MemberId="", Topics=[])
    assert got.Topics == []
    got = schema.call(conn, "OffsetCommit", 9, GroupId=group, MemberId="", Topics=[{"Name": group_topic, "Partitions": []}])
    assert [p for t in got.Topics for p in t.Partitions] == []


def test_the_empty_group_id_keeps_offsets(conn, group_topic):
    assert commit(conn, "", {(group_topic, 3): 4}) == {(group_topic, 3): 0}
    assert fetch_offsets(conn, "", {group_topic: [3]})[1][group_topic, 3].CommittedOffset == 4


@versions(1, 10)
def test_fetch_of_an_unknown_group(conn, group, group_topic, version):
    code, offsets = fetch_offsets(conn, f"{group}-none", {group_topic: [0, 3]}, version)
    assert code == 0
    assert {k: (p.CommittedOffset, p.ErrorCode, p.Metadata) for k, p in offsets.items()} == {(group_topic, 0): (-1, 0, ""), (group_topic, 3): (-1, 0, "")}
    if version >= 2:
        assert fetch_offsets(conn, f"{group}-none", None, version) == (0, {})


@versions(8, 10)
def test_fetch_for_several_groups(conn, group, group_topic, version):
    names = [f"{group}-{n}" for n in range(5)]
    for n, name in enumerate(names):
        commit(conn, name, {(group_topic, n % 4): n})
    wanted = [{"GroupId": name, "Topics": None} for name in (*names, f"{group}-none")]
    got = schema.call(conn, "OffsetFetch", version, Groups=wanted, RequireStable=True)
    told = {g.GroupId: {p.PartitionIndex: p.CommittedOffset for t in g.Topics for p in t.Partitions} for g in got.Groups}
    assert told == {**{name: {n % 4: n} for n, name in enumerate(names)}, f"{group}-none": {}}
    assert {g.ErrorCode for g in got.Groups} == {0}


def test_fetch_by_a_member_of_a_consumer_group(consumer, conn, group, group_topic):
    m = consumer()
    m.join(group_topic)
    m.settle(4)
    assert commit(conn, group, {(group_topic, 0): 4}, generation=m.epoch, member=m.id) == {(group_topic, 0): 0}

    def told(version=9, **who):
        return fetch_offsets(conn, group, {group_topic: [0]}, version, **who)

    code, found = told(MemberId=m.id, MemberEpoch=m.epoch)
    assert code == 0 and found[group_topic, 0].CommittedOffset == 4
    assert told()[0] == 0
    for version in (9, 10):
        error(told(version, MemberId=m.id, MemberEpoch=m.epoch + 1)[0], "STALE_MEMBER_EPOCH")
        error(told(version, MemberId="nobody", MemberEpoch=m.epoch)[0], "UNKNOWN_MEMBER_ID")


def test_ids_of_a_topic_that_was_made_again(group_broker, conn, group):
    """Version 10: what was committed for a topic is not told of another one with its name."""
    name = load.create_topic(group_broker, f"again-{group}", 2)
    first = topic_id(conn, name)
    assert commit(conn, group, {(name, 0): 5, (name, 1): 6}, 10) == {(name, 0): 0, (name, 1): 0}
    told = schema.call(conn, "OffsetFetch", 10, Groups=[{"GroupId": group, "Topics": None}]).Groups[0].Topics
    assert [(t.TopicId, {p.PartitionIndex: p.CommittedOffset for p in t.Partitions}) for t in told] == [(first, {0: 5, 1: 6})]
    schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": name, "TopicId": schema.NIL}], TimeoutMs=30_000)
    wait_until(lambda: topic_id(conn, name) is None)

    def of(topic):
        asked = [{"GroupId": group, "Topics": [{"TopicId": topic, "PartitionIndexes": [0, 1]}]}]
        [got] = schema.call(conn, "OffsetFetch", 10, Groups=asked).Groups
        [found] = got.Topics
        assert got.ErrorCode == 0 and found.TopicId == topic
        return {(p.CommittedOffset, p.ErrorCode) for p in found.Partitions}

    unknown = wire.ERR["UNKNOWN_TOPIC_ID"]
    assert of(first) == {(-1, unknown)}
    load.create_topic(group_broker, name, 2)
    second = topic_id(conn, name)
    assert second != first and of(first) == {(-1, unknown)} and of(second) == {(-1, 0)}
    part = {"PartitionIndex": 0, "CommittedOffset": 7, "CommittedMetadata": None}
    for topic, due in ((first, unknown), (schema.NIL, unknown), (second, 0)):
        [got] = schema.call(conn, "OffsetCommit", 10, GroupId=group, MemberId="", Topics=[{"TopicId": topic, "Partitions": [part]}]).Topics
        assert (got.TopicId, [(p.PartitionIndex, p.ErrorCode) for p in got.Partitions]) == (topic, [(0, due)])
    assert fetch_offsets(conn, group, {name: [0]}, 10)[1][name, 0].CommittedOffset == 7


def topic_id(conn, name):
    [told] = schema.call(conn, "Metadata", 12, Topics=[{"TopicId": schema.NIL, "Name": name}], AllowAutoTopicCreation=False).Topics
    return None if told.ErrorCode else told.TopicId


def delete_offsets(conn, group, topics):
    got = schema.call(
        conn, "OffsetDelete", 0, GroupId=group,
        Topics=[{"Name": t, "Partitions": [{"PartitionIndex": p} for p in parts]} for t, parts in topics.items()],
    )  # fmt: skip
    return got.ErrorCode, {(t.Name, p.PartitionIndex): p.ErrorCode for t in got.Topics for p in t.Partitions}


def test_offset_delete(classic, conn, group, group_topic):
    error(delete_offsets(conn, f"{group}-none", {group_topic: [0]})[0], "GROUP_ID_NOT_FOUND")
    error(delete_offsets(conn, "", {group_topic: [0]})[0], "INVALID_GROUP_ID")
    m = stable(classic(protocols={"range": subscription(group_topic)}))
    m.commit({(group_topic, 0): 1, (group_topic, 1): 2})
    code, told = delete_offsets(conn, group, {group_topic: [0], "no-such-group_topic": [0]})
    assert code == 0
    assert told == {(group_topic, 0): wire.ERR["GROUP_SUBSCRIBED_TO_TOPIC"], ("no-such-group_topic", 0): wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"]}
    m.leave()
    assert delete_offsets(conn, group, {group_topic: [0, 3]}) == (0, {(group_topic, 0): 0, (group_topic, 3): 0})
    assert set(fetch_offsets(conn, group)[1]) == {(group_topic, 1)}
    assert delete_offsets(conn, group, {group_topic: [1]}) == (0, {(group_topic, 1): 0})
    assert fetch_offsets(conn, group) == (0, {})


def test_offset_delete_in_use_by_another_protocol(classic, conn, group, group_topic):
    m = stable(classic(kind="connect", protocols={"x": b"y"}))
    assert m.commit({(group_topic, 0): 1}) == {(group_topic, 0): 0}
    error(delete_offsets(conn, group, {group_topic: [0]})[0], "NON_EMPTY_GROUP")


def test_offsets_expire(make_broker):
    """Versions 2 to 4 bring a time of their own. What nobody is subscribed to goes, the group with its last offset; what a member
    is subscribed to stays."""
    b = make_broker({"offsets.retention.check.interval.ms": 200, "group.initial.rebalance.delay.ms": 0})
    b.start()
    topic = load.create_topic(b, "expiring", 2)
    wait_ready(b, "gone")

    def put(name, partition, version, retention_ms, **who):
        part = {"PartitionIndex": partition, "CommittedOffset": 5, "CommittedMetadata": ""}
        values = {"GroupId": name, "MemberId": "", "RetentionTimeMs": retention_ms, "Topics": [{"Name": topic, "Partitions": [part]}], **who}
        got = schema.call(conn, "OffsetCommit", version, **values)
        assert got.Topics[0].Partitions[0].ErrorCode == 0

    with wire.Conn(b, timeout=30) as conn, ClassicMember(b, "used", protocols={"range": subscription(topic)}, session_ms=30_000) as m:
        wait_ready(b, "used")
        stable(m)
        put("used", 0, 4, 500, MemberId=m.id, GenerationIdOrMemberEpoch=m.generation)
        for version in (2, 3, 4):
            put(f"gone-{version}", 0, version, 500)
        put("half", 0, 4, 500)
        put("half", 1, 9, -1)
        gone = {f"gone-{v}" for v in (2, 3, 4)}
        wait_until(lambda: not gone & set(list_groups(conn)), timeout=10)
        for name in gone:
            assert fetch_offsets(conn, name) == (0, {})
        wait_until(lambda: set(fetch_offsets(conn, "half")[1]) == {(topic, 1)}, timeout=10)
        assert set(fetch_offsets(conn, "used")[1]) == {(topic, 0)}
    b.stop()
    b.start(topics=[topic])
    wait_ready(b, "half")
    with wire.Conn(b) as conn:
        wait_until(lambda: "half" in list_groups(conn))
        assert not gone & set(list_groups(conn)), "expired groups are back after a restart"
        assert set(fetch_offsets(conn, "half")[1]) == {(topic, 1)}
