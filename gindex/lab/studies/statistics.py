"""Statistics that the studies share: intervals by bootstrap, ranks, shares.

Axes: N values, R resamples.
"""

import re

import numpy as np
import numpy.typing as npt

from gindex.statistics import RESAMPLES, Interval, pearson, ranks

Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def mean_interval(values: Values, seed: int = 0) -> Interval:
    """Return the mean of values [N] with its 95% interval, by bootstrap over them."""
    wide = np.asarray(values, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(wide), (RESAMPLES, len(wide)))
    low, high = np.quantile(wide[drawn].mean(1), (0.025, 0.975))
    return Interval(mean=float(wide.mean()), low=float(low), high=float(high))


def spearman(x: Values, y: Values) -> float:
    """Return the rank correlation of two sequences [N]; 0 where one is constant."""
    return pearson(ranks(x), ranks(y))


def spearman_interval(x: Values, y: Values, seed: int = 0) -> Interval:
    """Return the rank correlation with its 95% interval, by bootstrap over the pairs."""
    drawn = np.random.default_rng(seed).integers(0, len(x), (RESAMPLES // 4, len(x)))
    low, high = np.quantile([spearman(x[some], y[some]) for some in drawn], (0.025, 0.975))
    return Interval(mean=spearman(x, y), low=float(low), high=float(high))


def area_under_curve(higher: Values, lower: Values) -> float:
    """Return how often a value of the first [N] exceeds one of the second [M], ties counting half."""
    both = ranks(np.concatenate([higher, lower]))
    count = len(higher)
    return float((both[:count].sum() - count * (count + 1) / 2) / (count * len(lower)))


def top_share(values: Values, fraction: float) -> float | None:
    """Return what the largest `fraction` of values [N] adds to the sum of the positive ones; None below one value."""
    count = int(round(fraction * len(values), 6))
    total = float(np.maximum(values, 0).sum(dtype=np.float64))
    if count < 1 or total <= 0:
        return None
    return float(np.maximum(np.sort(values)[::-1][:count], 0).sum(dtype=np.float64)) / total


def text(value: Interval, form: str = ".2f") -> str:
    """Return a mean with its interval for readers."""
    mean, low, high = (re.sub(r"^-(0(\.0+)?%?)$", r"\1", f"{x:{form}}") for x in (value.mean, value.low, value.high))
    return f"{mean} [{low}, {high}]"


def ratio_interval(numerators: Values, denominators: Values, seed: int = 0) -> Interval:
    """Return the ratio of two means [N] with its 95% interval, by bootstrap over the pairs."""
    above, below = np.asarray(numerators, np.float64), np.asarray(denominators, np.float64)
    drawn = np.random.default_rng(seed).integers(0, len(above), (RESAMPLES, len(above)))
    low, high = np.quantile(above[drawn].mean(1) / below[drawn].mean(1), (0.025, 0.975))
    return Interval(mean=float(above.mean() / below.mean()), low=float(low), high=float(high))
