"""Three brokers behind the face of one. All of them, and Corelane's ZooKeeper server, are in one control group, so CPU and memory of a side
are all of it. Kafka's brokers are its KRaft controllers too."""

import shutil
import time

from . import wire
from .brokers import Broker, BrokerError, Corelane, Kafka, memory_of
from .cpu import ThreadSum, Window
from .isolate import thread_times

BROKERS = 3
REPLICATION = {"default.replication.factor": str(BROKERS), "min.insync.replicas": "2", "offsets.topic.replication.factor": str(BROKERS)}
# Stated additions: both sides are frozen for long while the other is measured, and would take one another for dead.
PATIENCE = {"replica.lag.time.max.ms": "3600000", "replica.socket.timeout.ms": "3600000"}
# Kafka's controllers elect anew after each freeze; this is how long that and the rest may take.
THAW_MOST = 60


class ZooKeeper(Broker):
    """One server for Corelane's brokers."""

    name = "ZooKeeper"

    def __init__(self, libs, *args):
        super().__init__(*args)
        self.libs = libs

    def config_text(self):
        lines = {
            "tickTime": 2000, "dataDir": self.data, "clientPort": self.port, "clientPortAddress": "127.0.0.1",
            "admin.enableServer": "false", "maxSessionTimeout": 7200000,
        }  # fmt: skip
        return "".join(f"{k}={v}\n" for k, v in lines.items())

    def command(self):
        return ["java", "-Xmx128m", "-cp", f"{self.libs}/*", "org.apache.zookeeper.server.quorum.QuorumPeerMain", str(self.config)]

    def start(self, cpus=None, timeout=60, topic=None):
        self.data.mkdir(parents=True, exist_ok=True)
        self.spawn(cpus)
        while time.monotonic() - self.spawned < timeout and self.alive():
            try:
                return wire.Conn(self.port, 1).sock.close()
            except OSError:
                time.sleep(0.05)
        raise BrokerError(f"ZooKeeper does not start:\n{self.log_tail()}")


class Cluster:
    """The face is `Broker`'s, as far as the lab asks it."""

    def __init__(self, label, folder, group, members, zookeeper=None):
        self.label, self.folder, self.group = label, folder, group
        self.members, self.zookeeper = members, zookeeper
        self.extra, self.frozen, self.refused, self.lost, self.cpus = {}, False, [], [], None

    @property
    def side(self):
        return "corelane" if self.zookeeper else "kafka"

    def processes(self):
        return [*([self.zookeeper] if self.zookeeper else []), *self.members]

    @property
    def bootstrap(self):
        return self.members[0].bootstrap

    @property
    def data(self):
        return self.members[0].data

    @property
    def pid(self):
        return self.members[0].pid

    @property
    def popen(self):
        ended = [b.popen for b in self.members if not b.alive()]
        return ended[0] if ended else self.members[0].popen

    # life

    def start(self, cpus=None, timeout=180):
        since = time.monotonic()
        if self.zookeeper:
            self.zookeeper.start(cpus)
        for b in self.members:
            b.spawn(cpus)
        self.lost = sorted({what for b in self.members for what in b.lost})
        self.settle(since + timeout)
        return time.monotonic() - since

    def settle(self, end):
        """Until each member knows all others."""
        for b in self.members:
            while True:
                try:
                    with wire.Conn(b.port) as conn:
                        if conn.metadata("first-ack")[0] == len(self.members):
                            break
                except OSError:
                    pass
                if not b.alive():
                    raise BrokerError(f"{b.label} exited with {b.popen.returncode}:\n{b.log_tail()}")
                if time.monotonic() > end:
                    raise BrokerError(f"{b.label} does not know all of its cluster:\n{b.log_tail()}")
                time.sleep(0.05)

    def alive(self):
        return all(b.alive() for b in self.processes())

    def kill(self):
        for b in reversed(self.processes()):
            b.kill()

    def freeze(self):
        if not self.frozen:
            for b in self.processes():
                b.freeze()
            self.frozen = True

    def thaw(self):
        if not self.frozen:
            return
        for b in self.processes():
            b.thaw()
        self.frozen = False
        self.settle(time.monotonic() + THAW_MOST)

    def pin(self, cpus):
        for b in self.processes():
            b.pin(cpus)
        self.refused = sorted({name for b in self.members for name in b.refused})
        self.cpus = cpus

    # topics

    def make_topic(self, name, partitions=1, configs=None, timeout=120):
        """Answers once every partition has a leader that acknowledges for all."""
        since = time.monotonic()
        with wire.Conn(self.members[0].port, timeout) as conn:
            error, message = conn.create_topic(name, partitions, configs or {}, BROKERS)
            if error not in (0, 36):
                raise BrokerError(f"{self.label} refuses topic {name}: error {error} {message}")
        while time.monotonic() - since < timeout:
            with wire.Conn(self.members[0].port, timeout) as conn:
                _, leaders = conn.metadata(name)
            by_id = {b.number: b for b in self.members}
            leader = by_id.get(leaders.get(0, -1))
            if leader and len(leaders) == partitions and min(leaders.values()) >= 0:
                with wire.Conn(leader.port, timeout) as conn:
                    if conn.produce_one(name) == 0:
                        return
            time.sleep(0.05)
        raise BrokerError(f"{self.label} acknowledges nothing in {name} after {timeout} s")

    def drop_topics(self, names, timeout=120):
        if not names or not self.alive():
            return
        with wire.Conn(self.members[0].port, timeout) as conn:
            conn.delete_topics(names)
        since = time.monotonic()
        while time.monotonic() - since < timeout:
            if not any(b.has_files_of(names) for b in self.members):
                return
            time.sleep(0.05)

    # what it takes

    def window(self):
        if self.group is not None and self.group.cpu_ns() is not None:
            return Window(self.group.cpu_ns)
        pids = [b.pid for b in self.processes()]
        return Window(ThreadSum(lambda: {task: ns for pid in pids for task, ns in thread_times(pid).items()}))

    def memory(self):
        stat = self.group.memory_stat() if self.group else None
        total = {field: sum(b.rss_bytes(field) for b in self.processes()) for field in ("VmRSS", "RssAnon")}
        return memory_of(total["VmRSS"], total["RssAnon"], stat)

    # what the report tells

    def config_text(self):
        return self.members[0].config_text()

    def command(self):
        return self.members[0].command()

    def version(self):
        return f"{len(self.members)} x {self.members[0].version()}"

    def promise(self):
        return ""

    def log_tail(self, lines=25):
        return "\n".join(f"--- {b.label}\n{b.log_tail(lines)}" for b in self.processes())

    def wipe(self):
        shutil.rmtree(self.folder, ignore_errors=True)


def corelane(binary, zookeeper_libs, folder, port, group, label):
    zookeeper = ZooKeeper(zookeeper_libs, folder / "zookeeper", port, group, None, f"{label}-zookeeper")
    members = []
    for number in range(1, BROKERS + 1):
        # The CPUs are shared by three brokers, so one shard each.
        extra = {
            **REPLICATION, **PATIENCE, "node.id": str(number), "zookeeper.connect": zookeeper.bootstrap,
            "zookeeper.session.timeout.ms": "3600000", "corelane.shards": "1",
        }  # fmt: skip
        member = Corelane(binary, folder / f"broker-{number}", port + 2 * number, group, extra, f"{label}-{number}")
        member.number = number
        members.append(member)
    return Cluster(label, folder, group, members, zookeeper)


def kafka(libs, folder, port, group, label):
    ports = {number: port + 2 * number for number in range(1, BROKERS + 1)}
    voters = ",".join(f"{number}@127.0.0.1:{at + 1}" for number, at in ports.items())
    members = []
    for number, at in ports.items():
        extra = {**REPLICATION, **PATIENCE, "node.id": str(number), "controller.quorum.voters": voters}
        member = Kafka(libs, folder / f"broker-{number}", at, group, extra, f"{label}-{number}")
        member.properties = {k: v for k, v in member.properties.items() if k != "controller.quorum.bootstrap.servers"}
        member.standalone, member.number = [], number
        members.append(member)
    return Cluster(label, folder, group, members)
