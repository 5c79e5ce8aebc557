"""Metrics over HTTP: as Prometheus and its tools read them, and as what clients did; health, readiness and odd requests."""

import json
import os
import re
import socket
import subprocess
import time

import confluent_kafka as ck
import pytest

from support import broker as brokers
from support import clock, groups, java, load, metrics, wire

pytestmark = pytest.mark.usefixtures("corelane_only")
API_VERSIONS = 18


@pytest.fixture
def broker(make_broker):
    b = metrics.serve(make_broker())
    b.start()
    return b


def documented():
    page = (brokers.REPO / "docs/METRICS.md").read_text()
    return set(re.findall(r"^\| `((?:corelane|process)_\w+)` ", page, re.M))


def use(b, topic="used", partitions=3, records=200):
    """A little of everything that clients do."""
    load.create_topic(b, topic, partitions)
    load.produce_lines(b, topic, records, partitions)
    load.check_lines(b, topic, records, partitions)
    consumer = load.consumer(b, **{"group.id": f"{topic}-group", "auto.offset.reset": "earliest"})
    consumer.subscribe([topic])
    seen = 0
    while seen < records:
        message = consumer.poll(30)
        assert message is not None, f"{seen} of {records}"
        seen += not message.error()
    consumer.commit(asynchronous=False)
    return consumer


# ---- as Prometheus reads them


def test_promtool_finds_nothing_to_say(broker):
    consumer = use(broker)
    text = metrics.text(broker)
    consumer.close()
    checked = metrics.promtool("check", "metrics", stdin=text)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, "", "")


def test_what_is_told_is_documented_and_the_other_way_round(broker):
    consumer = use(broker)
    with wire.Conn(broker) as conn:
        wire.produce(conn, "nowhere", 0, wire.batch([b"x"]))
    told = set(re.findall(r"^# TYPE (\S+) ", metrics.text(broker), re.M))
    consumer.close()
    assert told <= documented()
    # Of a cluster, with an option, and of clients with quotas.
    rare = ("corelane_topic_replication_", "corelane_partition_log_", "corelane_partition_high_", "corelane_group_partition_", "corelane_quota_")
    assert [name for name in documented() - told if not name.startswith(rare)] == []


@pytest.mark.parametrize("native", [False, True], ids=["open-metrics", "native-histograms"])
def test_prometheus_scrapes_and_answers(broker, native):
    load.create_topic(broker, "t", 1)
    with metrics.Prometheus(broker.folder / "prometheus", [broker], native) as prometheus:
        with wire.Conn(broker) as conn:
            for _ in range(50):
                assert wire.produce(conn, "t", 0, wire.batch([b"x"]))[0] == 0
        requests = 'sum(corelane_requests_total{api="Produce"})'
        prometheus.until(lambda: prometheus.value(requests) == 50, f"{requests} is 50")
        assert prometheus.value("up") == 1
        stage = 'corelane_request_stage_seconds{api="Produce",stage="%s"}'
        for name in ("appended", "acknowledged", "sent"):
            if native:
                assert prometheus.value(f"histogram_count({stage % name})") == 50
                median = prometheus.value(f"histogram_quantile(0.5, {stage % name})")
            else:
                counts = (stage % name).replace("seconds{", "seconds_count{")
                assert prometheus.value(counts) == 50
                buckets = (stage % name).replace("seconds{", "seconds_bucket{")
                median = prometheus.value(f"histogram_quantile(0.5, sum by (le) ({buckets}))")
            assert 0 < median < 1
        assert prometheus.value("process_resident_memory_bytes") == pytest.approx(broker.rss(), rel=0.3)
        started = prometheus.value("process_start_time_seconds")
        assert time.time() - 300 < started <= time.time() + 1


def test_formats_by_accept(broker):
    open_metrics = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    status, kind, body = metrics.get(broker, Accept="application/openmetrics-text;version=1.0.0")
    assert (status, kind) == (200, open_metrics) and body.endswith(b"# EOF\n")
    wanted = "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
    status, kind, body = metrics.get(broker, Accept=wanted + ";q=0.9,text/plain;q=0.1")
    assert status == 200 and kind.startswith("application/vnd.google.protobuf") and b"corelane_build_info" in body
    status, kind, body = metrics.get(broker, Accept="image/png")
    assert (status, kind) == (200, "text/plain; version=0.0.4; charset=utf-8")


# ---- as what clients did


def test_requests_and_errors_are_what_clients_did(broker):
    load.create_topic(broker, "t", 2)
    with wire.Conn(broker) as conn:
        def produce(topic, partition, records, count):
            return lambda: [wire.produce(conn, topic, partition, records) for _ in range(count)]

        good, spoilt = wire.batch([b"x", b"y"]), wire.batch([b"x"], spoil_crc=True)
        assert metrics.rise(broker, produce("t", 0, good, 7), "corelane_requests_total", api="Produce", version="7") == 7
        assert metrics.rise(broker, produce("t", 0, good, 1), "corelane_request_errors_total") == 0
        errors = {"api": "Produce", "error": "UNKNOWN_TOPIC_OR_PARTITION"}
        assert metrics.rise(broker, produce("nowhere", 0, good, 3), "corelane_request_errors_total", **errors) == 3
        assert metrics.rise(broker, produce("t", 9, good, 2), "corelane_request_errors_total", **errors) == 2
        errors["error"] = "CORRUPT_MESSAGE"
        assert metrics.rise(broker, produce("t", 0, spoilt, 4), "corelane_request_errors_total", **errors) == 4

        def fetch():
            wire.fetch(conn, "t", 0, 10_000)

        errors = {"api": "Fetch", "error": "OFFSET_OUT_OF_RANGE"}
        assert metrics.rise(broker, fetch, "corelane_request_errors_total", **errors) == 1
        errors = {"api": "Metadata", "error": "UNKNOWN_TOPIC_OR_PARTITION"}
        assert metrics.rise(broker, lambda: wire.metadata(conn, ["nowhere"]), "corelane_request_errors_total", **errors) == 1
        errors = {"api": "ApiVersions", "error": "UNSUPPORTED_VERSION"}
        assert metrics.rise(broker, lambda: conn.call(API_VERSIONS, 99, b""), "corelane_request_errors_total", **errors) == 1

        stages = {"api": "Produce", "stage": "acknowledged"}
        assert metrics.rise(broker, produce("t", 1, good, 5), "corelane_request_stage_seconds_count", **stages) == 5


def test_connections_by_software(broker):
    def open_ones():
        found = metrics.samples(broker).all("corelane_client_connections")
        return {(own["software"], own["version"]): value for own, value in found if value}

    def come_to(wanted):
        # A connection that was closed is noticed a little later.
        end = clock.running() + 10
        while open_ones() != wanted:
            assert clock.running() < end, open_ones()

    come_to({})
    with wire.Conn(broker) as conn:
        wire.api_versions(conn)
        come_to({("unknown", "unknown"): 1})
    come_to({})
    admin = ck.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    # It may drop its first connection, and makes the next when it is asked.
    end = clock.running() + 30
    while not any(software == "confluent-kafka-python" and value >= 1 for (software, _), value in open_ones().items()):
        assert clock.running() < end, open_ones()
        admin.list_topics(timeout=30)
    before = metrics.samples(broker).sum("corelane_connections_malformed_total")
    with socket.create_connection((broker.host, broker.port)) as s:
        s.sendall(b"GET / HTTP/1.1\r\n\r\n")
        while s.recv(1000):
            pass
    assert metrics.samples(broker).sum("corelane_connections_malformed_total") == before + 1


def test_bytes_and_memory_of_shards(make_broker):
    b = metrics.serve(make_broker({"corelane.shards": 2}))
    b.start()
    use(b).close()
    time.sleep(0.6)
    told = metrics.samples(b)
    assert {own["shard"] for own, _ in told.all("corelane_shard_turn_seconds_count")} == {"0", "1"}
    assert told.sum("corelane_network_received_bytes_total") > told.sum("corelane_request_bytes_total") > 0
    assert told.sum("corelane_network_sent_bytes_total") > 0
    assert told.sum("corelane_shard_turn_seconds_sum") > 0
    arena = {"shard": "0", "memory": "arena"}
    assert 0 <= told.one("corelane_memory_used_bytes", **arena) <= told.one("corelane_memory_capacity_bytes", **arena)
    assert told.one("corelane_memory_capacity_bytes", **arena) > 1 << 20
    assert told.sum("corelane_cache_reads_total", cache="tail", outcome="hit") > 0
    assert told.sum("corelane_shard_stalls_total") == 0
    assert told.sum("corelane_segments") >= 3


def test_topics_are_what_was_produced_and_read(broker):
    load.create_topic(broker, "t", 2)
    load.create_topic(broker, "other", 1)
    batches = {p: wire.batch([b"%d" % n for n in range(10 + p)]) for p in range(2)}
    with wire.Conn(broker) as conn:
        for _ in range(5):
            for p, data in batches.items():
                assert wire.produce(conn, "t", p, data)[0] == 0
        # What is refused, and what is repeated, does not count.
        wire.produce(conn, "t", 0, wire.batch([b"x"], spoil_crc=True))
        told, size = metrics.samples(broker), 5 * sum(map(len, batches.values()))
        assert told.one("corelane_topic_received_records_total", topic="t") == 5 * 21
        assert told.one("corelane_topic_received_bytes_total", topic="t") == size
        assert told.one("corelane_topic_log_bytes", topic="t") == size
        assert (told.one("corelane_topic_partitions", topic="t"), told.one("corelane_topic_partitions", topic="other")) == (2, 1)
        assert told.one("corelane_topic_received_records_total", topic="other") == 0
        taken = [len(wire.fetch(conn, "t", p, 0)["data"]) for p in (0, 1, 1)]
        # Looked at again and again until it waits no more, and sent once.
        began = time.monotonic()
        taken.append(len(wire.fetch(conn, "t", 0, 0, min_bytes=1 << 20, max_wait=700)["data"]))
        assert time.monotonic() - began > 0.5 and taken[-1] > 0
        assert metrics.samples(broker).one("corelane_topic_sent_bytes_total", topic="t") == sum(taken)
    told = metrics.samples(broker)
    assert told.one("corelane_partition_leaders") == told.one("corelane_partition_replicas") == 3
    assert told.one("corelane_topics") == 2 and told.one("corelane_active_controller") == 1 and told.one("corelane_brokers") == 1
    assert told.one("corelane_offline_partitions") == told.one("corelane_under_replicated_partitions") == 0
    dirs = {own["dir"] for own, _ in told.all("corelane_log_dir_free_bytes")}
    assert dirs == {str(broker.data_dir)}
    admin = ck.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    admin.delete_topics(["t"])["t"].result(30)
    assert metrics.samples(broker).all("corelane_topic_received_bytes_total", topic="t") == []
    load.create_topic(broker, "t", 1)
    assert metrics.samples(broker).one("corelane_topic_received_bytes_total", topic="t") == 0


def test_transactions_that_hold_readers_back(broker):
    load.create_topic(broker, "t", 2)
    load.create_topic(broker, "other", 1)
    made = [load.producer(broker, **{"transactional.id": f"id-{n}"}) for n in range(2)]
    for p in made:
        p.init_transactions(30)
        p.begin_transaction()
    for n in range(7):
        made[0].produce("t", b"x", partition=n % 2)
    made[0].flush(30)
    for _ in range(3):
        made[1].produce("t", b"x", partition=0)
    made[1].flush(30)

    def told(topic):
        seen = metrics.samples(broker)
        names = "corelane_topic_open_transactions", "corelane_topic_last_stable_lag_records"
        return tuple(seen.one(name, topic=topic) for name in names)

    assert told("t") == (3, 7) and told("other") == (0, 0)
    made[0].commit_transaction(30)
    # What is left are three records of the other one, and the marker behind them.
    groups.wait_until(lambda: told("t") == (1, 4), 30)
    made[1].abort_transaction(30)
    groups.wait_until(lambda: told("t") == (0, 0), 30)


def test_two_shards_count_what_either_of_them_sends(make_broker):
    b = metrics.serve(make_broker({"corelane.shards": 2}))
    b.start()
    load.create_topic(b, "t", 8)
    data = wire.batch([b"x"] * 7)
    with wire.Conn(b) as conn:
        for p in range(8):
            assert wire.produce(conn, "t", p, data)[0] == 0
        taken = sum(len(wire.fetch(conn, "t", p, 0)["data"]) for p in range(8))
    told = metrics.samples(b)
    assert told.one("corelane_topic_sent_bytes_total", topic="t") == taken == 8 * len(data)
    assert told.one("corelane_topic_received_records_total", topic="t") == 56
    assert told.sum("corelane_shard_messages_total") > 0


def test_lag_and_members_are_kafkas(make_broker):
    b = metrics.serve(make_broker({**brokers.QUICK_GROUPS, "corelane.metrics.partitions": "true"}))
    b.start()
    load.create_topic(b, "t", 3)
    with wire.Conn(b) as conn:
        for p in range(3):
            for _ in range(10):
                wire.produce(conn, "t", p, wire.batch([b"x"]))
        groups.wait_ready(b, "g")
        groups.commit(conn, "g", {("t", 0): 4, ("t", 2): 10})
    assert metrics.samples(b).one("corelane_groups", state="Empty") == 1
    with groups.ConsumerMember(b, "h") as member:
        member.join("t")
        member.settle(3)
        groups.commit(member.conn, "h", {("t", 1): 1}, generation=member.epoch, member=member.id)
        told = metrics.samples(b)
        out = java.run(java.GROUPS, "--bootstrap-server", b.bootstrap, "--describe", "--all-groups").out
    rows = [line.split() for line in out.splitlines() if re.match(r"[gh] ", line)]
    kafkas = {(r[0], r[1], r[2]): float(r[5]) for r in rows if r[5] != "-"}
    assert kafkas == {("g", "t", "0"): 6, ("g", "t", "2"): 0, ("h", "t", "1"): 9}, out
    ours = {(own["group"], own["topic"], own["partition"]): value for own, value in told.all("corelane_group_partition_lag_records")}
    assert ours == kafkas
    assert {own["group"]: value for own, value in told.all("corelane_group_lag_records", topic="t")} == {"g": 6, "h": 9}
    assert {own["group"]: value for own, value in told.all("corelane_group_members")} == {"g": 0, "h": 1}
    assert told.one("corelane_partition_high_watermark", topic="t", partition="1") == 10


def test_a_thousand_names_are_bounded(make_broker):
    b = metrics.serve(make_broker({"corelane.metrics.max.names": 5}))
    b.start()
    admin = ck.admin.AdminClient({"bootstrap.servers": b.bootstrap})
    made = admin.create_topics([ck.admin.NewTopic(f"t{n:02}", 1, 1) for n in range(20)])
    [future.result(60) for future in made.values()]
    told = metrics.samples(b).all("corelane_topic_partitions")
    assert {own["topic"]: value for own, value in told} == {**{f"t{n:02}": 1 for n in range(5)}, "(others)": 15}


@pytest.mark.alone
@pytest.mark.parametrize("topics,partitions", [(200, 5), (1000, 1)])
def test_cost_of_scrapes(make_broker, length, figure, topics, partitions):
    """CPU of a scrape each second, with 1,000 partitions: of the process, with scrapes against without, in turn."""
    b = metrics.serve(make_broker())
    b.start()
    admin = ck.admin.AdminClient({"bootstrap.servers": b.bootstrap})
    made = admin.create_topics([ck.admin.NewTopic(f"topic-{n}", partitions, 1) for n in range(topics)], request_timeout=60)
    [future.result(120) for future in made.values()]
    seconds, sums = length.pick(5, 30), {True: 0.0, False: 0.0}
    for scrapes in (True, False) * length.pick(2, 5):
        before, began = b.cpu(), time.monotonic()
        for _ in range(seconds):
            if scrapes:
                body = metrics.text(b)
            time.sleep(max(0.0, 1 - (time.monotonic() - began) % 1))
        sums[scrapes] += (b.cpu() - before) / (time.monotonic() - began) / length.pick(2, 5)
    monitor = metrics.samples(b).one("corelane_monitor_cpu_seconds_total")
    cost = sums[True] - sums[False]
    figure(f"a scrape each second, {topics} topics of {partitions} partitions", f"{cost:.2%} of a core ({sums[True]:.2%} against {sums[False]:.2%}), "
           f"{len(body) / 1024:.0f} KiB, the monitor's thread took {monitor:.3f} s in all")  # fmt: skip
    assert cost < 0.02


def test_a_cluster_tells_of_its_parts(make_cluster):
    c = make_cluster(prepare=lambda c: [metrics.serve(b) for b in c.brokers.values()])
    c.create("t", 4, **{"min.insync.replicas": 2})

    def told():
        return {n: metrics.samples(b) for n, b in c.brokers.items() if b.alive()}

    def total(name, **labels):
        return sum(each.sum(name, **labels) for each in told().values())

    def until(holds, what):
        end = clock.running() + 60
        while not holds():
            assert clock.running() < end, what
            time.sleep(0.2)

    until(lambda: total("corelane_partition_leaders") == 4, "four leaders")
    assert total("corelane_active_controller") == 1 and total("corelane_partition_replicas") == 12
    assert {each.one("corelane_brokers") for each in told().values()} == {3}
    for b in c.brokers.values():
        assert metrics.get(b, "/readyz")[0] == 200
    data = wire.batch([b"x"] * 10)
    for p in range(4):
        with wire.Conn(c.leading("t", p)) as conn:
            assert wire.produce(conn, "t", p, data)[0] == 0
    assert total("corelane_topic_received_bytes_total", topic="t") == 4 * len(data)
    until(lambda: total("corelane_topic_replication_received_bytes_total", topic="t") == 8 * len(data), "two followers each")
    assert total("corelane_topic_replication_sent_bytes_total", topic="t") >= 8 * len(data)
    assert total("corelane_topic_log_bytes", topic="t") == 12 * len(data)
    assert total("corelane_under_replicated_partitions") == 0
    c[2].kill()
    until(lambda: total("corelane_under_replicated_partitions") == 4 and total("corelane_partition_leaders") == 4, "one is missing")
    until(lambda: total("corelane_isr_shrinks_total") > 0 or total("corelane_offline_partitions") == 0, "leaders elsewhere")
    assert total("corelane_active_controller") == 1
    c[3].kill()
    until(lambda: total("corelane_under_min_isr_partitions") > 0, "too few for acks=all")
    c[2].spawn()
    c[3].spawn()
    until(lambda: len(told()) == 3 and total("corelane_under_replicated_partitions") == 0, "all are back")
    assert total("corelane_isr_expands_total") > 0


# ---- health


def test_health_version_and_other_paths(broker):
    assert metrics.get(broker, "/healthz")[::2] == (200, b"ok\n")
    assert metrics.get(broker, "/readyz")[::2] == (200, b"ready\n")
    status, kind, body = metrics.get(broker, "/version")
    version = subprocess.run([brokers.binary(), "--version"], capture_output=True, text=True).stdout.split()[1]
    assert (status, kind) == (200, "application/json") and f'"version":"{version}"'.encode() in body.replace(b" ", b"")
    for odd in ("/../../etc/passwd", "/metrics/../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/nothing", "/metrics/"):
        status, _, body = metrics.get(broker, odd)
        assert status == 404 and b"root:" not in body, odd


def test_a_start_is_not_ready_and_then_is(make_broker):
    b = metrics.serve(make_broker())
    b.start()
    for n in range(4):
        load.create_topic(b, f"t{n}", 250)
    assert metrics.get(b, "/readyz")[0] == 200
    b.kill()
    b.spawn()
    seen = []
    while not seen or seen[-1][0] != 200:
        try:
            status, _, body = metrics.get(b, "/readyz", timeout=5)
        except OSError:
            assert b.alive() or not seen, b.log_tail()
            continue
        seen.append((status, body.decode()))
        if status == 503:
            # The process answers all the same.
            assert metrics.get(b, "/healthz")[0] == 200
    assert seen[0][0] == 503 and "starting" in seen[0][1], seen[:3]
    b.wait(time.monotonic(), topics=["t0"])
    told = metrics.samples(b)
    assert told.one("corelane_ready") == 1


def test_a_listener_that_is_taken(make_broker):
    # Of another broker, or of this test.
    with socket.socket() as s:
        try:
            s.bind((brokers.HOST, 9644))
            s.listen()
        except OSError:
            pass
        default = make_broker({metrics.LISTENER: None})
        own = default.properties
        default.properties = lambda: {name: value for name, value in own().items() if name != metrics.LISTENER}
        default.start()
        said = [line for line in default.log_text().splitlines() if "no metrics are served" in line]
        assert len(said) == 1 and "WARN" in said[0] and f"{metrics.LISTENER}=" in said[0], said
    first = metrics.serve(make_broker())
    first.start()
    second = make_broker({metrics.LISTENER: first.props[metrics.LISTENER]})
    with pytest.raises(brokers.StartFailed) as failure:
        second.start()
    assert f"{metrics.LISTENER}: {first.props[metrics.LISTENER]}" in str(failure.value)
    none = make_broker({metrics.LISTENER: ""})
    none.start()
    assert "metrics" not in none.log_text()


# ---- requests that are none


def test_odd_requests_harm_nobody(broker):
    def open_one(data=b""):
        s = socket.create_connection((brokers.HOST, broker.http_port), timeout=30)
        s.sendall(data)
        return s

    def still_serves():
        assert metrics.get(broker, "/healthz", timeout=10)[0] == 200
        assert "corelane_build_info" in metrics.text(broker)
        with wire.Conn(broker, timeout=10) as conn:
            assert wire.metadata(conn)["brokers"]

    load.create_topic(broker, "t", 1)
    still_serves()
    before, fds = broker.rss(), len(os.listdir(f"/proc/{broker.pid}/fd"))
    held = [open_one() for _ in range(1000)]
    still_serves()
    held += [open_one(b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: ") for _ in range(200)]
    still_serves()
    # Asks, and takes nothing of the answer.
    held += [open_one(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20) for _ in range(200)]
    still_serves()
    assert len(os.listdir(f"/proc/{broker.pid}/fd")) < fds + 200
    for data in (
        b"GET /" + b"x" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 100_000 + b"\r\n",
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n" + b"x" * 100_000,
        b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"\x00\x00\x00\x10\x00\x12\x00\x00",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /metrics HTTP/0.9\r\n\r\n",
    ):
        try:
            held.append(open_one(data))
        except OSError:
            # Closed before all of it was sent.
            pass
    still_serves()
    assert broker.rss() < before + (32 << 20), "memory of those that hold connections"
    for s in held:
        s.close()
    still_serves()
    assert broker.alive()


# ---- what comes with it

WATCHING = brokers.REPO / "tuning/observability"


def test_alert_rules_and_their_tests():
    for args in (("check", "rules", "corelane.rules.yml"), ("test", "rules", "corelane.rules.test.yml"), ("check", "config", "prometheus.yml")):
        done = metrics.promtool(*args[:2], WATCHING / args[2])
        assert done.returncode == 0, f"{args}: {done.stdout}{done.stderr}"
    rules = (WATCHING / "corelane.rules.yml").read_text()
    tested = (WATCHING / "corelane.rules.test.yml").read_text()
    names = re.findall(r"alert: (\w+)", rules)
    assert len(names) >= 15 and [name for name in names if tested.count(name) < 2] == []


def test_rules_and_dashboard_ask_for_what_there_is(broker):
    known = documented() | {name + end for name in documented() if name.endswith("_seconds") for end in ("_bucket", "_sum", "_count")}
    board = json.loads((WATCHING / "grafana-dashboard.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel.get("targets", [])]
    assert len(expressions) > 40
    rules = (WATCHING / "corelane.rules.yml").read_text()
    for text in (*expressions, *re.findall(r"expr: (.*)", rules)):
        named = set(re.findall(r"\b(?:corelane|process)_\w+", text))
        assert named <= known and (named or "up{" in text), text
    # Each of them is one that Prometheus can work out.
    use(broker).close()
    variables = {"$job": "corelane", "$instance": ".*", "$topic": ".*", "$__rate_interval": "1m"}
    with metrics.Prometheus(broker.folder / "prometheus", [broker], rules=[WATCHING / "corelane.rules.yml"]) as prometheus:
        prometheus.until(lambda: (prometheus.value("scrape_samples_scraped") or 0) > 100, "a scrape")
        for text in expressions:
            for variable, value in variables.items():
                text = text.replace(variable, value)
            assert prometheus.query(text) is not None, text
        loaded = prometheus.api("rules")["groups"]
        assert [rule["health"] for group in loaded for rule in group["rules"] if rule["health"] not in ("ok", "unknown")] == []
