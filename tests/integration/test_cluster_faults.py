"""Three brokers on a real ZooKeeper, and everything that goes wrong: nothing acknowledged is lost, nothing is there twice, nothing that a
consumer saw disappears."""

import os
import random
import re
import shutil
import signal
import socket
import statistics
import struct
import threading
import time

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from support import cluster as clusters
from support import disks, schema, wire
from support.broker import free_port, target
from support.witness import Witness

NOT_LEADER_OR_FOLLOWER = 6
KAFKA_STORAGE_ERROR = 56
PREFERRED_LEADER_NOT_AVAILABLE = 80
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


def filled(c, topic, batches=20):
    """Ten records a batch, acknowledged by every replica in sync; how many."""
    with wire.Conn(c[c.leader(topic)], timeout=30) as conn:
        for n in range(batches):
            values = [b"%010d" % (10 * n + k) + bytes(1000) for k in range(10)]
            error, _ = wire.produce(conn, topic, 0, wire.batch(values), acks=-1)
            assert error == 0
    return 10 * batches


def there(c, broker, topic):
    """Values of the partition's records, as `broker` has them."""
    values, at = [], 0
    with wire.Conn(c[broker], timeout=30) as conn:
        end = wire.list_offsets(conn, topic, [0], -1)[0][2]
        while at < end:
            batches = list(wire.batches(wire.fetch(conn, topic, 0, at)["data"]))
            values += [int(value[:10]) for batch in batches for value in batch.values()]
            at = len(values)
    return values


def elect_unclean(c, topic):
    asked = [{"Topic": topic, "Partitions": [0]}]
    with wire.Conn(c.any(), timeout=30) as conn:
        told = schema.call(conn, "ElectLeaders", 2, ElectionType=1, TopicPartitions=asked, TimeoutMs=30_000)
    return told.ReplicaElectionResults[0].PartitionResult[0].ErrorCode


def test_an_emptied_last_leader_does_not_lead_with_nothing(make_cluster):
    """The others would cut their logs to what it has."""
    c = make_cluster()
    topic = c.create("t", 1, min_insync_replicas=1)
    admin = AdminClient({"bootstrap.servers": c.bootstrap})
    admin.create_topics([NewTopic("alone", 3, 1)])["alone"].result(60)
    acked = filled(c, topic)
    wiped = c.leader(topic)
    others = [n for n in c.brokers if n != wiped]
    for n in others:
        c[n].kill()
        c.wait(lambda: n not in c.describe(topic, c[wiped])[0][2], PATIENCE, f"{n} has left the ISR")
    c[wiped].kill()
    shutil.rmtree(c[wiped].data_dir)
    c[wiped].start()
    c.wait(lambda: "had their last records in data directories that this broker has no longer" in c[wiped].log_text(), PATIENCE, "it says so")
    for n in others:
        c[n].start()
    c.wait_for_members(set(c.brokers), PATIENCE)
    c.wait_for_sessions()
    time.sleep(3)
    assert c.leader(topic) == -1, "nobody is in sync, and the last leader has nothing"
    assert elect_unclean(c, topic) == 0
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    assert c.leader(topic) in others
    assert there(c, c.leader(topic), topic) == list(range(acked))
    # Partitions that have no other replica come back, with nothing.
    assert sorted(leader for leader, _, _ in c.describe("alone").values()) == [1, 2, 3]
    alone = next(p for p, (leader, _, _) in c.describe("alone").items() if leader == wiped)
    with wire.Conn(c[wiped], timeout=30) as conn:
        assert wire.list_offsets(conn, "alone", [alone], -1)[alone][::2] == (0, 0)


def elect_preferred(c, topic, partition=0):
    asked = [{"Topic": topic, "Partitions": [partition]}]
    with wire.Conn(c.any(), timeout=30) as conn:
        told = schema.call(conn, "ElectLeaders", 2, ElectionType=0, TopicPartitions=asked, TimeoutMs=30_000)
    return told.ReplicaElectionResults[0].PartitionResult[0].ErrorCode


def test_rot_that_a_leader_meets_is_fetched_anew_from_the_next(make_cluster):
    """Passed over, its records would be gone, although others have them."""
    c = make_cluster()
    topic = c.create("t", 1)
    acked = filled(c, topic)
    hurt = c.describe(topic)[0][1][0]
    c[hurt].stop()
    log = c[hurt].partition_dir(topic, 0) / f"{0:020}.log"
    content = bytearray(log.read_bytes())
    content[30_000] ^= 4
    log.write_bytes(content)
    c[hurt].start()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    assert "damaged" not in c[hurt].log_text(), "a start that was clean looks at the end of the log"
    if c.leader(topic) != hurt:
        assert elect_preferred(c, topic) == 0
    c.wait(lambda: c.leader(topic) == hurt, PATIENCE, "it leads")

    def moved():
        with wire.Conn(c[hurt], timeout=30) as conn:
            return wire.fetch(conn, topic, 0, 0)["error"] or c.leader(topic) != hurt

    c.wait(moved, PATIENCE, "another leads")
    c.wait(lambda: c.leader(topic) not in (-1, hurt), PATIENCE, "another leads")
    assert there(c, c.leader(topic), topic) == list(range(acked))
    c.wait(lambda: "is damaged: it is fetched anew from the leader" in c[hurt].log_text(), PATIENCE, "it is emptied")
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    assert elect_preferred(c, topic) == 0
    c.wait(lambda: c.leader(topic) == hurt, PATIENCE, "it leads again")
    assert there(c, hurt, topic) == list(range(acked))


def test_a_leader_short_of_room_hands_over(make_cluster, small_disk, request, figure):
    """Others have room. It is in sync until it has to refuse records as a follower, and leads again once it has room."""

    def on_a_small_disk(cluster):
        request.addfinalizer(cluster.kill)
        cluster[1].props["log.dirs"] = small_disk / "data"

    props = {"corelane.disk.reserve.bytes": 64 << 20, "log.segment.bytes": 1 << 20, "leader.imbalance.check.interval.seconds": 2}
    props["replica.lag.time.max.ms"] = 30_000
    c = make_cluster(on_a_small_disk, props=props)
    topic = c.create("t", 3)
    led = next(p for p, (leader, _, _) in c.describe(topic).items() if leader == 1)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with open(filler, "wb") as f:
        # A twentieth of the disk is kept.
        os.posix_fallocate(f.fileno(), 0, free - (4 << 20))
    refused = None
    with wire.Conn(c[1], timeout=30) as conn:
        for _ in range(100):
            error, _ = wire.produce(conn, topic, led, wire.batch([bytes(60_000)]), acks=-1)
            if error and not refused:
                refused = time.monotonic()
            if error == NOT_LEADER_OR_FOLLOWER:
                break
            time.sleep(0.02)
    c.wait(lambda: c.leader(topic, led) not in (-1, 1), PATIENCE, "another leads")
    figure("refused to handed over, s", round(time.monotonic() - refused, 2))
    assert sorted(c.describe(topic)[led][2]) == [1, 2, 3]
    # It has to refuse what it would follow with as well, and says so at once.
    since = time.monotonic()
    with wire.Conn(c[c.leader(topic, led)], timeout=30) as conn:
        assert wire.produce(conn, topic, led, wire.batch([b"x"]), acks=-1)[0] == 0
    figure("a record is acknowledged without it, s", round(time.monotonic() - since, 2))
    assert time.monotonic() - since < 15, "waited for it until replica.lag.time.max.ms"
    # The preferred leader is looked for every two seconds.
    time.sleep(6)
    assert c.leader(topic, led) != 1 and sorted(c.describe(topic)[led][2]) == [2, 3]
    assert elect_preferred(c, topic, led) == PREFERRED_LEADER_NOT_AVAILABLE
    filler.unlink()
    c.wait(lambda: c.leader(topic, led) == 1, PATIENCE, "it leads again")


def test_a_sole_replica_leads_again_once_there_is_room(make_cluster, small_disk, request):
    """Nobody else can lead meanwhile, and the replica is opened anew: its leader epoch rises."""

    def on_a_small_disk(cluster):
        request.addfinalizer(cluster.kill)
        cluster[1].props["log.dirs"] = small_disk / "data"

    c = make_cluster(on_a_small_disk, props={"log.segment.bytes": 1 << 20})
    topic = c.create("t", 3, replicas=1, min_insync_replicas=1)
    led = next(p for p, (leader, _, _) in c.describe(topic).items() if leader == 1)
    filler = small_disk / "filler"
    free = os.statvfs(small_disk).f_bavail * os.statvfs(small_disk).f_frsize
    with open(filler, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, free - (4 << 20))
    acked = 0
    with wire.Conn(c[1], timeout=30) as conn:
        while not (refused := wire.produce(conn, topic, led, wire.batch([bytes(60_000)]), acks=-1)[0]):
            acked += 1
            assert acked < 1000
    assert refused == KAFKA_STORAGE_ERROR
    filler.unlink()

    def taken():
        with wire.Conn(c[1], timeout=30) as conn:
            return wire.produce(conn, topic, led, wire.batch([b"room again"]), acks=-1)

    c.wait(lambda: (answer := taken())[0] == 0 and answer[1] >= acked, PATIENCE, "it takes records again")


def test_a_disk_that_fails_takes_only_its_replicas_along(make_cluster, length, root, request, figure):
    """Others lead what was led there, and soon: a commit takes many. What is in the broker's other directory stays as it was."""
    try:
        disk = disks.Disk(root, "ext4", mib=1024)
    except disks.Unavailable as e:
        pytest.skip(str(e))
    request.addfinalizer(disk.remove)
    failing = disk.point / "data"

    def two_directories(cluster):
        request.addfinalizer(cluster.kill)
        cluster[1].props["log.dirs"] = f"{cluster[1].folder / 'sound'},{failing}"

    c = make_cluster(two_directories)
    count = length.pick(300, 2000)
    c.create("t", 4)
    c.create("wide", count)
    lost = {topic: {p for p in range(n) if (failing / f"{topic}-{p}").is_dir()} for topic, n in (("t", 4), ("wide", count))}
    assert len(lost["t"]) == 2 and len(lost["wide"]) == count // 2
    led = sum(leader == 1 for p, (leader, _, _) in c.describe("wide").items() if p in lost["wide"])
    w = Witness(c, "t", 4)
    w.wait_for_acks(100)

    def given_up(topic, seen):
        return all((isr == [2, 3] and leader in isr) for leader, isr in ((seen[p][0], sorted(seen[p][2])) for p in lost[topic]))

    since = time.monotonic()
    disk.cut_power()
    for topic in ("wide", "t"):
        c.wait(lambda: all(given_up(topic, c.describe(topic, b)) for b in c.alive()), PATIENCE, f"{topic} is led by others")
        if topic == "wide":
            figure(f"{led} leaders and {count // 2} places given up after the disk failed, s", round(time.monotonic() - since, 2))
    for _ in range(10):
        w.wait_for_acks(20)
        for topic in ("t", "wide"):
            seen = c.describe(topic)
            assert given_up(topic, seen), f"{topic}: a replica without a disk is taken back"
            for p, (_, _, isr) in seen.items():
                assert p in lost[topic] or sorted(isr) == [1, 2, 3], f"{topic}-{p}: {isr}"
    said = [int(found) for found in re.findall("gave up the places of replicas that are offline.* replicas=([0-9]+)", c[1].log_text())]
    # Leaders are given up without this line; the offsets topic has partitions there as well.
    assert 0 < sum(said) <= len(lost["t"]) + len(lost["wide"]) + 4, f"some of them more than once: {said}"
    told(figure, w)


@pytest.mark.parametrize("what", ["cut", "gone"])
def test_a_broker_whose_log_lost_records_is_filled_before_it_counts(make_cluster, what):
    """Left in the ISR, it would lead when the others are away, and have them cut their logs to what it has."""
    c = make_cluster()
    topic = c.create("t", 1)
    acked = 0
    with wire.Conn(c[c.leader(topic)], timeout=30) as conn:
        for n in range(20):
            error, first = wire.produce(conn, topic, 0, wire.batch([b"%d" % (10 * n + k) for k in range(10)]), acks=-1)
            assert (error, first) == (0, acked)
            acked += 10
    hurt = next(n for n in c.brokers if n != c.leader(topic))
    c[hurt].stop()
    log = c[hurt].partition_dir(topic, 0) / f"{0:020}.log"
    if what == "gone":
        log.unlink()
    else:
        log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    c[hurt].start()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)
    assert "found damaged: it takes its places in ISRs again" in c[hurt].log_text()
    for n in c.brokers:
        if n != hurt:
            c[n].kill()
    # The last member of the ISR: nobody else may lead.
    c.wait(lambda: c.leader(topic) == hurt, PATIENCE, f"{hurt} leads")
    with wire.Conn(c[hurt], timeout=30) as conn:
        ends = lambda: [wire.list_offsets(conn, topic, [0], at)[0][2] for at in (-2, -1)]  # noqa: E731
        c.wait(lambda: ends() == [0, acked], PATIENCE, "all records are there", ends)
        got = wire.fetch(conn, topic, 0, 0)["data"]
    values = [int(value) for batch in wire.batches(got) for value in batch.values()]
    assert values == list(range(acked))
    for n in c.brokers:
        if n != hurt:
            c[n].start()
    c.wait_for_isr(topic, set(c.brokers), PATIENCE)


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
