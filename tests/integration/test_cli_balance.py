"""`corelane cluster balance` on several brokers, and what Kafka's own tool makes of its plan."""

import collections
import json
import subprocess

import pytest
from test_broker_configs import alter

from support import broker as brokers
from support import java, load
from support.broker import target
from support.cli import run

pytestmark = pytest.mark.skipif(target() != "corelane", reason="three brokers of Kafka are the lab's")


def counts(c, topics):
    """Replicas and preferred leaderships by broker."""
    held, led = collections.Counter(), collections.Counter()
    for topic in topics:
        for _, replicas, _ in c.describe(topic).values():
            held.update(replicas)
            led[replicas[0]] += 1
    return dict(held), dict(led)


def balance(c, *words, code=0):
    done = run("cluster", "balance", "--bootstrap-server", c.bootstrap, "--topic", "a,b", *words)
    assert done.code == code, done
    return done


def test_a_new_broker_gets_its_share(make_cluster, tmp_path):
    c = make_cluster()
    for topic in "ab":
        placed = ("--replica-assignment", ",".join(["1:2", "2:1"] * 3), "--config", "min.insync.replicas=1")
        done = run("topic", "create", topic, *placed, "--bootstrap-server", c.bootstrap)
        assert done.code == 0, done
        load.wait_for_leaders(c, topic, 6)
        load.produce_lines(c, topic, 6000, 6)
    assert counts(c, "ab") == ({1: 12, 2: 12}, {1: 6, 2: 6})

    # Only told.
    told = balance(c)
    assert "nothing has been changed" in told.out and counts(c, "ab") == ({1: 12, 2: 12}, {1: 6, 2: 6})
    planned = balance(c, "--format", "json")
    assert planned.json["version"] == 1
    before = {(p["topic"], p["partition"]): p["replicas"] for p in planned.json["partitions_before"]}
    copies = sum(len(set(p["replicas"]) - set(before[p["topic"], p["partition"]])) for p in planned.json["partitions"])
    assert copies == 8

    # Kafka's own tool carries it out.
    plan = tmp_path / "plan.json"
    plan.write_text(planned.out)
    words = (java.REASSIGN, "--bootstrap-server", c.bootstrap, "--reassignment-json-file", plan)
    assert "Successfully started partition reassignments" in java.run(*words, "--execute").out
    c.wait(lambda: counts(c, "ab") == ({1: 8, 2: 8, 3: 8}, {1: 4, 2: 4, 3: 4}), 60, "it is even")
    c.wait(lambda: c.serves(["a", "b"]), 60, "all replicas are in sync")
    assert "equally many replicas" in balance(c, "--execute").out

    # One is emptied, a partition at a time, and its records are elsewhere.
    done = balance(c, "--broker-list", "1,3", "--execute", "--at-once", 1)
    assert "have moved" in done.out and " wait" in done.err, done
    assert counts(c, "ab") == ({1: 12, 3: 12}, {1: 6, 3: 6})
    for topic in "ab":
        load.check_lines(c, topic, 6000, 6)

    # What is not there is not emptied unasked.
    refused = balance(c, "--broker-list", "1,7", code=1)
    assert "there is no broker 7; there are 1,2,3" in refused.err, refused
    c[3].kill()
    c.wait(lambda: 3 not in {b["broker"] for b in json.loads(brokers_told(c))}, 60, "broker 3 is known to be away")
    refused = balance(c, "--execute", code=1)
    assert "broker 3 has replicas and is not there" in refused.err, refused


def create(c, topic, assignment, *config):
    words = ["--replica-assignment", assignment, "--config", "min.insync.replicas=1"]
    for one in config:
        words += ["--config", one]
    done = run("topic", "create", topic, *words, "--bootstrap-server", c.bootstrap)
    assert done.code == 0, done
    load.wait_for_leaders(c, topic, assignment.count(",") + 1)


def test_a_cordoned_broker_gets_nothing_and_leaders_change_at_once(make_cluster):
    c = make_cluster()
    for topic in "ab":
        create(c, topic, ",".join(["1:2"] * 3))
    alter(c[3], 3, cordoned_log_dirs="*")
    c.wait(lambda: "cordoned" in run("broker", "describe", 3, "--bootstrap-server", c.bootstrap).out, 30, "broker 3 is cordoned")
    told = balance(c)
    assert "broker 3 gets no replicas: all its data directories are cordoned" in told.out, told
    assert balance(c, "--format", "json").json["brokers_cordoned"] == [3]
    done = balance(c, "--execute")
    assert "3 leaderships have been handed" in done.out, done
    assert counts(c, "ab") == ({1: 6, 2: 6}, {1: 3, 2: 3})
    assert all(leader == replicas[0] for topic in "ab" for leader, replicas, _ in c.describe(topic).values())
    assert "nothing moves" in balance(c, "--execute").out
    refused = run("cluster", "balance", "--bootstrap-server", c.bootstrap, "--topic", "a,bb")
    assert refused.code == 1 and "there is no topic bb; did you mean b?" in refused.err, refused


def test_the_broker_that_a_move_waits_for_is_named(make_cluster):
    c = make_cluster()
    create(c, "a", "1:2", "leader.replication.throttled.replicas=*")
    # More than a fetch takes: the first one finds nothing that the rate counts.
    load.produce_lines(c, "a", 40_000, 1)
    create(c, "b", "3:1")
    alter(c[1], "", leader_replication_throttled_rate=1)
    words = [brokers.binary(), "cluster", "balance", "--bootstrap-server", f"{c[1].bootstrap},{c[2].bootstrap}"]
    words += ["--topic", "a", "--broker-list", "1,3", "--execute"]
    with subprocess.Popen(list(map(str, words)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as moving:
        lines = iter(moving.stderr.readline, "")
        first = next(lines)
        assert "1 of 1 partition is moving" in first and "waiting" not in first, first
        c[3].kill()
        assert any("; waiting for broker 3, which is not there" in line for line in lines)
        alter(c[1], "", leader_replication_throttled_rate=None)
        c[3].start()
        rest = list(lines)
        assert moving.wait(60) == 0, rest
        assert "1 partition has moved" in moving.stdout.read()
    load.check_lines(c, "a", 40_000, 1)


def brokers_told(c):
    return run("broker", "list", "--format", "json", "--bootstrap-server", c[1].bootstrap).out or "[]"
