"""Inner products of queries with coded vectors, slice by slice; vectors are decoded a slice at a time and never whole.

Axes: Q queries, N documents, D dimension, B bytes a document, S slices, W slice width.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from gindex.gradient.codes import decode


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
    scores_SQN = torch.empty(len(slices), len(queries_QD), len(codes))
    for position, (a, b) in enumerate(slices):
        q_QW, scale_N = queries_QD[:, a:b], scales_NS[:, position]
        if bits == 1:
            # <q, 2 c - 1> without forming the levels.
            bytes_NB = np.ascontiguousarray(codes[:, a // 8 : b // 8].numpy())
            c_NW = torch.from_numpy(np.unpackbits(bytes_NB, axis=1, bitorder="little")).float()
            scores_QN = 2 * (q_QW @ c_NW.T) - q_QW.sum(1, keepdim=True)
        else:
            piece = codes[:, a:b] if bits == 16 else codes[:, a * bits // 8 : b * bits // 8]
            scores_QN = q_QW @ decode(piece, torch.ones(len(codes), 1), bits, [(0, b - a)]).T
        torch.mul(scores_QN, scale_N, out=scores_SQN[position])
    return scores_SQN
