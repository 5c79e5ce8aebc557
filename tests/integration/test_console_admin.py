"""Changes by way of the console: made by a person in a browser, as Kafka's own tools see them afterwards, and by nobody else."""

import http.client
import json
import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource

from support import broker as brokers
from support import console, groups, load, metrics, wire
from support.groups import wait_until
from test_console import browser, produce, window  # noqa: F401

pytestmark = pytest.mark.usefixtures("corelane_only")

T0 = 1_700_000_000_000


@pytest.fixture
def broker(make_broker):
    return console.start(metrics.serve(make_broker({**brokers.QUICK_GROUPS, "corelane.console.admin": "true"})))


def topics(b):
    listed = AdminClient({"bootstrap.servers": b.bootstrap}).list_topics(timeout=10).topics
    return {name: len(topic.partitions) for name, topic in listed.items() if not name.startswith("__")}


def options(b, topic):
    """Those that the topic has for itself."""
    admin = AdminClient({"bootstrap.servers": b.bootstrap})
    [future] = admin.describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    return {name: entry.value for name, entry in future.result().items() if entry.source == 1}


def committed(b, group, topic, partitions):
    c = load.consumer(b, group_id=group)
    try:
        return [p.offset for p in c.committed([ck.TopicPartition(topic, p) for p in range(partitions)], timeout=10)]
    finally:
        c.close()


def said(b):
    return [line for line in b.log_text().splitlines() if "by the console" in line]


def test_a_person_makes_a_topic_grows_it_and_deletes_it(broker, window):
    w = window(broker)
    page = w.open("topics")
    page.click("#create-topic button")
    page.fill("#create-topic [name=topic]", "orders")
    page.fill("#create-topic [name=partitions]", "2")
    page.fill("#create-topic [name=options]", "retention.ms=86400000 cleanup.policy=compact")
    page.click("#create-topic >> text=Create")
    page.wait_for_selector("#results >> text=orders")
    assert topics(broker) == {"orders": 2}
    assert options(broker, "orders") == {"retention.ms": "86400000", "cleanup.policy": "compact"}
    # What the broker says of a name that is taken, and what is no number.
    page.click("#create-topic button")
    page.fill("#create-topic [name=topic]", "orders")
    page.click("#create-topic >> text=Create")
    page.wait_for_selector("#create-topic .error:has-text('TOPIC_ALREADY_EXISTS')")
    page.fill("#create-topic [name=partitions]", "many")
    page.click("#create-topic >> text=Create")
    page.wait_for_selector("#create-topic .error:has-text('whole number')")
    page.click("#create-topic >> text=Cancel")
    page.click("#results >> text=orders >> nth=0")
    page.wait_for_selector("#partitions")
    page.click("#add-partitions button")
    assert page.input_value("#add-partitions [name=partitions]") == "2"
    page.fill("#add-partitions [name=partitions]", "5")
    page.click("#add-partitions >> text=Add >> nth=-1")
    w.until("document.querySelectorAll('#partitions tbody tr').length === 5")
    page.click("#alter-topic button")
    page.fill("#alter-topic [name=option]", "retention.ms")
    page.click("#alter-topic button[type=submit]")
    w.until("!document.querySelector('main').innerText.includes('86400000')")
    page.click("#alter-topic button")
    page.fill("#alter-topic [name=option]", "segment.bytes")
    page.fill("#alter-topic [name=value]", "many")
    page.click("#alter-topic button[type=submit]")
    page.wait_for_selector("#alter-topic .error:has-text('segment.bytes')")
    page.fill("#alter-topic [name=value]", "1048576")
    page.click("#alter-topic button[type=submit]")
    page.wait_for_selector("main >> text=1048576")
    assert topics(broker) == {"orders": 5} and options(broker, "orders") == {"cleanup.policy": "compact", "segment.bytes": "1048576"}
    w.shoot("admin-topic")
    page.click("#delete-topic button")
    page.fill("#delete-topic [name=topic]", "order")
    page.click("#delete-topic button[type=submit]")
    page.wait_for_selector("#delete-topic .error:has-text('not the name')")
    assert topics(broker) == {"orders": 5}
    page.fill("#delete-topic [name=topic]", "orders")
    page.click("#delete-topic button[type=submit]")
    page.wait_for_selector("#results >> text=There are no topics yet")
    assert topics(broker) == {} and page.url.endswith("#/topics")
    told = [line.split("by the console")[1] for line in said(broker)]
    done = [line for line in told if line.startswith(": ")]
    for line, part in zip(done, ('create topic "orders"', 'grow topic "orders" to 5 partitions', 'unset "retention.ms" of topic "orders"', 'set "segment.bytes"', "delete topic"), strict=True):
        assert part in line, told
    assert sum(line.startswith(", in vain: ") for line in told) == 2, told
    assert all("peer=127.0.0.1:" in line for line in said(broker))


def test_a_person_moves_a_group(broker, window):
    load.create_topic(broker, "t", 2, retention_ms=-1)
    for p, count in ((0, 10), (1, 4)):
        produce(broker, "t", [(None, b"%d" % n, T0 + 1000 * n, None) for n in range(count)], partition=p)
    with wire.Conn(broker) as conn:
        groups.wait_ready(broker, "g")
        assert set(groups.commit(conn, "g", {("t", 0): 5, ("t", 1): 1}).values()) == {0}
    w = window(broker)
    page = w.open("group/g")
    page.wait_for_selector("#offsets")

    def move(to, **fields):
        page.click("#reset-offsets button")
        page.select_option("#reset-offsets [name=to]", to)
        for name, value in fields.items():
            page.fill(f"#reset-offsets [name={name}]", value)
        page.click("#reset-offsets button[type=submit]")

    for to, fields, expected in (
        ("latest", {}, [10, 4]),
        ("earliest", {}, [0, 0]),
        ("offset", {"offset": "7"}, [7, 4]),
        # The window is in UTC.
        ("time", {"time": "2023-11-14T22:13:22"}, [2, 2]),
    ):
        move(to, **fields)
        page.wait_for_selector("#reset-offsets >> text=Move the group")
        assert committed(broker, "g", "t", 2) == expected, to
    w.until("document.querySelector('#offsets tbody tr').cells[2].innerText === '2'")
    # Not while it has a member.
    c = load.consumer(broker, group_id="g", auto_offset_reset="earliest")
    c.subscribe(["t"])
    try:
        wait_until(lambda: c.poll(0.2) is not None and len(c.assignment()) == 2, 30)
        move("latest")
        page.wait_for_selector("#reset-offsets .error:has-text('has 1 members')")
        assert committed(broker, "g", "t", 2) == [2, 2]
    finally:
        c.close()


def post(b, change, path="/api/change", **headers):
    """(status, body) of a request that need not come from a browser."""
    connection = http.client.HTTPConnection(brokers.HOST, b.http_port, timeout=30)
    try:
        body = change if isinstance(change, bytes) else json.dumps(change).encode()
        given = {"Content-Type": "application/json", "Origin": f"http://{brokers.HOST}:{b.http_port}", **headers}
        connection.request("POST", path, body, {name: value for name, value in given.items() if value is not None})
        response = connection.getresponse()
        body = response.read()
        return response.status, json.loads(body) if response.getheader("Content-Type") == "application/json" else {}
    finally:
        connection.close()


DELETE = {"change": "delete_topic", "topic": "t"}


def test_without_the_option_nothing_is_changed(make_broker, window):
    b = console.start(metrics.serve(make_broker()))
    load.create_topic(b, "t", 1)
    w = window(b)
    page = w.open("topic/t")
    page.wait_for_selector("#partitions")
    assert page.query_selector_all(".change") == []
    assert console.ask(b, "admin") == {"enabled": False, "token": None}
    status, answer = post(b, DELETE, **{"X-Corelane-Token": "0" * 32})
    assert status == 403 and "corelane.console.admin" in answer["error"] and topics(b) == {"t": 1}


def test_only_the_page_itself_changes_anything(broker, browser):  # noqa: F811
    load.create_topic(broker, "t", 1)
    token = console.ask(broker, "admin")["token"]
    own = f"http://{brokers.HOST}:{broker.http_port}"
    for wrong in (
        {},
        {"X-Corelane-Token": "0" * 32},
        {"X-Corelane-Token": token, "Origin": None},
        {"X-Corelane-Token": token, "Origin": "http://evil.example"},
        {"X-Corelane-Token": token, "Origin": f"http://evil.example:{broker.http_port}"},
        {"X-Corelane-Token": token, "Sec-Fetch-Site": "cross-site"},
        {"X-Corelane-Token": token, "Host": "evil.example"},
        {"X-Corelane-Token": token, "Content-Type": "text/plain"},
    ):
        assert post(broker, DELETE, **wrong)[0] == 403, wrong
    assert topics(broker) == {"t": 1} and not said(broker)
    good = {"X-Corelane-Token": token}
    for change, status in (
        ({"change": "drop"}, 400),
        (b"x", 400),
        ({**DELETE, "force": True}, 400),
        (b'{"change": "' + b"x" * 70_000, 413),
        ({"change": "delete_topic", "topic": "other"}, 409),
        ({"change": "reset_offsets", "group": "none", "topic": "t", "to": "latest"}, 404),
    ):
        assert post(broker, change, **good)[0] == status, change
    assert metrics.get(broker, "/api/change")[0] == 405
    # A page from elsewhere that a person looks at.
    context = browser.new_context()
    try:
        page = context.new_page()
        page.route("http://evil.example/", lambda route: route.fulfill(body="<!DOCTYPE html><title>evil</title>", content_type="text/html"))
        page.goto("http://evil.example/")
        attempt = """([url, body, headers]) => fetch(url, { method: 'POST', body, headers, mode: headers ? 'cors' : 'no-cors' }).then(r => r.type, e => 'refused')"""
        json_headers = {"Content-Type": "application/json", "X-Corelane-Token": token}
        for headers in (None, json_headers):
            page.evaluate(attempt, [f"{own}/api/change", json.dumps(DELETE), headers])
        time.sleep(0.5)
    finally:
        context.close()
    assert topics(broker) == {"t": 1}
    status, answer = post(broker, DELETE, **good)
    assert (status, answer) == (200, {"done": 'delete topic "t"'})
    wait_until(lambda: topics(broker) == {}, 10)
