"""Apache Kafka's own tools, run by class name from the jars that scripts/test put in place."""

import base64
import functools
import os
import select
import subprocess
import tempfile
import threading
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
    if main in RESIDENT and stdin is None and _can_reach():
        result = _resident().run(main, *args, timeout=timeout)
    else:
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


class Tools:
    """Kafka's tools in a process that stays, as a start takes most of a run's time."""

    def __init__(self):
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=error"
        line = ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", quiet, "-cp", compiled("Tools"), "Tools"]
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *line], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1, cwd="/tmp"
        )

    def run(self, main, *args, timeout=60):
        words = [base64.b64encode(str(word).encode()).decode() for word in (main, *args)]
        self.popen.stdin.write(" ".join(f"={word}" for word in words) + "\n")
        ready, _, _ = select.select([self.popen.stdout], [], [], timeout)
        if not ready:
            self.popen.kill()
            raise subprocess.TimeoutExpired(main, timeout)
        code, out, log = self.popen.stdout.readline().split()
        out, log = (base64.b64decode(text[1:]).decode() for text in (out, log))
        return Result(int(code), out, log)


def _network():
    return os.readlink("/proc/thread-self/ns/net")


_HOME = _network()
_tools = []


def _can_reach():
    """Not from another thread, with whose end it would go, nor from a host of a test's own network."""
    return threading.current_thread() is threading.main_thread() and _network() == _HOME


def _resident():
    """The one of this process of the run; started again where a time limit has ended it."""
    if not _tools or _tools[-1].popen.poll() is not None:
        _tools.append(Tools())
    return _tools[-1]


TOPICS = "org.apache.kafka.tools.TopicCommand"
PERF = "org.apache.kafka.tools.ProducerPerformance"
DUMP = "org.apache.kafka.tools.DumpLogSegments"
OFFSETS = "org.apache.kafka.tools.GetOffsetShell"
CONFIGS = "kafka.admin.ConfigCommand"
CLUSTER = "org.apache.kafka.tools.ClusterTool"
GROUPS = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"
DELETE_RECORDS = "org.apache.kafka.tools.DeleteRecordsCommand"
LOG_DIRS = "org.apache.kafka.tools.LogDirsCommand"
TRANSACTIONS = "org.apache.kafka.tools.TransactionsCommand"
ELECTION = "org.apache.kafka.tools.LeaderElectionCommand"
REASSIGN = "org.apache.kafka.tools.reassign.ReassignPartitionsCommand"
FEATURES = "org.apache.kafka.tools.FeatureCommand"
CLIENT_METRICS = "org.apache.kafka.tools.ClientMetricsCommand"
VERSIONS = "org.apache.kafka.tools.BrokerApiVersionsCommand"
ALL_GROUPS = "org.apache.kafka.tools.GroupsCommand"
SHARE_GROUPS = "org.apache.kafka.tools.consumer.group.ShareGroupCommand"
STREAMS_GROUPS = "org.apache.kafka.tools.streams.StreamsGroupCommand"
# Tools that only ask, and leave nothing behind in their process.
RESIDENT = {
    TOPICS, OFFSETS, CONFIGS, CLUSTER, GROUPS, DELETE_RECORDS, LOG_DIRS, TRANSACTIONS, ELECTION, REASSIGN, FEATURES, CLIENT_METRICS, VERSIONS,
    ALL_GROUPS, SHARE_GROUPS, STREAMS_GROUPS,
}  # fmt: skip
