"""From a query vector to the best stored vectors: FAISS gives candidates, the stored vectors re-score them.

Axes: Q queries, N parts, D dimension.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import Tensor

from gindex.ann.index import Candidates, FaissIndex
from gindex.errors import MismatchError, NonFiniteError
from gindex.search.rescoring import Rescorer
from gindex.search.scan import scan
from gindex.search.scored import Scored, best_of
from gindex.store.reader import VectorReader
from gindex.store.second_level import StoredLevel
from gindex.store.weights import Weights, strata

OVERFETCH, LEAST_CANDIDATES = 20, 200
"""A lossy index gives this many candidates for each hit asked for, and at least so many."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Selection:
    """What a search is confined to, and how its scores are weighted.

    Attributes:
        parts: Ordinals of the only parts to be found, ascending; None where all may be.
        weights: What the score of each part of the index is multiplied by [N]; None where by nothing.
    """

    parts: npt.NDArray[np.int64] | None = None
    weights: Weights | None = None


EVERYTHING = Selection()


class Funnel:
    """Candidates from FAISS, scores from the stored vectors."""

    def __init__(
        self, index: FaissIndex, reader: VectorReader, skipped: Collection[int], level: StoredLevel | None = None
    ) -> None:
        """Join an index with the vectors it was derived from.

        Args:
            index: The FAISS index, of R v where there is a second level.
            reader: The stored vectors v.
            skipped: Parts that have no vector.
            level: The second level; None for none.
        """
        self.index, self.level, self._reader = index, level, reader
        self._skipped = np.array(sorted(skipped), np.int64)

    def prepared(self, queries_QD: Tensor) -> Tensor:
        """Return what the stored vectors are scored with for queries [Q, D]: R^2 q, float32; q without a second level.

        Raises:
            MismatchError: See `check`, which is left to `search` where nothing is to be done.
            NonFiniteError: See `check`.
        """
        if self.level is None:
            return queries_QD.float().cpu()
        self.check(queries_QD)
        return self.level.apply(queries_QD.float().cpu(), 2)

    def asked(self, prepared_QD: Tensor) -> Tensor:
        """Return what the index is asked, R q, of prepared queries."""
        return prepared_QD if self.level is None else self.level.apply(prepared_QD, -1)

    def search(
        self,
        prepared_QD: Tensor,
        k: int,
        selection: Selection = EVERYTHING,
        *,
        shortlist: int | None = None,
        full: bool = False,
    ) -> list[Scored]:
        """Return the k parts with the largest scores for each query [Q, D].

        Args:
            prepared_QD: Queries, as `prepared` returns them.
            k: Parts to return; fewer where there are fewer.
            selection: Which parts, and their weights.
            shortlist: Candidates that a lossy index gives for re-scoring; None takes the default for k.
            full: Score every stored vector, without the index.

        Raises:
            MismatchError: See `check`.
            NonFiniteError: See `check`.
        """
        self.check(prepared_QD)
        parts = self._parts(selection.parts)
        lossless = self.index.spec.lossless and selection.weights is None
        count = k if lossless else max(shortlist or max(k * OVERFETCH, LEAST_CANDIDATES), k)
        total = self._reader.spec.parts if parts is None else len(parts)
        if full or total <= count or (self.index.spec.lossless and selection.weights is not None):
            found = scan(self._reader, prepared_QD, k, parts=parts, weights=selection.weights)
            return [Scored(*pair) for pair in zip(*found, strict=True)]
        allowed = self._allowed(parts, selection.weights)
        candidates = self._candidates(self.asked(prepared_QD), count, allowed, selection.weights)
        if lossless:
            return [best_of(ordinals, scores, k) for ordinals, scores in candidates]
        largest = [n for n in self.index.spec.largest if allowed is None or allowed[n]]
        return Rescorer(self._reader, prepared_QD, selection.weights).best(candidates, k, np.array(largest, np.int64))

    def permitted(self, parts: npt.NDArray[np.int64], selection: Selection) -> npt.NDArray[np.int64]:
        """Return those of the parts that may be found."""
        selected = self._parts(selection.parts)
        return parts if selected is None else parts[np.isin(parts, selected)]

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

    def _parts(self, selected: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
        """Return the parts that may be found, ascending; None where all may."""
        if not len(self._skipped):
            return selected
        if selected is None:
            selected = np.arange(self._reader.spec.parts)
        return selected[~np.isin(selected, self._skipped)]

    def _allowed(self, parts: npt.NDArray[np.int64] | None, weights: Weights | None) -> npt.NDArray[np.bool_] | None:
        """Return which parts may be found [N]; None where all may, and there are no weights to divide them by."""
        if parts is None and weights is None:
            return None
        allowed = np.full(self._reader.spec.parts, parts is None)
        if parts is not None:
            allowed[parts] = True
        return allowed

    def _candidates(
        self, queries_QD: Tensor, count: int, allowed: npt.NDArray[np.bool_] | None, weights: Weights | None
    ) -> list[Candidates]:
        """Return candidates and their scores by the index for each query."""
        if allowed is None or weights is None:
            return self.index.candidates(queries_QD, count, allowed)
        found = [self.index.candidates(queries_QD, count, stratum) for stratum in strata(weights, allowed)]
        return [
            (np.concatenate([o for o, _ in of_query]), np.concatenate([s for _, s in of_query]))
            for of_query in zip(*found, strict=True)
        ]
