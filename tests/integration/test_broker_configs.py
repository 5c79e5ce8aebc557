"""Options that are set while brokers run (KIP-226), by Kafka's own tool and by clients: what holds, where it comes from, what it
does, and that it lasts."""

import time

import confluent_kafka as ck
import pytest

from support import clock, java, load, wire

DEFAULT = ""


@pytest.fixture
def broker(make_broker):
    b = make_broker(props={"log.retention.check.interval.ms": 200, "log.segment.delete.delay.ms": 100, "log.retention.hours": 5})
    b.start()
    return b


@pytest.fixture
def topic_on():
    return lambda broker, **options: load.create_topic(broker, f"t-{time.time_ns()}", 1, **options)


TOPIC, BROKER = 2, 4
SOURCES = {1: "topic", 2: "broker", 3: "default of all", 4: "file", 5: "built in"}


def node(broker):
    with wire.Conn(broker) as conn:
        return wire.metadata(conn, [], version=8)["brokers"][0][0]


def altered(broker, who, **options):
    """Sets options of a broker, or the default of all; `None` takes one away. Names with `_` for `.` -> (error, message)"""
    w = wire.Writer(False).count(1).i8(BROKER).string(str(who)).count(len(options))
    for name, value in options.items():
        w.string(name.replace("_", ".")).i8(1 if value is None else 0).string(None if value is None else str(value))
    with wire.Conn(broker, timeout=30) as conn:
        r = conn.call(wire.INCREMENTAL_ALTER_CONFIGS, 0, w.i8(False).done())
    assert (r.i32(), r.count()) == (0, 1)
    return r.i16(), r.string()


def alter(broker, who, **options):
    assert altered(broker, who, **options)[0] == 0, (who, options)


def refused(broker, who, words, **options):
    error, message = altered(broker, who, **options)
    assert error and all(word in message for word in words), (error, message)


def told(broker, kind, who, name):
    """Value, source, and the values that would hold without it, from first to last."""
    body = wire.Writer(False).count(1).i8(kind).string(str(who)).count(None).i8(True).i8(False).done()
    with wire.Conn(broker, timeout=30) as conn:
        r = conn.call(wire.DESCRIBE_CONFIGS, 3, body)
    assert (r.i32(), r.count(), r.i16()) == (0, 1, 0)
    assert (r.string() or "", r.i8(), r.string()) == ("", kind, str(who))
    found = {}
    for _ in range(r.count()):
        option, value, _read_only, source, _sensitive = r.string(), r.string(), r.i8(), r.i8(), r.i8()
        synonyms = [(r.string(), r.string(), r.i8()) for _ in range(r.count())]
        r.i8(), r.string()
        found[option] = value, SOURCES[source], [synonym[:2] for synonym in synonyms]
    return found[name]


def of_broker(broker, name, who=None):
    return told(broker, BROKER, node(broker) if who is None else who, name)[:2]


def of_topic(broker, topic, name):
    return told(broker, TOPIC, topic, name)[:2]


def test_a_topics_own_wins_over_the_brokers_over_the_default_over_the_file(broker, topic_on):
    me, plain, own = node(broker), topic_on(broker), topic_on(broker, retention_ms=1000)
    hours = str(5 * 3600 * 1000)
    # Kafka calls it its own default where the file sets it by another name.
    assert of_topic(broker, plain, "retention.ms") in [(hours, "file"), (hours, "built in")]
    alter(broker, DEFAULT, log_retention_ms=3000)
    assert of_topic(broker, plain, "retention.ms") == ("3000", "default of all")
    assert of_broker(broker, "log.retention.ms") == ("3000", "default of all")
    assert of_broker(broker, "log.retention.ms", DEFAULT) == ("3000", "default of all")
    alter(broker, me, log_retention_ms=2000)
    assert of_topic(broker, plain, "retention.ms") == ("2000", "broker")
    assert of_broker(broker, "log.retention.ms") == ("2000", "broker")
    assert of_topic(broker, own, "retention.ms") == ("1000", "topic")
    value, _, synonyms = told(broker, BROKER, me, "log.retention.ms")
    assert value == "2000" and ("log.retention.hours", "5") in synonyms, synonyms
    assert synonyms[:2] == [("log.retention.ms", "2000"), ("log.retention.ms", "3000")], synonyms
    # They outlive a stop and a kill.
    broker.stop()
    broker.start()
    assert of_topic(broker, plain, "retention.ms") == ("2000", "broker")
    alter(broker, me, log_retention_ms=None)
    broker.kill()
    broker.start()
    assert of_topic(broker, plain, "retention.ms") == ("3000", "default of all")
    alter(broker, DEFAULT, log_retention_ms=None)
    assert of_topic(broker, plain, "retention.ms")[0] == hours


def test_retention_of_all_topics_changes_while_they_are_served(broker, topic_on):
    kept, plain = topic_on(broker, retention_ms=-1), topic_on(broker)
    for name in kept, plain:
        load.produce_lines(broker, name, 100, 1)
    alter(broker, DEFAULT, log_retention_ms=1)
    wait(lambda: begin(broker, plain) == 100, "the records that nothing keeps are deleted")
    assert begin(broker, kept) == 0
    # A topic made afterwards follows it too.
    later = topic_on(broker)
    load.produce_lines(broker, later, 100, 1)
    wait(lambda: begin(broker, later) == 100, "those of a new topic as well")


def test_the_largest_batch(broker, topic_on):
    name = topic_on(broker)
    assert produce(broker, name, 600_000) is None
    alter(broker, node(broker), message_max_bytes=100_000)
    wait(lambda: produce(broker, name, 600_000) == ck.KafkaError.MSG_SIZE_TOO_LARGE, "it is too large now")
    alter(broker, node(broker), message_max_bytes=None)
    wait(lambda: produce(broker, name, 600_000) is None, "it is not any more")


def test_connections_from_one_address(broker):
    me = node(broker)
    alter(broker, me, max_connections_per_ip=4)
    wait(lambda: not can_hold(broker, 8), "eight connections are too many")
    wait(lambda: can_hold(broker, 3), "three are not")
    alter(broker, me, max_connections_per_ip=None)
    wait(lambda: can_hold(broker, 8), "eight connections are fine again")


def test_what_cannot_be_set(broker):
    me = node(broker)
    refused(broker, me, ["dynamically", "num.partitions"], num_partitions=3)
    refused(broker, DEFAULT, ["log.segment.bytes"], log_segment_bytes=100)
    refused(broker, DEFAULT, ["log.retention.ms"], log_retention_ms="soon")
    refused(broker, me + 7, [str(me)], log_retention_ms=5)
    # One bad option of several: none of them is set.
    refused(broker, me, ["dynamically"], log_retention_ms=5, broker_rack="r")
    assert of_broker(broker, "log.retention.ms")[1] != "broker"
    # What is not set can be taken away.
    alter(broker, me, log_retention_ms=None, leader_replication_throttled_rate=None)


def test_kafkas_own_tool(broker, topic_on):
    me, name = node(broker), topic_on(broker)

    def configs(*args, check=True):
        return java.run(java.CONFIGS, "--bootstrap-server", broker.bootstrap, "--entity-type", "brokers", *args, check=check)

    configs("--entity-default", "--alter", "--add-config", "log.retention.ms=3000,log.cleaner.backoff.ms=700")
    configs("--entity-name", me, "--alter", "--add-config", "log.retention.ms=2000")
    told = configs("--entity-name", me, "--describe").out
    assert "log.retention.ms=2000" in told and "DYNAMIC_BROKER_CONFIG:log.retention.ms=2000" in told, told
    assert "DYNAMIC_DEFAULT_BROKER_CONFIG:log.retention.ms=3000" in told, told
    told = configs("--entity-default", "--describe").out
    assert "log.retention.ms=3000" in told and "log.cleaner.backoff.ms=700" in told, told
    assert of_topic(broker, name, "retention.ms") == ("2000", "broker")
    configs("--entity-name", me, "--alter", "--delete-config", "log.retention.ms")
    configs("--entity-default", "--alter", "--delete-config", "log.retention.ms,log.cleaner.backoff.ms")
    assert of_topic(broker, name, "retention.ms")[0] == str(5 * 3600 * 1000)
    wrong = configs("--entity-default", "--alter", "--add-config", "log.dirs=/tmp/x", check=False)
    assert wrong.code != 0 and "log.dirs" in wrong.out + wrong.log, str(wrong)


def test_all_brokers_of_a_cluster(make_cluster):
    c = make_cluster()
    c.create("t", 1)
    alter(c, DEFAULT, log_retention_ms=3000)
    alter(c[2], 2, log_retention_ms=2000)

    def seen():
        return [of_topic(b, "t", "retention.ms")[0] for b in c.brokers.values()]

    assert of_topic(c[2], "t", "retention.ms")[0] == "2000", "in force where it was set"
    c.wait(lambda: seen() == ["3000", "2000", "3000"], 30, "every broker follows the default, and its own")
    c[1].kill()
    c[1].start()
    c.wait(lambda: seen() == ["3000", "2000", "3000"], 30, "also after a start")
    refused(c[1], 1, ["dynamically"], num_partitions=3)
    alter(c[2], 2, log_retention_ms=None)
    alter(c, DEFAULT, log_retention_ms=4000)
    c.wait(lambda: seen() == ["4000"] * 3, 30, "what is taken away leaves the default")


def wait(check, what, timeout=30):
    end = clock.running() + timeout
    while not check():
        assert clock.running() < end, f"not within {timeout} s: {what}"
        time.sleep(0.1)


def begin(broker, topic):
    with wire.Conn(broker) as conn:
        return wire.list_offsets(conn, topic, [0], -2)[0][2]


def produce(broker, topic, size):
    """The code of its error, if there is one."""
    failed = []
    producer = load.producer(broker, message_max_bytes=5_000_000)
    producer.produce(topic, b"x" * size, on_delivery=lambda error, _: failed.append(error))
    producer.flush(30)
    [error] = failed
    return error and error.code()


def can_hold(broker, count):
    """So many more connections are served, all at a time."""
    held = []
    try:
        for _ in range(count):
            held.append(wire.Conn(broker, timeout=5))
            wire.metadata(held[-1], [])
        return True
    except (OSError, wire.Closed):
        return False
    finally:
        for conn in held:
            conn.close()
