"""Kinds of curvature, and their fit where all factors fit into memory.

All kinds have the same form, a basis for either side of a layer and eigenvalues in it, and are used in the same way:

    kind      basis                                 eigenvalues
    ekfac     eigenvectors of the covariances       second moments of document gradients, a second pass
    kfac      the same                              products of the covariances' eigenvalues
    diagonal  own coordinates, by their variance    second moments of document gradients, a second pass
    identity  eigenvectors of the covariances       1, and no damping: raw gradients, truncated by leading directions

Axes: I layer inputs, O layer outputs, X either.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from gindex.curvature.covariance import CovarianceObserver
from gindex.curvature.eigenbasis import coordinate_basis, decomposed, eigenbasis
from gindex.curvature.eigenvalues import kronecker_eigenvalues
from gindex.curvature.ekfac import LayerFactors
from gindex.curvature.fit import Batch, fit_covariances, fit_eigenvalues
from gindex.model.layers import TrackedLayer
from gindex.model.losses import Task
from gindex.progress import Progress


def decomposition(kind: str) -> Callable[[Tensor, str], tuple[Tensor, Tensor]]:
    """Return what makes eigenvalues [X] and basis [X, X] of a covariance and its name."""
    return coordinate_basis if kind == "diagonal" else eigenbasis


def mean_eigenvalue(Lambda: Tensor, kind: str) -> float:
    """Return the mean of Lambda [O, I], which damping is a multiple of: 0 where there is no curvature."""
    return 0.0 if kind == "identity" else float(Lambda.double().mean())


def fit_in_memory(
    layers: Sequence[TrackedLayer],
    task: Task[Batch],
    batches: Sequence[Batch],
    kind: str,
    seed: int,
    progress: Progress,
) -> dict[str, LayerFactors]:
    """Fit the factors of all layers.

    Args:
        layers: Tracked layers.
        task: The model with its loss.
        batches: The documents to fit on.
        kind: One of `CURVATURES`.
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
    values_A, Q_A = _decompose(covariances, "activation", kind, dtype)
    values_S, Q_S = _decompose(covariances, "gradient", kind, dtype)
    if kind == "identity":
        Lambda = {layer.name: Q_S[layer.name].new_ones(layer.outputs, layer.inputs) for layer in layers}
    elif kind == "kfac":
        Lambda = {
            layer.name: kronecker_eigenvalues(
                values_A[layer.source],
                values_S[layer.name],
                int(covariances.gradient_moments[layer.name].tokens) / documents,
            )
            for layer in layers
        }
    else:
        with progress.phase("fit eigenvalues", documents, "documents") as phase:
            Lambda = fit_eigenvalues(layers, task, batches, (Q_A, Q_S), seed, done=phase.advance)
    return {
        layer.name: LayerFactors(
            Q_A=Q_A[layer.source],
            Q_S=Q_S[layer.name],
            Lambda=Lambda[layer.name],
            mean_eigenvalue=mean_eigenvalue(Lambda[layer.name], kind),
        )
        for layer in layers
    }


def _decompose(
    covariances: CovarianceObserver, side: str, kind: str, dtype: torch.dtype
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return eigenvalues and bases of one side by name."""
    moments = covariances.activation_moments if side == "activation" else covariances.gradient_moments
    decompose = decomposition(kind)
    values, vectors = {}, {}

    def one(name: str) -> list[Tensor]:
        return [part.to(dtype) for part in decompose(moments[name].mean(), f"{side} covariance of {name}")]

    sums = [moment.total_XX for moment in moments.values()]
    found = decomposed(one, moments, max(map(len, sums)), sums[0].device)
    for name, parts in zip(moments, found, strict=True):
        values[name], vectors[name] = parts
    return values, vectors
