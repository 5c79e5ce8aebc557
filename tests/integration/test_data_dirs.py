"""Data directories at a start: missing, foreign, failing or damaged ones, and what the start makes of the rest."""

import os
import signal
import socket
import subprocess
import time

import pytest
from confluent_kafka.admin import AdminClient
from support import clock, java, load, wire

from support import broker as brokers

pytestmark = pytest.mark.usefixtures("corelane_only")
BATCHES = 3


def everything(root):
    """Every file and folder below `root`: its bytes and the time of its last change."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        stat = path.stat()
        found[str(path)] = (stat.st_mtime_ns, path.read_bytes() if path.is_file() else None)
    return found


def delete_topic(b, name):
    admin = AdminClient({"bootstrap.servers": b.bootstrap})
    admin.delete_topics([name])[name].result(60)


def until_none(find, timeout=60):
    deadline = clock.running() + timeout
    while left := find():
        assert clock.running() < deadline, left
        time.sleep(0.1)


def two_dirs(make_broker):
    """A broker over two data directories, and a topic with a partition in each."""
    b = make_broker()
    a, other = b.folder / "a", b.folder / "b"
    b.props["log.dirs"] = f"{a},{other}"
    b.start()
    load.create_topic(b, "t", 4)
    fill(b, range(4))
    where = {p: a if (a / f"t-{p}").is_dir() else other for p in range(4)}
    assert set(where.values()) == {a, other}
    return b, a, other, where


def fill(b, partitions):
    with wire.Conn(b) as conn:
        for p in partitions:
            for n in range(BATCHES):
                error, base = wire.produce(conn, "t", p, wire.batch([b"%d-%d" % (p, n)]))
                assert (error, base) == (0, n)


def ends(b, partitions):
    with wire.Conn(b) as conn:
        return {p: row[0] or row[2] for p, row in wire.list_offsets(conn, "t", list(partitions), -1).items()}


def refused(b, *words):
    """The broker ends by itself with one line that has these words."""
    b.spawn()
    assert b.popen.wait(60) == 1, b.log_tail()
    said = b.log_text().strip().splitlines()[-1]
    for word in words:
        assert str(word) in said, f"{word!r} is not in {said!r}"


def test_a_topic_of_the_longest_name(make_broker):
    """Two requests of any client; the next start has to be one like any other."""
    b = make_broker({"log.segment.delete.delay.ms": 0})
    b.start()
    for length in (214, 249):
        load.create_topic(b, "n" * length, 2)
        delete_topic(b, "n" * length)
    b.stop()
    b.start()
    until_none(lambda: [path for path in b.data_dir.iterdir() if path.name.startswith("nnn")])


def test_a_directory_that_is_away_for_one_start(make_broker):
    b, a, other, where = two_dirs(make_broker)
    b.stop()
    away = [p for p in where if where[p] == other]
    here = [p for p in where if where[p] == a]
    before = everything(other)
    for dirs, move in ((a, False), (f"{a},{other}", True)):
        b.props["log.dirs"] = dirs
        if move:
            other.rename(b.folder / "unmounted")
            other.mkdir()
        b.start()
        assert ends(b, here) == dict.fromkeys(here, BATCHES)
        assert ends(b, away) == dict.fromkeys(away, 56)
        with wire.Conn(b) as conn:
            error, *_ = wire.produce(conn, "t", away[0], wire.batch([b"x"]))
            assert error == 56
        assert str(other) in b.log_text() and "mount its disk" in b.log_text()
        b.stop()
    other.rmdir()
    (b.folder / "unmounted").rename(other)
    assert everything(other) == before
    b.start(topics=["t"])
    assert ends(b, where) == dict.fromkeys(where, BATCHES)
    b.stop()
    b.props["log.dirs"] = other
    refused(b, other, "corelane-metadata")


def test_a_directory_that_cannot_be_written(make_broker):
    b, a, other, where = two_dirs(make_broker)
    b.stop()
    if subprocess.run(["mount", "--bind", other, other]).returncode:
        pytest.skip("nothing can be mounted here")
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", other], check=True)
        b.start()
        expected = {p: 56 if where[p] == other else BATCHES for p in where}
        assert ends(b, where) == expected
        assert "Read-only" in b.log_text()
        b.stop()
        b.props["log.dirs"] = other
        refused(b, other)
    finally:
        b.kill()
        subprocess.run(["umount", other], check=True)
    b.props["log.dirs"] = f"{a},{other}"
    b.start(topics=["t"])
    assert ends(b, where) == dict.fromkeys(where, BATCHES)


def test_kafkas_own_directory_is_left_as_it_is(make_broker):
    b = make_broker()
    kafka = brokers.KafkaBroker(b.folder / "kafka")
    kafka.folder.mkdir(exist_ok=True)
    config = kafka.folder / "server.properties"
    config.write_text("".join(f"{k}={v}\n" for k, v in kafka.properties().items()))
    kafka.data_dir.mkdir()
    java.run("kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", config)
    partition = kafka.data_dir / "orders-0"
    partition.mkdir()
    (partition / "00000000000000000000.log").write_bytes(b"records")
    b.data_dir = kafka.data_dir
    for _ in range(2):
        before = everything(kafka.data_dir)
        refused(b, kafka.data_dir, "Nothing in it was changed")
        assert everything(kafka.data_dir) == before
        (kafka.data_dir / "meta.properties").unlink(missing_ok=True)


@pytest.mark.parametrize("how", ["flipped", "cut", "missing"])
def test_damaged_metadata(make_broker, how):
    """One topic is withheld, the rest serves; what can be made again is."""
    b = make_broker()
    b.start()
    load.create_topic(b, "t", 1)
    load.create_topic(b, "lost", 1)
    fill(b, [0])
    with wire.Conn(b) as conn:
        given = [wire.init_producer_id(conn)[0] for _ in range(3)]
    b.stop()
    store = b.data_dir / "corelane-metadata"
    lost = store / "topics/lost.json"
    kept = lost.read_bytes()
    for path in (lost, store / "cluster.json", store / "producer-ids.json", store / "directories.json"):
        good = path.read_bytes()
        if how == "missing":
            path.unlink()
        else:
            path.write_bytes(good[:9] if how == "cut" else good[:12] + bytes([good[12] ^ 4]) + good[13:])
    said_before = len(b.log_text())
    b.start()
    assert ends(b, [0]) == {0: BATCHES}
    with wire.Conn(b) as conn:
        assert wire.metadata(conn, ["lost"], version=8)["topics"]["lost"]["error"] == 56
        # Known, but not to be had: 3 would say that there is no such topic.
        assert wire.produce(conn, "lost", 0, wire.batch([b"x"])) == (56, -1)
        assert wire.list_offsets(conn, "lost", [0], -1)[0][0] == 56
        assert wire.init_producer_id(conn)[0] > max(given)
    errors = [line for line in b.log_text()[said_before:].splitlines() if "ERROR" in line and "lost" in line]
    assert errors and (b.data_dir / "lost-0").is_dir()
    b.stop()
    lost.write_bytes(kept)
    b.start(topics=["t", "lost"])


def test_signals(make_broker):
    """Those that service managers and terminals send stop it in order; log rotation does not stop it."""
    b = make_broker()
    command = b.command
    # Whatever the test run itself was started with ignored.
    b.command = lambda config: ["env", "--default-signal=HUP,INT,QUIT", *command(config)]
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM):
        b.start()
        b.popen.send_signal(signal.SIGUSR1)
        b.popen.send_signal(number)
        if number == signal.SIGTERM:
            b.popen.send_signal(signal.SIGHUP)
            b.popen.send_signal(number)
        assert b.popen.wait(60) == 0, b.log_tail()
        assert (b.data_dir / ".kafka_cleanshutdown").exists()
    assert "the last stop was not orderly" not in b.log_text()
    b.command = lambda config: ["nohup", *command(config)]
    b.start()
    b.popen.send_signal(signal.SIGHUP)
    assert b.serves()
    b.stop()


def test_a_port_that_is_taken(make_broker):
    """Named with its process, and nothing is made in the data directory."""
    b = make_broker()
    with socket.socket() as taken:
        taken.bind((b.host, b.port))
        taken.listen()
        refused(b, b.port, f"process {os.getpid()}")
    assert not b.data_dir.exists()


def test_deleted_directories_wait(make_broker):
    """log.segment.delete.delay.ms, also through a restart."""
    b = make_broker({"log.segment.delete.delay.ms": 3_600_000})
    b.start()
    load.create_topic(b, "t", 1)
    delete_topic(b, "t")

    def left():
        return [path.name for path in b.data_dir.iterdir() if path.name.endswith("-delete")]

    assert len(left()) == 1
    b.stop()
    b.start()
    assert len(left()) == 1
    b.stop()
    b.props["log.segment.delete.delay.ms"] = 0
    b.start()
    until_none(left)
