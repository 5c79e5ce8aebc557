"""Configuration: wrong values stop the start and say why, unknown ones warn, two brokers never share data or a port."""

import os
import re
import subprocess
import tempfile

import pytest

from support import broker as brokers
from support import load, wire

pytestmark = pytest.mark.usefixtures("corelane_only")


def refused(b, *words):
    """The broker does not start, exits with a failure, and its output has each of the words."""
    b.spawn()
    code = b.popen.wait(30)
    said = b.log_text()
    assert code != 0, f"started or ended well:\n{said}"
    for word in words:
        assert word.lower() in said.lower(), f"{word!r} is not in:\n{said}"
    assert "panicked" not in said
    return said


@pytest.mark.parametrize("option,value,words", [
    ("num.partitions", "many", ["integer"]),
    ("num.partitions", "0", ["1"]),
    ("log.segment.bytes", "13", []),
    ("log.retention.ms", "a week", []),
    ("auto.create.topics.enable", "perhaps", ["true", "false"]),
    ("listeners", "PLAINTEXT//nowhere", []),
    ("corelane.shards", "-3", ["0"]),
])  # fmt: skip
def test_wrong_value(make_broker, option, value, words):
    b = make_broker({option: value})
    said = refused(b, option, value, "server.properties", *words)
    line = list(b.properties()).index(option) + 1
    assert re.search(rf"server\.properties\D+{line}\b", said), f"line {line} is not named in:\n{said}"


def test_wrong_override(make_broker):
    refused(make_broker(args=["--override", "num.partitions=none"]), "num.partitions", "none")


def test_missing_file(make_broker):
    b = make_broker()
    b.command = lambda config: [str(brokers.binary()), "server", str(config) + ".missing"]
    refused(b, "server.properties.missing")


def test_unknown_option_warns(make_broker):
    b = make_broker({"no.such.option": "1", "log.retention.mss": "5"})
    b.start()
    assert "no.such.option" in b.log_text() and "log.retention.mss" in b.log_text()


def test_option_of_kafka_that_is_not_honoured(make_broker):
    """Said aloud, by name."""
    b = make_broker({"num.io.threads": "4"})
    b.start()
    assert "num.io.threads" in b.log_text()


def test_override_wins(make_broker):
    b = make_broker({"num.partitions": 2}, args=["--override", "num.partitions=7"])
    b.start()
    load.produce_lines(b, "made-by-producer", 7, 1)
    with wire.Conn(b) as conn:
        topic = wire.metadata(conn, ["made-by-producer"])["topics"]["made-by-producer"]
    assert len(topic["partitions"]) == 7


def test_properties_syntax(make_broker):
    """What Java's properties files allow: comments, other separators, spaces, continued lines."""
    b = make_broker()
    b.start()
    b.stop()
    config = b.folder / "odd.properties"
    config.write_text(
        f"# a comment\n! another\n\n  node.id : 5\nlisteners = PLAINTEXT://{b.host}:\\\n      {b.port}\n"
        f"log.dirs {b.data_dir}-odd\nnum.partitions=3"
    )
    b.command = lambda _: [str(brokers.binary()), "server", str(config)]
    b.start()
    with wire.Conn(b) as conn:
        assert wire.metadata(conn)["brokers"] == [(5, b.host, b.port)]


def test_second_broker_on_the_same_data(make_broker):
    first = make_broker()
    first.start()
    second = make_broker(data_dir=first.data_dir)
    refused(second, str(first.data_dir))
    assert first.serves()


def test_second_broker_on_the_same_port(make_broker):
    first = make_broker()
    first.start()
    second = make_broker()
    second.port = first.port
    refused(second, str(first.port))
    assert first.serves()


def test_unclean_lock_is_no_obstacle(make_broker):
    b = make_broker()
    b.start()
    for _ in range(3):
        b.kill()
        b.start()


def test_banner(make_broker):
    b = make_broker({"corelane.shards": 2})
    b.start()
    # It serves a moment before it says so.
    b.stop()
    said = b.log_text()
    version = subprocess.run([str(brokers.binary()), "--version"], capture_output=True, text=True).stdout.split()[-1]
    for fact in (version, b.bootstrap, str(b.data_dir)):
        assert fact in said, f"{fact} is not in the log:\n{said}"
    assert re.search(r"shard", said, re.I)


def test_data_directory_that_cannot_be(make_broker):
    refused(make_broker(data_dir="/proc/nowhere"), "/proc/nowhere")


def test_data_directory_without_direct_io(make_broker):
    """One line that names the folder and what to do; newer kernels give tmpfs direct I/O, and then there is none to refuse."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        try:
            os.close(os.open(f"{folder}/probe", os.O_RDWR | os.O_CREAT | os.O_DIRECT))
            pytest.skip("tmpfs has O_DIRECT with this kernel")
        except OSError:
            refused(make_broker(data_dir=f"{folder}/data"), folder, "O_DIRECT")


def test_restart_keeps_identity(make_broker):
    """Cluster id, broker id and topic configs are the same after a restart."""
    b = make_broker({"node.id": 3})
    b.start()
    load.create_topic(b, "kept", 2, retention_ms=777_000)
    with wire.Conn(b) as conn:
        before = wire.metadata(conn)
    b.stop()
    b.start(topics=["kept"])
    with wire.Conn(b) as conn:
        assert wire.metadata(conn) == before
    assert before["controller"] == 3 and before["cluster"]


def test_a_log_that_cannot_be_written_stops_nothing(make_broker, corelane_only):
    b = make_broker()
    command = b.command
    b.command = lambda config: ["sh", "-c", 'exec "$@" 2>/dev/full', "sh", *command(config)]
    b.start()
    load.create_topic(b, "unsaid", 1)
    load.produce_lines(b, "unsaid", 10, 1)
    b.stop()
