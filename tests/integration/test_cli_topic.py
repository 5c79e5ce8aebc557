"""`corelane topic`: every command against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka; several brokers; typos."""

import time

import pytest

from support import load, wire
from support.broker import free_port, target
from support.cli import Cli, rows, run

START = 1_700_000_000_000


@pytest.fixture
def cli(broker):
    return Cli(broker.bootstrap)


@pytest.fixture
def name(request, cli):
    """A name for a topic, which is deleted afterwards."""
    made = f"cli-{time.time_ns()}"
    yield made
    cli("topic", "delete", made, "--if-exists")


@pytest.fixture
def timed(broker, topic):
    """Two partitions with ten records each; record n is n seconds after START."""
    made = topic(2, retention_ms=-1)
    with wire.Conn(broker, timeout=30) as conn:
        for p in range(2):
            for n in range(10):
                wire.produce(conn, made, p, wire.batch([b"x"], timestamp=START + n * 1000))
    return made


def ends(cli, topic):
    """The first and the next offset of each partition."""
    return [(p["start_offset"], p["end_offset"]) for p in cli.json("topic", "describe", topic, "--offsets")[0]["partitions"]]


def test_a_topic_is_made_shown_and_deleted(cli, name):
    made = cli("topic", "create", name, "--partitions", 3, "--config", "retention.ms=7200000", "--config", "cleanup.policy=compact")
    assert made.out == f"created {name}\n"
    listed = {t["topic"]: t for t in cli.json("topic", "list")}[name]
    assert listed | {"topic_id": ""} == {
        "topic": name, "topic_id": "", "internal": False, "partition_count": 3, "replication_factor": 1,
        "under_replicated_partitions": 0, "unavailable_partitions": 0,
    }  # fmt: skip
    assert name in [r["TOPIC"] for r in rows(cli("topic", "list").out)]
    [shown] = cli.json("topic", "describe", name)
    assert shown["topic_id"] == listed["topic_id"] and len(shown["topic_id"]) == 22
    assert {k: v for k, v in shown["configs"].items() if k in ("retention.ms", "cleanup.policy")} == {
        "retention.ms": "7200000", "cleanup.policy": "compact",
    }  # fmt: skip
    assert [p["partition"] for p in shown["partitions"]] == [0, 1, 2]
    assert all(p["replicas"] == p["isr"] == [p["leader"]] and p["offline"] == [] for p in shown["partitions"])
    text = cli("topic", "describe", name).out
    assert f"Topic: {name}  TopicId: {shown['topic_id']}  PartitionCount: 3" in text and "retention.ms=7200000" in text
    assert cli("topic", "delete", name).out == f"deleted {name}\n"
    assert name not in [t["topic"] for t in cli.json("topic", "list")]


def test_what_is_there_already_or_not_there_is_named(cli, name):
    cli("topic", "create", name)
    said = cli("topic", "create", name, f"{name}-b", code=1)
    assert f"topic {name}: " in said.err and "TOPIC_ALREADY_EXISTS" in said.err and said.out == f"created {name}-b\n"
    partly = cli.json("topic", "create", name, code=1)
    assert [(t["topic"], t["error"]) for t in partly] == [(name, "TOPIC_ALREADY_EXISTS")] and partly[0]["message"]
    assert cli("topic", "create", name, "--if-not-exists").out == f"exists {name}\n"
    partly = cli("topic", "delete", f"{name}-b", f"{name}-c", code=1)
    assert partly.out == f"deleted {name}-b\n" and f"there is no topic {name}-c" in partly.err
    cli("topic", "delete", f"{name}-c", "--if-exists")


def test_a_dry_run_changes_nothing(cli, name):
    assert "would create" in cli("topic", "create", name, "--dry-run").out
    assert "INVALID_CONFIG" in cli.fails("topic", "create", name, "--dry-run", "--config", "retention.ms=soon")
    assert name not in [t["topic"] for t in cli.json("topic", "list")]
    cli("topic", "create", name)
    cli("topic", "add-partitions", name, "--partitions", 5, "--dry-run")
    cli("topic", "alter", name, "--config", "retention.ms=1", "--dry-run")
    [shown] = cli.json("topic", "describe", name)
    assert shown["partition_count"] == 1 and "retention.ms" not in shown["configs"]


def test_a_typo_is_answered_with_the_nearest_topic(cli, name):
    cli("topic", "create", name)
    for words in (
        ["topic", "describe", name[:-1]],
        ["topic", "delete", name[:-1]],
        ["topic", "alter", name + "x", "--config", "retention.ms=1"],
        ["topic", "add-partitions", name + "x", "--partitions", 7],
        ["topic", "trim", name[:-1], "--to-latest"],
    ):
        said = cli.fails(*words)
        assert f"there is no topic {words[2]}; did you mean {name}?" in said, said
    assert "`corelane topic list` shows all" in cli.fails("topic", "describe", "quite-another")
    # One that is there is shown all the same.
    partly = cli("topic", "describe", name, "quite-another", code=1)
    assert f"Topic: {name}" in partly.out and "quite-another" in partly.err


def test_partitions_are_added_and_never_taken_away(cli, name):
    cli("topic", "create", name)
    assert cli("topic", "add-partitions", name, "--partitions", 4).out == f"grown from 1 to 4 partitions: {name}\n"
    assert len(cli.json("topic", "describe", name)[0]["partitions"]) == 4
    assert "INVALID_PARTITIONS" in cli.fails("topic", "add-partitions", name, "--partitions", 2)


def test_options_are_set_and_unset_together_or_not_at_all(cli, name):
    cli("topic", "create", name, "--config", "segment.ms=60000")
    cli("topic", "alter", name, "--config", "retention.ms=5000000", "--delete-config", "segment.ms")
    own = cli.json("topic", "describe", name)[0]["configs"]
    assert own.get("retention.ms") == "5000000" and "segment.ms" not in own
    said = cli.fails("topic", "alter", name, "--config", "retention.bytes=7", "--config", "segment.bytes=many")
    assert "INVALID_CONFIG" in said and "segment.bytes" in said
    assert "retention.bytes" not in cli.json("topic", "describe", name)[0]["configs"]
    told = cli.json("topic", "alter", name, "--config", "retention.ms=6000000")
    assert told["options"] == {"configs": {"retention.ms": "6000000"}, "error": None, "message": None}
    overridden = [t["topic"] for t in cli.json("topic", "describe", "--topics-with-overrides")]
    assert name in overridden


def test_records_are_trimmed_by_offset_and_time(cli, timed):
    def offsets():
        return ends(cli, timed)

    assert offsets() == [(0, 10), (0, 10)]
    dry = cli.json("topic", "trim", timed, "--to-offset", 3, "--partition", 0, "--dry-run")
    assert [(t["partition"], t["start_offset_before"], t["start_offset"], t["deleted"]) for t in dry] == [(0, 0, 3, 3)]
    assert offsets() == [(0, 10), (0, 10)]
    beyond = cli("topic", "trim", timed, "--to-offset", 11, "--dry-run", "--format", "json", code=1)
    assert [(t["error"], t["start_offset"]) for t in beyond.json] == [("OFFSET_OUT_OF_RANGE", None)] * 2
    assert f"{timed}-1: the partition ends at offset 10" in beyond.err
    cli("topic", "trim", timed, "--to-offset", 3, "--partition", "0")
    assert offsets() == [(3, 10), (0, 10)]
    # Record 5 is 5 s after START, which is 22:13:20 UTC.
    table = rows(cli("topic", "trim", timed, "--to-datetime", "2023-11-14T22:13:25").out)
    heads = ("PARTITION", "START-OFFSET", "NEW-START-OFFSET", "DELETED")
    assert [tuple(r[h] for h in heads) for r in table] == [("0", "3", "5", "2"), ("1", "0", "5", "5")]
    assert offsets() == [(5, 10), (5, 10)]
    # What was deleted before stays so.
    again = cli.json("topic", "trim", timed, "--to-offset", 4)
    assert [t["deleted"] for t in again] == [0, 0]
    # One partition is too short, the other is trimmed.
    said = cli("topic", "trim", timed, "--to-offset", 11, "--partition", "0-1", "--format", "json", code=1)
    assert [t["error"] for t in said.json] == ["OFFSET_OUT_OF_RANGE"] * 2 and f"{timed}-1: " in said.err
    cli("topic", "trim", timed, "--by-duration", "PT1H")
    assert offsets() == [(10, 10), (10, 10)]


def test_everything_is_trimmed(cli, timed):
    cli("topic", "trim", timed, "--to-latest")
    assert ends(cli, timed) == [(10, 10)] * 2
    assert "has no partition 2; it has 2" in cli.fails("topic", "trim", timed, "--to-latest", "--partition", 2)


def test_a_replica_assignment_is_kafkas(broker, cli, name):
    [node] = cli.json("broker", "list")
    cli("topic", "create", name, "--replica-assignment", f"{node['broker']},{node['broker']}")
    assert [p["replicas"] for p in cli.json("topic", "describe", name)[0]["partitions"]] == [[node["broker"]]] * 2
    cli("topic", "add-partitions", name, "--partitions", 3, "--replica-assignment", node["broker"])
    said = cli.fails("topic", "alter", name, "--replication-factor", 3)
    assert "3 replicas need as many brokers; there are 1" in said
    assert "are so already" in cli("topic", "alter", name, "--replication-factor", 1).out
    assert "names 1 partition," in cli.fails("topic", "alter", name, "--replica-assignment", "1")


def test_no_broker_is_told_at_once():
    port = free_port()
    begun = time.monotonic()
    done = run("topic", "list", "--bootstrap-server", f"127.0.0.1:{port}")
    assert done.code == 1 and time.monotonic() - begun < 15
    assert f"127.0.0.1:{port}" in done.err and "--bootstrap-server" in done.err and "refused" in done.err, done
    done = run("topic", "list", "--bootstrap-server", "no.such.host.invalid")
    assert done.code == 1 and "no.such.host.invalid" in done.err, done


def test_any_of_several_servers_does(broker):
    assert run("topic", "list", "--bootstrap-server", f"127.0.0.1:{free_port()},{broker.bootstrap}").code == 0


def test_words_that_there_are_not():
    done = run("topic", "lst")
    assert done.code == 2 and "list" in done.err, done
    done = run("topci", "list")
    assert done.code == 2 and "topic" in done.err, done
    for words in (
        ["topic", "create"],
        ["topic", "create", "a", "--partitions", 0],
        ["topic", "create", "a", "--partitions", 1, "--replica-assignment", "1"],
        ["topic", "create", "a", "--config", "novalue"],
        ["topic", "alter", "a"],
        ["topic", "trim", "a"],
        ["topic", "trim", "a", "--to-latest", "--to-offset", 1],
        ["topic", "trim", "a", "--to-datetime", "yesterday"],
        ["topic", "list", "--timeout", 0],
        ["topic", "list", "--bootstrap-server", "a:b"],
    ):
        done = run(*words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)


@pytest.mark.parametrize("command", ["create", "list", "describe", "alter", "add-partitions", "delete", "trim"])
def test_help_has_examples(command):
    done = run("topic", command, "--help")
    assert done.code == 0 and f"corelane topic {command}" in done.out.split("Example")[1], done


def test_completions_and_man_pages(root):
    for shell in ("bash", "zsh", "fish"):
        done = run("completions", shell)
        assert done.code == 0 and "add-partitions" in done.out and "bootstrap-server" in done.out, done
    done = run("man")
    assert done.code == 0 and ".TH corelane" in done.out, done
    pages = root / "man"
    pages.mkdir()
    assert run("man", pages).code == 0
    assert "reset\\-offsets" in (pages / "corelane-group-reset-offsets.1").read_text()
    done = run("man", root / "nowhere")
    assert done.code == 1 and "nowhere" in done.err, done


# ---- several brokers


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_several_brokers(make_cluster):
    c = make_cluster()
    cli = Cli(c.bootstrap)
    made = cli("topic", "create", "spread", "--partitions", 6, "--replication-factor", 2)
    assert made.out == "created spread\n"
    c.wait_for("spread", lambda leader, replicas, isr: len(isr) == 2)
    # Each broker answers for all, and passes on what is the controller's or a leader's.
    for number, b in c.brokers.items():
        one = Cli(b.bootstrap)
        [shown] = one.json("topic", "describe", "spread", "--offsets")
        assert {p["leader"] for p in shown["partitions"]} == {1, 2, 3}
        assert all(p["end_offset"] == 0 for p in shown["partitions"])
        one("topic", "create", f"by-{number}")
        one("topic", "alter", f"by-{number}", "--config", "retention.ms=1000000")
        one("topic", "delete", f"by-{number}")
    load.produce_lines(c, "spread", 600, 6, acks="all")
    # More replicas, fewer, and others.
    planned = cli.json("topic", "alter", "spread", "--replication-factor", 3, "--dry-run")["reassignments"]
    assert [p["partition"] for p in planned] == list(range(6)) and all(sorted(p["replicas"]) == [1, 2, 3] for p in planned)
    assert all(p["replicas"][:2] == p["replicas_before"] for p in planned)
    assert all(len(replicas) == 2 for _, replicas, _ in c.describe("spread").values())
    assert "all have moved" in cli("topic", "alter", "spread", "--replication-factor", 3, "--wait", silent=False).out
    assert all(sorted(replicas) == [1, 2, 3] for _, replicas, _ in c.describe("spread").values())
    cli("topic", "alter", "spread", "--replication-factor", 1)
    c.wait_for("spread", lambda leader, replicas, isr: len(replicas) == 1)
    cli("topic", "alter", "spread", "--replica-assignment", "2:3,2:3,2:3,2:3,2:3,2:3")
    c.wait_for("spread", lambda leader, replicas, isr: replicas == [2, 3] and set(isr) == {2, 3})
    assert "need as many brokers; there are 3 (1, 2, 3)" in cli.fails("topic", "alter", "spread", "--replication-factor", 4)
    told = cli.json("topic", "trim", "spread", "--to-offset", 40)
    assert [t["start_offset"] for t in told] == [40] * 6


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_a_broker_goes_away(make_cluster):
    c = make_cluster()
    cli = Cli(c.bootstrap)
    c.create("t", 6)
    gone = c.controller()
    c[gone].kill()
    # The controller and leaders are others in a moment; until then the commands wait.
    cli("topic", "create", "after", "--partitions", 3, "--replication-factor", 2)
    c.wait_for("t", lambda leader, replicas, isr: leader != gone and gone not in isr)
    short = cli.json("topic", "describe", "--under-replicated-partitions", "--exclude-internal")
    assert {t["topic"] for t in short} == {"t"} and len(short[0]["partitions"]) == 6
    assert cli.json("topic", "describe", "--unavailable-partitions", "--exclude-internal") == []
    told = cli.json("topic", "trim", "t", "--to-latest")
    assert [t["error"] for t in told] == [None] * 6
