"""The consumer group protocol of KIP-848 by hand, and what a group is told that both protocols meet in."""

import time
import uuid

import pytest

from support import clock, load, schema, wire
from support.groups import assignment, commit, error, list_groups, stable, subscription, versions, wait_until


@versions(0, 1)
def test_life_of_a_consumer_member(consumer, conn, group, group_topic, version):
    a, b = consumer(version=version), consumer(version=version)
    got = a.join(group_topic)
    assert got.MemberEpoch > 0 and got.HeartbeatIntervalMs == 500 and a.id
    a.settle(4)
    b.join(group_topic)
    end = clock.running() + 10
    while sorted(sum(b.given.values(), [])) == [] or len(sum(a.given.values(), [])) != 2 or len(sum(b.given.values(), [])) != 2:
        assert clock.running() < end, f"{a.given} {b.given}"
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
        assert (one.MemberEpoch, one.ClientId, one.ClientHost, one.SubscribedTopicNames) == (m.epoch, "raw", "/127.0.0.1", [group_topic])
        parts = {t.TopicId: sorted(t.Partitions) for t in one.Assignment.TopicPartitions}
        assert parts == m.given and [t.TopicName for t in one.Assignment.TopicPartitions] == [group_topic]
        assert version < 1 or one.MemberType == 1
    assert b.leave().MemberEpoch == -1
    a.settle(4)


def test_range_is_asked_for(consumer, conn, group, group_topic):
    a = consumer()
    a.join(group_topic, ServerAssignor="range")
    a.settle(4)
    b = consumer()
    b.join(group_topic, ServerAssignor="range")
    wait_until(lambda: (a.beat(TopicPartitions=a.own()), b.beat(TopicPartitions=b.own()), sum(map(len, b.given.values())) == 2)[-1])
    assert schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].AssignorName == "range"
    assert {tuple(p) for m in (a, b) for p in m.given.values()} == {(0, 1), (2, 3)}


@versions(0, 1)
def test_consumer_heartbeat_refused(consumer, group, group_topic, version):
    def told(**other):
        m = consumer(version=version)
        values = {"SubscribedTopicNames": [group_topic], "RebalanceTimeoutMs": 5000, "TopicPartitions": []}
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
    m.join(group_topic)
    error(told(MemberEpoch=5, MemberId="nobody"), "UNKNOWN_MEMBER_ID")
    error(told(MemberEpoch=-1, MemberId="nobody"), "UNKNOWN_MEMBER_ID")
    error(m.beat(MemberEpoch=m.epoch + 1).ErrorCode, "FENCED_MEMBER_EPOCH")
    error(m.beat(MemberEpoch=m.epoch + 1, TopicPartitions=[]).ErrorCode, "FENCED_MEMBER_EPOCH")
    m.settle(4)
    error(m.beat().ErrorCode, "NONE")
    assert m.beat().Assignment is None, "the assignment is sent again though nothing changed"


def test_consumer_member_of_the_epoch_before(consumer, group_topic):
    """The answer to its last heartbeat was lost: the epoch before is good with what it had, and no other."""
    a = consumer()
    a.join(group_topic)
    a.settle(4)
    b = consumer()
    b.join(group_topic)
    before = a.epoch
    wait_until(lambda: (a.beat(TopicPartitions=a.own()), a.epoch > before)[-1])
    assert len(sum(a.given.values(), [])) == 2
    error(a.beat(MemberEpoch=before, TopicPartitions=a.own()).ErrorCode, "NONE")
    error(a.beat(MemberEpoch=before, TopicPartitions=[{"TopicId": uuid.uuid4(), "Partitions": [0]}]).ErrorCode, "FENCED_MEMBER_EPOCH")


def test_consumer_subscribed_to_what_is_not_there_yet(consumer, group_broker, group_topic):
    m = consumer()
    later = f"{group_topic}-{uuid.uuid4().hex[:6]}"
    m.join(group_topic, later)
    m.settle(4)
    load.create_topic(group_broker, later, 3)
    m.settle(7)


def test_consumer_by_regular_expression(consumer, conn, group, group_topic):
    m = consumer()
    m.join(SubscribedTopicNames=[], SubscribedTopicRegex=group_topic[:-1] + ".")
    m.settle(4)
    told = schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].Members[0]
    assert told.SubscribedTopicRegex == group_topic[:-1] + "." and told.SubscribedTopicNames == []
    error(m.beat(SubscribedTopicRegex="[").ErrorCode, "INVALID_REGULAR_EXPRESSION")
    error(m.beat(SubscribedTopicRegex="", SubscribedTopicNames=[]).ErrorCode, "NONE")
    m.settle(0)


def test_consumer_static_member(consumer, conn, group, group_topic):
    a = consumer(instance="one")
    a.join(group_topic)
    a.settle(4)
    double = consumer(instance="one")
    got = double.beat(SubscribedTopicNames=[group_topic], RebalanceTimeoutMs=5000, TopicPartitions=[], InstanceId="one")
    error(got.ErrorCode, "UNRELEASED_INSTANCE_ID")
    error(a.beat(InstanceId="one").ErrorCode, "NONE")
    epoch = a.epoch
    assert a.leave(-2).MemberEpoch == -2
    back = consumer(instance="one")
    back.join(group_topic)
    back.settle(4)
    assert back.epoch == epoch, "a rebalance for a static member that came back"
    a.epoch = epoch
    error(a.beat(InstanceId="one").ErrorCode, "FENCED_INSTANCE_ID")
    error(a.beat().ErrorCode, "UNKNOWN_MEMBER_ID")
    told = schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0]
    assert [(m.MemberId, m.InstanceId) for m in told.Members] == [(back.id, "one")]


def test_consumer_commits(consumer, conn, group, group_topic):
    m = consumer()
    m.join(group_topic)
    m.settle(4)
    at = (group_topic, 0)

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


def test_consumer_session_expires(consumer, conn, group, group_topic, length):
    if not length.full:
        pytest.skip("takes six seconds; test_groups.py shows it of frozen members")
    m = consumer()
    m.join(group_topic)
    began = time.monotonic()
    state = lambda: schema.call(conn, "ConsumerGroupDescribe", 1, GroupIds=[group]).Groups[0].GroupState  # noqa: E731
    wait_until(lambda: state() == "Empty", timeout=15)
    assert 5 < time.monotonic() - began, "the session timeout was 6 s"
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


def test_groups_of_one_protocol_refuse_the_other_where_they_must(classic, consumer, group_topic):
    m = consumer()
    m.join(group_topic)
    error(classic(kind="connect", protocols={"x": b""}).try_join().ErrorCode, "INCONSISTENT_GROUP_PROTOCOL")
    m.leave()
    connect = stable(classic(kind="connect", protocols={"x": b""}))
    got = consumer().beat(SubscribedTopicNames=[group_topic], RebalanceTimeoutMs=5000, TopicPartitions=[])
    error(got.ErrorCode, "GROUP_ID_NOT_FOUND")
    error(connect.heartbeat(), "NONE")


@pytest.mark.parametrize("join", [3, 9])
def test_a_classic_member_beside_a_consumer_member(classic, consumer, conn, group, group_topic, join):
    """The group is turned into one of the newer protocol under its first member, and back when the last of the others leaves."""
    old = classic(version=join, protocols={"range": subscription(group_topic)})
    old.join()
    error(old.sync({old.id: assignment(group_topic, [0, 1, 2, 3])}).ErrorCode, "NONE")
    new = consumer()
    new.join(group_topic)
    assert list_groups(conn)[group].GroupType == "consumer"
    wait_until(lambda: old.heartbeat() == wire.ERR["REBALANCE_IN_PROGRESS"])
    new.leave()
    assert list_groups(conn)[group].GroupType == "classic"
    assert old.heartbeat() in wire.err("ILLEGAL_GENERATION", "REBALANCE_IN_PROGRESS")
    got = old.try_join()
    assert got.ErrorCode == 0 and got.Leader == old.id
    error(old.sync({old.id: assignment(group_topic, [0, 1, 2, 3])}).ErrorCode, "NONE")
    error(old.heartbeat(), "NONE")
