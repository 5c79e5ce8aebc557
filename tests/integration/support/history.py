"""What producers were told and consumers saw, and the checks of jepsen.tests.kafka on it.

A record's value is unique in its partition. The anomalies, by Jepsen's names:

- inconsistent-offset: two values at one offset
- duplicate: one value at two offsets
- lost-write: an acknowledged value is missing although a later offset was read
- unseen: an acknowledged value is missing, and nothing later was read
- nonmonotonic-poll: a consumer's offsets go back while it keeps its assignment
- skipped-poll: they go forward over a value that is there
- nonmonotonic-send: a producer's records stand in another order than it sent them
- vanished: a value that a consumer saw is not in the log at the end
"""

import collections
import threading


class History:
    """Collects from several threads; partitions are (topic, index)."""

    def __init__(self):
        self.lock = threading.Lock()
        # Per producer and partition, in the order of sending: [value, offset or None].
        self.sent = collections.defaultdict(list)
        # Per session of a consumer (it begins with each assignment) and partition: (offset, value) as polled.
        self.polled = collections.defaultdict(list)
        # Partition -> offset -> value, read whole at the end.
        self.final = {}
        self._acked = 0

    def send(self, producer, partition, value):
        """Returns what `ack` takes."""
        entry = [value, None]
        with self.lock:
            self.sent[producer, partition].append(entry)
        return entry

    def ack(self, entry, offset):
        with self.lock:
            entry[1] = offset
            self._acked += 1

    def poll(self, session, partition, offset, value):
        with self.lock:
            self.polled[session, partition].append((offset, value))

    def acked(self):
        return self._acked

    def anomalies(self):
        """Kind -> list of what was found; empty: none."""
        found = collections.defaultdict(list)
        values = collections.defaultdict(lambda: collections.defaultdict(set))  # partition -> offset -> values
        for (_, partition), polls in self.polled.items():
            for offset, value in polls:
                values[partition][offset].add(value)
        for (_, partition), entries in self.sent.items():
            for value, offset in entries:
                if offset is not None:
                    values[partition][offset].add(value)
        for partition, log in self.final.items():
            for offset, value in log.items():
                values[partition][offset].add(value)
        for partition, at in values.items():
            places = collections.defaultdict(set)
            for offset, seen in at.items():
                if len(seen) > 1:
                    found["inconsistent-offset"].append((partition, offset, sorted(seen)))
                for value in seen:
                    places[value].add(offset)
            found["duplicate"] += [(partition, value, sorted(o)) for value, o in places.items() if len(o) > 1]
        for (producer, partition), entries in self.sent.items():
            log = self.final.get(partition, {})
            there, end = set(log.values()), max(log, default=-1)
            for value, offset in entries:
                if offset is not None and value not in there:
                    found["lost-write" if offset < end else "unseen"].append((partition, value, offset))
            offsets = [offset for _, offset in entries if offset is not None]
            back = [(a, b) for a, b in zip(offsets, offsets[1:]) if b <= a]
            found["nonmonotonic-send"] += [(producer, partition, pair) for pair in back]
        for (session, partition), polls in self.polled.items():
            log = self.final.get(partition, {})
            for (a, _), (b, _) in zip(polls, polls[1:]):
                if b <= a:
                    found["nonmonotonic-poll"].append((session, partition, (a, b)))
                skipped = [offset for offset in range(a + 1, b) if offset in log]
                if skipped:
                    found["skipped-poll"].append((session, partition, (a, b), skipped[:5]))
            found["vanished"] += [(partition, offset, value) for offset, value in polls if log.get(offset) != value]
        return {kind: list_ for kind, list_ in found.items() if list_}

    def check(self):
        found = self.anomalies()
        assert not found, {kind: (len(list_), list_[:5]) for kind, list_ in found.items()}
