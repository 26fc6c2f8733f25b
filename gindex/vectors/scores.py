"""Inner products of queries with coded vectors, slice by slice; vectors are decoded a slice at a time and never whole.

At one bit a coordinate, signs stay bytes and the query is rounded to 16 bits: products of 8-bit integers, which
processors have units for, are several times cheaper than decoding to float32.

Axes: Q queries, N documents, D dimension, B bytes a document, S slices, W slice width, C columns of a product.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.vectors.codes import decode

HALF = 127
"""Largest half of a rounded query coordinate, 256 x high + low: both fit in 8 bits."""

UNPACKED = 1 << 20
"""Bits that are taken apart into bytes at once, which then are in the processor's cache when they are multiplied."""

COLUMNS = 16
"""Columns of a product up to which another one costs nothing: slices are taken together until there are as many."""

Slices = Sequence[tuple[int, int]]
Numbers = npt.NDArray[Any]


def slice_scores(codes: Tensor, scales_NS: Tensor, bits: int, slices: Slices, queries_QD: Tensor) -> Tensor:
    """The inner products of queries with what codes stand for, each slice apart.

    Args:
        codes: As `codes.encode` returns them, [N, B].
        scales_NS: Scales [N, S].
        bits: Bits of a coordinate.
        slices: Start and stop of each slice.
        queries_QD: Queries [Q, D], float32, never coded.

    Returns:
        [S, Q, N]; its sum over S is `queries_QD @ decode(...).T` up to rounding.
    """
    return query_scorer(queries_QD, bits, slices).slice_scores(codes, scales_NS)


def query_scorer(queries_QD: Tensor, bits: int, slices: Slices) -> "QueryScorer":
    """Scorer of vectors of so many bits and such slices for queries [Q, D], which are made ready once."""
    return RoundedScorer.of(queries_QD, slices) if bits == 1 else WideScorer(queries_QD, bits, slices)


class QueryScorer(ABC):
    """Scores coded vectors for queries [Q, D]."""

    @abstractmethod
    def one(self, query: int) -> "QueryScorer":
        """Scorer for one of the queries alone."""

    @abstractmethod
    def slice_scores(self, codes: Tensor, scales_NS: Tensor) -> Tensor:
        """The inner products [S, Q, N] with what codes [N, B] and scales [N, S] stand for, each slice apart."""


class WideScorer(QueryScorer):
    """Scores vectors that are decoded first."""

    def __init__(self, queries_QD: Tensor, bits: int, slices: Slices) -> None:
        """Keep the queries; see `slice_scores` for what they are."""
        self._queries_QD, self._bits, self._slices = queries_QD, bits, slices

    def one(self, query: int) -> "WideScorer":
        """Scorer for one of the queries alone."""
        return WideScorer(self._queries_QD[query : query + 1], self._bits, self._slices)

    def slice_scores(self, codes: Tensor, scales_NS: Tensor) -> Tensor:
        """The inner products [S, Q, N] with what codes [N, B] and scales [N, S] stand for, each slice apart."""
        bits, scores_SQN = self._bits, self._queries_QD.new_empty(len(self._slices), len(self._queries_QD), len(codes))
        for position, (a, b) in enumerate(self._slices):
            piece = codes[:, a:b] if bits == 16 else codes[:, a * bits // 8 : b * bits // 8]
            levels_NW = decode(piece, scales_NS.new_ones(len(codes), 1), bits, [(0, b - a)])
            torch.mul(self._queries_QD[:, a:b] @ levels_NW.T, scales_NS[:, position], out=scores_SQN[position])
        return scores_SQN


class RoundedScorer(QueryScorer):
    """Scores vectors of one bit for queries that are rounded to 1/65,278 of the range of each slice."""

    def __init__(self, halves_2QD: Tensor, steps_SQ1: Numbers, totals_SQ1: Numbers, slices: Slices) -> None:
        """Join rounded queries.

        Args:
            halves_2QD: What a coordinate is in steps, 256 x the first + the second, int8.
            steps_SQ1: What a step is, float64.
            totals_SQ1: Sums of a slice's coordinates in steps, whole numbers.
            slices: Start and stop of each slice.
        """
        self._halves_2QD, self._steps_SQ1, self._totals_SQ1, self._slices = halves_2QD, steps_SQ1, totals_SQ1, slices
        self._made: list[tuple[int, int, Tensor]] = []

    @classmethod
    def of(cls, queries_QD: Tensor, slices: Slices) -> "RoundedScorer":
        """Round queries [Q, D], float32."""
        q_QD, starts, widths = queries_QD.numpy(), [a for a, _ in slices], [b - a for a, b in slices]
        steps_QS = np.maximum.reduceat(np.abs(q_QD), starts, axis=1) / np.float32(256 * HALF + HALF)
        steps_QS[steps_QS == 0] = 1
        v_QD = np.rint(q_QD / np.repeat(steps_QS, widths, axis=1)).astype(np.int16)
        # The upper byte, rounded to the nearest, and the lower one as a signed number.
        halves_2QD = torch.from_numpy(np.stack([((v_QD + 128) >> 8).astype(np.int8), v_QD.astype(np.int8)]))
        totals_QS = np.add.reduceat(v_QD, starts, axis=1, dtype=np.int64)
        return cls(halves_2QD, steps_QS.T[..., None].astype(np.float64), totals_QS.T[..., None], slices)

    def one(self, query: int) -> "RoundedScorer":
        """Scorer for one of the queries alone."""
        some = slice(query, query + 1)
        halves_21D, steps_S11 = self._halves_2QD[:, some], self._steps_SQ1[:, some]
        return RoundedScorer(halves_21D, steps_S11, self._totals_SQ1[:, some], self._slices)

    def slice_scores(self, codes: Tensor, scales_NS: Tensor) -> Tensor:
        """The inner products [S, Q, N] with what codes [N, B] and scales [N, S] stand for, each slice apart.

        For bits c, <q, 2 c - 1>, exact but for the rounding of q.
        """
        sums = np.concatenate([_sums(codes.numpy(), *group) for group in self._columns()]).astype(np.float64)
        high_SQN, low_SQN = np.split(sums, 2, axis=1)
        scores_SQN = (
            (2 * (256 * high_SQN + low_SQN) - self._totals_SQ1) * self._steps_SQ1 * scales_NS.numpy().T[:, None]
        )
        return torch.from_numpy(scores_SQN.astype(np.float32))

    def _columns(self) -> list[tuple[int, int, Tensor]]:
        """Where adjacent slices that are taken together begin and end, and their columns [S, 2 Q, W] of a product."""
        if self._made:  # a `cached_property` would have threads wait for each other's
            return self._made
        halves_CD = self._halves_2QD.flatten(0, 1)
        count = max(1, COLUMNS // len(halves_CD))
        groups = []
        for start in range(0, len(self._slices), count):
            some = self._slices[start : start + count]
            first, last = some[0][0], some[-1][1]
            columns_SCW = halves_CD.new_zeros(len(some), len(halves_CD), last - first)
            for columns_CW, (a, b) in zip(columns_SCW, some, strict=True):
                columns_CW[:, a - first : b - first] = halves_CD[:, a:b]
            groups.append((first, last, columns_SCW))
        self._made = groups
        return groups


def _sums(codes_NB: npt.NDArray[np.uint8], first: int, last: int, columns_SCW: Tensor) -> npt.NDArray[np.int32]:
    """Sums of the bits of adjacent slices, from `first` to `last`, times columns, [S, C, N], by one product."""
    columns = columns_SCW.flatten(0, 1).T
    sums, rows = np.empty((len(codes_NB), columns.shape[1]), np.int32), max(1, UNPACKED // (last - first))
    for start in range(0, len(codes_NB), rows):
        some = slice(start, start + rows)
        bits = np.unpackbits(codes_NB[some, first // 8 : last // 8], axis=1, bitorder="little").view(np.int8)
        sums[some] = torch._int_mm(torch.from_numpy(bits), columns)
    return sums.T.reshape(*columns_SCW.shape[:2], -1)
