"""From a query vector to the best stored vectors: FAISS gives candidates, the stored vectors re-score them.

Axes: Q queries, N parts, D dimension.
"""

import math
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.ann.index import Candidates
from gindex.ann.index_files import IndexFiles
from gindex.errors import MismatchError, NonFiniteError
from gindex.search.ranking import Ranking, best_of
from gindex.search.rescorer import Rescorer
from gindex.search.scan import scan
from gindex.search.selection import EVERYTHING, Selection
from gindex.search.weights import Weights, strata
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform

OVERFETCH, LEAST_CANDIDATES = 20, 200
"""A lossy index gives this many candidates for each hit asked for, and at least so many."""


class Funnel:
    """Candidates from FAISS, scores from the stored vectors."""

    def __init__(
        self,
        index: IndexFiles,
        reader: VectorReader,
        skipped: Collection[int],
        transform: Transform | None = None,
    ) -> None:
        """Join an index with the vectors it was derived from.

        Args:
            index: The FAISS files.
            reader: The stored vectors.
            skipped: Parts that have no vector.
            transform: What is compared in the place of vectors and queries; None for themselves.
        """
        self.index, self.transform, self._reader = index, transform, reader
        self._usable: npt.NDArray[np.bool_] | None = None
        if len(skipped):
            self._usable = np.ones(reader.spec.parts, np.bool_)
            self._usable[np.asarray(skipped if isinstance(skipped, np.ndarray) else list(skipped), np.int64)] = False

    def scoring_queries(self, queries_QD: Tensor) -> Tensor:
        """What the stored vectors are scored with for queries [Q, D], float32, on the CPU: themselves, or transformed.

        Raises:
            MismatchError: See `check`, which is left to `search` where there is no transform.
            NonFiniteError: See `check`.
        """
        if self.transform is None:
            return queries_QD.float().cpu()
        self.check(queries_QD)
        return self.transform.queries(queries_QD.float().cpu())

    def index_queries(self, scoring_QD: Tensor) -> Tensor:
        """What the FAISS index is asked for queries that `scoring_queries` gave [Q, D]."""
        return scoring_QD if self.transform is None else self.transform.index_queries(scoring_QD)

    def search(
        self,
        scoring_QD: Tensor,
        k: int,
        selection: Selection = EVERYTHING,
        *,
        shortlist: int | None = None,
        full: bool = False,
    ) -> list[Ranking]:
        """The k parts with the largest scores for each query [Q, D].

        Args:
            scoring_QD: Queries, as `scoring_queries` gives them.
            k: Parts to return; fewer where there are fewer.
            selection: Which parts, and their weights.
            shortlist: Candidates that a lossy index gives for re-scoring; None takes the default for k.
            full: Score every stored vector, without the index.

        Raises:
            MismatchError: See `check`.
            NonFiniteError: See `check`.
        """
        self.check(scoring_QD)
        weights, lossless, parts = selection.weights, self.index.lossless, self._selected(selection.parts)
        count = k if lossless else max(shortlist or max(k * OVERFETCH, LEAST_CANDIDATES), k)
        total = self._count(parts)
        # A lossless index is small: where its order is not that of the weighted scores, all of it is scored.
        if full or total <= count or (lossless and weights is not None):
            found = scan(self._reader, scoring_QD, k, parts=self._parts(parts), weights=weights)
            return [Ranking(*pair) for pair in zip(*found, strict=True)]
        allowed = self._allowed(parts, weights)
        candidates = self._candidates(self.index_queries(scoring_QD), count, allowed, weights)
        if lossless:
            return [best_of(ordinals, scores, k) for ordinals, scores in candidates]
        largest = self.index.largest
        common = largest if allowed is None else largest[allowed[largest]]
        return Rescorer(self._reader, scoring_QD, weights).best(candidates, k, common)

    def permitted(self, parts: npt.NDArray[np.int64], selection: Selection) -> npt.NDArray[np.int64]:
        """Those of the parts that may be found."""
        selected = self._parts(selection.parts)
        return parts if selected is None else parts[np.isin(parts, selected)]

    def searched(self, selected: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.int64]:
        """Ordinals of the parts that may be found, ascending.

        Args:
            selected: The only parts to be found, ascending; None for all.
        """
        parts = self._parts(selected)
        return np.arange(self._reader.spec.parts) if parts is None else parts

    def check(self, queries_QD: Tensor) -> None:
        """Refuse query vectors that cannot be scored.

        Raises:
            MismatchError: They have another shape than [Q, D].
            NonFiniteError: One holds a NaN or an infinity.
        """
        dimension = self._reader.spec.dimension
        if queries_QD.dim() != 2 or queries_QD.shape[1] != dimension:
            raise MismatchError(
                field="query vectors",
                expected=f"dimension {dimension}",
                found=f"shape {tuple(queries_QD.shape)}",
                remedy="encode them with this index",
            )
        # The ends alone: they show a NaN or an infinity, and nothing of the queries' size is made on the way.
        if queries_QD.numel() and not all(math.isfinite(end) for end in queries_QD.aminmax()):
            raise NonFiniteError(field="query vector", expected="finite numbers", found="NaN or infinity")

    def _selected(self, selected: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
        """Ordinals of selected parts that may be found; None for all that may."""
        return None if selected is None else self._parts(selected)

    def _count(self, parts: npt.NDArray[np.int64] | None) -> int:
        """How many parts there are; all that may be found where None."""
        if parts is not None:
            return len(parts)
        return self._reader.spec.parts if self._usable is None else int(np.count_nonzero(self._usable))

    def _parts(self, selected: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
        """Ordinals of the parts that may be found, ascending; None where all may."""
        if self._usable is None:
            return selected
        return np.flatnonzero(self._usable) if selected is None else selected[self._usable[selected]]

    def _allowed(self, parts: npt.NDArray[np.int64] | None, weights: Weights | None) -> npt.NDArray[np.bool_] | None:
        """Which parts may be found [N]; None where all may, and there are no weights to divide them by."""
        if parts is None:
            every = None if weights is None else np.ones(self._reader.spec.parts, np.bool_)
            return every if self._usable is None else self._usable
        allowed = np.zeros(self._reader.spec.parts, np.bool_)
        allowed[parts] = True
        return allowed

    def _candidates(
        self, queries_QD: Tensor, count: int, allowed: npt.NDArray[np.bool_] | None, weights: Weights | None
    ) -> list[Candidates]:
        """Candidates and their scores by the index for each query."""
        if allowed is None or weights is None:
            return self.index.candidates(queries_QD, count, allowed)
        found = [self.index.candidates(queries_QD, count, stratum) for stratum in strata(weights, allowed)]
        return [
            (np.concatenate([o for o, _ in of_query]), np.concatenate([s for _, s in of_query]))
            for of_query in zip(*found, strict=True)
        ]
