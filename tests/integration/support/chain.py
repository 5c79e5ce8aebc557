"""Applications that consume, transform and produce in transactions, through every failure of the brokers, and the check that each
input is in the committed output exactly once."""

import collections
import threading
import time

import confluent_kafka as ck

from . import clock, load

# librdkafka forgets what it waits for when it begins anew with no broker left.
RETRIES = {
    "reconnect.backoff.ms": 10,
    "reconnect.backoff.max.ms": 200,
    "topic.metadata.refresh.interval.ms": 1000,
    "metadata.recovery.strategy": "none",
}
BATCH = 50


class Source:
    """Values that are unique, in order in each partition, until it is stopped."""

    def __init__(self, brokers, topic, partitions, rate=400):
        self.topic, self.partitions, self.rate = topic, partitions, rate
        self.ended, self.failed, self.sent = threading.Event(), [], 0
        conf = {"enable_idempotence": True, "message_timeout_ms": 300_000, **RETRIES}
        self.producer = load.producer(brokers, **conf)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        def delivered(error, _):
            if error is not None:
                self.failed.append(str(error))

        while not self.ended.is_set():
            for p in range(self.partitions):
                self.producer.produce(self.topic, b"%d" % self.sent, partition=p, on_delivery=delivered)
                self.sent += 1
            self.producer.poll(self.partitions / self.rate)

    def finish(self):
        self.ended.set()
        self.thread.join()
        assert self.producer.flush(120) == 0 and not self.failed, self.failed[:3]


class Link:
    """One application: takes what its group gives it, writes it to the same partition of the sink. What the client says is over is
    begun anew, with the same transactional id."""

    def __init__(self, brokers, name, group, source, sink):
        self.brokers, self.name, self.group, self.source, self.sink = brokers, name, group, source, sink
        self.ended, self.broken = threading.Event(), None
        self.sessions, self.commits, self.aborts, self.errors = 0, 0, 0, collections.Counter()
        self.thread = threading.Thread(target=self._run, name=name, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.ended.is_set():
                try:
                    self.sessions += 1
                    self._session()
                except ck.KafkaException as e:
                    self.errors[e.args[0].name()] += 1
        except Exception as e:  # noqa: BLE001 - handed to the test
            self.broken = repr(e)

    def _session(self):
        conf = {"transactional_id": self.name, "transaction_timeout_ms": 15_000, **RETRIES}
        producer = load.producer(self.brokers, **conf)
        conf = {"group_id": self.group, "isolation_level": "read_committed", "auto_offset_reset": "earliest", "enable_partition_eof": False}
        consumer = load.consumer(self.brokers, session_timeout_ms=6000, heartbeat_interval_ms=500, **conf, **RETRIES)
        batch = []
        try:
            self._insist(producer.init_transactions)

            def moved(*_):
                # Whoever has the partitions next begins where was committed.
                batch.clear()

            consumer.subscribe([self.source], on_assign=moved, on_revoke=moved, on_lost=moved)
            while not self.ended.is_set():
                batch.clear()
                until = time.monotonic() + 0.1
                while len(batch) < BATCH and time.monotonic() < until:
                    m = consumer.poll(0.02)
                    if m is not None and m.error() is None:
                        batch.append(m)
                if batch:
                    self._write(producer, consumer, batch)
        finally:
            consumer.close()

    def _write(self, producer, consumer, batch):
        producer.begin_transaction()
        try:
            ends = {}
            for m in batch:
                producer.produce(self.sink, m.value(), partition=m.partition())
                ends[m.partition()] = m.offset() + 1
            offsets = [ck.TopicPartition(self.source, p, end) for p, end in ends.items()]
            metadata = consumer.consumer_group_metadata()
            self._insist(lambda t: producer.send_offsets_to_transaction(offsets, metadata, t))
            self._insist(producer.commit_transaction)
            self.commits += 1
        except ck.KafkaException as e:
            if e.args[0].txn_requires_abort():
                self.aborts += 1
                self._insist(producer.abort_transaction)
            raise

    def _insist(self, work):
        while True:
            try:
                return work(10)
            except ck.KafkaException as e:
                if not e.args[0].retriable() or self.ended.is_set():
                    raise

    def finish(self):
        self.ended.set()
        self.thread.join(120)
        assert not self.thread.is_alive() and self.broken is None, f"{self.name}: {self.broken}"

    def __str__(self):
        return f"{self.name}: {self.commits} commits, {self.aborts} aborts, {self.sessions} sessions, {dict(self.errors)}"


def read(brokers, topic, partitions, isolation, timeout=120):
    """The values of each partition up to the end that the isolation level has."""
    c = load.consumer(brokers, isolation_level=isolation, auto_offset_reset="earliest")
    c.assign([ck.TopicPartition(topic, p, 0) for p in range(partitions)])
    values, ended, deadline = {p: [] for p in range(partitions)}, set(), clock.running() + timeout
    try:
        while len(ended) < partitions:
            assert clock.running() < deadline, {p: len(v) for p, v in values.items()}
            m = c.poll(1)
            if m is None:
                continue
            if m.error():
                if m.error().code() == ck.KafkaError._PARTITION_EOF:
                    ended.add(m.partition())
            else:
                ended.discard(m.partition())
                values[m.partition()].append(m.value())
    finally:
        c.close()
    return values


def check(brokers, source, sink, partitions, links, timeout=120):
    """Waits until the links have taken all, ends them, and compares; the number of records."""
    inputs = read(brokers, source, partitions, "read_uncommitted")
    count, deadline = sum(map(len, inputs.values())), clock.running() + timeout
    while True:
        outputs = read(brokers, sink, partitions, "read_committed")
        for p in range(partitions):
            seen = collections.Counter(outputs[p])
            twice = [value for value, n in seen.items() if n > 1]
            assert not twice, f"partition {p}: {len(twice)} twice, {twice[:5]}; {[str(one) for one in links]}"
        if sum(map(len, outputs.values())) >= count:
            break
        missing = {p: sorted(set(inputs[p]) - set(outputs[p]), key=int)[:3] for p in range(partitions)}
        assert clock.running() < deadline, f"missing {missing}; {[str(one) for one in links]}"
        time.sleep(0.5)
    for one in links:
        one.finish()
    assert outputs == inputs, "the order of each partition is kept"
    # Nothing is left open.
    for p in range(partitions):
        ends = [load.end(brokers, sink, p), committed_end(brokers, sink, p)]
        assert ends[0] == ends[1], f"partition {p} ends at {ends[0]}, for readers of committed records at {ends[1]}"
    return count


def committed_end(brokers, topic, partition):
    c = load.consumer(brokers, isolation_level="read_committed")
    try:
        return c.get_watermark_offsets(ck.TopicPartition(topic, partition), timeout=30)[1]
    finally:
        c.close()
