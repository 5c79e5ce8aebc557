"""Several brokers and a ZooKeeper ensemble as processes of this machine, or each on a host of a network of the test's own."""

import shutil
import time
from contextlib import contextmanager
from pathlib import Path

from . import broker as brokers
from . import clock, load, wire, zookeeper

# Times short enough to wait for in a test.
QUICK = {
    "zookeeper.session.timeout.ms": 3000,
    # By default the session's, in which a first start on a busy machine does not get its nodes made.
    "zookeeper.connection.timeout.ms": 30_000,
    "replica.lag.time.max.ms": 4000,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 3,
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
}


def hosts(count=3, zookeepers=3):
    """Names of the hosts of a network that such a cluster lives in; clients have one of their own."""
    return [f"broker-{n}" for n in range(1, count + 1)] + [f"zookeeper-{n}" for n in range(1, zookeepers + 1)] + ["clients"]


class Cluster:
    def __init__(self, folder, count=3, zookeepers=1, props=None, network=None):
        """In a `network`, its hosts are those of `hosts`, and the caller has entered one of them."""
        self.folder, self.network = Path(folder), network
        self.zookeeper = zookeeper.Ensemble(self.folder, zookeepers, network)
        self.props = {**brokers.QUICK_GROUPS, **QUICK, **(props or {})}
        self.brokers = {n: self._broker(n) for n in range(1, count + 1)}

    def _broker(self, number):
        """Broker `number`, of this cluster but not started."""
        b = brokers.Broker(self.folder / f"broker-{number}", {**self.props, "broker.id": number})
        b.props["zookeeper.connect"] = self.zookeeper.connect
        if self.network:
            host = self.network[f"broker-{number}"]
            b.host, b.port, b.inside = host.address, 9092, host.inside
        own = b.properties

        def properties():
            return {k: v for k, v in own().items() if k != "node.id"}

        b.properties = properties
        return b

    def add(self, number):
        self.brokers[number] = self._broker(number)
        return self.brokers[number]

    def start(self):
        self.zookeeper.start()
        self.start_brokers()
        self.wait_for_members(set(self.brokers))
        return self

    def start_brokers(self):
        """All at once."""
        for b in self.brokers.values():
            b.spawn()
        for b in self.brokers.values():
            b.wait(time.monotonic())

    @contextmanager
    def running(self, keep):
        """Started for the time of a `with`; its folder goes afterwards, unless it is to be kept."""
        try:
            yield self.start()
        finally:
            self.kill()
            if not keep:
                shutil.rmtree(self.folder, ignore_errors=True)

    def __getitem__(self, number):
        return self.brokers[number]

    @property
    def bootstrap(self):
        return ",".join(b.bootstrap for b in self.brokers.values())

    def create(self, topic, partitions=1, **config):
        """Creates a topic and waits until all of its replicas are in sync. Config names with `_` for `.`"""
        try:
            load.create_topic(self, topic, partitions, **config)
        except Exception as e:
            e.add_note(f"controllers, as the brokers see it: { {n: self.controller(b) for n, b in self.brokers.items() if b.alive()} }")
            raise
        self.wait_for(topic, lambda leader, replicas, isr: set(isr) == set(replicas), 30, f"topic {topic} in sync")
        return topic

    def leader(self, topic, partition=0):
        """The broker that is asked may not know of a new topic yet."""
        self.wait(lambda: partition in self.describe(topic), 30, f"partition {partition} of {topic} is known")
        return self.describe(topic)[partition][0]

    def leader_epoch(self, topic, partition=0):
        with wire.Conn(self.any(), timeout=10) as conn:
            return wire.metadata(conn, [topic], version=8)["topics"][topic]["partitions"][partition]["epoch"]

    # A cluster stands in for a broker where only clients look at it.

    kind = "corelane"

    @property
    def replicas(self):
        return min(3, len(self.brokers))

    @property
    def host(self):
        return self.any().host

    @property
    def port(self):
        return self.any().port

    def leading(self, topic, partition=0):
        return self.brokers[self.leader(topic, partition)]

    def serves(self, topics=()):
        """Each partition of `topics` tells its end, and all of its replicas are in sync."""
        try:
            for topic in topics:
                for p, (leader, replicas, isr) in self.describe(topic).items():
                    if set(isr) != set(replicas):
                        return False
                    with wire.Conn(self.brokers[leader], timeout=5) as conn:
                        if wire.list_offsets(conn, topic, [p], -1)[p][0]:
                            return False
            return True
        except (OSError, KeyError, wire.Closed):
            return False

    def check(self):
        """No broker has ended or panicked."""
        for b in self.brokers.values():
            assert b.alive() and "panicked at" not in b.log_text(), b.log_tail()

    def alive(self):
        return [b for b in self.brokers.values() if b.alive()]

    def any(self):
        return self.alive()[0]

    def describe(self, topic, of=None):
        """Partition -> (leader, replicas, isr) as a broker that is alive shows it."""
        with wire.Conn(of or self.any(), timeout=10) as conn:
            seen = wire.metadata(conn, [topic], version=8)["topics"].get(topic, {"partitions": {}})
        return {p: (state["leader"], state["replicas"], state["isr"]) for p, state in seen["partitions"].items()}

    def controller(self, of=None):
        with wire.Conn(of or self.any(), timeout=10) as conn:
            return wire.metadata(conn, [], version=8)["controller"]

    def members(self, of):
        with wire.Conn(of, timeout=10) as conn:
            return {broker[0] for broker in wire.metadata(conn, [], version=8)["brokers"]}

    def wait_for_members(self, wanted, timeout=30):
        self.wait(lambda: all(self.members(b) == wanted for b in self.alive()), timeout, f"every broker knows {wanted}")

    def wait_for(self, topic, holds, timeout=30, what=None, of=None):
        """Until `holds(leader, replicas, isr)` for each partition, as all brokers show it that are alive, or that `of` names."""

        def check():
            for b in [self.brokers[n] for n in of] if of else self.alive():
                seen = self.describe(topic, b)
                if not seen or not all(holds(*state) for state in seen.values()):
                    return False
            return True

        self.wait(check, timeout, what or f"topic {topic}", lambda: {b.folder.name: self.describe(topic, b) for b in self.alive()})

    def wait_for_isr(self, topic, wanted, timeout=30):
        """Until these replicas of each partition are in sync, and one of them leads."""
        self.wait_for(
            topic, lambda leader, _, isr: leader in wanted and set(isr) == set(wanted), timeout, f"ISR {sorted(wanted)} of {topic}"
        )

    def wait_for_sessions(self, timeout=60):
        """Until each broker says that it is connected to ZooKeeper and takes part in the cluster."""
        states = [("connected to ZooKeeper", "the connection to ZooKeeper is lost"), ("takes part in", "takes no part in")]

        def check(b):
            log = b.log_text()
            return all(log.rfind(good) >= log.rfind(bad) for good, bad in states)

        self.wait(lambda: all(check(b) for b in self.alive()), timeout, "every broker has its session")

    @staticmethod
    def wait(check, timeout, what, show=lambda: ""):
        end = clock.running() + timeout
        while True:
            try:
                if check():
                    return
                last = show() if clock.running() >= end else ""
            except (OSError, wire.Closed) as error:
                last = error
            assert clock.running() < end, f"{what}: not within {timeout} s; last seen: {last}"
            time.sleep(0.02)

    def kill(self):
        for b in self.brokers.values():
            b.kill()
        self.zookeeper.kill()
