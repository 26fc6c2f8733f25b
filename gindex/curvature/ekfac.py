"""The EK-FAC approximation of one layer's Gauss-Newton matrix, and what is done with it.

H ~ (Q_S x Q_A) diag(Lambda) (Q_S x Q_A)^T + damping. Whitening applies H^-1/2 and stays in the eigenbasis;
preconditioning applies H^-1 and comes back. Products run in the eigenvectors' number format, which is the model's:
activations and gradients have no more digits than that. What is divided by Lambda is float32 or wider.

Axes: N documents, I layer inputs, O layer outputs, R and P the leading eigenvectors kept of either side.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerFactors:
    """EK-FAC factors of one layer, whole or truncated to leading eigenvectors.

    Attributes:
        Q_A: Leading activation covariance eigenvectors as columns, [I, R].
        Q_S: Leading pseudo-gradient covariance eigenvectors as columns, [O, P].
        Lambda: Corrected eigenvalues, a mean over documents, [P, R].
        mean_eigenvalue: Mean of the untruncated Lambda [O, I]; damping is a multiple of it.
    """

    Q_A: Tensor
    Q_S: Tensor
    Lambda: Tensor
    mean_eigenvalue: float

    def damping(self, scale: float) -> float:
        """The damping of this layer: `scale` times the mean corrected eigenvalue."""
        return scale * self.mean_eigenvalue

    def truncated(self, activation_rank: int, gradient_rank: int) -> "LayerFactors":
        """Keep leading eigenvectors only; damping stays a multiple of the whole layer's mean eigenvalue."""
        return LayerFactors(
            Q_A=self.Q_A[:, :activation_rank],
            Q_S=self.Q_S[:, :gradient_rank],
            Lambda=self.Lambda[:gradient_rank, :activation_rank],
            mean_eigenvalue=self.mean_eigenvalue,
        )

    def rotate(self, G_NOI: Tensor) -> Tensor:
        """Rotate document gradients [N, O, I] into the eigenbasis, [N, P, R]."""
        return self.Q_S.T @ G_NOI.to(self.Q_A.dtype) @ self.Q_A

    def whiten(self, G_NOI: Tensor, damping_scale: float) -> Tensor:
        """Apply H^-1/2 to document gradients [N, O, I]; the result [N, P, R] stays in the eigenbasis."""
        return self.rotate(G_NOI) * whitening_scale(self.Lambda, self.damping(damping_scale))

    def precondition(self, G_NPR: Tensor, damping_scale: float) -> Tensor:
        """Apply H^-1 to rotated document gradients [N, P, R]; the result [N, O, I] is in the layer's coordinates."""
        scale = whitening_scale(self.Lambda, self.damping(damping_scale))
        return self.Q_S @ (G_NPR * scale.square()).to(self.Q_S.dtype) @ self.Q_A.T


FactorLoader = Callable[[str], LayerFactors]
"""Gives the untruncated factors of a layer by name; called once a layer, so that only one is held at a time."""


def rotated_gradients(a_NTI: Tensor, g_NTO: Tensor, Q_A: Tensor, Q_S: Tensor) -> Tensor:
    """Document gradients in the eigenbasis, Q_S^T (sum_t g_t a_t^T) Q_A.

    Short documents rotate their tokens, long ones the gradient they add up to: whichever needs fewer multiplications.

    Args:
        a_NTI: Activations [N, T, I], 1 appended where the layer has a bias.
        g_NTO: Output gradients [N, T, O].
        Q_A: Activation eigenvectors as columns [I, R].
        Q_S: Gradient eigenvectors as columns [O, P].

    Returns:
        [N, P, R], in the eigenvectors' number format.
    """
    a, g = a_NTI.to(Q_A.dtype), g_NTO.to(Q_S.dtype)
    if rotates_tokens(a.shape[1], Q_A, Q_S):
        return (g @ Q_S).mT @ (a @ Q_A)
    return Q_S.T @ (g.mT @ a) @ Q_A


def rotates_tokens(tokens: int, Q_A: Tensor, Q_S: Tensor) -> bool:
    """Whether rotating a document's tokens takes no more multiplications than rotating its gradient.

    Args:
        tokens: Tokens of the document.
        Q_A: Activation eigenvectors [I, R].
        Q_S: Gradient eigenvectors [O, P].
    """
    (I, R), (O, P) = Q_A.shape, Q_S.shape  # noqa: E741
    return tokens * (I * R + O * P + P * R) <= tokens * O * I + P * O * I + P * I * R


def whitening_scale(Lambda: Tensor, damping: float) -> Tensor:
    """(Lambda + damping)^-1/2, and 0 where both are 0: a dead direction carries no influence.

    Args:
        Lambda: Corrected eigenvalues, any shape.
        damping: The layer's damping, in the unit of Lambda.
    """
    denominator = Lambda + damping
    return torch.where(denominator > 0, denominator.rsqrt(), torch.zeros_like(denominator))
