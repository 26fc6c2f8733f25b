"""Recall: are the documents found that are known to state what a query asks for?

Axes: Q queries, K depths.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import UnknownDocumentError
from gindex.index import GradientIndex
from gindex.lab.evaluations.rankings import Ranking, rank
from gindex.lab.evaluations.statistics import mean_interval
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.statistics import Interval

DEPTHS = (1, 3, 10, 100)


@dataclass(frozen=True, kw_only=True)
class Sought:
    """A query and the ids of the documents that state its answer."""

    query: Query
    documents: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodRecall:
    """How well one method finds what is sought.

    Attributes:
        recall: Share of the sought documents among the first k, by k, means over the queries.
        mrr: Reciprocal of the best rank of a sought document, a mean over the queries.
        ranks: Ranks of each query's sought documents from 1, ascending; None where it is not in the ranking.
    """

    recall: dict[int, Interval]
    mrr: Interval
    ranks: list[list[int | None]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Recall:
    """What was measured."""

    documents: int
    queries: int
    methods: dict[str, MethodRecall]

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "documents": self.documents,
            "queries": self.queries,
            "methods": {
                name: {
                    "mrr": asdict(method.mrr),
                    "recall": {str(k): asdict(interval) for k, interval in method.recall.items()},
                    "ranks": method.ranks,
                }
                for name, method in self.methods.items()
            },
        }


def evaluate_recall(
    index: GradientIndex,
    sought: Sequence[Sought],
    methods: Sequence[str],
    progress: Progress,
    *,
    candidates: int = 100,
    seed: int = 0,
) -> Recall:
    """Look for the documents that state what each query asks for.

    Args:
        index: The index.
        sought: Queries with the ids of their documents.
        methods: Names of `rankings.METHODS`.
        progress: Where the work is reported.
        candidates: Parts that the funnel re-ranks.
        seed: Seed of the random order.

    Raises:
        UnknownDocumentError: A document that is sought is not in the index.
        GindexError: A query cannot be searched for.
    """
    ids = index.ids()
    _check(sought, ids)
    queries = [of.query for of in sought]
    found = {}
    for method in methods:
        rankings = rank(index, queries, method, len(ids), progress, candidates=candidates, seed=seed)
        found[method] = measure([ranks_of(r, of.documents) for r, of in zip(rankings, sought, strict=True)], len(ids))
    return Recall(documents=len(ids), queries=len(queries), methods=found)


def ranks_of(ranking: Ranking, documents: Sequence[str]) -> list[int | None]:
    """Return the ranks of documents from 1, ascending, and None for each that is not in the ranking."""
    places = {document_id: place for place, (document_id, _) in enumerate(ranking, start=1)}
    there = sorted(places[document_id] for document_id in documents if document_id in places)
    return [*there, *[None] * (len(documents) - len(there))]


def measure(ranks: list[list[int | None]], documents: int) -> MethodRecall:
    """Summarise the ranks of each query's sought documents.

    Args:
        ranks: As `ranks_of` gives them, for each query.
        documents: Documents of the index: recall is given at depths below that.
    """
    return MethodRecall(
        recall={k: mean_interval(shares_within(ranks, k)) for k in DEPTHS if k < documents},
        mrr=mean_interval(np.array([0.0 if of[0] is None else 1 / of[0] for of in ranks])),
        ranks=ranks,
    )


def _check(sought: Sequence[Sought], ids: Sequence[str]) -> None:
    known = set(ids)
    for number, of in enumerate(sought, start=1):
        for document_id in of.documents:
            if document_id not in known:
                raise UnknownDocumentError(
                    field=f"query {of.query.id or number}",
                    expected="documents of the index",
                    found=f"no {document_id!r} there",
                    remedy="correct the ids, or index the documents",
                )


def shares_within(ranks: list[list[int | None]], k: int) -> npt.NDArray[np.float64]:
    """Return the share of each query's sought documents [Q] that are among the first k."""
    return np.array([np.mean([place is not None and place <= k for place in of]) for of in ranks])
