"""Orthonormal bases of one side of a layer: a matrix, blocks of consecutive coordinates, or unit vectors.

Directions are ordered by eigenvalue, largest first, blocks among one another too, so the leading ones are the first.
The corrected eigenvalues are measured in whatever basis there is: the best diagonal in any (George et al. 2018).

Axes: X coordinates of the side, R directions that are kept, B coordinates of a block, K of its directions that are
kept, M whatever else.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from gindex.model.sides import Side


class Basis(ABC):
    """An orthonormal basis Q [X, R] of a side, whole or cut short to some of its directions.

    Attributes:
        size: X.
        rank: R.
        cost: Multiplications that rotate one vector.
        dtype: Number format of what is rotated.
        device: Where it is.
    """

    size: int
    rank: int
    cost: int
    dtype: torch.dtype
    device: torch.device

    @property
    def shape(self) -> tuple[int, int]:
        """X, R."""
        return self.size, self.rank

    @abstractmethod
    def into(self, x: Tensor) -> Tensor:
        """Rotate the last axis [..., X] into the basis [..., R]: x Q."""

    @abstractmethod
    def out_of(self, y: Tensor) -> Tensor:
        """Turn the last axis [..., R] back [..., X]: y Q^T."""

    def rows_into(self, x: Tensor) -> Tensor:
        """Rotate the axis before the last [..., X, M] into the basis [..., R, M]: Q^T x."""
        return self.into(x.mT).mT

    def rows_out_of(self, y: Tensor) -> Tensor:
        """Turn the axis before the last [..., R, M] back [..., X, M]: Q y."""
        return self.out_of(y.mT).mT

    @abstractmethod
    def leading(self, rank: int) -> "Basis":
        """The first directions alone; no matrix is copied."""

    @abstractmethod
    def some(self, directions: Tensor) -> "Basis":
        """Some directions alone, in the order given, each at most once."""

    @abstractmethod
    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "Basis":
        """The same elsewhere, or for another number format."""

    @abstractmethod
    def stored(self) -> tuple[Tensor | None, Tensor | None]:
        """The directions as rows, of their block's coordinates alone [R, B], and the block of each [R].

        A matrix has no blocks, unit vectors have no rows, and the block of one is its coordinate.
        """

    def matrix(self) -> Tensor:
        """Q itself [X, R]: for references, and for sides that are not wide."""
        return self.into(torch.eye(self.size, dtype=self.dtype, device=self.device))


class DenseBasis(Basis):
    """A basis that is one matrix Q [X, R]."""

    def __init__(self, Q: Tensor) -> None:
        """Take the directions as columns."""
        self.size, self.rank = Q.shape
        self.cost, self.dtype, self.device = Q.numel(), Q.dtype, Q.device
        self._Q = Q

    def into(self, x: Tensor) -> Tensor:
        """Rotate the last axis [..., X] into the basis [..., R]: x Q."""
        return x @ self._Q

    def out_of(self, y: Tensor) -> Tensor:
        """Turn the last axis [..., R] back [..., X]: y Q^T."""
        return y @ self._Q.T

    def rows_into(self, x: Tensor) -> Tensor:
        """Rotate the axis before the last [..., X, M] into the basis [..., R, M]: Q^T x."""
        return self._Q.T @ x

    def rows_out_of(self, y: Tensor) -> Tensor:
        """Turn the axis before the last [..., R, M] back [..., X, M]: Q y."""
        return self._Q @ y

    def leading(self, rank: int) -> "DenseBasis":
        """The first directions alone; no matrix is copied."""
        return DenseBasis(self._Q[:, :rank])

    def some(self, directions: Tensor) -> "DenseBasis":
        """Some directions alone, in the order given, each at most once."""
        return DenseBasis(self._Q[:, directions])

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "DenseBasis":
        """The same elsewhere, or in another number format."""
        return DenseBasis(self._Q.to(device or self.device, dtype or self.dtype))

    def stored(self) -> tuple[Tensor | None, Tensor | None]:
        """The directions as rows [R, X]."""
        return self._Q.T, None

    def matrix(self) -> Tensor:
        """Q itself [X, R]."""
        return self._Q


class BlockBasis(Basis):
    """A basis that is block-diagonal: each direction is one of a block of consecutive coordinates."""

    def __init__(self, side: Side, matrices: Sequence[Tensor], places: Sequence[Tensor], rank: int) -> None:
        """Take the directions of every block.

        Args:
            side: Which coordinates each block has.
            matrices: The directions of each block as columns [B, K]; K may be 0.
            places: The place of each of them [K] among all R.
            rank: R.
        """
        self.size, self.rank = side.width, rank
        self.cost, self.dtype, self.device = sum(Q.numel() for Q in matrices), matrices[0].dtype, matrices[0].device
        self._side, self._matrices, self._places = side, matrices, places

    @classmethod
    def from_rows(cls, side: Side, rows_RB: Tensor, blocks_R: Tensor) -> "BlockBasis":
        """The basis of directions as they are stored, in order.

        Args:
            side: Which coordinates each block has.
            rows_RB: The directions, of their block's coordinates alone; those of a narrower last block end in zeros.
            blocks_R: The block of each.
        """
        places = [torch.nonzero(blocks_R == number)[:, 0] for number in range(len(side.blocks))]
        widths = [block.stop - block.start for block in side.blocks]
        matrices = [rows_RB[of, :width].T for of, width in zip(places, widths, strict=True)]
        return cls(side, matrices, places, len(rows_RB))

    def into(self, x: Tensor) -> Tensor:
        """Rotate the last axis [..., X] into the basis [..., R]: x Q."""
        turned = [x[..., block] @ Q for block, Q in zip(self._side.blocks, self._matrices, strict=True)]
        joined = torch.cat(turned, -1)
        return torch.empty_like(joined).index_copy_(-1, torch.cat(list(self._places)), joined)

    def out_of(self, y: Tensor) -> Tensor:
        """Turn the last axis [..., R] back [..., X]: y Q^T."""
        return torch.cat([y[..., of] @ Q.T for of, Q in zip(self._places, self._matrices, strict=True)], -1)

    def leading(self, rank: int) -> "BlockBasis":
        """The first directions alone; no matrix is copied."""
        counts = [int((of < rank).sum()) for of in self._places]  # each block's own are in order
        matrices = [Q[:, :count] for Q, count in zip(self._matrices, counts, strict=True)]
        places = [of[:count] for of, count in zip(self._places, counts, strict=True)]
        return BlockBasis(self._side, matrices, places, rank)

    def some(self, directions: Tensor) -> "BlockBasis":
        """Some directions alone, in the order given, each at most once."""
        place_R = directions.new_full((self.rank,), -1)
        place_R[directions] = torch.arange(len(directions), device=directions.device)
        now = [place_R[of] for of in self._places]
        kept = [of.argsort()[(of < 0).sum() :] for of in now]  # each block's own are in order
        matrices = [Q[:, columns] for Q, columns in zip(self._matrices, kept, strict=True)]
        places = [of[columns] for of, columns in zip(now, kept, strict=True)]
        return BlockBasis(self._side, matrices, places, len(directions))

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "BlockBasis":
        """The same elsewhere, or in another number format."""
        matrices = [Q.to(device or self.device, dtype or self.dtype) for Q in self._matrices]
        return BlockBasis(self._side, matrices, [of.to(device or self.device) for of in self._places], self.rank)

    def stored(self) -> tuple[Tensor | None, Tensor | None]:
        """The directions as rows [R, B], of their block's coordinates alone, and the block of each [R]."""
        rows_RB = self._matrices[0].new_zeros(self.rank, self._side.widest)
        blocks_R = self._places[0].new_zeros(self.rank)
        for number, (Q, of) in enumerate(zip(self._matrices, self._places, strict=True)):
            rows_RB[of, : len(Q)] = Q.T
            blocks_R[of] = number
        return rows_RB, blocks_R


class UnitBasis(Basis):
    """A basis of unit vectors: coordinates in another order, the leading ones first. Nothing is multiplied."""

    def __init__(self, size: int, coordinates_R: Tensor, dtype: torch.dtype) -> None:
        """Take the coordinate of each direction.

        Args:
            size: X.
            coordinates_R: The coordinates.
            dtype: Number format of what is rotated.
        """
        self.size, self.rank, self.cost = size, len(coordinates_R), 0
        self.dtype, self.device = dtype, coordinates_R.device
        self._coordinates = coordinates_R

    def into(self, x: Tensor) -> Tensor:
        """Take the coordinates [..., R] of the last axis [..., X]."""
        return x.index_select(-1, self._coordinates)

    def out_of(self, y: Tensor) -> Tensor:
        """Put the coordinates [..., R] where they are in the last axis [..., X]; others are zero."""
        return y.new_zeros(*y.shape[:-1], self.size).index_copy_(-1, self._coordinates, y)

    def rows_into(self, x: Tensor) -> Tensor:
        """Take the coordinates [..., R, M] of the axis before the last [..., X, M]."""
        return x.index_select(-2, self._coordinates)

    def rows_out_of(self, y: Tensor) -> Tensor:
        """Put the coordinates [..., R, M] where they are in the axis before the last [..., X, M]."""
        return y.new_zeros(*y.shape[:-2], self.size, y.shape[-1]).index_copy_(-2, self._coordinates, y)

    def leading(self, rank: int) -> "UnitBasis":
        """The first directions alone."""
        return UnitBasis(self.size, self._coordinates[:rank], self.dtype)

    def some(self, directions: Tensor) -> "UnitBasis":
        """Some directions alone, in the order given, each at most once."""
        return UnitBasis(self.size, self._coordinates[directions], self.dtype)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> "UnitBasis":
        """The same elsewhere, or for another number format."""
        return UnitBasis(self.size, self._coordinates.to(device or self.device), dtype or self.dtype)

    def stored(self) -> tuple[Tensor | None, Tensor | None]:
        """The coordinate of each direction [R]."""
        return None, self._coordinates
