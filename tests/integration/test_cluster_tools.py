"""Kafka's own tools against three brokers: replicas compared record by record, and the versions that each broker speaks."""

import json
import re
import subprocess
import threading
import time

import pytest

from support import clock, java, load
from support.broker import target

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
REPORT = re.compile(r"max lag is (\d+) for partition (\S+) at offset (-?\d+) among (\d+) partitions")


class Verification:
    """kafka-replica-verification, which runs until it is ended. It fetches as replica -2, from every replica of each partition."""

    def __init__(self, cluster, topics):
        tool = "org.apache.kafka.tools.ReplicaVerificationTool"
        args = ["--broker-list", cluster.bootstrap, "--topics-include", topics, "--time", -2, "--report-interval-ms", 500]
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *java.command(tool, *args)], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, cwd="/tmp",
        )  # fmt: skip
        self.lines = []
        self.thread = threading.Thread(target=lambda: self.lines.extend(self.popen.stdout), daemon=True)
        self.thread.start()

    def reports(self):
        """(lag, partitions), a report."""
        return [(int(m[1]), int(m[4])) for line in list(self.lines) if (m := REPORT.search(line))]

    def until(self, holds, what, timeout=90):
        end = clock.running() + timeout
        while not holds():
            assert self.popen.poll() is None, f"it has ended: {''.join(self.lines)[-3000:]}"
            assert clock.running() < end, f"{what}: not within {timeout} s: {''.join(self.lines)[-3000:]}"
            time.sleep(0.05)

    def end(self):
        self.popen.kill()
        self.popen.wait()
        self.thread.join()


def test_replicas_are_equal_record_by_record(make_cluster, length):
    c = make_cluster()
    topic = c.create("t", 3)
    load.produce_lines(c, topic, length.pick(60_000, 1_000_000), 3, acks="all", compression_type="lz4")
    tool = Verification(c, topic)
    try:
        tool.until(lambda: tool.reports()[-3:] == [(0, 3)] * 3, "no lag")
        # It goes on while more is written, and is level again afterwards.
        load.produce_lines(c, topic, 6_000, 3, acks="all")
        seen = len(tool.reports())
        tool.until(lambda: tool.reports()[seen + 1 :][-3:] == [(0, 3)] * 3, "no lag after more records")
    finally:
        tool.end()
    text = "".join(tool.lines)
    assert not re.search("mismatch|rror|xception|different", text), text[-3000:]


def test_versions_of_every_broker(make_cluster):
    c = make_cluster()
    # One broker's address is enough to find all.
    said = java.run(java.VERSIONS, "--bootstrap-server", c[1].bootstrap).out
    for number, b in c.brokers.items():
        assert f"{b.bootstrap} (id: {number} rack: null" in said, said[:3000]
    assert said.count("Produce(0): ") == said.count("Fetch(1): ") == 3, said[:3000]


def test_a_throttled_reassignment_takes_its_time(make_cluster, figure):
    """KIP-73, as kafka-reassign-partitions sets it and takes it away."""
    c = make_cluster(props={"min.insync.replicas": 1, "replica.lag.time.max.ms": 30_000})
    java.run(java.TOPICS, "--bootstrap-server", c.bootstrap, "--create", "--topic", "moved", "--partitions", 1, "--replication-factor", 1)
    load.wait_for_leaders(c, "moved", 1)
    size, rate = 12_000_000, 1_000_000
    p = load.producer(c, message_max_bytes=1_000_000)
    for _ in range(size // 100_000):
        p.produce("moved", b"x" * 100_000)
    assert p.flush(60) == 0
    source = c.leader("moved")
    target_id = next(n for n in c.brokers if n != source)
    plan = c.folder / "plan.json"
    plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": "moved", "partition": 0, "replicas": [target_id]}]}))

    def reassign(*args):
        return java.run(java.REASSIGN, "--bootstrap-server", c.bootstrap, "--reassignment-json-file", plan, *args)

    began = time.monotonic()
    reassign("--execute", "--throttle", rate)
    c.wait(lambda: c.describe("moved")[0] == (target_id, [target_id], [target_id]), 120, "the partition has moved")
    took = time.monotonic() - began
    # A second's worth goes at once.
    assert took > (size / rate - 1) * 0.9, f"{size} bytes in {took:.1f} s"
    figure("12 MB moved at 1 MB/s, s", round(took, 1))
    done = reassign("--verify").out
    assert "is completed" in done and "Clearing" in done, done
    left = java.run(java.CONFIGS, "--bootstrap-server", c.bootstrap, "--entity-type", "brokers", "--describe").out
    assert "throttled" not in left, left
    assert "throttled" not in java.run(java.TOPICS, "--bootstrap-server", c.bootstrap, "--describe", "--topic", "moved").out
    plan.write_text(json.dumps({"version": 1, "partitions": [{"topic": "moved", "partition": 0, "replicas": [source]}]}))
    began = time.monotonic()
    reassign("--execute")
    c.wait(lambda: c.describe("moved")[0] == (source, [source], [source]), 60, "the partition is back")
    figure("and without a limit, s", round(time.monotonic() - began, 1))
