"""Groups by hand: members of both protocols over raw connections, offsets, and the coordinator's readiness."""

import struct
import time
import uuid
from types import SimpleNamespace

import pytest

from . import clock, schema, wire

PASSING = wire.err("COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR")
# The type of resource whose options are those of a group.
GROUP = 32
NAMES = {code: name for name, code in wire.ERR.items()}


def name_of(code):
    return NAMES.get(code, str(code))


def error(code, name):
    assert code == wire.ERR[name], f"{name_of(code)} where {name} was due"


def versions(low, high):
    return pytest.mark.parametrize("version", range(low, high + 1))


def wait_until(check, timeout=10):
    """Polls until `check` answers something true, and answers that."""
    end = clock.running() + timeout
    while not (got := check()):
        assert clock.running() < end, f"not within {timeout} s"
        time.sleep(0.02)
    return got


def subscription(*topics):
    """What a consumer says of itself in JoinGroup, in the layout's version 0."""
    body = struct.pack(">hi", 0, len(topics)) + b"".join(struct.pack(">h", len(t)) + t.encode() for t in topics)
    return body + struct.pack(">i", -1)


def assignment(topic, partitions):
    """What the leader gives a member in SyncGroup, in the layout's version 0."""
    body = struct.pack(">hih", 0, 1, len(topic)) + topic.encode()
    return body + struct.pack(f">i{len(partitions)}ii", len(partitions), *partitions, -1)


# OffsetCommit and OffsetFetch name topics by id from here on.
IDS_FROM = 10


class Names:
    """Names of topics for requests of a version and from their answers."""

    def __init__(self, conn, version, names):
        self.by_id = None
        if version >= IDS_FROM:
            asked = [{"TopicId": schema.NIL, "Name": name} for name in names]
            told = schema.call(conn, "Metadata", 12, Topics=asked, AllowAutoTopicCreation=False).Topics
            # A topic that there is not has an id that there is not.
            self.by_id = {t.TopicId if t.ErrorCode == 0 else uuid.uuid5(uuid.NAMESPACE_DNS, t.Name): t.Name for t in told}

    def field(self, name):
        if self.by_id is None:
            return {"Name": name}
        return {"TopicId": next(i for i, known in self.by_id.items() if known == name)}

    def of(self, topic):
        """Of a topic in an answer; the id itself where the name was not asked for."""
        return topic.Name if self.by_id is None else self.by_id.get(topic.TopicId, topic.TopicId)


def fetch_offsets(conn, group, topics=None, version=9, **more):
    """OffsetFetch in any version -> (error of the group, {(topic, partition): Struct}). `topics`: {name: partitions}, None for all."""
    names = Names(conn, version, topics or ())
    wanted = None if topics is None else [{**names.field(t), "PartitionIndexes": list(p)} for t, p in topics.items()]
    if version >= 8:
        got = schema.call(conn, "OffsetFetch", version, Groups=[{"GroupId": group, "Topics": wanted, **more}])
        got = got.Groups[0]
    else:
        got = schema.call(conn, "OffsetFetch", version, GroupId=group, Topics=wanted, **more)
    return got.ErrorCode, {(names.of(t), p.PartitionIndex): p for t in got.Topics for p in t.Partitions}


def commit_values(group, offsets, generation=-1, member="", instance=None, metadata=None, field=lambda name: {"Name": name}):
    """The fields of an OffsetCommit. `offsets`: {(topic, partition): offset}; `field`: how a topic is named"""
    topics = {}
    for (topic, partition), offset in offsets.items():
        part = {"PartitionIndex": partition, "CommittedOffset": offset, "CommittedMetadata": metadata}
        topics.setdefault(topic, []).append(part)
    return {
        "GroupId": group, "GenerationIdOrMemberEpoch": generation, "MemberId": member, "GroupInstanceId": instance,
        "Topics": [{**field(t), "Partitions": parts} for t, parts in topics.items()],
    }  # fmt: skip


def commit(conn, group, offsets, version=9, **who):
    """-> {(topic, partition): error}"""
    names = Names(conn, version, {topic for topic, _ in offsets})
    got = schema.call(conn, "OffsetCommit", version, **commit_values(group, offsets, field=names.field, **who))
    return {(names.of(t), p.PartitionIndex): p.ErrorCode for t in got.Topics for p in t.Partitions}


def find_coordinator(broker, group):
    """-> (error, where it is, for a `wire.Conn`)"""
    with wire.Conn(broker) as conn:
        found = schema.call(conn, "FindCoordinator", 4, KeyType=0, CoordinatorKeys=[group]).Coordinators[0]
    return found.ErrorCode, SimpleNamespace(host=found.Host, port=found.Port)


def coordinator(broker, group):
    error, at = find_coordinator(broker, group)
    assert error == 0, name_of(error)
    return at


def wait_ready(broker, group, timeout=60):
    """Until the group's coordinator answers for it; anything but a passing error is an assertion. Answers the seconds it took."""
    began, error = time.monotonic(), None
    while time.monotonic() - began < timeout:
        try:
            error, at = find_coordinator(broker, group)
            if error == 0:
                with wire.Conn(at) as conn:
                    error, _ = fetch_offsets(conn, group)
        except (OSError, wire.Closed):
            error = None
        if error == 0:
            return time.monotonic() - began
        assert error is None or error in PASSING, f"group {group}: {name_of(error)}"
        time.sleep(0.01)
    raise AssertionError(f"group {group} is not served after {timeout} s: {name_of(error)}")


def list_groups(conn, version=5, states=(), types=()):
    """-> {group: Struct}"""
    got = schema.call(conn, "ListGroups", version, StatesFilter=list(states), TypesFilter=list(types))
    assert got.ErrorCode == 0, name_of(got.ErrorCode)
    return {g.GroupId: g for g in got.Groups}


def describe(conn, group, version=6):
    return schema.call(conn, "DescribeGroups", version, Groups=[group]).Groups[0]


class ClassicMember:
    """A member of a classic group over a connection of its own, as an answer may be a long time in coming."""

    def __init__(self, broker, group, version=9, protocols=None, instance=None, session_ms=10_000, rebalance_ms=10_000, kind="consumer"):
        self.conn = wire.Conn(broker, timeout=30)
        self.group, self.version, self.instance = group, version, instance
        self.protocols = {"range": subscription("t")} if protocols is None else protocols
        self.session_ms, self.rebalance_ms, self.kind = session_ms, rebalance_ms, kind
        self.id, self.generation, self.joined = "", -1, None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()

    def at(self, highest):
        """The version of another API that goes with this member's of JoinGroup."""
        return min(self.version, highest)

    def me(self, highest, static_from):
        out = {"GroupId": self.group, "GenerationId": self.generation, "MemberId": self.id}
        if self.at(highest) >= static_from:
            out["GroupInstanceId"] = self.instance
        return out

    def send_join(self, **other):
        values = {
            "GroupId": self.group, "SessionTimeoutMs": self.session_ms, "RebalanceTimeoutMs": self.rebalance_ms,
            "MemberId": self.id, "GroupInstanceId": self.instance, "ProtocolType": self.kind,
            "Protocols": [{"Name": n, "Metadata": m} for n, m in self.protocols.items()], **other,
        }  # fmt: skip
        schema.send(self.conn, "JoinGroup", self.version, **values)

    def receive_join(self):
        self.joined = got = schema.receive(self.conn, "JoinGroup", self.version)
        if got.ErrorCode == 0:
            self.id, self.generation = got.MemberId, got.GenerationId
        return got

    def try_join(self, **other):
        self.send_join(**other)
        return self.receive_join()

    def know_id(self):
        """The first of the two steps, from version 4 on: the coordinator gives the member its id."""
        if self.version >= 4 and not self.id and self.instance is None:
            got = self.try_join()
            assert got.ErrorCode == wire.ERR["MEMBER_ID_REQUIRED"], name_of(got.ErrorCode)
            self.id = got.MemberId
        return self

    def join(self):
        self.know_id()
        got = self.try_join()
        assert got.ErrorCode == 0, name_of(got.ErrorCode)
        return got

    def send_sync(self, assignments=None, **other):
        shares = [{"MemberId": m, "Assignment": a} for m, a in (assignments or {}).items()]
        version = self.at(5)
        values = {**self.me(5, 3), "Assignments": shares}
        if version >= 5:
            values |= {"ProtocolType": self.kind, "ProtocolName": self.joined.ProtocolName if self.joined else "range"}
        schema.send(self.conn, "SyncGroup", version, **{**values, **other})

    def receive_sync(self):
        return schema.receive(self.conn, "SyncGroup", self.at(5))

    def sync(self, assignments=None, **other):
        self.send_sync(assignments, **other)
        return self.receive_sync()

    def heartbeat(self, **other):
        return schema.call(self.conn, "Heartbeat", self.at(4), **{**self.me(4, 3), **other}).ErrorCode

    def leave(self):
        version = self.at(5)
        if version < 3:
            return schema.call(self.conn, "LeaveGroup", version, GroupId=self.group, MemberId=self.id).ErrorCode
        got = schema.call(
            self.conn, "LeaveGroup", version, GroupId=self.group, Members=[{"MemberId": self.id, "GroupInstanceId": self.instance}]
        )
        return got.ErrorCode or got.Members[0].ErrorCode

    def commit(self, offsets, version=None, **other):
        version = max(2, min(self.version, 9)) if version is None else version
        who = {"generation": self.generation, "member": self.id, "instance": self.instance, **other}
        return commit(self.conn, self.group, offsets, version, **who)


def stable(member, what=b"mine"):
    """A group of this one classic member, with its assignment."""
    member.join()
    error(member.sync({member.id: what}).ErrorCode, "NONE")
    return member


def alter(broker, group, validate_only=False, **options):
    """Options of a group; the error. Names with `_` for `.`; None takes an option away."""
    put, delete = 0, 1
    configs = [{"Name": name.replace("_", "."), "ConfigOperation": delete if value is None else put, "Value": value and str(value)} for name, value in options.items()]
    with wire.Conn(broker, timeout=30) as conn:
        answer = schema.call(conn, "IncrementalAlterConfigs", 1, ValidateOnly=validate_only,
                             Resources=[{"ResourceType": GROUP, "ResourceName": group, "Configs": configs}])  # fmt: skip
    [told] = answer.Responses
    return name_of(told.ErrorCode)


class ConsumerMember:
    """A member of a KIP-848 group. Each `beat` sends only what it is told to."""

    def __init__(self, broker, group, version=1, instance=None):
        self.conn = wire.Conn(broker, timeout=30)
        self.group, self.version, self.instance = group, version, instance
        self.id = str(uuid.uuid4()) if version >= 1 else ""
        self.epoch, self.given = 0, {}

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.conn.close()

    def beat(self, **other):
        values = {"GroupId": self.group, "MemberId": self.id, "MemberEpoch": self.epoch, **other}
        got = schema.call(self.conn, "ConsumerGroupHeartbeat", self.version, **values)
        if got.ErrorCode == 0:
            self.id, self.epoch = got.MemberId or self.id, got.MemberEpoch
            if got.Assignment is not None:
                self.given = {t.TopicId: sorted(t.Partitions) for t in got.Assignment.TopicPartitions}
        return got

    def join(self, *topics, **other):
        values = {"SubscribedTopicNames": list(topics), "RebalanceTimeoutMs": 10_000, "TopicPartitions": [], "InstanceId": self.instance}
        self.epoch = 0
        got = self.beat(**{**values, **other})
        assert got.ErrorCode == 0, f"{name_of(got.ErrorCode)}: {got.ErrorMessage}"
        return got

    def own(self):
        return [{"TopicId": t, "Partitions": p} for t, p in self.given.items()]

    def settle(self, count, timeout=15):
        """Heartbeats, each time telling what it was given, until it was given `count` partitions."""
        end = clock.running() + timeout
        while True:
            got = self.beat(TopicPartitions=self.own())
            assert got.ErrorCode == 0, f"{name_of(got.ErrorCode)}: {got.ErrorMessage}"
            have = sum(map(len, self.given.values()))
            if have == count:
                return got
            assert clock.running() < end, f"{have} partitions after {timeout} s, {count} are due"
            time.sleep(0.02)

    def leave(self, epoch=-1):
        return self.beat(MemberEpoch=epoch, InstanceId=self.instance)
