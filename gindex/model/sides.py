"""The two sides of a layer: how wide they are, and what structure the basis of each has.

A basis of X coordinates is one matrix [X, X]; or blocks of consecutive coordinates, each with a matrix of its own; or
the unit vectors, which need none. See docs/decisions/0020-wide-sides.md.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

UNIT_VECTORS = 1
"""The block of a side whose basis are the unit vectors."""

WIDEST_MATRIX, WIDEST_BLOCK = 32768, 4096
"""Widest side whose basis is one matrix, and the widest block of a wider one. A matrix of 32,768 takes 4 GB in float32,
its decomposition four times as much in float64 and minutes of an accelerator; blocks of 4,096 take about as much memory
and time as the weights of the layer that they are of."""


BLOCK_EXCESS = 4
"""How many times as many values as the layer's weight the blocks of a side may have. Those of an adapter of low rank
would have hundreds of times as many: its basis are the unit vectors."""


def usual_block(width: int, other: int) -> int | None:
    """The structure of the basis of a layer's side (`Side.block`): one matrix, blocks of like size, or unit vectors.

    Args:
        width: Width of the side.
        other: Width of the layer's other side.
    """
    if width <= WIDEST_MATRIX:
        return None
    block = math.ceil(width / math.ceil(width / WIDEST_BLOCK))
    return block if block <= BLOCK_EXCESS * other else UNIT_VECTORS


@dataclass(frozen=True)
class Side:
    """A side of a layer: its activations or its pseudo-gradients.

    Attributes:
        width: X.
        block: Coordinates of a block of its basis, of which the last may have fewer; `UNIT_VECTORS` for unit vectors;
            None where the basis is one matrix.
    """

    width: int
    block: int | None = None

    @property
    def is_unit(self) -> bool:
        """Whether the basis are the unit vectors: the covariance is a diagonal [X], and nothing is rotated."""
        return self.block == UNIT_VECTORS

    @cached_property
    def blocks(self) -> Sequence[slice]:
        """The coordinates of each matrix; none for unit vectors."""
        if self.is_unit:
            return ()
        size = self.block or max(1, self.width)
        return [slice(start, min(start + size, self.width)) for start in range(0, self.width, size)]

    @property
    def structure(self) -> str:
        """Its width and what its basis is made of, in words."""
        if self.block is None:
            return f"{self.width:,} in one matrix"
        return f"{self.width:,} in " + ("unit vectors" if self.is_unit else f"blocks of {self.block:,}")

    @property
    def numbers(self) -> int:
        """Values of the matrices of its covariance or its basis, and multiplications that rotate a vector."""
        return sum((block.stop - block.start) ** 2 for block in self.blocks)

    def rotation(self, rank: int) -> int:
        """Values of its leading directions, and multiplications that rotate a vector into them."""
        return 0 if self.is_unit else rank * min(self.width, self.block or self.width)

    @property
    def cubes(self) -> int:
        """X^3 of its matrices, which their eigendecompositions take time in proportion to."""
        return sum((block.stop - block.start) ** 3 for block in self.blocks)

    @property
    def widest(self) -> int:
        """Rows of the largest matrix."""
        return max((block.stop - block.start for block in self.blocks), default=0)
