"""Client quotas: how they are set and shown, whom they hold for, and what they do, by Kafka's own tool, the command line, clients and
by hand."""

import itertools
import threading
import time

import confluent_kafka as ck
import pytest

from support import clock, java, load, metrics, schema, wire
from support.broker import target
from support.cli import Cli, rows, run
from support.wire import ERR

PRODUCER, CONSUMER, REQUESTS, MUTATIONS, CONNECTIONS = (
    "producer_byte_rate", "consumer_byte_rate", "request_percentage", "controller_mutation_rate", "connection_creation_rate",
)  # fmt: skip
THROTTLED = 89
MB = 1_000_000


@pytest.fixture(scope="module")
def quota_broker(root):
    from support.broker import broker_class

    b = broker_class()(root / f"quotas-{time.time_ns()}")
    b.start()
    yield b
    b.kill()


@pytest.fixture
def broker(quota_broker, watch):
    """The module's broker, without any quota before and after."""
    watch(quota_broker)
    if not quota_broker.alive():
        quota_broker.start()
    yield quota_broker
    for entity in told(quota_broker):
        alter(quota_broker, dict(entity), **{key: None for key in told(quota_broker)[entity]})
    wait(lambda: told(quota_broker) == {}, "there are no quotas left")


def wait(check, what, timeout=30):
    end = clock.running() + timeout
    while not check():
        assert clock.running() < end, f"not within {timeout} s: {what}"
        time.sleep(0.02)


def parts(entity):
    return [{"EntityType": kind.replace("_", "-"), "EntityName": name} for kind, name in entity.items()]


def entry(entity, **values):
    """`None` removes one."""
    ops = [{"Key": key, "Value": float(value or 0), "Remove": value is None} for key, value in values.items()]
    return {"Entity": parts(entity), "Ops": ops}


def altered(broker, *entries, version=1, validate_only=False):
    """Entity -> (error, message)"""
    with wire.Conn(broker, timeout=60, client_id="admin") as conn:
        answer = schema.call(conn, "AlterClientQuotas", version, Entries=list(entries), ValidateOnly=validate_only)
    return {key(e.Entity): (e.ErrorCode, e.ErrorMessage) for e in answer.Entries}


def key(entity):
    return tuple(sorted((e.EntityType, e.EntityName) for e in entity))


def alter(broker, entity, **values):
    before = dict(told(broker).get(tuple(sorted((k.replace("_", "-"), v) for k, v in entity.items())), {}))
    outcome = altered(broker, entry(entity, **values))
    assert [error for error, _ in outcome.values()] == [0], outcome
    after = {**before, **values}
    # Kafka answers before its broker knows of it.
    named = tuple(sorted((k.replace("_", "-"), v) for k, v in entity.items()))
    wanted = {k: v for k, v in after.items() if v is not None}
    wait(lambda: told(broker).get(named, {}) == wanted, f"the broker shows {wanted} of {named}: {told(broker)}")


def described(broker, *components, strict=False, version=1):
    """Components: (entity type, match type, name)."""
    wanted = [{"EntityType": kind, "MatchType": match, "Match": name} for kind, match, name in components]
    with wire.Conn(broker, timeout=60, client_id="admin") as conn:
        return schema.call(conn, "DescribeClientQuotas", version, Components=wanted, Strict=strict)


def told(broker, *components, **options):
    """Entity -> quotas"""
    answer = described(broker, *components, **options)
    assert answer.ErrorCode == 0, answer
    return {key(e.Entity): {v.Key: v.Value for v in e.Values} for e in answer.Entries}


# ---- how they are set and shown


def test_set_shown_and_removed(broker):
    every = {
        (("user", "alice"),): {PRODUCER: 1e6, CONSUMER: 2e6},
        (("user", None),): {REQUESTS: 12.5},
        (("client-id", "c"), ("user", "alice")): {MUTATIONS: 2.5},
        (("client-id", None), ("user", "alice")): {PRODUCER: 5.0},
        (("client-id", "c"),): {PRODUCER: 3e6},
        (("client-id", None),): {REQUESTS: 200.0},
        (("ip", "10.0.0.1"),): {CONNECTIONS: 5.0},
        (("ip", None),): {CONNECTIONS: 50.0},
        (("user", "na/me with ü*+%"),): {PRODUCER: 7.0},
    }
    for version in 0, 1:
        outcome = altered(broker, *[entry(dict(e), **q) for e, q in every.items()], version=version)
        assert outcome == dict.fromkeys(every, (0, None)), outcome
        wait(lambda: told(broker) == every, f"all are shown: {told(broker)}")
        # The same again changes nothing.
        assert altered(broker, entry({"user": "alice"}, **{PRODUCER: 1e6})) == {(("user", "alice"),): (0, None)}
        assert told(broker, version=version) == every

        def of(*components, version=version, **options):
            return set(told(broker, *components, version=version, **options))

        assert of(strict=True) == set()
        assert of(("user", 0, "alice")) == {e for e in every if ("user", "alice") in e}
        assert of(("user", 0, "alice"), strict=True) == {(("user", "alice"),)}
        assert of(("user", 1, None)) == {(("user", None),)}
        assert of(("user", 2, None)) == {e for e in every if e[-1][0] == "user"}
        assert of(("user", 2, None), ("client-id", 1, None), strict=True) == {(("client-id", None), ("user", "alice"))}
        assert of(("client-id", 2, None), strict=True) == {(("client-id", "c"),), (("client-id", None),)}
        assert of(("ip", 2, None)) == {e for e in every if e[0][0] == "ip"}
        assert of(("user", 0, "bob")) == set()
        # One of two goes, and one that is not set is no fault.
        alter(broker, {"user": "alice"}, **{CONSUMER: None})
        assert altered(broker, entry({"user": "bob"}, **{CONSUMER: None})) == {(("user", "bob"),): (0, None)}
        assert told(broker)[("user", "alice"),] == {PRODUCER: 1e6}
        gone = [entry(dict(e), **dict.fromkeys(q)) for e, q in every.items()]
        assert set(altered(broker, *gone, version=version).values()) == {(0, None)}
        wait(lambda: told(broker) == {}, "none are left")


def test_what_is_only_tried(broker):
    tried = altered(broker, entry({"user": "u"}, **{PRODUCER: 5}), entry({"user": ""}, **{PRODUCER: 5}), validate_only=True)
    assert [tried[k][0] for k in ((("user", "u"),), (("user", ""),))] == [0, ERR["INVALID_REQUEST"]]
    time.sleep(0.2)
    assert told(broker) == {}


@pytest.mark.parametrize(
    "entity, quotas, words",
    [
        ({}, {PRODUCER: 1}, "Invalid empty client quota entity"),
        ({"user": ""}, {PRODUCER: 1}, "Empty user not supported"),
        ({"host": "x"}, {PRODUCER: 1}, "Unhandled client quota entity type: host"),
        ({"user": "u", "ip": None}, {PRODUCER: 1}, "Invalid quota entity combination"),
        ({"client_id": "c", "ip": "10.0.0.1"}, {CONNECTIONS: 1}, "Invalid quota entity combination"),
        ({"ip": "no such host."}, {CONNECTIONS: 1}, "is not a valid IP or resolvable host"),
        ({"ip": None}, {PRODUCER: 1}, "Invalid configuration key producer_byte_rate"),
        ({"user": "u"}, {CONNECTIONS: 1}, "Invalid configuration key connection_creation_rate"),
        ({"user": "u"}, {"retention.ms": 1}, "Invalid configuration key retention.ms"),
        ({"user": "u"}, {PRODUCER: 0.0}, "must be greater than 0"),
        ({"user": "u"}, {REQUESTS: -1}, "must be greater than 0"),
        ({"user": "u"}, {PRODUCER: 1.5}, "cannot be a fractional value"),
        ({"client_id": "c"}, {CONSUMER: 1e19}, "is too large for a LONG"),
        ({"ip": "10.0.0.1"}, {CONNECTIONS: 2147483648}, "is too large for an INT"),
    ],
    ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "",
)
def test_what_cannot_be_set(broker, entity, quotas, words):
    good = entry({"user": "good"}, **{PRODUCER: 7})
    outcome = altered(broker, entry(entity, **quotas), good)
    (error, message) = next(told for named, told in outcome.items() if named != (("user", "good"),))
    assert error == ERR["INVALID_REQUEST"] and words in message, (error, message)
    # It is no matter of the others.
    assert outcome[("user", "good"),] == (0, None)
    wait(lambda: told(broker) == {(("user", "good"),): {PRODUCER: 7.0}}, f"the good one is set: {told(broker)}")


def test_what_is_named_twice(broker):
    twice = altered(broker, entry({"user": "u"}, **{PRODUCER: 5}), entry({"user": "u"}, **{PRODUCER: 6}))
    [(error, message)] = twice.values()
    assert error == ERR["INVALID_REQUEST"] and "duplicate" in message.lower(), twice
    double = {"Entity": parts({"user": "v"}), "Ops": 2 * [{"Key": PRODUCER, "Value": 5.0, "Remove": False}]}
    [(error, message)] = altered(broker, double).values()
    assert error == ERR["INVALID_REQUEST"] and "duplicate" in message.lower(), message
    wait(lambda: told(broker) == {(("user", "u"),): {PRODUCER: 5.0}}, f"the first is carried out: {told(broker)}")


def test_wrong_filters(broker):
    any_user, wrong = ("user", 2, None), ERR["INVALID_REQUEST"]
    for components, code in (
        ([("", 2, None)], wrong),
        ([("user", 0, None)], wrong),
        ([("user", 1, "a")], wrong),
        ([("user", 2, "a")], wrong),
        ([("user", 9, None)], wrong),
        ([any_user, ("ip", 2, None)], wrong),
        ([any_user, any_user], wrong),
        ([("host", 2, None)], ERR["UNSUPPORTED_VERSION"]),
    ):
        for version in 0, 1:
            answer = described(broker, *components, version=version)
            assert (answer.ErrorCode, answer.Entries) == (code, None) and answer.ErrorMessage, (components, answer)


def test_kafkas_own_tool(broker):
    def configs(*args, check=True):
        return java.run(java.CONFIGS, "--bootstrap-server", broker.bootstrap, *args, check=check)

    add = ("--alter", "--add-config")
    configs("--entity-type", "users", "--entity-name", "alice", *add, f"{PRODUCER}=1000000,{REQUESTS}=150")
    configs("--entity-type", "users", "--entity-default", "--entity-type", "clients", "--entity-name", "c", *add, f"{CONSUMER}=5000")
    configs("--entity-type", "clients", "--entity-default", *add, f"{MUTATIONS}=10")
    configs("--entity-type", "ips", "--entity-name", "10.0.0.7", *add, f"{CONNECTIONS}=20")
    wait(lambda: len(told(broker)) == 4, f"all are there: {told(broker)}")
    assert told(broker)[("user", "alice"),] == {PRODUCER: 1e6, REQUESTS: 150.0}
    assert told(broker)[("client-id", "c"), ("user", None)] == {CONSUMER: 5000.0}
    out = configs("--entity-type", "users", "--describe").out
    assert "Quota configs for user-principal 'alice' are" in out and f"{PRODUCER}=1000000.0" in out, out
    out = configs("--entity-type", "ips", "--entity-name", "10.0.0.7", "--describe").out
    assert "ip '10.0.0.7'" in out and f"{CONNECTIONS}=20.0" in out, out
    configs("--entity-type", "users", "--entity-name", "alice", "--alter", "--delete-config", f"{PRODUCER},{REQUESTS}")
    configs("--entity-type", "ips", "--entity-name", "10.0.0.7", "--alter", "--delete-config", CONNECTIONS)
    wait(lambda: len(told(broker)) == 2, f"two are left: {told(broker)}")
    wrong = configs("--entity-type", "clients", "--entity-name", "c", *add, f"{PRODUCER}=fast", check=False)
    assert wrong.code != 0, str(wrong)


def test_the_command_line(broker):
    cli = Cli(broker.bootstrap)
    said = cli("quota", "set", "--user", "alice", f"{PRODUCER}=1000000", f"{REQUESTS}=12.5").out
    assert f"user alice: {PRODUCER}=1000000\n" in said, said
    cli("quota", "set", "--user-default", "--client-id", "batch", f"{CONSUMER}=5000")
    cli("quota", "set", "--ip-default", f"{CONNECTIONS}=20")
    wait(lambda: len(told(broker)) == 3, f"all are there: {told(broker)}")
    listed = {tuple(item["entity"].items()): item["quotas"] for item in cli.json("quota", "list")}
    assert listed == {
        (("user", "alice"),): {PRODUCER: 1000000, REQUESTS: 12.5},
        (("client-id", "batch"), ("user", None)): {CONSUMER: 5000},
        (("ip", None),): {CONNECTIONS: 20},
    }
    table = rows(cli("quota", "list", "--user-default").out)
    assert table == [{"USER": "<default>", "CLIENT-ID": "batch", "IP": "-", "QUOTA": CONSUMER, "VALUE": "5000"}]
    assert "would be" in cli("quota", "set", "--client-id", "x", f"{PRODUCER}=1", "--dry-run").out
    gone = cli.json("quota", "unset", "--user", "alice", PRODUCER, REQUESTS)
    assert gone["quotas"] == {PRODUCER: None, REQUESTS: None} and gone["error"] is None
    wait(lambda: len(told(broker)) == 2, f"two are left: {told(broker)}")
    said = cli.fails("quota", "set", "--user", "alice", "producer_byt_rate=5")
    assert "INVALID_REQUEST" in said and f"did you mean {PRODUCER}?" in said, said
    assert "greater than 0" in cli.fails("quota", "set", "--user", "alice", f"{PRODUCER}=0")
    assert "--user" in cli.fails("quota", "set", f"{PRODUCER}=1")
    for words in (["set"], ["set", "--user", "a", f"{PRODUCER}=x"], ["unset", "--user", "a", "--ip", "1.1.1.1", PRODUCER]):
        done = run("quota", *words)
        assert done.code == 2 and "panicked" not in done.err, (words, done)
    for command in ("list", "set", "unset"):
        done = run("quota", command, "--help")
        assert done.code == 0 and f"corelane quota {command}" in done.out.split("Example")[1], done


def test_they_outlive_stops_and_kills(broker):
    kept = {(("user", "alice"),): {PRODUCER: 1e6}, (("client-id", "slow"), ("user", None)): {PRODUCER: 10_000.0}}
    for entity, quotas in kept.items():
        alter(broker, dict(entity), **quotas)
    alter(broker, {"ip": "10.0.0.1"}, **{CONNECTIONS: 5})
    alter(broker, {"ip": "10.0.0.1"}, **{CONNECTIONS: None})
    for end in broker.stop, broker.kill:
        end()
        broker.start()
        wait(lambda: told(broker) == kept, f"they are there again: {told(broker)}")
        # And hold.
        topic = load.create_topic(broker, f"kept-{time.time_ns()}")
        with wire.Conn(broker, client_id="slow") as conn:
            assert sum(produce(conn, topic, 60_000) for _ in range(3)) > 3000
    alter(broker, {"client_id": "slow", "user": None}, **{PRODUCER: None})
    broker.kill()
    broker.start()
    wait(lambda: set(told(broker)) == {(("user", "alice"),)}, f"what was removed stays away: {told(broker)}")


# ---- whom they hold for, and what they do


def produce(conn, topic, size, version=7, acks=-1):
    """The time that the client is told to wait, ms."""
    body = wire.produce_body({topic: {0: wire.batch([b"x" * size])}}, version, acks)
    r = conn.call(wire.PRODUCE, version, body)
    for _ in range(r.count()):
        r.string()
        for _ in range(r.count()):
            assert (r.i32(), r.i16()) == (0, 0)
            r.i64(), r.i64(), r.i64()
    throttle = r.i32()
    assert r.left() == 0
    return throttle


def fetch(conn, topic, offset, part_bytes=1 << 20, session=(0, -1)):
    """(time to wait in ms, session id, bytes of records)"""
    body = wire.fetch_body({topic: {0: offset}} if offset is not None else {}, 11, part_bytes=part_bytes, session=session, max_wait=0)
    r = conn.call(wire.FETCH, 11, body)
    throttle = r.i32()
    r.at -= 4
    error, session, found = wire.read_fetch(r, 11)
    assert error == 0
    return throttle, session, sum(len(part["data"]) for part in found.values())


def throttle_of(broker, topic, client_id):
    """The longest time that a client with this id is told to wait when it produces 2 MB."""
    longest = 0
    for _ in range(4):
        with wire.Conn(broker, client_id=client_id) as conn:
            longest = max(longest, produce(conn, topic, 500_000))
    return longest


def test_the_most_specific_holds(broker):
    topic = load.create_topic(broker, f"specific-{time.time_ns()}")
    me, other = f"me-{time.time_ns()}", f"other-{time.time_ns()}"
    # From the least to the most specific: each in turn either lets all through or holds back.
    user, low, high = "ANONYMOUS", 20_000, 10**9
    order = [
        {"client_id": None},
        {"client_id": me},
        {"user": None},
        {"user": None, "client_id": None},
        {"user": None, "client_id": me},
        {"user": user},
        {"user": user, "client_id": None},
        {"user": user, "client_id": me},
    ]
    assert throttle_of(broker, topic, me) == 0
    for at, entity in enumerate(order):
        rate = low if at % 2 == 0 else high
        alter(broker, entity, **{PRODUCER: rate})
        throttled = throttle_of(broker, topic, me)
        assert (throttled > 0) == (rate == low), (entity, throttled)
    # The defaults hold for others.
    assert throttle_of(broker, topic, other) > 0
    alter(broker, {"user": user, "client_id": None}, **{PRODUCER: high})
    assert throttle_of(broker, topic, other) == 0


def paced(broker, client_id, topic, bytes_per_second, seconds):
    """Produces at a pace, as far as the broker takes it; the bytes that were acknowledged per second."""
    size, sent, done = 8000, 0, [0]

    def delivered(error, message):
        assert error is None, error
        done[0] += len(message)

    producer = load.producer(
        broker, client_id=client_id, linger_ms=2, batch_size=16384, queue_buffering_max_kbytes=256, max_in_flight=2
    )
    begun = time.monotonic()
    while (now := time.monotonic() - begun) < seconds:
        while sent < now * bytes_per_second:
            try:
                producer.produce(topic, b"x" * size, on_delivery=delivered)
            except BufferError:
                pass  # what the broker does not take is left out
            sent += size
        producer.poll(0.005)
    rate = done[0] / (time.monotonic() - begun)
    producer.purge()
    return rate


# Quotas give ten seconds' worth at once: two rounds of it.
SECONDS = 21.5


def side_by_side(*works):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(len(works)) as pool:
        return [future.result() for future in [pool.submit(work) for work in works]]


@pytest.mark.alone
def test_a_producer_is_held_to_its_rate_and_another_is_not(broker, length, figure):
    quota = length.pick(2, 10) * MB
    topics = [load.create_topic(broker, f"rate-{name}-{time.time_ns()}") for name in ("held", "free")]
    alter(broker, {"client_id": "held"}, **{PRODUCER: quota})
    held, free = side_by_side(
        lambda: paced(broker, "held", topics[0], 1.5 * quota, SECONDS),
        lambda: paced(broker, "free", topics[1], 1.5 * quota, SECONDS),
    )
    figure(f"produced at a quota of {quota / MB} MB/s, offered half more", f"{held / MB:.3f} MB/s; without a quota {free / MB:.3f} MB/s")
    assert 0.9 <= held / quota <= 1.1, held
    assert free > 1.425 * quota, free


def consumed(broker, client_id, topic, bytes_per_second, seconds):
    """Reads at a pace, as far as the broker gives it; bytes per second."""
    consumer = load.consumer(
        broker, client_id=client_id, group_id=client_id, queued_max_messages_kbytes=256, fetch_message_max_bytes=65536,
        queued_min_messages=1000, fetch_queue_backoff_ms=2, enable_partition_eof=False,
    )  # fmt: skip
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    begun, got = time.monotonic(), 0
    while (now := time.monotonic() - begun) < seconds:
        if got > now * bytes_per_second:
            time.sleep(0.002)
            continue
        message = consumer.poll(0.1)
        if message is not None:
            assert not message.error(), message.error()
            got += len(message)
    consumer.close()
    return got / seconds


@pytest.mark.alone
def test_a_consumer_is_held_to_its_rate_and_another_is_not(broker, length, figure):
    quota = length.pick(2, 10) * MB
    topic = load.create_topic(broker, f"read-{time.time_ns()}")
    with wire.Conn(broker, timeout=60) as conn:
        for _ in range(length.pick(70, 350)):
            assert produce_many(conn, topic, 100, 9900) == 0
    alter(broker, {"client_id": "held"}, **{CONSUMER: quota})
    held, free = side_by_side(
        lambda: consumed(broker, "held", topic, 1.5 * quota, SECONDS), lambda: consumed(broker, "free", topic, 1.5 * quota, SECONDS)
    )
    figure(f"consumed at a quota of {quota / MB} MB/s, asked for half more", f"{held / MB:.3f} MB/s; without a quota {free / MB:.3f} MB/s")
    assert 0.9 <= held / quota <= 1.1, held
    assert free > 1.425 * quota, free


def produce_many(conn, topic, count, size):
    """The error."""
    return wire.produce(conn, topic, 0, wire.batch([b"y" * size] * count))[0]


@pytest.mark.alone
def test_who_has_used_too_much_is_answered_at_once_and_then_not_read_from(broker):
    topic = load.create_topic(broker, f"mute-{time.time_ns()}")
    alter(broker, {"client_id": "muted"}, **{PRODUCER: 50_000})
    with wire.Conn(broker, timeout=60, client_id="muted") as conn:
        assert produce(conn, topic, 500_000) in range(0, 3000), "about ten seconds' worth"
        begun = time.monotonic()
        throttle = produce(conn, topic, 100_000)
        # It may have waited for the first one's time.
        assert 1000 < throttle < 6000, throttle
        answered = time.monotonic()
        wire.metadata(conn, [topic], version=8)
        waited = time.monotonic() - answered
        assert throttle / 1000 - 0.3 < waited < throttle / 1000 + 2, (throttle, waited)
        assert answered - begun < 4
        # Others with the same id have used it up as well.
        with wire.Conn(broker, timeout=60, client_id="muted") as second:
            assert produce(second, topic, 100) > 0
            # acks=0 has no answer that could tell it; it is held back all the same.
            second.send(wire.PRODUCE, 7, wire.produce_body({topic: {0: wire.batch([b"x" * 200_000])}}, 7, 0))
            begun = time.monotonic()
            wire.metadata(second, [topic], version=8)
            assert time.monotonic() - begun > 1


def test_a_fetch_beyond_the_quota_is_answered_without_records(broker):
    topic = load.create_topic(broker, f"fetch-{time.time_ns()}")
    with wire.Conn(broker, timeout=60) as conn:
        for _ in range(10):
            assert produce_many(conn, topic, 10, 9900) == 0
    alter(broker, {"client_id": "reader"}, **{CONSUMER: 40_000})
    with wire.Conn(broker, timeout=60, client_id="reader") as conn:
        throttle, session, got = fetch(conn, topic, 0, 99_000, session=(0, 0))
        assert (throttle, got > 0) == (0, True) and session > 0
        # No answer has more than the windows give.
        epoch, offset, total = 1, 0, got
        while throttle == 0:
            offset += 10
            throttle, same, got = fetch(conn, topic, offset, 99_000, session=(session, epoch))
            assert same == session
            total, epoch = total + got, epoch + 1
        assert got == 0 and 300_000 < total <= 441_000, total
        begun = time.monotonic()
        again, same, _ = fetch(conn, topic, offset, 99_000, session=(session, epoch))
        assert same == session and time.monotonic() - begun > throttle / 1000 - 0.3
    # A session is not begun by an answer without its partitions.
    with wire.Conn(broker, timeout=60, client_id="reader") as conn:
        throttle, session, got = fetch(conn, topic, 0, 400_000, session=(0, 0))
        assert throttle > 0 and (session, got) == (0, 0)


def throttled(ask):
    """The first throttle time; a window that has passed meanwhile leaves room for some requests."""
    return next((throttle for throttle in (ask() for _ in range(5000)) if throttle), 0)


@pytest.mark.alone
def test_time_of_requests(broker):
    topic = load.create_topic(broker, f"time-{time.time_ns()}", 30)
    alter(broker, {"client_id": "busy"}, **{REQUESTS: 0.02})
    with wire.Conn(broker, timeout=60, client_id="busy") as conn, wire.Conn(broker, timeout=60, client_id="calm") as calm:
        for _ in range(5000):
            throttle = schema.call(conn, "Metadata", 12, Topics=None).ThrottleTimeMs
            if throttle:
                break
            assert schema.call(calm, "Metadata", 12, Topics=None).ThrottleTimeMs == 0
        assert 0 < throttle <= 1000, "a window at most"
        throttles = []
        for _ in range(3):
            begun = time.monotonic()
            throttles.append(schema.call(conn, "Metadata", 12, Topics=None).ThrottleTimeMs)
            assert time.monotonic() - begun > throttle / 1000 - 0.3
            throttle = throttles[-1]
        assert all(0 <= t <= 1000 for t in throttles)
        # Every kind of request: of a group, a fetch, a batch.
        for api, version, values in (
            ("Heartbeat", 4, {"GroupId": "g", "GenerationId": 1, "MemberId": "m"}),
            ("ListOffsets", 7, {"ReplicaId": -1, "Topics": []}),
            ("ApiVersions", 3, {"ClientSoftwareName": "a", "ClientSoftwareVersion": "1"}),
        ):
            assert 0 < throttled(lambda: schema.call(conn, api, version, **values).ThrottleTimeMs) <= 1000, api
        assert throttled(lambda: fetch(conn, topic, 0)[0])
        assert throttled(lambda: produce(conn, topic, 10))
        assert schema.call(calm, "Metadata", 12, Topics=None).ThrottleTimeMs == 0


def test_a_quota_that_is_removed_frees_the_client(broker):
    topic = load.create_topic(broker, f"freed-{time.time_ns()}")
    alter(broker, {"client_id": "freed"}, **{PRODUCER: 10_000})
    with wire.Conn(broker, timeout=120, client_id="freed") as conn:
        throttle = 0
        while throttle < 20_000:
            throttle = max(throttle, produce(conn, topic, 600_000))
        alter(broker, {"client_id": "freed"}, **{PRODUCER: None})
        if broker.kind == "corelane":
            begun = time.monotonic()
            assert produce(conn, topic, 1000) == 0
            assert time.monotonic() - begun < 10, "although it was told to wait for longer"
    with wire.Conn(broker, client_id="freed") as conn:
        begun = time.monotonic()
        assert max(produce(conn, topic, 300_000) for _ in range(5)) == 0
        assert time.monotonic() - begun < 30


def test_quotas_of_others_end_no_wait(broker, corelane_only):
    topic = load.create_topic(broker, f"held-{time.time_ns()}")
    alter(broker, {"client_id": "held"}, **{PRODUCER: 10_000})
    done = threading.Event()

    def change_others():
        for n in itertools.count():
            alter(broker, {"client_id": "other"}, **{PRODUCER: 1_000_000 + n})
            if done.wait(0.1):
                return

    with wire.Conn(broker, timeout=120, client_id="held") as conn:
        throttle = 0
        while throttle < 2000:
            throttle = produce(conn, topic, 150_000)
        changing = threading.Thread(target=change_others)
        changing.start()
        try:
            begun = time.monotonic()
            produce(conn, topic, 10)
            waited = time.monotonic() - begun
        finally:
            done.set()
            changing.join()
    assert waited > throttle / 1000 - 0.3, f"{waited:.2f} s of {throttle} ms"


def test_a_rate_next_to_nothing_is_owed_for_ever(broker, corelane_only):
    stamp = time.time_ns()
    alter(broker, {"client_id": "tiny"}, **{MUTATIONS: 1e-300})
    for name in "ab":
        with wire.Conn(broker, timeout=60, client_id="tiny") as conn:
            told, throttle = create(conn, 6, (f"tiny-{name}-{stamp}", 1))
    assert list(told.values()) == [THROTTLED] and throttle == 2**31 - 1, (told, throttle)


def create(conn, version, *topics):
    """({topic: error}, time to wait)"""
    wanted = [{"Name": name, "NumPartitions": partitions, "ReplicationFactor": 1} for name, partitions in topics]
    answer = schema.call(conn, "CreateTopics", version, Topics=wanted, timeoutMs=30000)
    return {t.Name: t.ErrorCode for t in answer.Topics}, answer.ThrottleTimeMs


def test_creations_and_deletions(broker):
    stamp = time.time_ns()
    a, b, c = (f"mutation-{name}-{stamp}" for name in "abc")
    alter(broker, {"client_id": "maker"}, **{MUTATIONS: 1})
    with wire.Conn(broker, timeout=60, client_id="maker") as conn:
        # Eleven partitions' worth at once; the last may be beyond it.
        assert create(conn, 6, (a, 15)) == ({a: 0}, 0)
        told, throttle = create(conn, 6, (b, 1), (a, 3), (c, 1))
        assert (told[b], told[c]) == (THROTTLED, THROTTLED) and 1500 < throttle <= 4000, (told, throttle)
        assert told[a] == 36, "what exists is told so"
    with wire.Conn(broker, timeout=60, client_id="maker") as conn:
        # Older versions do not know the error: they are carried out and their client waits.
        told, throttle = create(conn, 5, (b, 1))
        assert told == {b: 0} and throttle > 1000, (told, throttle)
    with wire.Conn(broker, timeout=60, client_id="maker") as conn:
        grown = schema.call(conn, "CreatePartitions", 3, Topics=[{"Name": b, "Count": 2, "Assignments": None}], TimeoutMs=30000)
        assert [r.ErrorCode for r in grown.Results] == [THROTTLED] and grown.ThrottleTimeMs > 0
    with wire.Conn(broker, timeout=60, client_id="maker") as conn:
        gone = schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": a}], TimeoutMs=30000)
        assert [r.ErrorCode for r in gone.Responses] == [THROTTLED] and gone.ThrottleTimeMs > 0
    with wire.Conn(broker, timeout=60, client_id="another") as conn:
        gone = schema.call(conn, "DeleteTopics", 6, Topics=[{"Name": a}, {"Name": b}], TimeoutMs=30000)
        assert [r.ErrorCode for r in gone.Responses] == [0, 0] and gone.ThrottleTimeMs == 0


def test_connections_of_an_address(broker):
    with wire.Conn(broker, timeout=60, client_id="admin") as conn:

        def limit(rate):
            answer = schema.call(conn, "AlterClientQuotas", 1, Entries=[entry({"ip": "127.0.0.1"}, **{CONNECTIONS: rate})])
            assert [e.ErrorCode for e in answer.Entries] == [0]

        limit(2)
        served = []
        for _ in range(40):
            begun = time.monotonic()
            try:
                with wire.Conn(broker, timeout=10) as one:
                    wire.metadata(one, [], version=8)
                served.append(True)
            except (OSError, wire.Closed):
                served.append(False)
                assert time.monotonic() - begun < 8
            if served.count(False) >= 2:
                break
        assert False in served and served.index(False) in range(10, 30), served
        limit(None)

        def connects():
            try:
                with wire.Conn(broker, timeout=10) as one:
                    return wire.metadata(one, [], version=8)["brokers"]
            except (OSError, wire.Closed):
                return False

        wait(connects, "connections are taken again")
        wait(lambda: all(connects() for _ in range(30)), "as many as come")


@pytest.mark.skipif(target() != "corelane", reason="Corelane's metrics")
def test_metrics_tell_who_was_told_to_wait(make_broker):
    b = metrics.serve(make_broker({"corelane.shards": 2}))
    b.start()
    topic = load.create_topic(b, "t")
    alter(b, {"user": None}, **{PRODUCER: 10_000})
    with wire.Conn(b, timeout=60) as conn:
        produce(conn, topic, 90_000)
        throttle = produce(conn, topic, 20_000)
        assert throttle > 0
    told = [line for line in metrics.text(b).splitlines() if line.startswith("corelane_quota_throttle")]
    labels = 'quota="producer_byte_rate",entity="user=<default>"'
    assert any(line.startswith(f"corelane_quota_throttles_total{{{labels}}}") and line.endswith(" 1") for line in told), told
    assert f"corelane_quota_throttle_seconds_total{{{labels}}} {throttle / 1000:g}" in told, told


@pytest.mark.skipif(target() != "corelane", reason="what shards share")
def test_shards_share_what_a_client_has_used(make_broker):
    b = make_broker({"corelane.shards": 2})
    b.start()
    topic = load.create_topic(b, "t", 2)
    alter(b, {"client_id": "raw"}, **{PRODUCER: 100_000})
    taken = 0
    for _ in range(40):
        with wire.Conn(b, timeout=60) as conn:
            if produce(conn, topic, 100_000):
                break
        taken += 1
    assert 9 <= taken <= 11, taken


@pytest.mark.skipif(target() != "corelane", reason="starts Corelane's brokers")
def test_all_brokers_of_a_cluster(make_cluster):
    c = make_cluster()
    c.create("t", 3)
    every = {
        (("client-id", "slow"),): {PRODUCER: 10_000.0},
        (("client-id", None), ("user", "ü/ser")): {REQUESTS: 7.5},
        (("user", "plain"),): {MUTATIONS: 5.0},
    }
    assert altered(c[1], *[entry(dict(e), **q) for e, q in every.items()]) == dict.fromkeys(every, (0, None))
    assert told(c[1]) == every, "in force where they were set"
    c.wait(lambda: all(told(b) == every for b in c.brokers.values()), 30, "every broker shows them")
    # They hold at each broker, for what it leads, and replicas are not held back.
    for partition in range(3):
        leader = c.leading("t", partition)
        with wire.Conn(leader, timeout=60, client_id="slow") as conn:
            body = wire.produce_body({"t": {partition: wire.batch([b"x" * 90_000])}}, 7)
            throttles = []
            for _ in range(2):
                r = conn.call(wire.PRODUCE, 7, body)
                r.at = len(r.data) - 4
                throttles.append(r.i32())
            assert throttles[-1] > 0, (partition, throttles)
    # As Kafka 3.9 keeps them.
    assert '"producer_byte_rate":"10000"' in c.zookeeper.shell("get /config/clients/slow")
    assert '"request_percentage":"7.5"' in c.zookeeper.shell("get /config/users/%C3%BC%2Fser/clients/<default>")
    c[2].kill()
    c[2].start()
    c.wait(lambda: told(c[2]) == every, 30, "also after a start")
    altered(c[3], entry({"client_id": "slow"}, **{PRODUCER: None}))
    c.wait(lambda: all(len(told(b)) == 2 for b in c.brokers.values()), 30, "what is taken away goes everywhere")
