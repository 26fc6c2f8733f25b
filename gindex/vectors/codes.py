"""Codes: vectors at 1 to 16 bits a coordinate, with one scale a slice.

At b < 16 bits a coordinate is one of 2^b evenly spaced odd levels -(2^b - 1), ..., -1, 1, ..., 2^b - 1 times a scale;
at 16 bits it is a float16 times a scale. The scale is set so that <decoded, v> = <v, v> in every slice: an inner
product with v's own direction is kept exactly, and the error left over is orthogonal to v. Queries are never coded.

Source: the scale is RaBitQ's estimator (arXiv:2405.12497) without its rotation, which the projection already is.

Axes: N documents, D dimension, B bytes a document, S slices.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from gindex.errors import ShapeError

_STEPS = {2: (0.4979, 0.6, 0.8), 4: (0.1676, 0.22, 0.3), 8: (0.0154, 0.02, 0.03)}
"""Half the distance between levels in units of the root mean square: the best for a Gaussian (Max 1960) and wider ones
for heavy tails. The best of them and of the one that just reaches the largest coordinate is taken, slice by slice."""


def encode(vectors_ND: Tensor, bits: int, slices: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Code vectors.

    Args:
        vectors_ND: Vectors [N, D], float32.
        bits: 1, 2, 4, 8 or 16.
        slices: Start and stop of each slice; together they cover D.

    Returns:
        Codes, uint8 [N, B] (float16 [N, D] at 16 bits), and scales, float32 [N, S]. At less than 8 bits the first
        coordinate of a byte is in its lowest bits.
    """
    pieces = [_encode_slice(vectors_ND[:, a:b].float(), bits) for a, b in slices]
    codes, scales = torch.cat([p[0] for p in pieces], 1), torch.stack([p[1] for p in pieces], 1)
    return (codes if bits == 16 else _pack(codes, bits)), scales


def decode(codes: Tensor, scales_NS: Tensor, bits: int, slices: Sequence[tuple[int, int]]) -> Tensor:
    """Vectors [N, D], float32, that codes stand for; the inverse of `encode` up to its rounding."""
    levels_ND = codes.float() if bits == 16 else _levels(codes, bits)
    if levels_ND.shape[1] != slices[-1][1] or scales_NS.shape != (len(codes), len(slices)):
        raise ShapeError(
            expected=f"codes of {slices[-1][1]} coordinates and {len(slices)} scales",
            found=f"{levels_ND.shape[1]} and {tuple(scales_NS.shape)}",
        )
    for position, (a, b) in enumerate(slices):
        levels_ND[:, a:b] *= scales_NS[:, position : position + 1]
    return levels_ND


def _encode_slice(v_NW: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    """Unpacked codes [N, W] and scales [N] of one slice."""
    largest_N1 = v_NW.abs().amax(1, keepdim=True)
    if bits == 16:
        scale_N1 = torch.where(largest_N1 > 0, largest_N1, 1.0)
        return (v_NW / scale_N1).half(), scale_N1[:, 0]
    if bits == 1:
        codes_NW = (v_NW >= 0).to(torch.uint8)
    else:
        codes_NW = _best_codes(v_NW, largest_N1, bits)
    levels_NW = 2.0 * codes_NW.float() - (2**bits - 1)
    along_N = (levels_NW * v_NW).sum(1)
    scale_N = torch.where(along_N > 0, v_NW.square().sum(1) / along_N, 0.0)
    return codes_NW, scale_N


def _best_codes(v_NW: Tensor, largest_N1: Tensor, bits: int) -> Tensor:
    """The codes of the step, among a few, whose decoded slice is closest in direction to v."""
    rms_N1 = v_NW.square().mean(1, keepdim=True).sqrt()
    best, best_cosine_N1 = torch.zeros_like(v_NW, dtype=torch.uint8), torch.full_like(rms_N1, -1.0)
    for step_N1 in [rms_N1 * step for step in _STEPS[bits]] + [largest_N1 / (2**bits - 1)]:
        ratio_NW = torch.where(step_N1 > 0, v_NW / step_N1, 0.0)
        codes_NW = ((ratio_NW + (2**bits - 1)) / 2).round().clamp(0, 2**bits - 1)
        levels_NW = 2 * codes_NW - (2**bits - 1)
        cosine_N1 = (levels_NW * v_NW).sum(1, keepdim=True) / levels_NW.norm(dim=1, keepdim=True)
        better_N1 = cosine_N1 > best_cosine_N1
        best = torch.where(better_N1, codes_NW.to(torch.uint8), best)
        best_cosine_N1 = torch.where(better_N1, cosine_N1, best_cosine_N1)
    return best


def _pack(codes_ND: Tensor, bits: int) -> Tensor:
    per_byte = 8 // bits
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8, device=codes_ND.device)
    bytes_NB: Tensor = (codes_ND.unflatten(1, (-1, per_byte)) << shifts).sum(-1, dtype=torch.uint8)
    return bytes_NB


def _levels(codes_NB: Tensor, bits: int) -> Tensor:
    """The odd levels [N, D] of packed codes, by a table of what each byte stands for."""
    shifts = torch.arange(0, 8, bits, device=codes_NB.device)
    table = (torch.arange(256, device=codes_NB.device)[:, None] >> shifts) & (2**bits - 1)
    levels: Tensor = (2 * table - (2**bits - 1)).float()
    return levels[codes_NB.long()].flatten(1)
