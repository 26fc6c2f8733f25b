"""The fitting phases of a build: covariances, bases, eigenvalues, each kept on disk when it is done."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path

from torch import Tensor

from gindex.build.allocator import release
from gindex.build.fit_memory import sides
from gindex.corpus.batches import TokenBatch
from gindex.curvature.covariance import TokenMoment
from gindex.curvature.eigenbasis import ROOM_BYTES, decomposed
from gindex.curvature.experts import report_unreached, settled_sharing
from gindex.curvature.fit import fit_covariances, fit_eigenvalues
from gindex.curvature.kinds import CurvatureKind
from gindex.curvature.ranks import ranks
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.progress import Progress, Silent
from gindex.store.factors import (
    basis_tensors,
    mean_eigenvalues,
    read_bases,
    read_basis_values,
    settled_table,
    sharing_record,
    write_tensors,
)
from gindex.store.layout import Layout


@dataclass(frozen=True, kw_only=True)
class Fit:
    """The fit of a model's curvature on a sample, whose factors go to files by layer group.

    Attributes:
        layout: Where the factors go.
        model: The model.
        batches: The sample.
        kind: The kind of curvature.
        seed: Seed of the sampled labels.
        room: Bytes that decompositions may take.
        progress: Where the phases are reported.
    """

    layout: Layout
    model: TrackedModel
    batches: Sequence[TokenBatch]
    kind: CurvatureKind
    seed: int
    room: int = ROOM_BYTES
    progress: Progress = field(default_factory=Silent)

    def run(self, rounds: Sequence[LayerTable]) -> None:
        """Fit all layers and write their factors; a stage of a round whose files are there is passed over.

        Args:
            rounds: The tracked layers, divided into those whose sums are in memory at a time; see `fit_rounds`.
        """
        for suffix, layers in _named(rounds):
            missing, files = self._missing(layers, self.layout.eigenbases)
            if files:
                self._bases(missing, files, suffix)
                release()
        settled, flat = settled_table(self.layout, self.model.table), set[str]()
        for suffix, layers in _named(rounds):
            missing, files = self._missing(layers, self.layout.eigenvalues)
            if files:
                here = replace(missing, layers=tuple(layer for layer in settled if layer.group in missing.groups))
                flat |= self._eigenvalues(settled, here, files, suffix)
                release()
        report_unreached(settled.layers, flat)

    def _missing(self, layers: LayerTable, file: Callable[[int], Path]) -> tuple[LayerTable, list[Path]]:
        """The layers of a round whose files of one kind aren't there, and these files, by layer group."""
        numbers = {group: number for number, group in enumerate(self.model.table.groups)}
        files = {group: file(numbers[group]) for group in layers.groups}
        files = {group: path for group, path in files.items() if not path.is_file()}
        return replace(layers, layers=tuple(layer for layer in layers if layer.group in files)), list(files.values())

    def _bases(self, table: LayerTable, files: Sequence[Path], suffix: str) -> None:
        """Fit the covariances of layers, decompose them, and write them to a file for each layer group."""
        with self.progress.phase("fit covariances" + suffix, self._parts, "parts") as phase:
            observer = fit_covariances(
                self.model.table.layers,
                self.model.task,
                self.batches,
                self.seed,
                done=phase.advance,
                only={layer.name for layer in table},
            )
        A, S = observer.activation_moments, observer.gradient_moments
        groups = replace(table, layers=settled_sharing(table.layers, observer)).by_group()
        wanted = [of for layers in groups for of in _covariances(layers, A, S)]
        widest = max(side.widest for side in sides(table.layers))
        with self.progress.phase("eigenbases" + suffix, len(wanted), "matrices") as phase:
            found = decomposed(partial(_decompose, self.kind), wanted, widest, self.model.device, self.room)
            for file, layers in zip(files, groups, strict=True):
                tensors: dict[str, Tensor] = {}
                for made in islice(found, len(_covariances(layers, A, S))):
                    tensors |= made
                    phase.advance()
                write_tensors(file, tensors, sharing_record(layers))

    def _eigenvalues(self, table: LayerTable, layers: LayerTable, files: Sequence[Path], suffix: str) -> set[str]:
        """Fit and write Lambda of the layers of a round; return those `TrackedLayer.factors` where it is all 0."""
        Lambda = self._lambdas(table, layers, suffix)
        for file, of_group in zip(files, layers.by_group(), strict=True):
            values = {layer.factors: Lambda[layer.factors] for layer in of_group}
            write_tensors(file, values, {"mean": self.kind.mean_eigenvalues(of_group, values)})
        return {name for name, values_OI in Lambda.items() if not values_OI.any()}

    def _lambdas(self, table: LayerTable, layers: LayerTable, suffix: str) -> dict[str, Tensor]:
        """Lambda [O, I] of the layers of a round by `TrackedLayer.factors`."""
        if self.kind.assumed is not None:
            activation, gradient = read_basis_values(self.layout, table, layers)
            tokens = sum(int(batch.mask.sum()) for batch in self.batches) / self._parts
            return {
                of.factors: self.kind.assumed(activation[of.source], gradient[of.factors], tokens * of.token_share)
                for of in layers
            }
        bases = read_bases(self.layout, table, layers, self.model.device)
        with self.progress.phase("fit eigenvalues" + suffix, self._parts, "parts") as phase:
            return fit_eigenvalues(
                table.layers,
                self.model.task,
                self.batches,
                bases,
                self.seed,
                done=phase.advance,
                only={layer.name for layer in layers},
            )

    @property
    def _parts(self) -> int:
        return sum(len(batch.ordinals) for batch in self.batches)


def _named(rounds: Sequence[LayerTable]) -> Iterator[tuple[str, LayerTable]]:
    """Each round with what the names of its phases end with: nothing where there is one."""
    for number, layers in enumerate(rounds, 1):
        yield (f", round {number} of {len(rounds)}" if len(rounds) > 1 else ""), layers


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
