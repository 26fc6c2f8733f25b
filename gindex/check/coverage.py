"""How much of each kind of layer is tracked, and why the rest is not."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from torch import nn

from gindex.check.result import OK, WARNING, Finding
from gindex.config import LEAST_SHARE
from gindex.model.layer_choice import output_head
from gindex.model.tracked_model import TrackedModel
from gindex.store.coverage import coverage

COVERAGE = "coverage"

EXPERTS, ROUTERS, ATTENTION, MLP, HEAD, EMBEDDINGS, NORMS, OTHER, BASE = KINDS = (
    "experts", "routers", "attention", "mlp", "head", "embeddings", "norms", "other", "base"
)  # fmt: skip
"""The last one is of adapters: what they leave as it is, of whatever kind."""

BULK = (EXPERTS, ROUTERS, ATTENTION, MLP)
"""Kinds whose absence is warned of."""

_BY_NAME = (
    (EXPERTS, re.compile(r"(^|\.)(\w*_)?experts?(\.|$)")),
    (ROUTERS, re.compile(r"(^|\.)(\w*router|gate)(\.|$)")),
    (NORMS, re.compile(r"(^|\.|_)(\w*norm\w*|ln_?\w?)(\.|$)", re.IGNORECASE)),
    (ATTENTION, re.compile(r"attn|attention|mixer|mamba|ssm|[qkvo]_proj|qkv|(^|\.)(query|key|value)(\.|$)", re.I)),
    (MLP, re.compile(r"mlp|ffn|feed_?forward|fc\d|dense_\w+_to_|intermediate|output\.dense", re.I)),
)
"""The first pattern that a weight's name matches says what it is of. State spaces mix tokens, as attention does."""


@dataclass
class _Kind:
    """The weights of a kind."""

    tracked: int = 0
    left_out: dict[str, int] = field(default_factory=dict)

    @property
    def whole(self) -> int:
        return self.tracked + sum(self.left_out.values())


def coverage_findings(model: TrackedModel) -> Iterator[Finding]:
    """The tracked share of the body, and of each kind of layer with the reason why the largest part left out is not."""
    table = model.table
    whole = coverage(table.body, table.tracked_body, "body", table.untracked)
    yield Finding(
        section=COVERAGE,
        name="body",
        found=f"{whole.share:.1%} of {table.body:,} weights, {len(table.layers)} layers",
        verdict=WARNING if whole.warning else OK,
        remedy="influence through the rest is not seen: look at the reasons" if whole.warning else "",
        figures={"share": whole.share, "weights": table.body, "layers": len(table.layers)},
    )
    for name, kind in _kinds(model).items():
        share, reason = kind.tracked / kind.whole, max(kind.left_out, key=lambda r: kind.left_out[r], default="")
        seen = name not in BULK or share >= LEAST_SHARE
        yield Finding(
            section=COVERAGE,
            name=name,
            found=f"{share:.1%} of {kind.whole:,} weights{f'; {reason}' if reason else ''}",
            verdict=OK if seen else WARNING,
            remedy="" if seen else f"influence through its {name} is not seen",
            figures={"share": share, "weights": kind.whole, "reason": reason or None},
        )


def _kinds(model: TrackedModel) -> dict[str, _Kind]:
    """The weights of a model by kind, in the order of `KINDS`; kinds that it does not have are left out."""
    modules, head = dict(model.loaded.model.named_modules()), output_head(model.loaded.model)
    found = {name: _Kind() for name in KINDS}

    def kind(name: str) -> _Kind:
        owner = modules.get(name) or modules.get(name.rpartition(".")[0])
        return found[_kind(name, owner, head)]

    for layer in model.table.layers:
        kind(layer.whole).tracked += layer.parameters
    for weight in model.table.untracked:
        of_base = model.loaded.trained is not None and not weight.body
        left_out = (found[BASE] if of_base else kind(weight.name)).left_out
        left_out[weight.reason] = left_out.get(weight.reason, 0) + weight.parameters
    return {name: of for name, of in found.items() if of.whole}


def _kind(name: str, owner: nn.Module | None, head: nn.Module | None) -> str:
    if owner is not None and owner is head:
        return HEAD
    if isinstance(owner, nn.Embedding):
        return EMBEDDINGS
    if owner is not None and "Norm" in type(owner).__name__:
        return NORMS
    return next((kind for kind, pattern in _BY_NAME if pattern.search(name)), OTHER)
