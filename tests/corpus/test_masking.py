"""Which tokens are masked depends on the seed and on the tokens alone; parts have their own beginnings and ends."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.config import CorpusConfig
from gindex.corpus.labelled_words import WordEncoder
from gindex.corpus.labels import Labels
from gindex.corpus.masking import MaskedEncoder, drawn, marked
from gindex.corpus.records import Document
from gindex.errors import ConfigError
from tests.support.task_models import WORDS, word_tokenizer

TOKENIZER = word_tokenizer()


def document(text: str, name: str = "d") -> Document:
    return Document(document_id=name, text=text, metadata={})


def parts_of(text: str, most: int = 512, seed: int = 0, share: float = 0.15):
    encoder = MaskedEncoder(TOKENIZER, CorpusConfig(mask_share=share), most, seed)
    return encoder.encode([document("the a"), document(text, "e")])[1]


LONG = " ".join(np.random.default_rng(3).choice(WORDS, 50))


def test_what_is_masked_follows_from_seed_and_tokens():
    first, again, other = parts_of(LONG), parts_of(LONG), parts_of(LONG, seed=1)
    places = [np.flatnonzero(of.parts[0].objective.texts[0].counted).tolist() for of in (first, again, other)]
    assert places[0] == places[1] != places[2]
    assert len(places[0]) == round(0.15 * 50)
    assert not {0, 51} & set(places[0])  # [CLS] and [SEP]
    text = first.parts[0].objective.texts[0]
    ids = np.array(TOKENIZER(LONG).input_ids)
    assert (text.ids[text.counted] == TOKENIZER.mask_token_id).all() and (text.ids == ids)[~text.counted].all()
    assert text.labels[:, 0].tolist() == ids[text.counted].tolist()


@pytest.mark.parametrize("most", [3, 7, 52, 60])
def test_every_part_has_a_beginning_and_an_end(most):
    found = parts_of(LONG, most)
    ids = TOKENIZER(LONG).input_ids[1:-1]
    done = []
    for part in found.parts:
        text = part.objective.texts[0]
        read = text.ids.copy()
        read[text.counted] = text.labels[:, 0]
        assert len(read) <= most and (read[0], read[-1]) == (2, 3) and text.counted.any()
        done += read[1:-1].tolist()
    assert done == ids
    assert "".join(LONG[p.start : p.end].replace(" ", "") for p in found.parts) == LONG.replace(" ", "")


def test_a_part_without_room_is_refused():
    with pytest.raises(ConfigError, match="more than 2, which the tokenizer puts around a text"):
        parts_of(LONG, 2)


def test_a_text_of_special_tokens_has_no_part():
    assert parts_of("[MASK] [SEP]").parts == []
    assert len(parts_of("[MASK] the").parts[0].objective.texts[0].labels) == 1


@given(st.integers(0, 40), st.floats(0.01, 1), st.integers(0, 5))
def test_the_share_that_is_masked(count, share, seed):
    ids = np.arange(count + 2, dtype=np.uint32)
    may_be = np.arange(1, count + 1)
    places = drawn(ids, may_be, share, seed)
    assert len(places) == (min(count, max(1, round(share * count))) if count else 0)
    assert set(places.tolist()) <= set(may_be.tolist()) and places.tolist() == sorted(set(places.tolist()))


def test_marks():
    text = "the stack of a kernel"
    assert marked(text, [(4, 9), (15, 21)], 0, 21) == "the [MASK: stack] of a [MASK: kernel]"
    assert marked(text, [(4, 9), (15, 21)], 10, 21) == "of a [MASK: kernel]"
    assert marked(text, [(3, 9)], 0, 12) == "the [MASK: stack] of"  # offsets of some tokenizers hold the space
    assert marked(text, [], 0, 21) == text


def test_masked_words_are_marked_in_every_part():
    found = parts_of(LONG, 20)
    spans = found.document.content["masked"]
    assert len(spans) == sum(part.objective.targets for part in found.parts)
    shown = [marked(LONG, spans, part.start, part.end) for part in found.parts]
    assert sum(text.count("[MASK: ") for text in shown) == len(spans)


def test_labelled_words_in_parts():
    """Each word counts once, in a part with its own beginning and end; the text has the labels."""
    words = [*["lock", "locker"] * 5, "the"]
    labels = ["O", "B-X", -100] * 3 + ["O", 1]
    record = {"words": words, "labels": labels}
    encoder = WordEncoder(TOKENIZER, Labels(names=("O", "B-X")), 8)
    (found,) = encoder.encode([Document(document_id="d", text="", metadata={}, form="words", content=record)])
    asked = [label for part in found.parts for label in part.objective.texts[0].labels[:, 0].tolist()]
    assert asked == [0.0, 1.0] * 3 + [0.0, 1.0]
    assert all(part.objective.texts[0].ids[[0, -1]].tolist() == [2, 3] for part in found.parts)
    assert found.document.text.startswith("lock locker/B-X lock locker lock/B-X")
    assert found.document.text[found.parts[-1].start : found.parts[-1].end].endswith("the/B-X")
