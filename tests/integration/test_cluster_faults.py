"""Three brokers on a real ZooKeeper, and everything that goes wrong: nothing acknowledged is lost, nothing is there twice, nothing that a
consumer saw disappears."""

import random
import shutil
import signal
import statistics
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from support import cluster as clusters
from support import wire
from support.broker import target
from support.witness import Witness

NOT_LEADER_OR_FOLLOWER = 6
pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
SESSION = clusters.QUICK["zookeeper.session.timeout.ms"] / 1000


@pytest.fixture
def make_cluster(request, root):
    made = []

    def make(**options):
        folder = root / f"cluster-{request.node.name[:40].replace('[', '-').replace(']', '')}-{len(made)}"
        made.append(clusters.Cluster(folder, **options))
        return made[-1].start()

    yield make
    for c in made:
        report = request.node.stash.get(_failed, False)
        for b in c.brokers.values() if report else ():
            print(f"---- {b.folder.name}\n{b.log_tail(80)}")
        c.kill()
        for b in c.brokers.values():
            assert "panicked at" not in b.log_text(), b.log_tail()
        if not request.config.getoption("--keep"):
            shutil.rmtree(c.folder, ignore_errors=True)


_failed = pytest.StashKey()


@pytest.fixture(autouse=True)
def _keep_outcome(request):
    before = request.session.testsfailed
    yield
    request.node.stash[_failed] = request.session.testsfailed > before


def create(cluster, name, partitions=2, replicas=3, **config):
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    config = {k.replace("_", "."): str(v) for k, v in config.items()}
    admin.create_topics([NewTopic(name, partitions, replicas, config=config)], request_timeout=60)[name].result(90)
    cluster.wait_for_isr(name, set(cluster.brokers))
    return name


def leader_of(cluster, topic, partition=0):
    return cluster.describe(topic)[partition][0]


def test_a_killed_leader_is_followed_by_another(make_cluster, figure):
    c = make_cluster()
    topic = create(c, "t")
    w = Witness(c, topic, 2)
    w.wait_for_acks(200)
    dead = leader_of(c, topic)
    c[dead].kill()
    killed = time.monotonic()
    rest = set(c.brokers) - {dead}
    c.wait_for_isr(topic, rest, SESSION + 2 + 5)
    figure("new leader and an ISR of two after the kill, s", round(time.monotonic() - killed, 2))
    w.wait_for_acks()
    c[dead].start()
    back = time.monotonic()
    c.wait_for_isr(topic, set(c.brokers), 10)
    figure("ISR of three after the start, s", round(time.monotonic() - back, 2))
    w.wait_for_acks()
    figure("acknowledged", w.finish())
    figure("longest wait for an acknowledgement, s", round(w.longest, 2))


def test_kills_at_random_lose_nothing(make_cluster, length, figure):
    c = make_cluster()
    topic = create(c, "t", 4)
    w = Witness(c, topic, 4)
    dice, times = random.Random(7), []
    for _ in range(length.pick(5, 100)):
        w.wait_for_acks(100)
        victim = dice.choice(list(c.brokers))
        c[victim].kill()
        killed = time.monotonic()
        w.wait_for_acks(20)
        times.append(time.monotonic() - killed)
        time.sleep(dice.uniform(0, SESSION + 1))
        c[victim].start()
        c.wait_for_isr(topic, set(c.brokers), 30)
    figure("acknowledged", w.finish())
    figure("twenty acknowledgements after a kill, median s", round(statistics.median(times), 2))


def test_all_brokers_killed_at_once_lose_nothing(make_cluster, length):
    c = make_cluster()
    topic = create(c, "t", 4)
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
        c.wait_for_isr(topic, set(c.brokers), 30)
    w.finish()


def test_a_broker_paused_past_its_session_takes_nothing_back(make_cluster, length):
    c = make_cluster()
    topic = create(c, "t", 2)
    w = Witness(c, topic, 2)
    for _ in range(length.pick(2, 20)):
        w.wait_for_acks(100)
        paused = leader_of(c, topic)
        c[paused].popen.send_signal(signal.SIGSTOP)
        w.wait_for_acks(20)
        time.sleep(SESSION)
        c[paused].popen.send_signal(signal.SIGCONT)
        c.wait_for_isr(topic, set(c.brokers), 30)
    w.finish()


def test_producers_do_not_notice_that_zookeeper_is_away(make_cluster, length):
    c = make_cluster(zookeepers=3)
    topic = create(c, "t", 2)
    w = Witness(c, topic, 2)
    w.wait_for_acks(100)
    c.zookeeper.pause()
    since = time.monotonic()
    while time.monotonic() - since < length.pick(12, 60):
        w.wait_for_acks(20, 5)
    c.zookeeper.resume()
    c.wait_for_isr(topic, set(c.brokers), 40)
    w.wait_for_acks(100)
    w.finish()


def test_a_leader_that_hears_of_nobody_takes_no_more_records(make_cluster):
    """For all it knows somebody else leads: what it took by acks=1 would be cut off."""
    c = make_cluster()
    topic = create(c, "t", 1, min_insync_replicas=1)
    lone = leader_of(c, topic)
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
    c.wait_for_isr(topic, set(c.brokers), 40)


def test_a_broker_with_an_empty_directory_is_filled_again(make_cluster, length):
    c = make_cluster()
    topic = create(c, "t", 2)
    w = Witness(c, topic, 2)
    for _ in range(length.pick(2, 20)):
        w.wait_for_acks(200)
        wiped = leader_of(c, topic)
        c[wiped].kill()
        shutil.rmtree(c[wiped].data_dir)
        c[wiped].start()
        c.wait_for_isr(topic, set(c.brokers), 40)
    w.finish()


def test_a_rolling_restart_is_not_noticed(make_cluster, figure):
    c = make_cluster()
    topic = create(c, "t", 4)
    w = Witness(c, topic, 4)
    for b in list(c.brokers.values()):
        w.wait_for_acks(100)
        b.stop()
        w.wait_for_acks(50)
        b.start()
        c.wait_for_isr(topic, set(c.brokers), 30)
    w.finish()
    figure("longest wait for an acknowledgement, s", round(w.longest, 2))


def test_below_the_minimum_nothing_is_acknowledged(make_cluster):
    c = make_cluster()
    topic = create(c, "t", 1)
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
    c.wait_for_isr(topic, set(c.brokers), 30)
    w.finish()
