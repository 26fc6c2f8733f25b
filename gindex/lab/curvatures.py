"""Kinds of curvature to compare EK-FAC with.

    KFAC      EK-FAC's bases        products of the covariances' eigenvalues: no second pass
    DIAGONAL  own coordinates       second moments of document gradients in them
    IDENTITY  EK-FAC's bases        1, and no damping: raw gradients, truncated to leading directions

Axes: I layer inputs, O layer outputs, X either.

Source: Martens & Grosse 2015, arXiv:1503.05671, for K-FAC.
"""

import torch
from torch import Tensor

from gindex.curvature.eigenbasis import variances
from gindex.curvature.kinds import CurvatureKind


def kronecker_eigenvalues(activation_I: Tensor, gradient_O: Tensor, tokens: float) -> Tensor:
    """Eigenvalues that K-FAC assumes, [O, I]: tokens are independent, and so are the two sides.

    Args:
        activation_I: Eigenvalues of A [I], a mean over tokens.
        gradient_O: Eigenvalues of S [O], a mean over tokens.
        tokens: Mean number of tokens of a document; a document's gradient is a sum over them.
    """
    return tokens * gradient_O[:, None] * activation_I


def coordinate_basis(covariance_XX: Tensor, name: str) -> tuple[Tensor, Tensor]:
    """Order a layer's own coordinates by their variance.

    Args:
        covariance_XX: A covariance [X, X], any float format.
        name: What it is of, for the error.

    Returns:
        Variances [X], largest first, and the unit vectors as columns [X, X], both float64 on the covariance's device.

    Raises:
        NonFiniteError: The covariance holds a NaN or an infinity.
    """
    values, order = variances(covariance_XX.diagonal(), name)
    return values, torch.eye(len(order), dtype=torch.float64, device=order.device)[:, order]


def _ones(activation_I: Tensor, gradient_O: Tensor, _tokens: float) -> Tensor:
    return gradient_O.new_ones(len(gradient_O), len(activation_I))


KFAC = CurvatureKind(assumed=kronecker_eigenvalues)
DIAGONAL = CurvatureKind(basis=coordinate_basis)
IDENTITY = CurvatureKind(assumed=_ones, damped=False)
