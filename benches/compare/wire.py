"""As much of the Kafka protocol as the lab needs: topics made and deleted, leaders seen, one record acknowledged."""

import socket
import struct
import time

PRODUCE, LIST_OFFSETS, METADATA, CREATE_TOPICS, DELETE_TOPICS, CREATE_PARTITIONS = 0, 2, 3, 19, 20, 37
# Kafka refuses one request that makes 10,000 records of metadata, of which each partition is one.
MOST_AT_ONCE = 5_000


def _string(text):
    data = text.encode()
    return struct.pack(">h", len(data)) + data


def _array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        value = struct.unpack_from(">" + form, self.data, self.at)[0]
        self.at += struct.calcsize(">" + form)
        return value

    def string(self):
        length = self.take("h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length : self.at].decode()

    def array(self, read):
        return [read() for _ in range(self.take("i"))]


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = n >> 1 ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


_TABLE = _crc32c_table()


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def one_record_batch(value=b"first", now_ms=None):
    now = int(time.time() * 1000) if now_ms is None else now_ms
    body = bytes([0, 0, 0, 1, len(value) << 1]) + value + b"\0"  # attributes, deltas, no key, value, no headers
    records = bytes([len(body) << 1]) + body
    checked = struct.pack(">hiqqqhii", 0, 0, now, now, -1, -1, -1, 1) + records
    tail = struct.pack(">ibI", -1, 2, crc32c(checked)) + checked
    return struct.pack(">qi", 0, len(tail)) + tail


def steps(partitions, most=MOST_AT_ONCE):
    """Counts to grow to, one after another, once the first `most` are there."""
    return [min(count, partitions) for count in range(2 * most, partitions + most, most)]


class Conn:
    def __init__(self, port, timeout=10):
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.sock.close()

    def ask(self, api, version, body):
        data = struct.pack(">hhi", api, version, 1) + _string("compare") + body
        self.sock.sendall(struct.pack(">i", len(data)) + data)
        size = struct.unpack(">i", self._exactly(4))[0]
        return Reader(self._exactly(size)[4:])

    def _exactly(self, count):
        data = bytearray()
        while len(data) < count:
            part = self.sock.recv(count - len(data))
            if not part:
                raise ConnectionError("the broker closed the connection")
            data += part
        return bytes(data)

    def metadata(self, topic):
        """(brokers known, partition -> leader) of a topic."""
        r = self.ask(METADATA, 4, _array([_string(topic)]) + b"\0")
        r.take("i")
        brokers = r.array(lambda: (r.take("i"), r.string(), r.take("i"), r.string()))
        r.string(), r.take("i")
        leaders = {}

        def partition():
            error, index, leader = r.take("h"), r.take("i"), r.take("i")
            r.array(lambda: r.take("i")), r.array(lambda: r.take("i"))
            leaders[index] = leader if error == 0 else -1

        r.array(lambda: (r.take("h"), r.string(), r.take("b"), r.array(partition)))
        return len(brokers), leaders

    def all_served(self, topic, partitions):
        """Each partition tells its end: Kafka announces a leader a little before that one serves."""
        parts = [struct.pack(">iq", i, -1) for i in range(partitions)]
        r = self.ask(LIST_OFFSETS, 1, struct.pack(">i", -1) + _array([_string(topic) + _array(parts)]))
        errors = []

        def partition():
            r.take("i")
            errors.append(r.take("h"))
            r.take("q"), r.take("q")

        r.array(lambda: (r.string(), r.array(partition)))
        return len(errors) == partitions and not any(errors)

    def create_topic(self, name, partitions, configs, replicas=1):
        """(error, message). A topic of many partitions is made in steps."""
        error, message = self._create_topic(name, min(partitions, MOST_AT_ONCE), configs, replicas)
        for count in steps(partitions):
            if error == 0:
                error, message = self._grow(name, count)
        return error, message

    def _grow(self, name, count):
        topic = _string(name) + struct.pack(">ii", count, -1)
        r = self.ask(CREATE_PARTITIONS, 0, _array([topic]) + struct.pack(">i?", 60000, False))
        r.take("i")
        return r.array(lambda: (r.string(), r.take("h"), r.string()))[0][1:]

    def _create_topic(self, name, partitions, configs, replicas):
        pairs = [_string(k) + _string(str(v)) for k, v in configs.items()]
        topic = _string(name) + struct.pack(">ih", partitions, replicas) + _array([]) + _array(pairs)
        r = self.ask(CREATE_TOPICS, 2, _array([topic]) + struct.pack(">i?", 60000, False))
        r.take("i")
        return r.array(lambda: (r.string(), r.take("h"), r.string()))[0][1:]

    def delete_topics(self, names):
        r = self.ask(DELETE_TOPICS, 1, _array([_string(n) for n in names]) + struct.pack(">i", 60000))
        r.take("i")
        return dict(r.array(lambda: (r.string(), r.take("h"))))

    def produce_one(self, topic):
        """The error code for one record with acks=all."""
        part = struct.pack(">i", 0)
        batch = one_record_batch()
        part += struct.pack(">i", len(batch)) + batch
        body = struct.pack(">hhi", -1, -1, 30000) + _array([_string(topic) + _array([part])])
        r = self.ask(PRODUCE, 3, body)

        def partition():
            _, error, _, _ = r.take("i"), r.take("h"), r.take("q"), r.take("q")
            return error

        return r.array(lambda: (r.string(), r.array(partition)))[0][1][0]
