"""Three brokers on a real ZooKeeper: registration, topics, leaders that move, admin requests. What is produced and read is another
suite's (test_cluster_faults)."""

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from support import cluster as clusters
from support import java, load, wire
from support.broker import target
from support.cli import Cli

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
SESSION = clusters.QUICK["zookeeper.session.timeout.ms"] / 1000


@pytest.fixture
def cluster(make_cluster):
    return make_cluster(props={"min.insync.replicas": 1})


def topics(cluster, *args, check=True):
    """What `kafka-topics` prints. A topic that was created is known to all brokers afterwards."""
    done = java.run(java.TOPICS, "--bootstrap-server", cluster.bootstrap, *args, check=check)
    if "--create" in args and check:
        cluster.wait_for(args[args.index("--topic") + 1], lambda *_: True)
    return done


def leaders(cluster, topic):
    return [state[0] for _, state in sorted(cluster.describe(topic).items())]


def wait_for_leaders(cluster, topic, holds, timeout, what):
    start = time.monotonic()
    cluster.wait_for(topic, lambda leader, replicas, isr: holds(leader, replicas, isr), timeout, what)
    return round(time.monotonic() - start, 2)


def test_brokers_and_topics_as_kafkas_tools_see_them(cluster):
    shell = cluster.zookeeper.shell("ls /brokers/ids", "get /brokers/ids/2", "get /corelane/brokers/3", "get /controller")
    assert "[1, 2, 3]" in shell, shell
    assert f'"endpoints":["PLAINTEXT://{cluster[2].bootstrap}"]' in shell, shell
    assert '"phase":"active"' in shell and '"brokerid":' in shell, shell
    made = topics(cluster, "--create", "--topic", "t", "--partitions", 6, "--replication-factor", 3, "--config", "retention.ms=77777")
    assert "Created topic t" in made.out
    text = topics(cluster, "--describe", "--topic", "t").out
    assert "PartitionCount: 6\tReplicationFactor: 3" in text and "retention.ms=77777" in text, text
    assert all(text.count(f"\tLeader: {broker}\t") == 2 for broker in (1, 2, 3)), "each leads its share"
    stored = cluster.zookeeper.shell("get /brokers/topics/t/partitions/5/state", "get /config/topics/t")
    assert '"leader_epoch":0' in stored and '"retention.ms":"77777"' in stored, stored
    again = topics(cluster, "--create", "--topic", "t", "--partitions", 6, check=False)
    assert again.code != 0 and "already exists" in again.out + again.log
    few = topics(cluster, "--create", "--topic", "u", "--partitions", 1, "--replication-factor", 4, check=False)
    assert "cannot be reached because only 3 broker(s) are registered" in few.out + few.log, str(few)
    topics(cluster, "--alter", "--topic", "t", "--partitions", 9)
    cluster.wait(lambda: all(len(cluster.describe("t", b)) == 9 for b in cluster.brokers.values()), 20, "nine partitions everywhere")
    assert topics(cluster, "--describe", "--topic", "t").out.count("\tLeader: ") == 9
    # Every broker has its directories.
    cluster.wait(lambda: all(len(list((b.folder / "data").glob("t-*"))) == 9 for b in cluster.brokers.values()), 10, "directories")
    topics(cluster, "--delete", "--topic", "t")
    cluster.wait(lambda: all(not cluster.describe("t", b) for b in cluster.brokers.values()), 20, "the topic is gone")
    cluster.wait(lambda: "t" not in cluster.zookeeper.shell("ls /brokers/topics").splitlines()[-3], 20, "its znode is gone")
    topics(cluster, "--create", "--topic", "t", "--partitions", 2, "--replication-factor", 2)
    assert topics(cluster, "--describe", "--topic", "t").out.count("\tLeader: ") == 2, "the name is free again"


def test_leaders_move_from_a_killed_broker_and_it_comes_back(cluster, figure):
    topics(cluster, "--create", "--topic", "t", "--partitions", 6, "--replication-factor", 3)
    cluster[1].kill()
    took = wait_for_leaders(
        cluster, "t", lambda leader, _, isr: leader in (2, 3) and 1 not in isr, SESSION + 2, "leaders of a dead broker have moved"
    )
    figure("leaders of a killed broker have moved, s after the kill", took)
    cluster[1].start()
    cluster.wait_for_members({1, 2, 3})
    cluster.wait(
        lambda: '"phase":"active"' in cluster.zookeeper.shell("get /corelane/brokers/1"), 20, "the broker takes part again"
    )
    assert all(leader in (2, 3) for leader in leaders(cluster, "t"))


@pytest.mark.alone
def test_an_idle_cluster_of_a_thousand_partitions(cluster, length, figure):
    """Followers wait at their leaders' ends: what that costs each broker, with one of them at work for nobody else."""
    cluster.create("wide", 1000)
    # Behind what creating them left to be written.
    time.sleep(length.pick(10, 30))
    began, before = time.monotonic(), {n: b.cpu() for n, b in cluster.brokers.items()}
    time.sleep(length.pick(10, 60))
    shares = {n: (b.cpu() - before[n]) / (time.monotonic() - began) for n, b in cluster.brokers.items()}
    figure("1,000 partitions on each of three idle brokers, of a core", ", ".join(f"{share:.2%}" for share in shares.values()))
    # The aim is 2 %, and the figure shows it; the bound leaves room for a busy machine, not for polling.
    assert max(shares.values()) < 0.05, shares


def test_a_controlled_stop_moves_leaders_first(cluster, figure):
    topics(cluster, "--create", "--topic", "t", "--partitions", 6, "--replication-factor", 3)
    begun = time.monotonic()
    cluster[2].stop()
    figure("a controlled stop, s", round(time.monotonic() - begun, 2))
    assert "stopped in good order" in cluster[2].log_text() and "have not moved" not in cluster[2].log_text()
    # Before the session could have expired.
    wait_for_leaders(cluster, "t", lambda leader, _, isr: leader in (1, 3) and 2 not in isr, SESSION / 2, "leaders have moved")
    cluster[2].start()
    cluster.wait_for_members({1, 2, 3})
    assert '"trusted":true' in cluster.zookeeper.shell("get /corelane/brokers/2")


def test_admin_clients_are_served_as_soon_as_brokers_answer(make_cluster):
    """One that is told of brokers, but of no controller, does not ask again and gives up after a minute."""
    c = make_cluster()

    def first_answers(b):
        """(brokers, controller) of each until it knows all."""
        seen, end = [], time.monotonic() + 30
        while time.monotonic() < end and (not seen or len(seen[-1][0]) < 3):
            try:
                with wire.Conn(b, timeout=30) as conn:
                    answer = wire.metadata(conn, [], version=8)
            except (OSError, wire.Closed):
                time.sleep(0.001)
                continue
            seen.append(({broker[0] for broker in answer["brokers"]}, answer["controller"]))
        return seen

    for turn in range(4):
        # No registration is left.
        for b in c.brokers.values():
            b.stop()
        for b in c.brokers.values():
            b.spawn()
        looking = ThreadPoolExecutor(3)
        answers = [looking.submit(first_answers, b) for b in c.brokers.values()]
        # Some of them come while a broker is on its way in.
        made = {}
        for n in range(12):
            config = {"bootstrap.servers": c[n % 3 + 1].bootstrap, "reconnect.backoff.ms": 5, "reconnect.backoff.max.ms": 20}
            admin, topic = AdminClient(config), f"t-{turn}-{n}"
            made[topic] = admin, admin.create_topics([NewTopic(topic, 1, 1)], request_timeout=20)[topic]
            time.sleep(0.03)
        for brokers, controller in (seen for answer in answers for seen in answer.result(60)):
            assert controller in brokers, f"told of {brokers}, and of controller {controller}"
        for _, created in made.values():
            created.result(30)
        # All of them answer now.
        admin = AdminClient({"bootstrap.servers": c.bootstrap})
        admin.create_topics([NewTopic(f"t-{turn}", 2, 3)])[f"t-{turn}"].result(70)


def test_a_broker_that_was_cut_off_registers_anew(cluster):
    topics(cluster, "--create", "--topic", "t", "--partitions", 3, "--replication-factor", 3)
    before = cluster.zookeeper.shell("stat /brokers/ids/3")
    cluster[3].popen.send_signal(signal.SIGSTOP)
    rest = [cluster[1], cluster[2]]
    cluster.wait(
        lambda: all(state[0] in (1, 2) for b in rest for state in cluster.describe("t", b).values()), SESSION + 5, "leaders have moved"
    )
    cluster[3].popen.send_signal(signal.SIGCONT)
    cluster.wait_for_members({1, 2, 3})
    cluster.wait(lambda: all(leader in (1, 2) for leader in leaders(cluster, "t")), 10, "it learns who leads")
    assert cluster.zookeeper.shell("stat /brokers/ids/3") != before, "another registration"


def test_the_cluster_starts_again_on_its_metadata(cluster):
    topics(cluster, "--create", "--topic", "t", "--partitions", 3, "--replication-factor", 3)
    before = cluster.describe("t")
    for b in cluster.brokers.values():
        b.kill()
    cluster.start_brokers()
    cluster.wait_for("t", lambda leader, replicas, _: leader in replicas, 20, "every partition has a leader")
    assert {p: state[1] for p, state in cluster.describe("t").items()} == {p: state[1] for p, state in before.items()}


def test_replicas_move_and_preferred_leaders_are_elected(cluster, tmp_path):
    topics(cluster, "--create", "--topic", "t", "--replica-assignment", "1:2,2:3")
    wanted = tmp_path / "elect.json"
    wanted.write_text(json.dumps({"partitions": [{"topic": "t", "partition": 0}]}))
    election = ("--bootstrap-server", cluster.bootstrap, "--election-type", "preferred", "--path-to-json-file", wanted)
    needless = java.run(java.ELECTION, *election)
    assert "Valid replica already elected" in needless.out + needless.log, str(needless)
    moves = tmp_path / "moves.json"
    moves.write_text(json.dumps({"version": 1, "partitions": [{"topic": "t", "partition": 0, "replicas": [2, 1]}]}))
    reassign = ("--bootstrap-server", cluster.bootstrap, "--reassignment-json-file", moves)
    java.run(java.REASSIGN, *reassign, "--execute")
    cluster.wait_for("t", lambda leader, replicas, isr: set(isr) == set(replicas), 20, "the reassignment is complete")
    assert cluster.describe("t")[0][1] == [2, 1], "the order is another"
    java.run(java.ELECTION, *election)
    assert leaders(cluster, "t") == [2, 2]


def test_a_broker_of_another_cluster_is_refused(cluster):
    stranger = cluster[1]
    stranger.stop()
    stranger.props["zookeeper.connect"] += "/elsewhere"
    stranger.spawn()
    assert stranger.popen.wait(30) == 1
    assert "belongs to cluster" in stranger.log_text() and "zookeeper.connect" in stranger.log_text(), stranger.log_tail()


def test_a_broker_whose_id_is_taken_stops(cluster):
    other = cluster._broker(1)
    other.folder = other.folder.with_name("another-1")
    other.folder.mkdir()
    other.data_dir, other.log_path = other.folder / "data", other.folder / "broker.log"
    other.spawn()
    try:
        assert other.popen.wait(SESSION + 30) == 1
    finally:
        other.kill()
    last = other.log_text().splitlines()[-1]
    assert "broker.id 1 is taken" in last and "another broker.id" in last, other.log_tail()
    assert cluster.members(cluster[2]) == {1, 2, 3}


def test_a_new_replica_of_a_log_that_begins_amid_a_batch(cluster):
    """Records were deleted up to the middle of a batch, which a leader sends whole."""
    cli = Cli(cluster.bootstrap)
    cli("topic", "create", "t", "--replica-assignment", "1")
    load.produce_lines(cluster, "t", 100, 1, linger_ms=200)
    assert len(load.first_batches(cluster, "t", 0)[0].values()) > 40, "one batch reaches over offset 40"
    cli("topic", "trim", "t", "--to-offset", 40)
    cli("topic", "alter", "t", "--replication-factor", 3)
    cluster.wait_for_isr("t", [1, 2, 3], 30)
    # The new replicas lead, one after the other, from where the old one began.
    for left in ("2:3", "3"):
        cli("topic", "alter", "t", "--replica-assignment", left, "--wait", silent=False)
        [partition] = cli.json("topic", "describe", "t", "--offsets")[0]["partitions"]
        assert (partition["start_offset"], partition["end_offset"]) == (40, 100) and partition["leader"] != 1
        seen = []
        load.read_partitions(cluster, "t", 1, lambda p, offset, value: seen.append((offset, value)), starts={0: 40})
        assert seen == [(n, load.line(n)) for n in range(40, 100)]


def test_a_damaged_topic_znode_stops_no_start(cluster):
    """The others are served; the records of the damaged one stay, and it is back once its znode is put right."""
    for name in ("sound", "hurt"):
        topics(cluster, "--create", "--topic", name, "--partitions", 2, "--replication-factor", 3)
        with wire.Conn(cluster.leading(name)) as conn:
            assert wire.produce(conn, name, 0, wire.batch([b"kept"]))[0] == 0
    before = cluster.zookeeper.shell("get /brokers/topics/hurt").splitlines()
    (right,) = [line for line in before if line.startswith("{")]
    for b in cluster.brokers.values():
        b.stop()
    cluster.zookeeper.shell("set /brokers/topics/hurt x")
    cluster.start_brokers()
    cluster.wait_for_isr("sound", {1, 2, 3})
    for b in cluster.brokers.values():
        assert "znode /brokers/topics/hurt is damaged" in b.log_text() and "zookeeper-shell" in b.log_text(), b.log_tail()
        assert (b.folder / "data/hurt-0").is_dir(), "nothing is taken away"
        with wire.Conn(b) as conn:
            assert wire.metadata(conn, ["hurt"], version=8)["topics"]["hurt"]["error"] == 56, "KAFKA_STORAGE_ERROR"
    taken = topics(cluster, "--create", "--topic", "hurt", "--partitions", 1, check=False)
    assert taken.code != 0, "its name is not free"
    cluster.zookeeper.shell(f"set /brokers/topics/hurt {right}")
    cluster.wait_for_isr("hurt", {1, 2, 3})
    with wire.Conn(cluster.leading("hurt")) as conn:
        (kept,) = wire.batches(wire.fetch(conn, "hurt", 0, 0)["data"])
    assert kept.values() == [b"kept"]
