"""Java applications in processes that can be killed, and readers that follow what they make."""

import collections
import signal
import subprocess
import time

import confluent_kafka as ck

from . import clock, java, load
from .broker import target

OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.showDateTime=true")


class Application:
    """A class with its arguments. `folder` is its own; it ends in good order at SIGTERM."""

    def __init__(self, folder, classes, main, *args, heap="256m"):
        folder.mkdir(parents=True, exist_ok=True)
        self.out, self.log = folder / "out", folder / "log"
        self.line = java.command(main, *args, heap=heap, options=OPTIONS)
        self.line[self.line.index("-cp") + 1] = classes
        self.popen = None

    def start(self):
        with open(self.out, "ab") as out, open(self.log, "ab") as log:
            out.write(b"start\n")
            out.flush()
            self.popen = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *self.line], stdout=out, stderr=log, cwd=self.out.parent)

    def alive(self):
        return self.popen is not None and self.popen.poll() is None

    def kill(self):
        if self.popen:
            self.popen.kill()
            self.popen.wait()

    def stop(self, timeout=90):
        self.popen.send_signal(signal.SIGTERM)
        code = self.popen.wait(timeout)
        assert code in (0, 143), f"exit code {code}:\n{self.tail()}"

    def told(self):
        return self.out.read_text().splitlines()

    def tail(self):
        """What went wrong, and the end of the log."""
        text = self.log.read_text(errors="replace")
        bad = [s for s in text.splitlines() if " ERROR " in s or "Exception" in s]
        return "\n".join(bad[-30:]) + f"\n...\n{text[-4000:]}"


def through_kills(broker, applications, kind, dice, rounds, go_on, **start):
    """Kills the broker, one of the applications, or both, `rounds` times two, starts them again (the broker by `start`), and has
    `go_on` wait until things go on. Kafka itself is not killed: to start takes it longer than its clients wait. -> kills by kind"""
    kills = collections.Counter()
    for n in range(rounds):
        victims = [kind] if target() == "kafka" else dice.sample(["broker", kind], 2)
        together = target() != "kafka" and dice.random() < 0.3
        for victim in victims:
            time.sleep(dice.uniform(0, 1))
            a = dice.choice(applications)
            if victim == "broker" or together:
                broker.kill()
                kills["broker"] += 1
            if victim == kind or together:
                a.kill()
                kills[kind] += 1
            time.sleep(dice.uniform(0, 1))
            if not broker.alive():
                broker.start(**start)
            if not a.alive():
                a.start()
            go_on(f"kill {n} of {victims}")
    return kills


class Follower:
    """Reads a topic's committed records from its start, on through kills of the broker. `take(partition, key, value)` is given each."""

    def __init__(self, broker, topic, partitions, take):
        self.take, self.count, self.at = take, 0, dict.fromkeys(range(partitions), 0)
        quick = {"reconnect_backoff_ms": 50, "reconnect_backoff_max_ms": 500, "enable_partition_eof": False}
        self.consumer = load.consumer(broker, isolation_level="read_committed", **quick)
        self.consumer.assign([ck.TopicPartition(topic, p, 0) for p in self.at])

    def look(self, timeout=0.1):
        for m in self.consumer.consume(5000, timeout):
            if not m.error():
                self.take(m.partition(), m.key(), m.value())
                self.count += 1
                self.at[m.partition()] = m.offset() + 1
            elif not m.error().retriable() and m.error().code() not in (ck.KafkaError._ALL_BROKERS_DOWN, ck.KafkaError._TRANSPORT):
                raise ck.KafkaException(m.error())

    def until(self, there, what, applications, timeout=240):
        end = clock.running() + timeout
        while not there():
            for a in applications:
                assert a.alive(), f"the application ended:\n{a.tail()}"
            late = f"not within {timeout} s: {what}; {self.count} records are read\n"
            assert clock.running() < end, late + "\n\n".join(a.tail() for a in applications)
            self.look()

    def close(self):
        self.consumer.close()


def committed(broker, topic, partitions):
    """Every committed record, (key, value) by partition."""
    c = load.consumer(broker, isolation_level="read_committed", auto_offset_reset="earliest")
    c.assign([ck.TopicPartition(topic, p, ck.OFFSET_BEGINNING) for p in range(partitions)])
    records, ended, end = {p: [] for p in range(partitions)}, set(), clock.running() + 120
    try:
        while len(ended) < partitions:
            assert clock.running() < end, f"{topic}: only {sorted(ended)} are at their end"
            for m in c.consume(5000, 1):
                if not m.error():
                    records[m.partition()].append((m.key(), m.value()))
                elif m.error().code() == ck.KafkaError._PARTITION_EOF:
                    ended.add(m.partition())
                else:
                    raise ck.KafkaException(m.error())
    finally:
        c.close()
    return records
