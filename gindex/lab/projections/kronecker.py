"""Random projection of both sides of a layer's whitened gradient, for comparison: B V A^T, flattened.

Cheap, and what other tools do; but its error falls with the square root of the dimension that it spends.

Axes: N documents, P and R rows and columns of a layer's whitened gradient, p and r what they become, D dimension.

Source: LoGra (arXiv:2405.13954).
"""

import math

import torch
from torch import Tensor

from gindex.vectors.projection import Projection, ProjectionSpec, signs_of

ROW_SIDE, COLUMN_SIDE = 1, 2
"""Streams of the hashes."""


class Kronecker(Projection):
    """A two-sided projection ready to run on one device."""

    def __init__(self, spec: ProjectionSpec, device: torch.device) -> None:
        """Draw a matrix of random signs for each side of every layer; a slice of width W becomes p x r = W."""
        self.spec = spec
        self._sides: dict[str, tuple[Tensor, Tensor, slice]] = {}
        for position, layer in enumerate(spec.layers):
            start, stop = spec.slices[layer.group]
            p = largest_divisor(stop - start)
            r = (stop - start) // p
            self._sides[layer.name] = (
                _signs(spec, position, ROW_SIDE, (p, layer.rows)).to(device),
                _signs(spec, position, COLUMN_SIDE, (r, layer.columns)).to(device),
                slice(start, stop),
            )

    def add(self, out_ND: Tensor, name: str, V_NPR: Tensor) -> None:
        """Add the projection of one layer's whitened gradients [N, P, R] into vectors [N, D], in place."""
        B, A, where = self._sides[name]
        out_ND[:, where] += (B.to(V_NPR.dtype) @ V_NPR @ A.to(V_NPR.dtype).T).flatten(1)


def largest_divisor(number: int) -> int:
    """The largest divisor of a number that is not above its square root."""
    return next(d for d in range(math.isqrt(number), 0, -1) if number % d == 0)


def _signs(spec: ProjectionSpec, position: int, stream: int, shape: tuple[int, int]) -> Tensor:
    """Random signs divided by the square root of the number of lines, float32."""
    count = shape[0] * shape[1]
    bits = torch.from_numpy(signs_of(spec.hashes(position, -(-count // 64), stream))[:count])
    return (2 * bits.reshape(shape).float() - 1) / math.sqrt(shape[0])
