"""Several brokers and a ZooKeeper ensemble as processes of this machine."""

import time
from pathlib import Path

from . import broker as brokers
from . import wire, zookeeper

# Times short enough to wait for in a test.
QUICK = {
    "zookeeper.session.timeout.ms": 3000,
    "replica.lag.time.max.ms": 4000,
    "offsets.topic.num.partitions": 4,
    "offsets.topic.replication.factor": 3,
    "default.replication.factor": 3,
    "min.insync.replicas": 2,
}


class Cluster:
    def __init__(self, folder, count=3, zookeepers=1, props=None):
        self.folder = Path(folder)
        self.zookeeper = zookeeper.Ensemble(self.folder, zookeepers)
        self.props = {**brokers.QUICK_GROUPS, **QUICK, **(props or {})}
        self.brokers = {n: self._broker(n) for n in range(1, count + 1)}

    def _broker(self, number):
        """Broker `number`, of this cluster but not started."""
        b = brokers.Broker(self.folder / f"broker-{number}", {**self.props, "broker.id": number})
        b.props["zookeeper.connect"] = self.zookeeper.connect
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
        for b in self.brokers.values():
            b.spawn()
        for b in self.brokers.values():
            b.wait(time.monotonic())
        self.wait_for_members(set(self.brokers))
        return self

    def __getitem__(self, number):
        return self.brokers[number]

    @property
    def bootstrap(self):
        return ",".join(b.bootstrap for b in self.brokers.values())

    def alive(self):
        return [b for b in self.brokers.values() if b.alive()]

    def any(self):
        return self.alive()[0]

    def describe(self, topic, of=None):
        """Partition -> (leader, replicas, isr) as a broker that is alive shows it."""
        with wire.Conn(of or self.any(), timeout=10) as conn:
            seen = wire.metadata(conn, [topic], version=8)["topics"].get(topic, {"partitions": {}})
        return {p: (state["leader"], state["replicas"], state["isr"]) for p, state in seen["partitions"].items()}

    def members(self, of):
        with wire.Conn(of, timeout=10) as conn:
            return {broker[0] for broker in wire.metadata(conn, [], version=8)["brokers"]}

    def wait_for_members(self, wanted, timeout=30):
        self.wait(lambda: all(self.members(b) == wanted for b in self.alive()), timeout, f"every broker knows {wanted}")

    def wait_for(self, topic, holds, timeout=30, what=None):
        """Until `holds(leader, replicas, isr)` for each partition, as all brokers that are alive show it."""

        def check():
            for b in self.alive():
                seen = self.describe(topic, b)
                if not seen or not all(holds(*state) for state in seen.values()):
                    return False
            return True

        self.wait(check, timeout, what or f"topic {topic}", lambda: self.describe(topic))

    def wait_for_isr(self, topic, wanted, timeout=30):
        self.wait_for(
            topic, lambda leader, _, isr: leader in wanted and set(isr) == set(wanted), timeout, f"ISR {sorted(wanted)} of {topic}"
        )

    @staticmethod
    def wait(check, timeout, what, show=lambda: ""):
        end, last = time.monotonic() + timeout, None
        while True:
            try:
                if check():
                    return
                last = show()
            except (OSError, wire.Closed) as error:
                last = error
            assert time.monotonic() < end, f"{what}: not within {timeout} s; last seen: {last}"
            time.sleep(0.02)

    def kill(self):
        for b in self.brokers.values():
            b.kill()
        self.zookeeper.kill()
