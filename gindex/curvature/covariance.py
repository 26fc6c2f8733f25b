"""Covariances of activations and pseudo-gradients, the first pass of EK-FAC.

A = E[a a^T] and S = E[s s^T] over the real tokens of the documents. Layers that read the same activations share A.

Axes: N documents, T tokens, M real tokens, I layer inputs, O layer outputs.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from gindex.model.capture import append_one
from gindex.model.layers import TrackedLayer


def add_second_moment(moment_XX: Tensor, x_MX: Tensor) -> None:
    """Add x^T x to a second moment [X, X] in place, in the moment's number format (float32 or wider)."""
    x = x_MX.to(moment_XX.dtype)
    moment_XX.addmm_(x.T, x)


@dataclass(kw_only=True)
class CovarianceObserver:
    """Accumulates A per source and S per layer; give it to `observe` with the batch's mask set.

    Sums are kept; `means` divides. Tokens that are not finite are left out of them.
    """

    dtype: torch.dtype = torch.float32
    activation_sums: dict[str, Tensor] = field(default_factory=dict)
    gradient_sums: dict[str, Tensor] = field(default_factory=dict)
    tokens: int = 0
    _mask_NT: Tensor = field(default_factory=lambda: torch.ones(0, 0, dtype=torch.bool))

    def begin(self, mask_NT: Tensor) -> None:
        """Start a batch whose real tokens are `mask_NT` [N, T]."""
        self._mask_NT = mask_NT
        self.tokens += int(mask_NT.sum())

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> None:
        """Add a batch's activations [N, T, I - bias] to A, once for all layers that read them."""
        if layer.name == layer.source:
            self._add(self.activation_sums, layer.source, append_one(a_NTI[self._mask_NT], layer))

    def gradients(self, layer: TrackedLayer, kept: None, g_NTO: Tensor) -> None:
        """Add a batch's pseudo-gradients [N, T, O] to S."""
        self._add(self.gradient_sums, layer.name, g_NTO[self._mask_NT])

    def means(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the sums divided by the number of tokens."""
        return {name: moment / max(1, self.tokens) for name, moment in sums.items()}

    def _add(self, sums: dict[str, Tensor], name: str, x_MX: Tensor) -> None:
        x_MX = x_MX[torch.isfinite(x_MX).all(1)]
        if name not in sums:
            sums[name] = torch.zeros(x_MX.shape[1], x_MX.shape[1], dtype=self.dtype, device=x_MX.device)
        add_second_moment(sums[name], x_MX)
