"""Transactions over several topics while brokers are killed, and producers killed, paused and woken up as zombies: none is lost, torn,
read before its end or although it was aborted, and nothing stays open."""

import random
import time

import pytest

from support import load, schema, wire
from support.broker import QUICK_TRANSACTIONS, target
from support.transactional import Witness

pytestmark = [
    pytest.mark.skipif(target() != "corelane", reason="kills Corelane's brokers"),
    pytest.mark.timeout(5400),
]
TOPICS = {"one": 3, "two": 2}
INVALID_TXN_STATE = 48
# A coordinator is not there yet, cannot be asked yet, or is busy with the last transaction.
PASSING = {14, 15, 16, 19, 51}


def things(witness, dice):
    """What goes wrong with producers, by name."""

    def any_of():
        return dice.choice(list(witness.current))

    return {
        "kill": lambda: witness.kill_producer(any_of()),
        "nap": lambda: witness.make_zombie(any_of(), dice.uniform(0, 0.5)),
        "zombie": lambda: witness.make_zombie(any_of(), witness.timeout_ms / 1000 + 1),
        "oversleep": lambda: witness.oversleep(any_of()),
    }


def go_wrong(witness, dice, faults, first, seconds):
    """Each of `first`, in that order, and then any of the faults until the time is over."""
    end = time.monotonic() + seconds
    for name in first:
        time.sleep(dice.uniform(0, 0.3))
        faults[name]()
    while time.monotonic() < end:
        time.sleep(dice.uniform(0, 0.3))
        faults[dice.choice(list(faults))]()


def test_one_broker(make_broker, length, figure):
    b = make_broker({**QUICK_TRANSACTIONS, "log.segment.bytes": 1 << 20})
    b.start()
    for topic, partitions in TOPICS.items():
        load.create_topic(b, topic, partitions)
    dice, w = random.Random(15), Witness(b, TOPICS, timeout_ms=3000)

    def kill_broker():
        b.kill()
        b.start(topics=list(TOPICS))
        w.wait_for_commits(2)
        w.done["killed brokers"] += 1

    w.wait_for_commits(5)
    faults = {**things(w, dice), "broker": kill_broker}
    go_wrong(w, dice, faults, ["broker", "kill", "nap", "broker", "zombie", "oversleep"], length.pick(0, 1200))
    figure("history", w.finish())


def agree(ask):
    """Its answer, once it is more than a passing error."""
    for _ in range(200):
        if (answer := ask()) not in PASSING:
            break
        time.sleep(0.05)
    return answer


def test_leaders_ask_coordinators_of_other_brokers(make_cluster):
    """Whether a transaction is open; a partition that was not added to it takes none of its batches."""
    c = make_cluster(props={"transaction.state.log.num.partitions": 6})
    topic = c.create("by-hand", 3)
    with wire.Conn(c.any(), timeout=60) as conn:

        def find():
            return schema.call(conn, "FindCoordinator", 4, KeyType=1, CoordinatorKeys=list("abcdefgh")).Coordinators

        agree(lambda: max(found.ErrorCode for found in find()))
        coordinators = {found.NodeId: found.Key for found in find()}
    assert set(coordinators) == set(c.brokers), "an id for each coordinator"
    for broker, name in coordinators.items():
        with wire.Conn(c[broker], timeout=60) as conn:
            of_transaction = {"TransactionalId": name, "TransactionTimeoutMs": 60_000, "ProducerId": -1, "ProducerEpoch": -1}
            assert agree(lambda: schema.call(conn, "InitProducerId", 3, **of_transaction).ErrorCode) == 0
            # Anew: its epoch is the answer's.
            made = schema.call(conn, "InitProducerId", 3, **of_transaction)
            pid, epoch = made.ProducerId, made.ProducerEpoch
            add = {"V3AndBelowTransactionalId": name, "V3AndBelowProducerId": pid, "V3AndBelowProducerEpoch": epoch}
            added = [{"Name": topic, "Partitions": [0, 1]}]
            (told,) = schema.call(conn, "AddPartitionsToTxn", 3, **add, V3AndBelowTopics=added).ResultsByTopicV3AndBelow
            assert {p.PartitionErrorCode for p in told.ResultsByPartition} == {0}
            for partition, expected in ((0, 0), (1, 0), (2, INVALID_TXN_STATE)):
                batch = wire.batch([b"x"], pid, epoch, 0, attributes=0x10)
                body = wire.produce_body({topic: {partition: batch}}, 9, transactional_id=name)
                with wire.Conn(c[c.leader(topic, partition)], timeout=60) as leader:
                    produce = lambda: wire.read_produce(leader.call(wire.PRODUCE, 9, body), 9)[topic, partition][0]  # noqa: B023, E731
                    assert agree(produce) == expected, f"coordinator {broker}, partition {partition}"
            end = {"TransactionalId": name, "ProducerId": pid, "ProducerEpoch": epoch, "Committed": True}
            assert agree(lambda: schema.call(conn, "EndTxn", 3, **end).ErrorCode) == 0


def test_a_cluster(make_cluster, length, figure):
    c = make_cluster(
        props={
            "transaction.state.log.num.partitions": 6,
            "transaction.abort.timed.out.transaction.cleanup.interval.ms": 500,
        }
    )
    for topic, partitions in TOPICS.items():
        c.create(topic, partitions)
    dice, w = random.Random(16), Witness(c, TOPICS, timeout_ms=8000)

    def kill(victims, asleep):
        for b in victims:
            b.kill()
        time.sleep(asleep)
        for b in victims:
            b.spawn()
        for b in victims:
            b.wait(time.monotonic())
        for topic in TOPICS:
            c.wait_for_isr(topic, set(c.brokers), 90)
        w.wait_for_commits(2)
        w.done["killed brokers"] += len(victims)

    def coordinator():
        """The one of any transactional id."""
        return c.brokers[c.leader("__transaction_state", dice.randrange(6))]

    w.wait_for_commits(5)
    faults = {
        **things(w, dice),
        "broker": lambda: kill([dice.choice(list(c.brokers.values()))], dice.uniform(0, 5)),
        "coordinator": lambda: kill([coordinator()], 5),
        "all brokers": lambda: kill(list(c.brokers.values()), 0),
    }
    go_wrong(w, dice, faults, ["coordinator", "nap", "all brokers"], length.pick(0, 2100))
    figure("history", w.finish())
