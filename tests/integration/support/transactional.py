"""Transactional producers in processes of their own, and consumers beside them, that write a history down through every failure of
brokers and of themselves."""

import collections
import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import confluent_kafka as ck

from . import clock, load, schema, wire
from .transaction_history import READ_COMMITTED, READ_UNCOMMITTED, TransactionHistory
from .transaction_writer import RETRIES

PROGRAM = Path(__file__).with_name("transaction_writer.py")
# Numbers of an id's transactions rise over its instances.
INSTANCE = 1_000_000
# For what takes a few seconds where processors are to be had.
PATIENCE = 90


class Writer:
    """One instance of a transactional id, as a process."""

    def __init__(self, history, bootstrap, name, instance, timeout_ms, rate, partitions):
        self.history, self.name, self.instance = history, name, instance
        self.ready, self.committed, self.over, self.broken = False, 0, None, None
        self.errors, self.lines = tempfile.TemporaryFile("w+"), collections.deque(maxlen=6)
        arguments = [bootstrap, name, instance * INSTANCE + 1, timeout_ms, rate, json.dumps(partitions)]
        # It dies with the test run, however that ends.
        self.popen = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", sys.executable, str(PROGRAM), *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, text=True,
        )  # fmt: skip
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self):
        for line in self.popen.stdout:
            self.lines.append(line)
            try:
                event = json.loads(line)
                self.history.told(self.name, self.instance, event)
            except (ValueError, KeyError) as e:
                self.broken = repr(e)
                continue
            self.ready |= event["e"] == "ready"
            self.committed += event["e"] == "committed"
            if event["e"] in ("over", "closed"):
                self.over = event

    def working(self):
        """The number of the transaction that it has begun and whose end it has not asked for, or None."""
        event = json.loads(self.lines[-1]) if self.lines else {}
        return event["n"] if event.get("e") == "begin" else None

    def ended(self):
        return self.popen.poll() is not None and not self.reader.is_alive()

    def __str__(self):
        self.errors.seek(0)
        state = f"{self.committed} committed, exit code {self.popen.poll()}, {self.broken or ''}"
        return f"{self.name}, instance {self.instance}: {state}\n{''.join(self.lines)}{self.errors.read()[-2000:]}"

    def pause(self):
        self.popen.send_signal(signal.SIGSTOP)

    def wake(self):
        self.popen.send_signal(signal.SIGCONT)

    def kill(self):
        self.popen.kill()
        self.popen.wait()
        self.reader.join()


class Witness:
    """`topics`: name -> partitions. `rate`: transactions a second and producer, at most."""

    def __init__(self, brokers, topics, writers=3, timeout_ms=6000, rate=10):
        self.brokers, self.timeout_ms, self.rate = brokers, timeout_ms, rate
        self.partitions = [(topic, p) for topic, count in topics.items() for p in range(count)]
        self.topics, self.history = list(topics), TransactionHistory()
        self.ended, self.failed, self.instances = threading.Event(), [], collections.Counter()
        self.current, self.past, self.seen, self.done = {}, [], collections.Counter(), collections.Counter()
        for n in range(writers):
            self.start(f"writer-{n}")
        # One of each kind from the start of each partition, and a group of two.
        clients = [(self._assigned, READ_COMMITTED), (self._assigned, READ_UNCOMMITTED), (self._member, 0), (self._member, 1)]
        self.threads = [threading.Thread(target=self._guard, args=client, daemon=True) for client in clients]
        for thread in self.threads:
            thread.start()

    def _guard(self, work, argument):
        try:
            work(argument)
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.failed.append(repr(e))

    # producers

    def start(self, name):
        """The next instance of a transactional id."""
        if name in self.current:
            self.past.append(self.current[name])
        self.instances[name] += 1
        made = Writer(self.history, self.brokers.bootstrap, name, self.instances[name], self.timeout_ms, self.rate, self.partitions)
        self.current[name] = made
        return made

    def tend(self):
        """Producers that could not go on have successors; nothing else has gone wrong."""
        for name, writer in list(self.current.items()):
            if writer.ended():
                assert writer.over and writer.broken is None, str(writer)
                self.done[f"over: {writer.over.get('error')}"] += 1
                self.start(name)
        assert not self.failed, self.failed[:5]

    def wait(self, check, what, timeout=PATIENCE):
        end = time.monotonic() + timeout
        while not check():
            self.tend()
            if time.monotonic() > end:
                state = "\n".join(str(writer) for writer in [*self.current.values(), *self.past[-3:]])
                raise AssertionError(f"{what}: not within {timeout} s at {time.monotonic_ns()}; {state}")
            time.sleep(0.01)

    def wait_for_commits(self, count=3, names=None):
        """So many more by each transactional id, or each of these, over all of its instances."""
        names = list(self.current if names is None else names)

        def committed(name):
            return self.current[name].committed + sum(one.committed for one in self.past if one.name == name)

        wanted = {name: committed(name) + count for name in names}
        self.wait(lambda: all(committed(name) >= n for name, n in wanted.items()), f"{count} commits each of {names}")

    def amid(self, name):
        """Waits until this producer is amid a transaction."""
        self.wait(lambda: self.current[name].working(), f"a transaction of {name}")
        time.sleep(random.uniform(0, 0.03))
        return self.current[name]

    def kill_producer(self, name):
        """Its successor begins at once."""
        self.amid(name).kill()
        self.start(name)
        self.wait_for_commits(2, [name])
        self.done["killed producers"] += 1

    def make_zombie(self, name, asleep):
        """Pauses a producer for so long, its successor at work, and wakes it up: it is fenced."""
        zombie = self.amid(name)
        zombie.pause()
        try:
            time.sleep(asleep)
            self.start(name)
            self.wait_for_commits(2, [name])
        finally:
            zombie.wake()
        self.wait(zombie.ended, f"the end of the zombie {name}")
        assert zombie.over and zombie.over["e"] == "over", f"woken up, it goes on: {zombie}"
        self.done["zombies"] += 1
        self.done[f"zombies over: {zombie.over['error']}"] += 1
        self.wait_for_commits(1, [name])

    def oversleep(self, name):
        """Pauses a producer until its transaction took too long and was aborted, with no successor."""
        sleeper = self.amid(name)
        sleeper.pause()
        try:
            # Its partitions may not have been added yet, or its end been asked for just now.
            number = sleeper.working() if self.state(name) == "Ongoing" else None
            time.sleep(self.timeout_ms / 1000)
            self.wait(lambda: self.state(name) not in (None, "Ongoing"), f"the transaction of {name} is aborted")
            if number and sleeper.working() == number:
                self.history.doomed.add((name, number))
                self.done["aborted asleep"] += 1
        finally:
            sleeper.wake()
        self.wait_for_commits(2, [name])
        self.done["sleepers"] += 1

    def state(self, name):
        """Of the transaction, as its coordinator has it; None while that cannot be told."""
        try:
            with wire.Conn(self.brokers, timeout=10) as conn:
                (found,) = schema.call(conn, "FindCoordinator", 4, KeyType=1, CoordinatorKeys=[name]).Coordinators
            if found.ErrorCode:
                return None
            coordinator = getattr(self.brokers, "brokers", {}).get(found.NodeId, self.brokers)
            with wire.Conn(coordinator, timeout=10) as conn:
                (told,) = schema.call(conn, "DescribeTransactions", 0, TransactionalIds=[name]).TransactionStates
        except (OSError, wire.Closed):
            return None
        return None if told.ErrorCode else told.TransactionState

    # consumers

    def _consumer(self, isolation, **conf):
        conf = {"auto.offset.reset": "earliest", "isolation.level": isolation, **conf, **RETRIES}
        return ck.Consumer({"bootstrap.servers": self.brokers.bootstrap, "enable.auto.commit": False, **conf})

    def _take(self, consumer, session, isolation):
        for message in consumer.consume(200, timeout=0.1):
            if message.error() is None:
                partition, at = (message.topic(), message.partition()), time.monotonic_ns()
                self.history.poll(session(), isolation, partition, at, message.offset(), message.value().decode())
                self.seen[session(), partition] = message.offset()

    def _assigned(self, isolation):
        consumer = self._consumer(isolation, **{"group.id": "unused"})
        consumer.assign([ck.TopicPartition(topic, p, 0) for topic, p in self.partitions])
        while not self.ended.is_set():
            self._take(consumer, lambda: isolation, isolation)
        consumer.close()

    def _member(self, number):
        conf = {"group.id": "readers", "session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
        conf |= {"enable.auto.commit": True, "auto.commit.interval.ms": 500}
        consumer, session = self._consumer(READ_COMMITTED, **conf), [0]

        def assigned(*_):
            session[0] += 1

        consumer.subscribe(self.topics, on_assign=assigned)
        while not self.ended.is_set():
            self._take(consumer, lambda: (number, session[0]), READ_COMMITTED)
        consumer.close()

    # the end

    def finish(self):
        """Ends the producers, one of them by a kill amid its work, waits until nothing is open, reads all and checks the history.
        Returns what happened."""
        try:
            self._finish()
        finally:
            self.ended.set()
            for writer in [*self.current.values(), *self.past]:
                if writer.popen.poll() is None:
                    writer.kill()
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a consumer does not end"
        assert not self.failed, self.failed[:5]
        self.history.check()
        reads = {isolation: sum(map(len, log.values())) for isolation, log in self.history.final.items()}
        return f"{dict(self.history.outcomes())}; {dict(self.done)}; records {reads}"

    def _finish(self):
        last, *rest = self.current.values()
        last.kill()
        for writer in rest:
            writer.popen.stdin.close()
        end = clock.running() + PATIENCE
        while not all(writer.ended() for writer in rest):
            assert clock.running() < end, f"producers do not end: {[str(writer) for writer in rest]}"
            time.sleep(0.02)
        for writer in [*self.current.values(), *self.past]:
            assert writer.broken is None, str(writer)
        self._wait_for_ends()
        for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
            self._read_all(isolation)
        self._wait_for_readers()
        for name in self.current:
            consumer = self._consumer(READ_COMMITTED, **{"group.id": name})
            [at] = consumer.committed([ck.TopicPartition(*self.partitions[0])], 30)
            self.history.offsets[name] = None if at.offset == ck.OFFSET_INVALID else at.offset
            consumer.close()

    def _wait_for_ends(self):
        """Transactions that nobody ends are aborted when their time is over. What then is still open is found by the check."""
        latest = [self._consumer(isolation, **{"group.id": "unused"}) for isolation in (READ_UNCOMMITTED, READ_COMMITTED)]
        end = time.monotonic() + self.timeout_ms / 1000 + 30
        while True:
            for partition in self.partitions:
                at = [c.get_watermark_offsets(ck.TopicPartition(*partition), timeout=30)[1] for c in latest]
                self.history.ends[partition] = tuple(at)
            if all(high == stable for high, stable in self.history.ends.values()) or time.monotonic() > end:
                break
            time.sleep(0.2)
        for consumer in latest:
            consumer.close()

    def _read_all(self, isolation):
        consumer = load.consumer(self.brokers, enable_partition_eof=True, auto_offset_reset="earliest", isolation_level=isolation)
        final, left = self.history.final[isolation], set(self.partitions)
        for partition in left:
            final[partition] = {}
        consumer.assign([ck.TopicPartition(topic, p, 0) for topic, p in left])
        end = clock.running() + PATIENCE
        while left:
            assert clock.running() < end, f"partitions {left} are not read to their ends"
            for message in consumer.consume(1000, timeout=1):
                partition, error = (message.topic(), message.partition()), message.error()
                if error is None:
                    final[partition][message.offset()] = message.value().decode()
                elif error.code() == ck.KafkaError._PARTITION_EOF:
                    left.discard(partition)
        consumer.close()

    def _wait_for_readers(self):
        """Until those that read along have the last records, too."""
        end = clock.running() + PATIENCE
        for isolation, logs in self.history.final.items():
            for partition, log in logs.items():
                while self.seen[isolation, partition] < max(log, default=0):
                    at = self.seen[isolation, partition]
                    assert clock.running() < end, f"{isolation}: a reader of {partition} hangs at {at} of {max(log)}"
                    time.sleep(0.02)
