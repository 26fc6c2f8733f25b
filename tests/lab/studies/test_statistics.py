import numpy as np
import pytest
import scipy.stats

from gindex.lab.statistics import area_under_curve, mean_interval, spearman, spearman_interval, top_share


def test_rank_correlation_is_scipys():
    generator = np.random.default_rng(0)
    x, y = generator.integers(0, 9, 60).astype(float), generator.random(60)
    assert spearman(x, y) == pytest.approx(scipy.stats.spearmanr(x, y).statistic)
    interval = spearman_interval(x, x + generator.random(60))
    assert interval.low < interval.mean < interval.high


def test_area_under_curve_counts_pairs():
    higher, lower = np.array([1.0, 3.0, 3.0]), np.array([0.0, 3.0, 2.0, 5.0])
    pairs = [(h > low) + (h == low) / 2 for h in higher for low in lower]
    assert area_under_curve(higher, lower) == pytest.approx(np.mean(pairs))


def test_top_share():
    values = np.array([4.0, -3.0, 1.0, 3.0, 0.0, -1.0, 2.0, -5.0, 0.0, 0.0])
    assert top_share(values, 0.1) == 0.4
    assert top_share(values, 0.3) == 0.9
    assert top_share(values, 1.0) == 1.0
    assert top_share(values, 0.05) is None
    assert top_share(-np.ones(10), 0.5) is None


def test_interval_holds_the_mean_of_what_it_was_drawn_from():
    """95% intervals: of 100, between 85 and 100 hold the true mean of 0."""
    draws = np.random.default_rng(0).normal(size=(100, 50))
    found = [mean_interval(draw) for draw in draws]
    assert sum(interval.low <= 0 <= interval.high for interval in found) >= 85
    assert mean_interval(draws[0]).mean == pytest.approx(draws[0].mean())
