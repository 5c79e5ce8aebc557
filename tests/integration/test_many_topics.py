"""Requests for many topics at once: how long they take, and kill -9 in the middle of them."""

import random
import threading
import time

import confluent_kafka as ck
import confluent_kafka.admin
import pytest

from support import load, wire

MANY = 1500


def timed(call):
    began = time.monotonic()
    result = call()
    return time.monotonic() - began, result


def names_on(broker):
    with wire.Conn(broker, timeout=120) as conn:
        return {name for name in wire.metadata(conn)["topics"] if not name.startswith("__")}


def all_done(futures):
    for future in futures.values():
        future.result(120)


def test_many_topics_in_one_request(make_broker, figure):
    """The figures are printed: what they ought to be depends on the disk (Kafka 4.3: 0.7 s for 1,500 topics on a quiet one)."""
    b = make_broker()
    b.start()
    names = [f"many-{n}" for n in range(MANY)]
    with wire.Conn(b, timeout=300) as conn:
        created, errors = timed(lambda: wire.create_topics(conn, dict.fromkeys(names, (1, {}))))
    assert errors == dict.fromkeys(names, 0)
    assert names_on(b) >= set(names)
    for name in random.sample(names, 3):
        load.produce_lines(b, name, 20, 1)
        load.check_lines(b, name, 20, 1)

    admin = ck.admin.AdminClient({"bootstrap.servers": b.bootstrap})
    grow = [ck.admin.NewPartitions(name, 2) for name in names]
    grown, _ = timed(lambda: all_done(admin.create_partitions(grow, request_timeout=120)))
    with wire.Conn(b, timeout=120) as conn:
        there = wire.metadata(conn, names)["topics"]
    assert {len(there[name]["partitions"]) for name in names} == {2}

    stopped, _ = timed(b.stop)
    started, _ = timed(b.start)
    assert names_on(b) >= set(names)
    deleted, _ = timed(lambda: all_done(admin.delete_topics(names, request_timeout=120)))
    assert not names_on(b) & set(names)
    figure(
        f"{MANY} topics in one request",
        f"created in {created:.2f} s, each given a second partition in {grown:.2f} s, deleted in {deleted:.2f} s; "
        f"a clean stop with them {stopped:.2f} s, the start after it {started:.2f} s",
    )


def of_topic(broker, name):
    return sorted(d.name for d in broker.data_dir.glob(f"{name}-[0-9]*") if not d.name.endswith("-delete"))


@pytest.mark.usefixtures("corelane_only")
def test_kill_amid_a_request_for_many_topics(make_broker):
    """Each topic is there whole or not at all, and those that were answered are there, or gone."""
    b = make_broker()
    b.start()
    there, doomed, written = set(), set(), set()
    for cycle in range(6):
        names = [f"cycle-{cycle}-{n}" for n in range(400)]
        answered = {}

        def create(names=names, answered=answered):
            try:
                with wire.Conn(b, timeout=60) as conn:
                    answered.update(wire.create_topics(conn, dict.fromkeys(names, (2, {}))))
            except (OSError, wire.Closed):
                pass  # the broker is killed

        def delete(names=tuple(there)):
            for future in admin.delete_topics(list(names), request_timeout=5).values():
                try:
                    future.result(30)
                except ck.KafkaException:
                    pass

        admin = ck.admin.AdminClient({"bootstrap.servers": b.bootstrap, "log_level": 0})
        work = [threading.Thread(target=create, daemon=True)]
        if cycle % 2 and there:
            work.append(threading.Thread(target=delete, daemon=True))
            doomed |= there
        for thread in work:
            thread.start()
        time.sleep(random.uniform(0, 0.5))
        b.kill()
        for thread in work:
            thread.join(90)
        b.start()
        seen = names_on(b)
        assert seen <= there | set(names), seen - there - set(names)
        assert {name for name, error in answered.items() if error == 0} <= seen
        if len(work) == 1:
            assert there <= seen, there - seen
        with wire.Conn(b, timeout=60) as conn:
            topics = wire.metadata(conn, sorted(seen))["topics"]
        assert all(len(topic["partitions"]) == 2 for topic in topics.values())
        for name in seen:
            assert of_topic(b, name) == [f"{name}-0", f"{name}-1"], name
        left = {d.name.rsplit("-", 1)[0] for d in b.data_dir.glob("cycle-*-[01]")} - seen
        assert not left, left
        # Only of topics that were deleted when the broker was killed.
        strays = {d.name.split(".")[0].rsplit("-", 1)[0] for d in b.data_dir.glob("*-stray")}
        assert strays <= doomed - seen, strays
        for name in random.sample(sorted(seen - written), min(2, len(seen - written))):
            written.add(name)
            load.produce_lines(b, name, 20, 2)
            load.check_lines(b, name, 20, 2)
        there = seen
