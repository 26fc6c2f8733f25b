"""EK-FAC factors on disk: safetensors, two files a layer group.

Eigenvectors are stored as rows, leading first, so the leading part of a basis is one contiguous read.

    eigenbases-*.safetensors    activation.<source> [I, I], gradient.<layer> [O, O], and the covariance's eigenvalues
                                activation_values.<source> [I], gradient_values.<layer> [O]; float32
                                of a block-diagonal basis rows of the coordinates of a block alone [I, B], and the
                                block of each, activation_blocks.<source> [I] (gradient_blocks.<layer> [O]), int32
                                of unit vectors that alone, the coordinate of each
    eigenvalues-*.safetensors   <layer> [O, I], corrected eigenvalues, float32; metadata: each layer's mean

Of experts that share factors, <source> and <layer> are the name of their fused weight; the metadata of the bases lists
them.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gindex.curvature.basis import Basis, BlockBasis, DenseBasis, UnitBasis
from gindex.curvature.ekfac import LayerFactors
from gindex.errors import CorruptStoreError, StoreError
from gindex.files.atomic import publish
from gindex.files.open_files import check_shortage
from gindex.model.isolation import plain
from gindex.model.layer_records import LayerRecord
from gindex.model.layers import LayerTable, TrackedLayer
from gindex.model.number_formats import Formats, factor_formats
from gindex.model.sides import Side
from gindex.model.tracked_model import TrackedModel
from gindex.store.layout import REMEDY, Layout
from gindex.vectors.encoder import Encoder
from gindex.vectors.path import VectorPath
from gindex.vectors.projection import ProjectionSpec, make_projection

T = TypeVar("T")


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


def basis_tensors(basis: Basis, values_X: Tensor, side: str, name: str) -> dict[str, Tensor]:
    """The tensors of a whole basis and of the eigenvalues [X], as they are stored.

    Args:
        basis: The basis.
        values_X: Eigenvalues of its covariance.
        side: `activation` or `gradient`.
        name: Its source, or its layer.
    """
    rows, blocks = basis.stored()
    tensors = {f"{side}_values.{name}": values_X.to(torch.float32)}
    if rows is not None:
        tensors[f"{side}.{name}"] = rows.to(torch.float32)
    if blocks is not None:
        tensors[f"{side}_blocks.{name}"] = blocks.to(torch.int32)
    return tensors


def read_bases(
    layout: Layout, table: LayerTable, layers: Sequence[TrackedLayer], device: torch.device
) -> tuple[dict[str, Basis], dict[str, Basis]]:
    """Load the bases of some layers in their `factor_formats`: Q_A by source and Q_S by `TrackedLayer.factors`."""
    formats = factor_formats(table)
    by_name = {f"activation.{layer.source}": formats[layer.name] for layer in table}
    by_name |= {f"gradient.{layer.factors}": formats[layer.name] for layer in table}

    def read(file: Any, name: str, side: Side) -> Basis:
        return _basis(file, name, side, side.width, device, by_name[name])

    return _read_sides(layout, table, layers, ("activation", "gradient"), read)


def read_basis_values(
    layout: Layout, table: LayerTable, layers: Sequence[TrackedLayer]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Load the covariances' eigenvalues: of A [I] by source and of S [O] by `TrackedLayer.factors`."""

    def read(file: Any, name: str, _side: Side) -> Tensor:
        values: Tensor = file.get_tensor(name)
        return values

    return _read_sides(layout, table, layers, ("activation_values", "gradient_values"), read)


def _read_sides(
    layout: Layout,
    table: LayerTable,
    layers: Sequence[TrackedLayer],
    kinds: tuple[str, str],
    read: Callable[[Any, str, Side], T],
) -> tuple[dict[str, T], dict[str, T]]:
    """What is read of both sides of some layers, from the files of the layer groups that hold it."""
    numbers = {group: number for number, group in enumerate(table.groups)}
    file_of = {name: numbers[layer.group] for layer in table for name in (layer.name, layer.factors)}
    wanted = (
        {layer.source: layer.input_side for layer in layers},
        {layer.factors: layer.output_side for layer in layers},
    )
    found: tuple[dict[str, T], dict[str, T]] = ({}, {})
    for number in sorted({file_of[name] for names in wanted for name in names}):
        with _open(layout.eigenbases(number)) as file:
            for kind, names, of_kind in zip(kinds, wanted, found, strict=True):
                here = {name: side for name, side in names.items() if file_of[name] == number}
                of_kind |= {name: read(file, f"{kind}.{name}", side) for name, side in here.items()}
    return found


def _basis(file: Any, name: str, side: Side, rank: int, device: torch.device, dtype: torch.dtype) -> Basis:
    """The leading directions of a basis in an open file.

    What is read is copied out of the mapped file: a page of a file that is cut short later would end the process.
    """
    if side.block is None:
        rows: Tensor = file.get_slice(name)[:rank]
        return DenseBasis(rows.to(device, dtype, copy=True).T)
    kind, _, layer = name.partition(".")
    blocks: Tensor = file.get_slice(f"{kind}_blocks.{layer}")[:rank]
    blocks = blocks.to(device, torch.int64, copy=True)
    if side.is_unit:
        return UnitBasis(side.width, blocks, dtype)
    rows = file.get_slice(name)[:rank]
    return BlockBasis.from_rows(side, rows.to(device, dtype, copy=True), blocks)


def mean_eigenvalues(layout: Layout, groups: int) -> dict[str, float]:
    """Read every layer's mean corrected eigenvalue."""
    means: dict[str, float] = {}
    for number in range(groups):
        with _open(layout.eigenvalues(number)) as file:
            means |= json.loads(file.metadata()["gindex"])["mean"]
    return means


class _Last(Generic[T]):
    """What was read last of each kind: layers that share factors are next to one another."""

    def __init__(self) -> None:
        self._last: dict[str, tuple[tuple[object, ...], T]] = {}

    def held(self, kind: str, key: tuple[object, ...], read: Callable[[], T]) -> T:
        """What was read last of a kind, where that is it."""
        last = self._last.get(kind)
        if last is None or last[0] != key:
            last = self._last[kind] = key, read()
        return last[1]


class FactorReader:
    """Loads factors layer by layer, whole or truncated."""

    def __init__(
        self, layout: Layout, layers: Sequence[LayerRecord], device: torch.device, formats: Formats | None = None
    ) -> None:
        """Read from the index at `layout`, whose manifest lists `layers`, onto `device`.

        Args:
            layout: The index.
            layers: What its manifest lists.
            device: Where factors are read to.
            formats: Number format of each layer's eigenvectors; float32 by default.
        """
        self._layout, self._device = layout, device
        self._formats = dict.fromkeys((layer.name for layer in layers), torch.float32) if formats is None else formats
        self._layers = {layer.name: layer for layer in layers}
        groups = {group: number for number, group in enumerate(dict.fromkeys(layer.group for layer in layers))}
        self._file_of = {name: groups[of.group] for of in layers for name in (of.name, of.factors) if name is not None}
        self._bases, self._values = _Last[Basis](), _Last[Tensor]()

    @classmethod
    def of(cls, layout: Layout, layers: Sequence[LayerRecord], model: TrackedModel) -> Self:
        """Read for the gradients of a model, onto its device and in the number formats of its layers."""
        return cls(layout, layers, model.device, model.factor_formats)

    @plain()
    def load(self, name: str, activation_rank: int | None = None, gradient_rank: int | None = None) -> LayerFactors:
        """Load a layer's factors with as many leading eigenvectors as asked; all where None.

        Raises:
            CorruptStoreError: A factor file is missing or damaged.
        """
        layer = self._layers[name]
        dtype = self._formats[name]
        Q_A = self._basis("activation", layer.source, layer.input_side, activation_rank, dtype)
        Q_S = self._basis("gradient", layer.factors or name, layer.output_side, gradient_rank, dtype)
        return LayerFactors(
            Q_A=Q_A,
            Q_S=Q_S,
            Lambda=self._eigenvalues(layer.factors or name, Q_S.rank, Q_A.rank),
            mean_eigenvalue=layer.mean_eigenvalue,
        )

    def _basis(self, kind: str, name: str, side: Side, rank: int | None, dtype: torch.dtype) -> Basis:
        """Leading directions of the activation or the gradient side."""

        def read() -> Basis:
            with _open(self._layout.eigenbases(self._file_of[name])) as file:
                return _basis(file, f"{kind}.{name}", side, rank or side.width, self._device, dtype)

        return self._bases.held(kind, (name, rank, dtype), read)

    def _eigenvalues(self, name: str, rows: int, columns: int) -> Tensor:
        def read() -> Tensor:
            with _open(self._layout.eigenvalues(self._file_of[name])) as file:
                Lambda: Tensor = file.get_slice(name)[:rows, :columns]
                return Lambda.to(self._device, copy=True)  # out of the mapped file, as bases are

        return self._values.held("eigenvalues", (name, rows, columns), read)

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
