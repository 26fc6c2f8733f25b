"""Attention of short documents in float32, where a CPU's kernel for 16 bits is slow in the backward pass.

torch's fused attention on a CPU takes several times longer backward in 16 bits than in float32, where documents are
short: 18 ms against 4 for eight documents of 128 tokens and nine heads of 64, 36 against 2 for 64 documents of 16. So
queries, keys and values are converted to float32 for it, which costs little and rounds less.
"""

from typing import Any

import torch
from torch import Tensor, nn

ATTENTION = "gindex_sdpa"
"""The name that transformers knows this attention by."""

LONGEST_DOCUMENT = 512
"""Most tokens of a document whose attention is in float32; beyond, the kernels for 16 bits are as fast."""


def use_fast_attention(model: nn.Module) -> None:
    """Have a model in 16 bits on a CPU compute the attention of short documents in float32.

    A model that chooses its attention otherwise than by `sdpa` of transformers stays as it is.
    """
    weights = next(model.parameters())
    config = getattr(model, "config", None)
    if weights.device.type != "cpu" or weights.dtype.itemsize != 2:
        return
    if getattr(config, "_attn_implementation", None) != "sdpa":
        return
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    AttentionInterface.register(ATTENTION, _attention)
    AttentionMaskInterface.register(ATTENTION, sdpa_mask)
    model.set_attn_implementation(ATTENTION)  # type: ignore[operator]


def _attention(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **options: Any
) -> tuple[Tensor, None]:
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    if query.shape[2] > LONGEST_DOCUMENT or query.dtype.itemsize != 2:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **options)
    if attention_mask is not None and attention_mask.is_floating_point():
        attention_mask = attention_mask.to(torch.float32)
    wide_query, wide_key, wide_value = (x.to(torch.float32) for x in (query, key, value))
    output, _ = sdpa_attention_forward(module, wide_query, wide_key, wide_value, attention_mask, **options)
    return output.to(query.dtype), None
