"""Random projection by a dense matrix of random signs, for comparison: its cost is coordinates x dimension.

Axes: N documents, C coordinates of a layer's whitened gradient, W slice width, D dimension.

Source: Achlioptas 2003; TRAK (arXiv:2303.14186) projects so.
"""

import numpy as np
import torch
from torch import Tensor

from gindex.vectors.projection import Projection, ProjectionSpec

COORDINATES = 1 << 16
"""Coordinates whose signs are unpacked at once."""


class Rademacher(Projection):
    """A dense projection ready to run on one device."""

    def __init__(self, spec: ProjectionSpec, device: torch.device) -> None:
        """Draw every layer's signs and move them to the device: a bit a coordinate and dimension of its slice."""
        self.spec = spec
        self._bytes: dict[str, tuple[Tensor, slice]] = {}
        for position, layer in enumerate(spec.layers):
            start, stop = spec.slices[layer.group]
            coordinates, words = layer.rows * layer.columns, -(-(stop - start) // 64)
            drawn = spec.hashes(position, coordinates * words).astype("<u8").view(np.uint8)
            packed = np.ascontiguousarray(drawn.reshape(coordinates, -1)[:, : (stop - start) // 8])
            self._bytes[layer.name] = (torch.from_numpy(packed).to(device), slice(start, stop))
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self._signs = torch.from_numpy(bits).to(device, torch.float32) * 2 - 1

    def add(self, out_ND: Tensor, name: str, V_NPR: Tensor) -> None:
        """Add the projection of one layer's whitened gradients [N, P, R] into vectors [N, D], in place."""
        packed, where = self._bytes[name]
        V_NC = V_NPR.flatten(1)
        scale = (where.stop - where.start) ** -0.5
        for start in range(0, len(packed), COORDINATES):
            signs_CW = self._signs[packed[start : start + COORDINATES].long()].flatten(1).to(V_NC.dtype)
            out_ND[:, where] += scale * (V_NC[:, start : start + COORDINATES] @ signs_CW)
