"""Apache Kafka's own tools, run by class name from the jars that scripts/test put in place."""

import os
import subprocess
from pathlib import Path

import pytest


def libs():
    path = os.environ.get("CORELANE_KAFKA_LIBS")
    if not path or not list(Path(path).glob("kafka-clients-*.jar")):
        pytest.fail("CORELANE_KAFKA_LIBS names no folder with Kafka's jars; run the suites through scripts/test")
    return path


def command(main, *args, heap="256m", options=("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")):
    return ["java", f"-Xmx{heap}", *options, "-cp", f"{libs()}/*", main, *map(str, args)]


class Result:
    def __init__(self, code, out, log):
        self.code, self.out, self.log = code, out, log

    def __str__(self):
        return f"exit {self.code}\n--- output\n{self.out[-4000:]}\n--- log\n{self.log[-4000:]}"


def run(main, *args, timeout=300, heap="256m", check=True, stdin=None):
    """Runs a tool to its end. With `check`, an exit code other than 0 is an assertion."""
    done = subprocess.run(
        command(main, *args, heap=heap), capture_output=True, text=True, timeout=timeout, input=stdin, cwd="/tmp"
    )
    result = Result(done.returncode, done.stdout, done.stderr)
    assert not check or result.code == 0, f"{main} {args}: {result}"
    return result


TOPICS = "org.apache.kafka.tools.TopicCommand"
PERF = "org.apache.kafka.tools.ProducerPerformance"
DUMP = "org.apache.kafka.tools.DumpLogSegments"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
CONFIGS = "kafka.admin.ConfigCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
