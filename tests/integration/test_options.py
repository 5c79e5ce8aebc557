"""Options against Kafka's own validators: types, defaults, bounds, special values, and settings that contradict each other.

Corelane's side is its table as docs/CONFIGURATION.md has it (which is generated, and tested to be); what a broker makes of values
is asked of a broker. Where the two differ on purpose, the reason stands here."""

import re
import subprocess

import pytest

from support import java, wire
from support.broker import REPO

# option -> why its type or default is another one
OTHER_DEFAULT = {
    "listener.security.protocol.map": "the same map in another order",
    "offsets.topic.replication.factor": "Kafka's short is an int here",
    "transaction.state.log.replication.factor": "Kafka's short is an int here",
    "node.id": "Kafka has none",
    "socket.send.buffer.bytes": "the system's own, which adapts",
    "socket.receive.buffer.bytes": "the system's own, which adapts",
    "listeners": "Kafka listens on all interfaces",
    "log.dirs": "Kafka's is in /tmp",
    "group.coordinator.rebalance.protocols": "without groups that are not served",
    "log.flush.interval.ms": "Kafka has none and falls back to the scheduler's interval",
    "log.roll.ms": "Kafka has none and falls back to log.roll.hours",
    "log.retention.ms": "Kafka has none and falls back to log.retention.hours",
}
# (option, value) -> why Corelane's answer is another one; None: whatever the value
DELIBERATE = {
    ("num.partitions", None): "a topic has at most 100,000 partitions",
    ("default.replication.factor", None): "at least 1, and no more than there are brokers",
    ("leader.imbalance.check.interval.seconds", None): "at least 1: less would be a busy loop",
    ("leader.imbalance.per.broker.percentage", None): "0 to 100",
    ("message.max.bytes", None): "at most 256 MiB: recovery takes no larger batch",
    ("max.message.bytes", None): "at most 256 MiB: recovery takes no larger batch",
    ("socket.request.max.bytes", None): "1,024 to 256 MiB",
    ("connections.max.idle.ms", None): "there is no authentication whose delay it would have to exceed",
    ("max.connections.per.ip", "0"): "refused without overrides, as by Kafka, which the table cannot say",
    ("socket.send.buffer.bytes", None): "-1, or a size",
    ("socket.receive.buffer.bytes", None): "-1, or a size",
    ("log.flush.interval.ms", "-1"): "Kafka's topic option refuses it, too",
    ("log.flush.interval.ms", "-2"): "Kafka's topic option refuses it, too",
    ("log.flush.scheduler.interval.ms", None): "at least 1: less would be a busy loop",
    ("log.cleaner.dedupe.buffer.size", "1048576"): "Kafka wants more than 1 MiB a thread",
    ("log.cleaner.io.buffer.size", None): "4 KiB to 64 MiB",
    ("offsets.topic.num.partitions", None): "at most 10,000",
    ("offsets.topic.replication.factor", None): "no more than there are brokers",
    ("offsets.topic.segment.bytes", None): "at least 1 MiB, as other segments",
    ("offsets.load.buffer.size", None): "64 KiB to 256 MiB",
    ("transaction.state.log.num.partitions", None): "at most 10,000",
    ("transaction.state.log.replication.factor", None): "no more than there are brokers",
    ("transaction.state.log.segment.bytes", None): "at least 1 MiB, as other segments",
    ("transaction.state.log.load.buffer.size", None): "64 KiB to 256 MiB",
    ("offset.metadata.max.bytes", None): "0 to 32767, which is what a string of the protocol holds",
    ("group.min.session.timeout.ms", None): "at least 1: with less, no member would stay",
    ("group.max.session.timeout.ms", None): "at least 1: with less, no member would stay",
    ("group.initial.rebalance.delay.ms", None): "at least 0",
    ("group.consumer.session.timeout.ms", None): "Kafka's bounds are options of their own, which hold for options of single groups here",
    ("group.consumer.min.session.timeout.ms", None): "at least 1: that the least is not above the largest shows when a group has options",
    ("group.consumer.max.session.timeout.ms", None): "at least 1: that the least is not above the largest shows when a group has options",
    ("group.consumer.min.heartbeat.interval.ms", None): "at least 1: that the least is not above the largest shows when a group has options",
    ("group.consumer.max.heartbeat.interval.ms", None): "at least 1: that the least is not above the largest shows when a group has options",
    ("group.consumer.heartbeat.interval.ms", None): "Kafka's bounds are options of their own, which hold for options of single groups here",
    ("replica.fetch.min.bytes", None): "at least 0: less has no meaning",
    ("replica.fetch.wait.max.ms", None): "Kafka compares it with two other options",
    ("replica.high.watermark.checkpoint.interval.ms", None): "at least 1: less would be a busy loop",
    ("replica.selector.class", None): "Kafka loads any class that is there; here there are two, by their names",
    ("replica.lag.time.max.ms", None): "at least 1; Kafka compares it with another option",
    ("replica.socket.timeout.ms", None): "1 to an hour; Kafka compares it with another option",
    ("quota.window.num", None): "at most 1,000: each client has so many samples",
    ("controller.quota.window.num", None): "at most 1,000, as quota.window.num",
    ("quota.window.size.seconds", None): "at most a day",
    ("controller.quota.window.size.seconds", None): "at most a day",
    ("compression.gzip.level", "0"): "refused as by Kafka; the table's column cannot say so",
}
# Kafka's as long as it kept its metadata in ZooKeeper.
OLDER = {"leader.imbalance.per.broker.percentage"}
# In Kafka the rates are set while brokers run only, and the lists are of topics only.
THROTTLES = {f"{side}.replication.throttled.{what}" for side in ("leader", "follower") for what in ("rate", "replicas")}
THROTTLES |= {"replica.alter.log.dirs.io.max.bytes.per.second"}
INVALID_CONFIG = 40


class Kafka:
    """The validators of the jars in a process that stays."""

    def __init__(self):
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=off"
        line = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, "-cp", java.compiled("OptionChecks")]
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *line, "OptionChecks"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.options = {}
        while line := self.popen.stdout.readline().rstrip("\n"):
            side, name, kind, default = line.split("\t")
            self.options[side, name] = kind, default

    def refusal(self, side, *pairs):
        """Why the options are refused; empty: they are accepted."""
        self.popen.stdin.write("\t".join([side, *(part for pair in pairs for part in pair)]) + "\n")
        return self.popen.stdout.readline().rstrip("\n")


@pytest.fixture(scope="module")
def kafka():
    checks = Kafka()
    yield checks
    checks.popen.stdin.close()
    checks.popen.wait(30)


def rows():
    """-> (side, names, type, default, bounds, (topic's name, its bounds) or None) of each row of the tables."""
    side = "broker"
    for line in (REPO / "docs/CONFIGURATION.md").read_text().splitlines():
        if line == "## Group options":
            side = "group"
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if len(cells) != 6 or not cells[0].startswith("`"):
            continue
        topic = re.fullmatch(r"`([^`]+)`(?: \((.*)\))?", cells[4])
        if side == "group" or topic and topic[2] == "group":
            topic = None
        yield (
            side, re.findall(r"`([^`]+)`", cells[0]), cells[1], cells[2].strip("`"), cells[3],
            topic and (topic[1], topic[2] or cells[3]),
        )  # fmt: skip


def accepts(kind, bounds, text):
    """Whether the table takes an integer."""
    number = int(text)
    if kind == "int" and not -(2**31) <= number < 2**31:
        return False
    if found := re.fullmatch(r"(?:(-?\d+), or )?at least (-?\d+)", bounds):
        return number >= int(found[2]) or (found[1] is not None and number == int(found[1]))
    if found := re.fullmatch(r"negative, or at least (-?\d+)", bounds):
        return number >= int(found[1]) or number < 0
    if found := re.fullmatch(r"(-?\d+) to (-?\d+)", bounds):
        return int(found[1]) <= number <= int(found[2])
    assert bounds == "", f"unknown bounds: {bounds}"
    return True


def probes(kind, bounds):
    numbers = {-2, -1, 0, 1, 2, 4, 2**31 - 1, 2**31}
    for text in re.findall(r"-?\d+", bounds):
        numbers |= {int(text) - 1, int(text), int(text) + 1}
    largest = 2**31 if kind == "int" else 2**63 - 1
    return sorted(str(n) for n in numbers if -(2**31) <= n <= largest)


def test_the_table_is_kafkas(kafka):
    wrong, compared = [], 0
    for of, names, kind, default, bounds, topic in rows():
        for side, name, limits in [(of, names[0], bounds)] + ([("topic", *topic)] if topic else []):
            if (side, name) not in kafka.options:
                assert name in OLDER | THROTTLES or name.startswith(("corelane.", "zookeeper.")), f"{name} is no option of Kafka's"
                continue
            kafka_kind, kafka_default = kafka.options[side, name]
            compared += 1
            if kafka_kind != kind and name not in OTHER_DEFAULT:
                wrong.append(f"{side} {name}: type {kind}, Kafka's {kafka_kind}")
            if kafka_default != default and name not in OTHER_DEFAULT and side != "topic":
                wrong.append(f"{side} {name}: default {default!r}, Kafka's {kafka_default!r}")
            if kind not in ("int", "long") or (name, None) in DELIBERATE:
                continue
            for value in probes(kind, limits):
                refusal = kafka.refusal(side, (name, value))
                # Other options may not go with the value; that is another matter.
                about_another = refusal and name not in refusal
                if accepts(kind, limits, value) == (not refusal) or about_another or (name, value) in DELIBERATE:
                    continue
                wrong.append(f"{side} {name}={value}: Kafka says {refusal or 'yes'!r}, the table {limits!r}")
    assert compared > 50
    assert {names[0] for side, names, *_ in rows() if side == "group"} == {name for side, name in kafka.options if side == "group"}
    assert not wrong, "\n" + "\n".join(wrong)


TOPICS = [
    [("min.compaction.lag.ms", "6"), ("max.compaction.lag.ms", "5")],
    [("min.compaction.lag.ms", "5"), ("max.compaction.lag.ms", "5")],
    [("cleanup.policy", "")],
    [("cleanup.policy", "compact,compact")],
    [("cleanup.policy", "compact , delete")],
    [("cleanup.policy", "delete,")],
    [("cleanup.policy", ",")],
    [("cleanup.policy", "Compact")],
    [("retention.ms", " 5 ")],
    [("retention.ms", "+5")],
    [("retention.ms", "")],
    [("retention.ms", "1.0")],
    [("retention.ms", "-1")],
    [("retention.ms", "-2")],
    [("retention.bytes", "-7")],
    [("min.cleanable.dirty.ratio", "1")],
    [("min.cleanable.dirty.ratio", "1.01")],
    [("min.cleanable.dirty.ratio", "-0.1")],
    [("message.timestamp.type", " LogAppendTime")],
    [("message.timestamp.type", "")],
    [("message.timestamp.type", "logappendtime")],
    [("segment.bytes", "1048575")],
    [("segment.bytes", "2147483648")],
    [("unclean.leader.election.enable", " False ")],
    [("preallocate", "no")],
    [("no.such.option", "1")],
    [("log.retention.ms", "1")],
]  # fmt: skip


def test_topics_are_refused_as_by_kafka(kafka, broker):
    with wire.Conn(broker, timeout=60) as conn:
        for n, configs in enumerate(TOPICS):
            refusal = kafka.refusal("topic", *configs)
            name = f"options-{n}"
            told = wire.create_topics(conn, {name: (1, dict(configs))}, validate_only=True)
            assert told == {name: INVALID_CONFIG if refusal else 0}, f"{configs}: Kafka says {refusal or 'yes'!r}"
