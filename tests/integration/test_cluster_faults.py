"""Three brokers on a real ZooKeeper, and everything that goes wrong: nothing acknowledged is lost, nothing is there twice, nothing that a
consumer saw disappears."""

import random
import shutil
import signal
import statistics
import time

import pytest

from support import cluster as clusters
from support import wire
from support.broker import target
from support.witness import Witness

NOT_LEADER_OR_FOLLOWER = 6
pytestmark = [
    pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers"),
    pytest.mark.timeout(7200),
]
# For what takes a few seconds where processors are to be had.
PATIENCE = 60
SESSION = clusters.QUICK["zookeeper.session.timeout.ms"] / 1000


def told(figure, witness):
    figure("acknowledged, and all of it there once and in order", witness.finish())
    figure("longest time without an acknowledgement in a partition, s", round(witness.longest, 2))


def spread(times):
    return f"median {statistics.median(times):.2f}, worst {max(times):.2f} of {len(times)}"


def test_a_killed_leader_is_followed_by_another(make_cluster, length, figure):
    c = make_cluster()
    topic = c.create("t", 2)
    w = Witness(c, topic, 2)
    gone, back = [], []
    for _ in range(length.pick(1, 20)):
        w.wait_for_acks(100)
        dead = c.leader(topic)
        rest = set(c.brokers) - {dead}
        c[dead].kill()
        since = time.monotonic()
        c.wait_for_isr(topic, rest, PATIENCE)
        gone.append(time.monotonic() - since)
        w.wait_for_acks()
        since = time.monotonic()
        c[dead].start()
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
        back.append(time.monotonic() - since)
        w.wait_for_acks()
    told(figure, w)
    figure("new leader and an ISR of two after the kill, s", spread(gone))
    figure("ISR of three after the start, s", spread(back))


def test_kills_at_random_lose_nothing(make_cluster, length, figure):
    c = make_cluster()
    topic = c.create("t", 4)
    w = Witness(c, topic, 4)
    dice = random.Random(7)
    for _ in range(length.pick(5, 100)):
        w.wait_for_acks(50)
        victim = dice.choice(list(c.brokers))
        c[victim].kill()
        # Back before its session has ended, or after.
        time.sleep(dice.uniform(0, SESSION + 2))
        c[victim].start()
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    told(figure, w)


def test_all_brokers_killed_at_once_lose_nothing(make_cluster, length, figure):
    c = make_cluster()
    topic = c.create("t", 4)
    w = Witness(c, topic, 4)
    for _ in range(length.pick(2, 20)):
        w.wait_for_acks(200)
        for b in c.brokers.values():
            b.popen.kill()
        for b in c.brokers.values():
            b.kill()
        for b in c.brokers.values():
            b.spawn()
        for b in c.brokers.values():
            b.wait(time.monotonic())
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    told(figure, w)


def test_a_broker_paused_past_its_session_takes_nothing_back(make_cluster, length, figure):
    c = make_cluster()
    topic = c.create("t", 2)
    w = Witness(c, topic, 2)
    for _ in range(length.pick(2, 20)):
        w.wait_for_acks(100)
        paused = c.leader(topic)
        c[paused].popen.send_signal(signal.SIGSTOP)
        w.wait_for_acks(20)
        time.sleep(SESSION)
        c[paused].popen.send_signal(signal.SIGCONT)
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    told(figure, w)


def test_producers_do_not_notice_that_zookeeper_is_away(make_cluster, length, figure):
    c = make_cluster(zookeepers=3)
    topic = c.create("t", 2)
    w = Witness(c, topic, 2)
    w.wait_for_acks(100)
    c.zookeeper.pause()
    since = time.monotonic()
    while time.monotonic() - since < length.pick(12, 60):
        w.wait_for_acks(20)
    c.zookeeper.resume()
    c.wait_for_sessions()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    w.wait_for_acks(100)
    told(figure, w)


def test_a_leader_that_hears_of_nobody_takes_no_more_records(make_cluster):
    """For all it knows somebody else leads: what it took by acks=1 would be cut off."""
    c = make_cluster()
    topic = c.create("t", 1, min_insync_replicas=1)
    lone = c.leader(topic)
    with wire.Conn(c[lone], timeout=60) as conn:

        def produce():
            return wire.produce(conn, topic, 0, wire.batch([b"v"]), acks=1)[0]

        assert produce() == 0
        c.zookeeper.pause()
        c.wait(lambda: produce() == 0 and "connection to ZooKeeper is lost" in c[lone].log_text(), SESSION + 10, "ZooKeeper is away")
        time.sleep(SESSION)
        assert produce() == 0, "its followers are there"
        followers = [b for n, b in c.brokers.items() if n != lone]
        for b in followers:
            b.popen.send_signal(signal.SIGSTOP)
        c.wait(lambda: produce() == NOT_LEADER_OR_FOLLOWER, SESSION + 10, "the leader refuses", produce)
        for b in followers:
            b.popen.send_signal(signal.SIGCONT)
        c.wait(lambda: produce() == 0, 10, "its followers are there again", produce)
        c.zookeeper.resume()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)


def test_a_broker_with_an_empty_directory_is_filled_again(make_cluster, length, figure):
    c = make_cluster()
    topic = c.create("t", 2)
    w = Witness(c, topic, 2)
    for _ in range(length.pick(2, 20)):
        w.wait_for_acks(200)
        wiped = c.leader(topic)
        c[wiped].kill()
        shutil.rmtree(c[wiped].data_dir)
        c[wiped].start()
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    told(figure, w)


def test_a_rolling_restart_is_not_noticed(make_cluster, figure):
    c = make_cluster()
    topic = c.create("t", 4)
    w = Witness(c, topic, 4)
    for b in list(c.brokers.values()):
        w.wait_for_acks(100)
        b.stop()
        w.wait_for_acks(50)
        b.start()
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    told(figure, w)


def test_below_the_minimum_nothing_is_acknowledged(make_cluster):
    c = make_cluster()
    topic = c.create("t", 1)
    w = Witness(c, topic, 1)
    w.wait_for_acks(100)
    first, second, _ = c.brokers
    c[first].kill()
    c[second].kill()
    time.sleep(SESSION + 3)
    acked = w.acked()
    time.sleep(2)
    assert w.acked() == acked, "acknowledged by one replica, under min.insync.replicas=2"
    c[first].start()
    w.wait_for_acks(100)
    c[second].start()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    w.finish()
