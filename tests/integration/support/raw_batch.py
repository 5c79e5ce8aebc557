"""Batches whose header and records need not agree: what a producer's bugs, or its malice, may put on the wire."""

import gzip
import os
import struct
import time
import zlib

import crc32c
import lz4.frame
import snappy
import zstandard

from support import wire

HEAD_BYTES = 61
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")
LOG_APPEND_TIME = 0x08
DELETE_HORIZON = 0x40


def now_ms():
    return int(time.time() * 1000)


def record(delta=0, value=b"value", key=b"key", time_delta=0, headers=(), attributes=0, length=None):
    """One record as it stands in a batch. `headers`: pairs of key and value. `length`: a lie about its own."""
    body = bytes([attributes]) + wire.varint(time_delta) + wire.varint(delta) + field(key) + field(value)
    body += wire.varint(len(headers)) + b"".join(field(k) + field(v) for k, v in headers)
    return wire.varint(len(body) if length is None else length) + body


def field(data):
    """Length and bytes; None is null, and a number a length without bytes."""
    if isinstance(data, int):
        return wire.varint(data)
    return wire.varint(-1) if data is None else wire.varint(len(data)) + data


def records(n, **options):
    return b"".join(record(i, **options) for i in range(n))


def compress(codec, plain):
    match codec:
        case "none":
            return plain
        case "gzip":
            return gzip.compress(plain)
        case "snappy":
            return snappy.compress(plain)
        case "lz4":
            return lz4.frame.compress(plain, block_linked=False, store_size=False)
        case "zstd":
            return zstandard.compress(plain)


def decompress(codec, data):
    match codec:
        case "none":
            return data
        case "gzip":
            return zlib.decompressobj(31).decompress(data)
        case "snappy":
            if data.startswith(b"\x82SNAPPY\0"):
                out, at = b"", 16
                while at < len(data):
                    (size,) = struct.unpack_from(">i", data, at)
                    out += snappy.decompress(data[at + 4 : at + 4 + size])
                    at += 4 + size
                return out
            return snappy.decompress(data)
        case "lz4":
            return lz4.frame.decompress(data)
        case "zstd":
            return zstandard.ZstdDecompressor().decompressobj().decompress(data)


def batch(payload, count, codec="none", attributes=0, base_time=None, max_time=None, last_delta=None, base_offset=0,
          pid=-1, epoch=-1, seq=-1):  # fmt: skip
    """A batch with a right length and CRC around `payload`, whatever that is. `codec` only names one: compress first."""
    base_time = now_ms() if base_time is None else base_time
    max_time = base_time if max_time is None else max_time
    last_delta = count - 1 if last_delta is None else last_delta
    attributes |= CODECS.index(codec)
    tail = struct.pack(">hiqqqhii", attributes, last_delta, base_time, max_time, pid, epoch, seq, count) + payload
    body = struct.pack(">ibI", -1, 2, crc32c.crc32c(tail)) + tail
    return struct.pack(">qi", base_offset, len(body)) + body


def noise(n):
    return os.urandom(n)


class Stored:
    """A batch as it came back: its header, and its records walked."""

    def __init__(self, data):
        self.base, _, _, _, self.crc, self.attributes, self.last_delta, self.base_time, self.max_time = struct.unpack_from(
            ">qiibIhiqq", data, 0
        )
        self.n = struct.unpack_from(">i", data, 57)[0]
        self.codec = CODECS[self.attributes & 7]
        assert crc32c.crc32c(data[21:]) == self.crc, "the stored batch's CRC is wrong"
        self.records = list(self._walk(decompress(self.codec, data[HEAD_BYTES:])))

    def _walk(self, plain):
        """(offset, timestamp, key, value) of each record."""
        r = wire.Reader(plain)

        def signed():
            v = r.uvarint()
            return (v >> 1) ^ -(v & 1)

        for _ in range(self.n):
            end = signed() + r.at
            r.take(1)
            stamp, delta = signed(), signed()
            key, value = (None if n < 0 else bytes(r.take(n)) for n in iter_sizes(signed))
            for _ in range(signed()):
                bytes(r.take(signed()))
                size = signed()
                bytes(r.take(max(size, 0)))
            assert r.at == end, "a record's length is wrong"
            yield self.base + delta, self.base_time + stamp, key, value
        assert r.left() == 0, "bytes after the last record"


def iter_sizes(signed):
    yield signed()
    yield signed()


def stored(conn, topic, offset=0):
    data = wire.fetch(conn, topic, 0, offset, max_wait=0)["data"]
    return [Stored(head.data) for head in wire.batches(data)]


def produce(conn, topic, data, version=9):
    """One batch to partition 0 -> (error, message, [(record, its message)])"""
    r = conn.call(wire.PRODUCE, version, wire.produce_body({topic: {0: data}}, version))
    assert (r.count(), r.string(), r.count(), r.i32()) == (1, topic, 1, 0)
    error, _, _, _ = r.i16(), r.i64(), r.i64(), r.i64()

    def one(r):
        found = (r.i32(), r.string())
        r.tags()
        return found

    found = r.array(one)
    return error, r.string(), found
