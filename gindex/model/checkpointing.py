"""Activation checkpointing: blocks of a model run again in the backward pass instead of keeping what they computed.

A pass then holds what enters each block and the inside of one block at a time, for one more forward pass. Large batches
fit where small ones, which read all weights for a few tokens, cost more than that.

Source: Chen et al. 2016, arXiv:1604.06174.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gindex.model.expansion import Expansion, again, present_expansion
from gindex.model.isolation import current, inside

_inside: ContextVar[bool] = ContextVar("inside a checkpointed block", default=False)


@contextmanager
def checkpointed(blocks: Sequence[nn.Module]) -> Iterator[None]:
    """Checkpoint the passes of blocks, none inside another."""
    with ExitStack() as stack:
        for block in blocks:
            stack.enter_context(_replaced(block))
        yield


def is_checkpointed() -> bool:
    """Say whether a checkpointed block runs now: forward, or again in the backward pass."""
    return _inside.get()


@contextmanager
def _replaced(block: nn.Module) -> Iterator[None]:
    own, plain = vars(block).get("forward"), block.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        run = partial(_marked, plain, current(), present_expansion())  # the backward pass may be on another thread
        return checkpoint(run, *args, use_reentrant=False, preserve_rng_state=False, **kwargs)

    block.forward = forward
    try:
        yield
    finally:
        del block.forward
        if own is not None:
            block.forward = own


def _marked(plain: Callable[..., Any], present: object, expansion: Expansion | None, *args: Any, **kwargs: Any) -> Any:
    token = _inside.set(True)
    try:
        with inside(present), again(expansion):
            return plain(*args, **kwargs)
    finally:
        _inside.reset(token)


def keep(x: Tensor) -> Callable[[], Tensor]:
    """Let autograd keep a tensor as it keeps its own: in a checkpointed block it is dropped and computed again.

    Returns:
        A function that returns the tensor, once, inside a backward pass. Nothing holds it afterwards.
    """
    held = [_Hold.apply(torch.empty(0, dtype=x.dtype, device=x.device, requires_grad=True), x)]  # type: ignore[no-untyped-call]

    def take() -> Tensor:
        (again,) = held.pop().grad_fn.saved_tensors
        return again  # type: ignore[no-any-return]

    return take


class _Hold(torch.autograd.Function):
    """Has a tensor saved in the graph for the backward pass, of which no gradient ever comes here."""

    @staticmethod
    def forward(ctx: Any, anchor: Tensor, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return anchor.clone()
