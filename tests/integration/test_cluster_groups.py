"""Groups of every client on three brokers while brokers die and come back: each record is read, commits are kept, nobody gives up."""

import time

import confluent_kafka as ck
import pytest

from support import clients, load
from support.broker import target
from support.members import Members
from support.witness import Witness
from test_groups import confluent_classic, java_classic

pytestmark = [
    pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers"),
    pytest.mark.timeout(7200),
]
PARTITIONS = 3
PATIENCE = 120
HOSTED = {
    "confluent": confluent_classic(),
    "confluent-new": {"group_protocol": "consumer"},
    "kafka-python": confluent_classic(),
    "java": java_classic(),
    "java-new": {"group_protocol": "consumer"},
}


class Reader:
    """One group with one member: offsets that it was given, by partition."""

    def __init__(self, name):
        self.name, self.slowest = name, 0.0
        self.seen = [set() for _ in range(PARTITIONS)]

    def up_to(self, ends):
        self.look()
        return all(end - 1 in seen for end, seen in zip(ends, self.seen))

    def missing(self, ends):
        """Of each partition the first offsets that it was not given."""
        return [sorted(set(range(end)) - seen)[:5] for end, seen in zip(ends, self.seen)]


class Program(Reader):
    """A program of tests/clients."""

    def __init__(self, client, cluster, topic):
        super().__init__(client.name)
        self.group, self.taken = f"{topic}-{client.name}", 0
        self.process = client.spawn(cluster, "group", topic=topic, group=self.group)

    def look(self):
        assert self.process.popen.poll() is None, f"{self.name} has ended: {self.process}"
        self._take()

    def _take(self):
        told = self.process.told[self.taken :]
        self.taken += len(told)
        for event in told:
            if event["e"] == "record":
                self.seen[event["p"]].add(event["o"])

    def finish(self):
        self.process.finish(timeout=PATIENCE)
        self._take()

    def failures(self):
        return [e["error"] for e in self.process.told if e["e"] == "failed"]

    def end(self):
        self.process.__exit__()


class Hosted(Reader):
    """A member of `support.members`."""

    def __init__(self, name, crowd, host, topic):
        super().__init__(name)
        self.crowd, self.group = crowd, f"{topic}-{name}"
        group = crowd.group(self.group, PARTITIONS)
        self.member = crowd.start(host, group, topic, **HOSTED[name])

    def look(self):
        self.crowd.look()
        assert self.member.ended is None, f"{self.name} has ended: {self.member.error}"
        self._take()

    def _take(self):
        for _, p, first, last in self.member.batches:
            self.seen[p].update(range(first, last + 1))
        self.member.batches.clear()

    def finish(self):
        self.crowd.stop(self.member)
        self.crowd.until(lambda: self.member.ended, f"{self.name} closes", PATIENCE)
        assert self.member.error is None, f"{self.name}: {self.member.error}"
        self._take()

    def failures(self):
        return [e["error"] for e in self.member.events if e["e"] in ("commit_failed", "warning")]

    def end(self):
        pass


def committed(cluster, group, topic):
    c = load.consumer(cluster, group_id=group)
    try:
        return [tp.offset for tp in c.committed([ck.TopicPartition(topic, p) for p in range(PARTITIONS)], timeout=60)]
    finally:
        c.close()


def ends_now(cluster, topic):
    return [load.end(cluster, topic, p) for p in range(PARTITIONS)]


def wait_for(readers, ends, what, since=None):
    """Until each reader was given what lies before `ends`; each notes how long that took it, where `since` is given."""
    end, late = time.monotonic() + PATIENCE, list(readers)
    while late:
        for r in [r for r in late if r.up_to(ends)]:
            late.remove(r)
            r.slowest = max(r.slowest, time.monotonic() - since) if since else r.slowest
        shown = {r.name: (r.missing(ends), r.failures()[-3:]) for r in late} if time.monotonic() > end else {}
        assert not shown, f"{what}: {shown}"
        time.sleep(0.05)


def test_groups_of_every_client_go_through_failovers(make_cluster, length, figure, tmp_path):
    c = make_cluster(props={"zookeeper.session.timeout.ms": 4000})
    topic = c.create("t", PARTITIONS)
    w = Witness(c, topic, PARTITIONS, consumers=0, rate=20)
    readers, crowd = [], Members(c, tmp_path / "members")
    try:
        hosts = {kind: crowd.host(kind) for kind in ("confluent", "kafka-python", "java")}
        readers += [Hosted(name, crowd, hosts[name.removesuffix("-new")], topic) for name in HOSTED]
        readers += [Program(client, c, topic) for client in clients.CLIENTS]
        w.wait_for_acks()
        wait_for(readers, ends_now(c, topic), "the first records are read")
        for n in range(length.pick(2, 20)):
            # Each in turn, so that each group loses its coordinator.
            victim = c[n % 3 + 1]
            victim.kill()
            since = time.monotonic()
            c.wait_for_isr(topic, set(c.brokers) - {n % 3 + 1}, PATIENCE)
            w.wait_for_acks(timeout=PATIENCE)
            wait_for(readers, ends_now(c, topic), f"read on after fail-over {n}", since)
            victim.start()
            c.wait_for_isr(topic, set(c.brokers), PATIENCE)
        figure("acknowledged", w.finish())
        ends = ends_now(c, topic)
        wait_for(readers, ends, "all is read")
        for reader in readers:
            reader.finish()
            assert not any(reader.missing(ends)), f"{reader.name} was not given {reader.missing(ends)}"
            assert committed(c, reader.group, topic) == ends, f"{reader.name} has committed something else"
            told = f"{reader.slowest:.1f} s at most, {len(reader.failures())} errors that it went on after"
            figure(f"{reader.name}: from a kill until it has read what came after it", told)
    finally:
        for reader in readers:
            reader.end()
        crowd.close()
