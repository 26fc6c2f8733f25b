import math

import numpy as np
import pytest

from gindex.errors import ConfigError
from gindex.lab.studies.power_law import LEAST_TAIL, _best_tail, exponent, fit_power_law


def pareto(count: int, alpha: float, seed: int = 0) -> np.ndarray:
    return (1 - np.random.default_rng(seed).random(count)) ** (-1 / (alpha - 1))


def test_exponent_of_a_known_tail():
    """1 + n / sum ln x, with the exponents' own standard error (alpha - 1) / sqrt(n) as the tolerance, four of it."""
    values = np.sort(pareto(4000, 2.5))[::-1]
    assert exponent(values) == pytest.approx(1 + 4000 / sum(math.log(x / values[-1]) for x in values))
    assert exponent(values) == pytest.approx(2.5, abs=4 * 1.5 / math.sqrt(4000))


def test_tail_is_the_closest_to_its_fit():
    """Reference: the distance of each tail from its fit, value by value."""
    body = np.random.default_rng(1).random(300)
    falling = np.sort(np.concatenate([pareto(200, 2.2, seed=2), body]))[::-1]
    alpha, length, distance = _best_tail(falling)

    def distance_of(length: int) -> float:
        tail, worst = falling[:length], 0.0
        fitted = exponent(tail)
        for n, x in enumerate(tail):
            above = (x / tail[-1]) ** (1 - fitted)
            worst = max(worst, abs(above - n / length), abs(above - (n + 1) / length))
        return worst

    lengths = np.unique(np.geomspace(LEAST_TAIL, 500, 40).astype(int))
    distances = [distance_of(int(n)) for n in lengths]
    assert length == lengths[int(np.argmin(distances))]
    assert distance == pytest.approx(min(distances)) and alpha == pytest.approx(exponent(falling[:length]))


def test_power_law_stands_and_its_interval_holds_the_exponent():
    fit = fit_power_law(pareto(1000, 2.5), resamples=40)
    assert fit.plausible and fit.against_exponential > 2
    assert fit.low <= 2.5 <= fit.high and fit.low < fit.alpha < fit.high


def test_power_law_is_ruled_out_where_there_is_none():
    """Values of a narrow band: no tail of 25 or more is a power law."""
    fit = fit_power_law(1 + np.linspace(0, 1, 2000), resamples=40)
    assert not fit.plausible
    exponential = fit_power_law(1 + np.random.default_rng(0).exponential(0.2, 3000), resamples=20)
    assert exponential.against_exponential < 2


def test_too_few_values():
    with pytest.raises(ConfigError, match="at least 50 positive influences on a query, found 49"):
        fit_power_law(pareto(49, 2.0))
