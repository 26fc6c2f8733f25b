"""What a build would cost: speeds of passes and phases, and time, memory and disk, as a dry run reckons them."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from gindex.build.memory import PROGRAM_BYTES, weight_bytes, with_expert_factors
from gindex.build.pass_speed import VOCABULARY, fastest, token_seconds
from gindex.build.plan import BuildPlan, make_plan
from gindex.check.formats import available_bytes
from gindex.check.result import OK, WARNING, Finding
from gindex.config import USUAL_TOKENS, BuildConfig
from gindex.documents.part_records import TableCounts
from gindex.model.tracked_model import TrackedModel

SPEED, COST = "speed", "cost"

MADE_DOCUMENTS, MADE_TOKENS, MADE_TEXT = 10_000, 256, 6
"""A corpus that costs are told for where none is given: documents, tokens of each, bytes of the table a token."""


@dataclass(frozen=True, kw_only=True)
class MadeUpCorpus:
    """A corpus of equal documents, where none is given."""

    documents: int = MADE_DOCUMENTS
    tokens: int = MADE_TOKENS

    def plan(self, model: TrackedModel, config: BuildConfig) -> BuildPlan:
        """Reckon a build of it."""
        length = min(self.tokens, config.corpus.max_tokens or USUAL_TOKENS)
        fitted = min(self.documents, config.curvature.fit_documents or self.documents)
        counts = TableCounts(
            documents=self.documents, parts=self.documents, tokens=self.documents * length, longest_part=length
        )
        model = with_expert_factors(model, config, fitted * length, self.documents, length)
        return make_plan(model, config, counts, (fitted, fitted * length), length, counts.tokens * MADE_TEXT)


def speed_findings(model: TrackedModel, plan: BuildPlan) -> Iterator[Finding]:
    """Tokens a second of passes, and of each phase of a build."""
    length = min(max(1, plan.tokens // plan.parts), model.loaded.max_tokens)
    batch = model.trial(length, VOCABULARY)
    with model.alone(), torch.no_grad():
        forward = fastest(lambda: model.task.losses(batch), model.device)
    yield _speed("forward", length / forward, f", a document of {length} tokens")
    yield _speed("forward, backward", 1 / token_seconds(model, length, length))
    for phase, seconds in plan.seconds.items():
        tokens = plan.tokens if phase == "vectors" else plan.fit_tokens
        if phase != "eigenbases":
            yield _speed(phase, tokens / max(seconds, 1e-9))


def _speed(name: str, speed: float, of: str = "") -> Finding:
    figures = {"tokens_per_second": speed}
    return Finding(section=SPEED, name=name, found=f"{speed:,.0f} tokens/s{of}", figures=figures)


def cost_finding(name: str, plan: BuildPlan, model: TrackedModel, config: BuildConfig) -> Finding:
    """Time, memory and disk of a build, beside what there is."""
    disk, seconds = sum(plan.disk_bytes.values()), sum(plan.seconds.values())
    room = available_bytes(model.device) + weight_bytes(model) + PROGRAM_BYTES  # what the model has taken is its own
    remedies = []
    if plan.memory_bytes > room and not config.memory:
        remedies.append(f"memory: {room / 1e9:,.1f} GB are free; bound it with `memory`")
    free = shutil.disk_usage(".").free
    if disk > free:
        remedies.append(f"disk: {free / 1e9:,.1f} GB are free here")
    return Finding(
        section=COST,
        name=name,
        found=(
            f"{plan.tracked_layers} layers, {plan.coverage.share:.1%} of the body: about {_time(seconds)}, "
            f"{plan.memory_bytes / 1e9:,.1f} GB of memory, {disk / 1e9:,.2f} GB of disk"
        ),
        verdict=WARNING if remedies else OK,
        remedy="; ".join(remedies),
        figures={
            "documents": plan.documents, "tokens": plan.tokens, "seconds": seconds, "memory_bytes": plan.memory_bytes,
            "disk_bytes": disk, "share": plan.coverage.share,
        },
    )  # fmt: skip


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:,.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
