"""Vectors of gradients that a caller has computed itself.

Axes: N documents or queries, O layer outputs, I layer inputs, D dimension.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from gindex.curvature.ekfac import LayerFactors
from gindex.errors import ShapeError
from gindex.vectors.projection import Projection


def encode_gradients(
    gradients: Mapping[str, Tensor], factors: Mapping[str, LayerFactors], damping_scale: float, projection: Projection
) -> Tensor:
    """Whiten, truncate and project gradients, as `VectorPath` does with those of a pass.

    Args:
        gradients: G [N, O, I] of the summed loss by layer name, the bias as its last column.
        factors: Factors by layer name, truncated to the ranks of the projection.
        damping_scale: Multiple of each layer's mean eigenvalue.
        projection: The projection.

    Returns:
        Vectors [N, D], float32.

    Raises:
        ShapeError: A layer is missing or unknown, or has another shape.
    """
    if set(gradients) != set(factors):
        raise ShapeError(
            field="gradients",
            expected=f"those of the {len(factors)} tracked layers",
            found=f"{len(gradients)} layers",
            remedy=f"missing or unknown: {', '.join(sorted(set(gradients) ^ set(factors))[:5])}",
        )
    count = len(next(iter(gradients.values())))
    device = next(iter(factors.values())).Q_A.device
    vectors_ND = torch.zeros(count, projection.spec.dimension, dtype=torch.float32, device=device)
    for name, layer in factors.items():
        G_NOI, expected = gradients[name], (count, layer.Q_S.size, layer.Q_A.size)
        if tuple(G_NOI.shape) != expected:
            raise ShapeError(field=f"gradients of {name}", expected=f"shape {expected}", found=tuple(G_NOI.shape))
        projection.add(vectors_ND, name, layer.whiten(G_NOI.to(vectors_ND.device), damping_scale))
    return vectors_ND
