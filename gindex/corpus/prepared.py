"""Tokens that were prepared elsewhere: `input_ids` with labels, a mask or weights, as trainers take them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import WeightedTokens
from gindex.corpus.value_checks import LARGEST, kind_of
from gindex.errors import CorpusError

Array = npt.NDArray[Any]

_IGNORED_LABEL = -100
"""The label of a token that does not count, as transformers and PyTorch have it."""


def read_tokens(fields: Mapping[str, Any], place: str) -> tuple[WeightedTokens, frozenset[str]]:
    """Read the tokens of a record, and how much each counts.

    Args:
        fields: The record.
        place: What errors call it.

    Returns:
        The tokens, and the names of the fields that they were made of.

    Raises:
        CorpusError: A field is of another form, or there is no token.
    """
    used = {"input_ids", *(n for n in ("attention_mask", "labels", "loss_mask", "loss_weights") if n in fields)}
    ids = _array(fields["input_ids"], np.int64, "input_ids", place)
    if len(ids) and (ids.min() < 0 or ids.max() >= 1 << 32):
        raise CorpusError(field=place, expected="token ids in 'input_ids'", found=f"{ids.min()} to {ids.max()}")
    weights = np.ones(len(ids), np.float32)
    for name, read in _TOKEN_WEIGHTS.items():
        if fields.get(name) is not None:
            weights *= read(fields[name], ids, place)
    if fields.get("attention_mask") is not None:
        real = _of_length(_array(fields["attention_mask"], np.int64, "attention_mask", place), ids, place, "mask")
        ids, weights = ids[real != 0], weights[real != 0]
    if not len(ids):
        raise CorpusError(field=place, expected="at least one token in 'input_ids'", found="none", remedy="remove it")
    weights[0] = 0
    return WeightedTokens(ids.astype(np.uint32), weights), frozenset(used)


def _labels(value: object, ids: Array, place: str) -> npt.NDArray[np.float32]:
    labels = _of_length(_array(value, np.int64, "labels", place), ids, place, "labels")
    counted = labels != _IGNORED_LABEL
    wrong = np.flatnonzero(counted & (labels != ids))
    if len(wrong):
        n = int(wrong[0])
        raise CorpusError(
            field=place,
            expected=f"labels that are the token of their own place, or {_IGNORED_LABEL}",
            found=f"{int(labels[n])} for the token {int(ids[n])} at position {n}",
            remedy="give labels as transformers takes them: not shifted, the model does that",
        )
    weights: npt.NDArray[np.float32] = counted.astype(np.float32)
    return weights


def _loss_mask(value: object, ids: Array, place: str) -> npt.NDArray[np.float32]:
    mask = _of_length(_array(value, np.float64, "loss_mask", place), ids, place, "loss_mask")
    if not np.isin(mask, (0, 1)).all():
        raise CorpusError(
            field=place,
            expected="0 or 1 for each token in 'loss_mask'",
            found=f"{mask[~np.isin(mask, (0, 1))][0]:g}",
            remedy="give other numbers as 'loss_weights'",
        )
    return mask.astype(np.float32)


def _loss_weights(value: object, ids: Array, place: str) -> npt.NDArray[np.float32]:
    weights = _of_length(_array(value, np.float64, "loss_weights", place), ids, place, "loss_weights")
    if not (np.abs(weights) <= LARGEST).all():
        raise CorpusError(
            field=place,
            expected="finite numbers in 'loss_weights'",
            found="NaN, or numbers beyond float32",
            remedy="correct them",
        )
    return weights.astype(np.float32)


_TOKEN_WEIGHTS: dict[str, Callable[[object, Array, str], npt.NDArray[np.float32]]] = {
    "labels": _labels,
    "loss_mask": _loss_mask,
    "loss_weights": _loss_weights,
}


def _array(value: object, dtype: type, name: str, place: str) -> Array:
    listed = isinstance(value, (Sequence, np.ndarray)) and not isinstance(value, str)
    found: Array | None = np.asarray(value) if listed else None
    kinds = "iub" if dtype is np.int64 else "iubf"
    if found is None or found.ndim != 1 or (len(found) and found.dtype.kind not in kinds):
        raise CorpusError(
            field=place, expected=f"a list of numbers in {name!r}", found=kind_of(value), remedy="correct the record"
        )
    values: Array = found.astype(dtype)
    return values


def _of_length(values: Array, ids: Array, place: str, name: str) -> Array:
    if len(values) != len(ids):
        raise CorpusError(
            field=place,
            expected=f"as many values in {name!r} as in 'input_ids', {len(ids)}",
            found=len(values),
            remedy="correct the record",
        )
    return values
