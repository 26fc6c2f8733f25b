"""EK-FAC factors on disk: safetensors, two files a layer group.

Eigenvectors are stored as rows, leading first, so the leading part of a basis is one contiguous read.

    eigenbases-*.safetensors    activation.<source> [I, I], gradient.<layer> [O, O], and the covariance's eigenvalues
                                activation_values.<source> [I], gradient_values.<layer> [O]; float32
    eigenvalues-*.safetensors   <layer> [O, I], corrected eigenvalues, float32; metadata: each layer's mean

Of experts that share factors, <source> and <layer> are the name of their fused weight; the metadata of the bases lists
them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gindex.curvature.ekfac import LayerFactors
from gindex.errors import CorruptStoreError, StoreError
from gindex.files.atomic import publish
from gindex.files.open_files import check_shortage
from gindex.model.isolation import plain
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.store.layout import REMEDY, Layout
from gindex.vectors.encoder import Encoder
from gindex.vectors.path import VectorPath
from gindex.vectors.projection import ProjectionSpec, make_projection


def sharing_record(layers: Sequence[TrackedLayer]) -> dict[str, Any]:
    """What the file of a layer group's bases records: its experts that share factors; nothing without any."""
    shared = [layer.name for layer in layers if layer.shares_factors]
    return {"shared": shared} if shared else {}


def settled_table(layout: Layout, table: LayerTable) -> LayerTable:
    """The tracked layers as the bases were made for them: experts share factors or have their own."""
    shared: set[str] = set()
    for number in range(len(table.groups)):
        with _open(layout.eigenbases(number)) as file:
            shared |= set(json.loads(file.metadata()["gindex"]).get("shared", ()))
    return replace(table, layers=tuple(layer.sharing() if layer.name in shared else layer for layer in table))


def layers_by_group(table: LayerTable) -> list[list[TrackedLayer]]:
    """The tracked layers of each group, groups in forward order."""
    return [[layer for layer in table.layers if layer.group == group] for group in table.groups]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, Any]) -> None:
    """Publish a safetensors file with JSON metadata.

    Raises:
        StoreError: It cannot be written.
    """
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        publish(path, lambda partial: save_file(contiguous, partial, {"gindex": json.dumps(metadata)}))
    except SafetensorError as error:
        raise StoreError(
            field=path, expected="to write factors", found=error, remedy="check free space and permissions"
        ) from error


def read_bases(
    layout: Layout, table: LayerTable, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Load every basis: Q_A [I, I] by source and Q_S [O, O] by `TrackedLayer.factors`, as columns."""
    sides = _read_sides(layout, table, "activation", "gradient", lambda Q: Q.to(device, dtype).T)
    return sides[0], sides[1]


def read_basis_values(layout: Layout, table: LayerTable) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Load the covariances' eigenvalues: of A [I] by source and of S [O] by `TrackedLayer.factors`."""
    return _read_sides(layout, table, "activation_values", "gradient_values", lambda values: values)


def _read_sides(
    layout: Layout, table: LayerTable, activation: str, gradient: str, convert: Callable[[Tensor], Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    sides: tuple[dict[str, Tensor], dict[str, Tensor]] = ({}, {})
    for number, layers in enumerate(layers_by_group(table)):
        with _open(layout.eigenbases(number)) as file:
            for layer in layers:
                if layer.factors not in sides[1]:
                    sides[1][layer.factors] = convert(file.get_tensor(f"{gradient}.{layer.factors}"))
                if layer.source not in sides[0]:
                    sides[0][layer.source] = convert(file.get_tensor(f"{activation}.{layer.source}"))
    return sides


def mean_eigenvalues(layout: Layout, groups: int) -> dict[str, float]:
    """Read every layer's mean corrected eigenvalue."""
    means: dict[str, float] = {}
    for number in range(groups):
        with _open(layout.eigenvalues(number)) as file:
            means |= json.loads(file.metadata()["gindex"])["mean"]
    return means


class FactorReader:
    """Loads factors layer by layer, whole or truncated."""

    def __init__(
        self, layout: Layout, layers: Sequence[LayerRecord], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        """Read from the index at `layout`, whose manifest lists `layers`, onto `device`; eigenvectors as `dtype`."""
        self._layout, self._device, self._dtype = layout, device, dtype
        self._layers = {layer.name: layer for layer in layers}
        groups = {group: number for number, group in enumerate(dict.fromkeys(layer.group for layer in layers))}
        self._file_of = {name: groups[of.group] for of in layers for name in (of.name, of.factors) if name is not None}
        self._last: dict[str, tuple[tuple[object, ...], Tensor]] = {}

    @classmethod
    def of(cls, layout: Layout, layers: Sequence[LayerRecord], model: TrackedModel) -> Self:
        """Read for the gradients of a model, onto its device and in its number format."""
        return cls(layout, layers, model.device, model.dtype)

    @plain()
    def load(self, name: str, activation_rank: int | None = None, gradient_rank: int | None = None) -> LayerFactors:
        """Load a layer's factors with as many leading eigenvectors as asked; all where None.

        Raises:
            CorruptStoreError: A factor file is missing or damaged.
        """
        layer = self._layers[name]
        Q_A = self._basis("activation", layer.source, activation_rank or layer.inputs)
        Q_S = self._basis("gradient", layer.factors or name, gradient_rank or layer.outputs)
        return LayerFactors(
            Q_A=Q_A,
            Q_S=Q_S,
            Lambda=self._eigenvalues(layer.factors or name, Q_S.shape[1], Q_A.shape[1]),
            mean_eigenvalue=layer.mean_eigenvalue,
        )

    # What is read is copied out of the mapped files: a page of a file that is cut short later would end the process.

    def _basis(self, side: str, name: str, rank: int) -> Tensor:
        """Leading eigenvectors as columns."""

        def read() -> Tensor:
            with _open(self._layout.eigenbases(self._file_of[name])) as file:
                rows: Tensor = file.get_slice(f"{side}.{name}")[:rank]
                return rows.to(self._device, self._dtype, copy=True).T

        return self._held(side, (name, rank), read)

    def _eigenvalues(self, name: str, rows: int, columns: int) -> Tensor:
        def read() -> Tensor:
            with _open(self._layout.eigenvalues(self._file_of[name])) as file:
                Lambda: Tensor = file.get_slice(name)[:rows, :columns]
                return Lambda.to(self._device, copy=True)

        return self._held("eigenvalues", (name, rows, columns), read)

    def _held(self, kind: str, key: tuple[object, ...], read: Callable[[], Tensor]) -> Tensor:
        """What was read last of a kind, where that is it: layers that share factors are next to one another."""
        last = self._last.get(kind)
        if last is None or last[0] != key:
            last = self._last[kind] = key, read()
        return last[1]

    def encoder(self, model: TrackedModel, projection: ProjectionSpec, damping: float) -> Encoder:
        """Prepare the path from passes to vectors, at the ranks of the index.

        Args:
            model: The model that this reads for.
            projection: The projection.
            damping: Multiple of each layer's mean eigenvalue.
        """
        projected = make_projection(projection, self._device)
        return Encoder(model=model, path=VectorPath(model.table.layers, self.truncated(), damping, projected))

    def truncated(self) -> dict[str, LayerFactors]:
        """Load all layers at the ranks of the index; layers that share activations share the basis in memory."""
        layers = self._layers.items()
        return {name: self.load(name, layer.activation_rank, layer.gradient_rank) for name, layer in layers}


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        check_shortage(error, path)
        raise CorruptStoreError(field=path, expected="EK-FAC factors", found=error, remedy=REMEDY) from error
