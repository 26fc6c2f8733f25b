"""Candidates scored by the stored vectors: leaving some of them out finds what scoring all of them does."""

import numpy as np
import pytest
import torch

from gindex.search import rescorer as module
from gindex.search.rescorer import Rescorer, may_reach
from gindex.search.scan import scan


@pytest.fixture(params=[1, 4, 16])
def bits_reader(request, make_reader):
    """Stored vectors of some bits."""
    return make_reader(2000, bits=request.param)


def noisy_candidates(reader, queries, error: float, count: int = 600):
    """Candidates by scores in another scale, of which the errors are so many standard deviations of the scores."""
    ordinals, scores = scan(reader, queries, reader.spec.parts)
    noise = error * scores.std() * np.random.default_rng(0).standard_normal(scores.shape)
    approximate = (3 * (scores + noise)).astype(np.float32)
    order = np.argsort(-approximate, axis=1)[:, :count]
    return list(zip(np.take_along_axis(ordinals, order, 1), np.take_along_axis(approximate, order, 1), strict=True))


@pytest.mark.parametrize("error", [0.0, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("k", [1, 10, 300])
def test_looking_twice_finds_what_scoring_all_of_them_does(bits_reader, queries, error, k, monkeypatch):
    candidates = noisy_candidates(bits_reader, queries, error)
    common = np.array([7, 3, *range(100, 160)])
    rescorer = Rescorer(bits_reader, queries, None)
    assert len(queries) * 600 >= module.LOOK_TWICE
    twice = rescorer.best(candidates, k, common)
    monkeypatch.setattr(module, "LOOK_TWICE", 1 << 30)
    once = rescorer.best(candidates, k, common)
    found = [len(np.intersect1d(a.ordinals, b.ordinals)) / k for a, b in zip(twice, once, strict=True)]
    assert np.mean(found) >= 0.995
    for query, (a, b) in enumerate(zip(twice, once, strict=True)):
        parts = np.union1d(candidates[query][0], common)
        expected, scores = scan(bits_reader, queries[query : query + 1], k, parts=parts)
        assert b.ordinals.tolist() == expected[0].tolist()
        assert np.allclose(b.scores, scores[0], rtol=1e-5, atol=1e-5 * np.abs(scores).max())
        assert len(np.unique(a.ordinals)) == len(a.ordinals) == k and (np.diff(a.scores) <= 0).all()


def test_what_cannot_be_among_the_best_is_not_read(make_reader, queries):
    reader = make_reader(2000, bits=1)
    candidates = noisy_candidates(reader, queries, 0.05)
    read = []

    class Counting(Rescorer):
        def _scores(self, own):
            read.append(sum(map(len, own)))
            return super()._scores(own)

    Counting(reader, queries, None).best(candidates, 10, np.zeros(0, np.int64))
    assert read[0] == 20 * 200 and read[1] < 20 * 40


def test_with_weights_every_candidate_counts(make_reader, queries):
    reader = make_reader(2000, bits=1)
    weights = np.random.default_rng(1).random(2000).astype(np.float32)
    candidates = [(ordinals[::-1].copy(), scores) for ordinals, scores in noisy_candidates(reader, queries, 0.05)]
    found = Rescorer(reader, queries, weights).best(candidates, 10, np.array([5, 2]))
    for query, best in enumerate(found):
        parts = np.union1d(candidates[query][0], [2, 5])
        expected, _ = scan(reader, queries[query : query + 1], 10, parts=parts, weights=weights)
        assert best.ordinals.tolist() == expected[0].tolist()


def test_fewer_candidates_than_asked_for(make_reader, queries):
    reader = make_reader(2000, bits=1)
    none = (np.zeros(0, np.int64), np.zeros(0, np.float32))
    found = Rescorer(reader, queries, None).best([none] * len(queries), 10, np.array([4]))
    assert [best.ordinals.tolist() for best in found] == [[4]] * len(queries)
    assert not len(Rescorer(reader, queries[:1], None).best([none], 10, np.zeros(0, np.int64))[0].ordinals)


@pytest.mark.parametrize(("least", "expected"), [(1.0, [True, True]), (2.5, [True, False]), (100.0, [False, False])])
def test_may_reach_goes_by_slope_and_error(least, expected):
    known = np.array([4.0, 6.0], np.float32)
    exact = np.array([2.1, 2.9], np.float32)  # slope .496, errors .116 and .077, their root mean square .098
    assert may_reach(least, np.array([4.6, 4.0], np.float32), known, exact).tolist() == expected


def test_may_reach_without_any_signal():
    nothing = np.zeros(3, np.float32)
    assert may_reach(1.0, np.ones(2, np.float32), nothing, np.ones(3, np.float32)).all()


@pytest.mark.parametrize("count", [1, 300, 700])
def test_threads_share_the_rows_of_one_query(make_reader, queries, count, monkeypatch):
    reader = make_reader(2000, bits=1)
    monkeypatch.setattr(module, "threads", lambda: 4)
    ordinals = np.random.default_rng(2).permutation(2000)[:count]
    scores = Rescorer(reader, queries[:1], None).best([(ordinals, np.zeros(count, np.float32))], count, ordinals[:0])[0]
    expected = scan(reader, queries[:1], count, parts=np.sort(ordinals))
    assert scores.ordinals.tolist() == expected[0][0].tolist()
    assert torch.equal(torch.from_numpy(scores.scores), torch.from_numpy(expected[1][0]))


@pytest.mark.parametrize("scale", [1.0, 1e18])
def test_may_reach_in_any_unit(scale):
    generator = np.random.default_rng(3)
    known = generator.standard_normal(50).astype(np.float32) + 5
    exact = known + 0.1 * generator.standard_normal(50).astype(np.float32)
    asked = np.linspace(0, 9, 40).astype(np.float32)
    found = may_reach(scale * 6.0, np.float32(scale) * asked, np.float32(scale) * known, np.float32(scale) * exact)
    assert found.tolist() == may_reach(6.0, asked, known, exact).tolist() and 0 < found.sum() < 40
