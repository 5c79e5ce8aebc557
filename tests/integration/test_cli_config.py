"""`corelane config` and `corelane broker`: against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka."""

import time

import pytest

from support import load
from support.broker import target
from support.cli import Cli, rows, run


@pytest.fixture
def cli(broker):
    return Cli(broker.bootstrap)


@pytest.fixture
def name(cli):
    made = f"cli-{time.time_ns()}"
    cli("topic", "create", made)
    yield made
    cli("topic", "delete", made)


def own(cli, name):
    return {o["name"]: o["value"] for o in cli.json("config", "get", "--topic", name)}


def test_options_of_a_topic(cli, name):
    before = own(cli, name)
    assert "retention.ms" not in before
    said = cli("config", "set", "--topic", name, "retention.ms=7000000", "cleanup.policy=compact,delete").out
    assert f"topic {name}: retention.ms=7000000\n" in said
    assert own(cli, name) == before | {"retention.ms": "7000000", "cleanup.policy": "compact,delete"}
    table = {r["OPTION"]: r for r in rows(cli("config", "get", "--topic", name).out)}
    assert (table["retention.ms"]["VALUE"], table["retention.ms"]["SOURCE"]) == ("7000000", "DYNAMIC_TOPIC_CONFIG")
    [one] = cli.json("config", "get", "--topic", name, "segment.bytes")
    assert (one["value"], one["source"]) == ("1073741824", "DEFAULT_CONFIG") and one["synonyms"]
    every = {o["name"] for o in cli.json("config", "get", "--topic", name, "--all")}
    assert {"retention.ms", "segment.bytes", "min.insync.replicas"} <= every
    told = cli.json("config", "unset", "--topic", name, "retention.ms", "cleanup.policy")
    assert told["options"] == {"retention.ms": None, "cleanup.policy": None} and told["error"] is None
    assert own(cli, name) == before


def test_what_there_is_not_is_not_unset(cli, name):
    cli("config", "set", "--topic", name, "retention.ms=86400000")
    before = own(cli, name)
    for dry in ([], ["--dry-run"]):
        said = cli("config", "unset", "--topic", name, "retention.ms", "retention.mss", *dry, "--format", "json", code=1)
        assert said.json["error"] == "INVALID_CONFIG" and own(cli, name) == before
        assert "there is no option retention.mss here; did you mean retention.ms?; nothing was unset" in said.err, said
    [node] = cli.json("broker", "list")
    for of in (["--broker", node["broker"]], ["--broker-defaults"]):
        assert "log.retention.hours" in cli.fails("config", "unset", *of, "log.retention.hourss")


def test_all_or_nothing(cli, name):
    before = own(cli, name)
    said = cli("config", "set", "--topic", name, "retention.ms=1000", "segment.bytes=many", "--format", "json", code=1)
    assert said.json["error"] == "INVALID_CONFIG" and "segment.bytes" in said.err and own(cli, name) == before
    assert "would be retention.ms=1000" in cli("config", "set", "--topic", name, "retention.ms=1000", "--dry-run").out
    assert own(cli, name) == before


def test_typos(cli, name):
    assert f"did you mean {name}?" in cli.fails("config", "get", "--topic", name + "x")
    assert f"did you mean {name}?" in cli.fails("config", "set", "--topic", name + "x", "retention.ms=1")
    assert "no option retenton.ms here; did you mean retention.ms?" in cli.fails("config", "get", "--topic", name, "retenton.ms")
    assert "did you mean retention.ms?" in cli.fails("config", "set", "--topic", name, "retenton.ms=1")
    assert "there is no broker 77" in cli.fails("config", "get", "--broker", 77)
    for words in (["get"], ["get", "--topic", "a", "--broker", 1], ["set", "--topic", "a"], ["set", "--topic", "a", "b"], ["get", "--topic", "a", "--group", "b"], ["get", "--group", ""], ["explain"]):
        done = run("config", *words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)
    assert "explain" in run("config", "explan").err


def test_options_of_a_broker(broker, cli):
    [node] = cli.json("broker", "list")
    options = {o["name"]: o for o in cli.json("config", "get", "--broker", node["broker"])}
    assert options["log.dirs"]["value"] == str(broker.data_dir) and options["log.dirs"]["source"] == "STATIC_BROKER_CONFIG"
    assert options["log.dirs"]["read_only"]
    said = cli.fails("config", "set", "--broker", node["broker"], "log.dirs=/tmp/other")
    assert f"broker {node['broker']}: " in said, said


def test_options_of_a_group(cli):
    group = f"cli group {time.time_ns()}"
    session, heartbeat = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"

    def own():
        return {o["name"]: (o["value"], o["source"]) for o in cli.json("config", "get", "--group", group)}

    assert own() == {}
    every = {o["name"]: o for o in cli.json("config", "get", "--group", group, "--all")}
    assert {session, heartbeat, "share.auto.offset.reset"} <= set(every)
    broker, source = every[session]["value"], every[session]["source"]
    said = cli("config", "set", "--group", group, f"{session}=50000", f"{heartbeat}=6000").out
    assert f"group {group}: {session}=50000\n" in said, said
    assert own() == {session: ("50000", "DYNAMIC_GROUP_CONFIG"), heartbeat: ("6000", "DYNAMIC_GROUP_CONFIG")}
    assert "would be" in cli("config", "set", "--group", group, f"{session}=51000", "--dry-run").out
    told = cli.json("config", "unset", "--group", group, heartbeat)
    assert told["group"] == group and told["options"] == {heartbeat: None} and told["error"] is None
    assert own() == {session: ("50000", "DYNAMIC_GROUP_CONFIG")}
    # All or nothing, as the broker's bounds are; typos name the nearest option of groups.
    said = cli("config", "set", "--group", group, f"{session}=1", f"{heartbeat}=6000", "--format", "json", code=1)
    assert said.json["error"] == "INVALID_CONFIG" and f"group {group}: " in said.err and session in said.err, said
    assert "did you mean consumer.session.timeout.ms?" in cli.fails("config", "set", "--group", group, "consumer.session.timeout=50000")
    assert "did you mean consumer.session.timeout.ms?" in cli.fails("config", "unset", "--group", group, "consumer.session.timeou.ms")
    assert "did you mean consumer.session.timeout.ms?" in cli.fails("config", "get", "--group", group, "consumer.session.timeou.ms")
    assert own() == {session: ("50000", "DYNAMIC_GROUP_CONFIG")}
    [one] = cli.json("config", "explain", session, "--group", group)
    assert (one["value"], one["source"], one["group_option"]) == ("50000", "DYNAMIC_GROUP_CONFIG", session)
    assert one["broker_option"] == f"group.{session}" and "50000" in cli("config", "explain", session, "--group", group).out
    cli("config", "unset", "--group", group, session)
    [one] = cli.json("config", "get", "--group", group, session)
    assert (one["value"], one["source"]) == (broker, source) and own() == {}


def test_an_option_is_explained_without_a_broker():
    done = run("config", "explain", "retention.ms", "log.retention.hours")
    assert done.code == 0 and "milliseconds" in done.out and "log.retention.ms" in done.out, done
    [one] = run("config", "explain", "retention.ms", "--format", "json").json
    assert (one["topic_option"], one["broker_option"]) == ("retention.ms", "log.retention.ms")
    assert (one["unit"], one["type"]) == ("milliseconds", "long")
    assert one["default"] == "604800000" and one["documentation"] and one["value"] is None
    done = run("config", "explain", "retenton.ms")
    assert done.code == 1 and "did you mean retention.ms?" in done.err, done


def test_an_option_is_explained_with_its_value(cli, name):
    cli("config", "set", "--topic", name, "retention.ms=7000000")
    [one] = cli.json("config", "explain", "retention.ms", "--topic", name)
    assert (one["value"], one["source"]) == ("7000000", "DYNAMIC_TOPIC_CONFIG")
    assert "7000000 (DYNAMIC_TOPIC_CONFIG)" in cli("config", "explain", "retention.ms", "--topic", name).out


def test_brokers(broker, cli, name):
    load.produce_lines(broker, name, 500, 1)
    [node] = cli.json("broker", "list")
    assert node["address"] == broker.bootstrap and node["leader_partitions"] >= 1 and node["out_of_sync_partitions"] == 0
    assert rows(cli("broker", "list").out)[0]["ADDRESS"] == broker.bootstrap
    [told] = cli.json("broker", "describe", node["broker"])
    assert told["apis"] > 30 and told["cluster_id"] and told["configs"]["log.dirs"] == str(broker.data_dir)
    text = cli("broker", "describe").out
    assert f"Broker: {node['broker']}  Cluster: {told['cluster_id']}" in text and "log.dirs" in text
    [logs] = cli.json("broker", "log-dirs")
    assert logs["log_dir"] == str(broker.data_dir) and logs["total_bytes"] > logs["usable_bytes"] > 0 and logs["error"] is None
    sizes = {(p["topic"], p["partition"]): p["bytes"] for p in logs["partitions"]}
    assert sizes[name, 0] > 500 * 10 and logs["bytes"] == sum(sizes.values())
    [row] = rows(cli("broker", "log-dirs", node["broker"], "--partitions", "--topic", name).out)
    assert (row["TOPIC"], row["PARTITION"], row["BYTES"]) == (name, "0", str(sizes[name, 0]))
    assert rows(cli("broker", "log-dirs").out)[0]["STATE"] == "online"
    assert "there is no broker 77" in cli.fails("broker", "describe", 77)
    assert "there is no broker 77" in cli.fails("broker", "log-dirs", 77)


@pytest.mark.parametrize(
    "command", [*(f"config {c}" for c in ("get", "set", "unset", "explain")), *(f"broker {c}" for c in ("list", "describe", "log-dirs"))]
)
def test_help_has_examples(command):
    done = run(*command.split(), "--help")
    assert done.code == 0 and f"corelane {command}" in done.out.split("Example")[1], done


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_several_brokers(make_cluster):
    c = make_cluster()
    cli = Cli(c[2].bootstrap)
    c.create("t", 3)
    brokers = cli.json("broker", "list")
    assert {b["broker"]: b["address"] for b in brokers} == {n: b.bootstrap for n, b in c.brokers.items()}
    assert [b["broker"] for b in brokers if b["controller"]] == [c.controller()]
    assert all(b["replica_partitions"] >= 3 for b in brokers)
    dirs = cli.json("broker", "log-dirs")
    assert {d["broker"]: d["log_dir"] for d in dirs} == {n: str(b.data_dir) for n, b in c.brokers.items()}
    # Each broker tells its own options.
    for number, b in c.brokers.items():
        [one] = cli.json("config", "get", "--broker", number, "log.dirs")
        assert one["value"] == str(b.data_dir)
    cli("config", "set", "--topic", "t", "retention.ms=5000000")
    gone = c.leader("t")
    c[gone].kill()
    c.wait_for_members({1, 2, 3} - {gone})
    assert len(Cli(c.bootstrap).json("broker", "list")) == 2
