"""Queries in blocks and groups: how many are held, in which form, and that influence is the same."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.exact.rerank import Reranker, middling_first
from gindex.progress import Silent
from gindex.queries.tokens import QueryTokens
from gindex.vectors.held_gradients import RoundedGradients, rounded, rounded_bytes, whole, whole_bytes

ROUNDING = 1e-2
"""Of the spread of a query's influence: what decision 0017 states of queries that are rounded."""

SUMS = 1e-5
"""Of the largest influence: sums of float32 in another order. Measured 3e-7."""


@pytest.fixture(scope="module")
def queries(index):
    """Seven queries: from 2 tokens to all that the model takes, one of one token alone, one of three texts."""
    longest = index.model.tracked.loaded.max_tokens
    numbers = np.random.default_rng(0)
    ids = [numbers.integers(5, 60, count) for count in (5, 2, longest, 1, 9, 30)]
    weighted = zip(ids[:3], (1, -2, 0.5), strict=True)
    several = Objective(tuple(WeightedTokens.counting(part).times(weight) for part, weight in weighted))
    return [*(QueryTokens(Objective.counting(part)) for part in ids), QueryTokens(several)]


@pytest.fixture(scope="module")
def parts(index):
    return index.snapshot.usable_parts[:40]


@pytest.fixture(scope="module")
def make_reranker(index):
    def make(block_bytes: int = 1 << 30, batch_tokens: int = 0) -> Reranker:
        model, manifest = index.model, index.manifest
        table = index.snapshot.documents
        return Reranker(model.tracked, model.factors, manifest.damping.exact, table, batch_tokens, block_bytes)

    return make


@pytest.fixture(scope="module")
def expected(make_reranker, queries, parts):
    """Influence [Q, N], each query for itself and whole."""
    return np.stack([make_reranker().influence([query], [parts], Silent())[0] for query in queries])


@pytest.fixture(scope="module")
def sizes(index):
    """Bytes of a query that is held whole, and of one that is rounded."""
    model = index.model.tracked
    of_model = model.table.layers, model.factor_formats, model.device
    return whole_bytes(*of_model), rounded_bytes(*of_model)


def test_as_few_blocks_as_fit_and_rounded_only_where_that_makes_fewer(make_reranker, sizes):
    one, small = sizes
    assert one / 4 < small < 0.3 * one  # a step for each run of a row beside a byte a value
    for room, queries, count, hold in (
        (7 * one, 7, 1, whole),
        (7 * one - 1, 7, 1, rounded),
        (3 * small, 7, 3, rounded),
        (32 * small, 32, 1, rounded),
        (one, 1, 1, whole),
        (one - 1, 1, 1, rounded),
        (small, 2, 2, rounded),
        (small - 1, 2, 2, whole),  # one query is always taken
        (1, 500, 500, whole),
        (one, 0, 0, whole),
    ):
        blocks = make_reranker(room).blocks(queries)
        assert len(blocks.slices) == count and blocks.hold == hold
        assert [n for block in blocks.slices for n in range(queries)[block]] == list(range(queries))
        if room >= small:
            size = one if hold is whole else small
            assert all(len(range(queries)[block]) * size <= room for block in blocks.slices)
    assert len(make_reranker(2 * one).blocks(2, more_bytes=one).slices) == 2


@pytest.mark.parametrize("share", [1e-9, 0.9, 2.1, 4.0])  # of the bytes of one whole query
@pytest.mark.parametrize("batch_tokens", [8, 0])
def test_neither_blocks_nor_groups_nor_rounding_matter(
    make_reranker, queries, parts, expected, sizes, share, batch_tokens
):
    """Queries that are padded alone, or together; held one at a time, or all; whole, or rounded."""
    reranker = make_reranker(int(share * sizes[0]), batch_tokens)
    found = np.stack(reranker.influence(queries, [parts] * len(queries), Silent()))
    if reranker.blocks(len(queries)).hold is whole:
        np.testing.assert_allclose(found, expected, rtol=0, atol=SUMS * float(np.abs(expected).max()))
        return
    assert (found != expected).any()
    assert ((found - expected).std(1) <= ROUNDING * expected.std(1)).all()


def test_a_query_without_a_gradient_has_no_influence(make_reranker, queries, parts, sizes):
    """One token, which nothing predicts; and a contrast of a text with itself."""
    same = WeightedTokens.counting(np.arange(5, 20), 1)
    contrast = QueryTokens(Objective((same, same.times(-1))))
    for share in (1.0, 8.0):
        found = make_reranker(int(share * sizes[0])).influence([queries[3], contrast], [parts] * 2, Silent())
        assert not found[0].any()
        # Both texts pass in one batch: what is left is rounding of sums, beside an influence of 1e2.
        assert np.abs(found[1]).max() < 1e-3


def test_a_query_of_more_texts_than_a_batch_is_the_sum_of_theirs(make_reranker, queries, parts):
    reranker = make_reranker(batch_tokens=8)
    several = queries[-1]
    alone = [
        reranker.influence([QueryTokens(Objective((text,)))], [parts], Silent())[0] for text in several.objective.texts
    ]
    found = reranker.influence([several], [parts], Silent())[0]
    np.testing.assert_allclose(found, np.sum(alone, 0), rtol=0, atol=SUMS * float(np.abs(alone).max()))


def test_hundreds_of_queries_at_once_are_answered_as_each_alone(make_reranker, queries, parts, expected, sizes):
    """In many blocks, and with all in one: 504 queries."""
    many, repeats = queries * 72, 72
    for room, blocks in ((130 * sizes[1], 4), (504 * sizes[0], 1)):
        reranker = make_reranker(room)
        assert len(reranker.blocks(len(many)).slices) == blocks
        found = np.stack(reranker.influence(many, [parts[:8]] * len(many), Silent()))
        error, spread = found - np.tile(expected[:, :8], (repeats, 1)), np.tile(expected.std(1), repeats)
        assert (np.abs(error).max(1) <= 3 * ROUNDING * spread).all()


class Told(Silent):
    """A progress that keeps what is announced."""

    def __init__(self):
        self.announced = []

    def expect(self, name, seconds):
        self.announced.append((name, seconds))


def test_a_long_rerank_is_announced_before_it_starts_and_a_short_one_is_not(make_reranker, queries, parts, monkeypatch):
    short, long, held = Told(), Told(), {}
    make_reranker().influence(queries, [parts] * len(queries), short)
    assert not short.announced
    monkeypatch.setattr("gindex.progress.LONG_SECONDS", 0.0)
    for some in (parts[:10], parts):  # what is held costs nothing again, and what is left was announced
        make_reranker().influence(queries, [some] * len(queries), long, held)
    ((name, seconds),) = long.announced
    assert name == "exact influence of 10 parts" and seconds > 0
    make_reranker().influence(queries, [parts] * len(queries), Silent())  # which does not want to know


def test_no_more_is_held_than_is_said(make_reranker, queries, sizes):
    held = make_reranker().precondition(queries, Silent(), RoundedGradients.of)
    taken = sum(
        tensor.numel() * tensor.element_size()
        for one in held.values()
        if isinstance(one, RoundedGradients)
        for tensor in (one._rounded, one._steps)
    )
    assert taken == len(queries) * sizes[1]
    assert all(one.shape[0] == len(queries) and one.dtype == torch.float32 for one in held.values())


@given(st.lists(st.integers(1, 512), max_size=60))
def test_a_small_share_of_documents_of_middling_length_is_passed_first(lengths):
    first, rest = middling_first(np.array(lengths, np.int64))
    assert sorted([*first, *rest]) == list(range(len(lengths)))
    tokens = sum(lengths[n] for n in first)
    assert tokens <= sum(lengths) / 20
    if len(first):
        middle = sorted(lengths)[len(lengths) // 2]
        assert tokens >= 128 and middle in [lengths[n] for n in first] and all(lengths[n] >= middle for n in first)
