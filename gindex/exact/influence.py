"""Exact influence of parts on the queries of one search, refined or not.

What the queries are preconditioned to is kept from one call to the next where it fits, so that a re-rank that asks
again after each block of candidates does not pay for it again.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gindex.exact.refinement import Refinement
from gindex.exact.refiner import Refiner
from gindex.exact.rerank import Held, Reranker
from gindex.progress import Progress
from gindex.queries.tokens import QueryTokens
from gindex.vectors.held_gradients import Hold

Ordinals = npt.NDArray[np.int64]


class RefinedPreconditioner:
    """Preconditions queries by a refiner, over a sample of parts, and keeps how each was refined."""

    def __init__(self, refiner: Refiner, sample: Ordinals) -> None:
        """Take the refiner and the parts that it takes the curvature over."""
        self._refiner, self._sample = refiner, sample
        self.query_bytes = refiner.query_bytes
        self.refinements: list[Refinement] = []

    def precondition(self, queries: Sequence[QueryTokens], progress: Progress, hold: Hold) -> Held:
        """What is held of the inverse curvature times the gradients of queries, [Q, O, I] by layer name."""
        preconditioned, refinements = self._refiner.solve(queries, self._sample, progress)
        self.refinements += refinements
        return {name: hold(preconditioned.pop(name)) for name in list(preconditioned)}


class QueryInfluence:
    """Exact influence on some queries."""

    def __init__(
        self,
        reranker: Reranker,
        queries: Sequence[QueryTokens],
        progress: Progress,
        refined: RefinedPreconditioner | None = None,
    ) -> None:
        """Compute nothing yet.

        Args:
            reranker: Computes exact influence.
            queries: The queries.
            progress: Where the work is reported.
            refined: What preconditions the queries in the place of EK-FAC.
        """
        self._reranker, self._queries, self._progress, self._refined = reranker, queries, progress, refined
        self._held: Held = {}

    @property
    def refinements(self) -> list[Refinement] | None:
        """How each query was refined, once its influence was computed; None where none was."""
        return None if self._refined is None else self._refined.refinements[: len(self._queries)] or None

    def of(self, parts: Sequence[Ordinals]) -> list[npt.NDArray[np.float32]]:
        """Influence of each query's own parts on it, [N] each."""
        asked = self._queries, parts, self._progress, self._held
        if self._refined is None:
            return self._reranker.influence(*asked)
        return self._reranker.influence(*asked, self._refined.precondition, self._refined.query_bytes)
