"""Memory under a cap, a thousand partitions, and what an idle broker costs."""

import os
import selectors
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support import load, proc, wire

MIB = 1 << 20
CAP = 512 * MIB


@pytest.mark.timeout(900)
def test_cold_read_under_a_memory_cap(make_broker, length, figure, request):
    """All that was written is read back after a restart, byte-equal, within 512 MiB."""
    total = length.pick(300, 1024) * MIB
    cap = proc.MemoryCap.make(f"corelane-test-{os.getpid()}", CAP)
    figure("memory cap", "a control group of 512 MiB" if cap else "none can be made here: resident memory is sampled instead")
    b = make_broker(cap=cap)
    b.heap = "256m"
    if cap:
        request.addfinalizer(cap.remove)
        request.addfinalizer(b.kill)
    b.start()
    load.create_topic(b, "cold", 4)
    time.sleep(2)
    idle = b.rss()
    bulk = load.Bulk()
    with proc.PeakRss(b.pid) as writing:
        took = bulk.load(b, "cold", 4, total)
    b.stop()
    b.start(topics=["cold"])
    with proc.PeakRss(b.pid) as reading:
        began = time.monotonic()
        read = bulk.check(b, "cold", 4)
        seconds = time.monotonic() - began
    assert b.alive(), "ended, perhaps by the cap"
    figure("resident memory", f"idle {idle / MIB:.0f} MiB, writing {writing.peak / MIB:.0f} MiB, reading cold {reading.peak / MIB:.0f} MiB")
    figure("speed of one Python client", f"written at {total / MIB / took:.0f} MiB/s, read cold at {read / MIB / seconds:.0f} MiB/s")
    if b.kind == "corelane":
        assert max(writing.peak, reading.peak) < CAP
    b.stop()


def small_elements(api):
    """A request of nearly 4 MiB, made of the smallest elements that the API has: (version, body)."""
    size, topic = (4 << 20) - 1000, b"\x00\x04wide"

    def array(element, size=size):
        n = size // len(element(0))
        return struct.pack(">i", n) + b"".join(map(element, range(n)))

    def key(i):
        return b"\x00\x04" + bytes(0x21 + i // 90**k % 90 for k in range(4))

    limit = 990_000  # elements of a request
    return {
        wire.METADATA: (4, array(key) + b"\x00"),
        wire.LIST_OFFSETS: (1, b"\xff" * 4 + struct.pack(">i", 1) + topic + array(lambda i: struct.pack(">iq", i, -1))),
        wire.FETCH: (4, struct.pack(">iiiiB", -1, 3000, 1 << 30, 1 << 20, 0) + struct.pack(">i", 1) + topic
                     + array(lambda i: struct.pack(">iqi", i % 1000, 0, 1 << 20))),
        wire.CREATE_TOPICS: (2, array(lambda i: key(i) + struct.pack(">ihii", 1, 1, 0, 0)) + struct.pack(">iB", 1000, 1)),
        wire.DELETE_TOPICS: (1, array(key) + struct.pack(">i", 1000)),
        wire.FIND_COORDINATOR: (4, b"\x00" + wire.uvarint(limit + 1) + b"\x01" * limit + b"\x00"),
        wire.DESCRIBE_CONFIGS: (1, array(lambda i: b"\x02" + topic + b"\xff" * 4) + b"\x01"),
        wire.CREATE_PARTITIONS: (0, array(lambda i: key(i) + struct.pack(">ii", 99_999, -1)) + struct.pack(">iB", 1000, 1)),
        wire.OFFSET_FOR_LEADER_EPOCH: (2, struct.pack(">i", 1) + topic + array(lambda i: struct.pack(">iii", i, -1, 0))),
        wire.PRODUCE: (3, struct.pack(">hhii", -1, 1, 1000, 1) + topic + array(lambda i: struct.pack(">ii", i % 1000, -1))),
    }[api]  # fmt: skip


@pytest.mark.parametrize("name", [
    "METADATA", "LIST_OFFSETS", "FETCH", "CREATE_TOPICS", "DELETE_TOPICS", "FIND_COORDINATOR", "DESCRIBE_CONFIGS",
    "CREATE_PARTITIONS", "OFFSET_FOR_LEADER_EPOCH", "PRODUCE",
])  # fmt: skip
def test_requests_cost_memory_in_proportion(make_broker, figure, corelane_only, name):
    """Four connections each send two requests of 4 MiB at once: what is made of them stays within a small multiple."""
    b = make_broker({"auto.create.topics.enable": False})
    b.start()
    load.create_topic(b, "wide", 8)
    version, body = small_elements(getattr(wire, name))
    frame = wire.frame(getattr(wire, name), version, body)
    idle = b.rss()
    conns = [wire.Conn(b, timeout=120) for _ in range(4)]
    with proc.PeakRss(b.pid, 0.02) as memory:
        # Each reads while it sends: the second request is taken once the first one's answer is, as in Kafka.
        with ThreadPoolExecutor(2 * len(conns)) as threads:
            for conn in conns:
                threads.submit(conn.raw, frame + frame)
            for reading in [threads.submit(lambda conn=conn: (conn.recv_frame(), conn.recv_frame())) for conn in conns]:
                # Refused: more elements than the request's kind may have.
                assert isinstance(reading.exception(), wire.Closed | None)
    grown = memory.peak - idle
    figure(name, f"{len(frame) / MIB:.1f} MiB a request, memory grew by {grown / MIB:.0f} MiB")
    assert grown < 512 * MIB
    with wire.Conn(b) as conn:
        assert wire.produce(conn, "wide", 0, wire.batch([b"still here"])) == (0, 0)


@pytest.fixture(scope="module")
def thousand(root):
    """A broker of two shards with a topic of 1,000 partitions."""
    from conftest import check_log
    from support import broker as brokers

    # Checkpoints follow the writes soon, so that what is measured as idle is not the end of the writing.
    options = {"corelane.shards": 2, "log.flush.offset.checkpoint.interval.ms": 8000}
    b = brokers.broker_class()(root / f"thousand-{time.time_ns()}", options)
    b.start()
    load.create_topic(b, "wide", 1000)
    yield b
    b.stop()
    check_log(b)


def test_thousand_partitions_written_and_read(thousand, figure):
    b, at = thousand, {}
    with wire.Conn(b, timeout=60) as conn:
        for n in range(2):
            began = time.monotonic()
            body = {"wide": {p: wire.batch([b"%d in %d" % (n, p)]) for p in range(1000)}}
            answer = wire.read_produce(conn.call(wire.PRODUCE, 7, wire.produce_body(body)))
            assert answer == {("wide", p): (0, n) for p in range(1000)}
            figure(f"one request to 1,000 partitions, round {n}", f"{(time.monotonic() - began) * 1000:.0f} ms")
        while len(at) < 1000:
            body = wire.fetch_body({"wide": {p: 0 for p in range(1000) if p not in at}})
            error, _, parts = wire.read_fetch(conn.call(wire.FETCH, 11, body))
            assert error == 0
            got = {p: wire.batches(part["data"]) for (_, p), part in parts.items() if part["data"]}
            assert got, "an empty fetch with records left to read"
            for p, found in got.items():
                assert parts["wide", p]["error"] == 0
                assert [v for x in found for v in x.values()] == [b"0 in %d" % p, b"1 in %d" % p], f"partition {p}"
            at.update(got)
    b.stop()
    figure("restart with 1,000 partitions", f"{b.start(topics=['wide']):.3f} s")
    figure("resident memory, 1,000 partitions", f"{b.rss() / MIB:.0f} MiB")


def poll_idly(broker, consumers, seconds):
    """`consumers` connections that long-poll ten partitions each at their end, 500 ms a fetch, as librdkafka does.
    Answers the number of fetches answered."""
    with wire.Conn(broker, timeout=60) as conn:
        ends = wire.list_offsets(conn, "wide", range(1000), -1)
    chosen, conns, answers = selectors.DefaultSelector(), [], 0
    try:
        for n in range(consumers):
            parts = {p % 1000: ends[p % 1000][2] for p in range(n * 10, n * 10 + 10)}
            sock = socket.create_connection((broker.host, broker.port))
            request = wire.frame(wire.FETCH, 11, wire.fetch_body({"wide": parts}, max_wait=500))
            sock.sendall(request)
            conns.append(sock)
            chosen.register(sock, selectors.EVENT_READ, [request, b""])
        time.sleep(1)
        began, cpu = time.monotonic(), broker.cpu()
        while time.monotonic() < began + seconds:
            for key, _ in chosen.select(0.1):
                request, have = key.data
                chunk = key.fileobj.recv(65536)
                assert chunk, "a consumer's connection was closed"
                have += chunk
                if len(have) >= 4 and len(have) >= 4 + struct.unpack_from(">i", have)[0]:
                    reader = wire.Reader(have[8:])
                    error, _, parts = wire.read_fetch(reader)
                    assert error == 0 and len(parts) == 10 and not any(p["error"] for p in parts.values())
                    answers += 1
                    key.fileobj.sendall(request)
                    have = b""
                key.data[1] = have
        return answers, (broker.cpu() - cpu) / (time.monotonic() - began)
    finally:
        for sock in conns:
            sock.close()


@pytest.mark.alone
def test_idle_cpu(thousand, length, figure):
    seconds = length.pick(12, 60)
    time.sleep(10)
    began, cpu = time.monotonic(), thousand.cpu()
    time.sleep(5)
    alone = (thousand.cpu() - cpu) / (time.monotonic() - began)
    answers, share = poll_idly(thousand, 100, seconds)
    figure("idle CPU, 1,000 partitions", f"{alone:.2%} of a core without consumers, {share:.2%} with 100 consumers of 10 partitions")
    # Each waits 500 ms: with far more answers they did not wait.
    assert 0 < answers / seconds <= 220, f"{answers / seconds:.0f} answers a second of 100 consumers that wait 500 ms each"
    if thousand.kind == "corelane":
        # The aim is 1 %, and the figure above shows it; the bound leaves room for a busy machine, not for polling.
        assert share < 0.025, f"{share:.2%} of a core"


def test_many_connections(thousand, figure):
    """1,000 open connections, each answered, and what they cost in memory."""
    before, conns = thousand.rss(), []
    try:
        for _ in range(1000):
            conns.append(wire.Conn(thousand, timeout=20))
        for conn in conns:
            assert wire.api_versions(conn)[0] == 0
        figure("1,000 connections", f"{(thousand.rss() - before) / 1000 / 1024:.1f} KiB each")
    finally:
        for conn in conns:
            conn.close()
    with wire.Conn(thousand) as conn:
        assert wire.api_versions(conn)[0] == 0
