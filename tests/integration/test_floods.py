"""Floods: what one client can make the broker hold, under a memory cap of 256 MiB with every memory option small.

Each flood goes on for some seconds beside a well-behaved client. The verdict: that client is answered all the time, on a
connection that stays open, resident memory stays below the cap, and the broker serves again after a start. How long its
answers took is a figure, not part of the verdict.
"""

import contextlib
import itertools
import multiprocessing
import os
import resource
import selectors
import socket
import struct
import threading
import time

import pytest

from support import groups, load, proc, schema, wire

MIB = 1 << 20
CAP = 256 * MIB
WIDE = 1000

# As in docs/SMALL-HOSTS.md.
SMALL = {
    "corelane.shards": 2,
    "corelane.io.memory.bytes": 2 * MIB,
    "corelane.receive.memory.bytes": 8 * MIB,
    "corelane.response.memory.bytes": 8 * MIB,
    "corelane.connection.response.bytes": 65536,
    "corelane.connection.pipeline": 16,
    "corelane.arena.bytes": 8 * MIB,
    "corelane.tail.cache.bytes": 4 * MIB,
    "corelane.cache.bytes": 16 * MIB,
    "corelane.cold.cache.bytes": 4 * MIB,
    "corelane.index.cache.bytes": 2 * MIB,
    "corelane.checkpoint.bytes": 16 * MIB,
    "corelane.preallocate.max.bytes": 4 * MIB,
    "log.cleaner.dedupe.buffer.size": 8 * MIB,
    "socket.request.max.bytes": 4 * MIB,
    "socket.send.buffer.bytes": 102_400,
    "socket.receive.buffer.bytes": 102_400,
    "max.connections": 2000,
    "max.incremental.fetch.session.cache.slots": 200,
}

pytestmark = pytest.mark.usefixtures("corelane_only")


@pytest.fixture(scope="module", autouse=True)
def many_descriptors():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def capped(make_broker, figure, request, options):
    """A broker under the cap."""
    cap = proc.MemoryCap.make(f"corelane-flood-{os.getpid()}", CAP)
    figure("memory cap", "a control group of 256 MiB" if cap else "none can be made here: resident memory is sampled instead")
    b = make_broker(options, cap=cap)
    if cap:
        request.addfinalizer(cap.remove)
        request.addfinalizer(b.kill)
    b.start()
    return b


@pytest.fixture
def small(make_broker, figure, request):
    """A broker under the cap, with a topic of its own for the well-behaved client, a wide one and one full of records."""
    b = capped(make_broker, figure, request, SMALL)
    load.create_topic(b, "good", 1)
    load.create_topic(b, "wide", WIDE)
    load.create_topic(b, "full", 4)
    with wire.Conn(b, timeout=60) as conn:
        for _, p in itertools.product(range(8), range(4)):
            assert wire.produce(conn, "full", p, wire.batch([os.urandom(900_000)]))[0] == 0
    return b


class Bystander:
    """A client that asks for little, reads all of it, and notes how long that took."""

    def __init__(self, broker):
        self.broker, self.took, self.failure = broker, [], None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        try:
            with wire.Conn(self.broker, timeout=120) as conn:
                for n in itertools.count():
                    if self.stop.is_set():
                        return
                    self._round(conn, n)
                    time.sleep(0.02)
        except Exception as e:  # shown by the test
            self.failure = e

    def _round(self, conn, n):
        steps = [
            lambda: wire.produce(conn, "good", 0, wire.batch([b"%d" % n]))[0] == 0,
            lambda: [v for x in wire.batches(wire.fetch(conn, "good", 0, n)["data"]) for v in x.values()][:1] == [b"%d" % n],
            lambda: wire.metadata(conn, ["good"])["topics"]["good"]["error"] == 0,
            lambda: wire.offset(conn, "good", 0, -1) == n + 1,
        ]
        for number, step in enumerate(steps):
            began = time.monotonic()
            assert step(), f"step {number} of round {n}"
            self.took.append(time.monotonic() - began)

    def __enter__(self):
        self.thread.start()
        while not self.took and not self.failure:
            time.sleep(0.01)
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join()


class Flood:
    """A process with `count` connections that send `payload` again and again (or `once`), and read `drip` bytes every 50 ms: none,
    if it is 0, once the first `taste` bytes of each connection are read. One that is closed is opened anew."""

    def __init__(self, broker, count, payload, drip=0, once=False, taste=0):
        self.address, self.count, self.payload, self.drip, self.once = (broker.host, broker.port), count, payload, drip, once
        self.taste = taste
        fork = multiprocessing.get_context("fork")
        self.counts, self.stop = fork.Array("q", 2), fork.Event()
        self.process = fork.Process(target=self._run, daemon=True)

    @property
    def sent(self):
        return self.counts[0]

    @property
    def closed(self):
        return self.counts[1]

    def _open(self, chosen):
        sock = socket.socket()
        # A small buffer here leaves the more to the broker.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        sock.connect_ex(self.address)
        chosen.register(sock, selectors.EVENT_WRITE, [0, 0])

    def _run(self):
        with contextlib.closing(selectors.DefaultSelector()) as chosen:
            for _ in range(self.count):
                self._open(chosen)
            next_drip = time.monotonic()
            while not self.stop.is_set():
                # Writable at once most of the time: a pause leaves the broker some of this machine.
                time.sleep(0.002)
                for key, _ in chosen.select(0.02):
                    self._step(chosen, key, self._write)
                if time.monotonic() >= next_drip:
                    for key in list(chosen.get_map().values()):
                        self._step(chosen, key, self._drip)
                    next_drip = time.monotonic() + 0.05
            for key in list(chosen.get_map().values()):
                key.fileobj.close()

    def _step(self, chosen, key, step):
        try:
            step(key.fileobj, key.data)
        except BlockingIOError:
            pass
        except OSError:
            self.counts[1] += 1
            chosen.unregister(key.fileobj)
            key.fileobj.close()
            self._open(chosen)

    def _write(self, sock, at):
        if self.once and at[0] == len(self.payload):
            return
        n = sock.send(self.payload[at[0] : at[0] + 65536])
        self.counts[0] += n
        at[0] = at[0] + n if self.once else (at[0] + n) % len(self.payload)

    def _drip(self, sock, at):
        if at[1] < self.taste:
            got = sock.recv(65536)
            at[1] += len(got)
            if not got:
                raise ConnectionResetError
            return
        if not self.drip:
            # Notices a closed connection without taking anything.
            if sock.recv(1, socket.MSG_PEEK) == b"":
                raise ConnectionResetError
            return
        got = sock.recv(self.drip)
        if not got:
            raise ConnectionResetError

    def __enter__(self):
        self.process.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        self.process.join(20)
        self.process.kill()
        self.process.join()


def stands(b, figure, length, *floods):
    """The verdict over floods that go on together."""
    with Bystander(b) as good, proc.PeakRss(b.pid, 0.02) as memory, contextlib.ExitStack() as going:
        before = len(good.took)
        for flood in floods:
            going.enter_context(flood)
        time.sleep(length.pick(5, 30))
        assert b.alive(), "the broker ended"
        during = good.took[before:]
        asked = len(good.took)
        # Answered still.
        groups.wait_until(lambda: good.failure or len(good.took) > asked, 130)
        going.close()
    assert good.failure is None, f"the well-behaved client: {good.failure!r}"
    assert b.alive(), "the broker ended"
    ordered = sorted(during or good.took)
    figure(
        "beside the flood",
        f"{len(ordered)} answers, median {ordered[len(ordered) // 2] * 1000:.0f} ms, worst {ordered[-1] * 1000:.0f} ms; "
        f"resident memory at most {memory.peak / MIB:.0f} MiB; flood: {sum(f.sent for f in floods) / MIB:.1f} MiB sent, "
        f"{sum(f.closed for f in floods)} connections closed",
    )
    assert memory.peak < CAP
    b.kill()
    b.start(topics=["good", "full"])
    b.stop()


def repeated(api, version, body, times=50):
    return wire.frame(api, version, body) * times


def offsets_request(entries=12_000):
    body = struct.pack(">i", -1) + b"\x00" + struct.pack(">i", 1) + b"\x00\x04wide" + struct.pack(">i", entries)
    return wire.frame(wire.LIST_OFFSETS, 4, body + b"".join(struct.pack(">iiq", i, -1, -1) for i in range(entries)))


def names(count, size):
    return [b"%0*d" % (size, n) for n in range(count)]


def wide_produce():
    """No records for ten times each partition."""
    return wire.produce_body({"wide": dict.fromkeys(range(WIDE * 10))})


def payload(kind):
    every_topic = wire.Writer(True).count(None).i8(0).i8(0).tags().done()
    configs = b"".join(b"\x02\x00\x04wide\xff\xff\xff\xff" for _ in range(40))
    keys = wire.Writer(True).i8(0).count(5000)
    for name in names(5000, 6):
        keys.string(name)
    wide = {"wide": dict.fromkeys(range(WIDE), 0)}
    full = {"full": dict.fromkeys(range(4), 0)}
    return {
        "metadata": lambda: repeated(wire.METADATA, 12, every_topic),
        "list-offsets": offsets_request,
        "describe-configs": lambda: repeated(wire.DESCRIBE_CONFIGS, 1, struct.pack(">i", 40) + configs + b"\x01"),
        "api-versions": lambda: repeated(wire.API_VERSIONS, 0, b"", 1000),
        "find-coordinator": lambda: wire.frame(wire.FIND_COORDINATOR, 4, keys.tags().done()),
        "fetch": lambda: repeated(wire.FETCH, 11, wire.fetch_body(full)),
        "fetch-wide": lambda: wire.frame(wire.FETCH, 11, wire.fetch_body(wide, max_wait=600_000, min_bytes=1 << 30)),
        "produce-wide": lambda: wire.frame(wire.PRODUCE, 7, wide_produce()),
        "fetch-sessions": lambda: wire.frame(wire.FETCH, 11, wire.fetch_body(wide, max_wait=0, session=(0, 0))),
    }[kind]()


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "kind",
    ["metadata", "list-offsets", "describe-configs", "api-versions", "find-coordinator", "fetch", "fetch-wide", "fetch-sessions", "produce-wide"],
)
def test_clients_that_read_no_answers(small, figure, length, kind):
    stands(small, figure, length, Flood(small, 600, payload(kind)))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind", ["metadata", "list-offsets", "fetch"])
def test_clients_that_read_slowly(small, figure, length, kind):
    """Pipelined requests for large answers, which are taken a few bytes at a time."""
    stands(small, figure, length, Flood(small, 300, payload(kind), drip=512))


@pytest.mark.timeout(600)
@pytest.mark.parametrize("kind, taste", [("list-offsets", 2000), ("fetch", 2000), ("api-versions", 20_000)])
def test_clients_that_read_and_then_stop(small, figure, length, kind, taste):
    """Having read something before buys a client nothing."""
    stands(small, figure, length, Flood(small, 400, payload(kind), taste=taste))


@pytest.mark.timeout(600)
def test_group_requests_of_clients_that_read_no_answers(small, figure, length):
    """OffsetFetch of many offsets, ListGroups, and joins of ever new members."""
    with wire.Conn(small, timeout=60) as conn:
        groups.wait_ready(small, "g")
        for start in range(0, WIDE, 250):
            assert groups.commit(conn, "g", {("wide", p): 7 for p in range(start, start + 250)}, metadata="m" * 500)
    fetch = wire.frame(9, 7, schema.message("OffsetFetchRequest").encode(7, {"GroupId": "g", "Topics": None, "RequireStable": False}))
    listed = wire.frame(16, 4, schema.message("ListGroupsRequest").encode(4, {"StatesFilter": []}))
    join = {"SessionTimeoutMs": 10_000, "RebalanceTimeoutMs": 10_000, "MemberId": "", "ProtocolType": "consumer"}
    join["Protocols"] = [{"Name": "range", "Metadata": b"x" * 1000}]
    joins = b"".join(
        wire.frame(11, 5, schema.message("JoinGroupRequest").encode(5, {**join, "GroupId": f"g{n}"})) for n in range(50)
    )
    floods = [Flood(small, 200, fetch * 50), Flood(small, 100, listed * 50), Flood(small, 100, joins)]
    stands(small, figure, length, *floods)


@pytest.mark.timeout(600)
def test_connections_that_send_nothing_or_half_a_frame(small, figure, length):
    half = struct.pack(">i", 3 * MIB) + wire.frame(wire.PRODUCE, 7, b"\x00" * 2000)[4:]
    idle, begun = Flood(small, 800, b"\x00", once=True), Flood(small, 600, half, once=True)
    stands(small, figure, length, idle, begun)


@pytest.mark.timeout(600)
def test_large_frames_that_never_end_with_receive_memory_alone_small(make_broker, figure, length, request):
    """Only the receive memory is small: what arrives of a large frame has no other bound."""
    b = capped(make_broker, figure, request, {"corelane.shards": 2, "corelane.receive.memory.bytes": 8 * MIB})
    load.create_topic(b, "good", 1)
    load.create_topic(b, "full", 1)
    begun = struct.pack(">i", 4 * MIB) + wire.frame(wire.PRODUCE, 7, b"\x00" * (4 * MIB - 64))[4:]
    stands(b, figure, length, Flood(b, 8000, begun, once=True))


@pytest.mark.timeout(600)
def test_connections_that_come_and_go(small, figure, length):
    class Coming(Flood):
        def _run(self):
            while not self.stop.is_set():
                socks = []
                with contextlib.suppress(OSError):
                    for _ in range(100):
                        socks.append(socket.create_connection(self.address, timeout=10))
                for sock in socks:
                    sock.close()
                self.counts[1] += len(socks)

    stands(small, figure, length, Coming(small, 0, b""))


def served(broker, count, source=None, host=None, timeout=20):
    """Opens connections from `source`: those that the broker answers on, still open."""
    open_still = []
    for _ in range(count):
        address = (host or broker.host, broker.port)
        sock = socket.create_connection(address, timeout=timeout, source_address=(source, 0) if source else None)
        try:
            sock.sendall(wire.frame(wire.API_VERSIONS, 0, b""))
            if sock.recv(4):
                open_still.append(sock)
                continue
        except OSError:
            pass
        sock.close()
    return open_still


def test_one_address_has_its_limit_over_all_shards(make_broker):
    b = make_broker({
        "corelane.shards": 2, "max.connections.per.ip": 20, "max.connections.per.ip.overrides": "127.0.0.3:5,127.0.0.4:0",
    })  # fmt: skip
    b.start()
    with contextlib.ExitStack() as open_still:
        for source, limit in (("127.0.0.2", 20), ("127.0.0.3", 5), ("127.0.0.4", 0)):
            got = served(b, 40, source)
            for sock in got:
                open_still.enter_context(sock)
            assert len(got) == limit, source
        with wire.Conn(b) as conn:
            assert wire.api_versions(conn)[0] == 0
    groups.wait_until(lambda: served(b, 1, "127.0.0.2"), 20)
    assert "max.connections.per.ip" in b.log_text()
    assert "peer=127.0.0.2:" in b.log_text()


def own_address():
    """An address of this machine that is not loopback, or None."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        with contextlib.suppress(OSError):
            s.connect(("192.0.2.1", 9))
            address = s.getsockname()[0]
            return None if address.startswith("127.") or address == "0.0.0.0" else address


def test_the_last_connections_are_for_this_machine(make_broker):
    address = own_address()
    if not address:
        pytest.skip("this machine has no address but loopback")
    b = make_broker({"corelane.shards": 2, "max.connections": 40, "corelane.local.connections": 4})
    b.props["listeners"] = f"PLAINTEXT://0.0.0.0:{b.port}"
    b.start()
    with contextlib.ExitStack() as open_still:
        got = served(b, 60, host=address)
        for sock in got:
            open_still.enter_context(sock)
        # The connections that waited for the start may still have been open.
        assert 30 <= len(got) <= 36
        with wire.Conn(b) as conn:
            assert wire.api_versions(conn)[0] == 0


def test_max_connections_holds_over_all_shards(make_broker):
    b = make_broker({"corelane.shards": 2, "max.connections": 10, "corelane.local.connections": 0})
    b.start()
    time.sleep(0.5)
    first = [wire.Conn(b, timeout=30) for _ in range(10)]
    try:
        for conn in first:
            assert wire.api_versions(conn)[0] == 0
        late = wire.Conn(b, timeout=30)
        late.sock.sendall(wire.frame(wire.API_VERSIONS, 0, b""))
        late.sock.settimeout(1)
        with pytest.raises(TimeoutError):
            late.sock.recv(1)
        first.pop().close()
        late.sock.settimeout(30)
        assert late.sock.recv(1), "accepted once another has ended"
        late.close()
    finally:
        for conn in first:
            conn.close()


def test_connections_beyond_the_rate_are_put_off(make_broker, figure):
    b = make_broker({"corelane.shards": 2, "max.connection.creation.rate": 20})
    b.start()
    began = time.monotonic()
    socks = [socket.create_connection((b.host, b.port), timeout=60) for _ in range(80)]
    try:
        for sock in socks:
            sock.sendall(wire.frame(wire.API_VERSIONS, 0, b""))
        for sock in socks:
            assert sock.recv(4), "put off, not closed"
        took = time.monotonic() - began
    finally:
        for sock in socks:
            sock.close()
    figure("80 connections at 20 per second", f"{took:.1f} s")
    assert took > 2.5, "80 less a second's worth, at 20 per second"


@pytest.mark.parametrize(
    ("first", "named"),
    [
        (bytes.fromhex("16030100c8010000c40303"), "TLS"),
        (b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", "HTTP"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "SSH"),
        (b"*1\r\n$4\r\nPING\r\n", "text"),
    ],
)
def test_clients_of_other_protocols_are_named(broker, first, named):
    # An earlier connection may have had the same port: only what is logged from here on counts.
    logged = len(broker.log_text())
    with wire.Conn(broker) as conn:
        local = "%s:%d" % conn.sock.getsockname()
        conn.raw(first)
        with pytest.raises(wire.Closed):
            conn.recv_frame()
    lines = groups.wait_until(lambda: [s for s in broker.log_text()[logged:].splitlines() if f"peer={local}" in s])
    assert named in lines[0] and "Some(" not in lines[0], lines[0]
