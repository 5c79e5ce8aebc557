"""The program of `members.PythonHost`: members of consumer groups, each a thread of this process.

Started as `group_member.py confluent` or `group_member.py kafka-python`; `members.py` tells what goes in and out. A line is one
write, so that what was told before a kill -9 is whole; a batch is told before it is committed.
"""

import json
import logging
import os
import sys
import threading
import time
import traceback


def tell(member, event, **more):
    line = json.dumps({"t": time.monotonic_ns(), "m": member, "e": event, **more}) + "\n"
    os.write(1, line.encode())


class Member(threading.Thread):
    """One consumer. A subclass knows the client."""

    def __init__(self, name, topics, commit, every_ms, config):
        super().__init__(name=name)
        self.topics, self.commit_mode, self.every, self.config = topics, commit, int(every_ms) / 1000, config
        self.ranges, self.uncommitted, self.own = [], {}, set()
        self.lock = threading.RLock()  # kafka-python calls back in another thread
        self.stopped = False

    def run(self):
        try:
            self.open()
            tell(self.name, "joining")
            self.subscribe()
            last = time.monotonic()
            while not self.stopped:
                self.poll()
                if time.monotonic() - last >= self.every:
                    last = time.monotonic()
                    self.commit()
            self.commit()
            self.close()
            tell(self.name, "closed")
        except Exception as e:  # noqa: BLE001 - handed to the test
            tell(self.name, "error", error=f"{type(e).__name__}: {e}, cause {e.__cause__!r}")
            traceback.print_exc()
            try:
                self.close()
            except Exception:  # noqa: BLE001, S110 - the first one counts
                pass

    def took(self, topic, partition, first, last):
        with self.lock:
            self._took(topic, partition, first, last)

    def _took(self, topic, partition, first, last):
        self.uncommitted[topic, partition] = last + 1
        end = self.ranges[-1] if self.ranges else None
        if end and end[:2] == [topic, partition] and end[3] + 1 == first:
            end[3] = last
        else:
            self.ranges.append([topic, partition, first, last])

    def report(self):
        with self.lock:
            if self.ranges:
                tell(self.name, "batch", r=self.ranges)
                self.ranges = []

    def commit(self, which=None):
        """Tells what came, and commits it; of `which` only, where given."""
        with self.lock:
            self.report()
            offsets = {tp: at for tp, at in self.uncommitted.items() if tp in self.own and (which is None or tp in which)}
            for tp in offsets:
                del self.uncommitted[tp]
        if not offsets or self.commit_mode in ("auto", "none"):
            return
        self.commit_offsets(offsets, wait=self.commit_mode == "sync" or which is not None or self.stopped)

    def committed(self, offsets):
        tell(self.name, "committed", o=[[t, p, at] for (t, p), at in offsets.items()])

    def failed(self, offsets, error):
        """To be committed the next time, unless the partition is another's by now."""
        with self.lock:
            for tp, at in offsets.items():
                if tp in self.own:
                    self.uncommitted.setdefault(tp, at)
        tell(self.name, "commit_failed", error=str(error))

    def assigned(self, partitions):
        self.report()
        self.own |= {tuple(tp) for tp in partitions}
        tell(self.name, "assigned", p=partitions)

    def revoked(self, partitions):
        self.commit({tuple(tp) for tp in partitions})
        self.forget(partitions)
        tell(self.name, "revoked", p=partitions)

    def lost(self, partitions):
        self.forget(partitions)
        tell(self.name, "lost", p=partitions)

    def forget(self, partitions):
        with self.lock:
            self.report()
            for tp in map(tuple, partitions):
                self.uncommitted.pop(tp, None)
                self.own.discard(tp)


class Confluent(Member):
    def open(self):
        import confluent_kafka as ck

        self.ck = ck
        config = {"enable.auto.commit": self.commit_mode == "auto", "on_commit": self.on_commit, **self.config}
        self.consumer = ck.Consumer(config)

    def subscribe(self):
        topics = [self.topics.replace("~", "^", 1)] if self.topics[0] in "~^" else self.topics.split(",")
        pairs = lambda parts: [[p.topic, p.partition] for p in parts]  # noqa: E731
        self.consumer.subscribe(
            topics,
            on_assign=lambda _, parts: self.assigned(pairs(parts)),
            on_revoke=lambda _, parts: self.revoked(pairs(parts)),
            on_lost=lambda _, parts: self.lost(pairs(parts)),
        )

    def poll(self):
        m = self.consumer.poll(0.05)
        if m is None:
            return
        if m.error():
            if m.error().fatal() or m.error().code() in FATAL:
                raise self.ck.KafkaException(m.error())
            tell(self.name, "warning", error=str(m.error()))
        else:
            self.took(m.topic(), m.partition(), m.offset(), m.offset())

    def commit_offsets(self, offsets, wait):
        parts = [self.ck.TopicPartition(t, p, at) for (t, p), at in offsets.items()]
        try:
            done = self.consumer.commit(offsets=parts, asynchronous=not wait)
        except self.ck.KafkaException as e:
            if e.args[0].fatal():
                raise
            self.failed(offsets, e)
            return
        if wait:
            self.on_commit(None, done)

    def on_commit(self, error, parts):
        good = {(p.topic, p.partition): p.offset for p in parts if p.offset >= 0 and p.error is None and error is None}
        if good:
            self.committed(good)
        bad = {(p.topic, p.partition): p.offset for p in parts if p.offset >= 0 and (p.error or error)}
        if bad:
            self.failed(bad, error or next(p.error for p in parts if p.error))

    def close(self):
        self.consumer.close()


# GROUP_MAX_SIZE_REACHED, FENCED_INSTANCE_ID, GROUP_AUTHORIZATION_FAILED, UNRELEASED_INSTANCE_ID, INVALID_REGULAR_EXPRESSION, _AUTO_OFFSET_RESET, _FATAL
FATAL = {81, 82, 30, 111, 128, -140, -150}


class KafkaPython(Member):
    def open(self):
        import kafka
        from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
        from kafka.coordinator.assignors.range import RangePartitionAssignor
        from kafka.coordinator.assignors.roundrobin import RoundRobinPartitionAssignor

        assignors = {
            "range": RangePartitionAssignor, "roundrobin": RoundRobinPartitionAssignor,
            "cooperative-sticky": CooperativeStickyAssignor,
        }  # fmt: skip
        config = {k.replace(".", "_"): int(v) if v.isdigit() else v for k, v in self.config.items()}
        if "partition_assignment_strategy" in config:
            config["partition_assignment_strategy"] = [assignors[config["partition_assignment_strategy"]]]
        self.kafka, self.eager = kafka, self.config.get("partition.assignment.strategy") != "cooperative-sticky"
        self.consumer = kafka.KafkaConsumer(enable_auto_commit=self.commit_mode == "auto", allow_auto_create_topics=False, **config)

    def subscribe(self):
        member, pairs = self, lambda parts: [[p.topic, p.partition] for p in parts]

        class Listener(self.kafka.ConsumerRebalanceListener):
            def on_partitions_assigned(self, parts):
                member.assigned(pairs(parts))

            def on_partitions_revoked(self, parts):
                member.revoked(pairs(parts))

            def on_partitions_lost(self, parts):
                member.lost(pairs(parts))

        if self.topics[0] == "^":
            self.consumer.subscribe(pattern=self.topics, listener=Listener())
        else:
            self.consumer.subscribe(self.topics.split(","), listener=Listener())

    def poll(self):
        for tp, records in self.consumer.poll(timeout_ms=50).items():
            for r in records:
                self.took(tp.topic, tp.partition, r.offset, r.offset)
        self.report()

    def commit_offsets(self, offsets, wait):
        TopicPartition, At = self.kafka.TopicPartition, self.kafka.OffsetAndMetadata
        what = {TopicPartition(t, p): At(at, "", -1) for (t, p), at in offsets.items()}
        try:
            if wait:
                self.consumer.commit(what)
                self.committed(offsets)
            else:
                self.consumer.commit_async(what, callback=lambda _, got: self.on_async(offsets, got))
        except self.kafka.errors.FencedInstanceIdError:
            raise
        except self.kafka.errors.KafkaError as e:
            self.failed(offsets, repr(e))

    def revoked(self, partitions):
        """It calls back in the thread of its I/O, where nothing may be waited for: another owner is given again what is not
        committed. In an eager rebalance a partition that stays goes on at its position, and is to be committed afterwards."""
        with self.lock:
            left = dict(self.uncommitted) if self.eager else {}
            self.forget(partitions)
            self.uncommitted |= left
        tell(self.name, "revoked", p=partitions)

    def assigned(self, partitions):
        super().assigned(partitions)
        with self.lock:
            self.uncommitted = {tp: at for tp, at in self.uncommitted.items() if tp in self.own}

    def on_async(self, offsets, got):
        if isinstance(got, Exception):
            self.failed(offsets, repr(got))
        else:
            self.committed(offsets)

    def close(self):
        self.consumer.close()


def main():
    if "MEMBER_LOG" in os.environ:
        logging.basicConfig(level=os.environ["MEMBER_LOG"], format="%(relativeCreated)d %(threadName)s %(name)s %(message)s")
    kind, members = {"confluent": Confluent, "kafka-python": KafkaPython}[sys.argv[1]], {}
    for line in sys.stdin:
        command, name, *rest = line.rstrip("\n").split("\t")
        if command == "start":
            topics, commit, every, *pairs = rest
            members[name] = kind(name, topics, commit, every, dict(p.split("=", 1) for p in pairs))
            members[name].start()
        else:
            members[name].stopped = True
    for m in members.values():
        m.stopped = True
    for m in members.values():
        m.join()


if __name__ == "__main__":
    main()
