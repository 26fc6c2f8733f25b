"""A search: from queries that have become vectors to results.

    lexical       the documents with the best BM25 scores for the queries' words
    selection     the parts that may be found, and their weights
    ask           one ask for each end of each query
    gatherer      candidates of each ask, from the funnel and by words
    exact_order   the candidates by exact influence, where that is asked for
    hits          the best candidates with what they say of their documents
    sweeper       the scores of all documents, put together in groups where that is asked for

Axes: Q queries, D dimension, N parts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.documents.table import DocumentTable
from gindex.errors import ConfigError
from gindex.exact.certificate import Certificate
from gindex.exact.influence import QueryInfluence
from gindex.progress import Progress
from gindex.queries.query import FailedQuery
from gindex.queries.tokens import QueryTokens
from gindex.search.ask import Search, make_search
from gindex.search.candidates import Candidate
from gindex.search.exact_order import ExactOrder
from gindex.search.funnel import Funnel
from gindex.search.gatherer import Gatherer
from gindex.search.hits import make_hits
from gindex.search.lexical import lexical_ranks
from gindex.search.query_vectors import EncodedQuery, searchable
from gindex.search.result import Clock, Hit, Outcome, SearchResult
from gindex.search.selection import Selection, selected_parts
from gindex.search.sweep import StoredScores
from gindex.search.sweeper import Sweeper
from gindex.search.weights import Normaliser
from gindex.search_options import SearchOptions
from gindex.store.manifest import Manifest
from gindex.store.reader import VectorReader

Influence = Callable[[Sequence[QueryTokens]], QueryInfluence]
"""Gives what computes exact influence on queries."""


@dataclass(frozen=True, kw_only=True)
class _Reranking:
    """What is told of the exact re-rank of each query: how many parts, and how likely it is that nothing was missed."""

    reranked: list[int]
    certificates: list[Certificate | None]


class Searcher:
    """Searches one version of an index with queries that have become vectors."""

    def __init__(self, funnel: Funnel, reader: VectorReader, table: DocumentTable, manifest: Manifest) -> None:
        """Join what a search needs.

        Args:
            funnel: Gives the parts of largest scores.
            reader: The stored vectors.
            table: The documents.
            manifest: What the version is.
        """
        self.funnel, self._reader, self._table, self._manifest = funnel, reader, table, manifest
        self._gatherer = Gatherer(funnel, reader, table)
        norms = None if funnel.transform is None else funnel.transform.norms
        self._normaliser = Normaliser(reader, table.part_targets, norms)
        self.sweeper = Sweeper(funnel, reader, table, self._normaliser, manifest.settings.seed)

    def answer(
        self,
        queries: Sequence[EncodedQuery | FailedQuery],
        options: SearchOptions,
        influence: Influence,
        clock: Clock,
        progress: Progress,
    ) -> list[Outcome]:
        """Answer queries; those that failed, or fail here by themselves, stay in their places.

        Args:
            queries: The queries.
            options: What to look for, and how.
            influence: Gives what computes exact influence, where that is asked for.
            clock: Where the time is counted.
            progress: Where the scoring of all documents is reported.

        Raises:
            GindexError: A query vector, filter or text cannot be used.
        """
        queries = [searchable(query, options) for query in queries]
        encoded = [query for query in queries if isinstance(query, EncodedQuery)]
        results = iter(self._results(encoded, options, influence, clock, progress) if encoded else [])
        return [query if isinstance(query, FailedQuery) else next(results) for query in queries]

    def scores(self, queries_QD: Tensor, parts: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Scores [Q, N] of parts [N] for query vectors.

        Raises:
            MismatchError: The vectors have another dimension.
            NonFiniteError: One holds a NaN or an infinity.
        """
        self.funnel.check(queries_QD)
        return StoredScores(self._reader, self.funnel.scoring_queries(queries_QD))(parts)

    def _results(
        self,
        queries: list[EncodedQuery],
        options: SearchOptions,
        influence: Influence,
        clock: Clock,
        progress: Progress,
    ) -> list[SearchResult]:
        exact = influence(_tokens(queries)) if options.exact else None
        vectors_QD = self.funnel.scoring_queries(torch.stack([query.vector_D for query in queries]))
        ranks = lexical_ranks(self._table, options, [query.words for query in queries])
        parts = selected_parts(self._table, options, ranks)
        selection = Selection(parts=parts, weights=self._normaliser.weights(options.normalise))
        search = make_search(self.funnel, vectors_QD, options, ranks, selection)
        ends, reranking = self._ends(search, len(queries), exact, clock)
        groups = None if options.group_by is None else self.sweeper.groups(vectors_QD, parts, options, progress)
        clock.lap("search")
        timing, refinements = clock.timing(), None if exact is None else exact.refinements
        return [
            SearchResult(
                query=query.query,
                tokens=query.length,
                hits=ends[number][0],
                timing_ms=timing,
                negative_hits=ends[number][1] if options.both else None,
                reranked=None if reranking is None else reranking.reranked[number],
                certificate=None if reranking is None else reranking.certificates[number],
                refinement=None if refinements is None else refinements[number],
                groups=None if groups is None else groups[number],
                notes=query.notes,
                version=self._manifest.version,
                coverage=self._manifest.coverage,
            )
            for number, query in enumerate(queries)
        ]

    def _ends(
        self, search: Search, queries: int, exact: QueryInfluence | None, clock: Clock
    ) -> tuple[list[list[tuple[Hit, ...]]], _Reranking | None]:
        """Hits of each end of each query, and what is told of their re-rank."""
        found, order = self._candidates(search, exact, clock)
        best = [self._gatherer.best(search, *of) for of in zip(search.asks, found, strict=True)]
        reranking = (
            None if order is None else _Reranking(reranked=order.reranked, certificates=order.certificates(best))
        )
        hits = make_hits(search, best, self._table, self._reader, list(self._manifest.projection.slices))
        clock.lap("search")
        ends: list[list[tuple[Hit, ...]]] = [[] for _ in range(queries)]
        for ask, of_ask in zip(search.asks, hits, strict=True):
            ends[ask.query].append(of_ask)
        return ends, reranking

    def _candidates(
        self, search: Search, exact: QueryInfluence | None, clock: Clock
    ) -> tuple[list[list[Candidate]], ExactOrder | None]:
        """Candidates of each ask in their order, and what put them into it, where that is exact influence."""
        if search.selection.is_empty:
            self.funnel.check(search.vectors_AD)
            return [[] for _ in search.asks], None
        found = self._gatherer.gather(search)
        clock.lap("search")
        if exact is None:
            return found, None
        order = ExactOrder(search, exact, self.funnel, self._reader)
        found = order.order(found)
        clock.lap("rerank")
        return found, order


def _tokens(queries: list[EncodedQuery]) -> list[QueryTokens]:
    tokens = [query.tokens for query in queries if query.tokens is not None]
    if len(tokens) < len(queries):
        raise ConfigError(
            field="exact", expected="a query of text", found="a vector, which has no tokens", remedy="leave it out"
        )
    return tokens
