"""Removal: does a query's loss rise when the documents that a method puts on top are left out?

For each query and method the k documents with the largest and the k with the smallest scores are left out, the rest is
trained on, and the query's loss is compared with that of training on all with the same seeds. Random removals say what
leaving out k documents does anyway.

Axes: Q queries of the experiment, N documents, R repeats, A queries that are asked.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.errors import ConfigError
from gindex.lab.evaluations.config import RemovalConfig
from gindex.lab.evaluations.lds import scores_of
from gindex.lab.evaluations.training import Method, Ordinals, Scores
from gindex.lab.evaluations.work_folder import WorkFolder
from gindex.lab.plots import FAINT, LINE, SERIES
from gindex.lab.report import Figure, Report, Section, Table, spread
from gindex.lab.statistics import mean_interval
from gindex.progress import Progress
from gindex.statistics import Interval

TOP, BOTTOM, RANDOM = "top", "bottom", "random"

MARKERS = "osD^"
"""Of methods that share a colour."""

CAVEATS = (
    "The loss after another training differs by itself. Random removals show by how much; few queries or repeats leave "
    "the intervals wide.",
    "A document whose content stands in others too can be left out without any change, however much was learnt from "
    "it.",
    "Only the ends of each ranking are tried: nothing is said of the documents between them.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """How losses changed by leaving documents out.

    Attributes:
        method: Which method chose; empty for a random choice.
        end: `top`, `bottom` or `random`.
        removed: How many were left out.
        change: Mean change of the loss over the queries, in the unit of the losses: positive means that it rose.
        queries: Change of each query that was asked [A].
    """

    method: str
    end: str
    removed: int
    change: Interval
    queries: npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Removal:
    """What was measured.

    Attributes:
        experiment: Name of the training function.
        config: How.
        documents: N.
        queries: Which queries were asked [A].
        losses: Their losses after training on all, means over the repeats [A].
        changes: One for each method, end and number, random removals first.
    """

    experiment: str
    config: RemovalConfig
    documents: int
    queries: npt.NDArray[np.int64]
    losses: npt.NDArray[np.float64]
    changes: list[Change]


def removal_report(measured: Removal) -> Report:
    """What was measured, for readers and for programs."""
    most = max(measured.config.removed)
    top = {c.method: c.change for c in measured.changes if c.end == TOP and c.removed == most}
    best = max(top, key=lambda name: top[name].mean)
    figure = Figure(
        label="Change of the loss by documents left out",
        fill=lambda axes: _draw(axes, measured),
        caption="Mean over the queries, with its 95% interval. Solid lines leave out the top, dashed ones the bottom, "
        "the dotted one documents at random.",
        width=7.2,
        height=max(3.2, 0.5 + 0.4 * len(top)),
    )
    table = Table(
        header=("method", "end", "left out", "change of the loss"),
        rows=tuple(
            (c.method or RANDOM, c.end if c.method else "", f"{c.removed:,}", spread(c.change, "+.4f"))
            for c in measured.changes
        ),
        caption="Against training on all documents with the same seeds; 95% intervals by bootstrap over the queries.",
    )
    return Report(
        name="removal",
        title="Does a query's loss rise when the documents on top are left out?",
        findings=(
            f"{measured.experiment}: {measured.documents:,} documents, {len(measured.queries)} queries, mean loss "
            f"{measured.losses.mean():.4f}; change by leaving documents out, {measured.config.repeats} trainings each",
            f"Leaving out the top {most:,} documents of {best} changes the loss the most, by "
            f"{spread(top[best], '+.4f')}.",
        ),
        sections=(Section(title="Change of the loss", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        settings=asdict(measured.config),
        numbers={
            "experiment": measured.experiment,
            **asdict(measured.config),
            "documents": measured.documents,
            "asked": measured.queries.tolist(),
            "loss": float(measured.losses.mean()),
            "changes": [
                {"method": c.method, "end": c.end, "removed": c.removed, **asdict(c.change)} for c in measured.changes
            ],
        },
    )


def _draw(axes: Any, measured: Removal) -> None:
    """Draw the changes of every method and end by the number of documents left out."""
    lines = dict.fromkeys((change.method, change.end) for change in measured.changes)
    methods = list(dict.fromkeys(method for method, _ in lines if method))
    apart = 0.012 * max(measured.config.removed)  # so that the intervals of one number do not cover each other
    for position, (method, end) in enumerate(lines):
        points = [change for change in measured.changes if (change.method, change.end) == (method, end)]
        number = methods.index(method) if method else 0
        axes.errorbar(
            [point.removed + apart * (position - len(lines) / 2) for point in points],
            [point.change.mean for point in points],
            yerr=np.array([[p.change.mean - p.change.low, p.change.high - p.change.mean] for p in points]).T.clip(0),
            capsize=3,
            marker=MARKERS[number // len(SERIES) % len(MARKERS)],
            color=SERIES[number % len(SERIES)] if method else FAINT,
            linestyle={TOP: "-", BOTTOM: "--", RANDOM: ":"}[end],
            label=(method if end == TOP else None) if method else end,
        )
    axes.axhline(0, color=LINE, linewidth=1)
    axes.set(xlabel="documents left out", ylabel="change of the query's loss")
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))


@dataclass(frozen=True, eq=False)
class _Cut:
    """Documents to leave out for one query that is asked."""

    method: str
    end: str
    removed: int
    asked: int
    left_out: Ordinals


def evaluate_removal(
    work: WorkFolder, methods: Mapping[str, Method], config: RemovalConfig, progress: Progress
) -> Removal:
    """Leave documents out, train again, and see what becomes of the queries' losses.

    Args:
        work: The experiment with its finished trainings.
        methods: What to compare, by name.
        config: Numbers of documents, queries and repeats.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are fewer documents or queries than asked for, or scores that do not fit.
        TrainingError: See `WorkFolder.losses`.
    """
    documents = work.experiment.documents
    if 2 * max(config.removed) > documents:
        raise ConfigError(
            field="removed",
            expected=f"at most half of {documents} documents",
            found=max(config.removed),
            remedy="ask for fewer",
        )
    seeds = [config.seed + repeat for repeat in range(config.repeats)]
    full_RQ = work.losses([np.arange(documents, dtype=np.int64)] * len(seeds), seeds, progress)
    if config.queries > full_RQ.shape[1]:
        raise ConfigError(field="queries", expected=f"at most {full_RQ.shape[1]}, as there are", found=config.queries)
    asked = np.sort(np.random.default_rng(config.seed).choice(full_RQ.shape[1], config.queries, replace=False))
    scored = {name: scores_of(name, method, (full_RQ.shape[1], documents)) for name, method in methods.items()}
    cuts = list(_cuts(scored, asked, documents, config))
    subsets = [np.setdiff1d(np.arange(documents), cut.left_out) for cut in cuts for _ in seeds]
    losses_CRQ = work.losses(subsets, seeds * len(cuts), progress).reshape(len(cuts), len(seeds), -1)
    changes_CQ = (losses_CRQ - full_RQ).mean(1)
    return Removal(
        experiment=work.experiment.name,
        config=config,
        documents=documents,
        queries=asked,
        losses=full_RQ.mean(0)[asked],
        changes=_gather(cuts, changes_CQ, asked),
    )


def _cuts(scored: Mapping[str, Scores], asked: Ordinals, documents: int, config: RemovalConfig) -> Iterator[_Cut]:
    """The documents to leave out. There are as many random removals as queries, so that they have as much noise."""
    for removed in config.removed:
        for number in range(len(asked)):
            left_out = np.random.default_rng((config.seed, removed, number)).choice(documents, removed, replace=False)
            yield _Cut("", RANDOM, removed, number, left_out)
        for method, scores_QN in scored.items():
            for number, query in enumerate(asked):
                order = np.argsort(-scores_QN[query], kind="stable")
                yield _Cut(method, TOP, removed, number, order[:removed])
                yield _Cut(method, BOTTOM, removed, number, order[-removed:])


def _gather(cuts: list[_Cut], changes_CQ: npt.NDArray[np.float64], asked: Ordinals) -> list[Change]:
    found: dict[tuple[str, str, int], list[float]] = {}
    for cut, changes_Q in zip(cuts, changes_CQ, strict=True):
        found.setdefault((cut.method, cut.end, cut.removed), []).append(changes_Q[asked[cut.asked]])
    return [
        Change(
            method=key[0], end=key[1], removed=key[2], change=mean_interval(np.array(values)), queries=np.array(values)
        )
        for key, values in sorted(found.items(), key=lambda item: (item[0][0], item[0][1] != TOP, item[0][2]))
    ]
