"""Exact, unprojected EK-FAC influence.

The query's gradient is preconditioned once, X_q = H^-1 G_q, in each layer's own coordinates. The influence of a
document is then <X_q, G_d> = sum_t g_t^T X_q a_t summed over layers, without any rotation. A document that few queries
want takes the second form; one that many want forms its gradient once, some outputs of a layer at a time, which stay in
a processor's caches until all queries have read them.

Axes: L layers, Q queries, N documents, T tokens, I layer inputs, O layer outputs, B some of the outputs.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from gindex.curvature.ekfac import FactorLoader, rotated_gradients
from gindex.model.capture import append_one, observe
from gindex.model.layers import TrackedLayer
from gindex.model.observer import Observer
from gindex.vectors.held_gradients import HeldGradients, Hold, join, whole
from gindex.vectors.product_format import product_format

FORMED_VALUES = 1 << 24
"""Most values of gradients that are formed at once on an accelerator: 64 MiB in float32."""

CACHED_BYTES = 4 << 20
"""The same on a CPU, in bytes. Larger ones are written to memory and read again, which takes twice the time."""

LEAST_OUTPUTS = 16
"""Outputs of a layer that are formed at once in any case: products of fewer rows are slow."""


class WeightSpace:
    """The tracked weights as one axis: layers in forward order, each [O, I] by rows."""

    def __init__(self, layers: Sequence[TrackedLayer]) -> None:
        """Lay the layers out one behind the other."""
        self._layers = layers
        self.size = sum(layer.parameters for layer in layers)

    def split(self, v_QW: Tensor) -> dict[str, Tensor]:
        """Views [Q, O, I] of vectors [Q, W] by layer name."""
        parts = v_QW.split([layer.parameters for layer in self._layers], 1)
        return {
            layer.name: part.unflatten(1, (layer.outputs, layer.inputs))
            for layer, part in zip(self._layers, parts, strict=True)
        }

    def join(self, parts: Mapping[str, Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Vectors [Q, W] of their parts [Q, O, I] by layer name."""
        return torch.cat([parts[layer.name].flatten(1).to(dtype) for layer in self._layers], 1)


def precondition_queries(
    layers: Sequence[TrackedLayer],
    factors: FactorLoader,
    damping_scale: float,
    queries: int,
    losses: Callable[[], Tensor],
    texts: int = 1,
    owners: Tensor | None = None,
    hold: Hold = whole,
) -> dict[str, HeldGradients]:
    """Apply the inverse curvature to the gradients of queries.

    Args:
        layers: Tracked layers.
        factors: Loads a layer's factors.
        damping_scale: Multiple of each layer's mean eigenvalue.
        queries: Q.
        losses: Runs the model on the queries and returns their summed losses [Q]; with owners, on R texts [R].
        texts: See `observe`.
        owners: The query that each text belongs to [R], where the gradient of a query is a sum over texts.
        hold: Makes the result of a layer what is held of it.

    Returns:
        H^-1 G [Q, O, I] by layer name, in the factors' number format.
    """
    observer = _PreconditionObserver(factors, damping_scale, queries, owners, hold)
    observe(layers, observer, queries if owners is None else len(owners), losses, texts)
    return observer.preconditioned


def exact_influence(
    layers: Sequence[TrackedLayer],
    preconditioned: Mapping[str, HeldGradients],
    wanted_QN: Tensor,
    losses: Callable[[], Tensor],
    texts: int = 1,
) -> Tensor:
    """The influence [Q, N] of a batch of documents on preconditioned queries, 0 where it isn't wanted.

    Positive means that training on the document raises the query's log-likelihood. Not divided by the number of
    documents.

    Args:
        layers: Tracked layers.
        preconditioned: H^-1 G [Q, O, I] by layer name.
        wanted_QN: Which influence to compute, bool [Q, N]; a document costs for the queries that want it.
        losses: Runs the model on the documents and returns their summed losses [N].
        texts: See `observe`.
    """
    observer = _InfluenceObserver(preconditioned, wanted_QN)
    observe(layers, observer, wanted_QN.shape[1], losses, texts)
    return observer.influence


def layer_influence(
    layers: Sequence[TrackedLayer],
    preconditioned: Mapping[str, HeldGradients],
    wanted_QN: Tensor,
    losses: Callable[[], Tensor],
    texts: int = 1,
) -> Tensor:
    """The same as `exact_influence` with each layer apart, [L, Q, N] in the order of the layers."""
    observer = _LayerObserver(preconditioned, wanted_QN)
    observe(layers, observer, wanted_QN.shape[1], losses, texts)
    return torch.stack([observer.by_layer[layer.name] for layer in layers])


def document_gradients(
    layers: Sequence[TrackedLayer], documents: int, losses: Callable[[], Tensor], texts: int = 1
) -> tuple[Tensor, WeightSpace]:
    """The gradients [N, W] of documents or queries, float32 or wider, and the weights as one axis.

    Args:
        layers: Tracked layers.
        documents: N.
        losses: Runs the model and returns the summed losses [N].
        texts: See `observe`.
    """
    space, parameter = WeightSpace(layers), next(layers[0].module.parameters())
    dtype = torch.promote_types(parameter.dtype, torch.float32)
    gradients_NW = torch.zeros(documents, space.size, dtype=dtype, device=parameter.device)
    observe(layers, _GradientObserver(space.split(gradients_NW)), documents, losses, texts)
    return gradients_NW, space


class _GradientObserver(Observer):
    def __init__(self, gradients: dict[str, Tensor]) -> None:
        self._gradients = gradients

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        self._gradients[layer.name].copy_(g_NTO.mT @ kept.to(g_NTO.dtype))


class _PreconditionObserver(Observer):
    def __init__(
        self, factors: FactorLoader, damping_scale: float, queries: int, owners: Tensor | None, hold: Hold
    ) -> None:
        self.preconditioned: dict[str, HeldGradients] = {}
        self._hold = hold
        self._factors, self._damping_scale, self._queries = factors, damping_scale, queries
        self._owners_R = torch.arange(queries, device=torch.device("cpu")) if owners is None else owners

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        factors = self._factors(layer.name)
        values = layer.outputs * layer.inputs
        products = factors.to(product_format(factors.Q_A.dtype, factors.Q_A.device, values))
        held, size = [], max(1, _most_values(factors.Q_A.device, factors.Q_A.dtype) // values)
        for start in range(0, self._queries, size):
            stop = min(start + size, self._queries)
            texts_R = torch.nonzero((self._owners_R >= start) & (self._owners_R < stop))[:, 0].to(g_NTO.device)
            G_RPR = rotated_gradients(kept[texts_R], g_NTO[texts_R], factors.Q_A, factors.Q_S)
            G_QPR = G_RPR.new_zeros(stop - start, *G_RPR.shape[1:])
            G_QPR.index_add_(0, self._owners_R.to(g_NTO.device)[texts_R] - start, G_RPR)
            held.append(self._hold(products.precondition(G_QPR, self._damping_scale).to(factors.Q_A.dtype)))
        self.preconditioned[layer.name] = join(held)


class _InfluenceObserver(Observer):
    def __init__(self, preconditioned: Mapping[str, HeldGradients], wanted_QN: Tensor) -> None:
        first = next(iter(preconditioned.values()))
        dtype = torch.promote_types(first.dtype, torch.float32)
        self.influence = torch.zeros(wanted_QN.shape, dtype=dtype, device=first.device)
        self._preconditioned = preconditioned
        self._wanted = wanted_QN.to(first.device)
        self._wanted_by = [torch.nonzero(wanted_N)[:, 0] for wanted_N in self._wanted]
        self._pairs = int(wanted_QN.sum())

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        X = self._preconditioned[layer.name]
        g, a = g_NTO.to(X.dtype), kept.to(X.dtype)
        documents, tokens = g.shape[:2]
        if self._pairs * tokens <= documents * tokens + self._pairs:
            for query, wanted in enumerate(self._wanted_by):
                if len(wanted):
                    terms_NTI = (g[wanted] @ X[query]) * a[wanted]
                    self.influence[query, wanted] += terms_NTI.sum((1, 2), dtype=self.influence.dtype)
        else:
            self.influence += torch.where(self._wanted, self._by_formed_gradients(X, g, a), 0.0)

    def _by_formed_gradients(self, X: HeldGradients, g_NTO: Tensor, a_NTI: Tensor) -> Tensor:
        """The influence [Q, N] of all documents on all queries."""
        most = _most_values(X.device, X.dtype)
        size = max(LEAST_OUTPUTS, most // max(1, len(a_NTI) * a_NTI.shape[2]))
        influence_QN = torch.zeros_like(self.influence)
        g_NOT = g_NTO.mT.contiguous()
        for start in range(0, g_NOT.shape[1], size):
            G_NBI = g_NOT[:, start : start + size] @ a_NTI
            X_QBI = X[:, start : start + size]
            influence_QN += X_QBI.flatten(1) @ G_NBI.flatten(1).T
        return influence_QN


def _most_values(device: torch.device, dtype: torch.dtype) -> int:
    """Most values of gradients that are formed at once."""
    return CACHED_BYTES // dtype.itemsize if device.type == "cpu" else FORMED_VALUES


class _LayerObserver(_InfluenceObserver):
    def __init__(self, preconditioned: Mapping[str, HeldGradients], wanted_QN: Tensor) -> None:
        super().__init__(preconditioned, wanted_QN)
        self.by_layer: dict[str, Tensor] = {}

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        self.influence = torch.zeros_like(self.influence)
        super().gradients(layer, kept, g_NTO)
        self.by_layer[layer.name] = self.influence
