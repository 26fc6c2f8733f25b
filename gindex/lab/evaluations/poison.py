"""Poison: are the documents found that were planted to make the model misbehave, from one bad output?

Axes: Q queries, P planted documents, N documents.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.index import GradientIndex
from gindex.lab.evaluations.config import RankingsConfig
from gindex.lab.evaluations.rankings import rank
from gindex.lab.plots import draw_detection
from gindex.lab.report import Figure, Report, Section, Source, Table, spread
from gindex.lab.statistics import detection_curve, mean_interval, placements
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.statistics import Interval

INSPECTED = np.linspace(0, 1, 101)
"""Shares of the documents that are looked at, for the detection curve."""

CAVEATS = (
    "Whoever looks for poison does not know how many documents are planted, nor whether an output is one that they "
    "cause.",
    "A planted document with the words of the bad output is found by its words alone; BM25 among the methods shows how "
    "far that goes.",
    "The planted documents may differ from the others in more than their purpose, in length or form, and be found by "
    "that.",
)


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

    config: RankingsConfig
    where: str
    documents: int
    planted: int
    queries: int
    methods: dict[str, MethodPoison]


def poison_report(measured: Poison, source: Source) -> Report:
    """What was measured, for readers and for programs."""
    ordered = dict(sorted(measured.methods.items(), key=lambda item: -item[1].auc.mean))
    best = next(iter(ordered))
    curves = {name: each.curve.tolist() for name, each in ordered.items()}
    figure = Figure(
        label="Planted documents found by looking at the most suspect first",
        fill=lambda axes: draw_detection(axes, INSPECTED.tolist(), curves, "planted ones"),
        caption="A mean over the queries.",
    )
    table = Table(
        header=("method", "AUC", f"planted among the first {measured.planted}", "rank of the first"),
        rows=tuple(
            (name, spread(each.auc, ".3f"), f"{each.precision:.0%}", f"{each.first:g}")
            for name, each in measured.methods.items()
        ),
        caption="Share of the other documents that rank below a planted one, with its 95% interval by bootstrap over "
        "the planted ones; the rank is a median over the queries.",
    )
    return Report(
        name="poison",
        title="Are planted documents found from the outputs that they cause?",
        findings=(
            f"{measured.queries:,} queries, {measured.planted:,} of {measured.documents:,} documents planted",
            f"{best} finds them best: a planted document ranks above {spread(ordered[best].auc, '.1%')} of the others.",
        ),
        sections=(Section(title="Methods by what they find", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        sources=(source,),
        settings=asdict(measured.config) | {"where": measured.where},
        numbers={
            "documents": measured.documents,
            "planted": measured.planted,
            "queries": measured.queries,
            "methods": {
                name: {"auc": asdict(m.auc), "precision": m.precision, "first": m.first, "curve": m.curve.tolist()}
                for name, m in measured.methods.items()
            },
        },
    )


def evaluate_poison(
    index: GradientIndex, queries: Sequence[Query], where: str, config: RankingsConfig, progress: Progress
) -> Poison:
    """Look for planted documents, from queries that are the bad outputs.

    Args:
        index: The index.
        queries: Bad outputs, one is enough.
        where: A filter that the planted documents alone pass.
        config: Which methods, and how they rank.
        progress: Where the work is reported.

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
    for method in config.methods:
        rankings = rank(index, queries, method, len(ids), config, progress)
        suspicion_QN = np.stack([_suspicion([document_id for document_id, _ in r], ids) for r in rankings])
        found[method] = measure(suspicion_QN, is_planted)
    return Poison(
        config=config, where=where, documents=len(ids), planted=len(planted), queries=len(queries), methods=found
    )


def measure(suspicion_QN: npt.NDArray[np.float64], planted_N: npt.NDArray[np.bool_]) -> MethodPoison:
    """Summarise how suspect each document is, query by query."""
    planted = int(planted_N.sum())
    order_QN = np.argsort(-suspicion_QN, axis=1, kind="stable")
    sorted_QN = planted_N[order_QN]
    return MethodPoison(
        auc=mean_interval(np.mean([placements(of[planted_N], of[~planted_N]) for of in suspicion_QN], axis=0)),
        precision=float(sorted_QN[:, :planted].mean()),
        first=float(np.median(sorted_QN.argmax(1) + 1)),
        curve=np.mean([detection_curve(of, planted_N, INSPECTED) for of in suspicion_QN], axis=0),
    )


def _suspicion(ranked: Sequence[str], ids: Sequence[str]) -> npt.NDArray[np.float64]:
    """Minus the rank of each document [N]; those that are not ranked share the last place."""
    places = {document_id: place for place, document_id in enumerate(ranked)}
    return np.array([-float(places.get(document_id, len(ids))) for document_id in ids])
