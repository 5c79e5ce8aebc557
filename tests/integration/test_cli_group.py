"""`corelane group`: every command against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka; several brokers; typos."""

import json
import time

import pytest

from support import load, wire
from support.broker import target
from support.cli import Cli, rows, run
from support.groups import ClassicMember, ConsumerMember, alter, assignment, commit, fetch_offsets, subscription, wait_ready

START = 1_700_000_000_000


@pytest.fixture
def cli(group_broker):
    return Cli(group_broker.bootstrap)


@pytest.fixture
def topic(group_broker, conn):
    """Two partitions with ten records each; record n is n seconds after START."""
    name = load.create_topic(group_broker, f"cli-{time.time_ns()}", 2, retention_ms=-1)
    for p in range(2):
        for n in range(10):
            wire.produce(conn, name, p, wire.batch([b"x"], timestamp=START + n * 1000))
    return name


@pytest.fixture
def empty(conn, topic, group):
    """A group without members that has read 4 and 6 of the topic's records."""
    commit(conn, group, {(topic, 0): 4, (topic, 1): 6})
    return group


@pytest.fixture
def joined(group_broker, topic):
    """Two groups with a member each that has both partitions: one of the classic protocol, one of the newer."""
    name = f"joined-{time.time_ns()}"
    with ClassicMember(group_broker, name, protocols={"range": subscription(topic)}, session_ms=60_000) as old:
        wait_ready(group_broker, old.group)
        old.join()
        old.sync({old.id: assignment(topic, [0, 1])})
        old.commit({(topic, 0): 3})
        with ConsumerMember(group_broker, f"{name}-new") as new:
            # It sends no heartbeat while a command runs.
            assert alter(group_broker, new.group, consumer_session_timeout_ms=60_000) == "NONE"
            new.join(topic)
            new.settle(2)
            commit(new.conn, new.group, {(topic, 1): 10}, generation=new.epoch, member=new.id)
            yield old, new


def offsets(conn, group):
    return {tp: p.CommittedOffset for tp, p in fetch_offsets(conn, group)[1].items()}


def test_list(cli, empty, joined):
    old, new = joined
    new.beat(TopicPartitions=new.own())
    listed = {g["group"]: g for g in cli.json("group", "list")}
    seen = {name: (listed[name]["type"], listed[name]["state"], listed[name]["protocol_type"]) for name in (old.group, new.group)}
    assert seen == {old.group: ("Classic", "Stable", "consumer"), new.group: ("Consumer", "Stable", "consumer")}
    assert listed[empty]["state"] == "Empty"
    new.beat(TopicPartitions=new.own())
    names = {r["GROUP"] for r in rows(cli("group", "list", "--state", "stable").out)}
    assert {old.group, new.group} <= names and empty not in names
    newer = {g["group"] for g in cli.json("group", "list", "--type", "consumer")}
    assert new.group in newer and old.group not in newer


def test_describe(cli, topic, empty, joined):
    [told] = cli.json("group", "describe", empty)
    assert (told["type"], told["state"], told["members"]) == ("Classic", "Empty", [])
    assert told["offsets"] == [
        {"topic": topic, "partition": p, "current_offset": at, "log_end_offset": 10, "lag": 10 - at, "consumer_id": None}
        for p, at in enumerate((4, 6))
    ]
    table = rows(cli("group", "describe", empty, "--offsets").out.split("\n", 1)[1])
    heads = ("PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG")
    assert [tuple(r[h] for h in heads) for r in table] == [("0", "4", "10", "6"), ("1", "6", "10", "4")]
    old, new = joined
    for member, lags, kind in ((old, [7, None], "Classic"), (new, [None, 0], "Consumer")):
        if isinstance(member, ConsumerMember):
            member.beat(TopicPartitions=member.own())
        [told] = cli.json("group", "describe", member.group)
        assert (told["type"], told["state"]) == (kind, "Stable")
        [one] = told["members"]
        assert one["consumer_id"] == member.id and one["host"] == "/127.0.0.1"
        assert one["assignment"] == [{"topic": topic, "partition": p} for p in (0, 1)]
        assert [o["lag"] for o in told["offsets"]] == lags and {o["consumer_id"] for o in told["offsets"]} == {member.id}
        if isinstance(member, ConsumerMember):
            member.beat(TopicPartitions=member.own())
        text = cli("group", "describe", member.group, "--members").out
        assert f"Type: {kind}  State: Stable" in text and f"{topic}:0,1" in text and member.id in text


RESETS = {
    "earliest": (["--to-earliest"], {0: 2, 1: 0}),
    "latest": (["--to-latest"], {0: 10, 1: 10}),
    "offset": (["--to-offset", 5], {0: 5, 1: 5}),
    "offset-before": (["--to-offset", 1], {0: 2, 1: 1}),
    "offset-behind": (["--to-offset", 99], {0: 10, 1: 10}),
    "forth": (["--shift-by", 2], {0: 6, 1: 8}),
    "back": (["--shift-by", -3], {0: 2, 1: 3}),
    "far-back": (["--shift-by", -300], {0: 2, 1: 0}),
    "datetime": (["--to-datetime", "2023-11-14T22:13:27.500"], {0: 8, 1: 8}),
    "offset-datetime": (["--to-datetime", "2023-11-15T00:13:27+02:00"], {0: 7, 1: 7}),
    "future": (["--to-datetime", "2099-01-01T00:00:00"], {0: 10, 1: 10}),
    "duration": (["--by-duration", "P1D"], {0: 10, 1: 10}),
    "long": (["--by-duration", "P36500D"], {0: 2, 1: 0}),
    "current": (["--to-current"], {0: 4, 1: 6}),
}


@pytest.mark.parametrize("how", RESETS)
def test_reset_offsets(cli, conn, topic, empty, how):
    words, wanted = RESETS[how]
    cli("topic", "trim", topic, "--partition", 0, "--to-offset", 2)
    before = offsets(conn, empty)
    dry = cli.json("group", "reset-offsets", empty, "--topic", topic, *words)
    assert {r["partition"]: r["new_offset"] for r in dry} == wanted
    assert [r["current_offset"] for r in dry] == [4, 6] and not any(r["executed"] for r in dry)
    said = cli("group", "reset-offsets", empty, "--all-topics", *words, "--dry-run").out
    assert "nothing was committed; --execute does it" in said
    assert offsets(conn, empty) == before
    done = cli.json("group", "reset-offsets", empty, "--all-topics", *words, "--execute")
    assert {r["partition"]: r["new_offset"] for r in done} == wanted and all(r["executed"] and not r["error"] for r in done)
    assert offsets(conn, empty) == {(topic, p): at for p, at in wanted.items()}


def test_reset_some_partitions_and_of_a_group_that_is_to_come(cli, conn, topic, empty, group_broker):
    cli("group", "reset-offsets", empty, "--topic", f"{topic}:1", "--to-earliest", "--execute")
    assert offsets(conn, empty) == {(topic, 0): 4, (topic, 1): 0}
    fresh = f"{empty}-fresh"
    wait_ready(group_broker, fresh)
    cli("group", "reset-offsets", fresh, "--topic", topic, "--to-offset", 7, "--execute")
    assert offsets(conn, fresh) == {(topic, 0): 7, (topic, 1): 7}
    said = cli("group", "reset-offsets", f"{empty}-none", "--topic", topic, "--shift-by", 1, code=1)
    assert "no offset that could be shifted" in said.err


def test_a_group_with_members_is_left_alone(cli, topic, joined):
    old, new = joined
    for member in joined:
        if isinstance(member, ConsumerMember):
            member.beat(TopicPartitions=member.own())
        said = cli.fails("group", "reset-offsets", member.group, "--all-topics", "--to-earliest", "--execute")
        assert "has 1 member" in said and "stop them first" in said
        if isinstance(member, ConsumerMember):
            member.beat(TopicPartitions=member.own())
        assert "NON_EMPTY_GROUP" in cli.fails("group", "delete", member.group)
    assert offsets(old.conn, old.group) == {(topic, 0): 3} and offsets(new.conn, new.group) == {(topic, 1): 10}


def test_delete(cli, conn, topic, empty):
    partly = cli("group", "delete", empty, f"{empty}-x", code=1)
    assert partly.out == f"deleted {empty}\n" and f"there is no group {empty}-x" in partly.err
    assert empty not in [g["group"] for g in cli.json("group", "list")]
    [told] = cli.json("group", "delete", empty, code=1)
    assert told["error"] == "GROUP_ID_NOT_FOUND"


def test_lag(cli, conn, topic, empty):
    [told] = cli.json("group", "lag", empty)
    assert told == {
        "group": empty, "state": "Empty", "topic": topic, "partitions": 2, "lag": 10, "max_partition_lag": 6, "unknown_partitions": 0,
    }  # fmt: skip
    assert told in cli.json("group", "lag", silent=False)
    watched = cli("group", "lag", empty, "--watch", "--interval", "0.2", "--count", 3, "--format", "json").out.splitlines()
    looks = [json.loads(line) for line in watched]
    assert [look["lag"] for look in looks] == [10, 10, 10] and looks[2]["timestamp_ms"] - looks[0]["timestamp_ms"] >= 400
    commit(conn, empty, {(topic, 0): 10})
    [row] = rows(cli("group", "lag", empty).out)
    assert (row["LAG"], row["MAX-LAG"]) == ("4", "4")


def test_offsets_committed_without_a_group_id_are_a_group_too(cli, group_broker, conn, topic):
    wait_ready(group_broker, "")
    assert commit(conn, "", {(topic, 0): 4}) == {(topic, 0): 0}
    try:
        [described] = cli.json("group", "describe", "")
        assert (described["group"], described["type"], described["state"]) == ("", "Classic", "Empty")
        assert {(o["topic"], o["partition"]): o["current_offset"] for o in described["offsets"]}[topic, 0] == 4
        assert [s["lag"] for s in cli.json("group", "lag") if s["group"] == "" and s["topic"] == topic] == [6]
    finally:
        cli("group", "delete", "")


def test_a_typo_is_answered_with_the_nearest_group(cli, empty, topic):
    reset = ["reset-offsets", empty + "x", "--all-topics", "--to-latest"]
    for words in (["describe", empty + "x"], ["lag", empty[:-1]], ["delete", empty + "x"], reset):
        said = cli.fails("group", *words)
        assert f"there is no group {words[1]}; did you mean {empty}?" in said, said
    said = cli.fails("group", "reset-offsets", empty, "--topic", topic + "x", "--to-latest")
    assert f"there is no topic {topic}x; did you mean {topic}?" in said
    assert "has no partition 5; it has 2" in cli.fails("group", "reset-offsets", empty, "--topic", f"{topic}:5", "--to-latest")


def test_words_that_there_are_not():
    for words in (
        ["describe"],
        ["reset-offsets", "g", "--to-latest"],
        ["reset-offsets", "g", "--all-topics"],
        ["reset-offsets", "g", "--all-topics", "--to-latest", "--to-earliest"],
        ["reset-offsets", "g", "--all-topics", "--to-latest", "--dry-run", "--execute"],
        ["reset-offsets", "g", "--all-topics", "--topic", "t", "--to-latest"],
        ["reset-offsets", "g", "--topic", "t:x", "--to-latest"],
        ["lag", "--count", 1],
    ):
        done = run("group", *words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)


@pytest.mark.parametrize("command", ["list", "describe", "reset-offsets", "delete", "lag"])
def test_help_has_examples(command):
    done = run("group", command, "--help")
    assert done.code == 0 and f"corelane group {command}" in done.out.split("Example")[1], done


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_several_brokers(make_cluster):
    """Coordinators and leaders are everywhere, and move."""
    c = make_cluster()
    c.create("t", 6)
    load.produce_lines(c, "t", 600, 6, acks="all")
    cli = Cli(c.bootstrap)
    names = [f"g-{n}" for n in range(8)]
    for name in names:
        cli("group", "reset-offsets", name, "--topic", "t", "--to-offset", 40, "--execute")
    listed = {g["group"]: g["coordinator"] for g in cli.json("group", "list")}
    assert set(names) <= set(listed) and len(set(listed.values())) > 1
    for b in c.brokers.values():
        lags = Cli(b.bootstrap).json("group", "lag")
        assert {g["group"]: g["lag"] for g in lags} == {name: 360 for name in names}
    gone = listed["g-0"]
    c[gone].kill()
    cli("group", "reset-offsets", "g-0", "--all-topics", "--shift-by", 10, "--execute")
    [told] = cli.json("group", "describe", "g-0")
    assert told["coordinator"] != gone and [o["current_offset"] for o in told["offsets"]] == [50] * 6
    assert cli("group", "delete", *names).out.count("deleted") == 8
