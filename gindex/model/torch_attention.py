"""`nn.MultiheadAttention` of torch: its projections, which have no modules that run.

The projections of queries, keys and values are one weight of three parts, or three weights.

Axes: N rows of the batch, T queries, S keys, E features, H heads, D features of a head.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gindex.model.inner_linears import ExpertLinears, InnerLinear, Owner, OwnLinear, Pairs

IN, OUT = "in_proj", "out_proj"
_SEPARATE = ("q_proj_weight", "k_proj_weight", "v_proj_weight")


def attention_owners(module: nn.Module) -> Iterator[Owner]:
    """Yield the owner of the projections of a `nn.MultiheadAttention`; nothing for any other module."""
    if type(module).forward is not nn.MultiheadAttention.forward:
        return
    weights, bias = module._parameters, module._parameters.get("in_proj_bias")
    out: Any = module.out_proj
    linears: dict[str, InnerLinear] = {OUT: OwnLinear(out.weight, out.bias)}
    if weights.get("in_proj_weight") is not None:
        linears[IN] = ExpertLinears(weights["in_proj_weight"], bias, 3)  # type: ignore[arg-type]
    else:
        linears |= {name: OwnLinear(weights[name], None) for name in _SEPARATE}  # type: ignore[arg-type]
    yield Owner(module=module, forward=_run, linears=linears)


def _run(
    owner: Owner,
    plain: Callable[..., Any],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Attention as torch computes it; that of one document without an axis for it runs as it is."""
    attention: Any = owner.module
    if query.dim() != 3 or query.is_nested or (is_causal and attn_mask is None):
        output: tuple[Tensor, Tensor | None] = plain(
            query, key, value, key_padding_mask, need_weights, attn_mask, average_attn_weights, is_causal
        )
        return output
    inputs = [x if attention.batch_first else x.transpose(0, 1) for x in (query, key, value)]
    q, k, v = _projected(owner, inputs)
    rows, queries, H = len(q), q.shape[1], attention.num_heads
    mask = _mask(attn_mask, key_padding_mask, q.dtype, rows, H)
    if attention.bias_k is not None:
        k = torch.cat([k, attention.bias_k.expand(rows, -1, -1)], 1)
        v = torch.cat([v, attention.bias_v.expand(rows, -1, -1)], 1)
    q, k, v = (x.unflatten(2, (H, -1)).transpose(1, 2) for x in (q, k, v))
    if attention.add_zero_attn:
        k, v = (F.pad(x, (0, 0, 0, 1)) for x in (k, v))
    if mask is not None:
        mask = F.pad(mask, (0, k.shape[2] - mask.shape[3]))
    weights = None
    if need_weights:
        scores_NHTS = q @ k.mT * q.shape[-1] ** -0.5
        weights = (scores_NHTS if mask is None else scores_NHTS + mask).softmax(-1)
        mixed_NHTD = weights @ v
        weights = weights.mean(1) if average_attn_weights else weights
    else:
        mixed_NHTD = F.scaled_dot_product_attention(q, k, v, mask)
    y_NTE = owner.linears[OUT](mixed_NHTD.transpose(1, 2).reshape(rows, queries, -1))
    return y_NTE if attention.batch_first else y_NTE.transpose(0, 1), weights


def _projected(owner: Owner, inputs: list[Tensor]) -> list[Tensor]:
    """Queries [N, T, E], keys and values [N, S, E]."""
    if IN not in owner.linears:
        bias = owner.module.in_proj_bias
        biases: Any = (0, 0, 0) if bias is None else bias.chunk(3)  # type: ignore[operator]
        products = (owner.linears[name](x) for name, x in zip(_SEPARATE, inputs, strict=True))
        return [y + b for y, b in zip(products, biases, strict=True)]
    rows, longest = len(inputs[0]), max(x.shape[1] for x in inputs)
    starts = torch.arange(rows, device="cpu")[:, None] * longest
    places = [(starts + torch.arange(x.shape[1], device="cpu")).flatten() for x in inputs]
    sizes = tuple(map(len, places))
    pairs = Pairs(torch.cat(places), sizes, rows * longest, batch=rows)
    outputs: Tensor = owner.linears[IN](torch.cat([x.flatten(0, 1) for x in inputs]), pairs)
    return [y.unflatten(0, (rows, -1)) for y in outputs.split(list(sizes))]


def _mask(
    attn_mask: Tensor | None, key_padding_mask: Tensor | None, dtype: torch.dtype, rows: int, heads: int
) -> Tensor | None:
    """What is added to scores [N, H, T, S]; both masks together, axes of one where they say nothing."""
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask.unflatten(0, (rows, heads)) if attn_mask.dim() == 3 else attn_mask[None, None])
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None])
    added = [
        torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -torch.inf)
        if mask.dtype == torch.bool
        else mask.to(dtype)
        for mask in masks
    ]
    return sum(added[1:], added[0]) if added else None
