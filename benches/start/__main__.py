"""Seconds from exec to the first answered Metadata and Fetch of a broker whose partitions hold records. See scripts/measure-start."""

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path

from . import cluster

ROOT = Path(__file__).resolve().parents[2]
TOPICS = 10
# A batch of 5 KB: what stands behind the first block of a segment is another case than what fits into it.
RECORDS = [bytes([65 + n]) * 1000 for n in range(5)]


def arguments(given):
    parser = argparse.ArgumentParser(prog="scripts/measure-start", description=__doc__)
    parser.add_argument("--partitions", type=int, default=10_000, help=f"over {TOPICS} topics (default 10000)")
    parser.add_argument("--batches", default="0,1,4", help="batches in each partition, with a comma between (default 0,1,4)")
    parser.add_argument("--starts", type=int, default=3, help="starts of each kind (default 3)")
    parser.add_argument("--rest", type=float, default=30, help="seconds without a request before a kill -9 (default 30)")
    parser.add_argument("--brokers", type=int, default=1, help="3: a cluster with ZooKeeper, all brokers at once (default 1)")
    parser.add_argument("--shards", type=int, help="corelane.shards (default: one a core)")
    parser.add_argument("--dir", help="where the data goes (default: a new folder in the system's)")
    parser.add_argument("--check-arguments", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args(given)
    try:
        parsed.batches = [int(number) for number in parsed.batches.split(",")]
    except ValueError:
        parser.error("--batches: numbers with commas between are wanted")
    if min(parsed.partitions // TOPICS, parsed.starts, parsed.brokers, 1 + min(parsed.batches)) < 1:
        parser.error(f"at least {TOPICS} partitions, 0 batches, 1 broker and 1 start")
    return parsed


class Measured:
    """A broker with its topics, and what its starts took."""

    def __init__(self, broker, wire, partitions):
        self.broker, self.wire = broker, wire
        self.names = [f"start-{n}" for n in range(TOPICS)]
        self.each = partitions // TOPICS

    def make(self):
        self.broker.start()
        with self.wire.Conn(self.broker, timeout=300) as conn:
            errors = self.wire.create_topics(conn, dict.fromkeys(self.names, (self.each, {})))
        assert set(errors.values()) == {0}, errors

    def produce(self, batches):
        batch = self.wire.batch(RECORDS)
        with self.wire.Conn(self.broker, timeout=300) as conn:
            for _ in range(batches):
                for name in self.names:
                    body = self.wire.produce_body({name: dict.fromkeys(range(self.each), batch)})
                    answers = self.wire.read_produce(conn.call(self.wire.PRODUCE, 7, body))
                    bad = {error for error, _ in answers.values()} - {0}
                    assert len(answers) == self.each and not bad, bad

    def start(self, records):
        """(seconds, CPU seconds) until the last topic is told of and read."""
        began = time.monotonic()
        self.broker.spawn()
        while True:
            assert self.broker.alive(), self.broker.log_tail()
            try:
                with self.wire.Conn(self.broker, timeout=60) as conn:
                    there = self.wire.metadata(conn, self.names)["topics"]
                    read = self.wire.fetch(conn, self.names[-1], self.each - 1, 0, max_wait=0)
                break
            except (OSError, self.wire.Closed):
                time.sleep(0.005)
        took, cpu = time.monotonic() - began, self.broker.cpu()
        assert all(len(there[name]["partitions"]) == self.each for name in self.names)
        assert (read["error"], read["hw"]) == (0, records), read
        assert sum(batch.n for batch in self.wire.batches(read["data"])) == records
        return took, cpu

    def of_kind(self, records, starts, end):
        """Starts after as many ends of the kind `end`."""
        taken = []
        for _ in range(starts):
            end()
            taken.append(self.start(records))
        return taken


def measure(given, batches, folder):
    from support import broker, wire

    options = {"corelane.max.partitions": given.partitions}
    if given.shards:
        options["corelane.shards"] = given.shards
    measured = Measured(broker.Broker(folder, options), wire, given.partitions)
    records = batches * len(RECORDS)

    def rest_and_kill():
        time.sleep(given.rest)
        measured.broker.kill()

    try:
        measured.make()
        measured.produce(batches)
        clean = measured.of_kind(records, given.starts, lambda: measured.broker.stop(600))
        tell(given.partitions, batches, "a clean stop", clean)
        killed = measured.of_kind(records, given.starts, rest_and_kill)
        tell(given.partitions, batches, f"kill -9 after {given.rest:g} s of rest", killed)
        if batches:
            # A batch that no checkpoint covers yet.
            taken = []
            for _ in range(given.starts):
                measured.produce(1)
                measured.broker.kill()
                records += len(RECORDS)
                taken.append(measured.start(records))
            tell(given.partitions, batches, "a batch more in each, then kill -9", taken)
        measured.broker.stop(600)
    finally:
        measured.broker.kill()


def tell(partitions, batches, end, taken):
    walls, cpus = zip(*taken)
    each = " ".join(f"{wall:.2f}" for wall in walls)
    print(
        f"{partitions} partitions of {batches} batches, {end}: {statistics.median(walls):.2f} s "
        f"({each}), {statistics.median(cpus):.2f} CPU s",
        flush=True,
    )


def main():
    given = arguments(sys.argv[1:])
    if given.check_arguments:
        return
    sys.path.insert(0, str(ROOT / "tests/integration"))
    root = Path(tempfile.mkdtemp(prefix="corelane-start-", dir=given.dir))
    try:
        if given.brokers > 1:
            return cluster.measure(given, root / "cluster")
        for batches in given.batches:
            measure(given, batches, root / f"of-{batches}")
            shutil.rmtree(root / f"of-{batches}", ignore_errors=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
