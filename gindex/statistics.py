"""Statistics of two rankings of the same parts, query by query: how far they agree.

Pure functions of numpy arrays.

Axes: Q queries, N parts.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Scores = npt.NDArray[np.float32] | npt.NDArray[np.float64]

RESAMPLES = 2000
"""Bootstrap resamples of the queries."""

RECALLS, WINDOWS = (10, 100), (50, 100, 200, 300, 500)
"""k of recall@k, and the windows that the true top 10 are looked for in."""


@dataclass(frozen=True, kw_only=True)
class Interval:
    """A mean with its 95% confidence interval, by bootstrap over the queries (and over what else is drawn)."""

    mean: float
    low: float
    high: float


def agreement(scores_N: Scores, influence_N: Scores) -> dict[str, float]:
    """Compare the scores of one query with exact influence.

    Args:
        scores_N: Scores of the parts [N].
        influence_N: Exact influence of the same parts [N].

    Returns:
        `pearson`, `spearman`, `recall@k` (share of the true top k among the k best scores) and `top10_in_w` (share of
        the true top 10 among the w best scores), where there are at least twice as many parts as k or w.
    """
    parts = len(scores_N)
    result = {
        "pearson": pearson(scores_N, influence_N),
        "spearman": spearman(scores_N, influence_N),
    }
    result |= {f"recall@{k}": overlap(scores_N, influence_N, k, k) for k in RECALLS if parts >= 2 * k}
    result |= {f"top10_in_{w}": overlap(scores_N, influence_N, w, 10) for w in WINDOWS if parts >= 2 * w}
    return result


def pearson(x_N: Scores, y_N: Scores) -> float:
    """Correlation coefficient; 0 where one side is constant."""
    x, y = (values.astype(np.float64) - values.astype(np.float64).mean() for values in (x_N, y_N))
    norm = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / norm if norm > 0 else 0.0


def spearman(x_N: Scores, y_N: Scores) -> float:
    """Rank correlation coefficient; 0 where one side is constant."""
    return pearson(ranks(x_N), ranks(y_N))


def overlap(scores_N: Scores, influence_N: Scores, window: int, k: int) -> float:
    """Share of the k parts with the most influence that are among the `window` best scores."""
    found, true = _order(scores_N)[:window], _order(influence_N)[:k]
    return float(np.isin(true, found).mean())


def summarise(values_Q: list[dict[str, float]], seed: int = 0) -> dict[str, Interval]:
    """Average every measure over the queries."""
    drawn = np.random.default_rng(seed).integers(0, len(values_Q), (RESAMPLES, len(values_Q)))
    result = {}
    for name in values_Q[0]:
        measured = np.array([values[name] for values in values_Q if name in values])
        means = measured[drawn % len(measured)].mean(1)
        low, high = np.quantile(means, (0.025, 0.975))
        result[name] = Interval(mean=float(measured.mean()), low=float(low), high=float(high))
    return result


def _order(values_N: Scores) -> npt.NDArray[np.int64]:
    """Positions by falling value, ties by position."""
    return np.argsort(-values_N, kind="stable")


def ranks(values_N: Scores) -> npt.NDArray[np.float64]:
    """Rank of every value, ties sharing their mean rank."""
    _, inverse, counts = np.unique(values_N, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse].astype(np.float64)
