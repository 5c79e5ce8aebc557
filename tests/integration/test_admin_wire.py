"""Administration by hand: the error code that odd input to topics gets, and APIs about what is not there, each as Kafka 4.3.1 answers."""

import socket
import struct
import time

import pytest

from support import groups, load, schema, wire
from support.wire import ERR

TIMED_OUT, ASSIGNMENT, DISABLED = 7, 39, 54


def name(tail=""):
    return f"odd-{time.time_ns()}{tail}"


def create(broker, validate=False, timeout=30_000, **fields):
    """The error code, partitions and replicas of a topic that is to be created."""
    one = {"Name": name(), "NumPartitions": 1, "ReplicationFactor": 1, **fields}
    with wire.Conn(broker, timeout=60) as conn:
        made = schema.call(conn, "CreateTopics", 7, Topics=[one], timeoutMs=timeout, validateOnly=validate).Topics
    assert [t.Name for t in made] == [one["Name"]]
    return made[0].ErrorCode, made[0].NumPartitions, made[0].ReplicationFactor


def assigned(*replicas, **fields):
    """A manual assignment: the brokers of partition 0, 1, ..."""
    rows = [{"PartitionIndex": i, "BrokerIds": ids} for i, ids in enumerate(replicas)]
    return {"NumPartitions": -1, "ReplicationFactor": -1, "Assignments": rows, **fields}


def rows(*pairs):
    return [{"PartitionIndex": i, "BrokerIds": ids} for i, ids in pairs]


@pytest.mark.parametrize("fields,code", [
    ({"Name": ""}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "."}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": ".."}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "a/b"}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "a b"}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "tönt"}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "a" * 250}, "INVALID_TOPIC_EXCEPTION"),
    ({"Name": "__cluster_metadata"}, "INVALID_REQUEST"),
    ({"NumPartitions": 0}, "INVALID_PARTITIONS"),
    ({"NumPartitions": -2}, "INVALID_PARTITIONS"),
    ({"NumPartitions": -(1 << 31)}, "INVALID_PARTITIONS"),
    ({"ReplicationFactor": 0}, "INVALID_REPLICATION_FACTOR"),
    ({"ReplicationFactor": -2}, "INVALID_REPLICATION_FACTOR"),
    ({"ReplicationFactor": 2}, "INVALID_REPLICATION_FACTOR"),
    (assigned([0], NumPartitions=1, ReplicationFactor=1), "INVALID_REQUEST"),
    (assigned([0], ReplicationFactor=1), "INVALID_REQUEST"),
    (assigned([0], NumPartitions=1), "INVALID_REQUEST"),
    (assigned(Assignments=rows((1, [0]))), ASSIGNMENT),
    (assigned(Assignments=rows((-1, [0]))), ASSIGNMENT),
    (assigned(Assignments=rows((0, [0]), (0, [0]))), ASSIGNMENT),
    (assigned(Assignments=rows((0, [0]), (2, [0]))), ASSIGNMENT),
    (assigned([9]), ASSIGNMENT),
    (assigned([]), ASSIGNMENT),
    (assigned([0, 0]), ASSIGNMENT),
    (assigned([0, 1]), ASSIGNMENT),
    (assigned([-1]), ASSIGNMENT),
    ({"Configs": [{"Name": "no.such", "Value": "1"}]}, "INVALID_CONFIG"),
    ({"Configs": [{"Name": "", "Value": "1"}]}, "INVALID_CONFIG"),
    ({"Configs": [{"Name": "retention.ms", "Value": "week"}]}, "INVALID_CONFIG"),
    ({"Configs": [{"Name": "retention.ms", "Value": None}]}, "INVALID_CONFIG"),
], ids=str)  # fmt: skip
def test_topics_that_cannot_be(broker, fields, code):
    """The same whether or not the request only asks."""
    expected = ERR[code] if isinstance(code, str) else code
    for validate in (True, False):
        assert create(broker, validate, **fields) == (expected, -1, -1)


def test_topics_that_can_be(broker):
    for fields, partitions in (({"NumPartitions": -1}, 1), ({"ReplicationFactor": -1}, 1), (assigned([0], [0]), 2)):
        fields = {"Name": name(), **fields}
        for validate in (True, True, False):
            assert create(broker, validate, **fields) == (0, partitions, 1)
        for validate in (True, False):
            assert create(broker, validate, **fields)[0] == ERR["TOPIC_ALREADY_EXISTS"]
    dotted = name(".a")
    assert create(broker, Name=dotted)[0] == 0
    assert create(broker, Name=dotted.replace(".", "_"))[0] == ERR["INVALID_TOPIC_EXCEPTION"]


def test_names_that_are_repeated(broker):
    twice, once = name("-twice"), name("-once")
    topics = [{"Name": n, "NumPartitions": 1, "ReplicationFactor": 1} for n in (twice, once, twice)]
    with wire.Conn(broker, timeout=60) as conn:
        made = schema.call(conn, "CreateTopics", 7, Topics=topics, timeoutMs=30_000).Topics
        assert {t.Name: t.ErrorCode for t in made} == {twice: ERR["INVALID_REQUEST"], once: 0} and len(made) == 2
        grown = schema.call(conn, "CreatePartitions", 3, Topics=[{"Name": once, "Count": n} for n in (2, 3)], TimeoutMs=30_000).Results
        assert [(t.Name, t.ErrorCode) for t in grown] == [(once, ERR["INVALID_REQUEST"])]
        gone = schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": once}, {"Name": once}], TimeoutMs=30_000).Responses
        assert [(t.Name, t.ErrorCode) for t in gone] == [(once, ERR["INVALID_REQUEST"])]


@pytest.mark.parametrize("timeout", [0, -1, -(1 << 31)])
def test_no_time_is_timed_out(broker, timeout):
    """And nothing is done."""
    made = load.create_topic(broker, name(), 1)
    assert create(broker, timeout=timeout, Name=made + "-not")[0] == TIMED_OUT
    with wire.Conn(broker, timeout=60) as conn:
        grown = schema.call(conn, "CreatePartitions", 3, Topics=[{"Name": made, "Count": 2, "Assignments": None}], TimeoutMs=timeout)
        gone = schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": made}], TimeoutMs=timeout)
        assert (grown.Results[0].ErrorCode, gone.Responses[0].ErrorCode) == (TIMED_OUT, TIMED_OUT)
        seen = wire.metadata(conn, [made, made + "-not"])["topics"]
    assert len(seen[made]["partitions"]) == 1 and not seen[made + "-not"]["partitions"]


@pytest.mark.parametrize("fields,code", [
    ({"Count": 0}, "INVALID_PARTITIONS"),
    ({"Count": -1}, "INVALID_PARTITIONS"),
    ({"Count": 1}, "INVALID_PARTITIONS"),
    ({"Count": 3, "Assignments": [{"BrokerIds": [0]}]}, ASSIGNMENT),
    ({"Count": 2, "Assignments": []}, ASSIGNMENT),
    ({"Count": 2, "Assignments": [{"BrokerIds": [9]}]}, ASSIGNMENT),
    ({"Count": 2, "Assignments": [{"BrokerIds": []}]}, ASSIGNMENT),
    ({"Count": 2, "Assignments": [{"BrokerIds": [0, 0]}]}, ASSIGNMENT),
    ({"Name": "odd-unknown", "Count": 3}, "UNKNOWN_TOPIC_OR_PARTITION"),
    ({"Name": "a/b", "Count": 3}, "UNKNOWN_TOPIC_OR_PARTITION"),
    ({"Name": "", "Count": 3}, "UNKNOWN_TOPIC_OR_PARTITION"),
], ids=str)  # fmt: skip
def test_partitions_that_cannot_be(broker, topic, fields, code):
    one = {"Name": topic(), "Assignments": None, **fields}
    for validate in (True, False):
        with wire.Conn(broker, timeout=60) as conn:
            grown = schema.call(conn, "CreatePartitions", 3, Topics=[one], TimeoutMs=30_000, ValidateOnly=validate).Results
        assert [t.ErrorCode for t in grown] == [ERR[code] if isinstance(code, str) else code]


def test_the_offsets_topic_is_not_deleted(corelane_only, make_broker):
    """Unless the operator allows it; by name and by id."""
    b = make_broker()
    b.start()
    groups.wait_ready(b, "g")
    with wire.Conn(b, timeout=60) as conn:
        found = schema.call(conn, "Metadata", 12, Topics=[{"Name": "__consumer_offsets"}]).Topics[0]
        for wanted in ({"Name": "__consumer_offsets"}, {"Name": None, "TopicId": found.TopicId}):
            gone = schema.call(conn, "DeleteTopics", 6, Topics=[wanted], TimeoutMs=30_000).Responses[0]
            assert gone.ErrorCode == ERR["INVALID_TOPIC_EXCEPTION"] and "corelane.internal.topics.delete" in gone.ErrorMessage
        gone = schema.call(conn, "DeleteTopics", 5, TopicNames=["__consumer_offsets"], TimeoutMs=30_000).Responses[0]
        assert gone.ErrorCode == ERR["INVALID_TOPIC_EXCEPTION"]
    b.stop()
    b.props["corelane.internal.topics.delete"] = "true"
    b.start()
    with wire.Conn(b, timeout=60) as conn:
        gone = schema.call(conn, "DeleteTopics", 5, TopicNames=["__consumer_offsets"], TimeoutMs=30_000).Responses[0]
        assert gone.ErrorCode == 0


@pytest.mark.parametrize("version", [1, 2, 3])
def test_acls_without_an_authorizer(broker, version):
    acl = {"ResourceType": 2, "ResourceName": "t", "ResourcePatternType": 3, "Principal": "User:a", "Host": "*", "Operation": 3, "PermissionType": 3}
    filters = {"ResourceTypeFilter": 1, "PatternTypeFilter": 1, "Operation": 1, "PermissionType": 1}
    with wire.Conn(broker) as conn:
        told = schema.call(conn, "DescribeAcls", version, **filters)
        assert (told.ErrorCode, told.Resources) == (DISABLED, []) and "No Authorizer" in told.ErrorMessage
        made = schema.call(conn, "CreateAcls", version, Creations=[acl, acl]).Results
        assert [(r.ErrorCode, r.ErrorMessage) for r in made] == [(DISABLED, "No Authorizer is configured.")] * 2
        gone = schema.call(conn, "DeleteAcls", version, Filters=[filters, filters]).FilterResults
        assert [(r.ErrorCode, r.MatchingAcls) for r in gone] == [(DISABLED, [])] * 2


def test_what_there_is_none_of(broker):
    """Quotas, SCRAM credentials, moving replicas and SASL on a PLAINTEXT listener."""
    with wire.Conn(broker) as conn:
        assert schema.call(conn, "ListPartitionReassignments", 0, Topics=None).Topics == []
        for components, code in (
            ([], 0),
            ([{"EntityType": "user", "MatchType": 2, "Match": None}], 0),
            ([{"EntityType": "", "MatchType": 2, "Match": None}], ERR["INVALID_REQUEST"]),
            ([{"EntityType": "user", "MatchType": 0, "Match": None}], ERR["INVALID_REQUEST"]),
            ([{"EntityType": "user", "MatchType": 9, "Match": None}], ERR["INVALID_REQUEST"]),
            ([{"EntityType": t, "MatchType": 2, "Match": None} for t in ("user", "ip")], ERR["INVALID_REQUEST"]),
            ([{"EntityType": "user", "MatchType": 2, "Match": None}] * 2, ERR["INVALID_REQUEST"]),
            ([{"EntityType": "host", "MatchType": 2, "Match": None}], ERR["UNSUPPORTED_VERSION"]),
        ):
            for version in (0, 1):
                told = schema.call(conn, "DescribeClientQuotas", version, Components=components)
                assert (told.ErrorCode, told.Entries) == (code, None if code else []), components
        told = schema.call(conn, "DescribeUserScramCredentials", 0, Users=[{"Name": n} for n in ("a", "b", "a")])
        assert (told.ErrorCode, {r.User: r.ErrorCode for r in told.Results}) == (0, {"a": 92, "b": 91})
        assert schema.call(conn, "DescribeUserScramCredentials", 0, Users=None).Results == []
        for version in (0, 1):
            assert schema.call(conn, "SaslHandshake", version, Mechanism="PLAIN").ErrorCode == 34


def test_more_in_sync_replicas_than_there_are(broker, topic):
    """`min.insync.replicas` above the number of replicas counts as that: acks=all is taken."""
    made = topic(1, min_insync_replicas=3)
    load.produce_lines(broker, made, 10, 1, acks="all")
    load.check_lines(broker, made, 10, 1)


def test_a_client_that_half_closes_gets_its_answers(corelane_only, broker, topic):
    """What was asked before is answered, also a fetch that waits a while, and then the connection ends."""
    made = topic(1)
    with wire.Conn(broker, timeout=60) as conn:
        for _ in range(3):
            schema.send(conn, "Metadata", 12, Topics=[{"Name": made}])
        fetch = {"Topic": made, "Partitions": [{"Partition": 0, "FetchOffset": 0, "PartitionMaxBytes": 1000}]}
        schema.send(conn, "Fetch", 11, MaxWaitMs=700, MinBytes=1, MaxBytes=1000, Topics=[fetch])
        schema.send(conn, "ApiVersions", 0)
        conn.sock.shutdown(socket.SHUT_WR)
        for _ in range(3):
            assert schema.receive(conn, "Metadata", 12).Topics[0].Name == made
        _, fetched = conn.recv()
        assert (fetched.i32(), fetched.i16()) == (0, 0), "throttle time, error code"
        assert schema.receive(conn, "ApiVersions", 0).ErrorCode == 0
        with pytest.raises(wire.Closed):
            conn.recv()


def test_log_lines_that_clients_cause_are_limited(corelane_only, make_broker):
    """A client whose requests cannot be read, again and again, is named by its address, a few times a second."""
    b = make_broker({"corelane.shards": 1})
    b.start()
    begun, count = time.monotonic(), 500
    for _ in range(count):
        with wire.Conn(b) as conn:
            conn.raw(struct.pack(">i", -1))
            with pytest.raises(wire.Closed):
                conn.recv()
    seconds = time.monotonic() - begun
    lines = [s for s in b.log_text().splitlines() if "closing the connection" in s]
    # Five each second, by the broker's clock, whose seconds begin when they want.
    assert 1 <= len(lines) <= min(5 * (seconds + 3), count - 1), f"{len(lines)} lines in {seconds} s"
    assert "127.0.0.1:" in lines[0], lines[0]
