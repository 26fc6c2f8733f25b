"""The EK-FAC approximation of one layer's Gauss-Newton matrix, and what is done with it.

H ~ (Q_S x Q_A) diag(Lambda) (Q_S x Q_A)^T + damping. Whitening applies H^-1/2 and stays in the eigenbasis;
preconditioning applies H^-1 and comes back. Products run in the eigenvectors' number format, which is the model's:
activations and gradients have no more digits than that. What is divided by Lambda is float32 or wider.

Axes: N documents, I layer inputs, O layer outputs, R and P the leading eigenvectors kept of either side.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from gindex.curvature.basis import Basis


@dataclass(frozen=True, kw_only=True, eq=False)
class LayerFactors:
    """EK-FAC factors of one layer, whole or truncated to leading directions.

    Attributes:
        Q_A: Leading directions of the activation side, [I, R].
        Q_S: Leading directions of the pseudo-gradient side, [O, P].
        Lambda: Corrected eigenvalues, a mean over documents, [P, R].
        mean_eigenvalue: Mean of the untruncated Lambda [O, I]; damping is a multiple of it.
    """

    Q_A: Basis
    Q_S: Basis
    Lambda: Tensor
    mean_eigenvalue: float

    def damping(self, scale: float) -> float:
        """The damping of this layer: `scale` times the mean corrected eigenvalue."""
        return scale * self.mean_eigenvalue

    def truncated(self, activation_rank: int, gradient_rank: int) -> "LayerFactors":
        """Keep leading directions only; damping stays a multiple of the whole layer's mean eigenvalue."""
        return LayerFactors(
            Q_A=self.Q_A.leading(activation_rank),
            Q_S=self.Q_S.leading(gradient_rank),
            Lambda=self.Lambda[:gradient_rank, :activation_rank],
            mean_eigenvalue=self.mean_eigenvalue,
        )

    def to(self, dtype: torch.dtype) -> "LayerFactors":
        """The same with bases in another number format; the eigenvalues stay as they are."""
        return replace(self, Q_A=self.Q_A.to(dtype=dtype), Q_S=self.Q_S.to(dtype=dtype))

    def rotate(self, G_NOI: Tensor) -> Tensor:
        """Rotate document gradients [N, O, I] into the eigenbasis, [N, P, R]."""
        return self.Q_A.into(self.Q_S.rows_into(G_NOI.to(self.Q_A.dtype)))

    def whiten(self, G_NOI: Tensor, damping_scale: float) -> Tensor:
        """Apply H^-1/2 to document gradients [N, O, I]; the result [N, P, R] stays in the eigenbasis."""
        return self.rotate(G_NOI) * whitening_scale(self.Lambda, self.damping(damping_scale))

    def precondition(self, G_NPR: Tensor, damping_scale: float) -> Tensor:
        """Apply H^-1 to rotated document gradients [N, P, R]; the result [N, O, I] is in the layer's coordinates."""
        scale = whitening_scale(self.Lambda, self.damping(damping_scale))
        return self.Q_A.out_of(self.Q_S.rows_out_of((G_NPR * scale.square()).to(self.Q_S.dtype)))


FactorLoader = Callable[[str], LayerFactors]
"""Gives the untruncated factors of a layer by name; called once a layer, so that only one is held at a time."""


def rotated_gradients(a_NTI: Tensor, g_NTO: Tensor, Q_A: Basis, Q_S: Basis) -> Tensor:
    """Document gradients in the eigenbasis, Q_S^T (sum_t g_t a_t^T) Q_A.

    Short documents rotate their tokens, long ones the gradient they add up to: whichever needs fewer multiplications.

    Args:
        a_NTI: Activations [N, T, I], 1 appended where the layer has a bias.
        g_NTO: Output gradients [N, T, O].
        Q_A: Directions of the activation side [I, R].
        Q_S: Directions of the gradient side [O, P].

    Returns:
        [N, P, R], in the bases' number format.
    """
    a, g = a_NTI.to(Q_A.dtype), g_NTO.to(Q_S.dtype)
    if rotates_tokens(a.shape[1], Q_A, Q_S):
        return Q_S.into(g).mT @ Q_A.into(a)
    return Q_A.into(Q_S.rows_into(g.mT @ a))


def rotates_tokens(tokens: int, Q_A: Basis, Q_S: Basis) -> bool:
    """Whether rotating a document's tokens takes no more multiplications than rotating its gradient.

    Args:
        tokens: Tokens of the document.
        Q_A: Directions of the activation side [I, R].
        Q_S: Directions of the gradient side [O, P].
    """
    (I, R), (O, P) = Q_A.shape, Q_S.shape  # noqa: E741
    return tokens * (Q_A.cost + Q_S.cost + P * R) <= tokens * O * I + Q_S.cost * I + P * Q_A.cost


def whitening_scale(Lambda: Tensor, damping: float) -> Tensor:
    """(Lambda + damping)^-1/2, and 0 where both are 0: a dead direction carries no influence.

    Args:
        Lambda: Corrected eigenvalues, any shape.
        damping: The layer's damping, in the unit of Lambda.
    """
    denominator = Lambda + damping
    return torch.where(denominator > 0, denominator.rsqrt(), torch.zeros_like(denominator))
