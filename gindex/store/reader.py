"""The vectors of an index: those of its volumes, one after the other.

Axes: N parts, D dimension.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from gindex.store.vectors import CodedVectors, VectorSpec, VolumeReader

if TYPE_CHECKING:
    from torch import Tensor

Ordinals = npt.NDArray[np.int64]

DECODED = 4096
"""Vectors that are decoded at once where their norms cannot be told from their scales."""


@dataclass(frozen=True, kw_only=True)
class StoreSpec:
    """Shape of the vectors of all volumes."""

    volumes: tuple[VectorSpec, ...]

    @property
    def parts(self) -> int:
        """Rows of all volumes."""
        return sum(volume.parts for volume in self.volumes)

    @property
    def dimension(self) -> int:
        """D."""
        return self.volumes[0].dimension

    @property
    def bits(self) -> int:
        """Bits a coordinate."""
        return self.volumes[0].bits

    @property
    def slices(self) -> tuple[tuple[int, int], ...]:
        """Start and stop of each layer group's slice."""
        return self.volumes[0].slices

    @property
    def segments(self) -> int:
        """Segments of all volumes."""
        return sum(volume.segments for volume in self.volumes)

    def segment_range(self, number: int) -> range:
        """Part ordinals of a segment, counted through all volumes."""
        start = 0
        for volume in self.volumes:
            if number < volume.segments:
                rows = volume.segment_range(number)
                return range(start + rows.start, start + rows.stop)
            number -= volume.segments
            start += volume.parts
        raise IndexError(number)


class VectorReader:
    """Reads stored vectors, any parts in any order."""

    def __init__(self, volumes: Sequence[VolumeReader], lost: Sequence[range] = ()) -> None:
        """Join volumes.

        Args:
            volumes: In the order of the ordinals.
            lost: Parts whose vectors are known to be lost: they read as zeros, and `Snapshot.excluded` keeps them out
                of every search.
        """
        self.spec = StoreSpec(volumes=tuple(volume.spec for volume in volumes))
        self._volumes, self._lost = volumes, lost
        self._starts = np.cumsum([0, *(volume.spec.parts for volume in volumes)])

    def decoded(self, ordinals: Ordinals) -> "Tensor":
        """The vectors [N, D] of part ordinals [N], float32.

        Raises:
            CorruptStoreError: A shard is missing, truncated or altered.
        """
        from gindex.vectors.codes import decode  # with torch, which no list of outliers needs

        return decode(*self.coded(ordinals), self.spec.bits, self.spec.slices)

    def coded(self, ordinals: Ordinals) -> "tuple[Tensor, Tensor]":
        """Codes [N, B] and scales [N, S] of part ordinals [N]."""
        import torch

        return torch.from_numpy(self._read("codes", ordinals)), self.scales(ordinals)

    def scales(self, ordinals: Ordinals) -> "Tensor":
        """The scales [N, S] of part ordinals [N]."""
        import torch

        return torch.from_numpy(self._read("scales", ordinals))

    def self_influence(self, ordinals: Ordinals) -> npt.NDArray[np.float32]:
        """The self-influence [N] of part ordinals [N]."""
        return self._read("self_influence", ordinals).astype(np.float32)

    def norms(self, ordinals: Ordinals) -> npt.NDArray[np.float64]:
        """Lengths of the stored vectors of part ordinals [N]."""
        spec = self.spec
        if spec.bits == 1:  # all coordinates of a slice are its scale or minus it
            widths = np.array([b - a for a, b in spec.slices], np.float64)
            return np.asarray(np.sqrt(self._read("scales", ordinals).astype(np.float64) ** 2 @ widths))
        blocks: Sequence[Ordinals] = np.array_split(ordinals, -(-len(ordinals) // DECODED))
        return np.concatenate([self.decoded(block).double().norm(dim=1).numpy() for block in blocks])

    def stored(self, ordinals: Ordinals) -> CodedVectors:
        """Everything that is stored of part ordinals [N], as it is stored."""
        return CodedVectors(
            codes=self._read("codes", ordinals),
            scales=self._read("scales", ordinals).astype(np.float32),
            self_influence=self.self_influence(ordinals),
        )

    def is_lost(self, ordinals: Ordinals) -> npt.NDArray[np.bool_]:
        """Which of the parts [N] are in a lost segment."""
        lost = np.zeros(len(ordinals), bool)
        for parts in self._lost:
            lost |= (parts.start <= ordinals) & (ordinals < parts.stop)
        return lost

    def _read(self, name: str, ordinals: Ordinals) -> npt.NDArray[np.generic]:
        if len(self._volumes) == 1 and not self._lost:
            return self._volumes[0].read(name, ordinals)
        where = np.searchsorted(self._starts, ordinals, "right") - 1
        rows = self.spec.volumes[0].arrays[name]
        out = np.zeros((len(ordinals), rows.width) if rows.width else len(ordinals), rows.dtype)
        intact = ~self.is_lost(ordinals)
        for number in np.unique(where):
            positions = np.flatnonzero((where == number) & intact)
            out[positions] = self._volumes[number].read(name, ordinals[positions] - self._starts[number])
        return out
