"""Starts of several brokers at once, each with a replica of every partition, and the death of one of them."""

import re
import shutil
import socket
import statistics
import time
from datetime import datetime

TOPICS = 10
REPLICAS = 3
PAUSE = 0.1
# What a broker says on its way, and how the report calls it.
STEPS = [("recovered,", "recovered"), ("takes part in the cluster", "takes part")]


class Measured:
    """A cluster with its topics, and what its starts took."""

    def __init__(self, folder, brokers, partitions, shards):
        from support import cluster, proc, wire

        self.wire, self.cpu_of = wire, proc.cpu_seconds
        self.names = [f"start-{n}" for n in range(TOPICS)]
        self.each = partitions // TOPICS
        # Sessions as they are shipped: what is measured is not to be hurried on by short ones.
        props = {"corelane.max.partitions": 2 * partitions, "zookeeper.session.timeout.ms": 18000, "replica.lag.time.max.ms": 30000}
        if shards:
            props["corelane.shards"] = shards
        self.cluster = cluster.Cluster(folder, brokers, 3, props)
        self.replicas = min(REPLICAS, brokers)

    def make(self):
        from confluent_kafka.admin import AdminClient, NewTopic

        self.cluster.start()
        admin = AdminClient({"bootstrap.servers": self.cluster.bootstrap})
        for name in self.names:
            admin.create_topics([NewTopic(name, self.each, self.replicas)], request_timeout=120)[name].result(150)
        self.until(self.cluster.alive(), self.is_whole, time.monotonic(), 300)

    def is_whole(self, parts):
        return all(p["leader"] >= 0 and len(p["isr"]) == self.replicas for p in parts)

    def until(self, brokers, holds, began, timeout):
        """Seconds since `began` until every one of `brokers` shows every topic so that `holds` says yes of its partitions."""
        end = time.monotonic() + timeout
        left = [(b, name) for b in brokers for name in self.names]
        again = True
        while left:
            assert time.monotonic() < end, f"{len(left)} topics are not so within {timeout} s, such as {self.seen(*left[0])}"
            (broker, name), *rest = left
            assert broker.alive(), broker.log_tail()
            if holds(self.partitions(broker, name)):
                left, again = rest, True
                continue
            # One that holds for its first topic may hold for the others; so one question a round suffices.
            left = [*rest, (broker, name)] if again else left
            again = False
            time.sleep(PAUSE)
        return time.monotonic() - began

    def partitions(self, broker, name):
        """As the broker shows them; a partition that nobody leads where there is no answer."""
        nobody = [{"leader": -1, "isr": []}]
        try:
            with self.wire.Conn(broker, timeout=60) as conn:
                topic = self.wire.metadata(conn, [name], version=8)["topics"].get(name)
        except (OSError, self.wire.Closed):
            return nobody
        shown = list(topic["partitions"].values()) if topic else []
        return shown if len(shown) == self.each else nobody

    def seen(self, broker, name):
        parts = self.partitions(broker, name)
        led, full = sum(p["leader"] >= 0 for p in parts), sum(len(p["isr"]) == self.replicas for p in parts)
        return f"{name} at {broker.folder.name}: {led} of {len(parts)} led, {full} in sync"

    def until_answered(self, timeout):
        """Until each partition was read from its leader."""
        end = time.monotonic() + timeout
        left = {name: set(range(self.each)) for name in self.names}
        while left:
            assert time.monotonic() < end, f"no answer from {({name: len(of) for name, of in left.items()})} within {timeout} s"
            of = {}
            for name, wanted in left.items():
                for p in self.partitions(self.cluster[1], name):
                    if p.get("index") in wanted and p["leader"] in self.cluster.brokers:
                        of.setdefault(p["leader"], {}).setdefault(name, []).append(p["index"])
            for number, topics in of.items():
                with self.wire.Conn(self.cluster[number], timeout=60) as conn:
                    for name, indexes in topics.items():
                        ends = self.wire.list_offsets(conn, name, indexes, -1)
                        left[name] -= {index for index, (error, _, _) in ends.items() if error == 0}
            left = {name: wanted for name, wanted in left.items() if wanted}
            if left:
                time.sleep(PAUSE)

    def start(self):
        """[(step, seconds)] of a start of all brokers, and the CPU seconds of all brokers and of all ZooKeeper servers."""
        brokers = list(self.cluster.brokers.values())
        logged = {b.folder: len(b.log_text()) for b in brokers}
        servers = [server.popen.pid for server in self.cluster.zookeeper.servers]
        spent = sum(map(self.cpu_of, servers))
        began, wall = time.monotonic(), time.time()
        for b in brokers:
            b.spawn()
        steps = [("all led", self.until(brokers, lambda parts: all(p["leader"] >= 0 for p in parts), began, 300))]
        self.until_answered(300)
        steps.append(("all answered", time.monotonic() - began))
        steps.append(("all in sync", self.until(brokers, self.is_whole, began, 300)))
        cpu = sum(b.cpu() for b in brokers), sum(map(self.cpu_of, servers)) - spent
        said = []
        for text, step in STEPS:
            times = [time_of(b.log_text()[logged[b.folder] :], text) for b in brokers]
            said.append((step, max(times) - wall))
        return said + steps, cpu

    def stop(self):
        """All in good order, side by side."""
        brokers = list(self.cluster.brokers.values())
        for b in brokers:
            b.popen.terminate()
        for b in brokers:
            assert b.popen.wait(600) == 0, b.log_tail()

    def kill(self):
        for b in self.cluster.brokers.values():
            b.kill()

    def death(self):
        """[(step, seconds)] from the kill of a leader that is not the controller, then from its death being known."""
        controller = self.cluster.controller()
        victim = self.cluster[next(n for n in self.cluster.brokers if n != controller)]
        number = int(victim.props["broker.id"])
        logged = len(self.cluster[controller].log_text())
        began, wall = time.monotonic(), time.time()
        victim.kill()
        others = [b for b in self.cluster.alive()]
        moved = self.until(others, lambda parts: all(p["leader"] not in (-1, number) for p in parts), began, 120)
        known = time_of(self.cluster[controller].log_text()[logged:], "process is gone") - wall
        victim.spawn()
        back = time.monotonic()
        whole = self.until(list(self.cluster.brokers.values()), self.is_whole, back, 300)
        return [("known dead", known), ("all moved after that", moved - known), ("back in sync", whole)]


def time_of(log, text):
    """When a log said so first, in seconds since 1970."""
    for line in log.splitlines():
        if text in line and (at := re.search(r"\d{4}-\d\d-\d\dT[\d:.]+", line)):
            return datetime.fromisoformat(at.group() + "+00:00").timestamp()
    raise AssertionError(f"{text!r} is not in the log:\n{log[-2000:]}")


def tell(what, taken, cpus=()):
    steps = []
    for at, (step, _) in enumerate(taken[0]):
        each = [one[at][1] for one in taken]
        steps.append(f"{step} {statistics.median(each):.2f} s ({' '.join(f'{seconds:.2f}' for seconds in each)})")
    of = [statistics.median(each) for each in zip(*cpus)]
    cpu = f", CPU s: {of[0]:.1f} of the brokers, {of[1]:.1f} of ZooKeeper" if cpus else ""
    print(f"{what}: {', '.join(steps)}{cpu}", flush=True)


def measure(given, folder):
    measured = Measured(folder, given.brokers, given.partitions, given.shards)
    what = f"{given.partitions} partitions of {measured.replicas} replicas on {given.brokers} brokers"
    try:
        measured.make()
        for end, how in [(measured.stop, "a clean stop"), (measured.kill, "kill -9")]:
            taken = []
            for _ in range(given.starts):
                end()
                taken.append(measured.start())
            tell(f"{what}, {how}", [steps for steps, _ in taken], [cpu for _, cpu in taken])
        taken = []
        for n in range(given.starts):
            if n:
                # A broker is found dead once a minute at most.
                time.sleep(61)
            taken.append(measured.death())
        tell(f"{what}, a broker's death", taken)
    finally:
        measured.cluster.kill()
        shutil.rmtree(folder, ignore_errors=True)
