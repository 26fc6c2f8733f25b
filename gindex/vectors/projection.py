"""Random projections of whitened gradients: what they have in common.

A vector is divided into slices, one a layer group, so scores can be told apart by group; all layers of a group add into
its slice. Random choices come from an integer hash, so a projection is the same on every device, operating system and
library version. E[<x P, y P>] = <x, y> over seeds, and the same holds after folding.

Axes: N documents, P and R rows and columns of a layer's whitened gradient, W slice width, D dimension.
"""

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gindex.config import PROJECTIONS
from gindex.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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
    kind: str = PROJECTIONS.default

    def __post_init__(self) -> None:
        PROJECTIONS.check(self.kind)
        if self.dimension < SLICE_UNIT * len(self.groups) or self.dimension % SLICE_UNIT:
            raise ConfigError(
                field="dimension",
                expected=(
                    f"a multiple of {SLICE_UNIT} of at least {SLICE_UNIT * len(self.groups)} ({SLICE_UNIT} for "
                    f"each of {len(self.groups)} layer groups)"
                ),
                found=self.dimension,
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
    def before(self) -> tuple[int, ...]:
        """Coordinates of the layers of its group that come before each layer."""
        sums: Counter[str] = Counter()
        found = []
        for layer in self.layers:
            found.append(sums[layer.group])
            sums[layer.group] += layer.rows * layer.columns
        return tuple(found)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the definition and of the first hashes drawn for the first layer."""
        definition = json.dumps(
            {
                "kind": self.kind,
                "dimension": self.dimension,
                "seed": self.seed,
                "layers": [[layer.name, layer.group, layer.rows, layer.columns] for layer in self.layers],
            }
        )
        return hashlib.sha256(definition.encode() + self.hashes(0, 64).tobytes()).hexdigest()

    def hashes(self, position: int, count: int, stream: int = 0) -> npt.NDArray[np.uint64]:
        """Hashes for layer `position`, `count` of them; another stream gives independent ones."""
        key = hash64(np.array([self.seed], np.uint64)) ^ hash64(np.array([position + (1 << 32)], np.uint64))
        if stream:
            key ^= hash64(np.array([stream + (1 << 48)], np.uint64))
        return hash64(hash64(np.arange(count, dtype=np.uint64)) ^ key)


class Projection(ABC):
    """A projection ready to run on one device."""

    spec: ProjectionSpec

    @abstractmethod
    def add(self, out_ND: "Tensor", name: str, V_NPR: "Tensor") -> None:
        """Add the projection of one layer's whitened gradients [N, P, R] into vectors [N, D], in place."""


def make_projection(spec: ProjectionSpec, device: "torch.device") -> Projection:
    """The projection of a spec, ready to run on a device."""
    projection: Projection = PROJECTIONS.get(spec.kind)(spec, device)
    return projection


def signs_of(hashes: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint8]:
    """The 64 bits of every hash, lowest first: one random sign each, [64 x hashes]."""
    return np.unpackbits(hashes.astype("<u8").view(np.uint8), bitorder="little")


def fold(vectors_ND: "Tensor", spec: ProjectionSpec, times: int) -> "Tensor":
    """Add the halves of every slice `times` times: an unbiased projection to half (a quarter, ...) of the dimension.

    Args:
        vectors_ND: Vectors [N, D] of `spec`.
        spec: Their projection.
        times: How often to halve, 0 to 3.

    Returns:
        Vectors [N, D / 2**times].
    """
    import torch  # here alone, so that what an index records of a projection is read without it

    factor = 2**times
    parts = [vectors_ND[:, a:b].reshape(len(vectors_ND), factor, -1).sum(1) for a, b in spec.slices.values()]
    return torch.cat(parts, dim=1)
