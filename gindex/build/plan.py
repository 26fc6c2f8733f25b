"""What a build will do and what it will cost, before it starts.

Time comes from floating-point operations counted for each phase and speeds measured for a second or two on the machine;
memory and disk from the shapes.
"""

from collections import Counter
from dataclasses import dataclass
from functools import cache

import torch

from gindex.ann.spec import choose_spec
from gindex.build.fit_memory import factor_bytes, sides
from gindex.build.memory import TYPICAL_FRACTION, peak_bytes, rounds_of_fit
from gindex.build.pass_speed import fastest, token_seconds
from gindex.config import BuildConfig
from gindex.curvature.eigenbasis import decomposed
from gindex.curvature.ranks import ranks
from gindex.documents.part_records import TableCounts
from gindex.model.layer_choice import output_head
from gindex.model.layer_kinds import KINDS, LayerKinds
from gindex.model.layer_records import UntrackedWeight
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.sides import Side
from gindex.model.tracked_model import TrackedModel
from gindex.store.coverage import Coverage, coverage
from gindex.store.vectors import code_bytes


@dataclass(frozen=True, kw_only=True)
class KindShare:
    """Weights of one kind of layers.

    Attributes:
        tracked: Those that are tracked.
        parameters: All.
    """

    tracked: int
    parameters: int


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """A build, before it starts.

    Attributes:
        documents: Documents in the corpus.
        parts: Parts they are cut into.
        tokens: Tokens of all parts, context tokens included.
        fit_documents: Documents that EK-FAC is fitted on.
        fit_tokens: Their tokens.
        tracked_layers: Number of layers whose gradients are taken.
        tracked_parameters: Their weights.
        parameters: All weights of the model.
        coverage: The tracked share of the model's body, and what is not tracked by reason.
        kinds: Weights by what they do in the model, the tracked and all.
        structures: How many sides of layers have a basis of each structure (`Side.structure`), matrices left out.
        untracked: Every weight that is left out, with the reason.
        fit_rounds: Rounds of the fit, each with passes of its own over the sample; see `fit_rounds`.
        seconds: Estimated time by phase.
        memory_bytes: Estimated peak memory.
        disk_bytes: Estimated size of the index by part.
    """

    documents: int
    parts: int
    tokens: int
    fit_documents: int
    fit_tokens: int
    tracked_layers: int
    tracked_parameters: int
    parameters: int
    coverage: Coverage
    kinds: dict[str, KindShare]
    structures: dict[str, int]
    untracked: tuple[UntrackedWeight, ...]
    fit_rounds: int
    seconds: dict[str, float]
    memory_bytes: int
    disk_bytes: dict[str, int]


def make_plan(
    model: TrackedModel,
    config: BuildConfig,
    counts: TableCounts,
    fit: tuple[int, int],
    typical: float,
    text_bytes: int,
) -> BuildPlan:
    """Estimate a build.

    Args:
        model: The loaded model.
        config: Settings of the build.
        counts: Size of the corpus.
        fit: Documents and tokens of the fit's sample.
        typical: Tokens of the part that a token is in, a mean over the tokens.
        text_bytes: Size of the document table.
    """
    tracked = sum(layer.parameters for layer in model.table.layers)
    rounds = len(rounds_of_fit(model, config, counts.longest_part))
    return BuildPlan(
        documents=counts.documents,
        parts=counts.parts,
        tokens=counts.tokens,
        fit_documents=fit[0],
        fit_tokens=fit[1],
        tracked_layers=len(model.table.layers),
        tracked_parameters=tracked,
        parameters=model.table.parameters,
        coverage=_coverage(model.table),
        kinds=_kinds(model),
        structures=Counter(side.structure for side in sides(model.table.layers) if side.block is not None),
        untracked=model.table.untracked,
        fit_rounds=rounds,
        seconds=_seconds(model, config, counts, fit[1], typical, rounds),
        memory_bytes=peak_bytes(model, config, counts.parts, counts.longest_part),
        disk_bytes=_disk(model, config, counts.parts, text_bytes),
    )


def _coverage(table: LayerTable) -> Coverage:
    return coverage(table.body, table.tracked_body, "body", table.untracked)


def _kinds(model: TrackedModel) -> dict[str, KindShare]:
    """The weights of each kind that the model has."""
    kinds, table = LayerKinds(model.loaded.model, output_head(model.loaded.model)), model.table
    tracked, weights = Counter[str](), Counter[str]()
    for layer in table:
        tracked[kinds.of(layer.whole)] += layer.parameters
    for weight in table.untracked:
        weights[kinds.of(weight.name)] += weight.parameters
    weights += tracked
    return {kind: KindShare(tracked=tracked[kind], parameters=weights[kind]) for kind in KINDS if weights[kind]}


def _seconds(
    model: TrackedModel, config: BuildConfig, counts: TableCounts, fit_tokens: int, typical: float, rounds: int
) -> dict[str, float]:
    layers, fraction = model.table.layers, config.vectors.rank_fraction or TYPICAL_FRACTION
    squares = sum(layer.token_share * (i.numbers + o.numbers) for layer, i, o in _sides(model))
    outer = sum(layer.token_share * layer.parameters for layer in layers)
    rotation = sum(
        layer.token_share * (i.rotation(ranks(layer, fraction)[0]) + o.rotation(ranks(layer, fraction)[1]))
        for layer, i, o in _sides(model)
    )
    passing, flops, cubes = (
        token_seconds(model, counts.longest_part, typical),
        _flops(model.device),
        _cubes(model.device),
    )
    return {
        "fit covariances": fit_tokens * (rounds * passing + 2 * squares / flops),
        "eigenbases": sum(side.cubes for side in sides(model.table.layers)) / cubes,
        "fit eigenvalues": fit_tokens * (rounds * passing + 2 * (squares + outer) / flops),
        "vectors": counts.tokens * (passing + 2 * (rotation + outer * fraction**2) / flops),
    }


def _sides(model: TrackedModel) -> list[tuple[TrackedLayer, Side, Side]]:
    """Each layer with the sides it rotates: no activations where it shares them with another."""
    layers = model.table.layers
    return [(of, of.input_side if of.name == of.reads else Side(0), of.output_side) for of in layers]


@cache
def _flops(device: torch.device) -> float:
    """Multiply-adds, times two, a second of a float32 matrix product."""
    x = torch.randn(768, 768, dtype=torch.float32, device=device)
    return 2 * 768**3 / fastest(lambda: x @ x, device)


@cache
def _cubes(device: torch.device) -> float:
    """n^3 a second of float64 eigendecompositions, on a CPU of as many side by side as there are threads."""
    x = torch.randn(512, 512, dtype=torch.float64, device=device)
    x = x @ x.T
    count = torch.get_num_threads() if device.type == "cpu" else 1
    return count * 512**3 / fastest(lambda: list(decomposed(torch.linalg.eigh, [x] * count, 512, device)), device)


def _disk(model: TrackedModel, config: BuildConfig, parts: int, text_bytes: int) -> dict[str, int]:
    vectors = config.vectors
    faiss = choose_spec(parts, vectors.dimension, 1.0)
    return {
        "factors": factor_bytes(model.table.layers),
        "vectors": parts * (code_bytes(vectors.dimension, vectors.bits) + 4 * len(model.table.groups) + 4),
        "search index": parts * faiss.part_bytes(vectors.dimension),
        "documents": text_bytes,
    }
