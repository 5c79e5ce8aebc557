"""Connections go to the shard of most of their requests: hardly any request is passed on, and no client notices."""

import re
import threading

import confluent_kafka as ck
import pytest

from support import load, wire

PARTITIONS = 4
COUNTERS = re.compile(
    r"connections between shards shard=(\d+) connections=\d+ requests=(\d+) calls=(\d+) moved_away=(\d+) "
    r"moved_here=(\d+)"
)


@pytest.fixture
def on_shards(make_broker, corelane_only):
    """`on_shards(n)`: a broker of n shards, however many CPUs there are, that tells its counters."""

    def start(shards):
        b = make_broker({
            "corelane.shards": shards,
            "corelane.arena.bytes": 4 << 20,
            "corelane.io.memory.bytes": 2 << 20,
            "corelane.log.level": "info,corelane::server::crossing=debug",
        })
        b.start()
        return b

    return start


def counters(b):
    """(requests, calls to other shards, moves) of a broker that has stopped."""
    last = {found.group(1): list(map(int, found.groups()[1:])) for found in COUNTERS.finditer(b.log_text())}
    assert len(last) == int(b.props["corelane.shards"]), last
    requests, calls, away, here = (sum(column) for column in zip(*last.values()))
    assert away == here, "a connection was lost between two shards"
    return requests, calls, away


def side_by_side(work, count=PARTITIONS):
    failed = []

    def run(n):
        try:
            work(n)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=run, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.parametrize("acks", [0, 1, "all"])
@pytest.mark.parametrize("shards", [2, 8, 16])
def test_hardly_any_request_is_passed_on(on_shards, figure, length, shards, acks):
    """A client a partition, which writes its lines in small requests and then reads them."""
    count = length.pick(24_000, 200_000)
    b = on_shards(shards)
    load.create_topic(b, "moving", PARTITIONS)

    def produce(partition):
        reports = load.Deliveries()
        p = load.producer(b, linger_ms=0, batch_num_messages=5, acks=acks)
        for n in range(count):
            p.produce("moving", load.line(n), partition=partition, on_delivery=reports)
            if n % 100 == 0:
                p.poll(0)
        assert p.flush(120) == 0 and reports.count == count and not reports.errors, reports.errors[:3]

    def consume(partition):
        c = load.consumer(b, message_max_bytes=1000, fetch_message_max_bytes=1000, fetch_max_bytes=1000)
        c.assign([ck.TopicPartition("moving", partition, 0)])
        for n in range(count):
            message = c.poll(60)
            assert message is not None and not message.error(), message and message.error()
            assert (message.offset(), message.value()) == (n, load.line(n))
        c.close()

    side_by_side(produce)
    side_by_side(consume)
    b.stop()
    requests, calls, moves = counters(b)
    figure(f"calls to other shards a request, {shards} shards", f"{calls / requests:.4f} of {requests}, {moves} moves")
    assert requests > 4000, "too few requests to say anything"
    assert calls / requests < 0.05
    # Of two shards each connection may have been given the right one.
    assert moves > 0 or shards == 2


@pytest.mark.parametrize("acks", [1, -1])
def test_answers_keep_their_order(on_shards, acks):
    """One connection, five requests under way all the time, whose partition changes; some of them ask for no answer."""
    b = on_shards(3)
    load.create_topic(b, "order", 3)
    ends = [0, 0, 0]
    with wire.Conn(b, timeout=60) as conn:
        under_way = []

        def take():
            correlation, partition, offset = under_way.pop(0)
            got, reader = conn.recv()
            assert got == correlation
            assert wire.read_produce(reader)["order", partition] == (0, offset)

        for n in range(6000):
            partition = n // 2000
            silent = n % 7 == 0
            body = wire.produce_body({"order": {partition: wire.batch([b"%d" % n])}}, acks=0 if silent else acks)
            correlation = conn.send(wire.PRODUCE, 7, body)
            if silent:
                conn.sent.pop(correlation)
            else:
                under_way.append((correlation, partition, ends[partition]))
            ends[partition] += 1
            if len(under_way) == 5:
                take()
        while under_way:
            take()
        # Behind the last one, on the same connection.
        assert [wire.offset(conn, "order", p, -1) for p in range(3)] == ends
    for partition in range(3):
        values = []
        with wire.Conn(b) as conn:
            while len(values) < ends[partition]:
                part = wire.fetch(conn, "order", partition, len(values))
                values += [value for batch in wire.batches(part["data"]) for value in batch.values()]
        assert [int(value) for value in values] == list(range(2000 * partition, 2000 * partition + 2000))
    b.stop()
    assert counters(b)[2] >= 1


def test_a_fetch_session_goes_along(on_shards):
    """Its client never has to begin anew, and a fetch that waits is answered wherever its connection is by then."""
    b = on_shards(2)
    load.create_topic(b, "session", 2)
    for partition in range(2):
        with wire.Conn(b) as writer, wire.Conn(b, timeout=60) as conn:
            body = wire.fetch_body({"session": {partition: 0}}, session=(0, 0), max_wait=0)
            error, session, _ = wire.read_fetch(conn.call(wire.FETCH, 11, body))
            assert error == 0 and session != 0
            epoch, at = 1, 0
            for n in range(300):
                waits = n % 50 == 20
                named = {"session": {partition: at}}
                body = wire.fetch_body(named, session=(session, epoch), max_wait=500 if waits else 0)
                sent = conn.send(wire.FETCH, 11, body)
                if waits:
                    assert wire.produce(writer, "session", partition, wire.batch([b"%d" % n])) == (0, at)
                correlation, reader = conn.recv()
                error, same, parts = wire.read_fetch(reader)
                assert (correlation, error, same) == (sent, 0, session), f"fetch {n}"
                if waits:
                    batches = wire.batches(parts["session", partition]["data"])
                    assert [batch.values() for batch in batches] == [[b"%d" % n]]
                    at += 1
                epoch += 1
    b.stop()
    # On the way to one partition at least the connection was not where that lives.
    assert counters(b)[0] > 600


def test_clients_that_die_on_the_move_leave_nothing_behind(on_shards):
    """Connections are cut while they move; afterwards the address may open as many as before."""
    b = on_shards(2)
    load.create_topic(b, "cut", 2)
    batch = wire.batch([b"x"])
    for round in range(40):
        conns = [wire.Conn(b) for _ in range(8)]
        for n, conn in enumerate(conns):
            request = wire.frame(wire.PRODUCE, 7, wire.produce_body({"cut": {n % 2: batch}}))
            conn.raw(request * (60 + round) + request[: round * 2])
        for conn in conns:
            conn.close()
    with wire.Conn(b) as conn:
        for partition in range(2):
            assert wire.produce(conn, "cut", partition, batch)[0] == 0
    b.stop()
    counters(b)
