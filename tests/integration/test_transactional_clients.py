"""Transactional producers, and consumers that read what was committed (KIP-98, KIP-447)."""

import time

import confluent_kafka as ck
import pytest

from support import clock, java, load, schema, wire
from support.broker import QUICK_TRANSACTIONS
from support.wire import ERR, err


@pytest.fixture
def broker(transaction_broker):
    return transaction_broker


def transactional(broker, name, **conf):
    p = load.producer(broker, transactional_id=name, **conf)
    p.init_transactions(30)
    return p


def wrote(p, topic, values, partitions=1):
    for n, value in enumerate(values):
        p.produce(topic, value, partition=n % partitions)
    assert p.flush(30) == 0


def read(broker, topic, partitions=1, isolation="read_committed"):
    """Every record up to the end that the isolation level has, by partition."""
    c = load.consumer(broker, isolation_level=isolation, auto_offset_reset="earliest")
    c.assign([ck.TopicPartition(topic, p, 0) for p in range(partitions)])
    values, ended, deadline = {p: [] for p in range(partitions)}, set(), clock.running() + 60
    try:
        while len(ended) < partitions:
            assert clock.running() < deadline, values
            m = c.poll(1)
            if m is None:
                continue
            if m.error():
                assert m.error().code() == ck.KafkaError._PARTITION_EOF, m.error()
                ended.add(m.partition())
            else:
                values[m.partition()].append(m.value())
    finally:
        c.close()
    return values


def values(prefix, count):
    return [b"%s-%d" % (prefix, n) for n in range(count)]


def test_what_is_committed_is_read_and_what_is_aborted_is_not(broker):
    topic = load.create_topic(broker, "ends", 2)
    p = transactional(broker, "ends")
    expected = []
    for n in range(6):
        p.begin_transaction()
        batch = values(b"%d" % n, 10)
        wrote(p, topic, batch, 2)
        if n % 2:
            p.abort_transaction(30)
        else:
            p.commit_transaction(30)
            expected += batch
    got = read(broker, topic, 2)
    assert got[0] == expected[::2] and got[1] == expected[1::2]
    everything = read(broker, topic, 2, "read_uncommitted")
    assert sum(len(part) for part in everything.values()) == 60


def test_an_open_transaction_holds_readers_back(broker):
    topic = load.create_topic(broker, "open", 1)
    p = transactional(broker, "open")
    p.begin_transaction()
    wrote(p, topic, [b"first"])
    plain = load.producer(broker)
    wrote(plain, topic, [b"plain"])
    assert read(broker, topic) == {0: []}
    p.commit_transaction(30)
    assert read(broker, topic) == {0: [b"first", b"plain"]}


def test_a_second_producer_fences_the_first(broker):
    topic = load.create_topic(broker, "fence", 1)
    zombie = transactional(broker, "fence")
    zombie.begin_transaction()
    wrote(zombie, topic, [b"zombie"])
    new = transactional(broker, "fence")
    new.begin_transaction()
    wrote(new, topic, [b"new"])
    with pytest.raises(ck.KafkaException) as failed:
        zombie.commit_transaction(30)
    assert failed.value.args[0].fatal(), failed.value
    new.commit_transaction(30)
    assert read(broker, topic) == {0: [b"new"]}


def test_offsets_are_committed_with_what_was_made_of_them(broker):
    source, sink = load.create_topic(broker, "source", 1), load.create_topic(broker, "sink", 1)
    wrote(load.producer(broker), source, values(b"in", 30))
    p = transactional(broker, "chain")
    c = load.consumer(broker, group_id="chain", isolation_level="read_committed", auto_offset_reset="earliest")
    c.subscribe([source])
    taken, deadline = 0, clock.running() + 60
    while taken < 30:
        assert clock.running() < deadline
        messages = [m for m in c.consume(10, 1) if not m.error()]
        if not messages:
            continue
        p.begin_transaction()
        wrote(p, sink, [m.value() for m in messages])
        offsets = [ck.TopicPartition(source, 0, messages[-1].offset() + 1)]
        p.send_offsets_to_transaction(offsets, c.consumer_group_metadata(), 30)
        if taken == 0 and len(messages) < 30:
            # The first try comes to nothing: neither records nor offsets.
            p.abort_transaction(30)
            [at] = c.committed([ck.TopicPartition(source, 0)], 30)
            assert at.offset == ck.OFFSET_INVALID
            p.begin_transaction()
            wrote(p, sink, [m.value() for m in messages])
            p.send_offsets_to_transaction(offsets, c.consumer_group_metadata(), 30)
        p.commit_transaction(30)
        taken += len(messages)
        [at] = c.committed([ck.TopicPartition(source, 0)], 30)
        assert at.offset == messages[-1].offset() + 1
    c.close()
    assert read(broker, sink) == {0: values(b"in", 30)}


def test_a_transaction_that_takes_too_long_is_aborted(broker):
    topic = load.create_topic(broker, "late", 1)
    p = transactional(broker, "late", transaction_timeout_ms=1000)
    p.begin_transaction()
    wrote(p, topic, [b"late"])
    wrote(load.producer(broker), topic, [b"plain"])
    deadline = clock.running() + 30
    while read(broker, topic) != {0: [b"plain"]}:
        assert clock.running() < deadline
        time.sleep(0.2)
    with pytest.raises(ck.KafkaException):
        p.commit_transaction(30)


@pytest.mark.parametrize("end", ["commit", "abort", "none"])
def test_kill_amid_a_transaction(make_broker, end):
    b = make_broker(QUICK_TRANSACTIONS)
    b.start()
    topic = load.create_topic(b, "crash", 2)
    p = transactional(b, "crash")
    p.begin_transaction()
    wrote(p, topic, values(b"one", 20), 2)
    p.commit_transaction(30)
    p.begin_transaction()
    wrote(p, topic, values(b"two", 20), 2)
    b.kill()
    b.start(topics=[topic])
    expected = values(b"one", 20)
    if end == "commit":
        p.commit_transaction(60)
        expected += values(b"two", 20)
    elif end == "abort":
        p.abort_transaction(60)
    else:
        transactional(b, "crash")
    assert read(b, topic, 2) == {0: expected[::2], 1: expected[1::2]}
    b.kill()
    b.start(topics=[topic])
    assert read(b, topic, 2) == {0: expected[::2], 1: expected[1::2]}


def test_javas_producer_and_what_kafkas_tools_tell(make_broker):
    broker = make_broker(QUICK_TRANSACTIONS)
    broker.start()
    topic = load.create_topic(broker, "java", 3)
    java.run(
        "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", 3000, "--record-size", 100, "--throughput", 3000,
        "--transactional-id", "perf", "--transaction-duration-ms", 100, "--producer-props", f"bootstrap.servers={broker.bootstrap}",
    )  # fmt: skip
    assert sum(len(part) for part in read(broker, topic, 3).values()) == 3000
    tool = ("org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", broker.bootstrap)
    [listed] = [s.split() for s in java.run(*tool, "list").out.splitlines() if s.startswith("perf ")]
    assert listed[3] == "CompleteCommit", listed
    assert "CompleteCommit" in java.run(*tool, "describe", "--transactional-id", "perf").out
    broker.stop()
    logs = [str(p) for n in range(5) for p in broker.partition_dir("__transaction_state", n).glob("*.log")]
    told = java.run("org.apache.kafka.tools.DumpLogSegments", "--transaction-log-decoder", "--files", ",".join(logs)).out
    assert 'key: {"type":"0","data":{"transactionalId":"perf"}}' in told and '"transactionStatus":4' in told, told[-2000:]


def test_kafkas_tool_finds_and_aborts_what_hangs(make_broker):
    """A transaction that no coordinator knows of, as older brokers could leave it."""
    b = make_broker({**QUICK_TRANSACTIONS, "transaction.partition.verification.enable": "false"})
    b.start()
    topic = load.create_topic(b, "hangs", 1)
    tool = ("org.apache.kafka.tools.TransactionsCommand", "--bootstrap-server", b.bootstrap)
    with wire.Conn(b) as conn:
        pid, epoch = wire.init_producer_id(conn)
        # What is found is older than transaction.max.timeout.ms, or than the tool is told.
        batch = wire.batch([b"lost"], pid, epoch, 0, attributes=0x10)
        body = wire.produce_body({topic: {0: batch}}, 9, transactional_id="nobody")
        assert wire.read_produce(conn.call(wire.PRODUCE, 9, body), 9)[topic, 0] == (0, 0)
    wrote(load.producer(b), topic, [b"plain"])
    assert read(b, topic) == {0: []}
    found = java.run(*tool, "find-hanging", "--broker-id", broker_id(b), "--max-transaction-timeout", 0).out
    assert [s.split()[:3] for s in found.splitlines() if s.startswith(topic)] == [[topic, "0", str(pid)]], found
    java.run(*tool, "abort", "--topic", topic, "--partition", 0, "--start-offset", 0)
    assert read(b, topic) == {0: [b"plain"]}


def broker_id(b):
    with wire.Conn(b) as conn:
        return wire.metadata(conn, None, version=8)["brokers"][0][0]


def test_an_epoch_for_each_transaction(broker):
    """Java's producer goes by transaction.version 2 (KIP-890)."""
    topic = load.create_topic(broker, "epochs", 2)
    java.run(
        "org.apache.kafka.tools.ProducerPerformance", "--topic", topic, "--num-records", 2000, "--record-size", 100, "--throughput", 2000,
        "--transactional-id", "epochs", "--transaction-duration-ms", 100, "--producer-props", f"bootstrap.servers={broker.bootstrap}",
    )  # fmt: skip
    assert sum(len(part) for part in read(broker, topic, 2).values()) == 2000
    with wire.Conn(broker) as conn:
        (known,) = schema.call(conn, "DescribeTransactions", 0, TransactionalIds=["epochs"]).TransactionStates
    assert known.TransactionState == "CompleteCommit" and known.ProducerEpoch >= 2, known


class ByHand:
    """A transactional producer of `transaction.version` 2."""

    def __init__(self, conn, topic, name):
        self.conn, self.topic, self.name = conn, topic, name
        schema.call(conn, "FindCoordinator", 4, KeyType=1, CoordinatorKeys=[name])
        again(lambda: self._initialize(5))

    def _initialize(self, version):
        answer = schema.call(
            self.conn, "InitProducerId", version, TransactionalId=self.name, TransactionTimeoutMs=60_000, ProducerId=-1, ProducerEpoch=-1
        )
        self.id, self.epoch = answer.ProducerId, answer.ProducerEpoch
        return answer.ErrorCode

    def send(self, value, sequence=0, epoch=None, version=12):
        batch = wire.batch([value], self.id, self.epoch if epoch is None else epoch, sequence, attributes=0x10)
        body = wire.produce_body({self.topic: {0: batch}}, version, transactional_id=self.name)
        return again(lambda: wire.read_produce(self.conn.call(wire.PRODUCE, version, body), version)[self.topic, 0][0])

    def end(self, commit, epoch=None, version=5):
        """Its error; the next epoch is taken over."""
        answer = {}

        def ask():
            answer["end"] = schema.call(
                self.conn, "EndTxn", version, TransactionalId=self.name, ProducerId=self.id,
                ProducerEpoch=self.epoch if epoch is None else epoch, Committed=commit,
            )  # fmt: skip
            return answer["end"].ErrorCode

        error = again(ask)
        if error == 0 and epoch is None and version >= 5:
            assert (answer["end"].ProducerId, answer["end"].ProducerEpoch) == (self.id, self.epoch + 1)
            self.epoch += 1
        return error


# While markers are on their way, or a coordinator loads.
PASSING = err("NOT_ENOUGH_REPLICAS", "CONCURRENT_TRANSACTIONS", "COORDINATOR_LOAD_IN_PROGRESS", "COORDINATOR_NOT_AVAILABLE", "NOT_COORDINATOR")


def again(ask):
    for _ in range(200):
        error = ask()
        if error not in PASSING:
            break
        time.sleep(0.05)
    return error


def test_what_comes_late_is_refused(broker):
    """Batches and ends of a transaction that has ended, with the next one open and without."""
    topic, fenced, invalid_epoch = load.create_topic(broker, "tardy", 1), ERR["PRODUCER_FENCED"], ERR["INVALID_PRODUCER_EPOCH"]
    with wire.Conn(broker) as conn:
        p = ByHand(conn, topic, "tardy")
        assert p.send(b"one") == 0
        assert p.end(True) == 0
        # An answer was lost: the same end again.
        assert p.end(True, epoch=p.epoch - 1) == 0
        assert p.end(False, epoch=p.epoch - 1) == ERR["INVALID_TXN_STATE"]
        assert p.send(b"late", 1, epoch=p.epoch - 1) == invalid_epoch
        assert read(broker, topic) == {0: [b"one"]}
        assert p.send(b"two") == 0
        assert p.end(True, epoch=p.epoch - 1) == fenced
        assert p.end(False, epoch=p.epoch - 1) == fenced
        assert p.send(b"late", 1, epoch=p.epoch - 1) == invalid_epoch
        assert p.end(False) == 0
        assert p.send(b"three") == 0
        assert p.end(True) == 0
        p.id += 1000
        assert p.end(True, epoch=p.epoch) == ERR["INVALID_PRODUCER_ID_MAPPING"]
    assert read(broker, topic) == {0: [b"one", b"three"]}


def test_a_late_batch_of_an_older_client_opens_nothing(broker):
    """Partitions that were not added to the transaction take no batch of it."""
    topic = load.create_topic(broker, "tardy-old", 1)
    with wire.Conn(broker) as conn:
        p = ByHand(conn, topic, "tardy-old")
        assert p.send(b"not added", version=9) == ERR["INVALID_TXN_STATE"]
        assert p.send(b"not added", version=11) == ERR["TRANSACTION_ABORTABLE"]
        added = [{"Name": topic, "Partitions": [0]}]
        (t,) = schema.call(
            conn, "AddPartitionsToTxn", 3, V3AndBelowTransactionalId=p.name, V3AndBelowProducerId=p.id,
            V3AndBelowProducerEpoch=p.epoch, V3AndBelowTopics=added,
        ).ResultsByTopicV3AndBelow  # fmt: skip
        assert t.ResultsByPartition[0].PartitionErrorCode == 0
        assert p.send(b"added", version=9) == 0
        assert p.end(True, version=4) == 0
        assert read(broker, topic) == {0: [b"added"]}
        assert p.send(b"late", 1, version=9) == ERR["INVALID_TXN_STATE"]
        wrote(load.producer(broker), topic, [b"plain"])
    assert read(broker, topic) == {0: [b"added", b"plain"]}


def test_offsets_that_come_late_are_refused(broker):
    topic = load.create_topic(broker, "tardy-offsets", 1)
    with wire.Conn(broker) as conn:
        p = ByHand(conn, topic, "tardy-offsets")

        def commit(version, epoch=None):
            partition = {"PartitionIndex": 0, "CommittedOffset": 7, "CommittedLeaderEpoch": -1, "CommittedMetadata": ""}
            (t,) = schema.call(
                conn, "TxnOffsetCommit", version, TransactionalId=p.name, GroupId="tardy-offsets", ProducerId=p.id,
                ProducerEpoch=p.epoch if epoch is None else epoch, GenerationId=-1, MemberId="", GroupInstanceId=None,
                Topics=[{"Name": topic, "Partitions": [partition]}],
            ).Topics  # fmt: skip
            return t.Partitions[0].ErrorCode

        schema.call(conn, "FindCoordinator", 4, KeyType=0, CoordinatorKeys=["tardy-offsets"])
        assert again(lambda: commit(3)) == ERR["INVALID_TXN_STATE"]
        assert again(lambda: commit(5)) == 0
        assert p.end(True) == 0
        c = load.consumer(broker, group_id="tardy-offsets")
        deadline = clock.running() + 30
        while c.committed([ck.TopicPartition(topic, 0)], 30)[0].offset != 7:
            assert clock.running() < deadline
            time.sleep(0.1)
        c.close()
        assert again(lambda: commit(5, p.epoch - 1)) == ERR["INVALID_PRODUCER_EPOCH"]
        assert again(lambda: commit(3)) == ERR["INVALID_TXN_STATE"]
