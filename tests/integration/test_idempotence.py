"""The five-batch window of idempotent producers, through clean and unclean restarts."""

import pytest

from support import load, wire
from support.wire import ERR


@pytest.mark.parametrize("how", ["stop", "kill"])
@pytest.mark.parametrize("batches", [1, 5, 12])
def test_window_survives_a_restart(make_broker, how, batches):
    b = make_broker({"log.segment.bytes": 1 << 20})
    b.start()
    load.create_topic(b, "idem", 2)
    with wire.Conn(b) as conn:
        pid, epoch = wire.init_producer_id(conn)
        made = [wire.batch([b"%d" % n, b"x" * 200_000], pid, epoch, 2 * n) for n in range(batches)]
        for n, data in enumerate(made):
            assert wire.produce(conn, "idem", 0, data) == (0, 2 * n)
        other, other_epoch = wire.init_producer_id(conn)
        assert other != pid
    getattr(b, how)()
    b.start(topics=["idem"])
    with wire.Conn(b) as conn:
        # Kafka's snapshots hold the last batch of a producer only; Corelane restores all five.
        window = 5 if b.kind == "corelane" else 1
        for n in range(max(0, batches - window), batches):
            assert wire.produce(conn, "idem", 0, made[n]) == (0, 2 * n), f"the duplicate of batch {n}"
        assert wire.offset(conn, "idem", 0, -1) == 2 * batches, "a duplicate was stored"
        late = wire.batch([b"gap"], pid, epoch, 2 * batches + 7)
        assert wire.produce(conn, "idem", 0, late)[0] == ERR["OUT_OF_ORDER_SEQUENCE_NUMBER"]
        following = wire.batch([b"next"], pid, epoch, 2 * batches)
        assert wire.produce(conn, "idem", 0, following) == (0, 2 * batches)
        assert wire.produce(conn, "idem", 0, following) == (0, 2 * batches)
        assert wire.offset(conn, "idem", 0, -1) == 2 * batches + 1
        fresh = {wire.init_producer_id(conn)[0] for _ in range(100)}
        assert len(fresh) == 100 and not fresh & {pid, other}, "a producer id was given out twice"


def test_ids_are_unique_over_kills(make_broker):
    b = make_broker()
    b.start()
    seen = set()
    for _ in range(3):
        with wire.Conn(b) as conn:
            for version in range(6):
                pid, epoch = wire.init_producer_id(conn, version)
                assert pid >= 0 and epoch == 0 and pid not in seen
                seen.add(pid)
        b.kill()
        b.start()


def test_window_of_many_producers(make_broker):
    """The state of 300 producers on one partition is restored, each with its own sequence."""
    b = make_broker()
    b.start()
    load.create_topic(b, "many", 1)
    with wire.Conn(b) as conn:
        ids = [wire.init_producer_id(conn) for _ in range(300)]
        for n, (pid, epoch) in enumerate(ids):
            assert wire.produce(conn, "many", 0, wire.batch([b"1"] * (n % 3 + 1), pid, epoch, 0))[0] == 0
        end = wire.offset(conn, "many", 0, -1)
    b.kill()
    b.start(topics=["many"])
    with wire.Conn(b) as conn:
        for n, (pid, epoch) in enumerate(ids):
            again = wire.batch([b"1"] * (n % 3 + 1), pid, epoch, 0)
            assert wire.produce(conn, "many", 0, again)[0] in (0, ERR["DUPLICATE_SEQUENCE_NUMBER"])
        assert wire.offset(conn, "many", 0, -1) == end
        for n, (pid, epoch) in enumerate(ids):
            assert wire.produce(conn, "many", 0, wire.batch([b"2"], pid, epoch, n % 3 + 1)) == (0, end + n)
