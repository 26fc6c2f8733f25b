"""What tells one kind of curvature from another, and EK-FAC, the core's own.

Every kind has a basis for either side of a layer and eigenvalues in it, so all are used in the same way.
`fit_in_memory` is for factors that fit into memory all at once; a build keeps them on disk (`gindex.build.fit_phase`).

Axes: I layer inputs, O layer outputs, X either.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gindex.config import CURVATURES
from gindex.curvature.basis import Basis, BlockBasis, DenseBasis, UnitBasis
from gindex.curvature.covariance import TokenMoment
from gindex.curvature.eigenbasis import decomposed, eigenbasis, variances
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.experts import report_unreached, settled_sharing
from gindex.curvature.fit import Batch, fit_covariances, fit_eigenvalues
from gindex.model.layers import TrackedLayer
from gindex.model.losses import Task
from gindex.progress import Progress


@dataclass(frozen=True, kw_only=True)
class CurvatureKind:
    """Bases and eigenvalues of one kind of curvature. The covariances are fitted for every kind, in a first pass.

    Attributes:
        basis: Makes eigenvalues [X], largest first, and the basis as columns [X, X] of a covariance and its name; of a
            block-diagonal one block by block.
        assumed: Makes Lambda [O, I] of the eigenvalues of A [I] and of S [O], and of the mean number of tokens of a
            document. None has it measured: the second moments of document gradients in the basis, in a second pass.
        damped: Whether damping is a multiple of Lambda's mean. Without it there is none, as for raw gradients.
    """

    basis: Callable[[Tensor, str], tuple[Tensor, Tensor]] = eigenbasis
    assumed: Callable[[Tensor, Tensor, float], Tensor] | None = None
    damped: bool = True

    def decompose(self, moment: TokenMoment, name: str) -> tuple[Tensor, Basis]:
        """Eigenvalues [X] of a side's covariance, largest first, and its basis, float64.

        Args:
            moment: The sums that the covariance is made of.
            name: What it is of, for the error.

        Raises:
            NonFiniteError: See `eigenbasis`.
        """
        if moment.side.is_unit:
            values, coordinates = variances(moment.mean(), name)
            return values, UnitBasis(moment.side.width, coordinates, torch.float64)
        pairs = [self.basis(moment.mean(block), name) for block in range(len(moment.totals))]
        if len(pairs) == 1:
            return pairs[0][0], DenseBasis(pairs[0][1])
        values, order = torch.cat([values for values, _ in pairs]).sort(descending=True, stable=True)
        place_X = torch.empty_like(order)
        place_X[order] = torch.arange(len(order), device=order.device)
        places = [place_X[block] for block in moment.side.blocks]
        return values, BlockBasis(moment.side, [vectors for _, vectors in pairs], places, len(order))

    def mean_eigenvalues(self, layers: Sequence[TrackedLayer], Lambda: Mapping[str, Tensor]) -> dict[str, float]:
        """Means of Lambda by layer name, which damping is a multiple of; 0 for a kind that is not damped.

        The experts of a fused weight have one mean, as the layer that they are together: where an expert gets no token
        of the fit, its curvature is the damping, neither zero nor infinite.

        Args:
            layers: Tracked layers.
            Lambda: Corrected eigenvalues [O, I] by `TrackedLayer.factors`.
        """
        of = {name: float(values.double().mean()) if self.damped else 0.0 for name, values in Lambda.items()}
        means: dict[str, list[float]] = {}
        for layer in layers:
            means.setdefault(layer.whole, []).append(of[layer.factors])
        return {layer.name: sum(means[layer.whole]) / len(means[layer.whole]) for layer in layers}


EKFAC = CurvatureKind()
"""Eigenvectors of the covariances, and the second moments of document gradients in them."""


def curvature_kind(name: str) -> CurvatureKind:
    """The kind that is registered by a name.

    Raises:
        ConfigError: There is none.
    """
    kind: CurvatureKind = CURVATURES.get(name)
    return kind


def fit_in_memory(
    layers: Sequence[TrackedLayer],
    task: Task[Batch],
    batches: Sequence[Batch],
    kind: CurvatureKind,
    seed: int,
    progress: Progress,
) -> dict[str, LayerFactors]:
    """Fit the factors of all layers.

    Args:
        layers: Tracked layers.
        task: The model with its loss.
        batches: The documents to fit on.
        kind: The kind of curvature.
        seed: Seed of the sampled labels.
        progress: Where the phases are reported.

    Returns:
        Untruncated factors by layer name, in the model's number format or float32 if that is narrower.

    Raises:
        NonFiniteError: No document has a finite loss, or a covariance cannot be decomposed.
    """
    dtype = torch.promote_types(next(layers[0].module.parameters()).dtype, torch.float32)
    documents = sum(len(batch.ordinals) for batch in batches)
    with progress.phase("fit covariances", documents, "documents") as phase:
        covariances = fit_covariances(layers, task, batches, seed, dtype, done=phase.advance)
    layers = settled_sharing(layers, covariances)
    values_A, Q_A = _decompose(covariances.activation_moments, "activation", kind, dtype)
    values_S, Q_S = _decompose(covariances.gradient_moments, "gradient", kind, dtype)
    if kind.assumed is None:
        with progress.phase("fit eigenvalues", documents, "documents") as phase:
            Lambda = fit_eigenvalues(layers, task, batches, (Q_A, Q_S), seed, done=phase.advance)
    else:
        sharing = Counter(layer.factors for layer in layers)
        Lambda = {
            layer.factors: kind.assumed(
                values_A[layer.source],
                values_S[layer.factors],
                int(covariances.gradient_moments[layer.factors].tokens) / (documents * sharing[layer.factors]),
            )
            for layer in layers
        }
    report_unreached(layers, {name for name, values_OI in Lambda.items() if not values_OI.any()})
    means = kind.mean_eigenvalues(layers, Lambda)
    return {
        layer.name: LayerFactors(
            Q_A=Q_A[layer.source],
            Q_S=Q_S[layer.factors],
            Lambda=Lambda[layer.factors],
            mean_eigenvalue=means[layer.name],
        )
        for layer in layers
    }


def _decompose(
    moments: dict[str, TokenMoment], side: str, kind: CurvatureKind, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Basis]]:
    """Eigenvalues and bases of one side by name."""
    values, bases = {}, {}

    def one(name: str) -> tuple[Tensor, Basis]:
        found, basis = kind.decompose(moments[name], f"{side} covariance of {name}")
        return found.to(dtype), basis.to(dtype=dtype)

    widest = max(moment.side.widest for moment in moments.values())
    device = next(iter(moments.values())).totals[0].device
    for name, (of, basis) in zip(moments, decomposed(one, moments, widest, device), strict=True):
        values[name], bases[name] = of, basis
    return values, bases
