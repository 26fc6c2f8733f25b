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
from gindex.lab.evaluations.config import RankingsConfig
from gindex.lab.evaluations.rankings import Ranking, rank
from gindex.lab.plots import FAINT, curve_style
from gindex.lab.report import Figure, Report, Section, Source, Table, spread
from gindex.lab.statistics import mean_interval
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.statistics import Interval

DEPTHS = (1, 3, 10, 100)

CAVEATS = (
    "A document that states the answer need not be what the model learnt it from, and one that the model learnt it "
    "from need not be in the list. A method can be right about the model and still miss.",
    "Documents that state an answer share its words. BM25 among the methods shows how far words alone go.",
    "Recall says nothing of the order among documents that are not sought, nor of those that lower the likelihood of "
    "an answer.",
)


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
class SoughtRecall:
    """What was measured."""

    config: RankingsConfig
    documents: int
    queries: int
    methods: dict[str, MethodRecall]


def recall_report(measured: SoughtRecall, source: Source) -> Report:
    """What was measured, for readers and for programs."""
    ordered = dict(sorted(measured.methods.items(), key=lambda item: -item[1].mrr.mean))
    best = next(iter(ordered))
    depths = list(ordered[best].recall)

    def fill(axes: Any) -> None:
        steps = np.unique(np.geomspace(1, measured.documents, 60).astype(int))
        for number, (name, method) in enumerate(ordered.items()):
            shares = [shares_within(method.ranks, int(k)).mean() for k in steps]
            axes.semilogx(steps, shares, label=name, **curve_style(number))
        axes.semilogx(steps, steps / measured.documents, "--", color=FAINT, label="by chance")
        axes.set(xlabel="first documents looked at", ylabel="share of the sought documents", ylim=(0, 1.02))
        axes.legend(loc="lower right")

    figure = Figure(
        label="Sought documents among the first",
        fill=fill,
        caption="Share of each query's sought documents, a mean over the queries.",
    )
    table = Table(
        header=("method", "MRR", *(f"recall@{k}" for k in depths)),
        rows=tuple(
            (name, spread(each.mrr, ".3f"), *(spread(each.recall[k], ".3f") for k in depths))
            for name, each in measured.methods.items()
        ),
        caption="Mean reciprocal rank of the first sought document, and the share of them among the first k; 95% "
        "intervals by bootstrap over the queries.",
    )
    return Report(
        name="recall",
        title="Are the documents found that state what a query asks for?",
        findings=(
            f"{measured.queries:,} queries, {measured.documents:,} documents",
            f"{best} ranks them best: mean reciprocal rank {spread(ordered[best].mrr, '.3f')}.",
        ),
        sections=(Section(title="Methods by what they find", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        sources=(source,),
        settings=asdict(measured.config),
        numbers={
            "documents": measured.documents,
            "queries": measured.queries,
            "methods": {
                name: {
                    "mrr": asdict(method.mrr),
                    "recall": {str(k): asdict(interval) for k, interval in method.recall.items()},
                    "ranks": method.ranks,
                }
                for name, method in measured.methods.items()
            },
        },
    )


def evaluate_recall(
    index: GradientIndex, sought: Sequence[Sought], config: RankingsConfig, progress: Progress
) -> SoughtRecall:
    """Look for the documents that state what each query asks for.

    Args:
        index: The index.
        sought: Queries with the ids of their documents.
        config: Which methods, and how they rank.
        progress: Where the work is reported.

    Raises:
        UnknownDocumentError: A document that is sought is not in the index.
        GindexError: A query cannot be searched for.
    """
    ids = index.ids()
    _check(sought, ids)
    queries = [of.query for of in sought]
    found = {}
    for method in config.methods:
        rankings = rank(index, queries, method, len(ids), config, progress)
        found[method] = measure([ranks_of(r, of.documents) for r, of in zip(rankings, sought, strict=True)], len(ids))
    return SoughtRecall(config=config, documents=len(ids), queries=len(queries), methods=found)


def ranks_of(ranking: Ranking, documents: Sequence[str]) -> list[int | None]:
    """The ranks of documents from 1, ascending, and None for each that is not in the ranking."""
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
    """The share of each query's sought documents [Q] that are among the first k."""
    return np.array([np.mean([place is not None and place <= k for place in of]) for of in ranks])
