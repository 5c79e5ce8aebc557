"""Three brokers on a real ZooKeeper, and everything that goes wrong: nothing acknowledged is lost, nothing is there twice, nothing that a
consumer saw disappears."""

import random
import shutil
import signal
import socket
import statistics
import struct
import threading
import time

import pytest

from support import cluster as clusters
from support import wire
from support.broker import free_port, target
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
        c.start_brokers()
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


LONG = {"zookeeper.session.timeout.ms": 18000}


def test_a_dead_process_is_noticed_before_its_session_ends(make_cluster, figure):
    """Kafka waits for the end of the session. A refused connection tells of it at once; one of the brokers is the controller."""
    c = make_cluster(props=LONG)
    topic = c.create("t", 6)
    w = Witness(c, topic, 6)
    times = []
    for dead in c.brokers:
        w.wait_for_acks(100)
        c[dead].kill()
        killed = time.monotonic()
        c.wait_for(topic, lambda leader, _, isr, dead=dead: leader not in (dead, -1) and dead not in isr, 17, "other leaders")
        times.append(time.monotonic() - killed)
        c[dead].start()
        c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    figure("all partitions have other leaders after a kill, s (session of 18 s)", [round(t, 2) for t in times])
    figure("acknowledged", w.finish())
    figure("longest wait for an acknowledgement, s", round(w.longest, 2))


def test_a_paused_broker_is_not_taken_for_dead(make_cluster):
    """Its kernel keeps the connection, and takes new ones: nothing is refused."""
    c = make_cluster(props=LONG)
    topic = c.create("t", 1)
    paused = c.leader(topic)
    c[paused].popen.send_signal(signal.SIGSTOP)
    rest = [b for n, b in c.brokers.items() if n != paused]
    since = time.monotonic()
    while time.monotonic() - since < 8:
        for b in rest:
            assert c.describe(topic, b)[0][0] == paused, "another leads, as if it had died"
            assert paused in c.members(b)
        time.sleep(0.2)
    c[paused].popen.send_signal(signal.SIGCONT)
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    for b in c.brokers.values():
        assert "process is gone" not in b.log_text()


class Way:
    """A listener in front of a broker's: passes bytes on, until it swallows them."""

    def __init__(self, port):
        self.to, self.swallows, self.pairs = port, False, []
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=1)
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.swallows:
            try:
                near = self.listener.accept()[0]
                if self.swallows:
                    near.close()
                    return
                far = socket.create_connection(("127.0.0.1", self.to))
            except OSError:
                continue
            self.pairs.append((near, far))
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    @staticmethod
    def _pass(one, other):
        try:
            while data := one.recv(65536):
                other.sendall(data)
        except OSError:
            pass
        for end in (one, other):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def swallow(self):
        """Resets what stands; new connections find a full queue, and get no answer."""
        self.swallows = True
        self.filling = [socket.socket() for _ in range(8)]
        for one in self.filling:
            one.setblocking(False)
            one.connect_ex(("127.0.0.1", self.port))
        for near, far in self.pairs:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            for end in (near, far):
                end.close()


def test_a_broker_that_cannot_be_reached_is_not_taken_for_dead(make_cluster):
    """Connections break and new ones time out, as behind a broken switch: only ZooKeeper can tell whether it lives."""
    ways = {}

    def prepare(c):
        for n, b in c.brokers.items():
            inner = free_port()
            ways[n] = Way(inner)
            b.props |= {
                "listeners": f"PLAINTEXT://127.0.0.1:{b.port},INNER://127.0.0.1:{inner}",
                "advertised.listeners": f"PLAINTEXT://127.0.0.1:{b.port},INNER://127.0.0.1:{ways[n].port}",
                "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,INNER:PLAINTEXT",
                "inter.broker.listener.name": "INNER",
            }

    c = make_cluster(props=LONG, prepare=prepare)
    topic = c.create("t", 1, min_insync_replicas=1)
    lost = c.leader(topic)
    ways[lost].swallow()
    rest = set(c.brokers) - {lost}
    since = time.monotonic()
    while time.monotonic() - since < 8:
        for n in c.brokers:
            assert c.describe(topic, c[n])[0][0] == lost, "another leads, as if it had died"
            assert c.members(c[n]) == set(c.brokers)
        time.sleep(0.2)
    for n in rest:
        assert "process is gone" not in c[n].log_text()


def test_lost_zookeeper_data_takes_no_records_away(make_cluster):
    c = make_cluster()
    topic = c.create("t", 2)
    w = Witness(c, topic, 2)
    w.wait_for_acks(100)
    server = c.zookeeper.servers[0]
    server.kill()
    shutil.copytree(server.folder / "version-2", server.folder / "kept")
    shutil.rmtree(server.folder / "version-2")
    server.start()
    server.wait()
    c.wait(lambda: not c.alive(), PATIENCE, "the brokers end")
    for b in c.brokers.values():
        assert "no cluster's metadata" in b.log_text(), b.log_tail()
        assert all(b.partition_dir(topic, p).is_dir() for p in range(2)), sorted(b.data_dir.iterdir())
    server.kill()
    shutil.rmtree(server.folder / "version-2")
    (server.folder / "kept").rename(server.folder / "version-2")
    server.start()
    server.wait()
    c.start_brokers()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    w.wait_for_acks(50)
    w.finish()


def test_a_topic_made_anew_while_a_broker_sleeps_keeps_its_records(make_cluster):
    """The broker learns of both at once; the directories have the same names."""
    c = make_cluster(props={"zookeeper.session.timeout.ms": 60_000})
    c.create("t", 2)
    # The controller deletes topics: it stays awake.
    slept = c[next(leader for leader, _, _ in c.describe("t").values() if leader != c.controller())]
    slept.popen.send_signal(signal.SIGSTOP)
    awake = next(b for b in c.brokers.values() if b is not slept)
    # By hand: an admin client may ask the one that sleeps.
    with wire.Conn(awake, timeout=60) as conn:
        r = conn.call(wire.DELETE_TOPICS, 1, wire.Writer(False).count(1).string("t").i32(30_000).done())
        assert (r.i32(), r.count(), r.string(), r.i16()) == (0, 1, "t", 0)
        made = wire.Writer(False).count(1).string("t").i32(2).i16(3).count(0).count(0).i32(30_000).i8(False).done()
        r = conn.call(wire.CREATE_TOPICS, 4, made)
        assert (r.i32(), r.count(), r.string(), r.i16(), r.string()) == (0, 1, "t", 0, None)
    slept.popen.send_signal(signal.SIGCONT)
    c.wait_for_isr("t", set(c.brokers), PATIENCE)
    w = Witness(c, "t", 2)
    w.wait_for_acks(100)
    for b in c.brokers.values():
        assert all(b.partition_dir("t", p).is_dir() for p in range(2)), sorted(b.data_dir.iterdir())
        assert "No such file" not in b.log_text(), b.log_tail()
    w.finish()
