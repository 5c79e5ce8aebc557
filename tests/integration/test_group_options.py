"""Options of single groups (resource type GROUP): set, shown, in force at once, kept over restarts, in a cluster too."""

import time

import pytest

from support import broker as brokers
from support import java, load, schema, wire
from support.broker import target
from support.groups import GROUP, ConsumerMember, alter, name_of, wait_ready, wait_until

SESSION, HEARTBEAT = "consumer.session.timeout.ms", "consumer.heartbeat.interval.ms"
GROUP_SOURCE, FILE, DEFAULT = 8, 4, 5


def shown(broker, group):
    """{option: (value, source, names of synonyms)}"""
    with wire.Conn(broker, timeout=30) as conn:
        answer = schema.call(conn, "DescribeConfigs", 4, Resources=[{"ResourceType": GROUP, "ResourceName": group, "ConfigurationKeys": None}],
                             IncludeSynonyms=True)  # fmt: skip
    [told] = answer.Results
    assert told.ErrorCode == 0, told.ErrorMessage
    return {c.Name: (c.Value, c.ConfigSource, [s.Name for s in c.Synonyms]) for c in told.Configs}


def with_options(broker):
    with wire.Conn(broker, timeout=30) as conn:
        return {r.ResourceName for r in schema.call(conn, "ListConfigResources", 1, ResourceTypes=[GROUP]).ConfigResources}


@pytest.fixture
def started(make_broker):
    b = make_broker({**brokers.QUICK_GROUPS, "offsets.topic.num.partitions": 2, "offsets.topic.replication.factor": 1})
    b.start()
    load.create_topic(b, "t", 2)
    return b


def test_set_shown_listed_and_removed(started):
    assert with_options(started) == set()
    before = shown(started, "g")
    assert before[SESSION][:2] == ("6000", FILE) and before[HEARTBEAT][:2] == ("500", FILE), before
    assert before["streams.num.standby.replicas"][:2] == ("0", DEFAULT)
    assert alter(started, "g", consumer_session_timeout_ms=7000, consumer_heartbeat_interval_ms=700) == "NONE"
    after = shown(started, "g")
    assert after[SESSION][:2] == ("7000", GROUP_SOURCE) and after[HEARTBEAT][:2] == ("700", GROUP_SOURCE)
    assert after[SESSION][2][:2] == [SESSION, "group." + SESSION], after[SESSION]
    assert shown(started, "another") == before
    assert with_options(started) == {"g"}
    assert alter(started, "g", consumer_session_timeout_ms=None) == "NONE"
    assert shown(started, "g")[SESSION] == before[SESSION] and with_options(started) == {"g"}
    assert alter(started, "g", consumer_heartbeat_interval_ms=None) == "NONE"
    assert shown(started, "g") == before and with_options(started) == set()


def test_what_cannot_be_set(started):
    assert alter(started, "g", consumer_session_timeout_ms=999) == "INVALID_CONFIG"
    assert alter(started, "g", consumer_session_timeout_ms=60_001) == "INVALID_CONFIG"
    assert alter(started, "g", consumer_heartbeat_interval_ms=99) == "INVALID_CONFIG"
    assert alter(started, "g", consumer_heartbeat_interval_ms="soon") == "INVALID_CONFIG"
    assert alter(started, "g", consumer_heartbeat_interval_ms=7000) == "INVALID_CONFIG", "not below the session timeout"
    assert alter(started, "g", retention_ms=7000) == "INVALID_CONFIG"
    assert alter(started, "", consumer_session_timeout_ms=7000) == "INVALID_REQUEST"
    # One bad option of several: none of them is set.
    assert alter(started, "g", consumer_session_timeout_ms=7000, retention_ms=7000) == "INVALID_CONFIG"
    assert alter(started, "g", True, consumer_session_timeout_ms=7000) == "NONE"
    assert with_options(started) == set()


def test_in_force_at_once(started):
    """Members are told the interval by their next heartbeat, and a silent one is given up by the timeout of its group."""
    wait_ready(started, "g")
    with ConsumerMember(started, "g") as one, ConsumerMember(started, "g") as other:
        assert one.join("t").HeartbeatIntervalMs == 500
        other.join("t")
        assert alter(started, "g", consumer_heartbeat_interval_ms=700, consumer_session_timeout_ms=1500) == "NONE"
        assert other.beat(TopicPartitions=other.own()).HeartbeatIntervalMs == 700
        one.beat(TopicPartitions=one.own())
        began = time.monotonic()
        # It keeps still.
        while time.monotonic() - began < 5:
            if other.beat(TopicPartitions=other.own()).ErrorCode == 0 and sum(map(len, other.given.values())) == 2:
                break
            time.sleep(0.05)
        took = time.monotonic() - began
        assert 1.2 < took < 5, f"{took:.1f} s, the broker's own timeout is 6 s"


@pytest.mark.parametrize("end", ["stop", "kill"])
def test_kept_over_a_restart(started, end):
    assert alter(started, "a group / of ours", consumer_session_timeout_ms=7000) == "NONE"
    getattr(started, end)()
    started.start()
    assert with_options(started) == {"a group / of ours"}
    assert shown(started, "a group / of ours")[SESSION][:2] == ("7000", GROUP_SOURCE)


def test_kafkas_own_tool(started):
    def configs(*args, check=True):
        return java.run(java.CONFIGS, "--bootstrap-server", started.bootstrap, "--group", "g", *args, check=check)

    assert "Completed updating config for group g" in configs("--alter", "--add-config", f"{SESSION}=7000,{HEARTBEAT}=700").out
    told = configs("--describe").out
    assert f"{SESSION}=7000" in told and f"{HEARTBEAT}=700" in told and f"DYNAMIC_GROUP_CONFIG:{SESSION}=7000" in told, told
    assert "streams.num.standby.replicas=0" in configs("--describe", "--all").out
    wrong = configs("--alter", "--add-config", f"{SESSION}=1", check=False)
    assert wrong.code != 0 and "InvalidConfigurationException" in wrong.out + wrong.log, str(wrong)
    configs("--alter", "--delete-config", f"{SESSION},{HEARTBEAT}")
    assert SESSION not in configs("--describe").out


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_all_brokers_of_a_cluster(make_cluster):
    c = make_cluster()
    assert alter(c[1], "g", consumer_session_timeout_ms=7000) == "NONE"
    c.wait(lambda: all(shown(b, "g")[SESSION][:2] == ("7000", GROUP_SOURCE) for b in c.brokers.values()), 30, "every broker knows it")
    c[2].kill()
    c[2].start()
    c.wait(lambda: with_options(c[2]) == {"g"}, 30, "also after a start")
    assert "consumer.session.timeout.ms" in c.zookeeper.shell("get /config/groups/g")
    assert alter(c[2], "g", consumer_session_timeout_ms=None) == "NONE"
    wait_until(lambda: all(with_options(b) == set() for b in c.brokers.values()))


@pytest.mark.parametrize("given, other", [
    ("group.consumer.session.timeout.ms=44999", "group.consumer.min.session.timeout.ms"),
    ("group.consumer.session.timeout.ms=60001", "group.consumer.max.session.timeout.ms"),
    ("group.consumer.min.session.timeout.ms=60001", "group.consumer.max.session.timeout.ms"),
    ("group.consumer.heartbeat.interval.ms=4999", "group.consumer.min.heartbeat.interval.ms"),
    ("group.consumer.heartbeat.interval.ms=15001", "group.consumer.max.heartbeat.interval.ms"),
    ("group.consumer.max.heartbeat.interval.ms=4999", "group.consumer.min.heartbeat.interval.ms"),
])  # fmt: skip
def test_bounds_that_the_brokers_own_values_break_stop_its_start(make_broker, given, other):
    name, value = given.split("=")
    b = make_broker()
    # Kafka's tool that formats the directory refuses them too.
    b.start()
    b.stop()
    b.props[name] = value
    b.spawn()
    assert b.popen.wait(60) != 0, b.log_tail()
    said = next(line for line in b.log_text().splitlines() if name in line and other in line)
    assert " must be " in said and "equal to" in said, said
