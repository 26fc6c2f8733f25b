"""A check of a model before days are spent on a build: what of it applies is run in order, each on what a build runs.

load -> coverage -> gradients -> causality -> attention -> precision -> speed -> cost
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

from gindex.build.plan import BuildPlan
from gindex.build.run import PreparedBuild, first_documents, load_tracked, settled
from gindex.check.cost import COST, MadeUpCorpus, cost_finding, speed_findings
from gindex.check.coverage import coverage_findings
from gindex.check.documents import corpus_documents, made_up_documents
from gindex.check.formats import attention_findings, precision_findings
from gindex.check.gradients import autograd_finding, invariance_findings
from gindex.check.result import NOT_TRIED, Finding, ModelCheck
from gindex.check.sketch import sketch
from gindex.config import LAYERS, USUAL_TOKENS, BuildConfig
from gindex.corpus.objectives import Objective
from gindex.errors import GindexError
from gindex.model.isolation import plain
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress, Silent
from gindex.store.layout import Layout

MODEL = "model"

Plan = Callable[[TrackedModel], BuildPlan]
"""Reckons a build of the corpus on a model, with the layers that are tracked of it."""


@plain()
def check_model(config: BuildConfig, sources: Sequence[str] = (), *, progress: Progress | None = None) -> ModelCheck:
    """Try a model as a build would use it, on three documents, and reckon what a build would cost.

    What a build would refuse is a finding, not an error.

    Args:
        config: The settings of the build; `config.model.name` is required.
        sources: The corpus; without one, documents and the corpus that costs are told for are made up.
        progress: Where phases are reported.
    """
    start, check = time.monotonic(), _Check(config=config, sources=sources, progress=progress or Silent())
    with ExitStack() as stack:
        findings = tuple(check.run(stack))
    model = check.model
    return ModelCheck(
        model=config.model.name,
        device=None if model is None else str(model.device),
        dtype=None if model is None else model.dtype_name,
        seconds=time.monotonic() - start,
        findings=findings,
    )


@dataclass(kw_only=True)
class _Check:
    """A check while it runs."""

    config: BuildConfig
    sources: Sequence[str]
    progress: Progress
    model: TrackedModel | None = None
    documents: list[Objective] = field(default_factory=list)

    def run(self, stack: ExitStack) -> Iterator[Finding]:
        """Yield the findings; the first refusal of the model or the corpus is the last of them."""
        try:
            self.config = settled(self.sources, self.config)
            model = self.model = self._load()
            plan = self._plan(stack, model)
        except GindexError as error:
            yield Finding.refusal(MODEL, "load", error)
            return
        yield _loaded(model)
        trials = self._trials(model, plan)
        with self.progress.phase("check model", len(trials), "trials") as phase:
            for section, trial in trials.items():
                try:
                    yield from trial()
                except GindexError as error:
                    yield Finding.refusal(*section, error)
                phase.advance()

    def _load(self) -> TrackedModel:
        with self.progress.phase("load model", 1, "models") as phase:
            model = load_tracked(self.config, examples=first_documents(self.sources, self.config))
            phase.advance()
        return model

    def _plan(self, stack: ExitStack, model: TrackedModel) -> Plan:
        """Read the corpus, where there is one, take documents of it, and return what reckons builds of it."""
        if not self.sources:
            self.documents = made_up_documents(model)
            return lambda planned: MadeUpCorpus().plan(planned, self.config)
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="gindex-"))
        layout = Layout(Path(folder))
        build = stack.enter_context(PreparedBuild.prepare(layout, self.sources, self.config, model, self.progress))
        self.documents = corpus_documents(build.table)
        return lambda planned: build.on(planned).plan()

    def _trials(self, model: TrackedModel, plan: Plan) -> dict[tuple[str, str], Callable[[], Iterator[Finding]]]:
        """What is tried, in order, by the section and name under which a refusal of it is told."""
        documents, tried = self.documents, self.config.corpus.max_tokens or USUAL_TOKENS
        together = cache(lambda: sketch(model, documents))

        def gradients() -> Iterator[Finding]:
            yield autograd_finding(model, documents)

        def cost() -> Iterator[Finding]:
            own = plan(model)
            yield from speed_findings(model, own)
            yield cost_finding(f"{self.config.model.layers}, asked", own, model, self.config)

        def preset(layers: str) -> Iterator[Finding]:
            chosen = replace(self.config.model, layers=layers, track=(), untrack=())
            try:
                other = TrackedModel.of(model.loaded, chosen)
                yield cost_finding(layers, plan(other), other, self.config)
            except GindexError as error:  # it is not what was asked for: nothing stands against that
                yield Finding(section=COST, name=layers, found=str(error), verdict=NOT_TRIED)

        others = [layers for layers in LAYERS if layers != self.config.model.layers]
        return {
            ("coverage", "layers"): lambda: coverage_findings(model),
            ("gradients", "autograd"): gradients,
            ("gradients", "batch"): lambda: invariance_findings(model, documents, together(), tried),
            ("attention", "implementations"): lambda: attention_findings(model, documents, together()),
            ("precision", "formats"): lambda: precision_findings(model, self.config.model, documents, together()),
            (COST, "asked"): cost,
            **{(COST, layers): partial(preset, layers) for layers in others},
        }


def _loaded(model: TrackedModel) -> Finding:
    loaded = model.loaded
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    return Finding(
        section=MODEL,
        name="load",
        found=(
            f"{type(loaded.model).__name__} of {parameters:,} weights in {model.dtype_name} on {model.device}, "
            f"{model.task.vocabulary:,} tokens, at most {loaded.max_tokens:,} of them in a document"
        ),
        figures={
            "class": type(loaded.model).__name__,
            "weights": parameters,
            "vocabulary": model.task.vocabulary,
            "max_tokens": loaded.max_tokens,
        },
    )
