"""The clock of this suite's deadlines."""

from support.clock import TICK, Running


def test_a_machine_that_stood_still_costs_no_deadline():
    times = iter([100, 100 + TICK, 100 + 2 * TICK, 400, 400 + TICK])
    clock = Running(lambda: next(times))
    assert clock.tick() == 100 + TICK
    assert clock.tick() == 100 + 2 * TICK
    # 299 s in one tick.
    assert clock.tick() == 100 + 3 * TICK
    assert clock.tick() == 100 + 4 * TICK


def test_a_tick_that_comes_a_little_late_counts():
    times = iter([0, 4])
    clock = Running(lambda: next(times))
    assert clock.tick() == 4
