"""A broker as a process: Corelane, or (to test the tests) Apache Kafka behind the same face."""

import atexit
import collections
import os
import re
import random
import signal
import socket
import subprocess
import time
from pathlib import Path

from . import java, proc, wire

REPO = Path(__file__).resolve().parents[3]
HOST = "127.0.0.1"
_running = set()

# Groups whose times are short enough to wait for in a test. Kafka has a lower bound apart for each of the newer protocol's.
QUICK_GROUPS = {
    "group.initial.rebalance.delay.ms": 100,
    "group.min.session.timeout.ms": 1000,
    "group.consumer.session.timeout.ms": 6000,
    "group.consumer.min.session.timeout.ms": 1000,
    "group.consumer.heartbeat.interval.ms": 500,
    "group.consumer.min.heartbeat.interval.ms": 100,
}
QUICK_TRANSACTIONS = {
    **QUICK_GROUPS,
    "transaction.state.log.replication.factor": 1,
    "transaction.state.log.min.isr": 1,
    "transaction.state.log.num.partitions": 5,
    "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
}


@atexit.register
def _end_what_was_started():
    for popen in list(_running):
        popen.kill()


def target():
    return os.environ.get("CORELANE_TEST_TARGET", "corelane")


def binary():
    return Path(os.environ.get("CORELANE_BIN", REPO / "target/release/corelane"))


def options_of_all():
    """Options of every broker of the run, from `CORELANE_TEST_OPTIONS="name=value name=value"`; a test's own win."""
    return dict(option.split("=", 1) for option in os.environ.get("CORELANE_TEST_OPTIONS", "").split())


def ports():
    """The lowest and the highest of those to use."""
    low, high = os.environ.get("CORELANE_TEST_PORTS", "12000-30000").split("-")
    return int(low), int(high)


# Ports that were given out last: whoever asked may not listen yet, or be between two starts.
_given = collections.deque(maxlen=200)


def free_port():
    """A free port below the range that outgoing connections take theirs from, so a restart finds it free again.
    `CORELANE_TEST_PORTS=low-high` keeps to other ones."""
    low, high = ports()
    for _ in range(2000):
        port = random.randint(low, high)
        if port in _given:
            continue
        with socket.socket() as s:
            try:
                s.bind((HOST, port))
            except OSError:
                continue
        _given.append(port)
        return port
    raise OSError(f"no free port between {low} and {high}")


class StartFailed(AssertionError):
    pass


class Broker:
    """One broker in a folder of its own. Everything it writes goes there; `remove` of the folder is the fixture's."""

    kind = "corelane"
    # Of a topic that a test makes here.
    replicas = 1

    def __init__(self, folder, props=None, env=None, cap=None, data_dir=None, args=()):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.host, self.port = HOST, free_port()
        self.data_dir = Path(data_dir) if data_dir else self.folder / "data"
        self.props, self.env, self.cap, self.args = dict(props or {}), dict(env or {}), cap, list(args)
        self.inside = []
        """What its command begins with, to run on a host of a test's own network."""
        self.log_path = self.folder / "broker.log"
        self.popen = None
        self.starts = 0

    # what differs between the two

    def properties(self):
        own = {"node.id": 0, "listeners": f"PLAINTEXT://{self.host}:{self.port}", "log.dirs": self.data_dir}
        # Many brokers share this machine.
        own["corelane.http.listener"] = ""
        return {**own, **options_of_all(), **self.props}

    def command(self, config):
        return [str(binary()), "server", str(config), *self.args]

    def prepare(self, config):
        pass

    def clean_exit(self, code):
        return code == 0

    # life

    @property
    def bootstrap(self):
        return f"{self.host}:{self.port}"

    @property
    def pid(self):
        return self.popen.pid

    def spawn(self):
        """Starts the process and does not wait for it to serve."""
        config = self.folder / "server.properties"
        config.write_text("".join(f"{k}={v}\n" for k, v in self.properties().items()))
        self.prepare(config)
        command = self.command(config)
        if self.cap:
            command = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.cap.procs()), *command]
        # The broker dies with the test run, however that ends.
        command = ["setpriv", "--pdeathsig", "KILL", *self.inside, *command]
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**os.environ, **self.env}, cwd=self.folder
            )
        _running.add(self.popen)
        self.starts += 1

    def start(self, timeout=60, topics=()):
        """Starts and waits until it serves `topics`; answers the seconds from exec to serving."""
        self.spawn()
        return self.wait(time.monotonic(), timeout, topics)

    def wait(self, since, timeout=60, topics=()):
        while True:
            if self.serves(topics):
                return time.monotonic() - since
            code = self.popen.poll()
            if code is not None:
                _running.discard(self.popen)
                raise StartFailed(f"the broker exited with {code} before it served:\n{self.log_tail()}")
            if time.monotonic() - since > timeout:
                raise StartFailed(f"the broker does not serve after {timeout} s:\n{self.log_tail()}")
            time.sleep(0.005)

    def serves(self, topics=()):
        """Metadata names a broker, and each partition of `topics` tells its end."""
        try:
            with wire.Conn(self, timeout=5) as conn:
                seen = wire.metadata(conn, list(topics), version=8)
                if not seen["brokers"] or set(seen["topics"]) != set(topics):
                    return False
                for name, topic in seen["topics"].items():
                    ends = wire.list_offsets(conn, name, list(topic["partitions"]), -1)
                    if not ends or any(error for error, _, _ in ends.values()):
                        return False
                return True
        except (OSError, wire.Closed):
            return False

    def leading(self, topic, partition=0):
        """The broker to ask by hand: of a cluster, the partition's leader."""
        return self

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def stop(self, timeout=60):
        """SIGTERM, and the exit has to be a clean one. Answers the seconds it took."""
        if not self.alive():
            return 0.0
        since = time.monotonic()
        self.popen.send_signal(signal.SIGTERM)
        try:
            code = self.popen.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            raise AssertionError(f"still running {timeout} s after SIGTERM:\n{self.log_tail()}") from None
        _running.discard(self.popen)
        assert self.clean_exit(code), f"exit code {code} on SIGTERM:\n{self.log_tail()}"
        return time.monotonic() - since

    def kill(self):
        """kill -9, this process only."""
        if self.popen:
            self.popen.kill()
            self.popen.wait()
            _running.discard(self.popen)

    # what it looks like

    def log_text(self):
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def taken_over(self):
        """Batches that each start after a kill took over from an arena; starts that needed none are left out."""
        return [int(batches) for batches in re.findall(r"the last broker was killed: (\d+) batch", self.log_text())]

    def log_tail(self, lines=60):
        return "\n".join(self.log_text().splitlines()[-lines:])

    def rss(self):
        return proc.rss_bytes(self.pid)

    def cpu(self):
        return proc.cpu_seconds(self.pid)

    def partition_dir(self, topic, partition=0):
        return self.data_dir / f"{topic}-{partition}"


class KafkaBroker(Broker):
    """Apache Kafka, broker and controller in one process."""

    kind = "kafka"
    heap = "512m"

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.controller_port = free_port()

    def properties(self):
        ours = {k: v for k, v in self.props.items() if not k.startswith("corelane.")}
        return {
            "process.roles": "broker,controller",
            "node.id": 0,
            "listeners": f"PLAINTEXT://{HOST}:{self.port},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{HOST}:{self.port}",
            "controller.listener.names": "CONTROLLER",
            "controller.quorum.voters": f"0@{HOST}:{self.controller_port}",
            "offsets.topic.replication.factor": 1,
            "log.dirs": self.data_dir,
            "log.initial.task.delay.ms": 500,
            **ours,
        }

    def prepare(self, config):
        if not (self.data_dir / "meta.properties").exists():
            self.data_dir.mkdir(parents=True, exist_ok=True)
            java.run("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config)

    def command(self, config):
        quiet = "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"
        return java.command("kafka.Kafka", config, heap=self.heap, options=("-XX:+UseG1GC", quiet))

    def clean_exit(self, code):
        return code in (0, 143, -signal.SIGTERM)


def broker_class():
    return KafkaBroker if target() == "kafka" else Broker
