"""Tail-patch: does one more training step on a document make the target more likely?

The model takes one optimiser step on each of the first k documents of a ranking, by itself and from the same weights.
What counts is the change of the log-likelihood of the query's target.

Axes: Q queries, N documents.

Source: Chang et al. 2024 (TrackStar), arXiv:2410.17413.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from gindex.errors import NonFiniteError
from gindex.index import GradientIndex
from gindex.lab.evaluations.config import TailPatchConfig
from gindex.lab.evaluations.rankings import Ranking, rank
from gindex.lab.evaluations.training import Experiment
from gindex.lab.evaluations.work_folder import WorkFolder, key_of
from gindex.lab.plots import draw_intervals
from gindex.lab.report import Figure, Report, Section, Source, Table, spread
from gindex.lab.statistics import mean_interval
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress
from gindex.queries.query import Query
from gindex.queries.tokens import tokenize_all
from gindex.statistics import Interval

CAVEATS = (
    "One step on a document that the model has already learnt is not what the document did in training. A document "
    "that nothing is left to learn from changes little, however much came from it.",
    "The size of a change depends on optimiser and rate; compare methods, not figures of other evaluations.",
    "A step on any document of the corpus may help somewhat. The random choice among the methods shows by how much.",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class MethodGain:
    """What steps on one method's documents do.

    Attributes:
        gain: Change of the target's log-likelihood in nats, a mean over documents and queries.
        raised: Share of the steps that raised it.
        queries: Mean change of each query [Q].
        documents: Ids of the documents of each query, in the order of the ranking.
    """

    gain: Interval
    raised: float
    queries: npt.NDArray[np.float64]
    documents: list[list[str]]


@dataclass(frozen=True, kw_only=True, eq=False)
class TailPatch:
    """What was measured.

    Attributes:
        config: How.
        queries: Q.
        steps: Optimiser steps that this took, each on one document.
        losses: Losses of the targets before any step [Q], in nats.
        methods: By name.
    """

    config: TailPatchConfig
    queries: int
    steps: int
    losses: npt.NDArray[np.float64]
    methods: dict[str, MethodGain]


def tail_patch_report(measured: TailPatch, source: Source) -> Report:
    """What was measured, for readers and for programs."""
    gains = {name: method.gain for name, method in measured.methods.items()}
    ordered = dict(sorted(gains.items(), key=lambda item: -item[1].mean))
    best = next(iter(ordered))
    what = "change of the target's log-likelihood, in nats"
    figure = Figure(
        label="Change of the target's log-likelihood by method",
        fill=lambda axes: draw_intervals(axes, ordered, what),
        caption="Mean over documents and queries, with its 95% interval.",
        height=1.4 + 0.4 * len(ordered),
    )
    table = Table(
        header=("method", "change", "raised by"),
        rows=tuple(
            (name, spread(each.gain, ".3f"), f"{each.raised:.0%} of the steps")
            for name, each in measured.methods.items()
        ),
        caption="In nats; 95% intervals by bootstrap over the queries.",
    )
    return Report(
        name="tail-patch",
        title="Does a training step on a document make the target more likely?",
        findings=(
            f"{measured.queries:,} queries, one step on each of {measured.config.k} documents; change of "
            f"log-likelihood in nats, of {measured.losses.mean():.3f}",
            f"Steps on the documents of {best} raise the likelihood most, by {spread(ordered[best], '.3f')} nats.",
        ),
        sections=(Section(title="Methods by what a step does", figures=(figure,), tables=(table,)),),
        caveats=CAVEATS,
        sources=(source,),
        settings=asdict(measured.config),
        numbers={
            **asdict(measured.config),
            "queries": measured.queries,
            "steps": measured.steps,
            "losses": measured.losses.tolist(),
            "methods": {
                name: {
                    **asdict(method.gain),
                    "raised": method.raised,
                    "queries": method.queries.tolist(),
                    "documents": method.documents,
                }
                for name, method in measured.methods.items()
            },
        },
    )


def evaluate_tail_patch(
    index: GradientIndex,
    queries: Sequence[Query],
    config: TailPatchConfig,
    progress: Progress,
    work: Path | None = None,
) -> TailPatch:
    """Take a step on each of the best documents of every method.

    Args:
        index: The index; its model takes the steps, in float32.
        queries: Q queries.
        config: Methods, documents, optimiser and rate.
        progress: Where the work is reported.
        work: Folder that keeps finished steps; None keeps none.

    Raises:
        NonFiniteError: A step leads to a loss that is not finite.
        SettingsMismatchError: The folder is of another index, optimiser or rate.
        GindexError: A query cannot be searched for.
    """
    rankings = {method: rank(index, queries, method, config.k, config, progress) for method in config.methods}
    stepper = Stepper(index, queries, config)
    folder = None if work is None else WorkFolder(_experiment(index, queries, config), work)
    gains = _gains(stepper, wanted_steps(rankings), folder, progress)
    return TailPatch(
        config=config,
        queries=len(queries),
        steps=len({document_id for document_id, _ in gains}),
        losses=stepper.before,
        methods={method: _summary(of, gains) for method, of in rankings.items()},
    )


def wanted_steps(rankings: Mapping[str, Sequence[Ranking]]) -> dict[str, list[int]]:
    """The queries whose losses are wanted after a step on each document."""
    wanted: dict[str, set[int]] = {}
    for of_method in rankings.values():
        for query, ranking in enumerate(of_method):
            for document_id, _ in ranking:
                wanted.setdefault(document_id, set()).add(query)
    return {document_id: sorted(of) for document_id, of in wanted.items()}


class Stepper:
    """Takes single optimiser steps and sees what they do to queries."""

    def __init__(self, index: GradientIndex, queries: Sequence[Query], config: TailPatchConfig) -> None:
        """Load the model in float32: small steps are lost in fewer bits."""
        self._index, self._config = index, config
        self._model = TrackedModel.load(replace(index.model.config, dtype="float32"), index.manifest.layers)
        self._task = self._model.loaded.kind.task()  # the loaded model's own gives its head no gradient
        self._tokens = tokenize_all(queries, self._model.loaded)
        self.before = self._losses(range(len(queries)))

    def gains(self, document_id: str, queries: Sequence[int]) -> npt.NDArray[np.float64]:
        """Rise of the log-likelihood of queries by a step on a document, in nats.

        Raises:
            NonFiniteError: The loss after the step is not finite.
        """
        with self._stepped(document_id):
            after = self._losses(queries)
        if not np.isfinite(after).all():
            raise NonFiniteError(
                field=f"document {document_id!r}",
                expected="a finite loss after a step on it",
                found=after,
                remedy="lower `rate`",
            )
        gains: npt.NDArray[np.float64] = self.before[list(queries)] - after
        return gains

    @contextmanager
    def _stepped(self, document_id: str) -> Iterator[None]:
        """Hold the model as it is after a step on a document."""
        model = self._model.loaded.model.requires_grad_(True)
        weights = list(model.parameters())
        initial = [weight.detach().clone() for weight in weights]
        optimizer = self._optimizer(weights)
        try:
            self._backward(document_id)
            optimizer.step()
            optimizer.zero_grad()
            model.requires_grad_(False)
            yield
        finally:
            with torch.no_grad():
                for weight, value in zip(weights, initial, strict=True):
                    weight.copy_(value)
                    weight.grad = None
            model.requires_grad_(False)

    def _optimizer(self, weights: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        if self._config.optimizer == "sgd":
            return torch.optim.SGD(weights, lr=self._config.rate)
        return torch.optim.AdamW(weights, lr=self._config.rate, weight_decay=0.0)

    def _backward(self, document_id: str) -> None:
        """Accumulate the gradient of the mean loss over the tokens of a document's parts."""
        parts = self._index.objectives(document_id)
        count = max(1, sum(part.targets for part in parts))
        for batch in self._model.batches(parts, np.arange(len(parts)), 0):
            (self._task.losses(batch).sum() / count).backward()

    def _losses(self, queries: Sequence[int]) -> npt.NDArray[np.float64]:
        asked = [self._tokens[query] for query in queries]
        losses = np.zeros(len(asked))
        objectives = [query.objective for query in asked]
        with torch.no_grad():
            for batch in self._model.batches(objectives, np.arange(len(asked)), 0):
                losses[batch.ordinals] = self._task.losses(batch).double().cpu().numpy()
        return losses


def _gains(
    stepper: Stepper, wanted: Mapping[str, Sequence[int]], folder: WorkFolder | None, progress: Progress
) -> dict[tuple[str, int], float]:
    gains: dict[tuple[str, int], float] = {}
    with progress.phase("steps", len(wanted), "documents") as phase:
        for document_id, queries in wanted.items():
            key = key_of(document_id, list(queries))
            record = None if folder is None else folder.get("steps", key)
            if record is None:
                record = {"document": document_id, "gains": stepper.gains(document_id, queries).tolist()}
                if folder is not None:
                    folder.put("steps", key, record)
            gains |= {(document_id, q): gain for q, gain in zip(queries, record["gains"], strict=True)}
            phase.advance()
    return gains


def _summary(rankings: Sequence[Ranking], gains: Mapping[tuple[str, int], float]) -> MethodGain:
    values = [[gains[document_id, query] for document_id, _ in ranking] for query, ranking in enumerate(rankings)]
    queries_Q = np.array([np.mean(of) if of else 0.0 for of in values])
    flat = [gain for of in values for gain in of]
    return MethodGain(
        gain=mean_interval(queries_Q),
        raised=float(np.mean([gain > 0 for gain in flat])) if flat else 0.0,
        queries=queries_Q,
        documents=[[document_id for document_id, _ in ranking] for ranking in rankings],
    )


def _experiment(index: GradientIndex, queries: Sequence[Query], config: TailPatchConfig) -> Experiment:
    """The experiment that finished steps belong to."""
    what = [index.manifest.model.model, config.optimizer, config.rate, [asdict(query) for query in queries]]
    return Experiment(name="tail-patch", source=key_of(*what), function=None, documents=len(index.ids()))
