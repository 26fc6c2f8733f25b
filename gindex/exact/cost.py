"""What an exact re-rank costs, before it starts: its operations, at the speed that this machine multiplies with.

Operations are those of products, two for each multiplication, which is nearly all that a pass consists of. The speed is
that of a product of middling size, timed on the spot.
"""

import time
from dataclasses import dataclass
from functools import cache

import torch

from gindex.model.layers import TrackedLayer
from gindex.model.tracked_model import TrackedModel
from gindex.vectors.product_format import product_format

SIDE = 512
"""Rows and columns of the matrices that are multiplied to see how fast that is."""

OVERHEAD = 1.5
"""What passes take beside the products counted here, as a factor: attention, padding, memory."""


@dataclass(frozen=True, kw_only=True)
class RerankCost:
    """Operations of a re-rank.

    Attributes:
        passes: Of passes over documents and queries, in the model's number format.
        products: Of products with the queries' gradients, in the format of `product_format`.
    """

    passes: float
    products: float

    @property
    def total(self) -> float:
        """All operations."""
        return self.passes + self.products

    def __add__(self, other: "RerankCost") -> "RerankCost":
        return RerankCost(passes=self.passes + other.passes, products=self.products + other.products)


def curvature_cost(model: TrackedModel, queries: int, tokens: int) -> RerankCost:
    """Operations of preconditioning queries.

    Args:
        model: The model.
        queries: Q.
        tokens: Of all queries.
    """
    turns = sum(_turns(layer) for layer in model.table.layers)
    return RerankCost(passes=_passes(model, tokens), products=2.0 * queries * turns)


def influence_cost(model: TrackedModel, queries: int, documents: int, tokens: int) -> RerankCost:
    """Operations of the influence of documents on queries that are held together.

    Args:
        model: The model.
        queries: Q.
        documents: N.
        tokens: Of all documents.
    """
    tracked = sum(layer.parameters for layer in model.table.layers)
    pairs = queries * documents if queries > 1 else 0
    return RerankCost(passes=_passes(model, tokens), products=2.0 * tracked * (tokens + pairs))


def expected_seconds(model: TrackedModel, cost: RerankCost) -> float:
    """Seconds that so many operations will take on the model's device.

    Args:
        model: The model.
        cost: The operations.
    """
    dtype, device = model.dtype, model.device
    products = product_format(dtype, device, SIDE * SIDE)
    return OVERHEAD * (cost.passes / speed(dtype, device) + cost.products / speed(products, device))


@cache
def speed(dtype: torch.dtype, device: torch.device) -> float:
    """Operations a second of products of matrices: the best of three.

    Args:
        dtype: Their number format.
        device: Where they are.
    """
    matrix = torch.ones(SIDE, SIDE, dtype=dtype, device=device)
    return 2.0 * SIDE**3 / min(_seconds(matrix) for _ in range(4))


def _seconds(matrix: torch.Tensor) -> float:
    start = time.perf_counter()
    (matrix @ matrix)[0, 0].item()  # waits for the device
    return time.perf_counter() - start


def _passes(model: TrackedModel, tokens: int) -> float:
    """A weight costs a multiplication a token forward, and one backward."""
    weights = sum(weight.numel() for weight in model.loaded.model.parameters())
    return 4.0 * tokens * weights


def _turns(layer: TrackedLayer) -> float:
    """Multiplications that turn a preconditioned gradient back into a layer's coordinates."""
    return layer.input_side.numbers * layer.outputs + layer.output_side.numbers * layer.inputs
