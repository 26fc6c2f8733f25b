"""Ways to turn a document's gradient into a vector, all measured in one pass over the documents.

A variant says which part of which basis is kept, how it is whitened, projected and coded. The observer rotates every
token once into each basis and hands the leading part to every variant.

Axes: N documents, T tokens, I layer inputs, O layer outputs, P and R kept coordinates, D dimension.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gindex.curvature.ekfac import whitening_scale
from gindex.model.capture import append_one
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.store.vectors import code_bytes
from gindex.vectors.codes import decode, encode
from gindex.vectors.projection import LayerShape, ProjectionSpec, make_projection

Ranks = Mapping[str, tuple[int, int]]
"""WorkFolder activation and gradient eigenvectors by layer."""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the table, before the bits.

    Attributes:
        name: What is kept and how it is whitened.
        basis: Which of the observer's bases.
        ranks: What is kept.
        Lambda: Eigenvalues [O, I] by layer.
        damping: Multiple of each layer's mean eigenvalue.
        projection: Kind of projection; None keeps every coordinate.
        dimension: D.
        bits: Bit widths to code at; 32 for none.
        seed: Seed of the projection.
        preconditioned: Queries take `precondition` after the pass over the documents.
    """

    name: str
    basis: str
    ranks: Ranks
    Lambda: Mapping[str, Tensor]
    damping: float
    projection: str | None = "count-sketch"
    dimension: int = 0
    bits: tuple[int, ...] = (1,)
    seed: int = 0
    preconditioned: bool = False


@dataclass
class _Prepared:
    variant: Variant
    scales: dict[str, Tensor]
    spec: ProjectionSpec | None
    add: object
    slices: list[tuple[int, int]]
    width: int


def prepare(variant: Variant, layers: Sequence[TrackedLayer]) -> _Prepared:
    """Make the projection and whitening of a variant."""
    scales, shapes = {}, []
    for layer in layers:
        R, P = variant.ranks[layer.name]
        Lambda = variant.Lambda[layer.name]
        scales[layer.name] = whitening_scale(Lambda[:P, :R], variant.damping * float(Lambda.double().mean()))
        shapes.append(LayerShape(name=layer.name, group=layer.group, rows=P, columns=R))
    if variant.projection is None:
        stops = torch.tensor([s.rows * s.columns for s in shapes]).cumsum(0).tolist()
        slices = list(zip([0, *stops[:-1]], stops, strict=True))
        return _Prepared(variant, scales, None, None, slices, stops[-1])
    spec = ProjectionSpec(layers=tuple(shapes), dimension=variant.dimension, seed=variant.seed, kind=variant.projection)
    return _Prepared(
        variant, scales, spec, make_projection(spec, torch.device("cpu")), list(spec.slices.values()), spec.dimension
    )


@dataclass
class VariantObserver(Observer):
    """Computes the vectors of all variants for one batch."""

    prepared: Sequence[_Prepared]
    bases: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, Tensor]]]
    documents: int
    vectors: list[Tensor] = field(default_factory=list)
    _rotated: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Make room for the vectors."""
        self.vectors = [torch.zeros(self.documents, one.width) for one in self.prepared]

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> dict[str, Tensor]:
        """Rotate activations into every basis."""
        for name, (activation, _) in self.bases.items():
            if (name, layer.source) not in self._rotated:
                self._rotated[name, layer.source] = append_one(a_NTI, layer).float() @ activation[layer.source]
        return {name: self._rotated[name, layer.source] for name in self.bases}

    def gradients(self, layer: TrackedLayer, kept: dict[str, Tensor], g_NTO: Tensor) -> None:
        """Whiten and project for every variant."""
        rotated = {
            name: (g_NTO.float() @ gradient[layer.name]).mT @ kept[name] for name, (_, gradient) in self.bases.items()
        }
        position = self.prepared[0].scales.keys()
        index = list(position).index(layer.name)
        for one, out in zip(self.prepared, self.vectors, strict=True):
            R, P = one.variant.ranks[layer.name]
            V = rotated[one.variant.basis][:, :P, :R] * one.scales[layer.name]
            if one.spec is None:
                out[:, slice(*one.slices[index])] = V.flatten(1)
            else:
                one.add.add(out, layer.name, V.contiguous())


def precondition(queries_QD: Tensor, vectors_ND: Tensor, slices: Sequence[tuple[int, int]]) -> Tensor:
    """Apply (H + .1 mean(eigenvalues of H))^-1 to every slice of queries, as bergson 2.5.1 does by default.

    Args:
        queries_QD: Queries [Q, D].
        vectors_ND: Vectors [N, D] of the documents; H is the mean of v v^T over them, slice by slice.
        slices: Start and stop of each slice, one a layer.
    """
    pieces = []
    for start, stop in slices:
        V_NW = vectors_ND[:, start:stop].double()
        H_WW = V_NW.T @ V_NW / len(V_NW)
        H_WW.diagonal().add_(0.1 * float(H_WW.diagonal().mean()))
        pieces.append(torch.linalg.solve(H_WW, queries_QD[:, start:stop].double().T).T.float())
    return torch.cat(pieces, 1)


def coded_scores(queries_QD: Tensor, vectors_ND: Tensor, bits: int, slices: Sequence[tuple[int, int]]) -> Tensor:
    """Return scores [Q, N] of vectors that were coded and decoded again; of the vectors themselves at 32 bits."""
    if bits == 32:
        return queries_QD @ vectors_ND.T
    return queries_QD @ decode(*encode(vectors_ND, bits, slices), bits, slices).T


def stored_bytes(one: _Prepared, bits: int) -> int:
    """Return the bytes of one document's vector with its scales."""
    return 4 * one.width if bits == 32 else code_bytes(one.width, bits) + 4 * len(one.slices)
