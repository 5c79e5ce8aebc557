"""The console: what a person does with it in a browser, its values beside Kafka's tools, hostile names, sizes, and who may read it."""

import http.server
import json
import os
import re
import socket
import threading
import time

import confluent_kafka as ck
import pytest

from support import broker as brokers
from support import console, groups, java, load, metrics, proc, wire

pytestmark = pytest.mark.usefixtures("corelane_only")
# Where a page might run what it should show.
HOSTILE = "<img src=x onerror=alert(1)><script>alert(2)</script>\"'&amp;"
VIEWS = ["", "topics", "groups", "latency", "shards", "storage", "slow"]
T0 = (int(time.time()) - 600) * 1000
"""Of the first record: retention takes none of them."""


@pytest.fixture(scope="module")
def browser():
    with console.chromium() as browser:
        yield browser


@pytest.fixture
def window(browser):
    """`window(broker, ...)`: a window; each is checked and closed after the test."""
    made = []

    def make(b, **options):
        made.append(console.Window(browser, b, **options))
        return made[-1]

    yield make
    for each in made:
        each.close()
    for each in made:
        each.check()


@pytest.fixture
def broker(make_broker):
    return console.start(metrics.serve(make_broker(brokers.QUICK_GROUPS)))


def produce(b, topic, records, partition=0, **conf):
    """(key, value, timestamp, headers) each."""
    producer = load.producer(b, **conf)
    for key, value, timestamp, headers in records:
        producer.produce(topic, value, key=key, partition=partition, timestamp=timestamp, headers=headers)
    assert producer.flush(60) == 0


def dated(count, first=0):
    """Records a second apart, of which each says which it is."""
    return [
        (b"key %d" % i, json.dumps({"number": i, "big": 12345678901234567890, "nested": {"list": [1, "two"]}}).encode(), T0 + 1000 * i, None)
        for i in range(first, first + count)
    ]


def offsets_shown(page):
    page.wait_for_selector("#messages .message")
    return [int(o) for o in page.eval_on_selector_all("#messages .message", "all => all.map(m => m.dataset.offset)")]


# ---- what a person does


def test_a_person_searches_a_topic_and_opens_it(broker, window):
    for name in ("orders", "orders-late", "payments"):
        load.create_topic(broker, name, 3, retention_ms=3_600_000)
    produce(broker, "orders", dated(5), partition=1)
    w = window(broker)
    page = w.open()
    page.wait_for_selector("#brokers tbody tr")
    assert page.title() == "Corelane 0" and "broker 0" in page.inner_text("#broker")
    page.click("nav >> text=Topics")
    assert {row[0] for row in w.rows("#results")} == {"orders", "orders-late", "payments"}
    page.fill("input[type=search]", "ORD")
    w.until("document.querySelectorAll('#results tbody tr').length === 2")
    assert page.url.endswith("#/topics?search=ORD")
    row = next(row for row in w.rows("#results") if row[0] == "orders")
    assert dict(zip(w.heads("#results"), row))["Records"] == "5"
    page.click("#results >> text=orders >> nth=0")
    rows = w.rows("#partitions")
    assert "retention.ms" in page.inner_text("main") and "3600000" in page.inner_text("main")
    ends = {row[0]: (row[1], row[3], row[4], row[5]) for row in rows}
    assert ends == {"0": ("0", "0", "0", "0"), "1": ("0", "0", "0", "5"), "2": ("0", "0", "0", "0")}
    # Back to the list as it was.
    page.go_back()
    page.wait_for_selector("input[type=search]")
    assert page.input_value("input[type=search]") == "ORD" and len(w.rows("#results")) == 2


def test_messages_by_offset_and_by_time(broker, window):
    load.create_topic(broker, "t", 2)
    produce(broker, "t", dated(120), partition=1, compression_type="zstd")
    w = window(broker)
    page = w.open("topic/t/messages?partition=1")
    # The newest, without a question.
    assert offsets_shown(page) == list(range(70, 120))
    page.select_option("#from", "offset")
    page.fill("#offset", "10")
    page.select_option("#limit", "10")
    page.click("#show")
    page.wait_for_selector(".message[data-offset='10']")
    assert offsets_shown(page) == list(range(10, 20))
    page.click("#newer")
    page.wait_for_selector(".message[data-offset='20']")
    assert offsets_shown(page) == list(range(20, 30))
    page.click("#older")
    page.wait_for_selector(".message[data-offset='10']")
    # Half a second before record 43, as the consumer finds it.
    at = T0 + 42_500
    found = load.consumer(broker).offsets_for_times([ck.TopicPartition("t", 1, at)], timeout=30)[0].offset
    assert found == 43
    page.select_option("#from", "time")
    page.fill("#time", time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at // 1000)) + ".500")
    page.click("#show")
    page.wait_for_selector(".message[data-offset='43']")
    assert offsets_shown(page) == list(range(43, 53))
    text = page.inner_text(".message[data-offset='43']")
    assert time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(T0 // 1000 + 43)) in text and "key 43" in text
    # After the last one.
    page.fill("#time", "2033-01-01T00:00:00")
    page.click("#show")
    page.wait_for_selector("text=There is nothing from there on.")


def test_contents_are_decoded_as_asked(broker, window):
    load.create_topic(broker, "t")
    headers = [("trace", b"abc"), ("trace", b"\xff\x00"), ("none", None)]
    produce(broker, "t", [
        (b"k", b'{"big":12345678901234567890,"a":[1,{"b":"x:y,{"}],"e":{},"s":"\\u00e9\\""}', T0, headers),
        (None, b"\x00\x01\xfe\xff" * 5, T0, None),
        (b"", "plain \u00e4\u00f6 text".encode(), T0, None),
        (b"dead", None, T0, None),
        (b"large", b"0123456789" * 10_000, T0, None),
    ])  # fmt: skip
    w = window(broker)
    page = w.open("topic/t/messages")
    assert offsets_shown(page) == [0, 1, 2, 3, 4]

    def opened(offset):
        place = f".message[data-offset='{offset}']"
        if page.locator(f"{place} .open").count() == 0:
            page.click(f"{place} > button")
        return page.locator(f"{place} .open")

    text = opened(0).locator("pre").first.inner_text()
    # Laid out, and every number and string as it was written.
    assert '"big": 12345678901234567890' in text and '"b": "x:y,{"' in text and '"s": "\\u00e9\\""' in text and '"e": {}' in text
    assert json.loads(text) == json.loads(b'{"big":12345678901234567890,"a":[1,{"b":"x:y,{"}],"e":{},"s":"\\u00e9\\""}')
    rows = opened(0).locator("table tbody tr").all_inner_texts()
    assert [re.split(r"\s+", row.strip(), maxsplit=1) for row in rows] == [["trace", "abc"], ["trace", "ff 00"], ["none", "null"]]
    assert opened(1).locator("pre").first.inner_text().startswith("000000  00 01 fe ff 00 01 fe ff  00 01 fe ff 00 01 fe ff  ................\n000010  00 01 fe ff")
    assert "plain äö text" in opened(2).inner_text() and "(null)" in opened(3).inner_text()
    large = opened(4)
    assert len(large.locator("pre").first.inner_text()) == 2048 and "97.7 KiB, its beginning" in large.inner_text()
    large.locator("text=Read up to 1 MiB of it").click()
    w.until("document.querySelector(\".message[data-offset='4'] pre\").textContent.length === 100000")
    page.select_option("#decode", "hex")
    w.until("!document.querySelector('.open')")
    assert opened(2).locator("pre").first.inner_text().startswith("000000  70 6c 61 69 6e 20 c3 a4  c3 b6 20 74 65 78 74     plain .... text")
    page.select_option("#decode", "json")
    assert "it is no JSON" in opened(2).inner_text()


def test_the_lag_of_a_group_is_kafkas(make_broker, window):
    broker = console.start(metrics.serve(make_broker({"group.initial.rebalance.delay.ms": 100})))
    load.create_topic(broker, "t", 3)
    load.produce_lines(broker, "t", 60, 3)
    with wire.Conn(broker) as conn:
        groups.wait_ready(broker, "readers")
        groups.commit(conn, "readers", {("t", 0): 4, ("t", 2): 20})
    with groups.ConsumerMember(broker, "active") as member:
        member.join("t")
        member.settle(3)
        groups.commit(member.conn, "active", {("t", 1): 1}, generation=member.epoch, member=member.id)
        out = java.run(java.GROUPS, "--bootstrap-server", broker.bootstrap, "--describe", "--all-groups").out
        kafkas = {(r[0], r[1], r[2]): tuple(r[3:6]) for r in map(str.split, out.splitlines()) if r and r[0] in ("readers", "active")}
        w = window(broker)
        page = w.open("groups")
        rows = {row[0]: dict(zip(w.heads("#results"), row)) for row in w.rows("#results")}
        assert (rows["readers"]["Lag"], rows["readers"]["State"]) == ("16", "Empty")
        assert (rows["active"]["Lag"], rows["active"]["State"], rows["active"]["Type"]) == ("19", "Stable", "Consumer")
        for name in ("readers", "active"):
            page = w.open(f"group/{name}")
            ours = {(name, r[0], r[1]): tuple("-" if cell == "–" else cell for cell in r[2:5]) for r in w.rows("#offsets")}
            assert ours == {place: found for place, found in kafkas.items() if place[0] == name}, out
        assert [row[3] for row in w.rows("#members")] == ["3"]
        w.shoot("group")


def test_every_view_fits_at_400_pixels(broker, window):
    load.create_topic(broker, "a-topic-with-a-rather-long-name.for-a-narrow-window_" + "x" * 60, 12)
    load.create_topic(broker, "t", 2)
    produce(broker, "t", dated(20) + [(b"k" * 300, b"w" * 3000, T0, [("h" * 200, b"v" * 500)])])
    with wire.Conn(broker) as conn:
        groups.wait_ready(broker, "g" * 200)
        groups.commit(conn, "g" * 200, {("t", 0): 4})
    w = window(broker, size=console.NARROW)
    shown = {view: ".card, .panel, .note" for view in VIEWS}
    shown.update({"topic/t": "#partitions", f"group/{'g' * 200}": "#offsets", "topic/t/messages": "#messages .message"})
    tables = {"topics": "#results", "topic/t": "#partitions", "groups": "#results", "shards": "#shards", "storage": "#dirs", "slow": "#slow"}
    tables.update({f"group/{'g' * 200}": "#offsets"})
    for view, ready in shown.items():
        page = w.open(view)
        page.wait_for_selector(ready)
        assert w.fits(), view
        if view in tables:
            assert w.cut(tables[view]) == [], view
    page.click(".message[data-offset='20'] > button")
    page.wait_for_selector(".open pre")
    assert w.fits()
    # As far as a thumb reaches: every view by its tab.
    for name in ("Topics", "Slow requests", "Overview"):
        page.click(f"nav >> text={name}")
        page.wait_for_selector(f"h1:has-text('{name}')")


def test_each_scheme_has_its_colours(broker, window):
    colours = {}
    for scheme in ("light", "dark"):
        page = window(broker, scheme=scheme).open()
        page.wait_for_selector("#brokers")
        colours[scheme] = page.evaluate("(s => [s.backgroundColor, s.color])(getComputedStyle(document.body))")
    (back, text), (dark_back, dark_text) = (map(lambda rgb: sum(map(int, re.findall(r"\d+", rgb)[:3])), colours[s]) for s in ("light", "dark"))
    assert back - text > 500 and dark_text - dark_back > 500, colours


def test_figures_live(broker, window):
    load.create_topic(broker, "t", 2)
    w = window(broker)
    page = w.open("latency")
    stop = threading.Event()

    def work():
        while not stop.is_set():
            load.produce_lines(broker, "t", 200, 2)
            time.sleep(0.1)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        page.select_option("#window", "all")
        page.wait_for_selector("#latencies tbody tr >> text=acknowledged")
        page.wait_for_timeout(5000)
        page.select_option("#window", "10")
        rows = [dict(zip(w.heads("#latencies"), row)) for row in w.rows("#latencies")]
        ours = next(row for row in rows if (row["API"], row["Until"]) == ("Produce", "acknowledged"))
        assert re.fullmatch(r"[\d.]+ (µs|ms|s)", ours["p50"]) and float(ours["Per second"].split()[0]) > 0
        assert page.locator(".histogram rect").count() > 0
        page.click("nav >> text=Overview")
        w.until("/[1-9].* [KM]iB\\/s/.test(document.querySelector('.chart .value')?.textContent || '')")
        page.click("nav >> text=Shards")
        assert len(w.rows("#shards")) == len(metrics.samples(broker).all("corelane_connections"))
        w.until("document.querySelector('#shards tbody').innerText.includes('%')")
    finally:
        stop.set()
        worker.join()
    # What is told since the start is what /metrics tells.
    told = {(s["api"], s["stage"]): s for s in console.ask(broker, "latency")["series"]}
    scraped = metrics.samples(broker)
    stages = {"api": "Produce", "stage": "acknowledged"}
    assert told["Produce", "acknowledged"]["count"] == scraped.one("corelane_request_stage_seconds_count", **stages)
    assert told["Produce", "acknowledged"]["sum_seconds"] == pytest.approx(scraped.one("corelane_request_stage_seconds_sum", **stages))
    assert sum(n for _, n in told["Produce", "acknowledged"]["buckets"]) == told["Produce", "acknowledged"]["count"]


# ---- values beside Kafka's tools


def test_values_are_those_of_kafkas_tools(broker):
    load.create_topic(broker, "t", 4)
    load.produce_lines(broker, "t", 1000, 4)
    admin = ck.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    seen = admin.list_topics("t", timeout=30)
    shown = console.ask(broker, "topic", name="t")
    assert [(p["partition"], p["leader"], p["replicas"], p["isr"]) for p in shown["partitions"]] == [
        (p.id, p.leader, p.replicas, p.isrs) for p in sorted(seen.topics["t"].partitions.values(), key=lambda p: p.id)
    ]
    consumer = load.consumer(broker)
    assert [(p["start_offset"], p["end_offset"]) for p in shown["partitions"]] == [
        consumer.get_watermark_offsets(ck.TopicPartition("t", p), timeout=30) for p in range(4)
    ]
    consumer.close()
    out = java.run(java.LOG_DIRS, "--bootstrap-server", broker.bootstrap, "--describe", "--topic-list", "t").out
    dirs = json.loads(next(line for line in out.splitlines() if line.startswith("{")))["brokers"][0]["logDirs"]
    sizes = {p["partition"]: p["size"] for d in dirs for p in d["partitions"]}
    assert {f"t-{p['partition']}": p["bytes"] for p in shown["partitions"]} == sizes
    row = next(row for row in console.ask(broker, "topics")["topics"] if row["topic"] == "t")
    assert (row["topic"], row["records"], row["bytes"], row["partitions"]) == ("t", 1000, sum(sizes.values()), 4)
    cluster = console.ask(broker, "cluster")
    described = admin.describe_cluster().result(30)
    assert (cluster["cluster_id"], cluster["controller"]) == (described.cluster_id, described.controller.id)
    assert [b["id"] for b in cluster["brokers"]] == [n.id for n in described.nodes]
    (told,) = console.ask(broker, "log-dirs")["brokers"]
    assert [d["path"] for d in told["log_dirs"]] == [d["logDir"] for d in dirs]
    overview = console.ask(broker, "overview")
    assert (overview["broker_id"], overview["cluster_id"], overview["produced_records"]) == (0, described.cluster_id, 1000)
    assert abs(overview["started_ms"] / 1000 - time.time()) < 300


def test_messages_are_those_that_a_consumer_reads(broker):
    load.create_topic(broker, "t")
    for codec in ("none", "gzip", "snappy", "lz4", "zstd"):
        produce(broker, "t", [(b"k%d" % i, load.line(i), T0 + i, [("n", b"%d" % i)]) for i in range(100)], compression_type=codec)
    shown, at = [], 0
    while True:
        answer = console.ask(broker, "messages", topic="t", offset=at, limit=73)
        shown += answer["messages"]
        at = answer["next_offset"]
        if at == answer["end_offset"]:
            break
    read = []
    consumer = load.consumer(broker)
    consumer.assign([ck.TopicPartition("t", 0, 0)])
    while len(read) < 500:
        message = consumer.poll(10)
        assert message is not None
        if not message.error():
            read.append(message)
    consumer.close()
    assert [(m["offset"], m["timestamp_ms"], m["key"]["text"], m["value"]["text"], [(h["key"]["text"], h["value"]["text"]) for h in m["headers"]]) for m in shown] == [
        (m.offset(), m.timestamp()[1], m.key().decode(), m.value().decode(), [(k, v.decode()) for k, v in m.headers()]) for m in read
    ]


def test_a_cluster_without_one_of_its_brokers(make_cluster, window):
    c = make_cluster(prepare=lambda c: [metrics.serve(b) for b in c.brokers.values()])
    c.create("t", 3)
    load.produce_lines(c, "t", 90, 3)
    b = c[c.leader("t", 0)]
    w = window(b)
    page = w.open()
    assert len(w.rows("#brokers")) == 3
    # Messages of partitions that are led elsewhere.
    assert [console.ask(b, "messages", topic="t", partition=p)["end_offset"] for p in range(3)] == [30, 30, 30]
    gone = next(number for number in c.brokers if c[number] is not b)
    c[gone].kill()
    c.wait_for_isr("t", {number for number in c.brokers if number != gone})
    w.until("document.querySelectorAll('#brokers tbody tr').length === 2", timeout=40)
    cards = page.locator("main .cards").nth(1).inner_text()
    assert "UNDER-REPLICATED" in cards.upper()
    page.click("nav >> text=Topics")
    row = dict(zip(w.heads("#results"), next(row for row in w.rows("#results") if row[0] == "t")))
    assert (row["Under-replicated"], row["No leader"]) == ("3", "0")


# ---- hostile names and contents


def test_names_and_contents_stay_text(broker, window):
    load.create_topic(broker, "t")
    produce(broker, "t", [(HOSTILE.encode(), HOSTILE.encode(), T0, [(HOSTILE, HOSTILE.encode())]), (None, json.dumps({HOSTILE: HOSTILE}).encode(), T0, None)])
    names = [HOSTILE, "a/b%2Fc?d#e&f=g", "\u202egnp.exe", "tab\tnew\nline", "../../x", "ümlaut 日本"]
    for name in names:
        with wire.Conn(broker) as conn:
            groups.wait_ready(broker, name)
            groups.commit(conn, name, {("t", 0): 1})
    joined = load.consumer(broker, **{"group.id": HOSTILE, "client.id": HOSTILE, "auto.offset.reset": "earliest"})
    joined.subscribe(["t"])
    groups.wait_until(lambda: joined.poll(0.2) is not None or joined.assignment(), 30)
    w = window(broker)
    page = w.open("groups")
    shown = {row[0] for row in w.rows("#results")}
    assert HOSTILE in shown and "\\u{202e}gnp.exe" in shown and "tab\\u{9}new\\u{a}line" in shown and "a/b%2Fc?d#e&f=g" in shown
    assert len(shown) == len(names)
    for i in range(len(names)):
        page = w.open("groups")
        page.locator("#results tbody tr a").nth(i).click()
        assert [row[0] for row in w.rows("#offsets")] == ["t"]
    page = w.open("groups")
    page.click("#results tbody tr a:has-text('<img')")
    assert HOSTILE in w.rows("#members")[0][1]
    page = w.open("topic/t/messages")
    for offset in (0, 1):
        page.click(f".message[data-offset='{offset}'] > button")
    assert HOSTILE in page.inner_text(".message[data-offset='0'] .open pre")
    assert page.locator("main img, main script").count() == 0
    # Names in the address are no better.
    for view in (f"topic/{HOSTILE}", f"group/{HOSTILE}", f"topics?search={HOSTILE}", f"{HOSTILE}", "topic/%", "__proto__", "constructor"):
        page = w.open(view)
        page.wait_for_selector(".error, .note, #offsets, #partitions")
    joined.close()


def test_the_page_cannot_be_made_to_run_what_it_shows(broker, window):
    w = window(broker)
    page = w.open()
    page.wait_for_selector("#brokers")
    assert "TrustedHTML" in page.evaluate("try { document.body.innerHTML = '<b>x</b>'; 'done' } catch (e) { e.message }")
    page.evaluate("document.body.append(Object.assign(document.createElement('img'), {src: 'http://192.0.2.1/x'}))")
    page.wait_for_timeout(300)
    assert any("Content Security Policy" in error for error in w.errors), w.errors
    w.errors.clear()
    w.asked = [url for url in w.asked if "192.0.2.1" not in url]


# ---- sizes


def test_a_thousand_topics_and_two_hundred_groups(broker, window, figure):
    admin = ck.admin.AdminClient({"bootstrap.servers": broker.bootstrap})
    names = [f"topic-{i:04}" for i in range(1000)]
    for made in admin.create_topics([ck.admin.NewTopic(name, 2, 1) for name in names], request_timeout=60).values():
        made.result(90)
    produce(broker, "topic-0500", dated(7))
    groups.wait_ready(broker, "group-000")
    with wire.Conn(broker) as conn:
        for i in range(200):
            groups.commit(conn, f"group-{i:03}", {(names[(i * 7 + p) % 1000], 0): 0 for p in range(10)})
    for path, most in (("topics", 50), ("groups", 50), ("topic?name=topic-0500", 2), ("cluster", 1)):
        times = []
        for _ in range(5):
            began = time.monotonic()
            status, _, body = console.request(broker, f"/api/{path}")
            times.append(time.monotonic() - began)
            assert status == 200 and len(body) < 40_000, len(body)
            time.sleep(1.1)
        figure(f"/api/{path}, median of 5", f"{1000 * sorted(times)[2]:.0f} ms, {len(body)} bytes")
        assert sorted(times)[2] < 2
    w = window(broker)
    page = w.open("topics")
    assert len(w.rows("#results")) == 50 and "1–50 of 1,001 topics" in page.inner_text("#results")
    began = time.monotonic()
    page.fill("input[type=search]", "0500")
    w.until("document.querySelectorAll('#results tbody tr').length === 1")
    figure("a search in 1,000 topics as the person sees it", f"{1000 * (time.monotonic() - began):.0f} ms")
    assert w.rows("#results")[0][0] == "topic-0500" and "7" in w.rows("#results")[0]
    page.fill("input[type=search]", "")
    w.until("document.querySelectorAll('#results tbody tr').length === 50")
    seen = set()
    for _ in range(21):
        seen |= {row[0] for row in w.rows("#results")}
        forward = page.locator("button[aria-label='Next page']").first
        if forward.is_disabled():
            break
        last = w.rows("#results")[0][0]
        forward.click()
        w.until("last => document.querySelector('#results tbody td').innerText !== last", last)
    # The offsets' own is among them, with a word about that.
    assert seen == {*names, "__consumer_offsets internal"}
    page = w.open("groups")
    assert len(w.rows("#results")) == 50 and "of 200 groups" in page.inner_text("#results")
    page.fill("input[type=search]", "group-199")
    w.until("document.querySelectorAll('#results tbody tr').length === 1")
    assert dict(zip(w.heads("#results"), w.rows("#results")[0]))["Topics"] == "10"
    w.shoot("groups")


def test_answers_are_bounded(broker):
    load.create_topic(broker, "t", 1, max_message_bytes=4 << 20)
    produce(broker, "t", [(None, b"x" * (1 << 20), T0, None)] * 5, message_max_bytes=str(4 << 20), linger_ms=0)
    answer = console.ask(broker, "messages", topic="t", offset=0, limit=200, bytes=1 << 20)
    assert len(answer["messages"]) == 1 and answer["next_offset"] == 1
    answer = console.ask(broker, "messages", topic="t", offset=0, limit=200)
    assert [len(m["value"]["text"]) for m in answer["messages"]] == [2048] * 5 and all(m["value"]["cut"] for m in answer["messages"])
    for wrong in ({"limit": 201}, {"bytes": (1 << 20) + 1}, {"offset": -1}, {"offset": 1, "time_ms": 1}, {"partition": "x"}, {"topic": "x" * 2000}):
        assert "error" in console.ask(broker, "messages", 400, **{"topic": "t", **wrong})
    assert "no topic" in console.ask(broker, "topic", 404, name="nowhere")["error"]
    assert "no group" in console.ask(broker, "group", 404, name="nobody")["error"]
    assert "no partition 7" in console.ask(broker, "messages", 404, topic="t", partition=7)["error"]
    assert "no partition" in console.ask(broker, "messages", 404, topic="nowhere")["error"]
    # Asking makes nothing.
    assert {row["topic"] for row in console.ask(broker, "topics")["topics"]} <= {"t", "__consumer_offsets"}
    assert console.request(broker, "/api/nothing")[0] == 404
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert console.request(broker, "/api/topics", method)[0] == 405


def test_connections_end_when_nobody_asks(broker, length):
    if not length.full:
        pytest.skip("takes 70 s: --full")

    def connections():
        return metrics.samples(broker).sum("corelane_connections")

    before = connections()
    assert "console" not in proc.threads(broker.pid)
    kept = []
    for _ in range(2):
        console.ask(broker, "topics")
        assert connections() > before and "console" in proc.threads(broker.pid)
        groups.wait_until(lambda: connections() == before, 45)
        groups.wait_until(lambda: not kept or metrics.samples(broker).one("process_open_fds") <= kept[0], 10)
        kept.append(metrics.samples(broker).one("process_open_fds"))


# ---- who may read it


def test_only_its_own_names_and_its_own_page_are_answered(make_broker):
    b = make_broker()
    metrics.serve(b)
    b.props["advertised.listeners"] = f"PLAINTEXT://{brokers.HOST}:{b.port}"
    console.start(b)
    for host in (f"127.0.0.1:{b.http_port}", f"localhost:{b.http_port}", "127.0.0.1"):
        status, headers, _ = console.request(b, "/api/overview", host=host)
        assert status == 200 and "access-control-allow-origin" not in headers
    for host in (f"evil.example:{b.http_port}", "localhost.evil.example"):
        status, _, body = console.request(b, "/api/overview", host=host)
        assert status == 403 and b"is not known as a name of this host" in body
    for name, value in (("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Site", "same-site"), ("Origin", "http://evil.example"), ("Origin", "null")):
        assert console.request(b, "/api/topics", **{name: value})[0] == 403
    assert console.request(b, "/api/overview", Sec_Fetch_Site="same-origin")[0] == 200
    # Scrapers may use any name.
    assert console.request(b, "/metrics", host="prometheus.example")[0] == 200
    status, headers, body = console.request(b, "/")
    assert status == 200 and headers["content-type"] == "text/html; charset=utf-8"
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "script-src 'self'" in policy and "unsafe" not in policy and "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff" and headers["cross-origin-resource-policy"] == "same-origin"
    script = b"".join(console.request(b, path)[2] for path in ("/parts.js", "/messages.js", "/views.js"))
    assert not re.search(rb"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", script)
    assert not re.search(rb"(?:src|href)=[\"']?(?:https?:)?//", body)


def test_a_page_from_elsewhere_cannot_read_it(broker, browser):
    class Evil(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(b"<!DOCTYPE html><title>evil</title>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((brokers.HOST, brokers.free_port()), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    context = browser.new_context()
    try:
        page = context.new_page()
        page.goto(f"http://{brokers.HOST}:{server.server_port}/")
        base = f"http://{brokers.HOST}:{broker.http_port}"
        read = "url => fetch(url).then(r => r.text(), e => 'refused')"
        assert page.evaluate(read, f"{base}/api/overview") == "refused"
        loaded = "url => new Promise(done => { const s = document.createElement('script'); s.src = url; s.onload = () => done('run'); s.onerror = () => done('refused'); document.head.append(s); })"
        assert page.evaluate(loaded, f"{base}/api/overview") == "refused"
        framed = "url => new Promise(done => { const f = document.createElement('iframe'); f.src = url; f.onload = () => { try { done(f.contentDocument ? 'read' : 'opaque') } catch { done('opaque') } }; document.body.append(f); })"
        assert page.evaluate(framed, f"{base}/") == "opaque"
        assert not any(frame.query_selector("nav a") for frame in page.frames[1:])
    finally:
        context.close()
        server.shutdown()


@pytest.mark.parametrize("remote", [False, True], ids=["near", "remote"])
def test_other_hosts_are_let_in_by_the_option_only(make_broker, remote):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        try:
            s.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this host has no address but the loopback's")
        own = s.getsockname()[0]
    b = metrics.serve(make_broker({"corelane.console.remote": str(remote).lower()}))
    b.props[metrics.LISTENER] = f"0.0.0.0:{b.http_port}"
    console.start(b)
    assert console.request(b, "/api/overview", address=own)[0] == (200 if remote else 403)
    assert console.request(b, "/metrics", address=own)[0] == 200
    assert console.request(b, "/api/overview")[0] == 200


def test_a_broker_that_goes_and_comes_back(make_broker, window):
    b = console.start(metrics.serve(make_broker()))
    load.create_topic(b, "t")
    w = window(b)
    page = w.open("topics")
    assert w.rows("#results")[0][0] == "t"
    b.stop()
    page.wait_for_selector("#state:has-text('The broker does not answer.')")
    b.start(topics=["t"])
    w.until("document.getElementById('state').textContent === ''", timeout=30)


@pytest.mark.skipif("CORELANE_SCREENSHOTS" not in os.environ, reason="for people to look at: CORELANE_SCREENSHOTS=DIR")
def test_pictures(make_broker, window):
    """Each view, wide and narrow, dark and light."""
    b = console.start(metrics.serve(make_broker({"corelane.shards": 2})))
    for i, name in enumerate(("orders", "payments", "clicks", "users", "audit-log", "a.very.long.topic.name.that.teams.like.to.choose-v2")):
        load.create_topic(b, name, 1 + 2 * i)
        load.produce_lines(b, name, 500 * (i + 1), 1 + 2 * i)
    produce(b, "orders", dated(30) + [(b"\x00\x01", b"\xff\xfe\xfd", T0, [("trace-id", b"4bf92f3577b34da6")])])
    reader = load.consumer(b, **{"group.id": "billing", "auto.offset.reset": "earliest", "client.id": "billing-1"})
    reader.subscribe(["orders", "payments"])
    for _ in range(40):
        reader.poll(0.5)
    reader.commit(asynchronous=False)
    stop = threading.Event()

    def work():
        while not stop.is_set():
            load.produce_lines(b, "clicks", 300, 5)
            time.sleep(0.05)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for size, scheme in ((console.WIDE, "light"), (console.WIDE, "dark"), (console.NARROW, "light"), (console.NARROW, "dark")):
            w = window(b, size=size, scheme=scheme)
            for view, ready in (
                ("", "#brokers"), ("topics", "#results tbody"), ("topic/clicks", "#partitions"), ("groups", "#results tbody"), ("group/billing", "#offsets"),
                ("latency", "h1"), ("shards", "#shards"), ("storage", "#dirs"), ("slow", "#slow, .note"), ("topic/orders/messages", "#messages .message"),
            ):  # fmt: skip
                page = w.open(view)
                page.wait_for_selector(ready)
                if view in ("", "latency", "shards"):
                    page.wait_for_timeout(7000)
                if "messages" in view:
                    page.locator("#messages .message > button").nth(-2).click()
                    page.locator("#messages .message > button").nth(-1).click()
                w.shoot(f"{view.replace('/', '-') or 'overview'}-{size[0]}-{scheme}")
                assert w.fits(), (view, size)
    finally:
        stop.set()
        worker.join()
        reader.close()
