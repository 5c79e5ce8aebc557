"""The log: who connected, what happened to partitions, as text and as JSON."""

import json
import re
import time

import pytest

from support import clock, load, wire

pytestmark = pytest.mark.usefixtures("corelane_only")
# A line of text begins so.
TEXT = re.compile(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z +(ERROR|WARN|INFO|DEBUG|TRACE) corelane[\w:]*: ")
JSON = {"corelane.log.format": "json"}


def once(pairs):
    """An object none of whose keys stands there twice."""
    assert len({key for key, _ in pairs}) == len(pairs), pairs
    return dict(pairs)


def objects(b):
    """Every line, parsed."""
    return [json.loads(line, object_pairs_hook=once) for line in b.log_text().splitlines()]


def said(b, message, **fields):
    return [o for o in objects(b) if message in o["message"] and fields.items() <= o.items()]


def until(holds, what, timeout=60):
    end = clock.running() + timeout
    while not (found := holds()):
        assert clock.running() < end, f"not within {timeout} s: {what}"
        time.sleep(0.1)
    return found


def use(b, topic="t"):
    load.create_topic(b, topic, 1)
    load.produce_lines(b, topic, 100, 1)


def test_lines_of_text(make_broker):
    b = make_broker()
    b.start()
    use(b)
    b.stop()
    lines = b.log_text().splitlines()
    assert lines and all(TEXT.match(line) for line in lines), [line for line in lines if not TEXT.match(line)]


def test_a_run_in_json(make_broker):
    """Each line is one object, whatever clients call themselves; a start, a use and a stop are there."""
    b = make_broker(JSON)
    b.start()
    use(b)
    with wire.Conn(b, client_id='a"\n{é\\') as conn:
        conn.raw(b"\x00\x00\x00\x10" + b"\xff" * 16)
        with pytest.raises((wire.Closed, OSError)):
            conn.recv_frame()
    b.stop()
    for o in objects(b):
        assert o["level"] in ("ERROR", "WARN", "INFO") and o["target"].startswith("corelane") and o["message"], o
        assert re.match(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$", o["timestamp"]), o
    for message in ("starts, as process", "recovered", "listening on", "stopping: SIGTERM", "stopped in good order"):
        assert len(said(b, message)) == 1, (message, objects(b))
    assert said(b, "created topic", topic="t", partitions=1)
    assert [o["peer"].startswith("127.0.0.1:") for o in said(b, "closing the connection")] == [True]


def test_who_connects_is_told_at_debug(make_broker):
    b = make_broker({**JSON, "corelane.log.level": "info,corelane::server=debug"})
    b.start()
    load.producer(b, **{"client.id": "app"}).list_topics(timeout=30)
    with wire.Conn(b, client_id="old") as conn:
        wire.metadata(conn, ["t"])
        wire.metadata(conn, ["t"])
        peer = "%s:%d" % conn.sock.getsockname()
    told = until(lambda: said(b, "a client has connected", client_id="app"), "a line of the producer")
    assert told[0]["software"] == "confluent-kafka-python" and told[0]["version"] and told[0]["listener"] == "PLAINTEXT", told
    old = said(b, "a client has connected", client_id="old")
    assert [(o["peer"], "software" in o, o["level"]) for o in old] == [(peer, False, "DEBUG")], old


def test_nobody_is_told_of_at_info(make_broker):
    b = make_broker(JSON)
    b.start()
    use(b)
    assert not said(b, "a client has connected")


def test_rolls_retention_and_cleaning_are_lines(make_broker):
    b = make_broker({**JSON, "log.retention.check.interval.ms": 300, "log.cleaner.backoff.ms": 100})
    b.start()
    load.create_topic(b, "short", 1, segment_bytes=1 << 20, retention_bytes=1 << 20, file_delete_delay_ms=100)
    load.create_topic(b, "keys", 1, cleanup_policy="compact", segment_bytes=1 << 20, min_cleanable_dirty_ratio="0.01")
    with wire.Conn(b, timeout=60) as conn:
        for n in range(40):
            assert wire.produce(conn, "short", 0, wire.batch([bytes(100_000)]))[0] == 0
            assert wire.produce(conn, "keys", 0, wire.batch([bytes(100_000)], keys=[b"k"]))[0] == 0
    rolled = until(lambda: [o for o in said(b, "rolled a new segment") if o["dir"].endswith("/short-0")], "a roll")
    assert all(o["level"] == "INFO" and o["bytes"] <= 1 << 20 and o["offset"] > o["closed"] for o in rolled), rolled
    removed = until(lambda: said(b, "retention removes segments"), "retention")
    assert all(o["level"] == "INFO" and o["segments"] > 0 and o["bytes"] > 0 and o["dir"].endswith("/short-0") for o in removed), removed
    cleaned = until(lambda: said(b, "cleaned", topic="keys"), "cleaning")
    assert all(o["level"] == "INFO" and o["bytes_after"] <= o["bytes_before"] for o in cleaned), cleaned


def test_a_recovery_is_a_line(make_broker):
    b = make_broker(JSON)
    b.start()
    use(b)
    b.kill()
    b.start()
    assert len(said(b, "the last stop was not orderly")) == 1
    recovered = until(lambda: said(b, "partition(s) recovered")[1:], "the second start's line")
    assert len(recovered) == 1 and recovered[0]["message"].startswith("1 topic(s), 1 partition(s) recovered"), recovered


def test_lines_that_repeat_are_held_back_and_told_of(make_broker):
    """Twenty connections a moment that send nonsense; the number of those without a line is told, though nothing follows."""
    b = make_broker({**JSON, "corelane.shards": 1})
    b.start()
    for _ in range(40):
        with wire.Conn(b) as conn:
            conn.raw(b"\x7f\xff\xff\xff")
            with pytest.raises((wire.Closed, OSError)):
                conn.recv_frame()
    told = until(lambda: said(b, "lines like those before were held back"), "the rest is told of", 30)
    lines = said(b, "closing the connection")
    counted = sum(o.get("held_back", 0) for o in lines + told)
    assert len(lines) + counted == 40, (len(lines), told)
    assert "corelane::server" in told[0]["at"]


def test_a_wrong_format_is_refused(make_broker):
    b = make_broker({"corelane.log.format": "xml"})
    with pytest.raises(AssertionError, match="corelane.log.format"):
        b.start()
