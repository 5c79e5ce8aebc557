"""Apache Kafka's own tools, run by class name from the jars that scripts/test put in place."""

import base64
import functools
import os
import select
import subprocess
import tempfile
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


@functools.cache
def compiled(name):
    """A class path with Kafka's jars and the class of `tests/kafka/NAME.java`, which is compiled once a run."""
    folder = tempfile.TemporaryDirectory(prefix="corelane-classes-")
    _folders.append(folder)  # removed when the run ends
    source = Path(__file__).resolve().parents[2] / "kafka" / f"{name}.java"
    done = subprocess.run(["javac", "-d", folder.name, "-cp", f"{libs()}/*", source], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return f"{libs()}/*:{folder.name}"


_folders = []


class GroupsTool:
    """kafka-consumer-groups in a process that stays, as a start takes most of a run's time."""

    def __init__(self):
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        line = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, "-cp", compiled("GroupsTool"), "GroupsTool"]
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def run(self, *args, check=True, timeout=60):
        self.popen.stdin.write("\t".join(map(str, args)) + "\n")
        ready, _, _ = select.select([self.popen.stdout], [], [], timeout)
        assert ready, f"{args}: no answer within {timeout} s"
        code, out, log = self.popen.stdout.readline().split()
        out, log = (base64.b64decode(text[1:]).decode() for text in (out, log))
        result = Result(int(code), out, log)
        assert not check or result.code == 0, f"kafka-consumer-groups {args}: {result}"
        return result

    def close(self):
        self.popen.stdin.close()
        self.popen.wait(10)


TOPICS = "org.apache.kafka.tools.TopicCommand"
PERF = "org.apache.kafka.tools.ProducerPerformance"
DUMP = "org.apache.kafka.tools.DumpLogSegments"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
CONFIGS = "kafka.admin.ConfigCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
