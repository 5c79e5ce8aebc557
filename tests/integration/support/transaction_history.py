"""What transactional producers did and were told, what consumers saw, and the checks of jepsen.tests.kafka on it.

A transaction has a transactional id, an instance of its producer and a number that rises over all instances of the id. A record's
value names its transaction and its place in it, so it is unique. Times are of the machine's one monotonic clock. A transaction is

- committed, if its producer was told so;
- aborted, if its producer was told so or never asked for a commit, or asked only after a later instance of it was there (a zombie)
  or after its coordinator had aborted it, as it took too long;
- else of unknown outcome: it may be either, but whole.

The anomalies, by Jepsen's names where it has them; "read" is what a consumer of committed records polls at any time:

- lost-write: a committed value is not in the log
- aborted-read: a value of an aborted transaction was read
- dirty-read: a value was read before its producer asked for the commit
- torn: some values of a transaction are in the log at the end, and some are not
- torn-offset: the offset that a group is left with is not that of the last visible transaction that committed one
- zombie-commit: a producer was told that a transaction was committed that is aborted by what is above
- zombie-write: a record is in the log of a transaction that began only after a later instance of its producer was there
- stuck: the last stable offset is not the high watermark at the end
- unknown-value: a value that nobody sent, or not there
- inconsistent-offset, duplicate, nonmonotonic-poll, skipped-poll, vanished: as in `history`
- nonmonotonic-send: records of a transactional id stand in another order than they were sent in
"""

import collections
import threading
from dataclasses import dataclass, field

COMMITTED, ABORTED, UNKNOWN = "committed", "aborted", "unknown"
READ_COMMITTED, READ_UNCOMMITTED = "read_committed", "read_uncommitted"


@dataclass
class Transaction:
    producer: str
    instance: int
    number: int
    begun: int
    # The partition of each record, in the order of sending.
    writes: list
    # Whether it commits its number as a group's offset.
    offset: bool = False
    asked: int | None = None
    """When a commit was asked for."""
    told: str | None = None
    acked: dict = field(default_factory=dict)

    def value(self, place):
        return f"{self.producer}/{self.number}/{place}"


class TransactionHistory:
    """Collects from several threads; partitions are (topic, index)."""

    def __init__(self):
        self.lock = threading.Lock()
        self.transactions = {}
        # (transactional id, number) of those that took too long.
        self.doomed = set()
        # Transactional id -> [(when it was ready, instance)].
        self.ready = collections.defaultdict(list)
        # (session of a consumer, isolation, partition) -> [(time, offset, value)]
        self.polled = collections.defaultdict(list)
        # Isolation -> partition -> offset -> value, read whole at the end.
        self.final = {READ_COMMITTED: {}, READ_UNCOMMITTED: {}}
        # Partition -> (high watermark, last stable offset) at the end.
        self.ends = {}
        # Transactional id -> offset that its group has at the end, or None.
        self.offsets = {}

    def told(self, producer, instance, event):
        """An event as a writer tells it."""
        kind, at = event["e"], event["t"]
        with self.lock:
            if kind == "ready":
                self.ready[producer].append((at, instance))
            elif kind == "begin":
                writes = [tuple(partition) for partition in event["w"]]
                one = Transaction(producer, instance, event["n"], at, writes, event["o"])
                self.transactions[producer, event["n"]] = one
            elif kind == "acked":
                self.transactions[producer, event["n"]].acked = {int(place): offset for place, offset in event["a"].items()}
            elif kind == "commit":
                self.transactions[producer, event["n"]].asked = at
            elif kind in (COMMITTED, ABORTED):
                self.transactions[producer, event["n"]].told = kind

    def poll(self, session, isolation, partition, at, offset, value):
        with self.lock:
            self.polled[session, isolation, partition].append((at, offset, value))

    def outcome(self, one):
        if one.asked is None or (one.producer, one.number) in self.doomed or self._is_zombie(one, one.asked):
            return ABORTED
        return one.told or UNKNOWN

    def outcomes(self):
        return collections.Counter(self.outcome(one) for one in self.transactions.values())

    def _is_zombie(self, one, at):
        return any(instance > one.instance and ready < at for ready, instance in self.ready[one.producer])

    def anomalies(self):
        """Kind -> list of what was found; empty: none."""
        found = collections.defaultdict(list)
        sent = {one.value(k): (one, k) for one in self.transactions.values() for k in range(len(one.writes))}
        self._places(sent, found)
        self._reads(sent, found)
        self._transactions(found)
        self._order(sent, found)
        self._polls(found)
        for partition, (high_watermark, stable) in self.ends.items():
            if stable != high_watermark:
                found["stuck"].append((partition, high_watermark, stable))
        return {kind: list_ for kind, list_ in found.items() if list_}

    def _places(self, sent, found):
        """One value at an offset, one offset of a value, and of values that were sent there."""
        at = collections.defaultdict(set)
        for (_, _, partition), polls in self.polled.items():
            for _, offset, value in polls:
                at[partition, offset].add(value)
        for log in self.final.values():
            for partition, values in log.items():
                for offset, value in values.items():
                    at[partition, offset].add(value)
        for one in self.transactions.values():
            for k, offset in one.acked.items():
                at[one.writes[k], offset].add(one.value(k))
        places = collections.defaultdict(set)
        for (partition, offset), values in at.items():
            if len(values) > 1:
                found["inconsistent-offset"].append((partition, offset, sorted(values)))
            for value in values:
                places[value].add((partition, offset))
                if value not in sent or sent[value][0].writes[sent[value][1]] != partition:
                    found["unknown-value"].append((partition, offset, value))
        found["duplicate"] += [(value, sorted(p)) for value, p in places.items() if len(p) > 1]

    def _reads(self, sent, found):
        reads = [polls for (_, isolation, _), polls in self.polled.items() if isolation == READ_COMMITTED]
        last = [(None, offset, value) for log in self.final[READ_COMMITTED].values() for offset, value in log.items()]
        for at, offset, value in (read for polls in [*reads, last] for read in polls):
            if value not in sent:
                continue
            one, k = sent[value]
            if self.outcome(one) == ABORTED:
                found["aborted-read"].append((one.writes[k], offset, value))
            elif at is not None and at < one.asked:
                found["dirty-read"].append((one.writes[k], offset, value))

    def _transactions(self, found):
        there = {partition: set(log.values()) for partition, log in self.final[READ_COMMITTED].items()}
        stored = {partition: set(log.values()) for partition, log in self.final[READ_UNCOMMITTED].items()}
        last = collections.defaultdict(int)
        for one in self.transactions.values():
            outcome = self.outcome(one)
            if one.told == COMMITTED and outcome != COMMITTED:
                found["zombie-commit"].append(one.value(0))
            if self._is_zombie(one, one.begun):
                late = [one.value(k) for k, p in enumerate(one.writes) if k in one.acked or one.value(k) in stored.get(p, ())]
                found["zombie-write"] += late
            missing = [k for k, partition in enumerate(one.writes) if one.value(k) not in there.get(partition, ())]
            if outcome == COMMITTED:
                found["lost-write"] += [(one.writes[k], one.value(k), one.acked.get(k)) for k in missing]
            if 0 < len(missing) < len(one.writes):
                found["torn"].append((outcome, [(one.writes[k], one.value(k)) for k in missing], f"of {len(one.writes)}"))
            if one.offset and not missing:
                last[one.producer] = max(last[one.producer], one.number)
        for producer, offset in self.offsets.items():
            if (offset or 0) != last[producer]:
                found["torn-offset"].append((producer, offset, last[producer]))

    def _order(self, sent, found):
        for log in self.final.values():
            for partition, values in log.items():
                before = {}
                for offset in sorted(values):
                    if values[offset] not in sent:
                        continue
                    one, k = sent[values[offset]]
                    if (one.number, k) < before.get(one.producer, (0, 0)):
                        found["nonmonotonic-send"].append((partition, offset, values[offset], before[one.producer]))
                    before[one.producer] = (one.number, k)

    def _polls(self, found):
        for (session, isolation, partition), polls in self.polled.items():
            log = self.final[isolation].get(partition, {})
            for (_, a, _), (_, b, _) in zip(polls, polls[1:]):
                if b <= a:
                    found["nonmonotonic-poll"].append((session, partition, (a, b)))
                skipped = [offset for offset in range(a + 1, b) if offset in log]
                if skipped:
                    found["skipped-poll"].append((session, isolation, partition, (a, b), skipped[:5]))
            gone = [(session, isolation, partition, offset, value) for _, offset, value in polls if log.get(offset) != value]
            found["vanished"] += gone

    def check(self):
        found = self.anomalies()
        assert not found, {kind: (len(list_), list_[:5]) for kind, list_ in found.items()}
