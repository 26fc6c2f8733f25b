"""Fidelity: do the scores of an index find the parts that exact influence finds? What a reader is told of it.

It is measured by `gindex.exact.fidelity`, as every build measures it too.

Axes: Q queries, N parts.
"""

from typing import Any

import numpy as np

from gindex.exact.fidelity import Fidelity
from gindex.lab.plots import FAINT, SERIES
from gindex.lab.report import Figure, Report, Section, Source, Table, spread
from gindex.statistics import Scores, overlap

MEASURES = {
    "pearson": "Pearson correlation of scores and influence",
    "spearman": "Spearman correlation",
    "recall@10": "true top 10 among the 10 best scores",
    "recall@100": "true top 100 among the 100 best scores",
    "top10_in_50": "true top 10 among the 50 best scores",
    "top10_in_100": "true top 10 among the 100 best scores",
    "top10_in_200": "true top 10 among the 200 best scores",
    "top10_in_300": "true top 10 among the 300 best scores",
    "top10_in_500": "true top 10 among the 500 best scores",
}

POINTS = 5000
"""Most points of the scatter, over all queries: a page holds each of them."""

DEPTHS = 60
"""Points of the curve."""

CAVEATS = (
    "Scores are compared with exact influence under the same factors. Whether that influence is true, that is whether "
    "it says what training does, is another question: `gindex evaluate lds` and `removal` ask it.",
    "Queries that are drawn from the index look like its documents. Queries of another kind, such as questions, may do "
    "better or worse.",
    "Where parts were drawn rather than all ranked, fewer others compete with the true top, and every share is larger "
    "than it would be among all.",
)


def fidelity_report(measured: Fidelity, source: Source) -> Report:
    """What was measured of an index, for readers and for programs."""
    known = {name: measured.measures[name] for name in MEASURES if name in measured.measures}
    rows = tuple((name, spread(value, ".3f"), MEASURES[name]) for name, value in known.items())
    pairs = [
        (scores_N[own], influence_N[own])
        for scores_N, influence_N, own in zip(measured.scores, measured.influence, measured.ranked, strict=True)
    ]
    return Report(
        name="fidelity",
        title="Do the scores of the index find what exact influence finds?",
        findings=(
            f"{measured.queries:,} queries, {measured.parts:,} parts",
            f"Scores correlate with exact influence by {spread(measured.measures['pearson'], '.3f')}.",
        ),
        sections=(
            Section(
                title="Scores against exact influence",
                figures=(_scatter(pairs), _depth(pairs)),
                tables=(
                    Table(
                        header=("measure", "mean", "what it is"),
                        rows=rows,
                        caption="Means over the queries with their 95% intervals, by bootstrap over the queries.",
                    ),
                ),
            ),
        ),
        caveats=CAVEATS,
        sources=(source,),
        settings={"queries": measured.queries, "parts": measured.parts},
        numbers=measured.record(),
    )


def _scatter(pairs: list[tuple[Scores, Scores]]) -> Figure:
    most = max(1, POINTS // len(pairs))

    def fill(axes: Any) -> None:
        for number, (scores_N, influence_N) in enumerate(pairs):
            some = np.random.default_rng(number).permutation(len(scores_N))[:most]
            axes.plot(
                _scaled(influence_N)[some],
                _scaled(scores_N)[some],
                ".",
                color=SERIES[number % len(SERIES)],
                markersize=2,
                alpha=0.5,
            )
        axes.set(xlabel="exact influence (standard deviations)", ylabel="stored score (standard deviations)")

    return Figure(
        label="Stored scores against exact influence",
        fill=fill,
        caption="Each point is a part, each colour some of the queries; both sides are scaled query by query. Of many "
        "parts a sample is drawn.",
    )


def _depth(pairs: list[tuple[Scores, Scores]]) -> Figure:
    def fill(axes: Any) -> None:
        least = min(len(scores_N) for scores_N, _ in pairs)
        windows = np.unique(np.geomspace(min(10, least), least, DEPTHS).astype(int))
        shares = [np.mean([overlap(scores_N, exact_N, int(w), 10) for scores_N, exact_N in pairs]) for w in windows]
        axes.semilogx(windows, shares, color=SERIES[0], label="by score")
        axes.semilogx(windows, windows / least, "--", color=FAINT, label="by chance")
        axes.set(xlabel="best scores looked at", ylabel="share of the true top 10", ylim=(0, 1.02))
        axes.legend(loc="lower right")

    return Figure(
        label="Depth of the true top 10",
        fill=fill,
        caption="How many of the best scores have to be looked at to find the ten parts with the most influence.",
    )


def _scaled(values_N: Scores) -> Scores:
    scaled_N: Scores = values_N / (values_N.std() or 1.0)
    return scaled_N
