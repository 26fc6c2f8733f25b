"""Bootstrap intervals of means, against plain resampling and against what they promise."""

import numpy as np
import pytest

from gindex.search.bootstrap import LOTS, MeanBootstrap


def plain_interval(scores: np.ndarray, resamples: int = 20_000) -> tuple[float, float]:
    """The same by a plain loop over many more resamples."""
    generator = np.random.default_rng(7)
    means = [scores[generator.integers(0, len(scores), len(scores))].mean() for _ in range(resamples)]
    low, high = np.quantile(means, (0.025, 0.975))
    factor = np.sqrt(len(scores) / (len(scores) - 1))
    return scores.mean() + factor * (low - scores.mean()), scores.mean() + factor * (high - scores.mean())


@pytest.mark.parametrize("count", [2, 3, 10, 200])
@pytest.mark.parametrize("draw", ["standard_normal", "standard_exponential"])
def test_interval_is_that_of_plain_resampling(count, draw):
    scores = getattr(np.random.default_rng(count), draw)(count)
    got, wanted = MeanBootstrap(0).interval(scores), plain_interval(scores)
    # The ends are quantiles of 1,000 resamples: each errs by about 5% of the width.
    assert np.abs(np.subtract(got, wanted)).max() < 0.15 * (wanted[1] - wanted[0])


@pytest.mark.parametrize("count", [LOTS, LOTS + 1, 3 * LOTS + 17, 50_000])
def test_lots_vary_as_documents_do(count):
    """The width of a large group's interval is 2 x 1.96 standard errors; lots and resamples add 5% of it each."""
    scores = np.random.default_rng(count).gamma(0.5, size=count)
    low, high = MeanBootstrap(0).interval(scores)
    assert low < scores.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * scores.std(ddof=1) / np.sqrt(count), rel=0.15)


def test_intervals_cover_the_mean_as_often_as_they_say():
    """Of 400 groups of 40 normal scores, whose mean is 0: expected 93 to 95%, give or take 2.5%."""
    bootstrap, generator = MeanBootstrap(0), np.random.default_rng(0)
    bounds = [bootstrap.interval(generator.standard_normal(40)) for _ in range(400)]
    assert 0.89 < np.mean([low < 0 < high for low, high in bounds]) < 0.99


def test_one_document_has_no_interval_and_equal_ones_a_point():
    assert MeanBootstrap(0).interval(np.array([3.0])) is None
    assert MeanBootstrap(0).interval(np.zeros(0)) is None
    assert MeanBootstrap(0).interval(np.full(5000, 2.0)) == pytest.approx((2.0, 2.0))


def test_the_seed_alone_decides():
    scores = np.random.default_rng(0).standard_normal(3000)
    assert MeanBootstrap(5).interval(scores) == MeanBootstrap(5).interval(scores)
    assert MeanBootstrap(5).interval(scores) != MeanBootstrap(6).interval(scores)
