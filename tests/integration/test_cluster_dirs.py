"""Data directories of a cluster's brokers: replicas that a start cannot serve, and what everybody is told of them."""

import shutil

import pytest
from test_moving_replicas import two_dirs

from support import load, wire
from support.broker import target
from support.cli import run

pytestmark = pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
PATIENCE = 60


def two_directories(cluster):
    one = cluster[1]
    one.dirs = [one.folder / "a", one.folder / "b"]
    one.props["log.dirs"] = ",".join(map(str, one.dirs))


def alone(c, topic, partitions):
    """A topic of which broker 1 has all replicas, with ten records a partition."""
    words = ("--replica-assignment", ",".join(["1"] * partitions), "--config", "min.insync.replicas=1")
    done = run("topic", "create", topic, *words, "--bootstrap-server", c.bootstrap)
    assert done.code == 0, done
    load.wait_for_leaders(c, topic, partitions)
    load.produce_lines(c, topic, 10 * partitions, partitions)


def seen(b, topic):
    with wire.Conn(b, timeout=10) as conn:
        partitions = wire.metadata(conn, [topic], version=8)["topics"][topic]["partitions"]
    return {n: (p["error"], p["leader"], p["offline"]) for n, p in partitions.items()}


def told_alike(c, topic, wanted):
    for b in c.alive():
        c.wait(lambda: seen(b, topic) == wanted, PATIENCE, f"{b.folder.name} tells {wanted}", lambda: seen(b, topic))


def place(b, topic, partition):
    found = [d / f"{topic}-{partition}" for d in b.dirs if (d / f"{topic}-{partition}").is_dir()]
    assert len(found) == 1, found
    return found[0]


def said(c, b, part):
    """The first line of the log with this in it."""
    lines = lambda: [line for line in b.log_text().splitlines() if part in line]  # noqa: E731
    c.wait(lines, PATIENCE, f"it says {part!r}")
    return lines()[0]


def restart(b, **props):
    b.stop()
    b.props.update(props)
    b.start()


def restart_without(b, folder):
    b.stop()
    shutil.rmtree(folder)
    b.start()


def test_a_replica_that_cannot_be_opened_leaves_its_partition_without_a_leader(make_cluster):
    c = make_cluster(two_directories, count=2)
    one, two = c.brokers.values()
    alone(c, "t", 2)
    told_alike(c, "t", {0: (0, 1, []), 1: (0, 1, [])})
    one.stop()
    first = place(one, "t", 0)
    copy = next(d for d in one.dirs if d != first.parent) / "t-0"
    shutil.copytree(first, copy)
    one.start()
    said(c, one, "more than one data directory")
    told_alike(c, "t", {0: (5, -1, [1]), 1: (0, 1, [])})
    listed = run("topic", "list", "--format", "json", "--bootstrap-server", two.bootstrap)
    assert [t["unavailable_partitions"] for t in listed.json if t["topic"] == "t"] == [1], listed
    # Nothing moves without a leader to copy from.
    words = ("topic", "alter", "t", "--replication-factor", 2, "--wait", "--bootstrap-server", two.bootstrap)
    done = run(*words)
    assert done.code == 1 and "without a leader" in done.err and "t-0" in done.err and "t-1" not in done.err.split("without")[-1], done
    c.wait(lambda: set(c.describe("t", two)[1][2]) == {1, 2}, PATIENCE, "the other one has moved")
    # The right one is chosen.
    restart_without(one, copy)
    c.wait(lambda: all(seen(b, "t")[0][:2] == (0, 1) for b in c.alive()), PATIENCE, "it leads again")
    c.wait_for("t", lambda leader, replicas, isr: set(isr) == {1, 2}, PATIENCE)
    load.check_lines(c, "t", 20, 2)


def test_a_broker_that_is_alone_tells_it_too(make_broker):
    b = two_dirs(make_broker)
    load.create_topic(b, "t", 2)
    load.produce_lines(b, "t", 20, 2)
    b.stop()
    first = place(b, "t", 0)
    copy = next(d for d in b.dirs if d != first.parent) / "t-0"
    shutil.copytree(first, copy)
    b.start()
    assert seen(b, "t") == {0: (5, -1, [0]), 1: (0, 0, [])}
    described = run("topic", "describe", "t", "--format", "json", "--bootstrap-server", b.bootstrap)
    assert [p["leader"] for p in described.json[0]["partitions"]] == [None, 0], described
    restart_without(b, copy)
    assert seen(b, "t") == {0: (0, 0, []), 1: (0, 0, [])}
    load.check_lines(b, "t", 20, 2)


def test_a_directory_that_leaves_log_dirs_too_early(make_cluster):
    """Its sole replicas are not made anew, empty; the others come from other brokers."""
    c = make_cluster(two_directories, count=2)
    one, two = c.brokers.values()
    alone(c, "t", 4)
    c.create("wide", 4)
    load.produce_lines(c, "wide", 40, 4)
    kept, left = one.dirs
    lost = [p for p in range(4) if place(one, "t", p).parent == left]
    assert 0 < len(lost) < 4
    restart(one, **{"log.dirs": str(kept)})
    line = said(c, one, "stay offline: its directory is in none of log.dirs")
    assert "ERROR" in line and str(left) in line and all(f"t-{p}" in line for p in lost), line
    told_alike(c, "t", {p: (5, -1, [1]) if p in lost else (0, 1, []) for p in range(4)})
    c.wait_for("wide", lambda leader, replicas, isr: set(isr) == {1, 2}, PATIENCE)
    # Also at the next start; what was made meanwhile is a new partition's.
    restart(one)
    alone(c, "later", 1)
    told_alike(c, "t", {p: (5, -1, [1]) if p in lost else (0, 1, []) for p in range(4)})
    assert not any((kept / f"t-{p}").exists() for p in lost)
    # Replicas that were fetched anew are in both directories once it is back.
    one.stop()
    for copy in left.glob("wide-*"):
        shutil.rmtree(copy)
    one.props["log.dirs"] = f"{kept},{left}"
    one.start()
    told_alike(c, "t", {p: (0, 1, []) for p in range(4)})
    load.check_lines(c, "t", 40, 4)
    load.check_lines(c, "wide", 40, 4)


def test_an_epoch_without_a_record_damages_no_file(make_cluster):
    """The checkpoint of a replica that led in one may have it, when its file has it no longer."""
    c = make_cluster(count=2)
    topic = c.create("t", 1, min_insync_replicas=1)
    first = c.leader(topic)
    other = next(n for n in c.brokers if n != first)
    load.produce_lines(c, topic, 10, 1)
    c[first].stop()
    c.wait(lambda: c.leader(topic) == other, PATIENCE, "the other one leads, before its checkpoint of the records")
    checkpoint = c[other].data_dir / "t-0" / "checkpoint"
    epochs = lambda: checkpoint.exists() and b"\n1 10\n" in checkpoint.read_bytes()  # noqa: E731
    c.wait(epochs, 90, "its checkpoint has the epoch")
    c[first].start()
    c.wait_for_isr(topic, {1, 2}, PATIENCE)
    for _ in range(2):
        restart(c[other])
        c.wait_for_isr(topic, {1, 2}, PATIENCE)
    assert "leader-epoch-checkpoint" not in c[other].log_text(), c[other].log_tail()
    load.check_lines(c, topic, 10, 1)
