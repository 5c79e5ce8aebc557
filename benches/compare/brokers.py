"""The two brokers as processes behind one face: started, pinned, frozen, measured, ended by process id."""

import os
import re
import shutil
import signal
import subprocess
import time
from pathlib import Path

from . import isolate, wire
from .cpu import Window, broker_clock

KAFKA_PROPERTIES = {
    # config/server.properties as it ships (4.3)
    "process.roles": "broker,controller",
    "node.id": "1",
    "controller.quorum.bootstrap.servers": "127.0.0.1:{controller}",
    "listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
    "inter.broker.listener.name": "PLAINTEXT",
    "advertised.listeners": "PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}",
    "controller.listener.names": "CONTROLLER",
    "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT,SASL_SSL:SASL_SSL",
    "num.network.threads": "3",
    "num.io.threads": "8",
    "socket.send.buffer.bytes": "102400",
    "socket.receive.buffer.bytes": "102400",
    "socket.request.max.bytes": "104857600",
    "log.dirs": "{data}",
    "num.partitions": "1",
    "num.recovery.threads.per.data.dir": "1",
    "offsets.topic.replication.factor": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "log.retention.hours": "168",
    "log.segment.bytes": "1073741824",
    "log.retention.check.interval.ms": "300000",
    # stated additions: it is frozen for long while the other side is measured, and deleted topics must make room
    "broker.session.timeout.ms": "3600000",
    "log.segment.delete.delay.ms": "1000",
}

CORELANE_PROPERTIES = {
    "node.id": "1",
    "listeners": "PLAINTEXT://127.0.0.1:{port}",
    "log.dirs": "{data}",
    "log.segment.delete.delay.ms": "1000",
}

# bin/kafka-server-start.sh and bin/kafka-run-class.sh as they ship
HEAP = ["-Xmx1G", "-Xms1G"]
JVM = [
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
]


class BrokerError(Exception):
    """A broker that did not start, died or refused."""


def status_bytes(text, field):
    for line in text.splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    return 0


def memory_of(resident, anonymous, stat):
    """In the sum a page counts once: mapped files are resident and in the page cache alike."""
    cache = stat["cache"] / 1e6 if stat else None
    return {"rss_mb": resident / 1e6, "page_cache_mb": cache, "total_mb": anonymous / 1e6 + cache if stat else None}


class Broker:
    name = "?"
    keeps_nothing = False
    properties = {}

    def __init__(self, folder, port, group=None, extra=None, label=None):
        self.folder, self.port, self.group = Path(folder), port, group
        self.label = label or self.name
        self.data = self.folder / "data"
        self.extra = dict(extra or {})
        self.popen, self.refused, self.lost, self.frozen, self.cpus = None, [], [], False, None
        self.log_path = self.folder / "broker.log"

    # what differs

    def command(self):
        raise NotImplementedError

    def prepare(self):
        pass

    # configuration

    @property
    def bootstrap(self):
        return f"127.0.0.1:{self.port}"

    @property
    def config(self):
        return self.folder / "server.properties"

    def config_text(self):
        values = {"port": self.port, "controller": self.port + 1, "data": self.data}
        lines = {k: v.format(**values) for k, v in self.properties.items()} | self.extra
        return "".join(f"{k}={v}\n" for k, v in lines.items())

    # life

    @property
    def pid(self):
        return self.popen.pid

    def spawn(self, cpus=None):
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config.write_text(self.config_text())
        self.prepare()
        if self.group:
            self.group.set_cpus(cpus or isolate.ALL_CPUS)
        groups = [self.group] if self.group else []
        self.spawned = time.monotonic()
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder,
                start_new_session=True, preexec_fn=isolate.child_setup(cpus or isolate.ALL_CPUS, groups),
            )  # fmt: skip
        self.cpus, self.frozen = cpus, False
        if self.group:
            self.lost = self.group.check(self.pid)

    def start(self, cpus=None, timeout=120, topic="first-ack"):
        """Answers the seconds from process start to the first record acknowledged in `topic`."""
        self.spawn(cpus)
        since = self.spawned
        while True:
            if self.popen.poll() is not None:
                raise BrokerError(f"{self.label} exited with {self.popen.returncode}:\n{self.log_tail()}")
            try:
                with wire.Conn(self.port) as conn:
                    while True:
                        error, message = conn.create_topic(topic, 1, {})
                        if error in (0, 36) and conn.produce_one(topic) == 0:
                            return time.monotonic() - since
                        if time.monotonic() - since > timeout:
                            raise BrokerError(f"{self.label} acknowledges nothing after {timeout} s ({error} {message})")
                        time.sleep(0.002)
            except OSError:
                if time.monotonic() - since > timeout:
                    raise BrokerError(f"{self.label} does not answer after {timeout} s:\n{self.log_tail()}") from None
                time.sleep(0.002)

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def stop(self, timeout=60):
        if self.alive():
            self.thaw()
            self.popen.terminate()
            try:
                self.popen.wait(timeout)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self):
        if self.popen:
            self.popen.kill()
            self.popen.wait()

    def freeze(self):
        if self.alive() and not self.frozen:
            os.kill(self.pid, signal.SIGSTOP)
            self.frozen = True

    def thaw(self):
        if self.frozen and self.alive():
            os.kill(self.pid, signal.SIGCONT)
        self.frozen = False

    def pin(self, cpus):
        """Moves every thread; the cpuset also those that may not be moved one by one."""
        whole = self.group.set_cpus(cpus) if self.group else False
        refused = isolate.pin(self.pid, cpus)
        self.refused = [] if whole else refused
        self.cpus = cpus

    # topics

    def make_topic(self, name, partitions=1, configs=None, timeout=600):
        """Answers once every partition is served."""
        since = time.monotonic()
        with wire.Conn(self.port, timeout) as conn:
            error, message = conn.create_topic(name, partitions, configs or {})
            if error not in (0, 36):
                raise BrokerError(f"{self.label} refuses topic {name}: error {error} {message}")
            while True:
                _, leaders = conn.metadata(name)
                if len(leaders) == partitions and min(leaders.values()) >= 0 and conn.all_served(name, partitions):
                    return
                if time.monotonic() - since > timeout:
                    raise BrokerError(f"{self.label} has no leaders for {name} after {timeout} s")
                time.sleep(0.02)

    def drop_topics(self, names, timeout=120):
        """Deletes topics and waits until their files are gone."""
        if not names or not self.alive():
            return
        with wire.Conn(self.port, timeout) as conn:
            conn.delete_topics(names)
        since = time.monotonic()
        while time.monotonic() - since < timeout:
            if not self.has_files_of(names):
                return
            time.sleep(0.05)

    def has_files_of(self, topics):
        pattern = re.compile("^(" + "|".join(map(re.escape, topics)) + r")[.-]")
        return any(pattern.match(p.name) for p in self.data.iterdir())

    # what it takes

    def window(self):
        return Window(broker_clock(self.group, self.pid))

    def rss_bytes(self, field="VmRSS"):
        return status_bytes(Path(f"/proc/{self.pid}/status").read_text(), field)

    def read_bytes(self):
        """Bytes that the broker has had read from a device so far."""
        lines = Path(f"/proc/{self.pid}/io").read_text().splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("read_bytes:")))

    def memory(self):
        """MB: resident, and the page cache charged to its control group (None where that is not counted)."""
        stat = self.group.memory_stat() if self.group else None
        return memory_of(self.rss_bytes(), self.rss_bytes("RssAnon"), stat)

    def log_tail(self, lines=25):
        text = self.log_path.read_text(errors="replace") if self.log_path.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def wipe(self):
        shutil.rmtree(self.folder, ignore_errors=True)


class Corelane(Broker):
    name = "Corelane"
    properties = CORELANE_PROPERTIES

    def __init__(self, binary, folder, port, group=None, extra=None, label=None, side="corelane"):
        super().__init__(folder, port, group, extra, label)
        self.binary, self.side = binary, side

    def command(self):
        return [str(self.binary), "server", str(self.config)]

    def version(self):
        done = subprocess.run([str(self.binary), "--version"], capture_output=True, text=True)
        return done.stdout.strip() or "unknown"

    def promise(self):
        """The line in which it says what its acknowledgements survive, if it does."""
        lines = [line for line in self.log_tail(200).splitlines() if "acknowledge" in line.lower()]
        return lines[0].strip() if lines else ""


class Null(Broker):
    """The floor: it receives, parses, acknowledges at once and keeps nothing, or writes it behind in large groups. Every topic is there."""

    name = "null broker"
    keeps_nothing = True

    def __init__(self, binary, axis, writes, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.binary, self.axis, self.writes = binary, axis, writes

    def command(self):
        served = ["--partitions", str(self.axis.partitions), "--batch-bytes", str(self.axis.fill_batch)]  # the latter to consumers
        how = ["--write-behind", str(self.data / "behind")] if self.writes else ["--receive"]
        return [str(self.binary), "bench", "null", *how, "--listen", self.bootstrap, *served]

    def start(self, cpus=None, timeout=10, topic=None):
        self.data.mkdir(parents=True, exist_ok=True)
        self.spawn(cpus)
        while time.monotonic() - self.spawned < timeout and self.alive():
            try:
                wire.Conn(self.port, 1).sock.close()
                return time.monotonic() - self.spawned
            except OSError:
                time.sleep(0.01)
        raise BrokerError(f"the null broker does not start:\n{self.log_tail()}")

    def make_topic(self, name, partitions=1, configs=None, timeout=120):
        pass

    def drop_topics(self, names, timeout=20):
        pass


class Kafka(Broker):
    name, side = "Kafka", "kafka"
    properties = KAFKA_PROPERTIES
    standalone = ["--standalone"]  # how its storage is formatted

    def __init__(self, libs, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.libs = Path(libs)

    def java(self, main, *args, options=()):
        return ["java", *options, "-cp", f"{self.libs}/*", main, *map(str, args)]

    def prepare(self):
        if (self.data / "meta.properties").exists():
            return
        self.data.mkdir(parents=True, exist_ok=True)
        cmd = self.java("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", self.config, *self.standalone)
        done = subprocess.run(cmd, capture_output=True, text=True, cwd=self.folder)
        if done.returncode != 0:
            raise BrokerError(f"Kafka's storage cannot be formatted:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")

    def options(self):
        gc_log = f"-Xlog:gc*:file={self.folder}/kafkaServer-gc.log:time,tags:filecount=10,filesize=100M"
        return [*HEAP, *JVM, gc_log, "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn"]

    def command(self):
        return self.java("kafka.Kafka", self.config, options=self.options())

    def version(self):
        found = re.search(r"kafka_[0-9.]+-([0-9.]+)\.jar", " ".join(p.name for p in self.libs.glob("kafka_*.jar")))
        java = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr.splitlines()
        return f"Apache Kafka {found.group(1) if found else '?'} on {java[1] if len(java) > 1 else java[:1]}"
