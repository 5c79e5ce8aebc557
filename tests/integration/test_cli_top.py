"""`corelane top` against Corelane or, with CORELANE_TEST_TARGET=kafka, Apache Kafka."""

import json
import signal
import threading
import time

import pytest

from support import groups, load, metrics, wire
from support.broker import free_port, target
from support.cli import Cli, Running, run

corelane_only = pytest.mark.skipif(target() != "corelane", reason="reads Corelane's metrics")

LISTS = ["shards", "topics", "groups", "clients", "slow_requests"]


@pytest.fixture
def traffic():
    """`traffic(broker, topic)`: a record of 1,000 bytes every 5 ms until the test ends."""
    ended = threading.Event()
    threads = []

    def begin(b, topic):
        def work():
            with wire.Conn(b, client_id="busy-app") as conn:
                while not ended.is_set():
                    assert wire.produce(conn, topic, 0, wire.batch([bytes(1000)]))[0] == 0
                    time.sleep(0.005)

        threads.append(threading.Thread(target=work))
        threads[-1].start()

    yield begin
    ended.set()
    for thread in threads:
        thread.join()


def behind(b, group, topic):
    """A group that has read nothing since its first record."""
    with wire.Conn(b) as conn:
        groups.wait_ready(b, group)
        groups.commit(conn, group, {(topic, 0): 1})


def test_what_the_protocol_tells(group_broker, traffic):
    """Of Kafka, and of a broker whose metrics are out of reach."""
    topic, calm = (load.create_topic(group_broker, f"top-{time.time_ns()}-{name}", 2) for name in ("busy", "calm"))
    traffic(group_broker, topic)
    behind(group_broker, topic, topic)
    nowhere = f"127.0.0.1:{free_port()}"
    words = ["top", "--once", "--interval", 1, "--metrics", nowhere]
    picture = Cli(group_broker.bootstrap).json(*words)
    assert 0.9 < picture["seconds"] < 5 and abs(picture["timestamp_ms"] - time.time() * 1000) < 60_000
    topics = {t["topic"]: t for t in picture["topics"]}
    assert 50 < topics[topic]["records_in_per_second"] < 400 and topics[topic]["bytes_in_per_second"] is None, topics[topic]
    assert (topics[calm]["records_in_per_second"], topics[calm]["partitions"], topics[calm]["unavailable_partitions"]) == (0, 2, 0)
    assert picture["topics"].index(topics[topic]) < picture["topics"].index(topics[calm])
    [group] = [g for g in picture["groups"] if g["group"] == topic]
    assert group["lag"] > 9 and group["lag_rise_per_second"] > 30 and group["topic"] == topic, group
    assert picture["shards"] == picture["clients"] == picture["slow_requests"] == []
    assert nowhere in picture["notes"][0] and len(picture["notes"]) == 1
    text = Cli(group_broker.bootstrap)(*words, "--rows", 1).out
    assert text.startswith(f"cluster {picture['cluster_id']}") and topic in text and nowhere in text, text
    assert "no broker's metrics are in reach" in text and f"Topics (1 of {len(picture['topics'])})" in text


@corelane_only
def test_what_metrics_tell(make_broker, traffic):
    b = metrics.serve(make_broker({"corelane.shards": 2}, env={"CORELANE_FAULTS": "fdatasync:SLOW200:/slow-0/:0"}))
    b.start()
    for name, options in (("busy", {}), ("slow", {"flush_messages": 1}), ("calm", {})):
        load.create_topic(b, name, 1, **options)
    traffic(b, "busy")
    with wire.Conn(b, client_id="app") as conn:
        assert wire.produce(conn, "slow", 0, wire.batch([b"x"]))[0] == 0
        wire.fetch(conn, "busy", 0, 0)
        # As a URL, too.
        for address in (f"127.0.0.1:{b.http_port}", f"http://127.0.0.1:{b.http_port}/metrics"):
            picture = Cli(b.bootstrap).json("top", "--once", "--interval", 1, "--metrics", address)
    assert picture["notes"] == [] and set(picture) >= set(LISTS)
    [broker] = picture["brokers"]
    assert (broker["address"], broker["metrics"]) == (b.bootstrap, f"127.0.0.1:{b.http_port}")
    assert [(s["broker"], s["shard"]) for s in picture["shards"]] == [(0, 0), (0, 1)]
    assert all(0 <= s["busy"] <= 1 for s in picture["shards"]) and sum(s["busy"] for s in picture["shards"]) > 0
    assert sum(s["connections"] for s in picture["shards"]) >= 2 and sum(s["received_bytes_per_second"] for s in picture["shards"]) > 50_000
    topics = {t["topic"]: t for t in picture["topics"]}
    assert picture["topics"][0]["topic"] == "busy"
    busy = topics["busy"]
    assert 50 < busy["records_in_per_second"] < 400 and 50_000 < busy["bytes_in_per_second"] < 450_000 and busy["bytes_out_per_second"] == 0, busy
    assert (topics["calm"]["records_in_per_second"], topics["calm"]["bytes_in_per_second"]) == (0, 0)
    assert sum(c["connections"] for c in picture["clients"]) >= 2
    slowest = picture["slow_requests"][0]
    assert (slowest["api"], slowest["topic"], slowest["waited_for"], slowest["broker"], slowest["client_id"]) == ("Produce", "slow", "sync", 0, "app")
    took = [r["slow_ms"] for r in picture["slow_requests"]]
    assert took == sorted(took, reverse=True) and took[0] > 190
    text = Cli(b.bootstrap)("top", "--once", "--interval", 1, "--metrics", f"127.0.0.1:{b.http_port}").out
    for part in ("Shards", "slow-0", "for a sync of the disk", "CONNECTIONS", "BYTES-OUT/S"):
        assert part in text, (part, text)


@corelane_only
def test_metrics_of_another_cluster_are_not_taken(make_broker, make_cluster):
    other = metrics.serve(make_broker())
    other.start()
    c = make_cluster(prepare=lambda c: [metrics.serve(b) for b in c.brokers.values()])
    c.create("t", 3)
    addresses = [f"127.0.0.1:{b.http_port}" for b in [*c.brokers.values(), other]]
    picture = Cli(c.bootstrap).json("top", "--once", "--interval", 0.5, "--metrics", ",".join(addresses))
    assert {s["broker"] for s in picture["shards"]} == set(c.brokers)
    assert picture["notes"] == [f"http://{addresses[-1]} is of no broker of this cluster"]
    assert sum(b["controller"] for b in picture["brokers"]) == 1


def test_again_and_again(group_broker):
    with Running("top", "--bootstrap-server", group_broker.bootstrap, "--interval", 0.3, "--format", "json") as running:
        looks = [json.loads(running.line()) for _ in range(3)]
        assert looks[2]["timestamp_ms"] - looks[0]["timestamp_ms"] >= 500
        running.process.send_signal(signal.SIGINT)
        assert running.process.wait(10) in (0, 130, -signal.SIGINT)
    many = run("top", "--bootstrap-server", group_broker.bootstrap, "--interval", 0.2, "--count", 2)
    assert many.code == 0 and many.out.count("cluster ") == 2, many


def test_words_that_there_are_not():
    for words in (["--metrics", "nowhere"], ["--interval", "0"], ["--once", "--count", "2"], ["--rows", "0"], ["busy"]):
        done = run("top", *words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)
    done = run("top", "--help")
    assert "corelane top --once --format json" in done.out and "--metrics" in done.out
    done = run("top", "--bootstrap-server", f"127.0.0.1:{free_port()}", "--timeout", 1)
    assert done.code == 1 and done.err.startswith("corelane: "), done
