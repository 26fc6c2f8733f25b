"""From a query vector to the best stored vectors: FAISS gives candidates, the stored vectors re-score them.

Axes: Q queries, N parts, D dimension.
"""

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.errors import MismatchError, NonFiniteError
from gindex.search.faiss_index import FaissIndex
from gindex.store.vectors import VectorReader

OVERFETCH, LEAST_CANDIDATES = 20, 200
"""A lossy index gives this many candidates for each hit asked for, and at least so many."""


@dataclass(frozen=True)
class Scored:
    """Part ordinals, best first, and their scores."""

    ordinals: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


class Funnel:
    """Candidates from FAISS, scores from the stored vectors."""

    def __init__(self, index: FaissIndex, reader: VectorReader, skipped: Collection[int]) -> None:
        """Join an index with the vectors it was derived from; parts in `skipped` have no vector."""
        self._index, self._reader = index, reader
        self._skipped = np.array(sorted(skipped), np.int64)

    def search(self, queries_QD: Tensor, k: int) -> list[Scored]:
        """Return the k parts with the largest scores for each query [Q, D].

        Raises:
            MismatchError: The queries have another dimension.
            NonFiniteError: A query vector holds a NaN or an infinity.
        """
        dimension = self._reader.spec.dimension
        if queries_QD.dim() != 2 or queries_QD.shape[1] != dimension:
            raise MismatchError(
                f"query vectors: expected dimension {dimension}, found shape {tuple(queries_QD.shape)}; encode them "
                "with this index"
            )
        if not queries_QD.isfinite().all():
            raise NonFiniteError("query vector: expected finite numbers, found NaN or infinity")
        wanted = k + len(self._skipped)
        count = wanted if self._index.spec.lossless else max(wanted * OVERFETCH, LEAST_CANDIDATES)
        ordinals_QC, scores_QC = self._index.candidates(queries_QD, count)
        return [
            self._best(query, ordinals[ordinals >= 0], scores[ordinals >= 0], k)
            for query, ordinals, scores in zip(queries_QD, ordinals_QC, scores_QC, strict=True)
        ]

    def _best(
        self, query_D: Tensor, ordinals: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int
    ) -> Scored:
        if not self._index.spec.lossless:
            scores = (self._reader.decoded(ordinals) @ query_D.cpu()).numpy()
        keep = ~np.isin(ordinals, self._skipped)
        ordinals, scores = ordinals[keep], scores[keep]
        order = np.lexsort((ordinals, -scores))[:k]
        return Scored(ordinals[order], scores[order])
