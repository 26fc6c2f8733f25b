"""Exact, unprojected EK-FAC influence.

The query's gradient is preconditioned once, H^-1 G_q, in each layer's own coordinates. The influence of a document is
then sum_t g_t^T (H^-1 G_q) a_t summed over layers: no rotation, and the document's gradient is never formed.

Axes: Q queries, N documents, T tokens, I layer inputs, O layer outputs.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from gindex.curvature.ekfac import LayerFactors
from gindex.model.capture import Observer, append_one, observe
from gindex.model.layers import TrackedLayer

FactorLoader = Callable[[str], LayerFactors]
"""Gives the untruncated factors of a layer by name; called once a layer, so that only one is held at a time."""


def precondition_queries(
    layers: Sequence[TrackedLayer],
    factors: FactorLoader,
    damping_scale: float,
    queries: int,
    losses: Callable[[], Tensor],
) -> dict[str, Tensor]:
    """Apply the inverse curvature to the gradients of queries.

    Args:
        layers: Tracked layers.
        factors: Loads a layer's factors.
        damping_scale: Multiple of each layer's mean eigenvalue.
        queries: Q.
        losses: Runs the model on the queries and returns their summed losses [Q].

    Returns:
        H^-1 G [Q, O, I] by layer name, float32.
    """
    observer = _PreconditionObserver(factors, damping_scale)
    observe(layers, observer, queries, losses)
    return observer.preconditioned


def exact_influence(
    layers: Sequence[TrackedLayer],
    preconditioned: dict[str, Tensor],
    documents: int,
    losses: Callable[[], Tensor],
) -> Tensor:
    """Return the influence [Q, N] of a batch of documents on preconditioned queries.

    Positive means that training on the document raises the query's log-likelihood. Not divided by the number of
    documents.

    Args:
        layers: Tracked layers.
        preconditioned: H^-1 G [Q, O, I] by layer name.
        documents: N.
        losses: Runs the model on the documents and returns their summed losses [N].
    """
    observer = _InfluenceObserver(preconditioned, documents)
    observe(layers, observer, documents, losses)
    return observer.influence


class _PreconditionObserver(Observer):
    def __init__(self, factors: FactorLoader, damping_scale: float) -> None:
        self.preconditioned: dict[str, Tensor] = {}
        self._factors, self._damping_scale = factors, damping_scale

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        factors = self._factors(layer.name)
        G_QOI = g_NTO.to(factors.Q_S.dtype).mT @ kept.to(factors.Q_A.dtype)
        self.preconditioned[layer.name] = factors.precondition(G_QOI, self._damping_scale)


class _InfluenceObserver(Observer):
    def __init__(self, preconditioned: dict[str, Tensor], documents: int) -> None:
        first = next(iter(preconditioned.values()))
        self.influence = first.new_zeros(len(first), documents)
        self._preconditioned = preconditioned

    def activations(self, layer: TrackedLayer, a_NTI: Tensor) -> Tensor:
        return append_one(a_NTI, layer)

    def gradients(self, layer: TrackedLayer, kept: Tensor, g_NTO: Tensor) -> None:
        g = g_NTO.to(self.influence.dtype)
        a = kept.to(self.influence.dtype)
        for query, X_OI in enumerate(self._preconditioned[layer.name]):
            self.influence[query] += ((g @ X_OI) * a).sum((1, 2))
