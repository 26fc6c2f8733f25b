"""The losses of parts survive the table, bit for bit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.corpus.contents import Content
from gindex.corpus.objectives import Objective, Preference, WeightedTokens
from gindex.documents.losses import PLAIN, to_file, to_objective, to_row, to_tokens
from gindex.errors import ShapeError

WEIGHTS = st.sampled_from([0.0, 1.0, 0.25, -3.5, 1e-20])


@st.composite
def texts(draw) -> WeightedTokens:
    weights = draw(st.lists(WEIGHTS, min_size=1, max_size=30))
    weights[0] = 0.0
    kind = draw(st.sampled_from(["as drawn", "mask", "plain", "one weight"]))
    found = np.array(weights, np.float32)
    if kind == "mask":
        found = (found != 0).astype(np.float32)
    elif kind != "as drawn":
        found[1:] = 1 if kind == "plain" else 0.3
    ids = draw(st.lists(st.integers(0, 2**32 - 1), min_size=len(found), max_size=len(found)))
    return WeightedTokens(np.array(ids, np.uint32), found)


@st.composite
def labelled(draw) -> WeightedTokens:
    """A text with labels of one value or several, or of two texts, or both."""
    text = draw(texts())
    weights = np.array([draw(WEIGHTS), *text.weights[1:]], np.float32)
    count, values = int(np.count_nonzero(weights)), draw(st.integers(1, 3))
    numbers = st.floats(-1000, 1000, width=32)
    labels = draw(st.lists(numbers, min_size=count * values, max_size=count * values))
    second = draw(st.none() | st.integers(1, max(1, len(text) - 1))) if len(text) > 1 else None
    if draw(st.booleans()) and second is not None:  # a target
        weights[:second] = 0
        return WeightedTokens(text.ids, weights, None, second)
    return WeightedTokens(text.ids, weights, np.array(labels, np.float32).reshape(count, values), second)


@st.composite
def parts(draw) -> Objective:
    if draw(st.booleans()):
        return Objective((draw(texts() | labelled().filter(lambda text: text.counted.any())),))
    numbers = st.floats(-10, 10, width=64)
    preference = Preference(beta=draw(numbers), reference=draw(numbers), weight=draw(numbers))
    return Objective((draw(texts()), draw(texts())), preference)


@given(parts())
def test_losses_come_back(part):
    row = to_row(part)
    found = to_objective(np.frombuffer(to_tokens(part), "<u4"), PLAIN if row is None else row)
    assert found.preference == part.preference and len(found.texts) == len(part.texts)
    for text, expected in zip(found.texts, part.texts, strict=True):
        assert text.ids.tolist() == expected.ids.tolist()
        assert text.weights.tobytes() == expected.weights.tobytes()
        assert text.question == expected.question and text.label_values == expected.label_values
    assert row is None or row[0] == part.targets


def test_a_picture_comes_back_with_its_file_and_label():
    content = Content("image/png", b"any bytes")
    part = Objective((WeightedTokens.of_content(content, 5, np.array([3], np.float32)),)).times(2)
    found = to_objective(np.frombuffer(to_tokens(part), "<u4"), to_row(part), to_file(part)).texts[0]
    assert (found.content, found.labels.tolist(), found.weights.tolist()) == (content, [[3]], [2, 0, 0, 0, 0])
    assert to_file(Objective.counting([3, 4])) is None


def test_a_plain_text_needs_no_row():
    assert to_row(Objective.counting([3, 4, 5])) is None and to_row(Objective.counting([3])) is None
    assert to_row(Objective.counting([3, 4, 5], first=2)) == (1, bytes([0b100]), *[None] * 7)


@pytest.mark.parametrize(
    "row",
    [
        (2, bytes([0b110, 0]), None, None, None, None, None),  # bits of more tokens
        (1, bytes([0b110]), None, None, None, None, None),  # another number of tokens that count
        (2, bytes([0b110]), np.ones(3, "<f4").tobytes(), None, None, None, None),  # more weights
        (2, None, None, 3, 0.1, 0.0, 1.0),  # a rejected text without tokens
    ],
)
def test_a_row_of_other_tokens(row):
    with pytest.raises(ShapeError):
        to_objective(np.array([1, 2, 3], np.uint32), (*row, None, None))


@pytest.mark.parametrize(
    ("labels", "second"),
    [
        (bytes(4), None),  # of two tokens that count there are two labels
        (bytes(9), None),
        (b"", None),
        (None, 2),  # the text that is read would count
        (bytes(8), 3),
    ],
)
def test_labels_that_do_not_fit(labels, second):
    row = (2, bytes([0b110]), None, None, None, None, None, labels, second)
    with pytest.raises(ShapeError):
        to_objective(np.array([1, 2, 3], np.uint32), row)
