"""Few numbers of each of two kinds: how they lie, and what is known of the difference.

The interval is Welch's: of two independent samples whose spreads may differ. Runs of
one seed see the same pictures in the same order, but are not taken as pairs: tables
that differ make two runs strangers within some hundred steps, so pairing would take
away half of the few degrees of freedom and hardly any of the variance.
"""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

CONFIDENCE = 0.95

Verdict = Literal["agrees", "disagrees", "undecided", "one seed"]


@dataclass(frozen=True)
class Spread:
    """How some numbers lie.

    Attributes:
        n: how many.
        mean: of them.
        sd: standard deviation, with n - 1; None of one number.
        low, high: the least and the greatest.
    """

    n: int
    mean: float
    sd: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """The difference of two means.

    Attributes:
        mean: the second less the first.
        low, high: ends of its 95% interval; None where a side has one number only.
    """

    mean: float
    low: float | None
    high: float | None


def spread(values: Sequence[float]) -> Spread:
    """Return how at least one number lies."""
    sd = statistics.stdev(values) if len(values) > 1 else None
    return Spread(len(values), statistics.fmean(values), sd, min(values), max(values))


def difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Return the mean of ``after`` less that of ``before``, with Welch's interval."""
    mean = statistics.fmean(after) - statistics.fmean(before)
    if min(len(before), len(after)) < 2:
        return Difference(mean, None, None)
    parts = [(statistics.variance(side) / len(side), len(side) - 1)
             for side in (before, after)]  # fmt: skip
    variance = sum(part for part, _ in parts)
    if variance == 0:
        return Difference(mean, mean, mean)
    freedom = variance**2 / sum(part**2 / n for part, n in parts)
    from scipy import stats  # half a second; jax and scikit-learn stand on it

    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(variance)
    return Difference(mean, mean - half, mean + half)


def verdict(found: Difference) -> Verdict:
    """Say whether an error rises without a part, as the paper claims of all."""
    if found.low is None or found.high is None:
        return "one seed"
    if found.low <= 0 <= found.high:
        return "undecided"
    return "agrees" if found.low > 0 else "disagrees"
