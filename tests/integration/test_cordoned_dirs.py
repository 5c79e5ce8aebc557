"""Data directories that get no new partitions (`cordoned.log.dirs`, KIP-1066), against Corelane or Apache Kafka."""

import pytest
from test_broker_configs import altered, of_broker
from test_moving_replicas import alter as alter_dirs
from test_moving_replicas import move, other, places, two_dirs, with_two_dirs

from support import load, schema, wire
from support.broker import target
from support.cli import Cli, rows
from support.groups import name_of, wait_until

corelane = pytest.mark.skipif(target() != "corelane", reason="the cluster is of Corelane's brokers")
ME = 0


def cordon(b, value, who=ME):
    """Sets what is cordoned, or with `None` takes it back, and waits until the broker goes by it."""
    assert altered(b, who, cordoned_log_dirs=value) == (0, None)
    wanted = {str(d) for d in b.dirs} if value == "*" else set((value or "").split(",")) - {""}
    wait_until(lambda: {path for path, cordoned in cordoned_dirs(b).items() if cordoned} == wanted, 30)


def cordoned_dirs(b):
    with wire.Conn(b, timeout=60) as conn:
        return {d.LogDir: d.IsCordoned for d in schema.call(conn, "DescribeLogDirs", 5, Topics=None).Results}


def create(b, topic, partitions=1, replicas=1, assigned=None, validate_only=False):
    """The error's name, and its message."""
    assignments = [{"PartitionIndex": n, "BrokerIds": ids} for n, ids in enumerate(assigned or [])]
    counts = {"NumPartitions": -1, "ReplicationFactor": -1} if assigned else {"NumPartitions": partitions, "ReplicationFactor": replicas}
    wanted = {"Name": topic, **counts, "Assignments": assignments, "Configs": []}
    with wire.Conn(b, timeout=60) as conn:
        [got] = schema.call(conn, "CreateTopics", 7, Topics=[wanted], timeoutMs=30_000, validateOnly=validate_only).Topics
    return name_of(got.ErrorCode), got.ErrorMessage or ""


def grow(b, topic, count, assigned=None):
    assignments = [{"BrokerIds": ids} for ids in assigned] if assigned else None
    wanted = {"Name": topic, "Count": count, "Assignments": assignments}
    with wire.Conn(b, timeout=60) as conn:
        [got] = schema.call(conn, "CreatePartitions", 3, Topics=[wanted], TimeoutMs=30_000, ValidateOnly=False).Results
    return name_of(got.ErrorCode)


def where(b, topic, partitions):
    return [places(b, topic, p)[0] for p in partitions]


def test_new_partitions_go_elsewhere(make_broker):
    b = two_dirs(make_broker)
    first, second = map(str, b.dirs)
    load.create_topic(b, "t", 4)
    wait_until(lambda: sorted(where(b, "t", range(4))) == [first, first, second, second])
    before = where(b, "t", range(4))
    assert cordoned_dirs(b) == {first: False, second: False}
    cordon(b, first)
    assert cordoned_dirs(b) == {first: True, second: False}
    assert of_broker(b, "cordoned.log.dirs") == (first, "broker")
    assert (create(b, "u", 5), grow(b, "t", 7)) == (("NONE", ""), "NONE")
    wait_until(lambda: where(b, "u", range(5)) == [second] * 5 and where(b, "t", range(4, 7)) == [second] * 3)
    # Those that are in it stay and are served.
    assert where(b, "t", range(4)) == before
    load.produce_lines(b, "t", 700, 7)
    table = {r["LOG-DIR"]: r["STATE"] for r in rows(Cli(b.bootstrap)("broker", "log-dirs").out)}
    assert table == {first: "cordoned", second: "online"}
    assert [d["cordoned"] for d in Cli(b.bootstrap).json("broker", "log-dirs")] == [True, False]
    b.stop()
    b.start(topics=["t", "u"])
    assert cordoned_dirs(b) == {first: True, second: False}
    assert create(b, "v", 2) == ("NONE", "")
    wait_until(lambda: where(b, "v", range(2)) == [second] * 2)
    load.check_lines(b, "t", 700, 7)
    cordon(b, None)
    assert create(b, "w", 2) == ("NONE", "")
    wait_until(lambda: where(b, "w", range(2)) == [first] * 2)


def test_nothing_is_made_where_all_are_cordoned(make_broker):
    b = two_dirs(make_broker, **{"auto.create.topics.enable": True})
    load.create_topic(b, "t", 1)
    for value in ",".join(map(str, b.dirs)), "*":
        cordon(b, value)
        wait_until(lambda: create(b, "u", validate_only=True)[0] == "INVALID_REPLICATION_FACTOR")
        error, message = create(b, "u")
        assert error == "INVALID_REPLICATION_FACTOR" and "cordoned" in message, message
        assert grow(b, "t", 2) == "INVALID_REPLICATION_FACTOR"
        # Kafka refuses that from 4.4 on.
        if target() == "corelane":
            error, message = create(b, "u", assigned=[[ME]])
            assert error == "INVALID_REPLICA_ASSIGNMENT" and "cordoned" in message, message
            assert grow(b, "t", 2, [[ME]]) == "INVALID_REPLICA_ASSIGNMENT"
        with wire.Conn(b, timeout=30) as conn:
            assert wire.metadata(conn, ["made-by-itself"], version=8)["topics"]["made-by-itself"]["error"] in wire.err(
                "INVALID_REPLICATION_FACTOR", "UNKNOWN_TOPIC_OR_PARTITION"
            )
        load.produce_lines(b, "t", 10, 1)
    b.kill()
    b.start(topics=["t"])
    wait_until(lambda: create(b, "u")[0] == "INVALID_REPLICATION_FACTOR", 30)
    cordon(b, str(b.dirs[0]))
    wait_until(lambda: create(b, "u")[0] == "NONE", 30)
    assert grow(b, "t", 2) == "NONE"
    assert load.end(b, "t") == 20


def test_what_is_refused(make_broker):
    b = two_dirs(make_broker)
    first, second = map(str, b.dirs)
    for value in (f"{b.folder}/c", f"{first}/", f"*,{first}", f"{first},,{second}"):
        code, message = altered(b, ME, cordoned_log_dirs=value)
        assert name_of(code) in ("INVALID_REQUEST", "INVALID_CONFIG") and "cordoned.log.dirs" in message, (value, code, message)
    code, message = altered(b, "", cordoned_log_dirs=first)
    assert name_of(code) == "INVALID_REQUEST" and "cordoned.log.dirs" in message, (code, message)
    assert cordoned_dirs(b) == {first: False, second: False}
    assert altered(b, ME, cordoned_log_dirs=f"{first} , {second}") == (0, None)
    wait_until(lambda: all(cordoned_dirs(b).values()))
    assert altered(b, ME, cordoned_log_dirs=f"{first},{first}") == (0, None)
    wait_until(lambda: cordoned_dirs(b) == {first: True, second: False})


def test_no_replica_is_moved_there(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 1)
    load.produce_lines(b, "t", 1000, 1)
    at, _ = places(b, "t")
    to = other(b, at)
    cordon(b, to)
    assert alter_dirs(b, (to, "t", 0)) == {("t", 0): "INVALID_REPLICA_ASSIGNMENT"}
    assert alter_dirs(b, (to, "no-such-topic", 0)) == {("no-such-topic", 0): "INVALID_REPLICA_ASSIGNMENT"}
    cordon(b, at)
    assert alter_dirs(b, (at, "t", 0)) == {("t", 0): "INVALID_REPLICA_ASSIGNMENT"}
    assert move(b, "t") == to, "it can be moved away"
    load.check_lines(b, "t", 1000, 1)


def test_cordoned_from_the_start(make_broker):
    b = two_dirs(make_broker)
    b.stop()
    b.props["cordoned.log.dirs"] = "*"
    b.start()
    wait_until(lambda: all(cordoned_dirs(b).values()), 30)
    wait_until(lambda: create(b, "t")[0] == "INVALID_REPLICATION_FACTOR", 30)
    # Set to nothing it wins over the file.
    cordon(b, "")
    wait_until(lambda: create(b, "t")[0] == "NONE", 30)


@corelane
def test_brokers_of_a_cluster(make_cluster):
    """A broker gets no replicas while all of its directories are cordoned."""
    c = make_cluster(prepare=with_two_dirs)
    c.create("t", 3)
    one, two, three = c.brokers.values()
    error = lambda *words, **more: create(one, *words, **more)[0]  # noqa: E731
    cordon(two, str(two.dirs[0]), 2)
    assert error("u", 6, 3) == "NONE"
    c.wait_for("u", lambda leader, replicas, isr: len(isr) == 3)
    assert where(two, "u", range(6)) == [str(two.dirs[1])] * 6
    cordon(two, "*", 2)
    wait_until(lambda: error("v", 3, 3, validate_only=True) == "INVALID_REPLICATION_FACTOR", 30)
    assert error("v", 6, 2) == "NONE"
    assert {tuple(sorted(replicas)) for _, replicas, _ in c.describe("v").values()} == {(1, 3)}
    assert error("w", assigned=[[2, 3]]) == "INVALID_REPLICA_ASSIGNMENT"
    assert grow(one, "u", 7) == "INVALID_REPLICATION_FACTOR"
    with wire.Conn(one, timeout=30) as conn:
        moved = [{"Name": "v", "Partitions": [{"PartitionIndex": 0, "Replicas": [2, 3]}]}]
        got = schema.call(conn, "AlterPartitionReassignments", 0, TimeoutMs=30_000, Topics=moved)
        assert name_of(got.Responses[0].Partitions[0].ErrorCode) == "INVALID_REPLICA_ASSIGNMENT"
    # It leads and follows what it has, also after a restart.
    two.stop()
    two.start()
    c.wait_for("u", lambda leader, replicas, isr: len(isr) == 3, 60)
    load.produce_lines(c, "u", 600, 6)
    load.check_lines(c, "u", 600, 6)
    assert error("x", 1, 3) == "INVALID_REPLICATION_FACTOR"
    cordon(two, None, 2)
    wait_until(lambda: error("x", 1, 3) == "NONE", 30)
