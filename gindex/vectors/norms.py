"""Whitened norms: how large gradients are in units of what the factors were fitted on.

|V|^2 = sum (Q_S^T G Q_A)^2 / (Lambda + damping) over all layers, with whole eigenbases and without a projection.

Axes: N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gindex.curvature.ekfac import FactorLoader, rotated_gradients, whitening_scale
from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer

FORMED_VALUES = 1 << 27
"""Most values of the gradients of several documents in a layer that are formed at once: 512 MiB in float32."""


def whitened_norms(
    layers: Sequence[TrackedLayer],
    factors: FactorLoader,
    damping_scale: float,
    documents: int,
    losses: Callable[[], Tensor],
    texts: int = 1,
) -> Tensor:
    """Norm |V| of each document [N], float32; not finite where its loss or gradient isn't.

    Args:
        layers: Tracked layers.
        factors: Loads a layer's factors.
        damping_scale: Multiple of each layer's mean eigenvalue.
        documents: N.
        losses: Runs the model on the documents and returns their summed losses [N].
        texts: See `observe`.
    """
    observer = _NormObserver(factors, damping_scale, documents)
    observe(layers, observer, documents, losses, texts)
    return observer.squares.sqrt().cpu()


class _NormObserver(Observer):
    def __init__(self, factors: FactorLoader, damping_scale: float, documents: int) -> None:
        self.squares = torch.zeros(documents, dtype=torch.float32, device="cpu")
        self._factors, self._damping_scale = factors, damping_scale

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        factors = self._factors(layer.name)
        scale_PR = whitening_scale(factors.Lambda, factors.damping(self._damping_scale))
        size = max(1, FORMED_VALUES // scale_PR.numel())
        parts = zip(kept.split(size), g_NTO.split(size), strict=True)
        V_N = [(rotated_gradients(a, g, factors.Q_A, factors.Q_S) * scale_PR).square().sum((1, 2)) for a, g in parts]
        self.squares = self.squares.to(scale_PR.device) + torch.cat(V_N).to(self.squares.dtype)
