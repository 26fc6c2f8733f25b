"""Inner products of queries with coded vectors, slice by slice; vectors are decoded a slice at a time and never whole.

At one bit a coordinate, signs stay bytes and the query is rounded to 16 bits: products of 8-bit integers, which
processors have units for, are several times cheaper than decoding to float32.

Axes: Q queries, N documents, D dimension, B bytes a document, S slices, W slice width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gindex.gradient.codes import decode

HALF = 127
"""Largest half of a rounded query coordinate, 256 x high + low: both fit in 8 bits."""

UNPACKED = 1 << 20
"""Bits that are taken apart into bytes at once, which then are in the processor's cache when they are multiplied."""

COLUMNS = 16
"""Columns of a product up to which another one costs nothing: slices are taken together until there are as many."""


def slice_scores(
    codes: Tensor, scales_NS: Tensor, bits: int, slices: Sequence[tuple[int, int]], queries_QD: Tensor
) -> Tensor:
    """Return the inner products of queries with what codes stand for, each slice apart.

    Args:
        codes: As `codes.encode` returns them, [N, B].
        scales_NS: Scales [N, S].
        bits: Bits of a coordinate.
        slices: Start and stop of each slice.
        queries_QD: Queries [Q, D], float32, never coded.

    Returns:
        [S, Q, N]; its sum over S is `queries_QD @ decode(...).T` up to rounding.
    """
    if bits == 1:
        return _sign_scores(codes, slices, queries_QD) * scales_NS.T[:, None]
    scores_SQN = torch.empty(len(slices), len(queries_QD), len(codes))
    for position, (a, b) in enumerate(slices):
        piece = codes[:, a:b] if bits == 16 else codes[:, a * bits // 8 : b * bits // 8]
        scores_QN = queries_QD[:, a:b] @ decode(piece, torch.ones(len(codes), 1), bits, [(0, b - a)]).T
        torch.mul(scores_QN, scales_NS[:, position], out=scores_SQN[position])
    return scores_SQN


def _sign_scores(codes: Tensor, slices: Sequence[tuple[int, int]], queries_QD: Tensor) -> Tensor:
    """Return <q, 2 c - 1> [S, Q, N] for the bits c of codes; exact but for q's rounding to 1/65,278 of its range."""
    q_QD, starts = queries_QD.numpy(), [a for a, _ in slices]
    step_QS = np.maximum.reduceat(np.abs(q_QD), starts, axis=1) / np.float32(256 * HALF + HALF)
    step_QS[step_QS == 0] = 1
    v_QD = np.rint(q_QD / np.repeat(step_QS, [b - a for a, b in slices], axis=1)).astype(np.int32)
    high_QD = (v_QD + 128) >> 8
    group = max(1, COLUMNS // (2 * len(q_QD)))
    halves = torch.from_numpy(np.concatenate([high_QD, v_QD - (high_QD << 8)]).astype(np.int8))
    sums_SNC = torch.cat([_sums(codes, halves, slices[n : n + group]) for n in range(0, len(slices), group)])
    high_SNQ, low_SNQ = sums_SNC.double().chunk(2, 2)
    total_QS = torch.from_numpy(np.add.reduceat(v_QD, starts, axis=1, dtype=np.float64))
    scores_SNQ = (2 * (256 * high_SNQ + low_SNQ) - total_QS.T[:, None]) * torch.from_numpy(step_QS).T[:, None]
    return scores_SNQ.mT.float()


def _sums(codes: Tensor, halves_CD: Tensor, slices: Sequence[tuple[int, int]]) -> Tensor:
    """Return sums of the bits times each half of the queries in some adjacent slices [S, N, C], by one product."""
    first, last = slices[0][0], slices[-1][1]
    columns_SCD = halves_CD.new_zeros(len(slices), len(halves_CD), last - first)
    for columns_CD, (a, b) in zip(columns_SCD, slices, strict=True):
        columns_CD[:, a - first : b - first] = halves_CD[:, a:b]
    columns = columns_SCD.flatten(0, 1).T
    sums = []
    for some in codes.split(max(1, UNPACKED // (last - first))):
        bits = np.unpackbits(some[:, first // 8 : last // 8].numpy(), axis=1, bitorder="little")
        sums.append(torch._int_mm(torch.from_numpy(bits).view(torch.int8), columns))
    return torch.cat(sums).view(len(codes), len(slices), len(halves_CD)).transpose(0, 1)
