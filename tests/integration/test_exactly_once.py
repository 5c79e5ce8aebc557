"""Chains of transactions while brokers are killed: what was read is in the committed output exactly once (KIP-98, KIP-447)."""

import random
import time

import pytest

from support import chain, clock, load
from support.broker import QUICK_TRANSACTIONS, target

pytestmark = pytest.mark.timeout(3600)
PARTITIONS = 3


def linked(brokers, source, sink, count=2):
    return [chain.Link(brokers, f"{sink}-{n}", sink, source, sink) for n in range(count)]


def test_a_chain_through_kills_of_the_broker(make_broker, length, figure):
    b = make_broker({**QUICK_TRANSACTIONS, "log.segment.bytes": 1 << 20})
    b.start()
    source, sink = load.create_topic(b, "source", PARTITIONS), load.create_topic(b, "sink", PARTITIONS)
    values, links = chain.Source(b, source, PARTITIONS), linked(b, source, sink)
    kills = length.pick(10 if target() == "corelane" else 3, 60)
    for _ in range(kills):
        before = sum(one.commits for one in links)
        deadline = clock.running() + 120
        while sum(one.commits for one in links) < before + 3:
            assert clock.running() < deadline and not any(one.broken for one in links), [str(one) for one in links]
            time.sleep(0.05)
        time.sleep(random.uniform(0, 0.3))
        b.kill()
        b.start(topics=[source, sink])
    values.finish()
    count = chain.check(b, source, sink, PARTITIONS, links)
    figure("records", f"{count} in {sum(one.commits for one in links)} transactions through {kills} kills")
