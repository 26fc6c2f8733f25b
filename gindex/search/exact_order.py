"""Candidates in the order of their exact influence, until the rest is not expected to matter.

Axes: N parts.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gindex.exact.influence import QueryInfluence
from gindex.exact.stopping import expected_misses
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate, ordered
from gindex.store.reader import VectorReader

STOPPING_BLOCK = 16
"""Candidates of a query that are re-ranked before it is asked whether the rest can be left out; k, where it is more."""


@dataclass(kw_only=True, eq=False)
class _Query:
    """A query on its way through the re-rank.

    Attributes:
        ends: Its asks and their candidates, best by score first.
        influence: Exact influence, which both ends share, of the parts that are done.
        is_done: Whether what is left is not expected to matter.
    """

    ends: list[tuple[Ask, list[Candidate]]] = field(default_factory=list)
    influence: dict[int, float] = field(default_factory=dict)
    is_done: bool = False

    def next_parts(self, stop: int) -> npt.NDArray[np.int64]:
        """Parts whose influence is still missing among the first `stop` candidates of its ends."""
        if self.is_done:
            return np.zeros(0, np.int64)
        first = {candidate.ordinal for _, candidates in self.ends for candidate in candidates[:stop]}
        return np.array(sorted(first - self.influence.keys()), np.int64)


class ExactOrder:
    """The exact re-rank of one search.

    Attributes:
        reranked: How many parts the influence of each query was computed of.
    """

    def __init__(self, search: Search, influence: QueryInfluence, reader: VectorReader) -> None:
        """Take the search, what computes the influence on its queries, and the stored vectors."""
        self._search, self._influence, self._reader = search, influence, reader
        self.reranked: list[int] = []

    def order(self, found: list[list[Candidate]]) -> list[list[Candidate]]:
        """Candidates of each ask by influence, weighted as their scores are, without those that were left out.

        Args:
            found: Candidates of each ask, best by score first.
        """
        queries = self._queries(found)
        for stop in self._stops(max(map(len, found))):
            self._compute(queries, stop)
            for query in queries:
                query.is_done = query.is_done or self._misses(query) <= (self._search.options.stop_early or 0.0)
            if all(query.is_done for query in queries):
                break
        self.reranked = [len(query.influence) for query in queries]
        known = [queries[ask.query].influence for ask in self._search.asks]
        return [ordered(self._done(*of)) for of in zip(self._search.asks, found, known, strict=True)]

    def _queries(self, found: list[list[Candidate]]) -> list[_Query]:
        queries = [_Query() for _ in range(1 + max(ask.query for ask in self._search.asks))]
        for ask, candidates in zip(self._search.asks, found, strict=True):
            queries[ask.query].ends.append((ask, candidates))
        return queries

    def _stops(self, most: int) -> range:
        """How many of an end's candidates are done after each step, where it has `most`."""
        options = self._search.options
        block = max(1, most) if options.stop_early is None else max(STOPPING_BLOCK, options.k)
        return range(block, most + block, block)

    def _compute(self, queries: list[_Query], stop: int) -> None:
        """Compute the influence that is missing among the first `stop` candidates, for all queries at once."""
        asked = [query.next_parts(stop) for query in queries]
        if any(map(len, asked)):
            for query, parts, influence in zip(queries, asked, self._influence.of(asked), strict=True):
                query.influence.update(zip(parts.tolist(), influence.tolist(), strict=True))

    def _done(self, ask: Ask, candidates: list[Candidate], influence: dict[int, float]) -> list[Candidate]:
        """Those of the candidates whose influence is known, with it."""
        weights = self._search.selection.weights
        done = []
        for candidate in candidates:
            if candidate.ordinal in influence:
                weight = 1.0 if weights is None else float(weights[candidate.ordinal])
                exact = influence[candidate.ordinal]
                done.append(replace(candidate, influence=exact, merit=ask.sign * weight * exact))
        return done

    def _misses(self, query: _Query) -> float:
        """How many of the k best of either end are expected among the candidates that are not done."""
        return sum(self._misses_of(ask, candidates, query.influence) for ask, candidates in query.ends)

    def _misses_of(self, ask: Ask, candidates: list[Candidate], influence: dict[int, float]) -> float:
        done = {candidate.ordinal: candidate.merit for candidate in self._done(ask, candidates, influence)}
        score = {candidate.ordinal: candidate.merit for candidate in candidates}
        left = [ordinal for ordinal in score if ordinal not in done]
        if self._search.options.stop_early is None or not left:
            return float(len(left))
        known = list(done)
        return expected_misses(
            np.array(list(done.values())), np.array([score[n] for n in known]), self._sizes(known),
            np.array([score[n] for n in left]), self._sizes(left), self._search.options.k,
        )  # fmt: skip

    def _sizes(self, parts: list[int]) -> npt.NDArray[np.float64]:
        """The roots of the parts' self-influence, weighted as their scores are."""
        squared = self._reader.self_influence(np.array(parts, np.int64)).astype(np.float64)
        weights = self._search.selection.weights
        factors = 1.0 if weights is None else weights[parts].astype(np.float64)
        return np.maximum(np.sqrt(squared) * factors, 1e-30)
