"""Random projection of whitened gradients by a count sketch.

Every coordinate of a layer's whitened gradient gets one bucket and one sign. Buckets are dealt out evenly (balanced):
the coordinates are put into a random order and dealt round robin. Order and signs come from an integer hash, so a
projection is the same on every device, operating system and library version. E[<x P, y P>] = <x, y> over seeds.

A vector is divided into slices, one a layer group, so scores can be told apart by group; all layers of a group add into
its slice.

Axes: N documents, C coordinates of a layer, W slice width, D dimension.

Source: count sketch, Charikar et al. 2002; one nonzero a column.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.errors import ConfigError

SLICE_UNIT = 8
"""Slice widths are multiples of this, so a slice of 1-bit codes ends on a byte and folds three times."""

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def hash64(keys: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Mix 64-bit integers: the finaliser of SplitMix64 (Steele et al. 2014)."""
    with np.errstate(over="ignore"):
        z = (keys + np.uint64(1)) * _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


@dataclass(frozen=True, kw_only=True)
class LayerShape:
    """Name, group and whitened shape [P, R] of one layer that is projected."""

    name: str
    group: str
    rows: int
    columns: int


@dataclass(frozen=True, kw_only=True)
class ProjectionSpec:
    """Everything that a projection is a function of."""

    layers: tuple[LayerShape, ...]
    dimension: int
    seed: int

    def __post_init__(self) -> None:
        if self.dimension < SLICE_UNIT * len(self.groups) or self.dimension % SLICE_UNIT:
            raise ConfigError(
                f"--dimension: expected a multiple of {SLICE_UNIT} of at least {SLICE_UNIT * len(self.groups)} "
                f"({SLICE_UNIT} for each of {len(self.groups)} layer groups), got {self.dimension}"
            )

    @cached_property
    def groups(self) -> tuple[str, ...]:
        """Layer groups in forward order."""
        return tuple(dict.fromkeys(layer.group for layer in self.layers))

    @cached_property
    def slices(self) -> dict[str, tuple[int, int]]:
        """Start and stop of each group's slice; widths differ by at most `SLICE_UNIT`."""
        units, rest = divmod(self.dimension // SLICE_UNIT, len(self.groups))
        widths = [SLICE_UNIT * (units + (position < rest)) for position in range(len(self.groups))]
        stops = np.cumsum(widths).tolist()
        return {group: (stop - width, stop) for group, width, stop in zip(self.groups, widths, stops, strict=True)}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the definition and of the first layer's hashed coordinates."""
        definition = json.dumps(
            {
                "kind": "count-sketch",
                "dimension": self.dimension,
                "seed": self.seed,
                "layers": [[layer.name, layer.group, layer.rows, layer.columns] for layer in self.layers],
            }
        )
        order, signs = deal(self, 0)
        return hashlib.sha256(definition.encode() + order.tobytes() + signs.tobytes()).hexdigest()


def deal(spec: ProjectionSpec, position: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    """Deal the coordinates of one layer to the buckets of its slice.

    Args:
        spec: The projection.
        position: Which of `spec.layers`.

    Returns:
        Coordinates [K, W] in the order dealt, column w holding those of bucket w, and their signs [K, W]; the last
        row is filled up with coordinate 0 and sign 0.
    """
    layer = spec.layers[position]
    start, stop = spec.slices[layer.group]
    coordinates, width = layer.rows * layer.columns, stop - start
    key = hash64(np.array([spec.seed], np.uint64)) ^ hash64(np.array([position + (1 << 32)], np.uint64))
    hashes = hash64(hash64(np.arange(coordinates, dtype=np.uint64)) ^ key)
    rows = -(-coordinates // width)
    order = np.zeros(rows * width, np.int32)
    signs = np.zeros(rows * width, np.int8)
    order[:coordinates] = np.argsort(hashes, kind="stable")
    # The order uses the high bits of the hash, so the sign takes a fresh one.
    fresh = hash64(hashes[order[:coordinates]])
    signs[:coordinates] = 1 - 2 * (fresh & np.uint64(1)).astype(np.int8)
    return order.reshape(rows, width), signs.reshape(rows, width)


class CountSketch:
    """A projection ready to run on one device."""

    def __init__(self, spec: ProjectionSpec, device: torch.device) -> None:
        """Deal every layer's coordinates and move them to the device: 5 bytes a coordinate."""
        self.spec = spec
        self._dealt: dict[str, tuple[Tensor, Tensor, slice]] = {}
        for position, layer in enumerate(spec.layers):
            order, signs = deal(spec, position)
            self._dealt[layer.name] = (
                torch.from_numpy(order.ravel()).to(device),
                torch.from_numpy(signs).to(device),
                slice(*spec.slices[layer.group]),
            )

    def add(self, out_ND: Tensor, name: str, V_NPR: Tensor) -> None:
        """Add the sketch of one layer's whitened gradients [N, P, R] into vectors [N, D], in place."""
        order, signs_KW, where = self._dealt[name]
        dealt_NKW = V_NPR.flatten(1).index_select(1, order).view(-1, *signs_KW.shape)
        out_ND[:, where] += torch.einsum("nkw,kw->nw", dealt_NKW, signs_KW.to(dealt_NKW.dtype))


def fold(vectors_ND: Tensor, spec: ProjectionSpec, times: int) -> Tensor:
    """Add the halves of every slice `times` times: the sketch of half (a quarter, ...) of the dimension.

    Args:
        vectors_ND: Vectors [N, D] of `spec`.
        spec: Their projection.
        times: How often to halve, 0 to 3.

    Returns:
        Vectors [N, D / 2**times].
    """
    factor = 2**times
    parts = [vectors_ND[:, a:b].reshape(len(vectors_ND), factor, -1).sum(1) for a, b in spec.slices.values()]
    return torch.cat(parts, dim=1)
