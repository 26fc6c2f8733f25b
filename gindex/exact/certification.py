"""The recall certificate of an exact re-rank: how likely it is that none of the true best was left out.

Two things may hide a part. Both are judged by size, the root of the self-influence, in proportion to which errors are.

1. **Its influence may be more than its score says.** Influence over size is taken to be a multiple of score over size,
   plus an error. The half of the re-ranked parts that is nearest to the others counts, that with the smallest score
   over size: the first few, far above a line, say nothing of the errors further down. The errors' tails are fitted,
   not assumed: they are Student's t of any of several degrees of freedom, and what the fit leaves open (tails, width,
   multiple) is averaged over. A score below 0 predicts an influence of 0: errors of scores are all that is there.
2. **Its score may be less than its influence says**, where what matters has other errors than the rest. The scores of
   the best re-ranked parts scatter about a multiple of their influence. One that had such a score with chance 1 - p
   stands for p / (1 - p) that had none (Horvitz and Thompson 1952).

Errors that rise together make the product over parts a lower bound.

Axes: M re-ranked parts, R others, K of the re-ranked ones with the most influence, L laws of errors.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.exact.certificate import Certificate

LEAST_KNOWN = 16
"""Re-ranked parts that errors are estimated from; of fewer, nothing is certain."""

HIGHEST = 0.999
"""The highest probability that is stated while a part is left out: no fit of errors is surer than that."""

AIM = 0.95
"""The probability that `Certificate.candidates` is about."""

FREEDOMS = (2, 4, 6, 8, 12, 20, 40, 80)
"""Degrees of freedom, equally likely before the errors are seen: from tails without a variance to almost Gaussian."""

LEAST_BEST = 10
"""Parts of most influence, at least, whose scores say how far scores of such parts scatter."""

LEAST_WEIGHT = 1e-3
"""Share of the posterior below which degrees of freedom are passed over."""

NODES, NODE_WEIGHTS = (-math.sqrt(3), 0.0, math.sqrt(3)), (1 / 6, 2 / 3, 1 / 6)
"""Gauss-Hermite quadrature of three nodes, for a standard normal variable."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Known:
    """Re-ranked parts of one end of a query: their influence, scores and sizes [M], positive at the end in question."""

    influence_M: Values
    scores_M: Values
    sizes_M: Values


@dataclass(frozen=True, kw_only=True, eq=False)
class Outside:
    """The other parts that might be found, or a sample of them.

    Attributes:
        scores_R: Their scores, as those of `Known`.
        sizes_R: Their sizes.
        counts_R: How many parts each stands for.
    """

    scores_R: Values
    sizes_R: Values
    counts_R: Values

    def ordered(self, order_R: npt.NDArray[np.int64]) -> "Outside":
        """The same in another order."""
        return Outside(scores_R=self.scores_R[order_R], sizes_R=self.sizes_R[order_R], counts_R=self.counts_R[order_R])


@dataclass(frozen=True, kw_only=True)
class Errors:
    """One possible law of influence over size: slope times score over size, plus scale times Student's t."""

    weight: float
    slope: float
    scale: float
    freedom: int


def certify(known: Known, outside: Outside, least: float, k: int) -> Certificate:
    """State how likely it is that no part outside has more influence than the last hit.

    Args:
        known: The re-ranked parts.
        outside: The others.
        least: Influence of the last of the hits that were asked for; minus infinity where there are fewer.
        k: How many hits were asked for.
    """
    left = round(float(outside.counts_R.sum()))
    if not left:
        return Certificate(probability=1.0, outside=0)
    total = len(known.scores_M) + left
    usable = (known.sizes_M > 0) & np.isfinite(known.influence_M)
    if usable.sum() < LEAST_KNOWN or not np.isfinite(least):
        return Certificate(probability=0.0, outside=left, candidates=total)
    known = Known(influence_M=known.influence_M[usable], scores_M=known.scores_M[usable], sizes_M=known.sizes_M[usable])
    order = np.argsort(-outside.scores_R, kind="stable")
    counts_R, probability_R = outside.counts_R[order], _probabilities(known, outside.ordered(order), least, k)
    probability = min(HIGHEST, float(probability_R[0]))
    if probability >= AIM:
        return Certificate(probability=probability, outside=left)
    enough_R = probability_R >= AIM
    first = int(np.argmax(enough_R)) if enough_R.any() else len(order)
    more = math.ceil(float(counts_R[:first].sum()))
    return Certificate(
        probability=probability, outside=left, candidates=min(total, _two_digits(len(known.scores_M) + more))
    )


def both_ends(certificates: list[Certificate]) -> Certificate:
    """Certificate of all ends of a query: that none of them has missed one of its best."""
    needed = [each.candidates for each in certificates if each.candidates is not None]
    return Certificate(
        probability=math.prod(each.probability for each in certificates),
        outside=max(each.outside for each in certificates),
        candidates=max(needed, default=None),
    )


def possible_errors(influence_M: Values, scores_M: Values, sizes_M: Values) -> Iterator[Errors]:
    """Laws of the errors of re-ranked parts, weighted by how likely the parts make them; the weights sum to 1.

    Args:
        influence_M: Influence [M].
        scores_M: Scores.
        sizes_M: Sizes, positive.
    """
    near = np.argsort(scores_M / sizes_M, kind="stable")[: max(LEAST_KNOWN, len(scores_M) // 2)]
    x_N, y_N = (scores_M / sizes_M)[near], (influence_M / sizes_M)[near]
    fits = [_fit(x_N, y_N, freedom) for freedom in FREEDOMS]
    weights = np.exp(np.array([likelihood for *_, likelihood in fits]) - max(likelihood for *_, likelihood in fits))
    weights = np.where(weights < LEAST_WEIGHT * weights.sum(), 0.0, weights)
    for (slope, scale, _), freedom, weight in zip(fits, FREEDOMS, weights / weights.sum(), strict=True):
        # Deviations by the Fisher information of location and scale of Student's t (Lange et al. 1989).
        of_slope = math.sqrt((freedom + 3) / (freedom + 1) / max(float(x_N @ x_N), 1e-30))
        of_scale = math.sqrt((freedom + 3) / (2 * freedom * len(x_N)))
        for a, share_a in zip(NODES if weight else (), NODE_WEIGHTS, strict=False):
            for b, share_b in zip(NODES, NODE_WEIGHTS, strict=True):
                wide = scale * math.exp(a * of_scale)
                yield Errors(
                    weight=float(weight) * share_a * share_b,
                    slope=max(0.0, slope + b * of_slope * wide),
                    scale=wide,
                    freedom=freedom,
                )


def _probabilities(known: Known, outside: Outside, least: float, k: int) -> Values:
    """Probability that nothing was missed if all parts outside before each one [R], best by score first, were done."""
    laws = list(possible_errors(known.influence_M, known.scores_M, known.sizes_M))
    risk_LR = np.stack([outside.counts_R * misses(law, outside, least) for law in laws])
    from_LR = np.cumsum(risk_LR[:, ::-1], axis=1)[:, ::-1]  # of each part and those after it
    by_score_R = np.array([law.weight for law in laws]) @ np.exp(-from_LR)
    probability_R: Values = by_score_R * np.exp(-hidden(known, outside.scores_R, k))
    return probability_R


def hidden(known: Known, cuts_R: Values, k: int) -> Values:
    """How many parts like the k best are expected to have scores below each of some cuts, and so to be hidden [R].

    Args:
        known: The re-ranked parts.
        cuts_R: Scores.
        k: How many best.
    """
    best_K = np.argsort(-known.influence_M, kind="stable")[: max(k, LEAST_BEST)]
    sizes_K = known.sizes_M[best_K]
    x_K, y_K = known.influence_M[best_K] / sizes_K, known.scores_M[best_K] / sizes_K
    slope = max(0.0, float(x_K @ y_K) / max(float(x_K @ x_K), 1e-30))
    scale = max(math.sqrt(float(np.square(y_K - slope * x_K).sum()) / (len(best_K) - 1)), 1e-30)
    t_KR = (slope * x_K[:k, None] - cuts_R / sizes_K[:k, None]) / scale
    below_KR = np.minimum(survival(t_KR, 2 * ((len(best_K) - 1) // 2)), 1 - 1e-12)
    expected_R: Values = (below_KR / (1 - below_KR)).sum(0)
    return expected_R


def misses(law: Errors, outside: Outside, least: float) -> Values:
    """Minus the logarithm of the chance that each part outside stays at `least` or below [R]."""
    with np.errstate(divide="ignore", invalid="ignore"):
        predicted_R = law.slope * np.maximum(outside.scores_R, 0.0)
        t_R = np.where(
            outside.sizes_R > 0, (least - predicted_R) / (law.scale * outside.sizes_R), np.inf * np.sign(least)
        )
    above_R = survival(np.nan_to_num(t_R, nan=0.0, posinf=1e100, neginf=-1e100), law.freedom)
    risk_R: Values = -np.log1p(-np.minimum(above_R, 1 - 1e-12))
    return risk_R


def survival(t_N: Values, freedom: int) -> Values:
    """Chance that Student's t is larger than t [N].

    Args:
        t_N: Values.
        freedom: Degrees of freedom, even, for which there is a finite series.

    Source: Abramowitz and Stegun 1964, 26.7.4.
    """
    # The series cancels far out: a rounding of 1e-16, which no number of parts makes count.
    cosine_N = 1 / (1 + np.square(t_N) / freedom)
    term_N, sum_N = np.ones_like(cosine_N), np.ones_like(cosine_N)
    for j in range(1, freedom // 2):
        term_N = term_N * cosine_N * ((2 * j - 1) / (2 * j))
        sum_N = sum_N + term_N
    above_N: Values = 0.5 * (1 - np.sign(t_N) * np.sqrt(1 - cosine_N) * sum_N)
    return np.maximum(above_N, 0.0)


def _fit(x_N: Values, y_N: Values, freedom: int) -> tuple[float, float, float]:
    """Slope through the origin, scale and log-likelihood of errors by Student's t: iterated weighted least squares."""
    square = max(float(x_N @ x_N), 1e-30)
    slope = float(x_N @ y_N) / square
    scale2 = max(float(np.square(y_N - slope * x_N).mean()), 1e-30)
    for _ in range(50):
        weights_N = (freedom + 1) / (freedom + np.square(y_N - slope * x_N) / scale2)
        slope = float((weights_N * x_N) @ y_N) / max(float((weights_N * x_N) @ x_N), 1e-30)
        before, scale2 = scale2, max(float((weights_N * np.square(y_N - slope * x_N)).mean()), 1e-30)
        if abs(scale2 - before) < 1e-4 * before:
            break
    errors_N = np.square(y_N - slope * x_N) / scale2
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi * scale2)
    likelihood = len(x_N) * constant - (freedom + 1) / 2 * float(np.log1p(errors_N / freedom).sum())
    return slope, math.sqrt(scale2), likelihood


def _two_digits(count: int) -> int:
    """Round up to two digits: an estimate, not a count."""
    step = int(10 ** max(0, len(str(count)) - 2))
    return math.ceil(count / step) * step
