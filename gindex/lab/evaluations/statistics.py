"""Statistics of evaluations, with their uncertainty. Pure functions of numpy arrays.

Axes: Q queries, M subsets, B bootstrap resamples, N documents, P positive ones.
"""

import numpy as np
import numpy.typing as npt

from gindex.statistics import RESAMPLES, Interval, ranks

Floats = npt.NDArray[np.float64]


def query_correlations(predicted_QM: Floats, measured_QM: Floats) -> Floats:
    """Return Spearman's correlation over the subsets for each query [Q]; 0 where one side is constant."""
    subsets = predicted_QM.shape[1]
    correlations_Q: Floats = _weighted_correlations(predicted_QM, measured_QM, np.full((1, subsets), 1 / subsets))[0]
    return correlations_Q


def correlation_samples(predicted_QM: Floats, measured_QM: Floats, seed: int = 0) -> Floats:
    """Resample the mean over queries of Spearman's correlation [B], over queries and over subsets at once.

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


def _weighted_correlations(predicted_QM: Floats, measured_QM: Floats, weights_BM: Floats) -> Floats:
    x_QM, y_QM = (np.stack([ranks(row) for row in side]) for side in (predicted_QM, measured_QM))
    mean_x, mean_y = weights_BM @ x_QM.T, weights_BM @ y_QM.T
    covariance = weights_BM @ (x_QM * y_QM).T - mean_x * mean_y
    variance_x = weights_BM @ (x_QM**2).T - mean_x**2
    variance_y = weights_BM @ (y_QM**2).T - mean_y**2
    spread = np.sqrt(np.clip(variance_x, 0, None) * np.clip(variance_y, 0, None))
    # Below this the spread of ranks up to M is rounding alone.
    result_BQ: Floats = np.where(spread > 1e-6, covariance / np.where(spread > 1e-6, spread, 1), 0.0)
    return result_BQ


def interval(mean: float, samples_B: Floats) -> Interval:
    """Return a mean with the central 95% of its resamples."""
    low, high = np.quantile(samples_B, (0.025, 0.975))
    return Interval(mean=float(mean), low=float(low), high=float(high))


def mean_interval(values_Q: Floats, seed: int = 0) -> Interval:
    """Return the mean of values [Q] with its interval by bootstrap."""
    drawn_BQ = np.random.default_rng(seed).integers(0, len(values_Q), (RESAMPLES, len(values_Q)))
    return interval(float(values_Q.mean()), values_Q[drawn_BQ].mean(1))


def placements(suspicion_N: Floats, positive_N: npt.NDArray[np.bool_]) -> Floats:
    """Return for each positive document [P] the share of the others that is less suspect, ties counting half.

    Their mean is the area under the ROC curve.

    Args:
        suspicion_N: How suspect each document is [N].
        positive_N: Which ones should be [N].
    """
    positive_P, rest = suspicion_N[positive_N], np.sort(suspicion_N[~positive_N])
    below = np.searchsorted(rest, positive_P, side="left")
    below_or_equal = np.searchsorted(rest, positive_P, side="right")
    result_P: Floats = (below + below_or_equal) / (2 * len(rest))
    return result_P


def detection_curve(suspicion_N: Floats, positive_N: npt.NDArray[np.bool_], inspected: Floats) -> Floats:
    """Return the share of the positive documents among the most suspect ones, for shares [S] of all to inspect."""
    found_N = np.concatenate([[0], np.cumsum(positive_N[np.argsort(-suspicion_N, kind="stable")])])
    result_S: Floats = found_N[np.round(inspected * len(suspicion_N)).astype(int)] / positive_N.sum()
    return result_S
