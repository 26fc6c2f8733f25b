"""How the scores of all parts are spread, for the page: a histogram, and the tail of either sign by rank.

Axes: N parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from gindex.index import GradientIndex
from gindex.search.query_vectors import EncodedQuery

BINS = 60
POINTS = 40
MOST_PARTS = 100_000
"""Larger indexes are sampled evenly."""


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """The spread of one query's scores.

    Attributes:
        parts: Parts that were scored.
        sampled: Whether they are a sample.
        edges: Edges of the bins [61].
        counts: Parts in each bin [60].
        positive: Ranks from 1 and the scores there, from the largest down, at ranks that are even in their logarithm.
        negative: The same from the most negative up, as absolute values.
    """

    parts: int
    sampled: bool
    edges: list[float]
    counts: list[int]
    positive: list[tuple[int, float]]
    negative: list[tuple[int, float]]


def histogram_of(index: GradientIndex, queries: Sequence[EncodedQuery]) -> list[Histogram]:
    """Score all parts of an index for each query, without options that confine or weigh them."""
    vectors_QD = torch.stack([query.vector_D for query in queries])
    scores_QN = index.scores(vectors_QD.cpu(), limit=MOST_PARTS)
    sampled = scores_QN.shape[1] < index.manifest.documents["parts"]
    return [_histogram(scores_N, sampled) for scores_N in scores_QN]


def _histogram(scores_N: npt.NDArray[np.float32], sampled: bool) -> Histogram:
    counts, edges = np.histogram(scores_N.astype(np.float64), BINS)
    falling = -np.sort(-scores_N)
    return Histogram(
        parts=len(scores_N),
        sampled=sampled,
        edges=edges.tolist(),
        counts=counts.tolist(),
        positive=_tail(falling[falling > 0]),
        negative=_tail(-falling[falling < 0][::-1]),
    )


def _tail(falling: npt.NDArray[np.float32]) -> list[tuple[int, float]]:
    if not len(falling):
        return []
    ranks = np.unique(np.geomspace(1, len(falling), POINTS).astype(np.int64))
    return [(int(rank), float(falling[rank - 1])) for rank in ranks]
