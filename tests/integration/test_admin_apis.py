"""Administration by stock clients and Kafka's tools: topic options replaced, records deleted, data directories and producers
described, elections, reassignments and features of one broker."""

import asyncio
import json
import os
import re
import subprocess
import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from support import java, load, schema, wire
from support.groups import wait_until
from support.wire import ERR


# ---- AlterConfigs


def confluent(broker, name, options):
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = ConfigResource("topic", name, set_config=options)
    admin.alter_configs([resource])[resource].result(30)


def aiokafka(broker, name, options):
    from aiokafka.admin import AIOKafkaAdminClient
    from aiokafka.admin.config_resource import ConfigResource as Resource
    from aiokafka.admin.config_resource import ConfigResourceType

    async def alter():
        admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
        await admin.start()
        try:
            return await admin.alter_configs([Resource(ConfigResourceType.TOPIC, name, configs=options)])
        finally:
            await admin.close()

    for answer in asyncio.run(alter()):
        assert [tuple(r)[0] for r in answer.resources] == [0], answer


def kafkajs(broker, name, options):
    node(broker, f"admin.alterConfigs({{ validateOnly: false, resources: [{{ type: 2, name: {json.dumps(name)}, "
         f"configEntries: {json.dumps([{'name': k, 'value': v} for k, v in options.items()])} }}] }})")  # fmt: skip


def node(broker, call):
    """Runs one call of kafkajs' admin client; an error of it is an assertion."""
    if not os.environ.get("CORELANE_NODE_MODULES"):
        pytest.fail("CORELANE_NODE_MODULES is not set; run the suites through scripts/test")
    script = f"""
      const {{ Kafka, logLevel }} = require('kafkajs')
      const admin = new Kafka({{ brokers: ['{broker.bootstrap}'], logLevel: logLevel.NOTHING }}).admin({{ retry: {{ retries: 0 }} }})
      admin.connect().then(() => {call}).then((done) => console.log(JSON.stringify(done === undefined ? null : done)))
        .then(() => admin.disconnect()).catch((e) => {{ console.error(e); process.exit(1) }})"""
    env = {**os.environ, "NODE_PATH": os.environ["CORELANE_NODE_MODULES"]}
    done = subprocess.run(["node", "-e", script], capture_output=True, text=True, timeout=60, env=env)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def own_options(broker, name):
    """The options that the topic has for itself."""
    admin, resource = AdminClient({"bootstrap.servers": broker.bootstrap}), ConfigResource("topic", name)
    entries = admin.describe_configs([resource])[resource].result(30)
    return {k: e.value for k, e in entries.items() if e.source == 1}


@pytest.mark.parametrize("alter", [confluent, aiokafka, kafkajs])
def test_options_are_replaced(broker, topic, alter):
    """What a client does not name goes back to the default."""
    name = topic(1, retention_ms=7_200_000, segment_bytes=2_000_000)
    for options in ({"retention.ms": "3600000"}, {"max.message.bytes": "300", "cleanup.policy": "compact,delete"}, {}):
        if options or alter is not confluent:
            alter(broker, name, options)
            assert own_options(broker, name) == options
    with pytest.raises((ck.KafkaException, AssertionError)):
        alter(broker, name, {"retention.ms": "soon"})


@pytest.mark.parametrize("version", [0, 1, 2])
def test_replacements_that_are_refused(broker, topic, version):
    name = topic(1, retention_ms=7_200_000)

    def ask(kind, name, *options, validate=False):
        one = {"ResourceType": kind, "ResourceName": name, "Configs": [{"Name": k, "Value": v} for k, v in options]}
        with wire.Conn(broker) as conn:
            told = schema.call(conn, "AlterConfigs", version, Resources=[one], ValidateOnly=validate).Responses
        assert [(r.ResourceType, r.ResourceName) for r in told] == [(kind, name)]
        return told[0].ErrorCode

    good = ("retention.ms", "1000")
    assert ask(2, name, good, validate=True) == 0
    for kind, named, options, code in (
        (2, name, [("no.such", "1")], "INVALID_CONFIG"),
        (2, name, [("retention.ms", "x")], "INVALID_CONFIG"),
        (2, name, [("retention.ms", None)], "INVALID_REQUEST"),
        (2, name, [good, good], "INVALID_REQUEST"),
        (2, "no-such-topic", [good], "UNKNOWN_TOPIC_OR_PARTITION"),
        (2, "a/b", [good], "INVALID_TOPIC_EXCEPTION"),
        (2, "", [good], "INVALID_REQUEST"),
        (77, "t", [good], "INVALID_REQUEST"),
        (8, "0", [("root", "INFO")], "INVALID_REQUEST"),
        (4, "0", [("log.dirs", "/elsewhere")], "INVALID_REQUEST"),
        (4, "0", [("num.partitions", "3")], "INVALID_REQUEST"),
        (4, "7", [("log.retention.ms", "1")], "INVALID_REQUEST"),
        (4, "x", [("log.retention.ms", "1")], "INVALID_REQUEST"),
    ):
        assert ask(kind, named, *options) == ERR[code], (kind, named, options)
    assert own_options(broker, name) == {"retention.ms": "7200000"}


# ---- DeleteRecords


def trim(broker, name, *wanted, version=2):
    """Error code and low watermark by partition."""
    partitions = [{"PartitionIndex": p, "Offset": o} for p, o in wanted]
    with wire.Conn(broker, timeout=60) as conn:
        told = schema.call(conn, "DeleteRecords", version, Topics=[{"Name": name, "Partitions": partitions}], TimeoutMs=30_000)
    assert [t.Name for t in told.Topics] == [name]
    return {p.PartitionIndex: (p.ErrorCode, p.LowWatermark) for p in told.Topics[0].Partitions}


def starts(broker, name, partitions):
    with wire.Conn(broker) as conn:
        return {p: offset for p, (_, _, offset) in wire.list_offsets(conn, name, partitions, -2).items()}


@pytest.mark.parametrize("version", [0, 1, 2])
def test_records_are_deleted(broker, topic, version):
    name, compacted, both = topic(2), topic(1, cleanup_policy="compact"), topic(1, cleanup_policy="compact,delete")
    load.produce_lines(broker, name, 20, 1)
    out_of_range, unknown = (ERR["OFFSET_OUT_OF_RANGE"], -1), (ERR["UNKNOWN_TOPIC_OR_PARTITION"], -1)
    for wanted, expected in (
        ([(0, 4), (1, 0)], {0: (0, 4), 1: (0, 0)}),
        ([(0, 3)], {0: (0, 4)}),
        ([(0, 5), (0, 7)], {0: (0, 7)}),
        ([(0, 21), (1, 1), (9, 0)], {0: out_of_range, 1: out_of_range, 9: unknown}),
        ([(0, -2)], {0: out_of_range}),
    ):
        assert trim(broker, name, *wanted, version=version) == expected, wanted
    assert starts(broker, name, [0, 1]) == {0: 7, 1: 0}
    assert trim(broker, name, (0, -1), version=version) == {0: (0, 20)}
    for name in ("no-such-topic", "a/b"):
        assert trim(broker, name, (0, 0), version=version) == {0: unknown}
    assert trim(broker, compacted, (0, -1), version=version) == {0: (ERR["POLICY_VIOLATION"], -1)}
    assert trim(broker, both, (0, -1), version=version) == {0: (0, 0)}


def test_delete_records_tool(broker, topic, tmp_path):
    name, other = topic(2), topic(1)
    load.produce_lines(broker, name, 20, 2)
    load.produce_lines(broker, other, 5, 1)
    partitions = [{"topic": name, "partition": 0, "offset": 3}, {"topic": name, "partition": 1, "offset": -1},
                  {"topic": other, "partition": 0, "offset": 2}]  # fmt: skip
    asked = tmp_path / "offsets.json"
    asked.write_text(json.dumps({"partitions": partitions, "version": 1}))
    out = java.run(java.DELETE_RECORDS, "--bootstrap-server", broker.bootstrap, "--offset-json-file", asked).out
    for line in (f"partition: {name}-0\tlow_watermark: 3", f"partition: {name}-1\tlow_watermark: 10", f"partition: {other}-0\tlow_watermark: 2"):
        assert line in out, out
    assert starts(broker, name, [0, 1]) == {0: 3, 1: 10} and starts(broker, other, [0]) == {0: 2}


def test_other_clients_delete_records(broker, topic):
    name = topic(1)
    load.produce_lines(broker, name, 20, 1)
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    at = ck.TopicPartition(name, 0, 5)
    assert admin.delete_records([at])[at].result(30).low_watermark == 5
    # Which asks for no metadata by itself.
    delete = f"admin.deleteTopicRecords({{ topic: '{name}', partitions: [{{ partition: 0, offset: '9' }}] }})"
    node(broker, f"admin.fetchTopicOffsets('{name}').then(() => {delete})")
    assert starts(broker, name, [0]) == {0: 9}


def test_consumers_of_deleted_records(broker, topic):
    """A fetch before the start is out of range; a consumer that may reset goes on at the start."""
    name = topic(1)
    load.produce_lines(broker, name, 20, 1)
    assert trim(broker, name, (0, 7)) == {0: (0, 7)}
    for reset, expected in (("earliest", [7, 8]), ("error", None)):
        consumer = load.consumer(broker, auto_offset_reset=reset, enable_partition_eof=False)
        try:
            consumer.assign([ck.TopicPartition(name, 0, 3)])
            got, until = [], time.monotonic() + 30
            while len(got) < 2 and time.monotonic() < until:
                m = consumer.poll(1.0)
                if m is None:
                    continue
                if m.error():
                    assert expected is None and m.error().code() in (ck.KafkaError._AUTO_OFFSET_RESET, ck.KafkaError.OFFSET_OUT_OF_RANGE), m.error()
                    break
                got.append(m.offset())
                assert m.value() == load.line(m.offset())
            assert got == (expected or [])
        finally:
            consumer.close()


def test_deleted_records_stay_deleted(corelane_only, make_broker):
    """Over kill -9 right behind the answer (Kafka notes a log start a minute later), and their segments go."""
    b = make_broker({"log.segment.delete.delay.ms": 0})
    b.start()
    name = load.create_topic(b, "trimmed", 2, segment_bytes=1_048_576)
    load.produce_lines(b, name, 60_000, 2)
    folder = b.partition_dir(name, 0)
    wait_until(lambda: len([*folder.glob("*.log")]) >= 2, 30)
    before = sorted(int(p.stem) for p in folder.glob("*.log"))
    amid = before[1] + 5
    for to, part in ((2, 0), (amid, 0), (30_000, 1)):
        assert trim(b, name, (part, to)) == {part: (0, to)}
        b.kill()
        b.start(topics=[name])
        assert starts(b, name, [part]) == {part: to}
        assert trim(b, name, (part, 1)) == {part: (0, to)}
    left = sorted(int(p.stem) for p in folder.glob("*.log"))
    # Segments that were only in memory when `before` was looked at may have come.
    assert left[: len(before) - 1] == before[1:], f"{left} of {before}"
    seen = []
    load.read_partitions(b, name, 2, lambda p, o, v: seen.append((p, o, v)), starts={0: amid, 1: 30_000})
    assert [(p, o) for p, o, _ in seen] == [(0, o) for o in range(amid, 30_000)]
    assert all(v == load.line(2 * o) for _, o, v in seen)
    assert "damaged" not in b.log_text() and not list(folder.glob("*.rot"))
    load.produce_lines(b, name, 10, 2)
    with wire.Conn(b) as conn:
        ends = wire.list_offsets(conn, name, [0, 1], -1)
    assert {p: offset for p, (_, _, offset) in ends.items()} == {0: 30_005, 1: 30_005}


# ---- DescribeLogDirs


def described(broker, *names):
    """What the tool prints of the broker's directories, its JSON."""
    topics = ["--topic-list", ",".join(names)] if names else []
    out = java.run(java.LOG_DIRS, "--describe", "--bootstrap-server", broker.bootstrap, *topics).out
    lines = [json.loads(s) for s in out.splitlines() if s.startswith("{")]
    assert len(lines) == 1 and [b["broker"] for b in lines[0]["brokers"]] == [0], out
    return lines[0]["brokers"][0]["logDirs"]


def test_log_dirs_tool(broker, topic):
    name, empty = topic(2), topic(1)
    batch = wire.batch([b"x" * 1000])
    with wire.Conn(broker) as conn:
        for _ in range(3):
            assert wire.produce(conn, name, 1, batch)[0] == 0
    dirs = described(broker, name, empty)
    assert [d["logDir"] for d in dirs] == [str(broker.data_dir)] and dirs[0]["error"] is None
    expected = {f"{name}-0": 0, f"{name}-1": 3 * len(batch), f"{empty}-0": 0}
    assert {p["partition"]: p["size"] for p in dirs[0]["partitions"]} == expected
    assert all((p["offsetLag"], p["isFuture"]) == (0, False) for p in dirs[0]["partitions"])
    assert {p["partition"] for p in described(broker)[0]["partitions"]} >= set(expected)


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5])
def test_log_dirs_by_hand(broker, topic, version):
    name = topic(2)

    def ask(topics):
        with wire.Conn(broker) as conn:
            told = schema.call(conn, "DescribeLogDirs", version, Topics=topics)
        assert (told.ErrorCode, len(told.Results), told.Results[0].ErrorCode) == (0, 1, 0)
        return told.Results[0]

    some = ask([{"Topic": name, "Partitions": [1, 7]}, {"Topic": "no-such-topic", "Partitions": [0]}])
    assert [(t.Name, [(p.PartitionIndex, p.PartitionSize) for p in t.Partitions]) for t in some.Topics] == [(name, [(1, 0)])]
    assert ask([]).Topics == [] and ask([{"Topic": name, "Partitions": []}]).Topics == []
    space = os.statvfs(broker.data_dir)
    total = space.f_blocks * space.f_frsize if version >= 4 else -1
    assert some.TotalBytes == total and (some.UsableBytes > 0) == (version >= 4) and not some.IsCordoned


# ---- DescribeTopicPartitions


def test_topics_page_by_page(broker, topic):
    """The tool reads 2,000 partitions a page; by hand, pages of any size add up to the whole."""
    first, second = topic(5), topic(3)
    with wire.Conn(broker) as conn:
        api = schema.message("DescribeTopicPartitionsRequest").api
        assert api in {k.ApiKey for k in schema.call(conn, "ApiVersions", 4, ClientSoftwareName="t", ClientSoftwareVersion="1").ApiKeys}
        for limit in (1, 2, 5, 7, 2000):
            seen, cursor = [], None
            while True:
                told = schema.call(conn, "DescribeTopicPartitions", 0, Topics=[{"Name": n} for n in (second, "no-such-topic", first)],
                                   ResponsePartitionLimit=limit, Cursor=cursor)  # fmt: skip
                for t in told.Topics:
                    assert t.ErrorCode == (0 if t.Partitions else ERR["UNKNOWN_TOPIC_OR_PARTITION"])
                    seen += [(t.Name, p.PartitionIndex, p.LeaderId, p.IsrNodes, p.ReplicaNodes) for p in t.Partitions]
                cursor = told.NextCursor
                if cursor is None:
                    break
            assert seen == [(n, p, 0, [0], [0]) for n, count in ((first, 5), (second, 3)) for p in range(count)]
        for cursor in ({"TopicName": first, "PartitionIndex": -1}, {"TopicName": "elsewhere", "PartitionIndex": 0}):
            told = schema.call(conn, "DescribeTopicPartitions", 0, Topics=[{"Name": first}], Cursor=cursor)
            assert [t.ErrorCode for t in told.Topics] == [ERR["INVALID_REQUEST"]]
    out = java.run(java.TOPICS, "--describe", "--bootstrap-server", broker.bootstrap, "--topic", first).out
    assert [s.split("Partition: ")[1].split()[0] for s in out.splitlines() if "Leader: 0" in s] == list("01234"), out


# ---- producers, elections, reassignments, features


def test_producers_tool(broker, topic):
    name = topic(2)
    load.produce_lines(broker, name, 10, 1, enable_idempotence=True)
    out = java.run(java.TRANSACTIONS, "--bootstrap-server", broker.bootstrap, "describe-producers", "--topic", name, "--partition", 0).out
    header, *rows = [s.split() for s in out.splitlines() if s.strip()]
    assert header[:3] == ["ProducerId", "ProducerEpoch", "LatestCoordinatorEpoch"] and len(rows) == 1, out
    told = dict(zip(header, rows[0]))
    assert (told["ProducerEpoch"], told["LastSequence"], told["CurrentTransactionStartOffset"]) == ("0", "9", "None"), out
    assert abs(int(told["LastTimestamp"]) / 1000 - time.time()) < 600
    out = java.run(java.TRANSACTIONS, "--bootstrap-server", broker.bootstrap, "describe-producers", "--topic", name, "--partition", 1).out
    assert len(out.split("\n")[1:]) <= 1 or not out.splitlines()[1:], out


@pytest.mark.parametrize("kind", ["preferred", "unclean"])
def test_leader_election_tool(broker, topic, kind):
    name = topic(2)
    out = java.run(java.ELECTION, "--bootstrap-server", broker.bootstrap, "--election-type", kind, "--topic", name, "--partition", 1).out
    assert f"Valid replica already elected for partitions {name}-1" in out, out
    out = java.run(java.ELECTION, "--bootstrap-server", broker.bootstrap, "--election-type", kind, "--all-topic-partitions").out
    assert "Error" not in out, out


def test_reassign_partitions_tool(broker, topic, tmp_path):
    name = topic(1)

    def ask(replicas, *args):
        plan = tmp_path / "plan.json"
        plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": name, "partition": 0, "replicas": replicas}]}))
        return java.run(java.REASSIGN, "--bootstrap-server", broker.bootstrap, "--reassignment-json-file", plan, *args, check=False)

    done = ask([0], "--execute")
    assert done.code == 0 and "Successfully started partition reassignment" in done.out, done
    done = ask([0], "--verify")
    assert done.code == 0 and f"Reassignment of partition {name}-0 is completed." in done.out, done
    done = ask([0], "--cancel")
    assert done.code == 0 and "None of the specified partition reassignments are active" in done.out, done
    done = ask([7], "--execute")
    assert done.code != 0, done
    listed = java.run(java.REASSIGN, "--bootstrap-server", broker.bootstrap, "--list").out
    assert "No partition reassignments found." in listed


def test_reassignments_by_hand(broker, topic):
    name = topic(1)
    with wire.Conn(broker) as conn:
        for version in (0, 1):
            for replicas, code in (([0], 0), ([1], 39), ([0, 1], 39), ([0, 0], 39), ([], 39), (None, 85)):
                asked = [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Replicas": replicas}]}]
                told = schema.call(conn, "AlterPartitionReassignments", version, TimeoutMs=30_000, Topics=asked)
                assert (told.ErrorCode, told.Responses[0].Partitions[0].ErrorCode) == (0, code), replicas
        # KIP-860: the number of replicas is to stay as it is, which is looked at last.
        for replicas, code in (([0], 0), ([1], 39), ([0, 1], 39), ([0, 0], 39), ([], 39), (None, 85)):
            asked = [{"Name": name, "Partitions": [{"PartitionIndex": 0, "Replicas": replicas}]}]
            told = schema.call(
                conn, "AlterPartitionReassignments", 1, TimeoutMs=30_000, AllowReplicationFactorChange=False, Topics=asked
            )
            assert told.AllowReplicationFactorChange is False
            assert (told.ErrorCode, told.Responses[0].Partitions[0].ErrorCode) == (0, code), (replicas, told)
        asked = [{"Name": n, "Partitions": [{"PartitionIndex": p, "Replicas": [0]}]} for n, p in ((name, 9), ("no-such", 0))]
        told = schema.call(conn, "AlterPartitionReassignments", 1, TimeoutMs=30_000, Topics=asked)
        assert [p.ErrorCode for t in told.Responses for p in t.Partitions] == [ERR["UNKNOWN_TOPIC_OR_PARTITION"]] * 2


def test_features_tool(broker):
    """What is there of Kafka's features is at Kafka's level."""
    out = java.run(java.FEATURES, "--bootstrap-server", broker.bootstrap, "describe").out
    rows = [dict(re.findall(r"(\w+): (\S+)", s)) for s in out.splitlines() if s.startswith("Feature: ")]
    levels = {r["Feature"]: (r["SupportedMaxVersion"], r["FinalizedVersionLevel"]) for r in rows}
    assert (levels["group.version"], levels["transaction.version"]) == (("1", "1"), ("2", "2")), out
    done = java.run(java.FEATURES, "--bootstrap-server", broker.bootstrap, "upgrade", "--feature", "group.version=9", check=False)
    assert done.code != 0 and "group.version" in done.out, done


def test_client_metrics_tool(broker):
    out = java.run(java.CLIENT_METRICS, "--bootstrap-server", broker.bootstrap, "--list").out
    assert out.strip() == "", out


def test_resources_with_options(broker, topic):
    name = topic(1)
    with wire.Conn(broker) as conn:
        assert schema.call(conn, "ListConfigResources", 0).ConfigResources == []
        told = schema.call(conn, "ListConfigResources", 1, ResourceTypes=[])
        found = {(r.ResourceType, r.ResourceName) for r in told.ConfigResources}
        assert told.ErrorCode == 0 and found >= {(2, name), (4, "0"), (8, "0")}
        assert [(r.ResourceType, r.ResourceName) for r in schema.call(conn, "ListConfigResources", 1, ResourceTypes=[4]).ConfigResources] == [(4, "0")]
        assert schema.call(conn, "ListConfigResources", 1, ResourceTypes=[99]).ErrorCode == ERR["UNSUPPORTED_VERSION"]
