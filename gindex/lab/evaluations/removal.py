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
from gindex.lab.evaluations.kept import Kept
from gindex.lab.evaluations.lds import scores_of
from gindex.lab.evaluations.statistics import mean_interval
from gindex.lab.evaluations.training import Method, Ordinals, Scores
from gindex.progress import Progress
from gindex.statistics import Interval

TOP, BOTTOM, RANDOM = "top", "bottom", "random"


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

    def record(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {
            "experiment": self.experiment,
            **asdict(self.config),
            "documents": self.documents,
            "asked": self.queries.tolist(),
            "loss": float(self.losses.mean()),
            "changes": [
                {"method": c.method, "end": c.end, "removed": c.removed, **asdict(c.change)} for c in self.changes
            ],
        }


@dataclass(frozen=True, eq=False)
class _Cut:
    """Documents to leave out for one query that is asked."""

    method: str
    end: str
    removed: int
    asked: int
    left_out: Ordinals


def evaluate_removal(kept: Kept, methods: Mapping[str, Method], config: RemovalConfig, progress: Progress) -> Removal:
    """Leave documents out, train again, and see what becomes of the queries' losses.

    Args:
        kept: The experiment with its finished trainings.
        methods: What to compare, by name.
        config: Numbers of documents, queries and repeats.
        progress: Where the work is reported.

    Raises:
        ConfigError: There are fewer documents or queries than asked for, or scores that do not fit.
        TrainingError: See `Kept.losses`.
    """
    documents = kept.experiment.documents
    if 2 * max(config.removed) > documents:
        raise ConfigError(
            field="removed",
            expected=f"at most half of {documents} documents",
            found=max(config.removed),
            remedy="ask for fewer",
        )
    seeds = [config.seed + repeat for repeat in range(config.repeats)]
    full_RQ = kept.losses([np.arange(documents, dtype=np.int64)] * len(seeds), seeds, progress)
    if config.queries > full_RQ.shape[1]:
        raise ConfigError(field="queries", expected=f"at most {full_RQ.shape[1]}, as there are", found=config.queries)
    asked = np.sort(np.random.default_rng(config.seed).choice(full_RQ.shape[1], config.queries, replace=False))
    scored = {name: scores_of(name, method, (full_RQ.shape[1], documents)) for name, method in methods.items()}
    cuts = list(_cuts(scored, asked, documents, config))
    subsets = [np.setdiff1d(np.arange(documents), cut.left_out) for cut in cuts for _ in seeds]
    losses_CRQ = kept.losses(subsets, seeds * len(cuts), progress).reshape(len(cuts), len(seeds), -1)
    changes_CQ = (losses_CRQ - full_RQ).mean(1)
    return Removal(
        experiment=kept.experiment.name,
        config=config,
        documents=documents,
        queries=asked,
        losses=full_RQ.mean(0)[asked],
        changes=_gather(cuts, changes_CQ, asked),
    )


def _cuts(scored: Mapping[str, Scores], asked: Ordinals, documents: int, config: RemovalConfig) -> Iterator[_Cut]:
    """Yield what to leave out. As many random removals are made as there are queries: they have as much noise."""
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
