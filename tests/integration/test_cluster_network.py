"""Three ZooKeeper servers and three brokers on hosts of a network of the test's own, and cuts between them: nothing acknowledged is
lost, nothing is there twice, nothing that a consumer saw disappears, and a healed network has a whole cluster."""

import random
import time

import pytest

from support import cluster as clusters
from support.broker import target
from support.network import Network
from support.witness import Witness

pytestmark = [
    pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers"),
    pytest.mark.timeout(7200),
]
ZOOKEEPERS = [f"zookeeper-{n}" for n in (1, 2, 3)]
TIMES = {"zookeeper.session.timeout.ms": 4000, "replica.lag.time.max.ms": 3000}
SESSION = TIMES["zookeeper.session.timeout.ms"] / 1000
PARTITIONS = 3
# For what takes a few seconds where processors are to be had.
PATIENCE = 120


@pytest.fixture(scope="module")
def networked(request, root):
    """One cluster for all tests here. They run on the clients' host: so do this thread and those that it starts."""
    network = Network(clusters.hosts())
    try:
        with network.entered("clients"):
            c = clusters.Cluster(root / "networked", zookeepers=3, props=TIMES, network=network)
            with c.running(request.config.getoption("--keep")):
                yield c
    finally:
        network.close()


@pytest.fixture
def cluster(networked, watch):
    for b in networked.brokers.values():
        watch(b)
    # Also after a test that has failed.
    networked.wait_for_sessions(PATIENCE)
    yield networked
    networked.network.heal()
    networked.check()


def host(number):
    return f"broker-{number}"


def others(c, number):
    return [n for n in c.brokers if n != number]


class Case:
    """A load on a topic of its own while `break_network` and `wait_for_effect` take turns with mends."""

    def __init__(self, cluster, name, length, figure):
        self.cluster, self.network, self.figure = cluster, cluster.network, figure
        self.times = length.pick(1, 20)
        self.topic = cluster.create(f"{name}-{time.time_ns()}", PARTITIONS)
        self.witness = Witness(cluster, self.topic, PARTITIONS)

    def rounds(self):
        """A number a round; after each one the network is healed and everybody in sync again."""
        for n in range(self.times):
            self.witness.wait_for_acks()
            yield n
            self.network.heal()
            self.cluster.wait_for_sessions(PATIENCE)
            self.cluster.wait_for_isr(self.topic, set(self.cluster.brokers), PATIENCE)
            self.witness.wait_for_acks(timeout=PATIENCE)
        acked = self.witness.finish()
        self.figure(f"acknowledged over {self.times} cuts", acked)
        self.figure("longest time without an acknowledgement in a partition, s", round(self.witness.longest, 2))

    def leads_elsewhere(self, old):
        """The others have new leaders among themselves, and everything is acknowledged again."""
        rest = others(self.cluster, old)
        self.cluster.wait_for(
            self.topic, lambda leader, _, isr: leader in rest and set(isr) == set(rest), PATIENCE, f"all but {old} lead", rest
        )
        self.witness.wait_for_acks(timeout=PATIENCE)

    def alone(self, leader, partition):
        """It has no follower in sync: nothing is acknowledged there, as `min.insync.replicas` is 2; the other partitions go on."""

        def check():
            return all(self.cluster.describe(self.topic, b)[partition][::2] == (leader, [leader]) for b in self.cluster.alive())

        self.cluster.wait(check, PATIENCE, f"{leader} is alone in sync", lambda: self.cluster.describe(self.topic))
        elsewhere = [p for p, (at, _, _) in self.cluster.describe(self.topic).items() if at != leader]
        self.witness.wait_for_acks(timeout=PATIENCE, partitions=elsewhere)


LOSES_LEADERSHIP = {
    "zookeeper": lambda net, leader, followers: net.part([leader], ZOOKEEPERS),
    "zookeeper_and_followers": lambda net, leader, followers: net.part([leader], ZOOKEEPERS + followers),
    "to_zookeeper": lambda net, leader, followers: net.cut([leader], ZOOKEEPERS),
    "from_zookeeper": lambda net, leader, followers: net.cut(ZOOKEEPERS, [leader]),
}


@pytest.mark.parametrize("cut", LOSES_LEADERSHIP)
def test_a_leader_cut_off_from_zookeeper_is_followed_by_another(cluster, length, figure, cut):
    case = Case(cluster, cut, length, figure)
    for n in case.rounds():
        leader = cluster.leader(case.topic, n % PARTITIONS)
        LOSES_LEADERSHIP[cut](cluster.network, host(leader), [host(b) for b in others(cluster, leader)])
        case.leads_elsewhere(leader)


KEEPS_LEADERSHIP = {
    "followers": lambda net, leader, followers: net.part([leader], followers),
    "to_followers": lambda net, leader, followers: net.cut([leader], followers),
    "from_followers": lambda net, leader, followers: net.cut(followers, [leader]),
}


@pytest.mark.parametrize("cut", KEEPS_LEADERSHIP)
def test_a_leader_cut_off_from_its_followers_acknowledges_nothing(cluster, length, figure, cut):
    case = Case(cluster, cut, length, figure)
    for n in case.rounds():
        partition = n % PARTITIONS
        leader = cluster.leader(case.topic, partition)
        KEEPS_LEADERSHIP[cut](cluster.network, host(leader), [host(b) for b in others(cluster, leader)])
        case.alone(leader, partition)


def test_a_follower_cut_off_is_not_waited_for(cluster, length, figure):
    case = Case(cluster, "follower", length, figure)
    for n in case.rounds():
        follower = others(cluster, cluster.leader(case.topic, n % PARTITIONS))[n % 2]
        rest = others(cluster, follower)
        cluster.network.part([host(follower)], ZOOKEEPERS + [host(b) for b in rest])
        case.leads_elsewhere(follower)


def test_a_controller_cut_off_is_replaced(cluster, length, figure):
    case = Case(cluster, "controller", length, figure)
    for _ in case.rounds():
        cluster.wait(lambda: cluster.controller() in cluster.brokers, PATIENCE, "there is a controller")
        controller = cluster.controller()
        rest = others(cluster, controller)
        cluster.network.part([host(controller)], ZOOKEEPERS + [host(b) for b in rest])
        cluster.wait(lambda: all(cluster.controller(cluster[b]) in rest for b in rest), PATIENCE, "another is the controller")
        case.leads_elsewhere(controller)


@pytest.mark.parametrize("together", [True, False], ids=["together", "apart"])
def test_a_majority_of_zookeeper_cut_off_is_not_noticed(cluster, length, figure, together):
    """Together, the two go on as an ensemble in which the brokers' sessions end; each alone serves nobody."""
    case, dice = Case(cluster, "majority", length, figure), random.Random(5)
    for _ in case.rounds():
        majority = dice.sample(ZOOKEEPERS, 2)
        rest = [name for name in cluster.network.hosts if name not in majority]
        cluster.network.part(majority, rest)
        if not together:
            cluster.network.part(majority[:1], majority[1:])
        cut = time.monotonic()
        while time.monotonic() - cut < 2 * SESSION or (together and not sessions_ended(cluster, majority[0])):
            case.witness.wait_for_acks()


def sessions_ended(cluster, name):
    """No broker is registered any more, as this server says."""
    (server,) = (s for s in cluster.zookeeper.servers if s.folder.name == name)
    with cluster.network.entered(name):
        said = server.ask("dump")
    return "ession" in said and "/brokers/ids/" not in said
