"""The checker of transactions finds what is planted, and nothing in a sound history."""

import pytest

from support.transaction_history import READ_COMMITTED, READ_UNCOMMITTED, TransactionHistory

A, B = ("t", 0), ("u", 1)
# Outcomes of the transactions 1 to 7 of "w": a plain commit, an abort, one of unknown outcome that is there, one that is not, one that
# a kill left open, a zombie's, and a commit of its successor.
PRESENT = (1, 3, 7)


def sound():
    h = TransactionHistory()
    clock = iter(range(10, 10_000, 10))

    def tell(event, instance=1, **more):
        h.told("w", instance, {"e": event, "t": next(clock), **more})

    def begin(n, instance=1):
        tell("begin", instance, n=n, w=[A, B, A], o=True)

    tell("ready")
    for n, last in ((1, "committed"), (2, "aborted"), (3, None), (4, None), (5, None)):
        begin(n)
        if n not in (2, 5):
            tell("commit", n=n)
        if n == 1:
            tell("acked", n=1, a={"0": 0, "1": 0, "2": 1})
        if last:
            tell(last, n=n)
    begin(6)
    tell("ready", 2)
    tell("commit", n=6)
    begin(7, 2)
    tell("commit", 2, n=7)
    tell("committed", 2, n=7)
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        h.final[isolation] = {A: {}, B: {}}
        for n in PRESENT if isolation == READ_COMMITTED else (1, 2, 3, 5, 6, 7):
            for k, partition in enumerate((A, B, A)):
                # Control records take offsets, too.
                offset = 3 * (n - 1) + k // 2 if partition == A else 2 * (n - 1)
                h.final[isolation][partition][offset] = f"w/{n}/{k}"
        for partition, log in h.final[isolation].items():
            for offset, value in log.items():
                h.poll("c", isolation, partition, 5_000, offset, value)
    h.ends = {A: (21, 21), B: (14, 14)}
    h.offsets = {"w": 7}
    return h


def drop(h, partition, offset):
    """As if it were nowhere."""
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        h.final[isolation][partition].pop(offset, None)
    for (_, _, where), polled in h.polled.items():
        polled[:] = [p for p in polled if (where, p[1]) != (partition, offset)]


def lost(h):
    drop(h, A, 1)


def lost_at_the_end(h):
    drop(h, B, 12)


def torn_of_unknown_outcome(h):
    drop(h, A, 7)


def torn_offset(h):
    h.offsets["w"] = 4


def no_offset(h):
    h.offsets["w"] = None


def aborted_seen(h):
    h.final[READ_COMMITTED][B][2] = "w/2/1"


def aborted_polled(h):
    h.poll("d", READ_COMMITTED, A, 5_000, 3, "w/2/0")


def open_one_polled(h):
    h.poll("d", READ_COMMITTED, A, 5_000, 12, "w/5/0")


def zombie_polled(h):
    h.poll("d", READ_COMMITTED, A, 5_000, 15, "w/6/0")


def zombie_told(h):
    h.told("w", 1, {"e": "committed", "t": 4_000, "n": 6})


def aborted_told(h):
    h.doomed.add(("w", 7))


def zombie_wrote(h):
    h.told("w", 1, {"e": "begin", "t": 4_000, "n": 8, "w": [B], "o": False})
    h.told("w", 1, {"e": "acked", "t": 4_001, "n": 8, "a": {"0": 20}})


def zombie_in_the_log(h):
    h.told("w", 1, {"e": "begin", "t": 4_000, "n": 8, "w": [B], "o": False})
    h.final[READ_UNCOMMITTED][B][20] = "w/8/0"


def too_early(h):
    h.poll("d", READ_COMMITTED, A, 25, 0, "w/1/0")


def stuck(h):
    h.ends[A] = (21, 6)


def invented(h):
    h.final[READ_UNCOMMITTED][A][30] = "w/9/0"


def elsewhere(h):
    h.final[READ_UNCOMMITTED][B][30] = "w/7/0"


def twice(h):
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        h.final[isolation][A][30] = "w/7/2"


def other_value(h):
    h.told("w", 1, {"e": "acked", "t": 4_000, "n": 3, "a": {"0": 7}})


def reordered(h):
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        log = h.final[isolation][A]
        log[18], log[19] = log[19], log[18]


def exchanged(h):
    for isolation in (READ_COMMITTED, READ_UNCOMMITTED):
        log = h.final[isolation][B]
        log[4], log[12] = log[12], log[4]


def went_back(h):
    h.poll("c", READ_COMMITTED, A, 5_000, 0, "w/1/0")


def skipped(h):
    del h.polled["c", READ_COMMITTED, A][2]


def vanished(h):
    del h.final[READ_UNCOMMITTED][A][3]


PLANTED = [
    ("lost-write", lost), ("torn", lost), ("lost-write", lost_at_the_end), ("torn", torn_of_unknown_outcome), ("torn-offset", torn_offset),
    ("torn-offset", no_offset), ("aborted-read", aborted_seen), ("aborted-read", aborted_polled), ("aborted-read", open_one_polled),
    ("aborted-read", zombie_polled), ("zombie-commit", zombie_told), ("zombie-commit", aborted_told),
    ("zombie-write", zombie_wrote), ("zombie-write", zombie_in_the_log),
    ("dirty-read", too_early), ("stuck", stuck), ("unknown-value", invented), ("unknown-value", elsewhere), ("duplicate", twice),
    ("inconsistent-offset", other_value), ("nonmonotonic-send", reordered), ("nonmonotonic-send", exchanged),
    ("nonmonotonic-poll", went_back), ("skipped-poll", skipped), ("vanished", vanished),
]  # fmt: skip


def test_a_sound_history_has_no_anomaly():
    h = sound()
    assert h.outcomes() == {"committed": 2, "aborted": 3, "unknown": 2}
    h.check()


@pytest.mark.parametrize("kind, plant", PLANTED, ids=[plant.__name__ for _, plant in PLANTED])
def test_a_planted_anomaly_is_found(kind, plant):
    h = sound()
    plant(h)
    assert kind in h.anomalies()
    with pytest.raises(AssertionError, match=kind):
        h.check()
