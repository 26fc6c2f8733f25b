"""Candidates in the order of their exact influence, all of them or until the best are certain, with a certificate.

Axes: N parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from gindex.exact.certificate import Certificate
from gindex.exact.certification import Known, both_ends, certify
from gindex.exact.influence import QueryInfluence
from gindex.search.ask import Ask, Search
from gindex.search.candidates import Candidate, ordered
from gindex.search.funnel import Funnel
from gindex.search.lexical import words_order
from gindex.search.population import Population
from gindex.search_options import SearchOptions
from gindex.store.reader import VectorReader

BLOCK = 16
"""Candidates of a query that are re-ranked before it is asked whether the best are certain; k, where it is more."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _End:
    """One end of a query: the number of its ask, the ask, and its candidates, best by score first."""

    number: int
    ask: Ask
    candidates: list[Candidate]


@dataclass(kw_only=True, eq=False)
class _Query:
    """A query on its way through the re-rank.

    Attributes:
        ends: Its ends.
        influence: Exact influence, which both ends share, of the parts that are done.
        is_done: Whether its best are certain enough.
    """

    ends: list[_End] = field(default_factory=list)
    influence: dict[int, float] = field(default_factory=dict)
    is_done: bool = False

    def next_parts(self, stop: int) -> npt.NDArray[np.int64]:
        """Parts whose influence is still missing among the first `stop` candidates of its ends."""
        if self.is_done:
            return np.zeros(0, np.int64)
        first = {candidate.ordinal for end in self.ends for candidate in end.candidates[:stop]}
        return np.array(sorted(first - self.influence.keys()), np.int64)


class ExactOrder:
    """The exact re-rank of one search.

    Attributes:
        reranked: How many parts the influence of each query was computed of.
    """

    def __init__(self, search: Search, influence: QueryInfluence, funnel: Funnel, reader: VectorReader) -> None:
        """Take the search, what computes the influence on its queries, what gives candidates, and stored vectors."""
        self._search, self._influence = search, influence
        self._population = Population(search, funnel, reader) if is_certifiable(search.options) else None
        self._queries: list[_Query] = []
        self.reranked: list[int] = []

    def order(self, found: Sequence[list[Candidate]]) -> list[list[Candidate]]:
        """Candidates of each ask by influence, weighted as their scores are, without those that were left out.

        Args:
            found: Candidates of each ask, best by score first.
        """
        self._queries = queries = self._of(found)
        for stop in self._stops(max(map(len, found))):
            self._compute(queries, stop)
            for query in queries:
                query.is_done = query.is_done or self._is_certain(query)
            if all(query.is_done for query in queries):
                break
        self.reranked = [len(query.influence) for query in queries]
        by_ask = {end.number: self._done(end, query) for query in queries for end in query.ends}
        return [by_ask[number] for number in range(len(found))]

    def certificates(self, best: Sequence[list[Candidate]]) -> list[Certificate | None]:
        """What can be said of the hits of each query; None where they are not ordered by the influence of single parts.

        Args:
            best: The hits of each ask, best first.
        """
        if self._population is None:
            return [None for _ in self._queries]
        population = self._population
        return [
            both_ends([self._certificate(population, end, query, best[end.number]) for end in query.ends])
            for query in self._queries
        ]

    def _of(self, found: Sequence[list[Candidate]]) -> list[_Query]:
        """The queries that ask, with the candidates of their ends."""
        queries = [_Query() for _ in range(1 + max(ask.query for ask in self._search.asks))]
        for number, (ask, candidates) in enumerate(zip(self._search.asks, found, strict=True)):
            queries[ask.query].ends.append(_End(number=number, ask=ask, candidates=candidates))
        return queries

    def _stops(self, most: int) -> range:
        """How many of an end's candidates are done after each step, where it has `most`."""
        options = self._search.options
        block = max(1, most) if options.certainty is None else max(BLOCK, options.k)
        return range(block, most + block, block)

    def _compute(self, queries: list[_Query], stop: int) -> None:
        """Compute the influence that is missing among the first `stop` candidates, for all queries at once."""
        asked = [query.next_parts(stop) for query in queries]
        if any(map(len, asked)):
            for query, parts, influence in zip(queries, asked, self._influence.of(asked), strict=True):
                query.influence.update(zip(parts.tolist(), influence.tolist(), strict=True))

    def _done(self, end: _End, query: _Query) -> list[Candidate]:
        """Those of the candidates whose influence is known, by it."""
        weights = self._search.selection.weights
        done = []
        for candidate in end.candidates:
            if candidate.ordinal in query.influence:
                weight = 1.0 if weights is None else float(weights[candidate.ordinal])
                exact = query.influence[candidate.ordinal]
                done.append(replace(candidate, influence=exact, merit=end.ask.sign * weight * exact))
        return ordered(done)

    def _is_certain(self, query: _Query) -> bool:
        """Whether the best of what is done are the best of all, as certainly as is asked for."""
        population, options = self._population, self._search.options
        if population is None or options.certainty is None:
            return False
        ends = [self._certificate(population, end, query, self._done(end, query)[: options.k]) for end in query.ends]
        return both_ends(ends).probability >= options.certainty

    def _certificate(self, population: Population, end: _End, query: _Query, best: Sequence[Candidate]) -> Certificate:
        """What can be said of the best candidates of an end that are done."""
        done = self._done(end, query)
        parts = np.array([candidate.ordinal for candidate in done], np.int64)
        waiting = {c.ordinal: end.ask.sign * c.score for c in end.candidates if c.ordinal not in query.influence}
        known = Known(
            influence_M=np.array([candidate.merit for candidate in done]),
            scores_M=np.array([end.ask.sign * candidate.score for candidate in done]),
            sizes_M=population.sizes(parts),
        )
        k = self._search.options.k
        least = best[-1].merit if len(best) >= k else -np.inf
        return certify(known, population.outside(end.number, parts, waiting), least, k)


def is_certifiable(options: SearchOptions) -> bool:
    """Whether hits are in the order of the influence of single parts, which a certificate speaks of."""
    return not words_order(options) and (options.hits, options.document_score) != ("document", "sum")
