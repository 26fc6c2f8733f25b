"""When an exact re-rank may stop: how many of the candidates that are left are expected to belong to the best.

A candidate's influence is taken to be a multiple of its score plus an error in proportion to its size. The multiple,
and the error's mean and variance, are estimated from the candidates whose influence is known. Nothing else is assumed
of the error, whose tails are heavy: Cantelli's inequality bounds the chance that one is t standard deviations above its
mean by 1 / (1 + t^2). What the bound can't see is a left candidate whose error is of another kind than those known.

Axes: M candidates whose influence is known, R that are left.
"""

import numpy as np
import numpy.typing as npt

LEAST_KNOWN = 16
"""Candidates from which mean and variance are estimated; no stop before."""

Values = npt.NDArray[np.float64]


def expected_misses(
    influence_M: Values, scores_M: Values, sizes_M: Values, scores_R: Values, sizes_R: Values, k: int
) -> float:
    """Bound how many of the candidates that are left are expected to have an influence among the k best.

    Args:
        influence_M: Influence of those known.
        scores_M: Their scores.
        sizes_M: Their sizes, positive: the root of the self-influence.
        scores_R: Scores of those left.
        sizes_R: Their sizes.
        k: How many best are wanted.

    Returns:
        The sum over those left of the bound of each one's chance; R where too few are known to say.
    """
    if not len(scores_R):
        return 0.0
    if len(influence_M) < max(LEAST_KNOWN, k):
        return float(len(scores_R))
    least = np.partition(influence_M, -k)[-k]
    predictor_M, response_M = scores_M / sizes_M, influence_M / sizes_M
    slope = max(0.0, float(predictor_M @ response_M) / max(float(predictor_M @ predictor_M), 1e-30))
    error_M = response_M - slope * predictor_M
    spread = max(float(error_M.std(ddof=2)), 1e-30)
    deviations_R = ((least - slope * scores_R) / sizes_R - error_M.mean()) / spread
    return float(np.where(deviations_R > 0, 1 / (1 + deviations_R**2), 1.0).sum())
