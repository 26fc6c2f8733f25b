"""The fitting phases of a build: covariances, bases, eigenvalues, each kept on disk when it is done."""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from torch import Tensor

from gindex.build.allocator import release
from gindex.build.memory import sides
from gindex.corpus.batches import TokenBatch
from gindex.curvature.covariance import TokenMoment
from gindex.curvature.eigenbasis import ROOM_BYTES, decomposed
from gindex.curvature.experts import report_unreached, settled_sharing
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.curvature.kinds import CurvatureKind, curvature_kind
from gindex.curvature.ranks import ranks
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress
from gindex.store.factors import (
    basis_tensors,
    layers_by_group,
    mean_eigenvalues,
    read_bases,
    read_basis_values,
    settled_table,
    sharing_record,
    write_tensors,
)
from gindex.store.layout import Layout


def fit_factors(
    layout: Layout,
    model: TrackedModel,
    batches: Sequence[TokenBatch],
    kind: str,
    seed: int,
    progress: Progress,
    room: int = ROOM_BYTES,
) -> None:
    """Fit the curvature on a sample and write its factors; a stage whose files are there is passed over.

    Args:
        layout: Where the factors go.
        model: The model.
        batches: The sample.
        kind: Name of the kind of curvature.
        seed: Seed of the sampled labels.
        progress: Where the phases are reported.
        room: Bytes that decompositions may take.
    """
    curvature, numbers = curvature_kind(kind), range(len(model.table.groups))
    if not all(layout.eigenbases(number).is_file() for number in numbers):
        _fit_bases(layout, model, batches, curvature, seed, progress, room)
        release()
    if not all(layout.eigenvalues(number).is_file() for number in numbers):
        Lambda = _eigenvalues(layout, model, batches, curvature, seed, progress)
        settled = settled_table(layout, model.table)
        report_unreached(settled.layers, Lambda)
        for number, layers in enumerate(layers_by_group(settled)):
            values = {layer.factors: Lambda[layer.factors] for layer in layers}
            means = curvature.mean_eigenvalues(layers, values)
            write_tensors(layout.eigenvalues(number), values, {"mean": means})


def layer_records(layout: Layout, table: LayerTable, rank_fraction: float) -> list[LayerRecord]:
    """Describe the tracked layers of a fitted index, with the ranks that are kept of each."""
    means = mean_eigenvalues(layout, len(table.groups))
    records = []
    for layer in settled_table(layout, table):
        activation_rank, gradient_rank = ranks(layer, rank_fraction)
        records.append(
            LayerRecord(
                name=layer.name,
                group=layer.group,
                source=layer.source,
                factors=layer.whole if layer.shares_factors else None,
                input_block=layer.input_block,
                output_block=layer.output_block,
                inputs=layer.inputs,
                outputs=layer.outputs,
                activation_rank=activation_rank,
                gradient_rank=gradient_rank,
                mean_eigenvalue=means[layer.name],
            )
        )
    return records


def _fit_bases(
    layout: Layout,
    model: TrackedModel,
    batches: Sequence[TokenBatch],
    kind: CurvatureKind,
    seed: int,
    progress: Progress,
    room: int,
) -> None:
    with progress.phase("fit covariances", _parts(batches), "parts") as phase:
        observer = fit_covariances(model.table.layers, model.task, batches, seed, done=phase.advance)
    A, S = observer.activation_moments, observer.gradient_moments
    groups = layers_by_group(replace(model.table, layers=settled_sharing(model.table.layers, observer)))
    missing = [number for number in range(len(groups)) if not layout.eigenbases(number).is_file()]
    widest = max(side.widest for side in sides(model.table.layers))
    with progress.phase("eigenbases", len(A) + len(S), "matrices") as phase:
        wanted = [of for number in missing for of in _covariances(groups[number], A, S)]
        found = decomposed(partial(_decompose, kind), wanted, widest, model.device, room)
        for number in missing:
            tensors: dict[str, Tensor] = {}
            for made in islice(found, len(_covariances(groups[number], A, S))):
                tensors |= made
                phase.advance()
            write_tensors(layout.eigenbases(number), tensors, sharing_record(groups[number]))


def _covariances(
    layers: Sequence[TrackedLayer], A: dict[str, TokenMoment], S: dict[str, TokenMoment]
) -> list[tuple[str, str, dict[str, TokenMoment]]]:
    """The side, the name and the place of each covariance that the file of a layer group is made of."""
    group = {layer.name for layer in layers} | {layer.whole for layer in layers}  # a source may be of an earlier one
    activations = [("activation", name, A) for name in dict.fromkeys(layer.source for layer in layers) if name in group]
    return activations + [("gradient", name, S) for name in dict.fromkeys(layer.factors for layer in layers)]


def _decompose(kind: CurvatureKind, covariance: tuple[str, str, dict[str, TokenMoment]]) -> dict[str, Tensor]:
    """The tensors of a covariance, which is dropped; another thread may be at another one."""
    side, name, covariances = covariance
    values, basis = kind.decompose(covariances.pop(name), f"{side} covariance of {name}")
    return basis_tensors(basis, values, side, name)


def _eigenvalues(
    layout: Layout,
    model: TrackedModel,
    batches: Sequence[TokenBatch],
    kind: CurvatureKind,
    seed: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Lambda [O, I] by `TrackedLayer.factors`."""
    table = settled_table(layout, model.table)
    if kind.assumed is not None:
        activation, gradient = read_basis_values(layout, table)
        tokens = sum(int(batch.mask.sum()) for batch in batches) / _parts(batches)
        return {
            layer.factors: kind.assumed(activation[layer.source], gradient[layer.factors], tokens * layer.token_share)
            for layer in table
        }
    bases = read_bases(layout, table, model.device)
    with progress.phase("fit eigenvalues", _parts(batches), "parts") as phase:
        return fit_eigenvalues(table.layers, model.task, batches, bases, seed, done=phase.advance)


def _parts(batches: Sequence[TokenBatch]) -> int:
    return sum(len(batch.ordinals) for batch in batches)
