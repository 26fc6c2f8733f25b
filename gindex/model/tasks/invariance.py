"""A check that what a model puts out for a text depends on neither padding nor other texts of the batch.

A document's gradient would be another one in another batch. A few random tokens show it, as for causal models.

Axes: M positions that carry a loss, V outputs.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from gindex.corpus.batches import pad
from gindex.corpus.objectives import Objective
from gindex.errors import GindexError, ModelError, NonFiniteError
from gindex.model.causality import LENGTH, allowed_rounding, random_tokens
from gindex.model.library_messages import first_line
from gindex.model.tasks.kind import ModelTask

SHARES = (1.0, 0.5, 0.75)
"""Lengths of the texts that are run together, as shares of the longest."""

_LEAST = 2
"""Fewest tokens of a text that is tried."""


def check_invariant(place: str, task: ModelTask, tokens: Sequence[int], most_tokens: int, remedy: str) -> None:
    """Check that outputs are those of a text alone, whatever is in its batch.

    Texts of one length are run together and alone, which shows how far rounding goes; then texts of several lengths.

    Args:
        place: The model, as messages call it.
        task: The model with its loss.
        tokens: Token ids to draw from.
        most_tokens: Most tokens of a text.
        remedy: What to do where the model does not run.

    Raises:
        ModelError: It does not run, or outputs depend on padding or on other texts.
        NonFiniteError: No output is finite.
    """
    length = min(LENGTH, most_tokens)
    drawn = random_tokens(tokens, length, len(SHARES))
    with _named_failures(place, task, remedy):
        mixed, narrow = _moved(task, [task.trial(ids) for ids in drawn])
        lengths = [max(_LEAST, round(share * length)) for share in SHARES]
        padded, _ = _moved(task, [task.trial(ids[:n]) for ids, n in zip(drawn, lengths, strict=True)])
    allowed = allowed_rounding(narrow, mixed)
    if mixed > allowed:
        raise ModelError(
            field=place,
            expected="outputs that depend on one text alone",
            found=f"them moved by {mixed:.2g} of their size when others are in the batch, or by chance",
            remedy="use a model without routing by capacity or noise",
        )
    if padded > allowed:
        raise ModelError(
            field=place,
            expected="outputs that padding leaves as they are",
            found=f"them moved by {padded:.2g} of their size when a text is padded",
            remedy="use a model that takes an attention mask",
        )


def check_longest(place: str, task: ModelTask, tokens: Sequence[int], length: int) -> None:
    """Check that a model takes texts of a length, and that shorter ones beside them stay as they are.

    Raises:
        ModelError: It does not, or they do not.
    """
    if length <= LENGTH:
        return
    (ids,) = random_tokens(tokens, length, 1)
    with _named_failures(place, task, "give fewer with `max_tokens`", f"to take {length} tokens"):
        padded, narrow = _moved(task, [task.trial(ids), task.trial(ids[: length * 3 // 4])])
    if padded > allowed_rounding(narrow, 0.0):
        raise ModelError(
            field=place,
            expected=f"outputs that padding to {length} tokens leaves as they are",
            found=f"them moved by {padded:.2g} of their size",
            remedy="give fewer with `max_tokens`",
        )


def _moved(task: ModelTask, objectives: Sequence[Objective]) -> tuple[float, torch.dtype]:
    """How far outputs of texts together are from those of each alone, relative to their size; and their format."""
    numbers = np.arange(len(objectives))
    with torch.no_grad():
        logits_dtype = task.logits(pad(objectives[:1], numbers[:1])).dtype
        alone_MV = torch.cat([task.outputs(pad([each], numbers[:1])) for each in objectives])
        together_MV = task.outputs(pad(objectives, numbers))
    if not torch.isfinite(alone_MV).any():
        raise NonFiniteError(
            field=type(task.model).__name__,
            expected="finite outputs",
            found="NaN or infinity",
            remedy="the weights are damaged or need `dtype` float32",
        )
    return relative_change(alone_MV, together_MV), logits_dtype


def relative_change(expected_MV: Tensor, found_MV: Tensor) -> float:
    """The largest root mean square change of the outputs of a position, relative to that of all outputs."""
    finite_MV = torch.isfinite(expected_MV) & torch.isfinite(found_MV)
    wide_MV = expected_MV.double().where(finite_MV, 0)
    change_MV = (found_MV.double().where(finite_MV, 0) - wide_MV).square()
    size = wide_MV.square().mean().sqrt().clamp(min=torch.finfo(torch.float64).tiny)
    return float(change_MV.mean(1).max().sqrt() / size)


@contextmanager
def _named_failures(
    place: str, task: ModelTask, remedy: str, expected: str = "a model that takes tokens"
) -> Iterator[None]:
    """Raise what a model fails with as an error that names it."""
    try:
        yield
    except GindexError:
        raise
    except Exception as error:
        raise ModelError(
            field=place,
            expected=expected,
            found=f"that {type(task.model).__name__} fails on them ({type(error).__name__}: {first_line(error)})",
            remedy=remedy,
        ) from error
