"""The certificate of an exact re-rank: its pieces against references, and its coverage under errors of many kinds."""

import math

import numpy as np
import pytest

from gindex.exact.certificate import Certificate
from gindex.exact.certification import (
    FREEDOMS,
    HIGHEST,
    Errors,
    Known,
    Outside,
    both_ends,
    certify,
    hidden,
    misses,
    possible_errors,
    survival,
)

PARTS, BEST = 600, 5

ERRORS = {
    "gaussian": lambda generator, _: generator.standard_normal(PARTS),
    "heavy tails": lambda generator, _: generator.standard_t(3, PARTS) / math.sqrt(3),
    "of many widths": lambda generator, _: (
        generator.standard_normal(PARTS) * np.exp(generator.standard_normal(PARTS) / 2)
    ),
    "skewed": lambda generator, _: generator.exponential(1, PARTS) - 1,
    "alike in groups": lambda generator, _: (
        0.7 * generator.standard_normal(30)[generator.integers(0, 30, PARTS)] + 0.7 * generator.standard_normal(PARTS)
    ),
    "wider for what matters": lambda generator, cosines: generator.standard_normal(PARTS) * (0.5 + np.abs(cosines)),
}
"""Kinds of errors: of a generator and of the cosines that they are added to."""


def world(generator, errors, wide=0.3):
    """Influence, scores and sizes of parts, a few of which have much influence."""
    sizes, cosines = np.exp(generator.standard_normal(PARTS) / 2), 0.1 * generator.standard_normal(PARTS)
    cosines[generator.choice(PARTS, 12, replace=False)] += 0.6 + np.abs(generator.standard_normal(12))
    scores = sizes * (cosines + wide * ERRORS[errors](generator, cosines))
    return 1.7 * sizes * cosines, scores, sizes


def re_ranked(influence, scores, sizes, candidates):
    """Certificate where the best by score are re-ranked, and whether it is true that none was missed."""
    order = np.argsort(-scores, kind="stable")
    first, rest = order[:candidates], order[candidates:]
    least = np.sort(influence[first])[-BEST]
    known = Known(influence_M=influence[first], scores_M=scores[first], sizes_M=sizes[first])
    outside = Outside(scores_R=scores[rest], sizes_R=sizes[rest], counts_R=np.ones(len(rest)))
    return certify(known, outside, least, BEST), bool(influence[rest].max(initial=-np.inf) <= least)


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_survival_is_the_integral_of_students_density(freedom):
    far = np.exp(np.linspace(math.log(1e-4), math.log(1e5), 200001))
    constant = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - 0.5 * math.log(freedom * math.pi)
    density = np.exp(constant - (freedom + 1) / 2 * np.log1p(far**2 / freedom))
    above = np.concatenate([np.cumsum((np.diff(far) * (density[1:] + density[:-1]) / 2)[::-1])[::-1], [0.0]])
    # 1e-6: the trapezoids' error, and what lies beyond the last of them.
    np.testing.assert_allclose(survival(far, freedom), above, rtol=1e-6, atol=2e-10)
    np.testing.assert_allclose(survival(-far, freedom), 1 - above, rtol=1e-6)
    assert survival(np.zeros(1), freedom)[0] == 0.5


@pytest.mark.parametrize("freedom", [3, 8, 1000])
def test_slope_and_scale_of_known_errors_are_found(freedom):
    generator = np.random.default_rng(1)
    sizes, scores = np.exp(generator.standard_normal(4000)), generator.uniform(0, 9, 4000)
    influence = 2 * scores + 0.5 * sizes * generator.standard_t(freedom, 4000)
    laws = list(possible_errors(influence, scores, sizes))
    assert math.fsum(law.weight for law in laws) == pytest.approx(1)
    # 2,000 parts count: their slope and scale are known to some 5%, and errors alike have tails alike.
    assert sum(law.weight * law.slope for law in laws) == pytest.approx(2, rel=0.05)
    chance = sum(law.weight * survival(np.array([2.0 / law.scale]), law.freedom)[0] for law in laws)
    assert chance == pytest.approx(float((generator.standard_t(freedom, 10**6) > 4).mean()), rel=0.5, abs=3e-5)


@pytest.mark.parametrize("errors", ERRORS)
def test_a_stated_probability_holds(errors):
    """Of 150 searches, no fewer missed nothing than the probabilities say; nor of those with a high one."""
    generator, stated, held = np.random.default_rng(7), [], []
    for _ in range(50):
        drawn = world(generator, errors)
        for candidates in (40, 100, 250):
            certificate, is_true = re_ranked(*drawn, candidates)
            stated.append(certificate.probability)
            held.append(is_true)
    probabilities, truth = np.array(stated), np.array(held)
    # Two standard errors of the count of 150 draws, and of those with a high probability.
    deviation = 2 * math.sqrt((probabilities * (1 - probabilities)).sum())
    assert truth.sum() >= probabilities.sum() - deviation
    high = probabilities >= 0.9
    assert truth[high].sum() >= 0.9 * high.sum() - 2 * math.sqrt(0.09 * high.sum())


def test_small_errors_make_it_all_but_certain_and_large_ones_do_not():
    generator = np.random.default_rng(2)
    sure = [re_ranked(*world(generator, "gaussian", wide=0.01), 100) for _ in range(10)]
    assert all(certificate.probability > 0.99 and is_true for certificate, is_true in sure)
    assert all(certificate.candidates is None for certificate, _ in sure)
    unsure = [re_ranked(*world(generator, "gaussian", wide=3.0), 30)[0] for _ in range(10)]
    assert all(certificate.probability < 0.2 and 30 < certificate.candidates <= PARTS for certificate in unsure)


def test_as_many_candidates_as_are_said_make_it_likely():
    generator, reached = np.random.default_rng(3), []
    for _ in range(30):
        drawn = world(generator, "gaussian", wide=0.2)
        first, _ = re_ranked(*drawn, 40)
        if first.candidates is not None:
            reached.append(re_ranked(*drawn, first.candidates)[0].probability)
    assert len(reached) > 5 and np.mean(reached) > 0.9  # an estimate: errors and last hit are not yet known


def test_a_sample_stands_for_all():
    generator = np.random.default_rng(4)
    influence, scores, sizes = world(generator, "gaussian", wide=0.2)
    order = np.argsort(-scores)
    known = Known(influence_M=influence[order[:80]], scores_M=scores[order[:80]], sizes_M=sizes[order[:80]])
    rest, least = order[80:], np.sort(influence[order[:80]])[-BEST]
    thrice = np.tile(rest, 3)
    all_of_them = Outside(scores_R=scores[thrice], sizes_R=sizes[thrice], counts_R=np.ones(len(thrice)))
    a_third = Outside(scores_R=scores[rest], sizes_R=sizes[rest], counts_R=np.full(len(rest), 3.0))
    whole, sampled = certify(known, all_of_them, least, BEST), certify(known, a_third, least, BEST)
    assert sampled.probability == pytest.approx(whole.probability, rel=1e-9) and 0 < whole.probability < HIGHEST
    assert (sampled.outside, sampled.candidates) == (whole.outside, whole.candidates)


def test_parts_whose_scores_scatter_are_thought_hidden():
    """Scores of the best that scatter widely below their influence, where those of all others do not."""
    generator = np.random.default_rng(5)
    influence = np.concatenate([np.full(10, 10.0), generator.uniform(0, 3, 90)])
    close, wide = (
        influence + np.concatenate([spread * generator.standard_normal(10), np.zeros(90)]) for spread in (0.1, 3.0)
    )
    cuts, ones = np.array([0.0, 2.0, 5.0]), np.ones(100)
    few, many = (
        hidden(Known(influence_M=influence, scores_M=scores, sizes_M=ones), cuts, 10) for scores in (close, wide)
    )
    assert few[-1] < 1e-4 and many[-1] > 0.3 and (np.diff(many) > 0).all()
    # Of parts with scores of t about 10, as wide, of nine deviations: those below the cut, over those above it.
    generator, drawn = np.random.default_rng(6), []
    for _ in range(400):
        scores = 10 + 3 * generator.standard_normal(10)
        known = Known(influence_M=influence, scores_M=np.concatenate([scores, influence[10:]]), sizes_M=ones)
        drawn.append(hidden(known, np.array([5.0]), 10)[0])
    truth = 10 * survival(np.array([5 / 3]), 80)[0]
    assert truth < np.mean(drawn) < 3 * truth  # cautious: the scatter is estimated from ten


def test_a_score_below_zero_predicts_no_less_than_zero():
    law = Errors(weight=1.0, slope=1.0, scale=1.0, freedom=4)
    outside = Outside(scores_R=np.array([-9.0, 0.0, 1.0]), sizes_R=np.ones(3), counts_R=np.ones(3))
    below, zero, above = misses(law, outside, 2.0)
    assert below == zero == pytest.approx(-math.log1p(-survival(np.array([2.0]), 4)[0])) and above > zero


def test_what_cannot_be_known_is_said():
    everything = Outside(scores_R=np.zeros(0), sizes_R=np.zeros(0), counts_R=np.zeros(0))
    some = Outside(scores_R=np.ones(9), sizes_R=np.ones(9), counts_R=np.full(9, 2.0))
    few, many = (
        Known(influence_M=np.arange(n) + 1.0, scores_M=np.arange(n) + 1.0, sizes_M=np.ones(n)) for n in (10, 40)
    )
    assert certify(few, everything, -np.inf, 5) == Certificate(probability=1.0, outside=0)
    assert certify(few, some, 5.0, 5) == Certificate(probability=0.0, outside=18, candidates=28)
    assert certify(many, some, -np.inf, 5) == Certificate(probability=0.0, outside=18, candidates=58)
    assert certify(many, some, 36.0, 5) == Certificate(
        probability=HIGHEST, outside=18
    )  # influence is the score, exactly


def test_parts_without_a_gradient_have_no_influence():
    known = Known(
        influence_M=np.concatenate([np.arange(40) + 1.0, np.zeros(40)]),
        scores_M=np.concatenate([np.arange(40) + 1.0, np.zeros(40)]),
        sizes_M=np.concatenate([np.ones(40), np.zeros(40)]),
    )
    nothing = Outside(scores_R=np.zeros(5), sizes_R=np.zeros(5), counts_R=np.ones(5))
    assert certify(known, nothing, 36.0, 5).probability == HIGHEST
    assert certify(known, nothing, -3.0, 5).probability < 1e-9  # 0 is more than the last hit


def test_both_ends_must_hold():
    one, other = (
        Certificate(probability=0.9, outside=5, candidates=40),
        Certificate(probability=0.5, outside=6, candidates=90),
    )
    assert both_ends([one, other]) == Certificate(probability=0.45, outside=6, candidates=90)
    assert both_ends([Certificate(probability=0.97, outside=3)] * 1) == Certificate(probability=0.97, outside=3)
