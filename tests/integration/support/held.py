"""Records that are acknowledged from the arena and not written behind before a test has killed the broker."""

import confluent_kafka as ck

from . import clock, wire

HELD = {
    "corelane.acknowledge": "held",
    "corelane.write.behind.max.ms": 10_000,
    "corelane.arena.bytes": 8 << 20,
    "corelane.shards": 1,
}
RECORDS = 50


def produce(b, values, topic="t"):
    failed = []
    producer = ck.Producer({"bootstrap.servers": b.bootstrap, "linger.ms": 0, "acks": "all"})
    for value in values:
        producer.produce(topic, value.encode(), on_delivery=lambda error, _: error and failed.append(error))
        producer.poll(0)
    assert producer.flush(60) == 0 and not failed, failed


def consume(b, topic="t"):
    with wire.Conn(b) as conn:
        end = wire.list_offsets(conn, topic, [0], -1)[0][2]
    consumer = ck.Consumer({"bootstrap.servers": b.bootstrap, "group.id": "reader", "enable.auto.commit": False})
    consumer.assign([ck.TopicPartition(topic, 0, 0)])
    values, until = [], clock.running() + 60
    while len(values) < end:
        assert clock.running() < until, f"{len(values)} of {end} records"
        if message := consumer.poll(1):
            assert not message.error(), message.error()
            values.append(message.value().decode())
    consumer.close()
    return values


def values(run):
    return [f"{run}-{n}" for n in range(RECORDS)]
