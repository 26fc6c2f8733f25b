"""Batches hold every part once, within the bound, with little padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.corpus.batches import form_batches, pad
from gindex.corpus.objectives import Objective
from gindex.errors import ShapeError
from tests.support.objectives import pad_tokens

LENGTHS = st.lists(st.integers(1, 40), max_size=60)


@given(lengths=LENGTHS, batch_tokens=st.integers(1, 100), seed=st.integers(0, 9))
def test_every_ordinal_once_and_batches_within_the_bound(lengths, batch_tokens, seed):
    ordinals = np.random.default_rng(seed).permutation(len(lengths)) + 1000
    length_of = dict(zip(ordinals.tolist(), lengths, strict=True))
    batches = form_batches(ordinals, lengths, batch_tokens)
    assert sorted(int(i) for batch in batches for i in batch) == sorted(ordinals.tolist())
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(length_of[int(i)] for i in batch) <= batch_tokens


@given(lengths=LENGTHS, batch_tokens=st.integers(1, 100), seed=st.integers(0, 9))
def test_batches_do_not_depend_on_the_order_given(lengths, batch_tokens, seed):
    order = np.random.default_rng(seed).permutation(len(lengths))
    straight = form_batches(np.arange(len(lengths)), lengths, batch_tokens)
    shuffled = form_batches(order, np.array(lengths, dtype=np.int64)[order], batch_tokens)
    assert [batch.tolist() for batch in straight] == [batch.tolist() for batch in shuffled]


@given(lengths=LENGTHS, batch_tokens=st.integers(1, 100))
def test_longest_first_and_full(lengths, batch_tokens):
    batches = form_batches(range(len(lengths)), lengths, batch_tokens)
    flat = [int(i) for batch in batches for i in batch]
    assert flat == sorted(flat, key=lambda i: (-lengths[i], i))
    for batch in batches[:-1]:
        # One more part, padded to the longest of the batch, would not have fitted.
        assert (len(batch) + 1) * lengths[int(batch[0])] > batch_tokens


def test_ties_are_ordered_by_ordinal():
    assert [batch.tolist() for batch in form_batches([5, 3, 4], [2, 2, 7], 8)] == [[4], [3, 5]]


def test_no_parts():
    assert form_batches([], [], 8) == []


def test_one_length_per_ordinal():
    with pytest.raises(ShapeError, match=r"expected one per ordinal, \(2,\), found \(1,\)"):
        form_batches([1, 2], [3], 8)


def test_pad():
    batch = pad_tokens([np.array([5, 6, 7], dtype=np.uint32), [8]], [4, 2], [1, 1])
    assert batch.tokens.tolist() == [[5, 6, 7], [8, 8, 8]]
    assert batch.lengths.tolist() == [3, 1]
    assert batch.ordinals.tolist() == [4, 2]
    assert batch.weights.tolist() == [[0, 1, 1], [0, 0, 0]] and batch.weights.dtype == np.float32
    assert {array.dtype for array in (batch.ordinals, batch.tokens, batch.lengths)} == {np.dtype(np.int64)}


def test_mask_and_targets():
    batch = pad_tokens([[5, 6, 7, 8], [9, 0], [3]], [0, 1, 2], [2, 1, 1])
    assert batch.mask.tolist() == [[True] * 4, [True, True, False, False], [True, False, False, False]]
    assert batch.targets.tolist() == [[False, False, True, True], [False, True, False, False], [False] * 4]


def test_pad_nothing():
    assert pad_tokens([], [], []).tokens.shape == (0, 0)


def test_one_ordinal_per_objective():
    with pytest.raises(ShapeError, match="one ordinal per objective, 2"):
        pad([Objective.counting([1]), Objective.counting([2])], [1])
