"""Parts of long documents and of packed sequences: each token that counts does so once, where training had it."""

import copy
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.packing import Packer
from gindex.corpus.records import Document
from gindex.corpus.tokens import cut, windows
from gindex.errors import ConfigError, CorpusError


@st.composite
def masks(draw):
    return np.array([False, *draw(st.lists(st.booleans(), min_size=1, max_size=60))])


@given(counted=masks(), max_tokens=st.integers(2, 20), overlap=st.integers(1, 19))
def test_a_token_that_counts_does_so_once(counted, max_tokens, overlap):
    overlap = min(overlap, max_tokens - 1)
    found = windows(counted, max_tokens, overlap)
    own = [n for w in found for n in range(max(w.first, w.start + 1), w.end) if counted[n]]
    assert own == np.flatnonzero(counted).tolist()
    for w in found:
        assert 0 <= w.start <= w.first < w.end <= w.start + max_tokens
        assert counted[w.end - 1], "nothing after the last token that counts is read"


@given(n=st.integers(2, 60), max_tokens=st.integers(2, 20), overlap=st.integers(1, 19))
def test_parts_of_a_text_begin_with_the_end_of_the_part_before(n, max_tokens, overlap):
    overlap = min(overlap, max_tokens - 1)
    counted = np.arange(n) > 0
    found = windows(counted, max_tokens, overlap)
    for before, w in pairwise(found):
        assert w.first == before.end and w.start == before.end - overlap
    assert all(w.end - w.start == max_tokens for w in found[:-1])


def test_a_prompt_is_kept_as_far_as_there_is_room():
    counted = np.arange(30) >= 24
    (w,) = windows(counted, 10, 1)
    assert (w.start, w.end) == (20, 30)  # the answer of 6 tokens, and the 4 before it
    long = windows(np.arange(40) >= 10, 10, 2)
    assert (long[0].start, long[0].end) == (5, 15)  # half for the prompt, where the answer alone is too long
    assert [(w.start, w.first, w.end) for w in long[1:]] == [(13, 15, 23), (21, 23, 31), (29, 31, 39), (37, 39, 40)]


@given(lengths=st.lists(st.integers(1, 25), min_size=1, max_size=12), size=st.integers(2, 20), seed=st.integers(0, 99))
def test_packed_documents_add_up_to_their_sequences(lengths, size, seed):
    """Of a sequence's tokens each but the first counts in one part: that of its own document, read up to there."""
    generator = np.random.default_rng(seed)
    packer, stream, owners, counts = Packer(size), [], [], {}
    documents = [generator.integers(0, 50, n).tolist() for n in lengths]
    for number, ids in enumerate(documents):
        begin = len(stream)
        stream += ids
        owners += [number] * len(ids)
        parts = packer.add(ids, [(n, n + 1) for n in range(len(ids))], np.ones(len(ids), np.float32))
        for part in parts:
            (text,) = part.objective.texts
            at = begin + part.start
            sequence = at // size * size
            assert text.ids.tolist() == stream[sequence : begin + part.end]
            for n in np.flatnonzero(text.counted):
                assert owners[sequence + n] == number
                counts[sequence + int(n)] = counts.get(sequence + int(n), 0) + 1
    assert counts == {n: 1 for n in range(len(stream)) if n % size}


def test_a_document_that_begins_a_sequence_has_nothing_to_predict_its_first_token():
    packer = Packer(4)
    (first,) = packer.add([1, 2], [(0, 1), (1, 2)], np.ones(2, np.float32))
    (second,) = packer.add([3, 4], [(0, 1), (1, 2)], np.ones(2, np.float32))
    assert first.objective.texts[0].weights.tolist() == [0, 1]
    assert second.objective.texts[0].ids.tolist() == [1, 2, 3, 4]
    assert second.objective.texts[0].weights.tolist() == [0, 0, 1, 1]


def test_an_end_of_text_stands_between_packed_texts(small_tokenizer):
    tokenizer = copy.deepcopy(small_tokenizer)
    tokenizer.add_special_tokens({"eos_token": "</s>"})
    encoder = DocumentEncoder(tokenizer, CorpusConfig(pack=16))
    one, two = (Document(document_id=str(n), text=text, metadata={}) for n, text in enumerate(["the stack", "a bug"]))
    first, second = encoder.encode([one, two])
    (part,) = second.parts
    ids = part.objective.texts[0].ids.tolist()
    end = tokenizer.eos_token_id
    whole = [*tokenizer("the stack").input_ids, end, *tokenizer("a bug").input_ids, end]
    assert ids == whole
    assert first.parts[0].objective.targets + part.objective.targets == len(whole) - 1


def test_weights_are_multiplied(small_tokenizer):
    encoder = DocumentEncoder(small_tokenizer, CorpusConfig())
    (found,) = encoder.encode([Document(document_id="x", text="the stack", metadata={}, weight=-2.5)])
    weights = found.parts[0].objective.texts[0].weights
    assert set(weights[1:].tolist()) == {-2.5} and weights[0] == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"pack": 16, "max_tokens": 8},
        {"pack": 16, "overlap": 4},
        {"max_tokens": 8, "overlap": 8},
        {"pack": 1},
        {"overlap": 0},
        {"beta": 0},
        {"form": "tables"},
    ],
)
def test_settings_that_contradict_each_other(settings):
    with pytest.raises(ConfigError):
        CorpusConfig(**settings)


def test_one_weight_per_token():
    with pytest.raises(Exception, match="one per token"):
        cut([1, 2], [(0, 1), (1, 2)], np.ones(3, np.float32), 5)


def test_a_preference_is_never_packed():
    encoder = DocumentEncoder(SimpleNamespace(is_fast=True), CorpusConfig(pack=8))
    document = Document(document_id="x", text="", metadata={}, form="preference", content={"chosen": "a"})
    with pytest.raises(CorpusError, match="leave `pack` out"):
        encoder.encode([document])
