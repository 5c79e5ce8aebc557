"""Cost of transactions in broker CPU, and of their ends in time. See scripts/measure-transactions."""

import argparse
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTITIONS = 4


def arguments(given):
    parser = argparse.ArgumentParser(prog="scripts/measure-transactions", description=__doc__)
    parser.add_argument("--pairs", type=int, default=3, help="turns of each kind (default 3)")
    parser.add_argument("--seconds", type=float, default=8, help="length of a turn (default 8)")
    parser.add_argument("--rate", type=int, default=20_000, help="records a second (default 20000)")
    parser.add_argument("--records", type=int, default=1_000, help="records in a transaction (default 1000)")
    parser.add_argument("--size", type=int, default=1_000, help="bytes of a record's value (default 1000)")
    parser.add_argument("--kafka", action="store_true", help="Apache Kafka as well")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(given)
    if min(parsed.pairs, parsed.seconds, parsed.rate, parsed.records, parsed.size) <= 0:
        parser.error("pairs, seconds, rate, records and size are above 0")
    return parsed


class Load:
    """A producer of one broker, with transactions or without."""

    def __init__(self, broker, topic, given, transactional):
        import confluent_kafka as ck

        self.broker, self.topic, self.given, self.transactional = broker, topic, given, transactional
        options = {"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "enable.idempotence": True, "queue.buffering.max.messages": 1_000_000, "log_level": 0}
        if transactional:
            options["transactional.id"] = f"measured-{topic}"
        self.producer = ck.Producer(options)
        if transactional:
            self.producer.init_transactions(30)
        self.value = os.urandom(given.size)

    def steady(self, seconds):
        """CPU seconds of the broker a GB, records by the clock whatever they take."""
        before, began, sent = self.broker.cpu(), time.monotonic(), 0
        while time.monotonic() - began < seconds:
            if self.transactional:
                self.producer.begin_transaction()
            for n in range(self.given.records):
                self.producer.produce(self.topic, self.value, partition=n % PARTITIONS)
                self.producer.poll(0)
            sent += self.given.records
            if self.transactional:
                self.producer.commit_transaction(60)
            pause = began + sent / self.given.rate - time.monotonic()
            if pause > 0:
                self.producer.poll(pause)
                time.sleep(max(0, began + sent / self.given.rate - time.monotonic()))
        assert self.producer.flush(60) == 0
        took = time.monotonic() - began
        return (self.broker.cpu() - before) / (sent * self.given.size / 1e9), sent / took

    def ends(self, seconds):
        """Transactions of one record, one after the other: how many a second, and the median and p99 of a commit, ms."""
        began, times = time.monotonic(), []
        while time.monotonic() - began < seconds:
            self.producer.begin_transaction()
            self.producer.produce(self.topic, self.value, partition=0)
            since = time.monotonic()
            self.producer.commit_transaction(60)
            times.append((time.monotonic() - since) * 1000)
        times.sort()
        return len(times) / (time.monotonic() - began), statistics.median(times), times[int(len(times) * 0.99)]


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f}-{max(values):.2f})"


def main():
    given = arguments(sys.argv[1:])
    if given.check_arguments:
        return
    sys.path.insert(0, str(ROOT / "tests/integration"))
    from confluent_kafka.admin import AdminClient, NewTopic
    from support import broker as brokers

    root = Path(tempfile.mkdtemp(prefix="corelane-transactions-"))
    kinds = {"corelane": brokers.Broker} | ({"kafka": brokers.KafkaBroker} if given.kafka else {})
    started, loads, seen = [], {}, {}
    try:
        for name, kind in kinds.items():
            broker = kind(root / name, {"transaction.state.log.replication.factor": 1, "transaction.state.log.min.isr": 1})
            broker.start()
            started.append(broker)
            for transactional in (False, True):
                topic = f"measured-{transactional}".lower()
                admin = AdminClient({"bootstrap.servers": broker.bootstrap})
                admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(60)
                loads[name, transactional] = Load(broker, topic, given, transactional)
        for one in loads.values():
            one.steady(2)
        for _ in range(given.pairs):
            for key, one in loads.items():
                cost, rate = one.steady(given.seconds)
                seen.setdefault(key, []).append(cost)
                print(f"{key[0]}, {'transactions' if key[1] else 'plain'}: {cost:.2f} CPU-s/GB at {rate:,.0f} records/s", flush=True)
        for name in kinds:
            ratios = [with_ / without for with_, without in zip(seen[name, True], seen[name, False])]
            print(f"{name}: transactions of {given.records} records cost {spread(ratios)} of plain", flush=True)
        ends = {}
        for _ in range(given.pairs):
            for name in kinds:
                ends.setdefault(name, []).append(loads[name, True].ends(given.seconds))
        for name, taken in ends.items():
            rates, medians, tails = zip(*taken)
            print(f"{name}: {spread(rates)} transactions of one record a second; commit p50 {spread(medians)} ms, p99 {spread(tails)} ms")
    finally:
        # Producers that live would tell of each broker's end.
        loads.clear()
        for broker in started:
            broker.kill()
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
