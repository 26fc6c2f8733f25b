"""Measures of agreement against scikit-learn, scipy and counting by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from gindex.statistics import agreement, overlap, pearson, summarise


@given(st.integers(0, 10_000), st.integers(3, 60), st.booleans())
def test_correlations_are_those_of_scipy(seed, parts, with_ties):
    numbers = np.random.default_rng(seed)
    x, y = numbers.normal(size=(2, parts))
    if with_ties:
        x, y = np.round(x), np.round(y)
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        assert pearson(x, y) == 0
        return
    assert pearson(x, y) == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-12)
    assert agreement(x, y)["spearman"] == pytest.approx(stats.spearmanr(x, y)[0], abs=1e-12)


def test_overlap_counts():
    influence = np.array([9.0, 8, 7, 6, 5, 4])
    scores = np.array([0.0, 9, 1, 8, 7, 2])  # order of scores: 1, 3, 4, 5, 2, 0
    assert overlap(scores, influence, window=2, k=2) == 0.5  # parts 1 and 3 are found, 0 and 1 are true
    assert overlap(scores, influence, window=5, k=3) == pytest.approx(2 / 3)
    assert overlap(scores, influence, window=6, k=3) == 1.0


def test_the_most_negative_influence_is_not_the_top():
    values = np.linspace(-1, 1, 300)
    assert agreement(values, values) == dict.fromkeys(agreement(values, values), pytest.approx(1.0))
    reversed_ = agreement(-values, values)
    assert reversed_["pearson"] == pytest.approx(-1) and reversed_["recall@10"] == 0 == reversed_["top10_in_100"]


@pytest.mark.parametrize(
    ("parts", "names"),
    [
        (19, set()),
        (20, {"recall@10"}),
        (199, {"recall@10", "top10_in_50"}),
        (200, {"recall@10", "recall@100", "top10_in_50", "top10_in_100"}),
        (400, {"recall@10", "recall@100", "top10_in_50", "top10_in_100", "top10_in_200"}),
        (1000, {"recall@10", "recall@100", *(f"top10_in_{window}" for window in (50, 100, 200, 300, 500))}),
    ],
)
def test_a_window_of_more_than_half_is_left_out(parts, names):
    x = np.random.default_rng(0).normal(size=parts)
    assert set(agreement(x, x)) == {"pearson", "spearman"} | names


def test_intervals_cover_the_mean_of_what_queries_are_drawn_from():
    """95% intervals, from 20 queries: 400 draws cover 92% or so (the bootstrap is a little narrow), never below 88%."""
    numbers, covered = np.random.default_rng(0), 0
    for trial in range(400):
        values = numbers.beta(2, 2, 20)  # mean 0.5
        interval = summarise([{"pearson": value} for value in values], seed=trial)["pearson"]
        assert interval.low <= interval.mean <= interval.high
        covered += interval.low <= 0.5 <= interval.high
    assert 0.88 < covered / 400 < 0.98


def test_one_query_has_an_interval_of_no_width():
    interval = summarise([{"pearson": 0.25}])["pearson"]
    assert (interval.low, interval.mean, interval.high) == (0.25, 0.25, 0.25)
