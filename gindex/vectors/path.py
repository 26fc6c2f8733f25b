"""The path from a pass over the model to vectors: whiten, truncate, project. Documents and queries share it.

Axes: N documents, T tokens, I layer inputs, O layer outputs, R and P kept eigenvectors of either side, D dimension.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.curvature.ekfac import LayerFactors, rotates_tokens, whitening_scale
from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.vectors.projection import Projection

FORMED_VALUES = 1 << 27
"""Most values of the gradients of several documents in a layer that are formed at once: 512 MiB in float32."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VectorBatch:
    """Vectors of one batch.

    Attributes:
        vectors: [N, D], float32.
        self_influence: [N], the squared norm of each whitened gradient before projection, float32.
        losses: [N], summed loss in nats.
    """

    vectors: Tensor
    self_influence: Tensor
    losses: Tensor

    @property
    def finite(self) -> Tensor:
        """Which documents [N] have a finite loss, norm and vector."""
        norms_N = self.vectors.square().sum(1)
        return torch.isfinite(self.losses) & torch.isfinite(self.self_influence) & torch.isfinite(norms_N)


class VectorPath:
    """Turns passes over the model into vectors, with fixed factors, damping and projection."""

    def __init__(
        self,
        layers: Sequence[TrackedLayer],
        factors: Mapping[str, LayerFactors],
        damping_scale: float,
        projection: Projection,
    ) -> None:
        """Prepare the whitening.

        Args:
            layers: Tracked layers.
            factors: Factors by layer name, truncated to the ranks of the projection, on the model's device.
            damping_scale: Multiple of each layer's mean eigenvalue.
            projection: The projection.
        """
        self.layers = layers
        self.projection = projection
        self._factors = factors
        self._scales = _scales(factors, damping_scale)

    def through(self, layers: Sequence[TrackedLayer]) -> "VectorPath":
        """The same path from the passes of other modules, which have the same weights."""
        path = copy(self)
        path.layers = layers
        return path

    def encode(self, documents: int, losses: Callable[[], Tensor], texts: int = 1) -> VectorBatch:
        """Run one pass over N documents and return their vectors.

        Args:
            documents: N.
            losses: Runs the model and returns the summed loss [N] of each document.
            texts: See `observe`.
        """
        observer = _VectorObserver(self._factors, self._scales, self.projection, documents)
        losses_N = observe(self.layers, observer, documents, losses, texts)
        return VectorBatch(vectors=observer.vectors, self_influence=observer.self_influence, losses=losses_N)


def _scales(factors: Mapping[str, LayerFactors], damping_scale: float) -> dict[str, Tensor]:
    """Whitening scales by layer name; those of experts with the same factors are held once."""
    scales: dict[tuple[int, float], Tensor] = {}
    found = {}
    for name, of in factors.items():
        key = id(of.Lambda), of.mean_eigenvalue
        if key not in scales:
            scales[key] = whitening_scale(of.Lambda, of.damping(damping_scale))
        found[name] = scales[key]
    return found


class _VectorObserver(Observer):
    """Rotates activations while they are in hand, so only their leading part is kept until the backward pass.

    Where a layer's documents are so long that rotating their gradients is cheaper, activations are kept as they are.
    """

    def __init__(
        self, factors: Mapping[str, LayerFactors], scales: Mapping[str, Tensor], projection: Projection, documents: int
    ) -> None:
        device = next(iter(scales.values())).device
        self.vectors = torch.zeros(documents, projection.spec.dimension, dtype=torch.float32, device=device)
        self.self_influence = torch.zeros(documents, dtype=torch.float32, device=device)
        self._factors, self._scales, self._projection = factors, scales, projection
        self._kept: tuple[tuple[str, bool, int], Tensor] | None = None  # of the last layer: those that share are next

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        factors = self._factors[layer.name]
        key = layer.reads, rotates_tokens(a_NTI.shape[1], factors.Q_A, factors.Q_S), a_NTI.shape[1]
        if self._kept is None or self._kept[0] != key:
            a = append_one(a_NTI, layer).to(factors.Q_A.dtype)
            self._kept = key, factors.Q_A.into(a) if key[1] else a
        return self._kept[1]

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        if not g_NTO.shape[1]:  # an expert without a token adds nothing
            return
        Q_A, Q_S = self._factors[layer.name].Q_A, self._factors[layer.name].Q_S
        rotates = rotates_tokens(g_NTO.shape[1], Q_A, Q_S)
        step = max(1, FORMED_VALUES // (Q_A.rank * Q_S.rank))
        for start in range(0, len(g_NTO), step):
            some = slice(start, start + step)
            g, a = g_NTO[some].to(Q_S.dtype), kept[some]
            V_NPR = Q_S.into(g).mT @ a if rotates else Q_A.into(Q_S.rows_into(g.mT @ a))
            V_NPR = V_NPR * self._scales[layer.name]
            self.self_influence[some] += V_NPR.flatten(1).square().sum(1)
            self._projection.add(self.vectors[some], layer.name, V_NPR)
