"""Statistics of evaluations and studies against their definitions."""

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import roc_auc_score

from gindex.lab.statistics import (
    area_under_curve,
    correlation_samples,
    detection_curve,
    interval,
    mean_interval,
    placements,
    query_correlations,
    spearman_interval,
    top_share,
)
from gindex.statistics import pearson, ranks, spearman


def test_correlations_are_spearmans_with_ties():
    generator = np.random.default_rng(0)
    predicted, measured = generator.integers(0, 6, (4, 30)) * 1.0, generator.normal(size=(4, 30))
    expected = [pearson(ranks(x), ranks(y)) for x, y in zip(predicted, measured, strict=True)]
    np.testing.assert_allclose(query_correlations(predicted, measured), expected, atol=1e-12)
    assert query_correlations(np.ones((1, 30)), measured[:1]).tolist() == [0.0]


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Queries and subsets are drawn anew; the true correlation of Gaussians with r = .6 is 6 / pi asin(.3)."""
    generator, true, covered = np.random.default_rng(1), 6 / np.pi * np.arcsin(0.3), 0
    for _ in range(60):
        x = generator.normal(size=(20, 60))
        y = 0.6 * x + 0.8 * generator.normal(size=x.shape)
        found = interval(float(query_correlations(x, y).mean()), correlation_samples(x, y))
        covered += found.low <= true <= found.high
    assert covered >= 50  # of 60; fewer than that has a chance of 2e-3 at 95%, and both draws widen the interval


def test_methods_share_their_resamples():
    generator = np.random.default_rng(2)
    x, y = generator.normal(size=(5, 25)), generator.normal(size=(5, 25))
    np.testing.assert_array_equal(correlation_samples(x, y), correlation_samples(x**3, y))  # the same ranks
    assert mean_interval(y[0]).low < y[0].mean() < mean_interval(y[0]).high


def test_placements_average_to_the_area_under_the_roc_curve():
    generator = np.random.default_rng(3)
    suspicion, positive = generator.integers(0, 12, 200) * 1.0, generator.random(200) < 0.2
    assert placements(suspicion[positive], suspicion[~positive]).mean() == pytest.approx(
        roc_auc_score(positive, suspicion), abs=1e-12
    )


def test_detection_curve_counts_the_most_suspect():
    suspicion, positive = np.array([5.0, 1, 4, 3]), np.array([True, False, False, True])
    assert detection_curve(suspicion, positive, np.array([0, 0.25, 0.5, 0.75, 1])).tolist() == [0, 0.5, 0.5, 1, 1]


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
