"""Bases that curvature is diagonal in.

Eigendecompositions run in float64: in float32 the small eigenvalues of an ill-conditioned covariance drown in rounding,
and some solvers return NaN.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import torch
from torch import Tensor

from gindex.errors import NonFiniteError
from gindex.thread_pool import side_by_side, singly

T = TypeVar("T")
Made = TypeVar("Made")

ENTRY_BYTES = 4 * 8
"""What a decomposition takes for each entry: matrix and eigenvectors in float64, and as much to work in."""

ROOM_BYTES = 4 << 30
"""What decompositions may take that run side by side, where nothing else is said."""


def eigenbasis(covariance_XX: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Decompose a covariance.

    Args:
        covariance_XX: A symmetric positive semi-definite matrix [X, X], any float format.
        name: What it is of, for the error.

    Returns:
        Eigenvalues [X], largest first and clamped at 0, and the eigenvectors as columns [X, X], both float64 on the
        covariance's device. A zero covariance gives zeros and some orthonormal basis.

    Raises:
        NonFiniteError: The covariance holds a NaN or an infinity, or no solver converged.
    """
    check_finite(covariance_XX, name)
    wide = covariance_XX.double()
    wide = (wide + wide.T) / 2
    for device in dict.fromkeys((wide.device, torch.device("cpu"))):
        try:
            values, vectors = _eigh(wide.to(device))
        except torch.linalg.LinAlgError:
            continue
        if torch.isfinite(vectors).all():
            values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
            return values.to(wide.device), vectors.to(wide.device)
    raise NonFiniteError(
        field=name,
        expected="an eigendecomposition that converges",
        found="none that does",
        remedy="fit on more documents",
    )


def variances(variance_X: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Order coordinates by their variance, for a basis of unit vectors.

    Args:
        variance_X: The diagonal of a covariance [X], any float format.
        name: What it is of, for the error.

    Returns:
        Variances [X], largest first, float64, and the coordinate of each.

    Raises:
        NonFiniteError: The diagonal holds a NaN or an infinity.
    """
    check_finite(variance_X, name)
    values, coordinates = variance_X.double().sort(descending=True, stable=True)
    return values, coordinates


def _eigh(symmetric_XX: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [X], smallest first, and eigenvectors. On a CPU one thread works on a matrix.

    Several would wait for each other at every step, of which there are thousands: beside busy processes that takes some
    twenty times as long, and alone two matrices side by side are faster than one after the other on two threads.
    """
    if symmetric_XX.device.type != "cpu":
        values, vectors = torch.linalg.eigh(symmetric_XX)
    else:
        values, vectors = singly(lambda: torch.linalg.eigh(symmetric_XX))
    return values, vectors


def decomposed(
    decompose: Callable[[T], Made], pieces: Iterable[T], widest: int, device: torch.device, room: int = ROOM_BYTES
) -> Iterator[Made]:
    """What is made of matrices, in their order: side by side on a CPU, one after the other elsewhere.

    Args:
        decompose: Decomposes what a piece stands for.
        pieces: Each is taken when it is its turn.
        widest: Rows of the largest matrix; 0 where there is none.
        device: Where the matrices are.
        room: Bytes that may be taken; one matrix is decomposed in any case.
    """
    if device.type != "cpu":
        return map(decompose, pieces)
    return side_by_side(decompose, pieces, room // (ENTRY_BYTES * max(1, widest) ** 2))


def check_finite(covariance: Tensor, name: str) -> None:
    """Check that a covariance, or its diagonal, is finite throughout.

    Raises:
        NonFiniteError: It holds a NaN or an infinity.
    """
    if not torch.isfinite(covariance).all():
        raise NonFiniteError(
            field=name,
            expected="a finite covariance",
            found="NaN or infinity",
            remedy="run with `dtype` float32 or without the documents that cause it",
        )
