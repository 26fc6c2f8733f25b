"""Statistics of evaluations and studies, with their uncertainty. Pure functions of numpy arrays.

Axes: N values or documents, P positive ones, Q queries, M subsets, B bootstrap resamples.
"""

import numpy as np
import numpy.typing as npt

from gindex.statistics import RESAMPLES, Interval, ranks, spearman

Floats = npt.NDArray[np.float64]
Values = npt.NDArray[np.float32] | npt.NDArray[np.float64]


def interval(mean: float, samples_B: Floats) -> Interval:
    """A mean, or another statistic, with the central 95% of its resamples."""
    low, high = np.quantile(samples_B, (0.025, 0.975))
    return Interval(mean=float(mean), low=float(low), high=float(high))


def mean_interval(values_N: Values, seed: int = 0) -> Interval:
    """The mean of values with its 95% interval, by bootstrap over them."""
    wide_N = np.asarray(values_N, np.float64)
    return interval(float(wide_N.mean()), wide_N[_resamples(len(wide_N), seed)].mean(1))


def ratio_interval(numerators_N: Values, denominators_N: Values, seed: int = 0) -> Interval:
    """The ratio of two means with its 95% interval, by bootstrap over the pairs."""
    above_N, below_N = np.asarray(numerators_N, np.float64), np.asarray(denominators_N, np.float64)
    drawn_BN = _resamples(len(above_N), seed)
    return interval(above_N.mean() / below_N.mean(), above_N[drawn_BN].mean(1) / below_N[drawn_BN].mean(1))


def spearman_interval(x_N: Values, y_N: Values, seed: int = 0) -> Interval:
    """The rank correlation with its 95% interval, by bootstrap over the pairs."""
    samples_B = np.array([spearman(x_N[some], y_N[some]) for some in _resamples(len(x_N), seed, RESAMPLES // 4)])
    return interval(spearman(x_N, y_N), samples_B)


def query_correlations(predicted_QM: Floats, measured_QM: Floats) -> Floats:
    """Spearman's correlation over the subsets for each query [Q]; 0 where one side is constant."""
    subsets = predicted_QM.shape[1]
    correlations_Q: Floats = _weighted_correlations(predicted_QM, measured_QM, np.full((1, subsets), 1 / subsets))[0]
    return correlations_Q


def correlation_samples(predicted_QM: Floats, measured_QM: Floats, seed: int = 0) -> Floats:
    """Resamples of the mean over queries of Spearman's correlation [B], over queries and over subsets at once.

    Ranks are those among all subsets; a resample weights them. Two methods with one seed get the same resamples, so
    their difference and ratio can be taken sample by sample.

    Args:
        predicted_QM: Predictions for each query and subset [Q, M].
        measured_QM: What came out [Q, M].
        seed: Seed of the resamples.
    """
    generator = np.random.default_rng(seed)
    queries, subsets = predicted_QM.shape
    subset_weights_BM = generator.multinomial(subsets, np.full(subsets, 1 / subsets), RESAMPLES) / subsets
    query_weights_BQ = generator.multinomial(queries, np.full(queries, 1 / queries), RESAMPLES) / queries
    correlations_BQ = _weighted_correlations(predicted_QM, measured_QM, subset_weights_BM)
    samples_B: Floats = (correlations_BQ * query_weights_BQ).sum(1)
    return samples_B


def placements(positive_P: Values, others_N: Values) -> Floats:
    """Share of the other values below each positive one [P], ties counting half.

    Their mean is the area under the ROC curve.
    """
    sorted_N = np.sort(others_N)
    below_P = np.searchsorted(sorted_N, positive_P, side="left")
    below_or_equal_P = np.searchsorted(sorted_N, positive_P, side="right")
    result_P: Floats = (below_P + below_or_equal_P) / (2 * len(sorted_N))
    return result_P


def area_under_curve(positive_P: Values, others_N: Values) -> float:
    """Chance that a positive value exceeds another one, ties counting half: the area under the ROC curve."""
    return float(placements(positive_P, others_N).mean())


def detection_curve(suspicion_N: Floats, positive_N: npt.NDArray[np.bool_], inspected: Floats) -> Floats:
    """Share of the positive documents among the most suspect ones, for shares [S] of all to inspect."""
    found_N = np.concatenate([[0], np.cumsum(positive_N[np.argsort(-suspicion_N, kind="stable")])])
    result_S: Floats = found_N[np.round(inspected * len(suspicion_N)).astype(int)] / positive_N.sum()
    return result_S


def top_share(values_N: Values, fraction: float) -> float | None:
    """What the largest `fraction` of values adds to the sum of the positive ones; None below one value."""
    count = int(round(fraction * len(values_N), 6))
    total = float(np.maximum(values_N, 0).sum(dtype=np.float64))
    if count < 1 or total <= 0:
        return None
    return float(np.maximum(np.sort(values_N)[::-1][:count], 0).sum(dtype=np.float64)) / total


def _resamples(count: int, seed: int, resamples: int = RESAMPLES) -> npt.NDArray[np.int64]:
    """Positions of resamples [B, N], drawn with replacement."""
    return np.random.default_rng(seed).integers(0, count, (resamples, count))


def _weighted_correlations(predicted_QM: Floats, measured_QM: Floats, weights_BM: Floats) -> Floats:
    # Centred, so that the ranks of a constant side are zeros and leave no rounding behind.
    middle = (predicted_QM.shape[1] + 1) / 2
    x_QM, y_QM = (np.stack([ranks(row) - middle for row in side]) for side in (predicted_QM, measured_QM))
    mean_x, mean_y = weights_BM @ x_QM.T, weights_BM @ y_QM.T
    covariance = weights_BM @ (x_QM * y_QM).T - mean_x * mean_y
    variance_x = weights_BM @ (x_QM**2).T - mean_x**2
    variance_y = weights_BM @ (y_QM**2).T - mean_y**2
    negligible = 1e-14 * predicted_QM.shape[1] ** 2  # below it, the variance of ranks up to M is rounding alone
    varied = (variance_x > negligible) & (variance_y > negligible)
    spread = np.sqrt(np.where(varied, variance_x * variance_y, 1))
    result_BQ: Floats = np.where(varied, covariance / spread, 0.0)
    return result_BQ
