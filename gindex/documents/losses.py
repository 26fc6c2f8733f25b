"""How the losses of a part are stored, where not every token but the first counts alike.

A row of the table `losses` has, for a part:

    targets    how many of its tokens count
    counted    which do, a bit each, from the lowest of each byte; NULL where all but the first of each text do
    weights    their weights, little-endian float32: one for each that counts, or one for all; NULL where all are 1
    rejected   of a preference, the position where the tokens of the rejected text begin; else NULL
    beta, reference, weight    of a preference, see `gindex.corpus.objectives.Preference`; else NULL
    labels     what is asked at each token that counts, little-endian float32; NULL where tokens themselves are
    second     position where a second text begins; NULL without one

The last two are there in tables alone that have a part which needs one of them. The table `files` has, for a part that
is a picture or tensors, `type` and `data` as in `gindex.corpus.contents.Content`.

Axes: T tokens, M tokens that count, K values of a label.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.contents import Content
from gindex.corpus.objectives import Objective, Preference, WeightedTokens
from gindex.errors import ShapeError

LOSS_COLUMNS = ("targets", "counted", "weights", "rejected", "beta", "reference", "weight")
LABEL_COLUMNS = ("labels", "second")
FILE_COLUMNS = ("type", "data")
PLAIN: tuple[None, ...] = (None,) * len(LOSS_COLUMNS + LABEL_COLUMNS)
"""What stands for a part without a row."""


def to_tokens(objective: Objective) -> bytes:
    """The tokens of all texts, one behind the other, as little-endian uint32."""
    return np.concatenate([text.ids for text in objective.texts]).astype("<u4").tobytes()


def to_row(objective: Objective) -> tuple[Any, ...] | None:
    """The row of a part in `losses`; None where it needs none."""
    weights_T = np.concatenate([text.weights for text in objective.texts])
    counted_T = weights_T != 0
    weights = weights_T[counted_T]
    if (weights == 1).all():
        stored = None
    else:
        stored = (weights[:1] if (weights == weights[0]).all() else weights).astype("<f4").tobytes()
    usual = bool((counted_T == _all_but_first(objective)).all())
    bits = None if usual else np.packbits(counted_T, bitorder="little").tobytes()
    text, p = objective.texts[0], objective.preference
    labels = None if text.labels is None else text.labels.astype("<f4").tobytes()
    if p is not None:
        return len(weights), bits, stored, len(text), p.beta, p.reference, p.weight, None, None
    if usual and stored is None and labels is None and text.second is None and text.content is None:
        return None
    return len(weights), bits, stored, None, None, None, None, labels, text.second


def to_file(objective: Objective) -> tuple[str, bytes] | None:
    """The row of a part in `files`; None where it needs none."""
    content = objective.texts[0].content
    return None if content is None else (content.type, content.data)


def to_objective(
    ids_T: npt.NDArray[np.uint32], row: tuple[Any, ...], file: tuple[str | None, bytes | None] = (None, None)
) -> Objective:
    """The objective of a part.

    Args:
        ids_T: Token ids of all its texts.
        row: Its row in `losses`, or `PLAIN`.
        file: Its row in `files`, where it has one.

    Raises:
        ShapeError: The row does not fit the tokens.
    """
    if row == PLAIN:
        return Objective.counting(ids_T)
    targets, bits, stored, rejected, beta, reference, weight, label_bytes, second = row
    if rejected is not None and not 0 < rejected < len(ids_T):
        raise ShapeError(field="rejected", expected=f"a position within {len(ids_T)} tokens", found=rejected)
    starts = [0] if rejected is None else [0, rejected]
    if bits is None:
        counted_T = np.ones(len(ids_T), bool)
        counted_T[starts] = False
    elif len(bits) != (len(ids_T) + 7) // 8:
        raise ShapeError(field="counted", expected=f"a bit for each of {len(ids_T)} tokens", found=len(bits))
    else:
        counted_T = np.unpackbits(np.frombuffer(bits, np.uint8), count=len(ids_T), bitorder="little").astype(bool)
    weights = np.ones(1, np.float32) if stored is None else np.frombuffer(stored, "<f4").astype(np.float32)
    if counted_T.sum() != targets or len(weights) not in (1, targets):
        found = f"{int(counted_T.sum())} that count and {len(weights)} weights"
        raise ShapeError(field="losses", expected=f"{targets} tokens that count", found=found)
    weights_T = np.zeros(len(ids_T), np.float32)
    weights_T[counted_T] = weights
    if rejected is None:
        labels = None if label_bytes is None else _labels(label_bytes, targets)
        media_type, data = file
        content = None if media_type is None or data is None else Content(media_type, data)
        return Objective((WeightedTokens(ids_T, weights_T, labels, second, content),))
    texts = zip(np.split(ids_T, starts[1:]), np.split(weights_T, starts[1:]), strict=True)
    preference = Preference(beta=beta, reference=reference, weight=weight)
    return Objective(tuple(WeightedTokens(*text) for text in texts), preference)


def _labels(stored: bytes, targets: int) -> npt.NDArray[np.float32]:
    """Labels [M, K] of `targets` tokens that count."""
    if not targets or not stored or len(stored) % (4 * targets):
        expected = f"labels of {targets} tokens that count, in float32"
        raise ShapeError(field="labels", expected=expected, found=f"{len(stored)} bytes")
    return np.frombuffer(stored, "<f4").astype(np.float32).reshape(targets, -1)


def _all_but_first(objective: Objective) -> npt.NDArray[np.bool_]:
    counted_T = np.ones(len(objective), bool)
    counted_T[np.cumsum([0, *(len(text) for text in objective.texts[:-1])])] = False
    return counted_T


def stored_columns(row: tuple[Any, ...]) -> tuple[Any, ...]:
    """The columns that `select_parts` gives of a part, without those of a row here, or its end, that are not there."""
    for columns in (FILE_COLUMNS, LABEL_COLUMNS, LOSS_COLUMNS):
        if any(value is not None for value in row[-len(columns) :]):
            break
        row = row[: -len(columns)]
    return row
