"""Bad input costs its sender only: the protocol's own error, or the connection closed where framing is lost."""

import os
import random
import socket
import struct
import time

import pytest

from support import load, proc, wire
from support.wire import Closed, Conn, err

HUGE = 2**31 - 1
SLACK = 64 << 20


@pytest.fixture
def unharmed(broker, topic):
    """Around each test: another connection, opened before, produces and fetches after; memory has not run away."""
    name = topic(1)
    with Conn(broker) as other:
        assert wire.produce(other, name, 0, wire.batch([b"before"])) == (0, 0)
        with proc.PeakRss(broker.pid, 0.02) as memory:
            before = broker.rss()
            yield
            assert wire.produce(other, name, 0, wire.batch([b"after"])) == (0, 1)
            found = wire.batches(wire.fetch(other, name, 0, 0)["data"])
            assert [v for b in found for v in b.values()] == [b"before", b"after"]
        if broker.kind == "corelane":
            grown = memory.peak - before
            assert grown < SLACK, f"resident memory grew by {grown >> 20} MiB"


pytestmark = pytest.mark.usefixtures("unharmed")


def answer_or_close(conn, seconds=10):
    """What comes back for raw bytes: a frame, or None for a closed connection. Neither within the time is a failure."""
    conn.sock.settimeout(seconds)
    try:
        return conn.recv_frame()
    except Closed:
        return None


@pytest.mark.parametrize("length", [-1, -(2**31), HUGE, 1 << 30, 0, 1, 7])
def test_frame_length_lies(broker, length):
    """A length that cannot be is answered by the end of the connection, at once and without waiting for the bytes."""
    with Conn(broker) as conn:
        conn.raw(struct.pack(">i", length) + b"\x00" * max(0, min(length, 7)))
        assert answer_or_close(conn) is None


def test_largest_frame_is_bounded_while_it_arrives(broker, corelane_only):
    """Frames that declare 90 MiB and send little hold no memory to speak of. (Kafka takes the memory at the declaration,
    and twenty of these end it with a heap of 512 MiB.)"""
    conns = [Conn(broker) for _ in range(20)]
    for conn in conns:
        conn.raw(struct.pack(">i", 90 << 20) + wire.frame(wire.PRODUCE, 7, b"\x00" * 1000)[4:])
    time.sleep(1)
    for conn in conns:
        conn.close()


@pytest.mark.parametrize("api", [-1, 999, 32767])
def test_unknown_api(broker, api):
    with Conn(broker) as conn:
        conn.raw(wire.frame(api, 0, b""))
        assert answer_or_close(conn) is None


def test_internal_apis_are_not_served(broker):
    """LeaderAndIsr, StopReplica, UpdateMetadata, ControlledShutdown are no client's business."""
    for api in (4, 5, 6, 7):
        with Conn(broker) as conn:
            conn.raw(wire.frame(api, 0, b"\x00" * 16))
            assert answer_or_close(conn) is None, f"API {api}"


@pytest.mark.parametrize("version", [5, 100, 32767])
def test_api_versions_too_new(broker, version):
    """KIP-511: UNSUPPORTED_VERSION in the encoding of version 0, with the range to fall back to, connection kept."""
    with Conn(broker) as conn:
        conn.raw(wire.frame(wire.API_VERSIONS, version, b"\x01\x01\x00", 7))
        reader = wire.Reader(conn.recv_frame())
        assert reader.i32() == 7
        error, ranges = wire.read_api_versions(reader)
        assert error == wire.ERR["UNSUPPORTED_VERSION"]
        assert wire.API_VERSIONS in ranges and ranges[wire.API_VERSIONS][1] < version
        assert wire.api_versions(conn, 3)[0] == 0


def test_api_versions_of_every_version(broker):
    with Conn(broker) as conn:
        tables = [wire.api_versions(conn, v)[1] for v in range(5)]
    for api, least in DUE.items():
        for v, table in enumerate(tables):
            assert api in table, f"API {api} is missing in ApiVersions {v}"
            low, high = table[api]
            assert low <= least[0] and high >= least[1], f"API {api} is served {low}-{high}, due {least}"
    assert tables[0][wire.PRODUCE][0] == 0, "librdkafka stops compressing where Produce 0 is not advertised (KAFKA-18659)"


def test_unknown_version(broker):
    with Conn(broker) as conn:
        served = wire.api_versions(conn)[1]
    for api, (low, high) in served.items():
        for version in (high + 1, 32767, -1):
            if api == wire.API_VERSIONS and version > 0:
                continue
            with Conn(broker) as conn:
                conn.raw(wire.frame(api, version, b"\x00" * 20))
                got = answer_or_close(conn)
                assert got is None or len(got) < 200, f"API {api} version {version}"


def bodies():
    """Valid requests, to cut and to bend."""
    t = "bad-input"
    yield wire.PRODUCE, 7, wire.produce_body({t: {0: wire.batch([b"v" * 50])}}, 7)
    yield wire.PRODUCE, 9, wire.produce_body({t: {0: wire.batch([b"v" * 50])}}, 9)
    yield wire.FETCH, 11, wire.fetch_body({t: {0: 0}}, 11, max_wait=0)
    yield wire.FETCH, 12, wire.fetch_body({t: {0: 0}}, 12, max_wait=0)
    yield wire.METADATA, 5, struct.pack(">ih", 1, 3) + b"abc\x00"
    yield wire.METADATA, 12, wire.Writer(True).count(1).raw(b"\x00" * 16).string("abc").tags().i8(0).i8(0).tags().done()
    yield wire.CREATE_TOPICS, 4, wire.create_topics_body({"cut": (1, {"retention.ms": 1})}, 4, validate_only=True)
    yield wire.CREATE_TOPICS, 7, wire.create_topics_body({"cut": (1, {"retention.ms": 1})}, 7, validate_only=True)
    yield wire.INIT_PRODUCER_ID, 1, wire.Writer(False).string(None).i32(1000).done()


@pytest.mark.parametrize("api,version,body", bodies(), ids=lambda v: v if isinstance(v, int) else "")
def test_truncated_body(broker, api, version, body):
    """Every cut of a valid request: an answer or the end of the connection, never silence."""
    cuts = range(len(body)) if len(body) < 60 else sorted(set(range(0, len(body), 5)) | {len(body) - 1})
    for cut in cuts:
        with Conn(broker) as conn:
            conn.raw(wire.frame(api, version, body[:cut]))
            answer_or_close(conn)


# What Corelane has to serve; Apache Kafka serves more, whose waits are not this test's concern.
DUE = {
    0: (3, 13), 1: (4, 18), 2: (1, 10), 3: (0, 13), 10: (0, 6), 18: (0, 4), 19: (2, 7), 20: (1, 6), 22: (0, 5), 23: (2, 4),
    32: (1, 4), 37: (0, 3), 60: (0, 2),
}  # fmt: skip


def test_array_counts_lie(broker):
    """30-byte frames that claim 2^31-1 elements, the count at every place, for every API and version served."""
    with Conn(broker) as conn:
        served = wire.api_versions(conn)[1]
    sent = answered = waiting = 0
    for api, (low, high) in served.items():
        if broker.kind == "kafka" and api not in DUE:
            continue
        for version in range(low, high + 1):
            flex = wire.is_flexible(api, version)
            counts = (b"\xff\xff\xff\xff\x07", b"\xff\xff\xff\xff\x0f") if flex else (struct.pack(">i", HUGE),)
            # Zeros are lawful in front of most counts; a Produce needs acks other than 0, or no answer is due.
            prefix = b"\x00" * 17
            if api == wire.PRODUCE:
                prefix = b"\x00" + b"\xff" * 16 if flex else b"\xff" * 17
            for count in counts:
                for at in range(0, 17):
                    body = (prefix[:at] + count).ljust(17, b"\x00")
                    with Conn(broker) as conn:
                        conn.raw(wire.frame(api, version, body, client_id="x"))
                        sent += 1
                        try:
                            # A fetch whose max_wait is what got the large number may wait; nothing else may.
                            answered += answer_or_close(conn, 0.3 if api == wire.FETCH else 10) is not None
                        except TimeoutError:
                            waiting += 1
                            assert api == wire.FETCH, f"API {api} version {version}, count at {at}: neither answer nor close"
    print(f"{sent} frames, {answered} answered, {waiting} waiting fetches")
    assert sent > 1000
    assert answered + waiting < sent, "no lie was refused, so none was seen"


@pytest.mark.parametrize("where", ["header", "body"])
def test_tagged_field_counts_lie(broker, where):
    lie = wire.uvarint(2**32 - 1)
    with Conn(broker) as conn:
        if where == "header":
            payload = struct.pack(">hhih", wire.API_VERSIONS, 3, 1, -1) + lie
        else:
            payload = struct.pack(">hhih", wire.API_VERSIONS, 3, 1, -1) + b"\x00" + b"\x02a\x02b" + lie
        conn.raw(struct.pack(">i", len(payload)) + payload)
        answer_or_close(conn)


def good(broker, name):
    with Conn(broker) as conn:
        return wire.produce(conn, name, 0, wire.batch([b"good"]))


def with_length(length):
    """A batch that lies about its own length."""
    return struct.pack(">qi", 0, length) + wire.batch([b"x"])[12:]


UNKNOWN = -1  # UNKNOWN_SERVER_ERROR: Kafka answers so where its reader gives up

# What Apache Kafka 4.3.1 answers; where it depends on its configuration or release, all of its answers.
SPOILT = {
    "bad crc": (lambda: wire.batch([b"x"], spoil_crc=True), err("CORRUPT_MESSAGE")),
    "magic 0": (lambda: wire.legacy_message_set(b"x", 0), err("UNSUPPORTED_FOR_MESSAGE_FORMAT", "INVALID_RECORD", "CORRUPT_MESSAGE")),
    "magic 1": (lambda: wire.legacy_message_set(b"x", 1), err("UNSUPPORTED_FOR_MESSAGE_FORMAT", "INVALID_RECORD", "CORRUPT_MESSAGE")),
    "magic 3": (lambda: wire.batch([b"x"], magic=3), err("CORRUPT_MESSAGE", "INVALID_RECORD", "UNSUPPORTED_FOR_MESSAGE_FORMAT")),
    "too large": (lambda: wire.batch([os.urandom(1_100_000)]), err("MESSAGE_TOO_LARGE")),
    "cut short": (lambda: wire.batch([b"x" * 100])[:-10], err("CORRUPT_MESSAGE", "INVALID_RECORD")),
    "head only": (lambda: wire.batch([b"x" * 100])[:30], err("CORRUPT_MESSAGE", "INVALID_RECORD")),
    "two batches": (lambda: wire.batch([b"x"]) + wire.batch([b"y"]), err("INVALID_RECORD")),
    "bytes after the batch": (lambda: wire.batch([b"x"]) + b"\x00" * 7, err("NONE", "CORRUPT_MESSAGE", "INVALID_RECORD")),
    "length of the batch negative": (lambda: with_length(-5), err("CORRUPT_MESSAGE", "INVALID_RECORD")),
    "length of the batch huge": (lambda: with_length(HUGE), err("CORRUPT_MESSAGE", "INVALID_RECORD", "MESSAGE_TOO_LARGE") | {UNKNOWN}),
    "count negative": (lambda: wire.batch([b"x"], count=-1), err("CORRUPT_MESSAGE", "INVALID_RECORD")),
    "count above the records": (lambda: wire.batch([b"x"], count=2), err("INVALID_RECORD")),
    "count below the records": (lambda: wire.batch([b"x", b"y"], count=1), err("INVALID_RECORD")),
    "control batch": (lambda: wire.batch([b"x"], attributes=0x20), err("INVALID_RECORD")),
}  # fmt: skip


@pytest.mark.parametrize("what", SPOILT)
def test_spoilt_batch(broker, topic, what):
    make, allowed = SPOILT[what]
    name = topic(1)
    with Conn(broker) as conn:
        error, _ = wire.produce(conn, name, 0, make())
        print(f"{what}: error {error}")
        assert error in allowed, f"{what}: error {error}, due one of {sorted(allowed)}"
        # Kafka drops the bytes after the last whole batch and takes the batch.
        taken = 1 if error == 0 else 0
        assert good(broker, name) == (0, taken), "something of the spoilt batch got into the log"
        found = wire.batches(wire.fetch(conn, name, 0, 0)["data"])
        assert [v for b in found for v in b.values()] == [b"x"] * taken + [b"good"]


@pytest.mark.parametrize("version", [0, 1, 2])
def test_produce_before_version_3(broker, topic, version):
    """Advertised for librdkafka's sake, but not served: an answer with an error, or the end of the connection."""
    name = topic(1)
    w = wire.Writer(False).i16(-1).i32(1000).count(1).string(name).count(1).i32(0).bytes(wire.legacy_message_set(b"x", 1))
    with Conn(broker) as conn:
        conn.raw(wire.frame(wire.PRODUCE, version, w.done()))
        answer_or_close(conn)
    assert good(broker, name) == (0, 0)


def test_good_and_spoilt_in_one_request(broker, topic):
    """A partition's error is that partition's alone."""
    name = topic(3)
    parts = {0: wire.batch([b"a"]), 1: wire.batch([b"b"], spoil_crc=True), 2: wire.batch([b"c"]), 9: wire.batch([b"d"])}
    with Conn(broker) as conn:
        answer = wire.read_produce(conn.call(wire.PRODUCE, 7, wire.produce_body({name: parts})))
    assert {p: e for (_, p), (e, _) in answer.items()} == {
        0: 0, 1: wire.ERR["CORRUPT_MESSAGE"], 2: 0, 9: wire.ERR["UNKNOWN_TOPIC_OR_PARTITION"],
    }  # fmt: skip


@pytest.mark.parametrize("acks", [2, -2, 100])
def test_wrong_acks(broker, topic, acks):
    name = topic(1)
    with Conn(broker) as conn:
        assert wire.produce(conn, name, 0, wire.batch([b"x"]), acks=acks)[0] == wire.ERR["INVALID_REQUIRED_ACKS"]
    assert good(broker, name) == (0, 0)


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "x" * 250, "naïve", "a\x00b"])
def test_invalid_topic_name(broker, bad):
    with Conn(broker) as conn:
        assert wire.create_topics(conn, {bad: (1, {})}) == {bad: wire.ERR["INVALID_TOPIC_EXCEPTION"]}
        if bad:
            seen = wire.metadata(conn, [bad], version=8, auto_create=True)["topics"][bad]
            assert seen["error"] in err("INVALID_TOPIC_EXCEPTION")
        assert bad not in wire.metadata(conn)["topics"]


def test_create_topics_refusals(broker, topic):
    name = topic(1)
    with Conn(broker) as conn:
        assert wire.create_topics(conn, {name: (1, {})})[name] == wire.ERR["TOPIC_ALREADY_EXISTS"]
        assert wire.create_topics(conn, {"none": (0, {})})["none"] == wire.ERR["INVALID_PARTITIONS"]
        assert wire.create_topics(conn, {"conf": (1, {"no.such.option": 1})})["conf"] == wire.ERR["INVALID_CONFIG"]
        assert wire.create_topics(conn, {"conf": (1, {"retention.ms": "soon"})})["conf"] == wire.ERR["INVALID_CONFIG"]
        assert wire.create_topics(conn, {"dry": (1, {})}, validate_only=True)["dry"] == 0
        assert not {"none", "conf", "dry"} & set(wire.metadata(conn)["topics"])


@pytest.mark.parametrize("partition", [1, -1, HUGE])
def test_wrong_partition(broker, topic, partition):
    name, unknown = topic(1), err("UNKNOWN_TOPIC_OR_PARTITION")
    with Conn(broker) as conn:
        assert wire.produce(conn, name, partition, wire.batch([b"x"]))[0] in unknown
        assert wire.fetch(conn, name, partition, 0, max_wait=0)["error"] in unknown
        assert wire.list_offsets(conn, name, [partition], -1)[partition][0] in unknown
        assert wire.produce(conn, "no-such-topic", 0, wire.batch([b"x"]))[0] in unknown
        import uuid

        assert wire.produce(conn, uuid.uuid4(), 0, wire.batch([b"x"]), 13)[0] in err("UNKNOWN_TOPIC_ID")


@pytest.mark.parametrize("offset", [2, 1000, 2**63 - 1, -1, -5])
def test_offset_out_of_range(broker, topic, offset):
    name = topic(1)
    assert good(broker, name) == (0, 0)
    with Conn(broker) as conn:
        began = time.monotonic()
        assert wire.fetch(conn, name, 0, offset, max_wait=60_000)["error"] == wire.ERR["OFFSET_OUT_OF_RANGE"]
        assert time.monotonic() - began < 30, "an error is answered at once, not after max_wait"
        assert wire.fetch(conn, name, 0, 1, max_wait=0)["error"] == 0


def test_sequences(broker, topic):
    """Duplicates are answered as the first time, a gap is refused, and so is an older epoch."""
    name = topic(1)
    with Conn(broker) as conn:
        pid, epoch = wire.init_producer_id(conn)
        send = lambda seq, n=1, e=epoch: wire.produce(conn, name, 0, wire.batch([b"x"] * n, pid, e, seq))  # noqa: E731
        assert send(0, 3) == (0, 0)
        assert send(3) == (0, 3)
        assert send(3) == (0, 3), "a duplicate of the last batch"
        assert send(0, 3) == (0, 0), "a duplicate of an earlier one"
        assert send(5)[0] == wire.ERR["OUT_OF_ORDER_SEQUENCE_NUMBER"]
        assert send(4) == (0, 4)
        for n in range(5):
            assert send(5 + n) == (0, 5 + n)
        # Five batches are remembered; older ones are refused one way or the other, but not stored again.
        assert send(3)[0] in err("OUT_OF_ORDER_SEQUENCE_NUMBER", "DUPLICATE_SEQUENCE_NUMBER")
        assert send(0, e=epoch + 1) == (0, 10), "a newer epoch starts over"
        assert send(10)[0] == wire.ERR["INVALID_PRODUCER_EPOCH"]
        assert send(2, e=epoch + 1)[0] == wire.ERR["OUT_OF_ORDER_SEQUENCE_NUMBER"]
        assert wire.offset(conn, name, 0, -1) == 11


def test_pipelined_answers_keep_their_order(broker, topic):
    """Slow and quick requests mixed on one connection; `recv` in `call` and here hold the order."""
    name = topic(4)
    with Conn(broker, timeout=30) as conn:
        due = []
        for n in range(200):
            if n % 10 == 0:
                due.append(conn.send(wire.FETCH, 11, wire.fetch_body({name: {3: 0}}, max_wait=50)))
            elif n % 3 == 0:
                due.append(conn.send(wire.API_VERSIONS, 0, b""))
            else:
                due.append(conn.send(wire.PRODUCE, 7, wire.produce_body({name: {n % 3: wire.batch([b"%d" % n])}})))
        assert [conn.recv()[0] for _ in due] == due
        stored = [v for p in range(3) for b in wire.batches(wire.fetch(conn, name, p, 0)["data"]) for v in b.values()]
    by_partition = [n for p in range(3) for n in range(200) if n % 10 and n % 3 and n % 3 == p]
    assert [int(v) for v in stored] == by_partition


def test_half_frames_and_slow_senders(broker, topic):
    """300 connections stuck in the middle of a frame, some of them dripping, do not slow another down."""
    name = topic(1)
    whole = wire.frame(wire.PRODUCE, 7, wire.produce_body({name: {0: wire.batch([b"slow"])}}))
    stuck = [Conn(broker) for _ in range(300)]
    try:
        for n, conn in enumerate(stuck):
            conn.raw(whole[: n % (len(whole) - 1)])
        with Conn(broker) as conn:
            worst = 0
            for n in range(200):
                began = time.monotonic()
                assert wire.produce(conn, name, 0, wire.batch([b"quick"])) == (0, n)
                worst = max(worst, time.monotonic() - began)
                drip = stuck[n]
                at = n % (len(whole) - 1)
                drip.raw(whole[at : at + 1])
        assert worst < 20, f"{worst:.1f} s for one record"
        slow = Conn(broker)
        stuck.append(slow)
        for byte in whole:
            slow.raw(bytes([byte]))
        assert answer_or_close(slow) is not None, "a frame that comes byte by byte is a frame"
    finally:
        for conn in stuck:
            conn.close()


def test_reader_that_never_reads(broker, topic):
    """A client that asks for megabytes again and again and takes none of them costs no memory without bound."""
    name = topic(1)
    bulk = load.Bulk(kinds=1)
    bulk.load(broker, name, 1, 16 << 20)
    deaf = []
    try:
        for _ in range(10):
            conn = Conn(broker)
            conn.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            conn.sock.settimeout(0.5)
            deaf.append(conn)
            request = wire.frame(wire.FETCH, 11, wire.fetch_body({name: {0: 0}}, part_bytes=8 << 20))
            try:
                for _ in range(500):
                    conn.sock.sendall(request)
            except (TimeoutError, OSError):
                pass  # it does not take more requests, which is one way to be bounded
        before = broker.rss()
        assert good(broker, name)[0] == 0
        time.sleep(1)
        if broker.kind == "corelane":
            assert broker.rss() - before < SLACK
    finally:
        for conn in deaf:
            conn.close()


def bend(dice, data):
    """One small lie in a valid frame's payload."""
    data = bytearray(data)
    at = dice.randrange(len(data))
    match dice.randrange(5):
        case 0:
            data[at] ^= 1 << dice.randrange(8)
        case 1:
            del data[at:]
        case 2:
            data[at : at + 4] = struct.pack(">i", dice.choice((HUGE, -1, -(2**31), 1 << 24)))
        case 3:
            data[at:at] = bytes(dice.randrange(256) for _ in range(dice.randrange(1, 20)))
        case 4:
            data[at : at + 5] = b"\xff\xff\xff\xff\x0f"
    return bytes(data)


def test_garbage(broker, length, figure):
    """Some seconds of bent requests and plain noise, from several connections at a time."""
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    dice, valid = random.Random(seed), list(bodies())
    end, sent = time.monotonic() + length.pick(10, 120), 0
    conns = []
    while time.monotonic() < end:
        conn = Conn(broker, timeout=10)
        conns.append(conn)
        try:
            for _ in range(dice.randrange(1, 4)):
                if dice.random() < 0.2:
                    conn.raw(os.urandom(dice.randrange(1, 300)))
                else:
                    payload = bend(dice, wire.frame(*dice.choice(valid))[4:])
                    conn.raw(struct.pack(">i", len(payload)) + payload)
                sent += 1
        except Closed:
            pass
        if len(conns) > 50:
            conns.pop(0).close()
        assert broker.alive()
    for conn in conns:
        conn.close()
    figure("bent frames and noise", f"{sent} frames, seed {seed}")
