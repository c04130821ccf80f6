"""Means, spreads and Welch's interval, against numbers by hand and SciPy's own."""

import pytest
from scipy import stats

from alexnet_jax.studies.comparing import Difference, difference, spread, verdict


def test_the_spread_of_three_numbers():
    found = spread([0.1, 0.2, 0.6])
    assert (found.n, found.low, found.high) == (3, 0.1, 0.6)
    assert found.mean == pytest.approx(0.3)
    assert found.sd == pytest.approx(0.07**0.5)  # (0.04 + 0.01 + 0.09) / 2
    assert spread([0.5]).sd is None


def test_welchs_interval_by_hand():
    # Means 2 and 5, variances 1 and 4, three each: the standard error is
    # sqrt(1/3 + 4/3), with (5/3)^2 / ((1/9 + 16/9) / 2) = 50/17 degrees of freedom.
    found = difference([1.0, 2.0, 3.0], [3.0, 5.0, 7.0])
    assert found.mean == 3
    half = stats.t.ppf(0.975, 50 / 17) * (5 / 3) ** 0.5
    assert found.low == pytest.approx(3 - half)
    assert found.high == pytest.approx(3 + half)


def test_welchs_interval_is_scipys():
    before, after = [0.241, 0.238, 0.25], [0.262, 0.259, 0.27, 0.281]
    found = difference(before, after)
    theirs = stats.ttest_ind(after, before, equal_var=False).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high))


def test_runs_that_are_all_alike_leave_no_doubt():
    assert difference([0.5, 0.5], [0.75, 0.75]) == Difference(0.25, 0.25, 0.25)


def test_one_run_has_no_interval():
    assert difference([0.5], [0.75, 0.8]).low is None
    assert verdict(difference([0.5], [0.75])) == "one seed"


@pytest.mark.parametrize(
    ("ends", "said"),
    [
        ((0.01, 0.03), "agrees"),
        ((-0.03, -0.01), "disagrees"),
        ((-0.01, 0.03), "undecided"),
        ((0.0, 0.02), "undecided"),
    ],
)
def test_verdicts(ends, said):
    low, high = ends
    assert verdict(Difference((low + high) / 2, low, high)) == said
