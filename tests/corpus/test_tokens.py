"""Cutting predicts every token once; tokenising keeps offsets and all tokens."""

import logging
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.corpus.tokens import cut, tokenize
from gindex.errors import ConfigError, ShapeError, TokenizerError
from tests.support.objectives import first_counted, ids_of


def words(n: int) -> list[tuple[int, int]]:
    """Offsets of n three-letter words with a space between."""
    return [(4 * i, 4 * i + 3) for i in range(n)]


def counting(n):
    """Weights of a text all of whose tokens count, but the first."""
    weights = np.ones(n, np.float32)
    weights[:1] = 0
    return weights


@given(n=st.integers(2, 60), max_tokens=st.integers(2, 20))
def test_every_token_but_the_first_is_predicted_once(n, max_tokens):
    tokens = list(range(100, 100 + n))
    parts = cut(tokens, words(n), counting(n), max_tokens)
    predicted = [int(token) for part in parts for token in ids_of(part)[1:]]
    assert predicted == tokens[1:]
    assert [part.part for part in parts] == list(range(len(parts)))


@given(n=st.integers(2, 60), max_tokens=st.integers(2, 20))
def test_parts_are_short_and_begin_with_the_token_before(n, max_tokens):
    parts = cut(range(n), words(n), counting(n), max_tokens)
    assert all(len(part.objective) <= max_tokens and ids_of(part).dtype == np.uint32 for part in parts)
    assert all(len(part.objective) == max_tokens for part in parts[:-1])
    assert all(first_counted(part) == 1 for part in parts[: len(parts) - (n == 1)])
    for before, part in pairwise(parts):
        assert ids_of(part)[0] == ids_of(before)[-1]
        assert len(part.objective) > 1


@given(n=st.integers(2, 60), max_tokens=st.integers(2, 20))
def test_offsets_are_those_of_the_parts_own_tokens(n, max_tokens):
    offsets = words(n)
    for part in cut(range(n), offsets, counting(n), max_tokens):
        own = ids_of(part)[part.part > 0 :]
        assert (part.start, part.end) == (offsets[own[0]][0], offsets[own[-1]][1])


def test_a_document_of_one_token_has_no_part():
    assert cut([7], [(0, 3)], counting(1), 5) == []


def test_no_tokens_give_no_parts():
    assert cut([], [], counting(0), 5) == []


def test_special_tokens_have_no_text():
    begin_end = [(0, 0), (1, 2), (3, 4), (0, 0)]
    (part,) = cut([1, 2, 3, 4], begin_end, counting(4), 4)
    assert (part.start, part.end) == (1, 4)
    *_, last = cut([1, 2, 3, 4], begin_end, counting(4), 3)
    assert (last.start, last.end) == (4, 4)


def test_one_offset_per_token():
    with pytest.raises(ShapeError, match="expected one per token, 2, found 1"):
        cut([1, 2], [(0, 1)], counting(2), 4)


def test_parts_must_have_room_for_a_target():
    with pytest.raises(ConfigError, match="at least 2, found 1"):
        cut([1, 2], [(0, 1), (1, 2)], counting(2), 1)


def test_tokenize_gives_ids_and_offsets(tokenizer):
    assert tokenize(tokenizer, ["a  b", "one"]) == [([2, 3], [(0, 1), (3, 4)]), ([7], [(0, 3)])]


def test_tokenize_adds_special_tokens(beginning_tokenizer):
    assert tokenize(beginning_tokenizer, ["a"]) == [([1, 2], [(0, 0), (0, 1)])]


def test_long_text_is_neither_truncated_nor_warned_about(tokenizer, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    tokenizer.verbose = True
    tokenizer.backend_tokenizer.enable_truncation(2)
    ((ids, _),) = tokenize(tokenizer, ["a b c d e a b"])
    assert len(ids) == 7 > tokenizer.model_max_length
    assert not caplog.records


def test_tokenizer_without_offsets_is_refused():
    class Slow:
        is_fast = False

        def __call__(self, text, /, **options):
            raise AssertionError

    with pytest.raises(TokenizerError, match="found Slow"):
        tokenize(Slow(), ["a"])
