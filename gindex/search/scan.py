"""Exhaustive search of the stored vectors: what every faster search is tested against.

Axes: Q queries, N parts, D dimension, S slices.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.search.weights import Weights
from gindex.store.reader import VectorReader
from gindex.vectors.scores import QueryScorer, query_scorer

PARTS_AT_ONCE = 256
"""Parts scored at once: their decoded slices stay in the processor's cache."""


def scan(
    reader: VectorReader,
    queries_QD: Tensor,
    k: int,
    *,
    parts: npt.NDArray[np.int64] | None = None,
    excluded: npt.NDArray[np.bool_] | None = None,
    weights: Weights | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Score stored vectors one by one and return the best.

    Args:
        reader: The stored vectors.
        queries_QD: Query vectors [Q, D], float32, never coded.
        k: How many to return; fewer where there are fewer parts.
        parts: Ordinals of the parts to score, ascending; None scores all of them.
        excluded: Which parts of the index are not scored [N]; None where all may be.
        weights: What the score of each part of the index is multiplied by [N].

    Returns:
        Part ordinals [Q, k], best first (ties by ordinal), and their scores [Q, k].
    """
    best_QK = torch.empty(len(queries_QD), 0, dtype=torch.float32, device="cpu")
    ordinals_QK = torch.empty(len(queries_QD), 0, dtype=torch.int64, device="cpu")
    scorer = scorer_of(reader, queries_QD)
    total = reader.spec.parts if parts is None else len(parts)
    for start in range(0, total, PARTS_AT_ONCE):
        stop = min(start + PARTS_AT_ONCE, total)
        block = np.arange(start, stop) if parts is None else parts[start:stop]
        if excluded is not None:
            block = block[~excluded[block]]
        scores_QN = part_scores(reader, block, scorer, weights)
        best_QK = torch.cat([best_QK, scores_QN], 1)
        ordinals_QK = torch.cat([ordinals_QK, torch.from_numpy(block).expand(len(queries_QD), -1)], 1)
        order = best_QK.argsort(dim=1, descending=True, stable=True)[:, :k]
        best_QK, ordinals_QK = best_QK.gather(1, order), ordinals_QK.gather(1, order)
    return ordinals_QK.numpy(), best_QK.numpy()


def scorer_of(reader: VectorReader, queries_QD: Tensor) -> QueryScorer:
    """Scorer of the stored vectors for queries [Q, D]."""
    return query_scorer(queries_QD, reader.spec.bits, reader.spec.slices)


def part_scores(
    reader: VectorReader, parts: npt.NDArray[np.int64], scorer: QueryScorer, weights: Weights | None = None
) -> Tensor:
    """Scores [Q, N] of parts, weighted."""
    scores_QN = part_slice_scores(reader, parts, scorer).sum(0)
    return scores_QN if weights is None else scores_QN * torch.from_numpy(weights[parts])


def part_slice_scores(reader: VectorReader, parts: npt.NDArray[np.int64], scorer: QueryScorer) -> Tensor:
    """Scores [S, Q, N] of parts, each slice (layer group) apart."""
    return scorer.slice_scores(*reader.coded(parts))
