"""Poison: are the documents found that were planted to make the model misbehave, from one bad output?

Axes: Q queries, P planted documents, N documents.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.evaluations.rankings import rank
from gindex.lab.evaluations.statistics import detection_curve, mean_interval, placements
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.statistics import Interval

INSPECTED = np.linspace(0, 1, 101)
"""Shares of the documents that are looked at, for the detection curve."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodPoison:
    """How well one method finds the planted documents.

    Attributes:
        auc: Share of the other documents that rank below a planted one, a mean over the planted ones.
        precision: Share of planted ones among as many documents as were planted, the first ones.
        first: Rank of the first planted document, the median over the queries.
        curve: Share of the planted documents found by looking at the first `INSPECTED` of all.
    """

    auc: Interval
    precision: float
    first: float
    curve: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Poison:
    """What was measured."""

    documents: int
    planted: int
    queries: int
    methods: dict[str, MethodPoison]

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "documents": self.documents,
            "planted": self.planted,
            "queries": self.queries,
            "methods": {
                name: {"auc": asdict(m.auc), "precision": m.precision, "first": m.first, "curve": m.curve.tolist()}
                for name, m in self.methods.items()
            },
        }


def evaluate_poison(
    index: GradientIndex,
    queries: Sequence[Query],
    where: str,
    methods: Sequence[str],
    progress: Progress,
    *,
    candidates: int = 100,
    seed: int = 0,
) -> Poison:
    """Look for planted documents, from queries that are the bad outputs.

    Args:
        index: The index.
        queries: Bad outputs, one is enough.
        where: A filter that the planted documents alone pass.
        methods: Names of `rankings.METHODS`.
        progress: Where the work is reported.
        candidates: Parts that the funnel re-ranks.
        seed: Seed of the random order.

    Raises:
        ConfigError: All documents pass the filter, or none.
        FilterError: It does not parse, or names a field that no document has.
        GindexError: A query cannot be searched for.
    """
    ids, planted = index.ids(), set(index.ids(where))
    if not 0 < len(planted) < len(ids):
        raise ConfigError(
            field="where",
            expected=f"to select some of {len(ids):,} documents, the planted ones",
            found=f"{len(planted):,}",
        )
    is_planted = np.array([document_id in planted for document_id in ids])
    found = {}
    for method in methods:
        rankings = rank(index, queries, method, len(ids), progress, candidates=candidates, seed=seed)
        suspicion_QN = np.stack([_suspicion([document_id for document_id, _ in r], ids) for r in rankings])
        found[method] = measure(suspicion_QN, is_planted)
    return Poison(documents=len(ids), planted=len(planted), queries=len(queries), methods=found)


def measure(suspicion_QN: npt.NDArray[np.float64], planted_N: npt.NDArray[np.bool_]) -> MethodPoison:
    """Summarise how suspect each document is, query by query."""
    planted = int(planted_N.sum())
    order_QN = np.argsort(-suspicion_QN, axis=1, kind="stable")
    sorted_QN = planted_N[order_QN]
    return MethodPoison(
        auc=mean_interval(np.mean([placements(of, planted_N) for of in suspicion_QN], axis=0)),
        precision=float(sorted_QN[:, :planted].mean()),
        first=float(np.median(sorted_QN.argmax(1) + 1)),
        curve=np.mean([detection_curve(of, planted_N, INSPECTED) for of in suspicion_QN], axis=0),
    )


def _suspicion(ranked: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return minus the rank of each document [N]; those that are not ranked share the last place."""
    places = {document_id: place for place, document_id in enumerate(ranked)}
    return np.array([-float(places.get(document_id, len(ids))) for document_id in ids])
