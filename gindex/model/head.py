"""The loss of an output head, a few positions at a time, so that the logits of a whole batch are never held.

A causal language model ends in a linear map from hidden states to logits, wider than everything before it. Losses and
their gradients are computed together, in chunks, so that the backward pass needs no more than one gradient of the size
of the hidden states.

Axes: M positions that predict something, H hidden size, V vocabulary.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gindex.model.isolation import own
from gindex.model.layer_choice import output_head
from gindex.model.number_formats import wide_range
from gindex.model.tolerances import is_same_product
from gindex.progress import pause

CHUNK = 128
"""Positions whose logits are held at once."""

TRIED_LOGITS = (1.0, 30.0, 1000.0)
"""Largest logits that a head is tried with: caps in use are 15 to 50, and a much larger one would cap nothing."""

FLOAT16_SCALE = 2.0**10
"""What p - y, which is at most 1, is multiplied by where the head is in float16. Below 2^-34 it is zero then: so is
what float32 has lost of 1 - p. Products with the head's weight overflow beyond 64."""

LabelSource = Callable[[Tensor, slice], Tensor]
"""Gives the labels [C] of the positions in a slice, whose probabilities are [C, V]."""


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden_MH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, labels: LabelSource) -> Tensor:
        losses = hidden_MH.new_empty(len(hidden_MH), dtype=torch.promote_types(hidden_MH.dtype, torch.float32))
        gradient_MH = torch.empty_like(hidden_MH, dtype=wide_range(hidden_MH.dtype))
        scales = weight_VH.dtype == torch.float16
        for start in range(0, len(hidden_MH), CHUNK):
            pause()
            chunk = slice(start, start + CHUNK)
            logits_CV = nn.functional.linear(hidden_MH[chunk], weight_VH, bias_V)
            probabilities_CV = logits_CV.softmax(1, dtype=losses.dtype)
            labels_C1 = labels(probabilities_CV, chunk)[:, None]
            losses[chunk] = _losses(logits_CV, probabilities_CV, labels_C1)
            residual_CV = probabilities_CV.scatter_add_(1, labels_C1, -torch.ones_like(losses[chunk])[:, None])
            residual_CV = residual_CV.mul_(FLOAT16_SCALE) if scales else residual_CV
            gradient_MH[chunk] = residual_CV.to(weight_VH.dtype) @ weight_VH
        ctx.save_for_backward(gradient_MH.div_(FLOAT16_SCALE) if scales else gradient_MH)
        ctx.hidden_dtype = hidden_MH.dtype
        return losses

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient_MH,) = ctx.saved_tensors
        scaled_MH = gradient_MH * upstream[0][:, None].to(gradient_MH.dtype)
        return scaled_MH.to(ctx.hidden_dtype), None, None, None


def _losses(logits_CV: Tensor, probabilities_CV: Tensor, labels_C1: Tensor) -> Tensor:
    """Return -log p [C] of the labels: by way of the largest logit, so that it is exact where p underflows."""
    largest_C1, where_C1 = logits_CV.max(1, keepdim=True)
    behind_C1 = largest_C1.to(probabilities_CV.dtype) - logits_CV.gather(1, labels_C1)
    return (behind_C1 - probabilities_CV.gather(1, where_C1).log())[:, 0]


def head_losses(hidden_MH: Tensor, head: nn.Linear, labels: LabelSource) -> Tensor:
    """Return the cross-entropy [M] of a linear head, in nats, differentiable with respect to the hidden states alone.

    Args:
        hidden_MH: Hidden states [M, H].
        head: The head; its weights are frozen.
        labels: Gives the labels.

    Returns:
        Losses [M], float32 or wider.
    """
    hidden_MH = hidden_MH.to(head.weight.dtype)  # some models keep their residual stream in float32
    losses: Tensor = _HeadLoss.apply(hidden_MH, head.weight, head.bias, labels)  # type: ignore[no-untyped-call]
    return losses


def plain_head(model: nn.Module, tokens_NT: Tensor) -> nn.Linear | None:
    """Return the model's output head if its logits are that linear layer's output for the last hidden states.

    Some models scale or cap their logits; those have no plain head. A cap shows in large logits alone, so the model is
    given made-up hidden states in the place of its own, from small to very large ones.

    Args:
        model: A causal language model of transformers.
        tokens_NT: A few tokens [N, T] to try it on.
    """
    head, body = output_head(model), getattr(model, "base_model", model)
    if not isinstance(head, nn.Linear) or body is model:
        return None
    with torch.no_grad():
        last = getattr(body(tokens_NT, use_cache=False), "last_hidden_state", None)
        if last is None or last.shape[-1] != head.in_features:
            return None
        generator = torch.Generator("cpu").manual_seed(0)
        hidden = torch.randn(last.shape, generator=generator, dtype=torch.float32, device="cpu").to(last)
        largest = float(head(hidden.to(head.weight.dtype)).abs().max())
        if not 0 < largest < float("inf"):
            return None
        plain = all(_is_plain(model, body, head, tokens_NT, hidden * (size / largest)) for size in TRIED_LOGITS)
        return head if plain else None


def _is_plain(model: nn.Module, body: nn.Module, head: nn.Linear, tokens_NT: Tensor, hidden: Tensor) -> bool:
    """Say whether the model's logits for hidden states are the head's output for them."""

    def replace(_body: nn.Module, _args: object, output: Any) -> Any:
        output.last_hidden_state = hidden
        return output

    handle = body.register_forward_hook(own(replace))
    try:
        logits = model(tokens_NT, use_cache=False).logits
    finally:
        handle.remove()
    return is_same_product(logits, head(hidden.to(head.weight.dtype)))
