"""Eigenvalue correction, the second pass of EK-FAC.

The eigenvalues are second moments of the document gradients in the eigenbasis of the covariances. Pure functions and
one observer; the corpus loop is in `fit`.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from gindex.curvature.basis import Basis
from gindex.errors import ShapeError
from gindex.model.capture import append_one
from gindex.model.devices import kept_rows
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer

FORMED_VALUES = 1 << 26
"""Most values of document gradients that an accelerator forms at once."""


def add_squared_gradients(total_OI: Tensor, a_NTI: Tensor, s_NTO: Tensor) -> None:
    """Add the squares of document gradients to their sum, entry by entry.

    In the eigenbasis, where activations and pseudo-gradients are rotated, the sum is Lambda:
    Lambda[o, i] = sum_n (Q_S.T @ G_n @ Q_A)[o, i]**2, with G_n = sum_t outer(s_nt, a_nt).

    Args:
        total_OI: The sum so far [O, I], float32 or wider; squares are taken in its number format.
        a_NTI: Rotated activations [N, T, I]; padding tokens have zero pseudo-gradients.
        s_NTO: Rotated pseudo-gradients [N, T, O] of the summed token loss, in nats.

    Raises:
        ShapeError: The document or token axes differ.

    Source: George et al. 2018, arXiv:1806.03884.
    """
    if a_NTI.shape[:2] != s_NTO.shape[:2]:
        raise ShapeError(
            expected="equal document and token axes", found=f"{tuple(a_NTI.shape)} and {tuple(s_NTO.shape)}"
        )
    if total_OI.device.type == "cpu":  # one gradient at a time stays in the processor's cache
        for a_TI, s_TO in zip(a_NTI, s_NTO, strict=True):
            G_OI = (s_TO.T @ a_TI).to(total_OI.dtype)
            total_OI.addcmul_(G_OI, G_OI)
        return
    size = max(1, FORMED_VALUES // total_OI.numel())
    for a_MTI, s_MTO in zip(a_NTI.split(size), s_NTO.split(size), strict=True):
        total_OI += (s_MTO.mT @ a_MTI).to(total_OI.dtype).square_().sum(0)


@dataclass(kw_only=True)
class EigenvalueObserver(Observer):
    """Accumulates Lambda of every layer; activations are rotated once for the layers that share them.

    Documents with a loss, activation or gradient that is not finite are left out of the sums and counts.

    Attributes:
        activation_bases: Q_A by source name, on the model's device.
        gradient_bases: Q_S by `TrackedLayer.factors`, as what follows.
        sums: Lambda [O, I], summed over documents, and over the experts that share it.
        documents: Documents in each sum, once for each such expert.
    """

    activation_bases: Mapping[str, Basis]
    gradient_bases: Mapping[str, Basis]
    sums: dict[str, Tensor] = field(default_factory=dict)
    documents: dict[str, Tensor] = field(default_factory=dict)
    _rotated: tuple[tuple[str, int], Tensor] | None = None
    _finite_N: Tensor = field(default_factory=lambda: torch.ones(0, dtype=torch.bool, device="cpu"))

    def begin(self) -> None:
        """Start a batch: forget the activations of the one before."""
        self._rotated = None

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        """Rotate activations [N, T, I - bias] into the eigenbasis; layers that share them are next to one another."""
        key = layer.reads, a_NTI.shape[1]
        if self._rotated is None or self._rotated[0] != key:
            Q_A = self.activation_bases[layer.source]
            self._rotated = key, Q_A.into(append_one(a_NTI, layer).to(Q_A.dtype))
        return self._rotated[1]

    def losses(self, losses_N: Tensor) -> None:
        """Leave out the documents whose loss [N] is not finite."""
        self._finite_N = torch.isfinite(losses_N)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        """Rotate pseudo-gradients [N, T, O] and add the squared document gradients."""
        finite_N = self._finite_N & _finite(kept) & _finite(g_NTO)
        Q_S = self.gradient_bases[layer.factors]
        a_NTR, s_NTP = kept_rows(kept, finite_N), Q_S.into(kept_rows(g_NTO, finite_N).to(Q_S.dtype))
        if layer.factors not in self.sums:
            wide = torch.promote_types(s_NTP.dtype, torch.float32)
            self.sums[layer.factors] = s_NTP.new_zeros(s_NTP.shape[2], a_NTR.shape[2], dtype=wide)
            self.documents[layer.factors] = torch.zeros_like(finite_N.sum())
        if s_NTP.shape[1]:
            add_squared_gradients(self.sums[layer.factors], a_NTR, s_NTP)
        self.documents[layer.factors] += finite_N.sum()

    def means(self) -> dict[str, Tensor]:
        """Turn the sums into Lambda [O, I], means over documents and experts that share it; they aren't held twice."""
        return {name: self.sums.pop(name).div_(self.documents[name].clamp(min=1)) for name in list(self.sums)}


def _finite(x_NTX: Tensor) -> Tensor:
    """Which documents [N] are finite throughout: a NaN or an infinity spoils its document's sum."""
    return torch.isfinite(x_NTX.sum((1, 2)))


def effective_dimension(Lambda: Tensor, damping: float) -> float:
    """Directions that the damping leaves standing: sum Lambda / (Lambda + damping)."""
    denominator = Lambda.double() + damping
    return float(torch.where(denominator > 0, Lambda.double() / denominator, 0.0).sum())
