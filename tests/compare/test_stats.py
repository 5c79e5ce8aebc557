"""The comparison's arithmetic: pairs to ratios, the end of the warm-up, percentiles merged over runs."""

import pytest
from compare import stats


def pair(ours, theirs, **more):
    return ({"x": ours, **more}, {"x": theirs})


def test_the_ratio_is_of_pairs_not_of_medians():
    # Ratios 0.5, 2 and 0.1: their median is 0.5, where the ratio of the medians would be 2.
    figure = stats.compare([pair(1, 2), pair(20, 10), pair(2, 20)], "x")
    assert figure["ratio"] == (0.5, 0.1, 2.0)
    assert figure["corelane"] == (2, 1, 20)
    assert figure["kafka"] == (10, 2, 20)
    assert figure["pairs"] == 3


def test_a_side_that_failed_gives_no_ratio_and_keeps_the_other_figure():
    figure = stats.compare([({"x": 1}, None), (None, {"x": 4}), pair(3, 6)], "x")
    assert figure["ratio"] == (0.5, 0.5, 0.5)
    assert figure["corelane"] == (2, 1, 3)
    assert figure["pairs"] == 1


def test_nothing_measured_is_nothing_and_not_a_crash():
    assert stats.compare([], "x") == {"corelane": None, "kafka": None, "ratio": None, "pairs": 0, "void": [0, 0]}
    assert stats.compare([pair(1, 0)], "x")["ratio"] is None
    assert stats.compare([pair(None, 3)], "x")["ratio"] is None


def test_a_void_run_gives_no_ratio_and_is_counted():
    pairs = [pair(1, 2), pair(8, 2, void=True)]
    figure = stats.compare(pairs, "x", lambda sample: not sample.get("void"))
    assert figure["ratio"] == (0.5, 0.5, 0.5)
    assert figure["void"] == [1, 0]


@pytest.mark.parametrize(
    ("curve", "done"),
    [
        ([5, 4, 3, 3, 3], False),  # too few
        ([9, 8, 7, 5, 5, 5], False),  # 8 to 5
        ([9, 8, 7, 5, 5, 5, 5, 5], True),
        ([5.0, 5.0, 5.0, 4.8, 4.8, 4.8], True),  # 4 % lower
        ([5.0, 5.0, 5.0, 4.7, 4.7, 4.7], False),  # 6 % lower
        ([3, 3, 3, 9, 9, 9], True),  # it may rise
    ],
)
def test_the_warm_up_ends_when_the_cost_has_stopped_falling(curve, done):
    assert stats.settled(curve) is done


HGRM = """       Value     Percentile TotalCount 1/(1-Percentile)

    1.000000 0.000000000000         50           1.00
    2.000000 0.500000000000         90           2.00
    2.000000 0.750000000000         90           4.00
    9.000000 1.000000000000        100
#[Mean    =     2.000000, StdDeviation   =     1.000000]
#[Max     =     9.000000, Total count    =          100]
"""


def test_distributions_are_read_and_merged_by_count():
    one = stats.parse_hgrm(HGRM)
    assert one == [(1.0, 50), (2.0, 40), (9.0, 10)]
    both = stats.merged([one, [(2.0, 100)]])
    assert both == [(0.25, 1.0), (0.95, 2.0), (1.0, 9.0)]
    assert stats.merged([]) == []


def test_verdicts():
    assert stats.verdict(0.2, 0.2, at_least=False) == "held"
    assert stats.verdict(0.21, 0.2, at_least=False) == "missed"
    assert stats.verdict(3.9, 4, at_least=True) == "missed"
    assert stats.verdict(None, 4, at_least=True) == "not measured"
