"""What a producer's header says and what its records say: the broker reads the records, as Apache Kafka does.

Each code here is Kafka 4.3.1's. Where Kafka stores what its own clients cannot read, or gives up with an unknown error, the
broker may refuse instead, and both codes stand here.
"""



import lz4.frame
import pytest

from support import raw_batch as raw
from support import wire
from support.raw_batch import batch, compress, record, records
from support.wire import Conn

INVALID, TIMESTAMP, UNKNOWN = 87, 32, -1
DAY = 86_400_000
HEAD = b"\x00\x00\x00" + raw.field(b"key") + raw.field(b"value")  # of a record: up to its headers


def of_body(body):
    return wire.varint(len(body)) + body


# What stands in the batch uncompressed, the count in the header, and the codes due: for a batch as it is, and compressed.
BODIES = {
    "fewer records than counted": (records(3), 4, {INVALID}, {INVALID}),
    "more records than counted": (records(3), 2, {INVALID}, {INVALID}),
    "a byte after the last record": (records(3) + b"\x00", 3, {INVALID}, {INVALID}),
    "noise": (bytes(range(7, 120)), 3, {INVALID}, {INVALID}),
    "nothing": (b"", 1, {INVALID}, {INVALID}),
    "a record beyond the end": (record(0, length=100), 1, {INVALID}, {INVALID, 0}),
    "a record longer than its length": (record(0, length=5), 1, {INVALID}, {INVALID, 0}),
    "a record shorter than its length": (of_body(HEAD + b"\x00xx"), 1, {INVALID}, {INVALID}),
    "a length below 0": (record(0, length=-3), 1, {INVALID}, {INVALID, 0}),
    "a varint without end": (b"\xff" * 20, 1, {INVALID, UNKNOWN}, {INVALID}),
    "a key beyond the end": (record(0, key=4000), 1, {INVALID}, {INVALID}),
    "a header without a key": (record(0, headers=[(None, b"v")]), 1, {INVALID}, {INVALID}),
    "fewer headers than counted": (of_body(HEAD + wire.varint(100)), 1, {INVALID}, {INVALID}),
    "a count of headers below 0": (of_body(HEAD + wire.varint(-1)), 1, {INVALID}, {INVALID}),
    "offsets that begin at 1": (b"".join(record(n + 1) for n in range(3)), 3, {0}, {UNKNOWN}),
    "offsets all alike": (b"".join(record(0) for _ in range(3)), 3, {0}, {UNKNOWN}),
    "offsets that fall": (b"".join(record(-n) for n in range(3)), 3, {0}, {UNKNOWN}),
}


def keeps_serving(broker, name, at=0):
    """Nothing of a refused batch is in the log; the next one is stored and read."""
    with Conn(broker) as conn:
        assert raw.produce(conn, name, batch(records(2), 2))[0] == 0
        found = raw.stored(conn, name)
        assert [r[0] for b in found for r in b.records] == list(range(at, at + 2))


@pytest.mark.parametrize("codec", raw.CODECS)
@pytest.mark.parametrize("what", BODIES)
def test_body_that_is_not_what_the_header_says(broker, topic, what, codec):
    plain, count, due, due_compressed = BODIES[what]
    due = due if codec == "none" else due_compressed
    name = topic(1)
    with Conn(broker) as conn:
        error, _, _ = raw.produce(conn, name, batch(compress(codec, plain), count, codec))
    assert error in due, f"error {error}, due one of {sorted(due)}"
    if error != 0:
        keeps_serving(broker, name)
    elif broker.kind == "corelane":
        with Conn(broker) as conn:
            [found] = raw.stored(conn, name)
            assert [r[0] for r in found.records] == list(range(count)), "what is taken is sound for every reader"


STREAMS = {
    "gzip": (UNKNOWN, UNKNOWN), "snappy": (UNKNOWN, UNKNOWN), "lz4": (UNKNOWN, UNKNOWN), "zstd": (UNKNOWN, INVALID),
}  # fmt: skip


@pytest.mark.parametrize("codec", STREAMS)
def test_stream_that_is_none(broker, topic, codec):
    """Noise in place of compressed data, no data at all, and data cut off or damaged on the way."""
    noise, empty = STREAMS[codec]
    name = topic(1)
    good = compress(codec, records(100, value=raw.noise(30)))
    with Conn(broker) as conn:
        assert raw.produce(conn, name, batch(raw.noise(100), 3, codec))[0] == noise
        assert raw.produce(conn, name, batch(b"", 3, codec))[0] == empty
        for cut in (1, 3, 4, 5, 9, 100, len(good) // 2):
            error, message, _ = raw.produce(conn, name, batch(good[:-cut], 100, codec))
            assert error == UNKNOWN, f"{cut} bytes cut off: {message}"
    keeps_serving(broker, name)


def test_lz4_blocks_that_depend_on_one_another(broker, topic):
    """Java clients cannot read them."""
    name, plain = topic(1), records(3000, value=b"v" * 60)
    block = lz4.frame.BLOCKSIZE_MAX64KB
    with Conn(broker) as conn:
        linked = lz4.frame.compress(plain, block_linked=True, block_size=block)
        assert raw.produce(conn, name, batch(linked, 3000, "lz4"))[0] == UNKNOWN
        single = lz4.frame.compress(plain, block_linked=False, block_size=block, block_checksum=True, content_checksum=True)
        assert raw.produce(conn, name, batch(single, 3000, "lz4"))[0] == 0


@pytest.mark.parametrize("codec", raw.CODECS)
@pytest.mark.parametrize("claimed", ["-1", "0", "future"])
def test_largest_timestamp_is_the_records(broker, topic, codec, claimed):
    """Whatever the header says: kept batches say what their records say, and offsets are found by time."""
    now = raw.now_ms()
    name = topic(1)
    plain = b"".join(record(n, time_delta=delta) for n, delta in enumerate((0, 1000, 2000, -5)))
    lie = {"-1": -1, "0": 0, "future": now + 10 * DAY}[claimed]
    with Conn(broker) as conn:
        sent = batch(compress(codec, plain), 4, codec, base_time=now, max_time=lie)
        assert raw.produce(conn, name, sent) == (0, None, [])
        [found] = raw.stored(conn, name)
        assert (found.base_time, found.max_time, found.codec) == (now, now + 2000, codec)
        assert wire.offset(conn, name, 0, now + 1500) == 2
        assert wire.list_offsets(conn, name, [0], -3, version=7)[0] == (0, now + 2000, 2)
        assert wire.offset(conn, name, 0, now + 2001) == -1


@pytest.mark.parametrize("codec", raw.CODECS)
def test_timestamp_bounds_hold_for_each_record(broker, topic, codec):
    """A day-old record behind a fresh one, and one of the future before it."""
    name = topic(1, message_timestamp_before_max_ms=3_600_000)
    plain = record(0) + record(1, time_delta=-DAY) + record(2) + record(3, time_delta=10 * DAY)
    with Conn(broker) as conn:
        error, message, bad = raw.produce(conn, name, batch(compress(codec, plain), 4, codec))
        assert (error, [index for index, _ in bad]) == (TIMESTAMP, [1, 3])
        assert message and all(text for _, text in bad)
        assert raw.produce(conn, name, batch(compress(codec, records(2)), 2, codec, base_time=-1))[0] == 0
        assert raw.produce(conn, name, batch(record(0), 1, base_time=raw.now_ms() - DAY))[0] == TIMESTAMP


@pytest.mark.parametrize("codec", raw.CODECS)
def test_log_append_time_set_by_the_client(broker, topic, codec):
    bit = raw.LOG_APPEND_TIME
    name, stamped = topic(1), topic(1, message_timestamp_type="LogAppendTime")
    now, data = raw.now_ms(), compress(codec, records(3))
    with Conn(broker) as conn:
        assert raw.produce(conn, name, batch(data, 3, codec, attributes=bit, base_time=now))[0] == 0
        [found] = raw.stored(conn, name)
        assert (found.attributes & bit, found.max_time, len(found.records)) == (0, now, 3)
        error, _, bad = raw.produce(conn, name, batch(data, 3, codec, attributes=bit, max_time=-1))
        assert (error, len(bad)) == (TIMESTAMP, 3)
        error, _, bad = raw.produce(conn, stamped, batch(data, 3, codec, attributes=bit))
        assert (error, len(bad)) == (TIMESTAMP, 3)
        assert raw.produce(conn, stamped, batch(data, 3, codec, base_time=5))[0] == 0
        [found] = raw.stored(conn, stamped)
        assert found.attributes & bit and found.max_time >= now


@pytest.mark.parametrize("codec", raw.CODECS)
@pytest.mark.parametrize("version", [8, 9])
def test_records_without_a_key_are_named(broker, topic, codec, version):
    """Of a hundred records to a compacted topic, ten have no key."""
    name = topic(1, cleanup_policy="compact")
    bare = set(range(3, 100, 10))
    plain = b"".join(record(n, key=None if n in bare else b"k%d" % n) for n in range(100))
    with Conn(broker) as conn:
        error, message, bad = raw.produce(conn, name, batch(compress(codec, plain), 100, codec), version)
        assert (error, {index for index, _ in bad}) == (INVALID, bare)
        assert "10" in message and all("key" in text for _, text in bad)
        assert raw.produce(conn, name, batch(compress(codec, records(100)), 100, codec), version) == (0, None, [])
        # Null is what counts, an empty key is one; below version 8 there is no room for the reasons.
        assert raw.produce(conn, name, batch(record(0, key=b""), 1))[0] == 0
        assert wire.produce(conn, name, 0, batch(record(0, key=None), 1), version=7)[0] == INVALID


def test_base_offset_must_be_0(broker, topic):
    name = topic(1)
    with Conn(broker) as conn:
        assert raw.produce(conn, name, batch(records(3), 3, base_offset=5))[0] == INVALID
    keeps_serving(broker, name)


def test_bomb(broker, topic, corelane_only):
    """Kilobytes that decompress to gigabytes: refused, and others are served meanwhile."""
    name = topic(1)
    size = 1 << 30
    head = b"\x00\x00\x00" + raw.field(b"k") + wire.varint(size)
    head = wire.varint(len(head) + size + 1) + head
    import zstandard

    maker = zstandard.ZstdCompressor().compressobj()
    bomb = maker.compress(head) + b"".join(maker.compress(b"\x00" * (1 << 20)) for _ in range(1 << 10))
    bomb += maker.compress(b"\x00") + maker.flush()
    assert len(bomb) < 200_000
    with Conn(broker, timeout=60) as conn, Conn(broker) as other:
        before = broker.rss()
        sent = [conn.send(wire.PRODUCE, 7, wire.produce_body({name: {0: batch(bomb, 1, "zstd")}})) for _ in range(5)]
        assert raw.produce(other, name, batch(records(1), 1))[0] == 0
        for _ in sent:
            assert wire.read_produce(conn.recv()[1])[name, 0][0] == wire.ERR["MESSAGE_TOO_LARGE"]
        assert broker.rss() - before < 64 << 20


def test_many_bad_records_make_no_large_answer(broker, topic, corelane_only):
    """A small batch of very many bad records is counted in full and named in part."""
    name = topic(1, cleanup_policy="compact")
    plain = b"".join(record(n, key=None, value=b"") for n in range(100_000))
    with Conn(broker) as conn:
        error, message, bad = raw.produce(conn, name, batch(compress("zstd", plain), 100_000, "zstd"))
    assert error == INVALID and "100000" in message and 100 <= len(bad) <= 1000


@pytest.fixture
def trusting(make_broker, corelane_only):
    b = make_broker({"corelane.produce.validate": "header"})
    b.start()
    return b


def test_validation_by_the_header_alone(trusting):
    """`corelane.produce.validate=header`: the producer's word is taken."""
    from support import load

    name, keyed = load.create_topic(trusting, "t", 1), load.create_topic(trusting, "c", 1, cleanup_policy="compact")
    with Conn(trusting) as conn:
        assert raw.produce(conn, name, batch(records(3), 4))[0] == 0
        assert raw.produce(conn, name, batch(raw.noise(100), 4, "zstd"))[0] == 0
        assert wire.offset(conn, name, 0, -1) == 8
        error, _, bad = raw.produce(conn, keyed, batch(record(0) + record(1, key=None), 2))
        assert (error, [index for index, _ in bad]) == (INVALID, [1])


def test_a_batch_of_one_codec_is_sound_to_clients_of_all(broker, topic):
    """What the suites' own packing makes is what other clients read."""
    from confluent_kafka import Consumer, TopicPartition

    name = topic(1)
    with Conn(broker) as conn:
        for codec in raw.CODECS:
            plain = records(50, value=codec.encode() * 20, headers=[(b"h", b"v"), (b"null", None)])
            assert raw.produce(conn, name, batch(compress(codec, plain), 50, codec, max_time=-1))[0] == 0
    consumer = Consumer({"bootstrap.servers": broker.bootstrap, "group.id": "x", "enable.auto.commit": False})
    consumer.assign([TopicPartition(name, 0, 0)])
    seen = []
    while len(seen) < 250:
        found = consumer.consume(250, 10)
        assert found, f"{len(seen)} records and no more"
        seen += [m.value() for m in found if m.error() is None]
    consumer.close()
    assert seen == [codec.encode() * 20 for codec in raw.CODECS for _ in range(50)]


def configs(broker, topic):
    """The topic's settings as DescribeConfigs tells them."""
    from confluent_kafka.admin import AdminClient, ConfigResource

    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    return {name: entry.value for name, entry in admin.describe_configs([resource])[resource].result(30).items()}


TARGETS = {"uncompressed": "none", "gzip": "gzip", "snappy": "snappy", "lz4": "lz4", "zstd": "zstd"}


@pytest.mark.parametrize("target", TARGETS)
def test_compression_type_of_a_topic(broker, topic, target):
    """A batch in another codec is compressed anew, one in the topic's own stays byte for byte."""
    name = topic(1, compression_type=target)
    assert configs(broker, name)["compression.type"] == target
    now, sent = raw.now_ms(), []
    with Conn(broker) as conn:
        pid, epoch = wire.init_producer_id(conn)
        for seq, codec in enumerate(raw.CODECS):
            plain = b"".join(record(n, b"%d" % seq * 50, headers=[(b"h", b"v")], time_delta=n) for n in range(100))
            data = batch(compress(codec, plain), 100, codec, base_time=now, max_time=now + 99, pid=pid, epoch=epoch, seq=seq * 100)
            for _ in range(2):
                assert raw.produce(conn, name, data) == (0, None, []), "the second is a repetition"
            sent.append(data)
        found = [b for at in range(0, 500, 100) for b in raw.stored(conn, name, at)[:1]]
        assert wire.offset(conn, name, 0, -1) == 500
        assert [b.codec for b in found] == [TARGETS[target]] * 5
        for seq, b in enumerate(found):
            due = [(seq * 100 + n, now + n, b"key", b"%d" % seq * 50) for n in range(100)]
            assert (b.records, b.max_time) == (due, now + 99)
        [same] = [data for data, codec in zip(sent, raw.CODECS) if codec == TARGETS[target]]
        at = raw.CODECS.index(TARGETS[target]) * 100
        assert bytes(wire.batches(wire.fetch(conn, name, 0, at, max_wait=0)["data"])[0].data[61:]) == same[61:]
        # Kafka gives up on the stream in both cases.
        assert raw.produce(conn, name, batch(raw.noise(100), 3, "gzip"))[0] == UNKNOWN
        assert raw.produce(conn, name, batch(compress("gzip", records(3)), 4, "gzip"))[0] == INVALID


def test_compression_levels(broker, topic):
    """They reach the codec, and DescribeConfigs tells them."""
    # What repeats lies far apart and is short, so that it takes a search to find it.
    plain = b"".join(record(n, b"user-%d did %d to %d;" % (n * 7919 % 997, n % 89, n * n % 1013)) for n in range(8000))
    sizes = {}
    for kind, levels in {"gzip": (1, 9), "lz4": (9, 12), "zstd": (-50, 19)}.items():
        for level in levels:
            name = topic(1, **{"compression_type": kind, f"compression_{kind}_level": level})
            told = configs(broker, name)
            assert (told["compression.type"], told[f"compression.{kind}.level"]) == (kind, str(level))
            with Conn(broker) as conn:
                assert raw.produce(conn, name, batch(plain, 8000))[0] == 0
                sizes[kind, level] = len(wire.fetch(conn, name, 0, 0, max_wait=0)["data"])
                [found] = raw.stored(conn, name)
                assert found.codec == kind and len(found.records) == 8000
        low, high = (sizes[kind, level] for level in levels)
        assert high < low, sizes


@pytest.mark.parametrize(
    "option,value",
    [("compression.type", "none"), ("compression.gzip.level", 0), ("compression.gzip.level", 10), ("compression.lz4.level", 18),
     ("compression.zstd.level", 23)],
)  # fmt: skip
def test_compression_settings_that_are_none(broker, option, value):
    with Conn(broker) as conn:
        assert wire.create_topics(conn, {"none": (1, {option: value})})["none"] == wire.ERR["INVALID_CONFIG"]


def test_too_large_once_it_is_stored_as_the_topic_wants(broker, topic):
    name = topic(1, compression_type="uncompressed", max_message_bytes=100_000)
    data = batch(compress("zstd", records(2000, value=b"v" * 60)), 2000, "zstd")
    assert len(data) < 50_000
    with Conn(broker) as conn:
        assert raw.produce(conn, name, data)[0] == wire.ERR["MESSAGE_TOO_LARGE"]
    keeps_serving(broker, name)


def test_compression_type_of_the_broker(make_broker):
    """The default of all topics, changed for one."""
    from support import load

    b = make_broker({"compression.type": "zstd", "compression.zstd.level": 10})
    b.start()
    plain, own = load.create_topic(b, "plain", 1), load.create_topic(b, "own", 1, compression_type="producer")
    assert configs(b, plain)["compression.type"] == "zstd"
    with Conn(b) as conn:
        for name, codec in ((plain, "zstd"), (own, "none")):
            assert raw.produce(conn, name, batch(records(100), 100))[0] == 0
            assert [found.codec for found in raw.stored(conn, name)] == [codec]
