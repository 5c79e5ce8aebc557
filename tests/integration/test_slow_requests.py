"""Slow requests: each made slow for one reason, which /api/slow-requests and the log name."""

import json
import signal
import threading
import time

import pytest

from support import clock, load, metrics, wire
from support.cli import Cli
from support.groups import wait_until
from test_quotas import PRODUCER, alter

pytestmark = [pytest.mark.usefixtures("corelane_only"), pytest.mark.alone]

FIELDS = {
    "sent_at_ms", "shard", "api", "api_key", "version", "client_id", "client_software_name", "client_software_version", "listener", "peer",
    "partitions", "topic", "partition", "request_bytes", "response_bytes", "total_ms", "slow_ms", "stages", "waits", "waited_for", "in_words",
}  # fmt: skip
STAGES = {
    "Produce": ["append", "acknowledge", "send"],
    "Fetch": ["look_up", "wait", "read", "send"],
}


def serving(make_broker, faults="", **options):
    env = {"CORELANE_FAULTS": faults} if faults else None
    b = metrics.serve(make_broker({"corelane.slow.request.ms": 300, **{name.replace("_", "."): value for name, value in options.items()}}, env=env))
    b.start()
    return b


def ms(request, part, kind="stages"):
    name = "stage" if kind == "stages" else "for"
    return sum(each["ms"] for each in request[kind] if each[name] == part)


def check(request):
    """What holds for every request."""
    assert set(request) == FIELDS, request
    stages = [each["stage"] for each in request["stages"]]
    held_back = stages[:1] == ["held_back"]
    assert stages[held_back:] == STAGES.get(request["api"], ["handle", "send"]), request
    assert sum(each["ms"] for each in request["stages"]) == pytest.approx(request["total_ms"], abs=0.1)
    expected = ms(request, "records", "waits") + ms(request, "answers_before", "waits")
    assert request["slow_ms"] == pytest.approx(request["total_ms"] - expected, abs=0.1)
    waits = [each["ms"] for each in request["waits"]]
    assert waits == sorted(waits, reverse=True) and sum(waits) <= request["total_ms"] + 0.1, request
    return request


def slowest(b, **wanted):
    """The slowest of the requests that have these values; one is noted a moment after its answer."""
    end = time.monotonic() + 5
    while not (found := metrics.slow_requests(b, **wanted)) and time.monotonic() < end:
        time.sleep(0.05)
    assert found, f"none of {wanted}: {metrics.slow_requests(b)}"
    return check(max(found, key=lambda request: request["slow_ms"]))


def lines(b):
    return [line for line in b.log_text().splitlines() if "a request took" in line]


def test_a_slow_sync(make_broker):
    b = serving(make_broker, "fdatasync:SLOW400:/slow-0/:0")
    load.create_topic(b, "slow", 1, flush_messages=1)
    with wire.Conn(b, client_id="app") as conn:
        assert wire.produce(conn, "slow", 0, wire.batch([b"x"]))[0] == 0
        peer = "%s:%d" % conn.sock.getsockname()
    found = slowest(b, api="Produce")
    assert found["waited_for"] == "sync" and 390 < ms(found, "sync", "waits") <= ms(found, "acknowledge") < 2000, found
    assert (found["topic"], found["partition"], found["partitions"]) == ("slow", 0, 1)
    assert (found["client_id"], found["peer"], found["version"], found["api_key"]) == ("app", peer, 7, 0)
    assert found["client_software_name"] is None and found["listener"] == "PLAINTEXT"
    assert found["request_bytes"] > 60 and found["response_bytes"] > 20
    assert time.time() * 1000 - 60_000 < found["sent_at_ms"] <= time.time() * 1000
    said = lines(b)
    assert len(said) == 1, said
    for part in ('api="Produce"', 'client_id="app"', f"peer={peer}", 'topic="slow"', "partition=0", "for a sync of the disk", "acknowledged 4"):
        assert part in said[0], (part, said[0])


def test_a_slow_write(make_broker):
    b = serving(make_broker, "write:SLOW400:/slow-0/:0", **{"corelane.acknowledge": "written"})
    load.create_topic(b, "slow", 1)
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "slow", 0, wire.batch([b"x"]))[0] == 0
    found = slowest(b, api="Produce")
    assert found["waited_for"] == "device" and ms(found, "device", "waits") > 380, found
    assert "for the disk" in found["in_words"] and "for the disk" in lines(b)[0]


def test_a_slow_reservation_of_blocks(make_broker):
    b = serving(make_broker, "preallocate:SLOW400:/slow-0/:0:1", **{"corelane.acknowledge": "written"})
    load.create_topic(b, "slow", 1)
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "slow", 0, wire.batch([b"x"]))[0] == 0
    found = slowest(b, api="Produce")
    assert found["waited_for"] == "blocks" and ms(found, "blocks", "waits") > 380, found


def test_an_arena_that_is_full(make_broker):
    """Writes take longer than batches come."""
    faults = "write:SLOW500:/slow-0/:0:4"
    b = serving(make_broker, faults, **{"corelane.arena.bytes": 2 << 20, "corelane.shards": 1, "corelane.slow.request.ms": 0})
    load.create_topic(b, "slow", 1)
    values = [bytes(64_000)] * 8
    with wire.Conn(b, timeout=60) as conn:
        sent = [conn.send(wire.PRODUCE, 7, wire.produce_body({"slow": {0: wire.batch(values)}})) for _ in range(12)]
        for _ in sent:
            assert list(wire.read_produce(conn.recv()[1]).values())[0][0] == 0
    found = slowest(b, api="Produce")
    assert found["waited_for"] == "arena" and ms(found, "arena", "waits") > 100, found
    assert not lines(b), "none is logged with 0"


def test_a_fetch_that_waits_for_records_is_not_slow(make_broker):
    b = serving(make_broker)
    load.create_topic(b, "t", 1)
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "t", 0, wire.batch([b"x"]))[0] == 0
        before = metrics.samples(b)
        wire.fetch(conn, "t", 0, 1, max_wait=1000)
    found = slowest(b, api="Fetch")
    assert found["slow_ms"] < 300 and ms(found, "wait") > 950 and ms(found, "records", "waits") > 950, found
    assert found["waited_for"] != "records" and (found["topic"], found["partitions"]) == ("t", 1)
    assert not lines(b)
    after = metrics.samples(b)

    def rise(stage, part):
        name, labels = f"corelane_fetch_stage_seconds_{part}", {"reader": "consumer", "stage": stage}
        return after.sum(name, **labels) - before.sum(name, **labels)

    assert [rise(stage, "count") for stage in ("look_up", "wait", "read", "send")] == [1] * 4
    assert rise("wait", "sum") == pytest.approx(1, abs=0.1)
    assert all(rise(stage, "sum") < 0.3 for stage in ("look_up", "read", "send"))


def test_a_slow_read(make_broker):
    """Of records that are in no cache any more: the broker was started anew."""
    b = serving(make_broker)
    load.create_topic(b, "slow", 1)
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "slow", 0, wire.batch([bytes(10_000)] * 20))[0] == 0
    b.stop()
    b.env["CORELANE_FAULTS"] = "read:SLOW400:/slow-0/:0"
    b.start()
    with wire.Conn(b, timeout=60) as conn:
        assert wire.fetch(conn, "slow", 0, 0)["data"]
    found = slowest(b, api="Fetch")
    assert found["waited_for"] == "device" and ms(found, "read") >= ms(found, "device", "waits") > 380, found
    assert ms(found, "wait") < 100
    assert any('api="Fetch"' in line and "for the disk" in line for line in lines(b))


def test_a_client_that_used_too_much(make_broker):
    """It sends on although it was told to wait."""
    b = serving(make_broker, **{"quota.window.num": 3})
    load.create_topic(b, "t", 1)
    alter(b, {"client-id": "greedy"}, **{PRODUCER: 20_000})
    data = wire.batch([bytes(45_000)])
    with wire.Conn(b, timeout=60, client_id="greedy") as conn:
        # Some meet the end of a window soon, and wait for less.
        sent = [conn.send(wire.PRODUCE, 7, wire.produce_body({"t": {0: data}})) for _ in range(5)]
        for _ in sent:
            assert list(wire.read_produce(conn.recv()[1]).values())[0][0] == 0
    found = slowest(b, api="Produce", client_id="greedy")
    assert found["waited_for"] == "quota", found
    assert ms(found, "held_back") >= ms(found, "quota", "waits") > 300 and found["stages"][0]["stage"] == "held_back"
    assert any("for its client's quota" in line for line in lines(b))


def test_followers_that_stopped(make_cluster):
    c = make_cluster(prepare=lambda c: [metrics.serve(b) for b in c.brokers.values()])
    topic = c.create("t", 1, min_insync_replicas=1)
    leader = c.leader(topic)
    stopped = [b for n, b in c.brokers.items() if n != leader]
    with wire.Conn(c[leader], timeout=60, client_id="app") as conn:
        assert wire.produce(conn, topic, 0, wire.batch([b"x"]))[0] == 0
        for b in stopped:
            b.popen.send_signal(signal.SIGSTOP)
        resume = threading.Timer(0.8, lambda: [b.popen.send_signal(signal.SIGCONT) for b in stopped])
        resume.start()
        try:
            assert wire.produce(conn, topic, 0, wire.batch([b"y"]))[0] == 0
        finally:
            resume.join()
    found = slowest(c[leader], api="Produce", client_id="app")
    assert found["waited_for"] == "followers" and ms(found, "followers", "waits") > 500, found
    assert found["topic"] == topic


def test_a_metadata_commit(make_broker):
    b = serving(make_broker, "small:SLOW400:/t.json:0")
    load.create_topic(b, "t", 1)
    found = slowest(b, api="CreateTopics")
    assert found["waited_for"] == "metadata" and found["client_software_name"] == "confluent-kafka-python" and found["client_software_version"], found


def test_a_client_that_takes_its_answer_slowly(make_broker):
    b = serving(make_broker)
    load.create_topic(b, "t", 1)
    with wire.Conn(b, timeout=60) as conn:
        for _ in range(20):
            assert wire.produce(conn, "t", 0, wire.batch([bytes(1_000_000)]))[0] == 0
        conn.send(wire.FETCH, 11, wire.fetch_body({"t": {0: 0}}, part_bytes=20 << 20))
        time.sleep(1.5)
        conn.recv()
    found = slowest(b, api="Fetch")
    assert found["waited_for"] == "client" and ms(found, "send") > 500, found


def test_the_page(make_broker):
    b = serving(make_broker)
    load.create_topic(b, "t", 1)
    with wire.Conn(b) as conn:
        for _ in range(50):
            assert wire.produce(conn, "t", 0, wire.batch([b"x"]))[0] == 0
    page = json.loads(metrics.get(b, "/api/slow-requests")[2])
    assert (page["broker_id"], page["log_above_ms"]) == (0, 300)
    begins = [minute["begin_ms"] for minute in page["minutes"]]
    assert begins == [page["now_ms"] // 60_000 * 60_000 - 60_000 * back for back in range(15)]
    assert [minute["complete"] for minute in page["minutes"]] == [False] + [True] * 14
    for minute in page["minutes"]:
        took = [check(request)["slow_ms"] for request in minute["requests"]]
        assert took == sorted(took, reverse=True)
    shards = {request["shard"] for request in metrics.slow_requests(b)}
    assert len(metrics.slow_requests(b)) <= page["requests_per_minute_and_shard"] * 2 * len(shards)


def test_partitions_that_wait_side_by_side(make_broker):
    """On both shards, a second each: together no more than the request took."""
    b = serving(make_broker, "write:SLOW400:/slow-:0", **{"corelane.acknowledge": "written", "corelane.shards": 2})
    load.create_topic(b, "slow", 8)
    with wire.Conn(b, timeout=60) as conn:
        conn.send(wire.PRODUCE, 7, wire.produce_body({"slow": {p: wire.batch([b"x"]) for p in range(8)}}))
        assert {outcome[0] for outcome in wire.read_produce(conn.recv()[1]).values()} == {0}
    found = slowest(b, api="Produce", partitions=8)
    assert found["waited_for"] == "device" and 380 < ms(found, "device", "waits") <= found["total_ms"], found


def test_thresholds_may_be_set_while_the_broker_runs(make_broker):
    b = serving(make_broker, "write:SLOW400:/slow-0/:0", **{"corelane.acknowledge": "written"})
    for topic in ("slow", "quick"):
        load.create_topic(b, topic, 1)

    def page():
        return json.loads(metrics.get(b, "/api/slow-requests")[2])

    def produced(*wanted):
        """Whether the Produce requests to these topics are listed, of two sent now to either."""
        since = int(time.time() * 1000)
        with wire.Conn(b) as conn:
            for topic in ("slow", "quick"):
                assert wire.produce(conn, topic, 0, wire.batch([b"x"]))[0] == 0

        def listed():
            return {r["topic"] for r in metrics.slow_requests(b, api="Produce") if r["sent_at_ms"] >= since}

        # One is noted a moment after its answer.
        wait_until(lambda: listed() >= set(wanted), 10)
        time.sleep(0.2)
        return listed() == set(wanted)

    assert page()["threshold_ms"] == 0 and produced("slow", "quick") and len(lines(b)) == 1
    cli = Cli(b.bootstrap)
    cli("config", "set", "--broker", 0, "corelane.slow.request.threshold.ms=200", "corelane.slow.request.ms=0")
    wait_until(lambda: (page()["threshold_ms"], page()["log_above_ms"]) == (200, 0), 10)
    # The other shards follow within a tick.
    time.sleep(0.5)
    assert produced("slow") and len(lines(b)) == 1
    cli("config", "unset", "--broker", 0, "corelane.slow.request.threshold.ms", "corelane.slow.request.ms")
    wait_until(lambda: (page()["threshold_ms"], page()["log_above_ms"]) == (0, 300), 10)
    time.sleep(0.5)
    assert produced("slow", "quick") and len(lines(b)) == 2


def test_lines_of_slow_requests_are_limited(make_broker):
    b = serving(make_broker, "write:SLOW20:/slow-0/:0", **{"corelane.acknowledge": "written", "corelane.slow.request.ms": 10, "corelane.shards": 1})
    load.create_topic(b, "slow", 1)
    began = time.monotonic()
    with wire.Conn(b, timeout=60) as conn:
        for _ in range(60):
            assert wire.produce(conn, "slow", 0, wire.batch([b"x"]))[0] == 0
    seconds = time.monotonic() - began
    said = lines(b)
    assert 5 <= len(said) <= 5 * (seconds + 2), len(said)

    def counted():
        words = [word for line in b.log_text().splitlines() for word in line.split()]
        return len(lines(b)) + sum(int(word.split("=")[1]) for word in words if word.startswith("held_back="))

    end = clock.running() + 20
    while counted() < 60:
        assert clock.running() < end, (counted(), b.log_text())
        time.sleep(0.2)
    assert any("lines like those before were held back" in line for line in b.log_text().splitlines())
