"""How much of each kind of layer is tracked, and why the rest is not."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from gindex.check.result import OK, WARNING, Finding
from gindex.config import LEAST_SHARE
from gindex.model.layer_choice import output_head
from gindex.model.layer_kinds import ATTENTION, EMBEDDINGS, HEAD, MLP, NORMS, OTHER, LayerKinds
from gindex.model.tracked_model import TrackedModel
from gindex.store.coverage import coverage

COVERAGE = "coverage"

EXPERTS, ROUTERS, BASE = "experts", "routers", "base"
"""Kinds that are told apart here beside those of `layer_kinds`: two of the MLP, and what an adapter leaves as it is."""

ORDER = (ATTENTION, MLP, EXPERTS, ROUTERS, HEAD, EMBEDDINGS, NORMS, OTHER, BASE)

BULK = (ATTENTION, MLP, EXPERTS)
"""Kinds whose absence is warned of."""

_EXPERTS = re.compile(r"(^|\.)(\w*_)?experts?(\.|$)")
_ROUTER = re.compile(r"(^|\.)(\w*router|gate)(\.|$)")


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
    """The weights of a model by kind; kinds that it does not have are left out."""
    module, found = model.loaded.model, {name: _Kind() for name in ORDER}
    kinds = LayerKinds(module, output_head(module))
    for layer in model.table.layers:
        found[_kind(kinds, layer.whole)].tracked += layer.parameters
    for weight in model.table.untracked:
        of_base = model.loaded.trained is not None and not weight.body
        left_out = found[BASE if of_base else _kind(kinds, weight.name)].left_out
        left_out[weight.reason] = left_out.get(weight.reason, 0) + weight.parameters
    return {name: of for name, of in found.items() if of.whole}


def _kind(kinds: LayerKinds, name: str) -> str:
    kind = kinds.of(name)
    if kind != MLP:
        return kind
    return EXPERTS if _EXPERTS.search(name) else ROUTERS if _ROUTER.search(name) else MLP
