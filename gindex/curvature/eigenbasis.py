"""Bases that curvature is diagonal in.

Eigendecompositions run in float64: in float32 the small eigenvalues of an ill-conditioned covariance drown in rounding,
and some solvers return NaN.
"""

import torch
from torch import Tensor

from gindex.errors import NonFiniteError


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
    _check_finite(covariance_XX, name)
    wide = covariance_XX.double()
    wide = (wide + wide.T) / 2
    for device in dict.fromkeys((wide.device, torch.device("cpu"))):
        try:
            values, vectors = torch.linalg.eigh(wide.to(device))
        except torch.linalg.LinAlgError:
            continue
        if torch.isfinite(vectors).all():
            values, vectors = values.flip(0).clamp(min=0), vectors.flip(1)
            return values.to(wide.device), vectors.to(wide.device)
    raise NonFiniteError(f"{name}: no eigendecomposition converged; fit on more documents")


def coordinate_basis(covariance_XX: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Order a layer's own coordinates by their variance: the basis of diagonal curvature.

    Args:
        covariance_XX: A covariance [X, X], any float format.
        name: What it is of, for the error.

    Returns:
        Variances [X], largest first, and the unit vectors as columns [X, X], both float64 on the covariance's device.

    Raises:
        NonFiniteError: The covariance holds a NaN or an infinity.
    """
    _check_finite(covariance_XX, name)
    values, order = covariance_XX.diagonal().double().sort(descending=True, stable=True)
    return values, torch.eye(len(order), dtype=torch.float64, device=order.device)[:, order]


def _check_finite(covariance_XX: Tensor, name: str) -> None:
    if not torch.isfinite(covariance_XX).all():
        raise NonFiniteError(
            f"{name}: expected a finite covariance, found NaN or infinity; run with --dtype float32 or without the "
            "documents that cause it"
        )
