"""Stopping an exact re-rank early: the bound against errors of known tails, and searches that use it."""

import numpy as np
import pytest

from gindex.exact.stopping import expected_misses

PROMPT, COMPLETION = "the compiler race", " bug the stack"


@pytest.mark.parametrize("tails", [3.0, 100.0])
def test_bound_holds_for_heavy_and_light_tails(tails):
    """Of a thousand draws of influence = 3 score + size x Student's t, no more is missed than the bounds' mean."""
    generator, bounds, missed = np.random.default_rng(0), [], []
    for _ in range(1000):
        scores = np.sort(np.exp(generator.standard_normal(100)))[::-1] * 30
        sizes = np.exp(0.5 * generator.standard_normal(100))
        influence = 3 * scores + sizes * generator.standard_t(tails, 100)
        best = np.argsort(-influence)[:5]
        bounds.append(expected_misses(influence[:40], scores[:40], sizes[:40], scores[40:], sizes[40:], 5))
        missed.append((best >= 40).sum())
    assert np.mean(missed) <= np.mean(bounds) < 30  # half of the 60 left: it says something


def test_bound_falls_with_what_is_known():
    """Without errors nothing is missed; with too few known, everything may be."""
    scores, ones = np.arange(100.0)[::-1], np.ones(100)
    noise = np.random.default_rng(0).standard_normal(100)
    assert expected_misses(scores[:20], scores[:20], ones[:20], scores[20:], ones[20:], 5) < 1e-6
    assert expected_misses(scores[:10], scores[:10], ones[:10], scores[10:], ones[10:], 5) == 90
    assert expected_misses(scores, scores, ones, scores[:0], ones[:0], 5) == 0
    far = expected_misses((2 * scores + noise)[:50], scores[:50], ones[:50], scores[50:], ones[50:], 5)
    near = expected_misses((2 * scores + 9 * noise)[:50], scores[:50], ones[:50], scores[50:], ones[50:], 5)
    assert 0 < far < near < 50
