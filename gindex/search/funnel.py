"""From a query vector to the best stored vectors: FAISS gives candidates, the stored vectors re-score them.

Axes: Q queries, N parts, D dimension.
"""

import itertools
import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.errors import MismatchError, NonFiniteError
from gindex.search.faiss_index import FaissIndex
from gindex.search.scan import coded_scores, part_scores, scan
from gindex.search.weights import Weights, strata
from gindex.search.workers import spread, threads
from gindex.store.reader import VectorReader
from gindex.store.second_level import StoredLevel

OVERFETCH, LEAST_CANDIDATES = 20, 200
"""A lossy index gives this many candidates for each hit asked for, and at least so many."""

QUERIES_READ = 32
"""Queries whose candidates are read at once."""

LEAST_SHARED = 8
"""Queries from which the candidates that all of them have are scored for all at once."""


@dataclass(frozen=True)
class Scored:
    """Part ordinals, best first, and their scores."""

    ordinals: npt.NDArray[np.int64]
    scores: npt.NDArray[np.float32]


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
        self, prepared_QD: Tensor, k: int, selection: Selection = EVERYTHING, *, shortlist: int = 0, full: bool = False
    ) -> list[Scored]:
        """Return the k parts with the largest scores for each query [Q, D].

        Args:
            prepared_QD: Queries, as `prepared` returns them.
            k: Parts to return; fewer where there are fewer.
            selection: Which parts, and their weights.
            shortlist: Candidates that a lossy index gives for re-scoring; 0 takes the default for k.
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
        candidates = self._candidates(self.asked(prepared_QD), count, parts, selection.weights)
        if lossless:
            return [_best(ordinals, scores, k) for ordinals, scores in candidates]
        return self._rescored(prepared_QD, [ordinals for ordinals, _ in candidates], k, selection.weights)

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
                f"query vectors: expected dimension {dimension}, found shape {tuple(queries_QD.shape)}; encode them "
                "with this index"
            )
        # The ends alone: they show a NaN or an infinity, and nothing of the queries' size is made on the way.
        if queries_QD.numel() and not all(math.isfinite(end) for end in queries_QD.aminmax()):
            raise NonFiniteError("query vector: expected finite numbers, found NaN or infinity")

    def _parts(self, selected: npt.NDArray[np.int64] | None) -> npt.NDArray[np.int64] | None:
        """Return the parts that may be found, ascending; None where all may."""
        if not len(self._skipped):
            return selected
        if selected is None:
            selected = np.arange(self._reader.spec.parts)
        return selected[~np.isin(selected, self._skipped)]

    def _candidates(
        self, queries_QD: Tensor, count: int, parts: npt.NDArray[np.int64] | None, weights: Weights | None
    ) -> list[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """Return candidates and their scores by the index for each query."""
        if parts is None and weights is None:
            return self.index.candidates(queries_QD, count)
        allowed = np.ones(self._reader.spec.parts, np.bool_)
        if parts is not None:
            allowed[:] = False
            allowed[parts] = True
        if weights is None:
            return self.index.candidates(queries_QD, count, allowed)
        found = [self.index.candidates(queries_QD, count, stratum) for stratum in strata(weights, allowed)]
        return [
            (np.concatenate([o for o, _ in of_query]), np.concatenate([s for _, s in of_query]))
            for of_query in zip(*found, strict=True)
        ]

    def _rescored(
        self, queries_QD: Tensor, candidates: list[npt.NDArray[np.int64]], k: int, weights: Weights | None
    ) -> list[Scored]:
        """Score each query's candidates by the stored vectors; those that every query has, for all at once."""
        common = np.array(self.index.spec.largest, np.int64)
        if len(queries_QD) < LEAST_SHARED:
            common = common[:0]
        own = [ordinals[~np.isin(ordinals, common)] for ordinals in candidates]
        common_QC = self._scores(queries_QD, common, weights)
        result = []
        for start in range(0, len(queries_QD), QUERIES_READ):
            some = range(start, min(start + QUERIES_READ, len(queries_QD)))
            for query, own_N in zip(some, self._own_scores(queries_QD, own, some, weights), strict=True):
                shared = np.isin(common, candidates[query])
                scores = np.concatenate([own_N, common_QC[query, shared]])
                result.append(_best(np.concatenate([own[query], common[shared]]), scores, k))
        return result

    def _own_scores(
        self, queries_QD: Tensor, own: list[npt.NDArray[np.int64]], some: range, weights: Weights | None
    ) -> list[npt.NDArray[np.float32]]:
        """Score the candidates of some queries, each query's its own; each thread reads the vectors of its share."""
        stops = np.cumsum([len(own[query]) for query in some]).tolist()
        bounds = list(zip([0, *stops[:-1]], stops, some, strict=True))
        ordinals = np.concatenate([own[query] for query in some])
        each = -(-threads() // len(bounds))  # pieces of a query: as many as leave no thread idle
        pieces = [
            (int(a), int(b), query)
            for start, stop, query in bounds
            for a, b in itertools.pairwise(np.linspace(start, stop, each + 1).astype(int))
        ]
        count = -(-len(pieces) // min(threads(), len(pieces)))
        shares = [pieces[n : n + count] for n in range(0, len(pieces), count)]

        def score(share: list[tuple[int, int, int]]) -> Tensor:
            first, last = share[0][0], share[-1][1]
            codes, scales = self._reader.coded(ordinals[first:last])
            rows = [(slice(start - first, stop - first), query) for start, stop, query in share]
            scores = [coded_scores(self._reader, codes[n], scales[n], queries_QD[q : q + 1])[0] for n, q in rows]
            return torch.cat(scores)

        scores = torch.cat(spread(score, shares)).numpy()
        if weights is not None:
            scores = scores * weights[ordinals]
        return [scores[start:stop] for start, stop, _ in bounds]

    def _scores(
        self, queries_QD: Tensor, ordinals: npt.NDArray[np.int64], weights: Weights | None
    ) -> npt.NDArray[np.float32]:
        if not len(ordinals):
            return np.empty((len(queries_QD), 0), np.float32)
        scores_QN: npt.NDArray[np.float32] = spread(
            lambda parts: part_scores(self._reader, parts, queries_QD, weights), [ordinals]
        )[0].numpy()
        return scores_QN


def _best(ordinals: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], k: int) -> Scored:
    order = np.lexsort((ordinals, -scores))[:k]
    return Scored(ordinals[order], scores[order])
