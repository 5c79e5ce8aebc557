"""MirrorMaker 2 from one broker to another: topics with their configuration, records, offsets of groups."""

import signal
import subprocess
import time

import confluent_kafka as ck
import pytest
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions

from support import broker as brokers
from support import clock, groups, java, load

TOPIC, MIRROR = "mirrored", "source.mirrored"
START = (int(time.time()) - 600) * 1000
"""Of the first record: retention takes none of them."""
OPTIONS = ("-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.showDateTime=true")


def properties(source, target):
    return {
        "clusters": "source, target",
        "source.bootstrap.servers": source.bootstrap,
        "target.bootstrap.servers": target.bootstrap,
        "source->target.enabled": "true",
        "target->source.enabled": "false",
        "topics": TOPIC,
        "groups": "reader.*",
        "exactly.once.source.support": "disabled",
        "replication.factor": 1,
        "checkpoints.topic.replication.factor": 1,
        "heartbeats.topic.replication.factor": 1,
        "offset-syncs.topic.replication.factor": 1,
        "config.storage.replication.factor": 1,
        "offset.storage.replication.factor": 1,
        "status.storage.replication.factor": 1,
        "refresh.topics.interval.seconds": 1,
        "refresh.groups.interval.seconds": 1,
        "sync.topic.configs.interval.seconds": 1,
        "sync.group.offsets.enabled": "true",
        "sync.group.offsets.interval.seconds": 1,
        "emit.checkpoints.interval.seconds": 1,
        "offset.lag.max": 0,
        "tasks.max": 2,
        # Options of its workers, by cluster. Pairs of offsets wait for a flush (60 s by default), and the
        # default discovery reads every class of every jar.
        "target.offset.flush.interval.ms": 1000,
        "source.plugin.discovery": "service_load",
        "target.plugin.discovery": "service_load",
        # Of its own topics, for which the default is made for clusters.
        "offset.storage.partitions": 5,
        "status.storage.partitions": 2,
    }


class MirrorMaker:
    def __init__(self, folder, source, target):
        self.config, self.log = folder / "mirror.properties", folder / "mirror.log"
        folder.mkdir()
        self.config.write_text("".join(f"{k}={v}\n" for k, v in properties(source, target).items()))
        self.popen = None

    def __enter__(self):
        command = java.command("org.apache.kafka.connect.mirror.MirrorMaker", self.config, "--clusters", "target", heap="384m", options=OPTIONS)
        with open(self.log, "ab") as log:
            self.popen = subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], stdout=log, stderr=log, cwd=self.log.parent)
        return self

    def __exit__(self, *failure):
        """In good order, so that it has stored its offsets."""
        try:
            self.popen.send_signal(signal.SIGTERM)
            self.popen.wait(60)
        finally:
            self.popen.kill()
            self.popen.wait()

    def until(self, there, what, timeout=240):
        end = clock.running() + timeout
        while True:
            found = there()
            if found:
                return found
            log = self.log.read_text(errors="replace")
            bad = [s for s in log.splitlines() if " ERROR " in s or "Exception" in s]
            assert self.popen.poll() is None, f"MirrorMaker ended:\n{log[-4000:]}"
            assert clock.running() < end, f"not within {timeout} s: {what}\n" + "\n".join(bad[:30]) + f"\n...\n{log[-3000:]}"
            time.sleep(0.2)


def write(broker, first, count, partitions):
    p = load.producer(broker, compression_type="lz4")
    for i in range(first, first + count):
        headers = [("number", b"%d" % i)]
        p.produce(TOPIC, load.line(i), b"key-%d" % i, i % partitions, headers=headers, timestamp=START + i)
    assert p.flush(60) == 0


def read(broker, topic):
    """Everything, by partition: (offset, time, key, value, headers)."""
    c = load.consumer(broker)
    partitions = c.list_topics(topic, timeout=30).topics[topic].partitions
    c.assign([ck.TopicPartition(topic, p, 0) for p in partitions])
    came, ended = {p: [] for p in partitions}, set()
    while len(ended) < len(partitions):
        m = c.poll(30)
        assert m is not None, f"{topic}: {[len(r) for r in came.values()]} records and no end"
        if not m.error():
            came[m.partition()].append((m.offset(), m.timestamp()[1], m.key(), m.value(), m.headers()))
        elif m.error().code() == ck.KafkaError._PARTITION_EOF:
            ended.add(m.partition())
        else:
            raise ck.KafkaException(m.error())
    c.close()
    return came


def ends(broker, topic):
    c = load.consumer(broker)
    found = c.list_topics(topic, timeout=30).topics.get(topic)
    numbers = sorted(found.partitions) if found and not found.error else []
    try:
        return [c.get_watermark_offsets(ck.TopicPartition(topic, p), timeout=30)[1] for p in numbers]
    except ck.KafkaException:
        return []
    finally:
        c.close()


def commit(broker, group, offsets):
    c = load.consumer(broker, group_id=group)
    c.commit(offsets=[ck.TopicPartition(TOPIC, p, o) for p, o in enumerate(offsets)], asynchronous=False)
    c.close()


def committed(broker, group, partitions):
    c = load.consumer(broker, group_id=group)
    found = [tp.offset for tp in c.committed([ck.TopicPartition(MIRROR, p) for p in range(partitions)], timeout=30)]
    c.close()
    return found


def retention(broker, topic):
    admin, resource = AdminClient({"bootstrap.servers": broker.bootstrap}), ConfigResource("topic", topic)
    return admin.describe_configs([resource])[resource].result(30)["retention.ms"].value


@pytest.mark.timeout(1200)
def test_topics_records_and_offsets_arrive(make_broker, root, figure):
    source, target = make_broker(brokers.QUICK_GROUPS), make_broker(brokers.QUICK_GROUPS)
    for b in (source, target):
        b.start()
        for group in ("reader-at-the-end", "reader-in-the-middle"):
            groups.wait_ready(b, group)
    load.create_topic(source, TOPIC, 3, retention_ms=7_200_000)
    write(source, 0, 300, 3)
    commit(source, "reader-at-the-end", [100, 100, 100])
    commit(source, "reader-in-the-middle", [40, 50, 60])
    began = time.monotonic()
    with MirrorMaker(source.folder / "mirror", source, target) as mirror:
        mirror.until(lambda: ends(target, MIRROR) == [100] * 3, "300 records")
        figure("MirrorMaker from its start to the last record", f"{time.monotonic() - began:.1f} s")
        assert read(target, MIRROR) == read(source, TOPIC)
        assert retention(target, MIRROR) == "7200000"
        mirror.until(lambda: committed(target, "reader-at-the-end", 3) == [100] * 3, "offsets at the end")
        # MirrorMaker keeps few pairs of offsets, and goes back to the last that it has.
        for translated, at in zip(committed(target, "reader-in-the-middle", 3), [40, 50, 60], strict=True):
            assert translated <= at
        # A partition more, and records in it.
        source_admin = AdminClient({"bootstrap.servers": source.bootstrap})
        source_admin.create_partitions([NewPartitions(TOPIC, 4)])[TOPIC].result(60)
        load.wait_for_leaders(source, TOPIC, 4)
        mirror.until(lambda: len(ends(target, MIRROR)) == 4, "the fourth partition")
        write(source, 300, 100, 4)
        mirror.until(lambda: sum(ends(target, MIRROR)) == 400, "400 records")
        assert read(target, MIRROR) == read(source, TOPIC)
        written, last = 400, 0

        def caught_up():
            """A group's offset waits for a pair of offsets near it, of which MirrorMaker may write the next one with later records only."""
            nonlocal written, last
            if time.monotonic() - last > 20:
                if last:
                    write(source, written, 4, 4)
                    written += 4
                commit(source, "reader-at-the-end", ends(source, TOPIC))
                last = time.monotonic()
            return committed(target, "reader-at-the-end", 4) == ends(source, TOPIC)

        mirror.until(caught_up, "offsets of all four")
    # What comes while it is away; it goes on where it was.
    write(source, written, 100, 4)
    with mirror:
        mirror.until(lambda: sum(ends(target, MIRROR)) >= written + 100, "what came while it was away")
        assert read(target, MIRROR) == read(source, TOPIC)
