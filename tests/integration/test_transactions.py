"""Transactions in partitions: batches of a producer that speaks for itself, ended by WriteTxnMarkers as a coordinator ends them, and
what readers of committed records see."""

import re

import confluent_kafka as ck
import pytest

from support import java, load, schema, wire
from support.wire import ERR

ABORT, COMMIT = False, True
TXN, CONTROL = 0x10, 0x20
INVALID_TXN_STATE, COORDINATOR_FENCED, TXN_ID_AUTHORIZATION = 48, 52, 53
READ_COMMITTED = 1


@pytest.fixture
def txn_broker(make_broker):
    # No coordinator knows of these transactions.
    b = make_broker({"transaction.partition.verification.enable": "false", "log.segment.bytes": 1 << 20})
    b.start()
    return b


class Producer:
    """A transactional producer whose transactions are ended by hand."""

    def __init__(self, conn, topic):
        self.conn, self.topic = conn, topic
        self.pid, self.epoch = wire.init_producer_id(conn)
        self.seq = {}

    def batch(self, partition, *values, attributes=TXN):
        seq = self.seq.get(partition, 0)
        return wire.batch(list(values), self.pid, self.epoch, seq, attributes=attributes)

    def send(self, partition, *values, transactional_id="by-hand", **options):
        body = wire.produce_body({self.topic: {partition: self.batch(partition, *values, **options)}}, 9, transactional_id=transactional_id)
        error, base = wire.read_produce(self.conn.call(wire.PRODUCE, 9, body), 9)[self.topic, partition]
        if error == 0:
            self.seq[partition] = self.seq.get(partition, 0) + len(values)
        return error, base

    def end(self, result, *partitions, version=1, coordinator=7, epoch=None, txn_version=0):
        """The error of each partition."""
        marker = {
            "ProducerId": self.pid, "ProducerEpoch": self.epoch if epoch is None else epoch, "TransactionResult": result,
            "Topics": [{"Name": self.topic, "PartitionIndexes": list(partitions)}], "CoordinatorEpoch": coordinator,
        }  # fmt: skip
        if version >= 2:
            marker["TransactionVersion"] = txn_version
        (answer,) = schema.call(self.conn, "WriteTxnMarkers", version, Markers=[marker]).Markers
        assert answer.ProducerId == self.pid
        return {p.PartitionIndex: p.ErrorCode for t in answer.Topics for p in t.Partitions}

    def bump(self):
        self.epoch += 1
        self.seq = {}


def ends(conn, topic, partition=0):
    """The high watermark and the last stable offset, as ListOffsets has them."""
    found = []
    for isolation in (0, READ_COMMITTED):
        asked = [{"Name": topic, "Partitions": [{"PartitionIndex": partition, "Timestamp": -1, "CurrentLeaderEpoch": -1}]}]
        (t,) = schema.call(conn, "ListOffsets", 7, ReplicaId=-1, IsolationLevel=isolation, Topics=asked).Topics
        assert t.Partitions[0].ErrorCode == 0
        found.append(t.Partitions[0].Offset)
    return tuple(found)


def fetch(conn, topic, offset, isolation=READ_COMMITTED):
    found = wire.fetch(conn, topic, 0, offset, 12, isolation=isolation, max_wait=0)
    assert found["error"] == 0
    return found


def read(b, topic, isolation, count, partition=0):
    """The values that a consumer gets up to the end."""
    c = load.consumer(b, **{"isolation.level": isolation})
    c.assign([ck.TopicPartition(topic, partition, 0)])
    values = []
    while True:
        m = c.poll(30)
        assert m is not None, f"nothing more after {values}"
        if m.error():
            assert m.error().code() == ck.KafkaError._PARTITION_EOF, m.error()
            break
        values.append(m.value())
    c.close()
    assert len(values) == count, values
    return values


def test_a_commit_and_an_abort(txn_broker):
    b = txn_broker
    topic = load.create_topic(b, "txn", 2)
    with wire.Conn(b) as conn:
        one, two = Producer(conn, topic), Producer(conn, topic)
        assert one.send(0, b"a0", b"a1") == (0, 0)
        assert two.send(0, b"b0") == (0, 2)
        assert one.send(1, b"a2") == (0, 0)
        assert wire.produce(conn, topic, 0, wire.batch([b"plain"])) == (0, 3)
        assert ends(conn, topic) == (4, 0)
        assert read(b, topic, "read_uncommitted", 4) == [b"a0", b"a1", b"b0", b"plain"]
        assert read(b, topic, "read_committed", 0) == []
        assert one.end(COMMIT, 0, 1, version=2) == {0: 0, 1: 0}
        assert ends(conn, topic) == (5, 2)
        assert read(b, topic, "read_committed", 2) == [b"a0", b"a1"]
        assert read(b, topic, "read_committed", 1, partition=1) == [b"a2"]
        found = fetch(conn, topic, 0)
        assert (found["hw"], found["lso"], found["aborted"]) == (5, 2, [])
        assert two.end(ABORT, 0) == {0: 0}
        assert ends(conn, topic) == (6, 6)
        assert read(b, topic, "read_committed", 3) == [b"a0", b"a1", b"plain"]
        assert read(b, topic, "read_uncommitted", 4) == [b"a0", b"a1", b"b0", b"plain"]
        found = fetch(conn, topic, 0)
        assert (found["lso"], found["aborted"]) == (6, [(two.pid, 2)])
        heads = wire.batches(found["data"])
        assert [h.attributes & (TXN | CONTROL) for h in heads] == [TXN, TXN, 0, TXN | CONTROL, TXN | CONTROL]
        assert [(h.pid, h.pepoch, h.seq, len(h.data)) for h in heads[3:]] == [(one.pid, 0, -1, 78), (two.pid, 0, -1, 78)]
        # Version, and the epoch of the coordinator.
        assert heads[3].values() == [b"\0\0\0\0\0\7"]
        assert fetch(conn, topic, 0, isolation=0)["aborted"] is None
        assert [h.attributes & CONTROL for h in wire.batches(fetch(conn, topic, 5)["data"])] == [CONTROL]


def test_a_waiting_reader_wakes_up(txn_broker):
    """When the last stable offset moves, and not before."""
    b = txn_broker
    topic = load.create_topic(b, "txn-wait", 1)
    with wire.Conn(b) as conn, wire.Conn(b, timeout=60) as reader:
        p = Producer(conn, topic)
        assert p.send(0, b"x") == (0, 0)
        sent = reader.send(wire.FETCH, 12, wire.fetch_body({topic: {0: 0}}, 12, max_wait=50_000, isolation=READ_COMMITTED))
        assert p.send(0, b"y") == (0, 1)
        assert p.end(COMMIT, 0) == {0: 0}
        got, answer = reader.recv()
        found = wire.read_fetch(answer, 12)[2][topic, 0]
        assert (got, found["hw"], found["lso"], len(wire.batches(found["data"]))) == (sent, 3, 3, 3)


def test_fencing(txn_broker):
    b = txn_broker
    topic = load.create_topic(b, "txn-fence", 1)
    with wire.Conn(b) as conn:
        p = Producer(conn, topic)
        p.epoch = 5
        assert p.send(0, b"x") == (0, 0)
        assert p.end(COMMIT, 0, epoch=4) == {0: ERR["INVALID_PRODUCER_EPOCH"]}
        assert p.end(COMMIT, 0, epoch=5, version=2, txn_version=2) == {0: ERR["INVALID_PRODUCER_EPOCH"]}
        assert p.end(COMMIT, 0, 3) == {0: 0, 3: ERR["UNKNOWN_TOPIC_OR_PARTITION"]}
        assert p.send(0, b"y") == (0, 2)
        assert p.end(ABORT, 0, coordinator=6) == {0: COORDINATOR_FENCED}
        assert p.end(ABORT, 0, coordinator=8, epoch=6, version=2, txn_version=2) == {0: 0}
        # Its epoch was raised with the marker.
        assert p.send(0, b"z")[0] == ERR["INVALID_PRODUCER_EPOCH"]
        p.bump()
        assert p.send(0, b"z") == (0, 4)
        # A late marker of the last transaction does not end this one; without one open it is written once more.
        assert p.end(ABORT, 0, coordinator=8, version=2, txn_version=2) == {0: ERR["INVALID_PRODUCER_EPOCH"]}
        assert p.end(COMMIT, 0, coordinator=8, epoch=7, version=2, txn_version=2) == {0: 0}
        assert p.end(COMMIT, 0, coordinator=8, epoch=7, version=2, txn_version=2) == {0: 0}
        assert ends(conn, topic) == (7, 7)
        assert read(b, topic, "read_committed", 2) == [b"x", b"z"]


def test_records_that_cannot_be(txn_broker):
    b = txn_broker
    topic = load.create_topic(b, "txn-bad", 1)
    with wire.Conn(b) as conn:
        p = Producer(conn, topic)
        assert p.send(0, b"x", transactional_id=None)[0] == TXN_ID_AUTHORIZATION
        assert p.send(0, b"x") == (0, 0)
        assert p.send(0, b"y", attributes=0)[0] == INVALID_TXN_STATE
        assert p.send(0, b"y", attributes=TXN | CONTROL)[0] == ERR["INVALID_RECORD"]
        assert ends(conn, topic) == (1, 0)


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_open_and_aborted_transactions_outlast_a_restart(txn_broker, how):
    b = txn_broker
    topic = load.create_topic(b, "txn-restart", 1, segment_bytes=1 << 20)
    with wire.Conn(b) as conn:
        one, two = Producer(conn, topic), Producer(conn, topic)
        kept = []
        # Over several segments.
        for n in range(40):
            assert one.send(0, b"%d" % n + b"." * 100_000)[0] == 0
            assert one.end(COMMIT if n % 3 else ABORT, 0) == {0: 0}
            kept += [n] if n % 3 else []
        assert two.send(0, b"open")[0] == 0
        assert one.send(0, b"later")[0] == 0
        assert one.end(ABORT, 0) == {0: 0}
        before = ends(conn, topic)
        assert before == (83, 80)
        listed = all_aborted(conn, topic)
        assert len(listed) == 14
    getattr(b, how)()
    b.start(topics=[topic])
    with wire.Conn(b) as conn:
        one.conn = two.conn = conn
        assert ends(conn, topic) == before
        assert all_aborted(conn, topic) == listed
        values = read(b, topic, "read_committed", len(kept))
        assert [int(v.split(b".")[0]) for v in values] == kept
        assert described(conn, topic)[two.pid] == (0, 0, -1, 80)
        assert described(conn, topic)[one.pid] == (0, 40, 7, -1)
        assert two.end(COMMIT, 0) == {0: 0}
        assert ends(conn, topic) == (84, 84)
        assert read(b, topic, "read_committed", len(kept) + 1)[-1] == b"open"


def test_kafkas_tool_reads_the_index(txn_broker):
    b = txn_broker
    topic = load.create_topic(b, "txn-index", 1)
    with wire.Conn(b) as conn:
        one, two = Producer(conn, topic), Producer(conn, topic)
        assert [one.send(0, b"a"), two.send(0, b"b"), one.send(0, b"c")] == [(0, 0), (0, 1), (0, 2)]
        assert one.end(ABORT, 0) == {0: 0} and two.end(ABORT, 0) == {0: 0}
    b.stop()
    (index,) = b.partition_dir(topic, 0).glob("*.txnindex")
    out = java.run(java.DUMP, "--files", str(index), heap="512m").out
    found = re.findall(r"producerId: (\d+) firstOffset: (\d+) lastOffset: (\d+) lastStableOffset: (\d+)", out)
    assert [tuple(map(int, entry)) for entry in found] == [(one.pid, 0, 3, 1), (two.pid, 1, 4, 5)], out


def all_aborted(conn, topic):
    """Producer and first offset of every aborted transaction below the last stable offset, by fetches from the start on."""
    offset, (_, end), found = 0, ends(conn, topic), []
    while offset < end:
        part = fetch(conn, topic, offset)
        # Kafka names those of the rest of the segment, too.
        found += [txn for txn in part["aborted"] if txn not in found and txn[1] < end]
        offset = wire.batches(part["data"])[-1].last + 1
    return found


def described(conn, topic):
    """Epoch, last sequence, coordinator's epoch and start of the open transaction of each producer."""
    asked = [{"Name": topic, "PartitionIndexes": [0]}]
    (t,) = schema.call(conn, "DescribeProducers", 0, Topics=asked).Topics
    (p,) = t.Partitions
    assert p.ErrorCode == 0
    return {
        a.ProducerId: (a.ProducerEpoch, a.LastSequence, a.CoordinatorEpoch, a.CurrentTxnStartOffset)
        for a in p.ActiveProducers
    }
