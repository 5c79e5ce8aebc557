"""A broker that was alone becomes the first of a cluster, with all it has, and a second one joins it."""

import json
import shutil
import subprocess
import time

import confluent_kafka as ck
import pytest

from support import broker as brokers
from support import cluster as clusters
from support import java, load, zookeeper

pytestmark = pytest.mark.skipif(brokers.target() != "corelane", reason="starts Corelane's brokers")
LINES, PARTITIONS = 3000, 3


@pytest.fixture
def ensemble(root):
    e = zookeeper.Ensemble(root / f"ensemble-{time.time_ns()}").start()
    yield e
    e.kill()
    shutil.rmtree(e.servers[0].folder.parent, ignore_errors=True)


def adopt(b):
    config = b.folder / "server.properties"
    config.write_text("".join(f"{k}={v}\n" for k, v in b.properties().items()))
    return subprocess.run([str(brokers.binary()), "cluster", "adopt", str(config)], capture_output=True, text=True, cwd=b.folder)


def committed(b):
    consumer = load.consumer(b, group_id="readers")
    try:
        return consumer.committed([ck.TopicPartition("t", 0)], timeout=60)[0].offset
    finally:
        consumer.close()


def test_a_broker_that_was_alone_is_adopted(make_broker, ensemble):
    options = {**brokers.QUICK_GROUPS, "offsets.topic.num.partitions": 2, "offsets.topic.replication.factor": 1, "node.id": 0}
    b = make_broker(options)
    del options["node.id"]
    b.start()
    load.create_topic(b, "t", PARTITIONS, retention_ms=86400000)
    load.produce_lines(b, "t", LINES, PARTITIONS)
    consumer = load.consumer(b, group_id="readers")
    consumer.commit(offsets=[ck.TopicPartition("t", 0, 321)], asynchronous=False)
    consumer.close()

    without = adopt(b)
    assert without.returncode == 1 and "zookeeper.connect is missing" in without.stderr, without
    b.props["zookeeper.connect"] = ensemble.connect + "/a"
    running = adopt(b)
    assert running.returncode == 1 and "in use" in running.stderr.lower(), running
    b.kill()
    unclean = adopt(b)
    assert unclean.returncode == 1 and "not orderly" in unclean.stderr, unclean
    del b.props["zookeeper.connect"]
    b.start(topics=["t"])
    b.stop()
    b.props["zookeeper.connect"] = ensemble.connect + "/a"
    with pytest.raises(brokers.StartFailed, match="metadata of a broker that is alone"):
        b.start()
    done = adopt(b)
    assert done.returncode == 0 and "are in" in done.stdout, done
    assert adopt(b).returncode == 1, "it is of a cluster now"

    b.start(topics=["t"])
    load.check_lines(b, "t", LINES, PARTITIONS)
    assert committed(b) == 321
    assert "retention.ms=86400000" in java.run(java.TOPICS, "--bootstrap-server", b.bootstrap, "--describe", "--topic", "t").out

    # Another broker joins, and takes replicas.
    second = make_broker({**options, "node.id": 1, "zookeeper.connect": ensemble.connect + "/a"})
    second.start()
    plan = {"version": 1, "partitions": [{"topic": "t", "partition": p, "replicas": [1, 0]} for p in range(PARTITIONS)]}
    file = second.folder / "plan.json"
    file.write_text(json.dumps(plan))
    tool = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
    java.run(tool, "--bootstrap-server", b.bootstrap, "--reassignment-json-file", file, "--execute")

    def moved():
        text = java.run(tool, "--bootstrap-server", b.bootstrap, "--reassignment-json-file", file, "--verify").out
        return text.count("is completed") == PARTITIONS

    clusters.Cluster.wait(moved, 60, "the reassignment is complete")

    load.produce_lines(b, "t", LINES, PARTITIONS, acks="all")
    b.stop()
    assert second.serves(["t"]), "the second broker leads alone"


def test_a_chroot_with_another_cluster_is_refused(make_broker, ensemble):
    first = make_broker({"node.id": 1, "zookeeper.connect": ensemble.connect + "/b"})
    first.start()
    first.stop()
    b = make_broker()
    b.start()
    load.create_topic(b, "t")
    b.stop()
    b.props["zookeeper.connect"] = ensemble.connect + "/b"
    refused = adopt(b)
    assert refused.returncode == 1 and "name another chroot" in refused.stderr, refused
    del b.props["zookeeper.connect"]
    b.start(topics=["t"])
