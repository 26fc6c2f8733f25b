"""Seconds of a forward and backward pass by the length of documents, measured on a model and its device.

Attention compares each token with those before it, and some recurrences are slow to differentiate: the time of a token
grows with the length of its document. So it is measured at two lengths, and taken to grow linearly between and beyond
them. Which layers are tracked makes no difference to these passes: all choices of a model's layers are reckoned by one
measurement, so that what differs between them is what the layers cost.
"""

import time
from collections.abc import Callable
from weakref import WeakKeyDictionary

import torch
from torch import nn

from gindex.model.isolation import defaults
from gindex.model.tracked_model import TrackedModel

SHORT, LONG = 128, 1024
"""Tokens of the documents that are tried: a short one, and one as long as the longest part, up to a bound."""

VOCABULARY = 100
"""How many different tokens are in them."""


@defaults()
def token_seconds(model: TrackedModel, longest: int, typical: float) -> float:
    """Mean seconds a token of one frozen forward and backward pass over parts.

    Args:
        model: The loaded model.
        longest: Tokens of the longest part.
        typical: Tokens of the part that a token is in, a mean over the tokens.
    """
    short = min(SHORT, model.loaded.max_tokens)
    long = min(LONG, longest)
    first = _pass_seconds(model, short) / short
    if long < 2 * short:
        return first
    growth = max(0.0, _pass_seconds(model, long) / long - first) / (long - short)
    return first + growth * max(0.0, typical - short)


_measured: WeakKeyDictionary[nn.Module, dict[tuple[object, ...], float]] = WeakKeyDictionary()
"""Seconds of a pass by its tokens, the model's number format and its attention, once for each model."""


def _pass_seconds(model: TrackedModel, length: int) -> float:
    module = model.loaded.model
    attention = getattr(getattr(module, "config", None), "_attn_implementation", None)
    found, key = _measured.setdefault(module, {}), (length, model.dtype, attention)
    if key not in found:
        batch = model.trial(length, VOCABULARY)
        with model.from_embeddings():
            found[key] = fastest(lambda: model.task.losses(batch).sum().backward(), model.device)
    return found[key]


def fastest(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of three runs; of one alone where that takes seconds."""
    times: list[float] = []
    while len(times) < 3 and sum(times) < 2:
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
