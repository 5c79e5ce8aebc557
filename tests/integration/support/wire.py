"""The Kafka protocol by hand, for what a well-behaved client library would never send.

Only as much of each API as the suites need. A `Writer`/`Reader` pair knows both encodings; `flex` picks the compact one.
"""

import socket
import struct
import time
import uuid

import crc32c

PRODUCE, FETCH, LIST_OFFSETS, METADATA, FIND_COORDINATOR = 0, 1, 2, 3, 10
API_VERSIONS, CREATE_TOPICS, DELETE_TOPICS, INIT_PRODUCER_ID = 18, 19, 20, 22
OFFSET_FOR_LEADER_EPOCH, DESCRIBE_CONFIGS, CREATE_PARTITIONS, DESCRIBE_CLUSTER = 23, 32, 37, 60
INCREMENTAL_ALTER_CONFIGS = 44

# First version with compact encodings; APIs not named here (newer than 47) are compact from version 0.
FLEXIBLE_FROM = {
    0: 9, 1: 12, 2: 6, 3: 9, 8: 8, 9: 6, 10: 3, 11: 6, 12: 4, 13: 4, 14: 4, 15: 5, 16: 3, 17: 99, 18: 3, 19: 5, 20: 4,
    21: 2, 22: 2, 23: 4, 24: 3, 25: 3, 26: 3, 27: 1, 28: 3, 29: 2, 30: 2, 31: 2, 32: 4, 33: 2, 34: 2, 35: 2, 36: 2, 37: 2,
    38: 2, 39: 2, 40: 2, 41: 2, 42: 2, 43: 2, 44: 1, 47: 99, 48: 1, 49: 1,
}  # fmt: skip

ERR = {
    "NONE": 0, "OFFSET_OUT_OF_RANGE": 1, "CORRUPT_MESSAGE": 2, "UNKNOWN_TOPIC_OR_PARTITION": 3,
    "NOT_LEADER_OR_FOLLOWER": 6, "MESSAGE_TOO_LARGE": 10, "INVALID_TOPIC_EXCEPTION": 17, "INVALID_REQUIRED_ACKS": 21,
    "UNSUPPORTED_VERSION": 35, "TOPIC_ALREADY_EXISTS": 36, "INVALID_PARTITIONS": 37, "INVALID_REPLICATION_FACTOR": 38,
    "INVALID_REPLICA_ASSIGNMENT": 39, "INVALID_CONFIG": 40, "INVALID_REQUEST": 42, "UNSUPPORTED_FOR_MESSAGE_FORMAT": 43, "OUT_OF_ORDER_SEQUENCE_NUMBER": 45,
    "DUPLICATE_SEQUENCE_NUMBER": 46, "INVALID_PRODUCER_EPOCH": 47, "KAFKA_STORAGE_ERROR": 56, "LOG_DIR_NOT_FOUND": 57, "UNKNOWN_PRODUCER_ID": 59,
    "FETCH_SESSION_ID_NOT_FOUND": 70, "INVALID_FETCH_SESSION_EPOCH": 71, "FENCED_LEADER_EPOCH": 74,
    "UNKNOWN_LEADER_EPOCH": 75, "INVALID_RECORD": 87, "PRODUCER_FENCED": 90, "UNKNOWN_TOPIC_ID": 100,
    "OFFSET_METADATA_TOO_LARGE": 12, "COORDINATOR_LOAD_IN_PROGRESS": 14, "COORDINATOR_NOT_AVAILABLE": 15,
    "NOT_COORDINATOR": 16, "ILLEGAL_GENERATION": 22, "INCONSISTENT_GROUP_PROTOCOL": 23, "INVALID_GROUP_ID": 24,
    "UNKNOWN_MEMBER_ID": 25, "INVALID_SESSION_TIMEOUT": 26, "REBALANCE_IN_PROGRESS": 27, "INVALID_COMMIT_OFFSET_SIZE": 28,
    "NON_EMPTY_GROUP": 68, "GROUP_ID_NOT_FOUND": 69, "MEMBER_ID_REQUIRED": 79, "GROUP_MAX_SIZE_REACHED": 81, "POLICY_VIOLATION": 44,
    "FENCED_INSTANCE_ID": 82, "GROUP_SUBSCRIBED_TO_TOPIC": 86, "FENCED_MEMBER_EPOCH": 110, "UNRELEASED_INSTANCE_ID": 111,
    "NOT_ENOUGH_REPLICAS": 19, "INVALID_TXN_STATE": 48, "INVALID_PRODUCER_ID_MAPPING": 49, "CONCURRENT_TRANSACTIONS": 51,
    "TRANSACTION_ABORTABLE": 120, "UNSUPPORTED_ASSIGNOR": 112, "STALE_MEMBER_EPOCH": 113, "INVALID_REGULAR_EXPRESSION": 128,
}  # fmt: skip


def err(*names):
    return {ERR[name] for name in names}


def is_flexible(api, version):
    return version >= FLEXIBLE_FROM.get(api, 0)


def varint(value):
    """Zigzag, as inside records."""
    return uvarint((value << 1) ^ (value >> 63))


def uvarint(value):
    value &= 0xFFFFFFFFFFFFFFFF
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


class Writer:
    def __init__(self, flex):
        self.flex = flex
        self.parts = []

    def raw(self, data):
        self.parts.append(data)
        return self

    def i8(self, v):
        return self.raw(struct.pack(">b", v))

    def i16(self, v):
        return self.raw(struct.pack(">h", v))

    def i32(self, v):
        return self.raw(struct.pack(">i", v))

    def i64(self, v):
        return self.raw(struct.pack(">q", v))

    def f64(self, v):
        return self.raw(struct.pack(">d", v))

    def uuid(self, v):
        return self.raw(v.bytes)

    def string(self, v):
        if v is None:
            return self.raw(b"\x00" if self.flex else b"\xff\xff")
        data = v.encode() if isinstance(v, str) else v
        return self.raw((uvarint(len(data) + 1) if self.flex else struct.pack(">h", len(data))) + data)

    def bytes(self, v):
        if v is None:
            return self.raw(b"\x00" if self.flex else b"\xff\xff\xff\xff")
        self.raw(uvarint(len(v) + 1) if self.flex else struct.pack(">i", len(v)))
        return self.raw(v)

    def count(self, n):
        """An array's length; None is the null array."""
        if self.flex:
            return self.raw(uvarint(0 if n is None else n + 1))
        return self.i32(-1 if n is None else n)

    def tags(self):
        return self.raw(b"\x00") if self.flex else self

    def done(self):
        return b"".join(self.parts)


class Reader:
    def __init__(self, data, flex=False):
        self.data = memoryview(data)
        self.at = 0
        self.flex = flex

    def take(self, n):
        if n < 0 or self.at + n > len(self.data):
            raise ValueError(f"response ends early: {n} bytes wanted at {self.at} of {len(self.data)}")
        out = self.data[self.at : self.at + n]
        self.at += n
        return out

    def _unpack(self, fmt, n):
        return struct.unpack(fmt, self.take(n))[0]

    def i8(self):
        return self._unpack(">b", 1)

    def i16(self):
        return self._unpack(">h", 2)

    def i32(self):
        return self._unpack(">i", 4)

    def i64(self):
        return self._unpack(">q", 8)

    def f64(self):
        return self._unpack(">d", 8)

    def uuid(self):
        return uuid.UUID(bytes=bytes(self.take(16)))

    def uvarint(self):
        shift = value = 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def string(self):
        n = self.uvarint() - 1 if self.flex else self.i16()
        return None if n < 0 else bytes(self.take(n)).decode()

    def bytes(self):
        n = self.uvarint() - 1 if self.flex else self.i32()
        return None if n < 0 else bytes(self.take(n))

    def count(self):
        return self.uvarint() - 1 if self.flex else self.i32()

    def array(self, item):
        return [item(self) for _ in range(max(self.count(), 0))]

    def tags(self):
        if self.flex:
            for _ in range(self.uvarint()):
                self.uvarint()
                self.take(self.uvarint())

    def left(self):
        return len(self.data) - self.at


class Closed(Exception):
    """The broker closed the connection."""


def frame(api, version, body, correlation=1, client_id="raw"):
    head = struct.pack(">hhi", api, version, correlation)
    name = client_id.encode()
    head += struct.pack(">h", len(name)) + name
    if is_flexible(api, version):
        head += b"\x00"
    payload = head + body
    return struct.pack(">i", len(payload)) + payload


class Conn:
    """One blocking connection. Requests may be pipelined: `send` several, then `recv` each."""

    def __init__(self, broker, timeout=10.0, client_id="raw"):
        self.client_id = client_id
        self.sock = socket.create_connection((broker.host, broker.port), timeout=timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.next_id = 1
        self.sent = {}
        self.buffer = bytearray()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def send(self, api, version, body):
        correlation = self.next_id
        self.next_id += 1
        self.sent[correlation] = (api, version)
        self.raw(frame(api, version, body, correlation, self.client_id))
        return correlation

    def raw(self, data):
        try:
            self.sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError) as e:
            raise Closed(str(e)) from e

    def recv_frame(self):
        size = struct.unpack(">i", self._exactly(4))[0]
        if not 0 <= size <= 256 << 20:
            raise ValueError(f"response frame of {size} bytes")
        return self._exactly(size)

    def recv(self):
        data = self.recv_frame()
        correlation = struct.unpack_from(">i", data)[0]
        if correlation not in self.sent:
            raise ValueError(f"response to request {correlation}, which was never sent or already answered")
        api, version = self.sent.pop(correlation)
        reader = Reader(data, is_flexible(api, version))
        reader.i32()
        if api != API_VERSIONS:
            reader.tags()
        return correlation, reader

    def call(self, api, version, body):
        sent = self.send(api, version, body)
        got, reader = self.recv()
        assert got == sent, f"answer to request {got} where {sent} was due"
        return reader

    def _exactly(self, n):
        while len(self.buffer) < n:
            try:
                chunk = self.sock.recv(max(65536, n - len(self.buffer)))
            except ConnectionResetError as e:
                raise Closed(str(e)) from e
            if not chunk:
                raise Closed("end of stream")
            self.buffer += chunk
        out = bytes(self.buffer[:n])
        del self.buffer[:n]
        return out


# --- record batches ---------------------------------------------------------------------------------------------------


def record(index, value, key=None, timestamp_delta=0):
    body = b"\x00" + varint(timestamp_delta) + varint(index)
    body += varint(-1) if key is None else varint(len(key)) + key
    body += varint(-1) if value is None else varint(len(value)) + value
    body += varint(0)
    return varint(len(body)) + body


def batch(values, pid=-1, epoch=-1, seq=-1, timestamp=None, attributes=0, magic=2, spoil_crc=False, count=None, keys=None):
    """A v2 batch as a producer sends it: base offset 0, leader epoch -1."""
    now = int(time.time() * 1000) if timestamp is None else timestamp
    records = b"".join(record(i, v, keys and keys[i]) for i, v in enumerate(values))
    n = len(values) if count is None else count
    tail = struct.pack(">hiqqqhii", attributes, n - 1, now, now, pid, epoch, seq, n) + records
    crc = crc32c.crc32c(tail) ^ (1 if spoil_crc else 0)
    body = struct.pack(">ibI", -1, magic, crc) + tail
    return struct.pack(">qi", 0, len(body)) + body


def legacy_message_set(value, magic):
    """One message of the formats before v2 (magic 0 or 1)."""
    import zlib

    body = struct.pack(">bb", magic, 0)
    if magic == 1:
        body += struct.pack(">q", int(time.time() * 1000))
    body += struct.pack(">i", -1) + struct.pack(">i", len(value)) + value
    message = struct.pack(">I", zlib.crc32(body)) + body
    return struct.pack(">qi", 0, len(message)) + message


class BatchHead:
    """The head of one stored batch, and its records where they are not compressed."""

    __slots__ = ("base", "epoch", "magic", "crc", "attributes", "last_delta", "pid", "pepoch", "seq", "n", "data")

    def __init__(self, data):
        self.base, _, self.epoch, self.magic, self.crc = struct.unpack_from(">qiibI", data, 0)
        (self.attributes, self.last_delta, _, _, self.pid, self.pepoch, self.seq, self.n) = struct.unpack_from(
            ">hiqqqhii", data, 21
        )
        self.data = data

    @property
    def last(self):
        return self.base + self.last_delta

    def crc_ok(self):
        return crc32c.crc32c(self.data[21:]) == self.crc

    def values(self):
        assert self.attributes & 7 == 0, "compressed"
        reader, out = Reader(self.data[61:]), []

        def signed():
            v = reader.uvarint()
            return (v >> 1) ^ -(v & 1)

        for _ in range(self.n):
            end = signed() + reader.at
            reader.take(1)
            signed(), signed()
            key = signed()
            reader.take(max(key, 0))
            size = signed()
            out.append(None if size < 0 else bytes(reader.take(size)))
            reader.at = end
        return out


def batches(data):
    """The whole batches in fetched bytes; a cut-off last one is left out, as a client does."""
    at, out = 0, []
    while at + 61 <= len(data):
        size = 12 + struct.unpack_from(">i", data, at + 8)[0]
        if at + size > len(data):
            break
        out.append(BatchHead(data[at : at + size]))
        at += size
    return out


# --- APIs -------------------------------------------------------------------------------------------------------------


def api_versions(conn, version=0):
    """-> (error, {api: (min, max)})"""
    body = b"" if version < 3 else Writer(True).string("raw").string("1").tags().done()
    return read_api_versions(conn.call(API_VERSIONS, version, body))


def read_api_versions(r):
    error, ranges = r.i16(), {}
    for _ in range(r.count()):
        api, low, high = r.i16(), r.i16(), r.i16()
        r.tags()
        ranges[api] = (low, high)
    return error, ranges


def metadata(conn, topics=None, version=12, auto_create=False):
    w = Writer(version >= 9)
    w.count(None if topics is None else len(topics))
    for t in topics or ():
        if version >= 10:
            w.uuid(uuid.UUID(int=0))
        w.string(t).tags()
    if version >= 4:
        w.i8(auto_create)
    if 8 <= version <= 10:
        w.i8(0)
    if version >= 8:
        w.i8(0)
    r = conn.call(METADATA, version, w.tags().done())
    if version >= 3:
        r.i32()

    def one_broker(r):
        out = (r.i32(), r.string(), r.i32())
        r.string()
        r.tags()
        return out

    def one_partition(r):
        out = {"error": r.i16(), "index": r.i32(), "leader": r.i32()}
        if version >= 7:
            out["epoch"] = r.i32()
        out["replicas"], out["isr"] = r.array(Reader.i32), r.array(Reader.i32)
        if version >= 5:
            out["offline"] = r.array(Reader.i32)
        r.tags()
        return out

    def one_topic(r):
        out = {"error": r.i16(), "name": r.string()}
        if version >= 10:
            out["id"] = r.uuid()
        r.i8()
        out["partitions"] = {p["index"]: p for p in r.array(one_partition)}
        if version >= 8:
            r.i32()
        r.tags()
        return out

    brokers = r.array(one_broker)
    cluster = r.string() if version >= 2 else None
    controller = r.i32()
    found = r.array(one_topic)
    return {"brokers": brokers, "cluster": cluster, "controller": controller, "topics": {t["name"]: t for t in found}}


def produce_body(records, version=7, acks=-1, timeout_ms=30000, transactional_id=None):
    """`records`: {topic (name, or UUID from version 13): {partition: bytes or None}}"""
    w = Writer(version >= 9).string(transactional_id).i16(acks).i32(timeout_ms).count(len(records))
    for topic, parts in records.items():
        w.uuid(topic) if version >= 13 else w.string(topic)
        w.count(len(parts))
        for index, data in parts.items():
            w.i32(index).bytes(data).tags()
        w.tags()
    return w.tags().done()


def read_produce(r, version=7):
    """-> {(topic, partition): (error, base offset)}"""
    out = {}
    for _ in range(r.count()):
        topic = r.uuid() if version >= 13 else r.string()
        for _ in range(r.count()):
            index, error, base = r.i32(), r.i16(), r.i64()
            r.i64()
            if version >= 5:
                r.i64()
            if version >= 8:
                for _ in range(max(r.count(), 0)):
                    r.i32(), r.string(), r.tags()
                r.string()
            r.tags()
            out[topic, index] = (error, base)
        r.tags()
    r.i32()
    r.tags()
    return out


def produce(conn, topic, partition, data, version=7, acks=-1):
    """One partition -> (error, base offset)"""
    r = conn.call(PRODUCE, version, produce_body({topic: {partition: data}}, version, acks))
    return read_produce(r, version)[topic, partition]


def fetch_body(wanted, version=11, max_wait=500, min_bytes=1, max_bytes=50 << 20, part_bytes=1 << 20, session=(0, -1), rack="", isolation=0):
    """`wanted`: {topic (name, or UUID from 13): {partition: offset}}"""
    w = Writer(version >= 12)
    if version <= 14:
        w.i32(-1)
    w.i32(max_wait).i32(min_bytes).i32(max_bytes).i8(isolation)
    if version >= 7:
        w.i32(session[0]).i32(session[1])
    w.count(len(wanted))
    for topic, parts in wanted.items():
        w.uuid(topic) if version >= 13 else w.string(topic)
        w.count(len(parts))
        for index, offset in parts.items():
            w.i32(index)
            if version >= 9:
                w.i32(-1)
            w.i64(offset)
            if version >= 12:
                w.i32(-1)
            if version >= 5:
                w.i64(-1)
            w.i32(part_bytes).tags()
        w.tags()
    if version >= 7:
        w.count(0)
    if version >= 11:
        w.string(rack)
    return w.tags().done()


def read_fetch(r, version=11):
    """-> (error, session id, {(topic, partition): {error, hw, lso, start, aborted, preferred, data}})"""
    r.i32()
    error, session = (r.i16(), r.i32()) if version >= 7 else (0, 0)
    out = {}
    for _ in range(r.count()):
        topic = r.uuid() if version >= 13 else r.string()
        for _ in range(r.count()):
            index, part = r.i32(), {"error": r.i16(), "hw": r.i64()}
            part["lso"] = r.i64()
            part["start"] = r.i64() if version >= 5 else None
            count = r.count()
            part["aborted"] = None if count < 0 else []
            for _ in range(max(count, 0)):
                part["aborted"].append((r.i64(), r.i64()))
                r.tags()
            part["preferred"] = r.i32() if version >= 11 else -1
            part["data"] = r.bytes() or b""
            r.tags()
            out[topic, index] = part
        r.tags()
    r.tags()
    return error, session, out


def fetch(conn, topic, partition, offset, version=11, **options):
    body = fetch_body({topic: {partition: offset}}, version, **options)
    error, _, parts = read_fetch(conn.call(FETCH, version, body), version)
    assert error == 0, f"fetch answered {error}"
    return parts[topic, partition]


def list_offsets(conn, topic, partitions, timestamp, version=5):
    """-> {partition: (error, timestamp, offset)}; timestamp -1 is latest, -2 earliest, -3 max timestamp"""
    w = Writer(version >= 6).i32(-1)
    if version >= 2:
        w.i8(0)
    w.count(1).string(topic).count(len(partitions))
    for p in partitions:
        w.i32(p)
        if version >= 4:
            w.i32(-1)
        w.i64(timestamp).tags()
    w.tags()
    if version >= 10:
        w.i32(5000)
    r = conn.call(LIST_OFFSETS, version, w.tags().done())
    if version >= 2:
        r.i32()
    out = {}
    for _ in range(r.count()):
        r.string()
        for _ in range(r.count()):
            index = r.i32()
            out[index] = (r.i16(), r.i64(), r.i64())
            if version >= 4:
                r.i32()
            r.tags()
        r.tags()
    return out


def offset(conn, topic, partition, timestamp):
    """The offset at `timestamp`; an error is an assertion."""
    error, _, at = list_offsets(conn, topic, [partition], timestamp)[partition]
    assert error == 0, f"ListOffsets answered {error}"
    return at


def init_producer_id(conn, version=1, transactional_id=None):
    """-> (producer id, epoch)"""
    w = Writer(version >= 2).string(transactional_id).i32(60000)
    if version >= 3:
        w.i64(-1).i16(-1)
    w.tags()
    for _ in range(50):
        r = conn.call(INIT_PRODUCER_ID, version, w.done())
        r.i32()
        error, pid, epoch = r.i16(), r.i64(), r.i16()
        if error != 14:  # COORDINATOR_LOAD_IN_PROGRESS: Kafka, for a moment after its start
            break
        time.sleep(0.1)
    assert error == 0, f"InitProducerId answered {error}"
    return pid, epoch


def create_topics_body(topics, version=4, validate_only=False):
    """`topics`: {name: (partitions, {config: value})}"""
    w = Writer(version >= 5).count(len(topics))
    for name, (partitions, configs) in topics.items():
        w.string(name).i32(partitions).i16(1).count(0).count(len(configs))
        for key, value in configs.items():
            w.string(key).string(str(value)).tags()
        w.tags()
    return w.i32(30000).i8(validate_only).tags().done()


def create_topics(conn, topics, version=4, validate_only=False):
    """-> {name: error}"""
    r = conn.call(CREATE_TOPICS, version, create_topics_body(topics, version, validate_only))
    r.i32()
    out = {}
    for _ in range(r.count()):
        name = r.string()
        if version >= 7:
            r.uuid()
        out[name] = r.i16()
        r.string()
        if version >= 5:
            r.i32(), r.i16()
            for _ in range(max(r.count(), 0)):
                r.string(), r.string(), r.i8(), r.i8(), r.i8(), r.tags()
        r.tags()
    return out
