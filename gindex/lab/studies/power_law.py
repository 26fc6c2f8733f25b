"""Power laws in the tail of a distribution, and whether they are there.

The density above x_min is (alpha - 1) / x_min (x / x_min)^-alpha. alpha is the maximum-likelihood estimate, x_min the
one whose tail is closest to its fit (Kolmogorov-Smirnov). The goodness of fit is the share of synthetic samples, drawn
from the fit above x_min and from the data below, that lie further from *their* fit than the data from theirs; below
0.1 the power law is ruled out. The tail is also compared with an exponential one by Vuong's likelihood ratio.

Source: Clauset, Shalizi & Newman 2009, arXiv:0706.1062.

Axes: N values, M values of a tail, C candidates for x_min.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError

Values = npt.NDArray[np.float64]

LEAST_TAIL = 25
"""Fewest values of a tail: with fewer, alpha is off by more than a fifth of alpha - 1."""

CANDIDATES = 40
"""Tails that are tried, of lengths in geometric steps from the least to all values."""


@dataclass(frozen=True, kw_only=True)
class PowerLaw:
    """A fitted tail.

    Attributes:
        alpha: Exponent of the density.
        low: Lower end of its 95% interval, by bootstrap of the values, x_min chosen anew each time.
        high: Upper end.
        x_min: Where the tail begins.
        tail: Values in it.
        distance: Kolmogorov-Smirnov distance of the tail from the fit.
        p_value: Goodness of fit; below 0.1 the power law is ruled out.
        against_exponential: Vuong's normalised log-likelihood ratio; above 2 a power law is the better of the two,
            below -2 an exponential.
    """

    alpha: float
    low: float
    high: float
    x_min: float
    tail: int
    distance: float
    p_value: float
    against_exponential: float

    @property
    def plausible(self) -> bool:
        """Whether the goodness of fit leaves the power law standing."""
        return self.p_value >= 0.1


def fit_power_law(values: Values, resamples: int = 100, seed: int = 0) -> PowerLaw:
    """Fit the tail of positive values [N].

    Args:
        values: In any order.
        resamples: Synthetic samples for the goodness of fit, and resamples for the interval of alpha.
        seed: Seed of both.

    Raises:
        ConfigError: There are too few values.
    """
    if len(values) < 2 * LEAST_TAIL:
        raise ConfigError(
            field="power law",
            expected=f"at least {2 * LEAST_TAIL} positive influences on a query",
            found=len(values),
            remedy="index or rank more documents",
        )
    falling = np.sort(values)[::-1]
    alpha, tail, distance = _best_tail(falling)
    generator = np.random.default_rng(seed)
    x_min, body = falling[tail - 1], falling[tail:]
    further, alphas = 0, []
    for _ in range(resamples):
        in_tail = int(generator.binomial(len(falling), tail / len(falling)))
        drawn = x_min * (1 - generator.random(in_tail)) ** (-1 / (alpha - 1))
        rest = generator.choice(body, len(falling) - in_tail) if len(body) else np.zeros(0)
        further += _best_tail(np.sort(np.concatenate([drawn, rest]))[::-1])[2] >= distance
        alphas.append(_best_tail(np.sort(generator.choice(falling, len(falling)))[::-1])[0])
    low, high = np.quantile(alphas, (0.025, 0.975))
    return PowerLaw(
        alpha=alpha,
        low=float(low),
        high=float(high),
        x_min=float(x_min),
        tail=tail,
        distance=distance,
        p_value=further / resamples,
        against_exponential=_vuong(falling[:tail], alpha),
    )


def exponent(tail: Values) -> float:
    """The maximum-likelihood exponent of a falling tail [M] that begins at its last value."""
    return 1 + len(tail) / max(float(np.log(tail / tail[-1]).sum()), 1e-12)


def _best_tail(falling: Values) -> tuple[float, int, float]:
    """Exponent, length and distance of the tail that is closest to its own fit."""
    longest = int((falling > 0).sum())
    lengths = np.unique(np.geomspace(min(LEAST_TAIL, longest), longest, CANDIDATES).astype(int))
    logs = np.log(falling[:longest])
    best = (math.nan, 0, math.inf)
    for length in lengths:
        steps = logs[:length] - logs[length - 1]
        alpha = 1 + length / max(float(steps.sum()), 1e-12)
        above = np.exp((1 - alpha) * steps)  # P(X > x) by the fit, rising along the falling values
        places = np.arange(length + 1) / length
        distance = float(max(np.abs(above - places[:-1]).max(), np.abs(above - places[1:]).max()))
        if distance < best[2]:
            best = (alpha, int(length), distance)
    return best


def _vuong(tail: Values, alpha: float) -> float:
    """The normalised log-likelihood ratio of a power law against an exponential above the same x_min."""
    x_min = tail[-1]
    rate = 1 / max(float((tail - x_min).mean()), 1e-300)
    ratio = np.log((alpha - 1) / x_min) - alpha * np.log(tail / x_min) - (np.log(rate) - rate * (tail - x_min))
    spread = float(ratio.std())
    return float(ratio.sum() / (math.sqrt(len(tail)) * spread)) if spread > 0 else 0.0
