"""The checker of histories finds what is planted, and nothing in a sound one."""

import pytest

from support.history import History

P = ("t", 0)


def sound():
    h = History()
    for value in range(6):
        entry = h.send("a", P, value)
        if value != 4:  # this one's fate is not known to its producer
            h.ack(entry, value)
        h.poll("c", P, value, value)
    h.final[P] = {value: value for value in range(6)}
    return h


def lost(h):
    del h.final[P][2]
    h.polled.clear()


def unseen(h):
    del h.final[P][5]
    h.polled.clear()


def twice(h):
    h.final[P][6] = 3


def other_value(h):
    h.polled["c", P][3] = (3, 77)


def reordered(h):
    h.sent["a", P][1][1], h.sent["a", P][2][1] = 2, 1
    h.final[P].update({1: 2, 2: 1})
    h.polled.clear()


def went_back(h):
    h.poll("c", P, 2, 2)


def skipped(h):
    del h.polled["c", P][3]


def vanished(h):
    del h.final[P][4]


PLANTED = {
    "lost-write": lost,
    "unseen": unseen,
    "duplicate": twice,
    "inconsistent-offset": other_value,
    "nonmonotonic-send": reordered,
    "nonmonotonic-poll": went_back,
    "skipped-poll": skipped,
    "vanished": vanished,
}


def test_a_sound_history_has_no_anomaly():
    sound().check()


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_anomaly_is_found(kind):
    h = sound()
    PLANTED[kind](h)
    assert kind in h.anomalies()
    with pytest.raises(AssertionError, match=kind):
        h.check()
