"""Apache Kafka's own tools for groups: kafka-consumer-groups, kafka-consumer-perf-test, the console consumer, kafka-dump-log, kafka-topics."""

import csv
import datetime
import io
import itertools
import re
import time

import confluent_kafka as ck
import pytest

from support import java, load, schema, wire
from support.groups import ClassicMember, ConsumerMember, alter, assignment, commit, fetch_offsets, subscription, wait_ready

START = 1_700_000_000_000
_numbers = itertools.count()


def table(text):
    """The tool's tables, as dicts by the column heads."""
    rows, head = [], None
    for line in text.splitlines():
        words = re.split(r"\s{2,}|\s(?=\S)", line.strip())
        if line.startswith("GROUP") or line.startswith("TOPIC"):
            head = words
        elif head and line.strip():
            rows.append(dict(zip(head, line.split(), strict=False)))
    return rows


@pytest.fixture
def run(group_broker):
    return lambda *args, check=True: java.run(java.GROUPS, "--bootstrap-server", group_broker.bootstrap, *args, check=check)


@pytest.fixture
def fresh():
    return lambda what="g": f"{what}-{next(_numbers)}-{time.time_ns() % 10**9}"


@pytest.fixture
def topic(group_broker, conn, fresh):
    """Two partitions with ten records each; record n is n seconds after START."""
    name = load.create_topic(group_broker, fresh("tools"), 2, retention_ms=-1)
    for p in range(2):
        for n in range(10):
            wire.produce(conn, name, p, wire.batch([b"x"], timestamp=START + n * 1000))
    return name


@pytest.fixture
def group(group_broker, conn, topic, fresh):
    """A group without members that has read 4 and 6 of the topic's records."""
    name = fresh()
    wait_ready(group_broker, name)
    commit(conn, name, {(topic, 0): 4, (topic, 1): 6})
    return name


def offsets(conn, group):
    return {tp: p.CommittedOffset for tp, p in fetch_offsets(conn, group)[1].items()}


@pytest.fixture
def joined(group_broker, topic, fresh):
    """Two groups with a member each that has both partitions: one of the classic protocol, one of the newer."""
    with ClassicMember(group_broker, fresh("classic"), protocols={"range": subscription(topic)}, session_ms=60_000) as old:
        wait_ready(group_broker, old.group)
        old.join()
        old.sync({old.id: assignment(topic, [0, 1])})
        old.commit({(topic, 0): 3})
        with ConsumerMember(group_broker, fresh("consumer")) as new:
            # It sends no heartbeat while a tool runs.
            assert alter(group_broker, new.group, consumer_session_timeout_ms=60_000) == "NONE"
            new.join(topic)
            new.settle(2)
            commit(new.conn, new.group, {(topic, 1): 10}, generation=new.epoch, member=new.id)
            yield old, new


def test_list(run, group, joined):
    old, new = joined
    new.beat(TopicPartitions=new.own())
    listed = run("--list").out.split()
    assert {group, old.group, new.group} <= set(listed)
    new.beat(TopicPartitions=new.own())
    states = {r["GROUP"]: r for r in table(run("--list", "--state").out)}
    assert (states[group]["STATE"], states[old.group]["STATE"], states[new.group]["STATE"]) == ("Empty", "Stable", "Stable"), states
    new.beat(TopicPartitions=new.own())
    stable = run("--list", "--state", "stable").out
    assert old.group in stable and new.group in stable and group not in stable
    types = {r["GROUP"]: r for r in table(run("--list", "--type").out)}
    assert (types[group]["TYPE"], types[old.group]["TYPE"], types[new.group]["TYPE"]) == ("Classic", "Classic", "Consumer"), types


def test_describe(run, topic, group, joined):
    rows = {int(r["PARTITION"]): r for r in table(run("--describe", "--group", group).out)}
    told = {p: (r["TOPIC"], r["CURRENT-OFFSET"], r["LOG-END-OFFSET"], r["LAG"], r["CONSUMER-ID"]) for p, r in rows.items()}
    assert told == {0: (topic, "4", "10", "6", "-"), 1: (topic, "6", "10", "4", "-")}
    for m, lags in zip(joined, ({0: "7", 1: "-"}, {0: "-", 1: "0"}), strict=True):
        if isinstance(m, ConsumerMember):
            m.beat(TopicPartitions=m.own())
        rows = {int(r["PARTITION"]): r for r in table(run("--describe", "--group", m.group, "--offsets").out)}
        assert {p: r["LAG"] for p, r in rows.items()} == lags
        assert {r["CONSUMER-ID"] for r in rows.values()} == {m.id} and {r["HOST"] for r in rows.values()} == {"/127.0.0.1"}


def test_describe_members_and_state(run, topic, group, joined):
    old, new = joined
    out = run("--describe", "--group", old.group, "--members", "--verbose").out
    row = next(r for r in table(out) if r["GROUP"] == old.group)
    assert row["CONSUMER-ID"] == old.id and row["#PARTITIONS"] == "2" and f"{topic}:0,1" in out.replace("(", ":").replace(")", ""), out
    new.beat(TopicPartitions=new.own())
    out = run("--describe", "--group", new.group, "--members", "--verbose").out
    assert new.id in out and re.search(rf"{re.escape(topic)}[:(]0,1", out) and re.search(rf"\s{new.epoch}\s", out), out
    new.beat(TopicPartitions=new.own())
    out = run("--describe", "--state", "--group", old.group, "--group", new.group, "--group", group).out
    assert re.search(rf"{old.group}\s.*range\s+Stable\s+1", out), out
    assert re.search(rf"{new.group}\s.*uniform\s+Stable\s+1", out), out
    assert re.search(rf"{group}\s.*Empty\s+0", out), out
    gone = run("--describe", "--group", "no-such-group", check=False)
    assert re.search("does not exist|not found|GroupIdNotFound", gone.out + gone.log), str(gone)


def stamp(ms):
    return datetime.datetime.fromtimestamp(ms / 1000, datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.000")


def test_reset_offsets_in_every_mode(run, conn, topic, group, tmp_path):
    ago = int(time.time()) - START // 1000
    modes = [
        (["--to-earliest"], (0, 0)), (["--to-latest"], (10, 10)), (["--to-offset", 5], (5, 5)), (["--to-offset", 500], (10, 10)),
        (["--shift-by", -2], (2, 4)), (["--shift-by", 3], (7, 9)), (["--shift-by", -100], (0, 0)),
        (["--by-duration", f"PT{ago - 60}S"], (10, 10)), (["--by-duration", f"PT{ago + 3600}S"], (0, 0)),
        (["--to-datetime", stamp(START + 3000)], (3, 3)), (["--to-current"], (4, 6)),
    ]  # fmt: skip
    plan = None
    for mode, due in modes:
        out = run("--reset-offsets", "--group", group, "--topic", topic, *mode, "--dry-run").out
        told = {int(r["PARTITION"]): int(r["NEW-OFFSET"]) for r in table(out)}
        assert told == dict(enumerate(due)), f"{mode}: {out}"
    assert offsets(conn, group) == {(topic, 0): 4, (topic, 1): 6}, "a dry run has changed something"
    out = run("--reset-offsets", "--group", group, "--topic", f"{topic}:1", "--shift-by", -1, "--execute").out
    assert offsets(conn, group) == {(topic, 0): 4, (topic, 1): 5}, out
    out = run("--reset-offsets", "--group", group, "--all-topics", "--to-earliest", "--export", "--dry-run").out
    plan = [line for line in out.splitlines() if topic in line]
    rows = sorted(tuple(r[-3:]) for r in csv.reader(io.StringIO("\n".join(plan))))
    assert rows == [(topic, "0", "0"), (topic, "1", "0")], out
    file = tmp_path / "plan.csv"
    file.write_text(f"{topic},0,7\n{topic},1,8\n")
    run("--reset-offsets", "--group", group, "--from-file", file, "--execute")
    assert offsets(conn, group) == {(topic, 0): 7, (topic, 1): 8}
    fresh = f"{group}-new"
    run("--reset-offsets", "--group", fresh, "--topic", topic, "--to-latest", "--execute")
    assert offsets(conn, fresh) == {(topic, 0): 10, (topic, 1): 10}


def test_reset_of_a_group_in_use_is_refused(run, conn, topic, joined):
    old, _ = joined
    before = offsets(conn, old.group)
    got = run("--reset-offsets", "--group", old.group, "--topic", topic, "--to-latest", "--execute", check=False)
    assert "inactive" in got.out + got.log, str(got)
    assert offsets(conn, old.group) == before


def test_delete_offsets_and_groups(run, conn, topic, group, joined):
    old, new = joined
    out = run("--delete-offsets", "--group", group, "--topic", f"{topic}:1").out
    assert "Successful" in out, out
    assert offsets(conn, group) == {(topic, 0): 4}
    new.beat(TopicPartitions=new.own())
    got = run("--delete-offsets", "--group", old.group, "--topic", topic, check=False)
    assert "subscribed" in got.out + got.log, str(got)
    new.beat(TopicPartitions=new.own())
    got = run("--delete", "--group", group, "--group", old.group, "--group", new.group, check=False)
    assert re.search("not empty|NotEmpty", got.out + got.log), str(got)
    listed = run("--list").out.split()
    assert group not in listed and old.group in listed and new.group in listed
    assert offsets(conn, group) == {}


def test_validate_regex(run):
    got = run("--validate-regex", "orders-.*", check=False)
    assert "is valid" in got.out + got.log, str(got)
    got = run("--validate-regex", "orders-[", check=False)
    assert "not valid" in got.out + got.log or "invalid" in (got.out + got.log).lower(), str(got)


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_consumer_performance(group_broker, conn, length, figure, fresh, protocol):
    count = length.pick(100_000, 5_000_000)
    name = load.create_topic(group_broker, fresh("perf"), 8)
    java.run(
        java.PERF, "--topic", name, "--num-records", count, "--record-size", 100, "--throughput", -1, "--producer-props",
        f"bootstrap.servers={group_broker.bootstrap}", "acks=1", timeout=600,
    )  # fmt: skip
    group = fresh("perf")
    done = java.run(
        "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", group_broker.bootstrap, "--topic", name, "--group", group,
        "--num-records", count, "--timeout", 30000, "--command-property", f"group.protocol={protocol}", timeout=600, heap="512m",
    )  # fmt: skip
    head, row = [line.split(", ") for line in done.out.strip().splitlines()[-2:]]
    got = dict(zip(head, row, strict=True))
    assert int(got["data.consumed.in.nMsg"]) >= count, str(done)
    assert sum(offsets(conn, group).values()) >= count
    figure(f"{count} x 100 B, group.protocol={protocol}", f"{got['MB.sec']} MB/s, {got['nMsg.sec']} records/s")


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_console_consumer_with_a_group(group_broker, conn, fresh, protocol):
    name, group = load.create_topic(group_broker, fresh("console"), 1), fresh("console")
    lines = [b"line %d" % i for i in range(100)]
    wire.produce(conn, name, 0, wire.batch(lines))
    got = java.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", group_broker.bootstrap, "--topic", name, "--group",
        group, "--from-beginning", "--max-messages", 60, "--timeout-ms", 30000, "--command-property", f"group.protocol={protocol}",
    )  # fmt: skip
    assert got.out.encode().splitlines() == lines[:60]
    assert offsets(conn, group) == {(name, 0): 60}
    got = java.run(
        "org.apache.kafka.tools.consumer.ConsoleConsumer", "--bootstrap-server", group_broker.bootstrap, "--topic", name, "--group",
        group, "--max-messages", 40, "--timeout-ms", 30000, "--command-property", f"group.protocol={protocol}",
    )  # fmt: skip
    assert got.out.encode().splitlines() == lines[60:]


def test_the_offsets_topic(group_broker, conn, group):
    got = java.run(java.TOPICS, "--bootstrap-server", group_broker.bootstrap, "--describe", "--topic", "__consumer_offsets").out
    assert "PartitionCount: 50" in got and "cleanup.policy=compact" in got, got
    listed = java.run(java.TOPICS, "--bootstrap-server", group_broker.bootstrap, "--list", "--exclude-internal").out.split()
    assert "__consumer_offsets" not in listed
    topic = schema.call(conn, "Metadata", 9, Topics=[{"Name": "__consumer_offsets"}], AllowAutoTopicCreation=False).Topics[0]
    assert topic.IsInternal and len(topic.Partitions) == 50


def test_producing_to_the_offsets_topic_is_refused(group_broker, conn, group):
    before = [wire.offset(conn, "__consumer_offsets", p, -1) for p in range(50)]
    for version in (3, 7, 9):
        r = conn.call(wire.PRODUCE, version, wire.produce_body({"__consumer_offsets": {0: wire.batch([b"x"])}}, version))
        error, _ = wire.read_produce(r, version)["__consumer_offsets", 0]
        assert error == wire.ERR["INVALID_TOPIC_EXCEPTION"], error
    p = load.producer(group_broker, message_timeout_ms=5000)
    reports = load.Deliveries()
    p.produce("__consumer_offsets", b"x", key=b"k", partition=1, on_delivery=reports)
    p.flush(20)
    assert reports.errors, "a client wrote to the offsets topic"
    assert [wire.offset(conn, "__consumer_offsets", p, -1) for p in range(50)][:2] == before[:2]


def test_dump_of_the_offsets_topic(make_broker):
    """kafka-dump-log decodes every record that the coordinator wrote, of both protocols, with tombstones among them."""
    b = make_broker({"group.initial.rebalance.delay.ms": 0})
    b.start()
    topic = load.create_topic(b, "dumped", 2)
    wait_ready(b, "simple")
    with wire.Conn(b, timeout=30) as conn:
        for n in range(20):
            assert commit(conn, "simple", {(topic, 0): n, (topic, 1): n}, metadata="note") == {(topic, 0): 0, (topic, 1): 0}
        commit(conn, "gone", {(topic, 0): 1})
        assert schema.call(conn, "DeleteGroups", 2, GroupsNames=["gone"]).Results[0].ErrorCode == 0
    with ClassicMember(b, "classic", protocols={"range": subscription(topic)}, instance="one") as m:
        m.join()
        m.sync({m.id: assignment(topic, [0, 1])})
        assert m.commit({(topic, 0): 3}) == {(topic, 0): 0}
    with ConsumerMember(b, "consumer") as m, ConsumerMember(b, "consumer") as by_regex:
        m.join(topic)
        m.settle(2)
        by_regex.join(SubscribedTopicNames=[], SubscribedTopicRegex="dump.*")
        commit(m.conn, m.group, {(topic, 1): 4}, generation=m.epoch, member=m.id)
        m.leave()
        by_regex.settle(2)
    b.stop()
    files = [f for f in sorted(b.data_dir.glob("__consumer_offsets-*/*.log")) if f.stat().st_size]
    assert files
    got = java.run(java.DUMP, "--files", ",".join(map(str, files)), "--offsets-decoder", "--deep-iteration", "--print-data-log", heap="512m")
    complaints = [s for s in got.log.splitlines() if s.strip() and not s.startswith(("SLF4J", "[main] INFO"))]
    complaints += [s for s in got.out.splitlines() if re.search(r"isvalid: false|invalid bytes|[Cc]ould not|unknown|Unknown|[Ff]ailed", s)]
    assert not complaints, "\n".join(complaints[:10])
    records = [s for s in got.out.splitlines() if s.startswith("| offset")]
    assert len(records) >= 60 and all("key:" in s and "payload:" in s for s in records), records[:3]
    for kind in ("offset_commit", "group_metadata", "consumer_group_metadata", "consumer_group_member_metadata",
                 "consumer_group_target_assignment_member", "consumer_group_current_member_assignment"):  # fmt: skip
        assert re.search(kind, got.out, re.I) or decoded(got.out, kind), f"no {kind}:\n" + "\n".join(records[:40])
    assert re.search(r'"group":"simple".*"offset":19', got.out), records[:5]


# Kafka 4.3 names the record's type by number.
TYPES = {
    "offset_commit": 1, "group_metadata": 2, "consumer_group_metadata": 3, "consumer_group_member_metadata": 5,
    "consumer_group_target_assignment_member": 7, "consumer_group_current_member_assignment": 8,
}  # fmt: skip


def decoded(out, kind):
    return re.search(rf'key: {{"type":"?{TYPES[kind]}"?[,}}]', out)


def test_librdkafka_lists_and_describes(group_broker, topic, group, joined):
    admin = ck.admin.AdminClient({"bootstrap.servers": group_broker.bootstrap})
    old, new = joined
    listed = {g.group_id: g for g in admin.list_consumer_groups().result(20).valid}
    assert {group, old.group, new.group} <= set(listed)
    told = admin.describe_consumer_groups([old.group, group])
    one = told[old.group].result(20)
    assert one.state == ck.ConsumerGroupState.STABLE and [m.member_id for m in one.members] == [old.id]
    assert {(tp.topic, tp.partition) for tp in one.members[0].assignment.topic_partitions} == {(topic, 0), (topic, 1)}
    assert told[group].result(20).state == ck.ConsumerGroupState.EMPTY
