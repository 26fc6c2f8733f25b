"""Exhaustive search of the stored vectors: what every faster search is tested against.

Axes: Q queries, N parts, D dimension.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.store.vectors import VectorReader


def scan(reader: VectorReader, queries_QD: Tensor, k: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Score every stored vector and return the best.

    Args:
        reader: The stored vectors.
        queries_QD: Query vectors [Q, D], float32, never coded.
        k: How many to return; fewer where there are fewer parts.

    Returns:
        Part ordinals [Q, k], best first (ties by ordinal), and their scores [Q, k].
    """
    scores_QN = torch.cat([queries_QD @ reader.decoded(_ordinals(reader, n)).T for n in range(reader.spec.segments)], 1)
    order = scores_QN.argsort(dim=1, descending=True, stable=True)[:, :k]
    return order.numpy(), scores_QN.gather(1, order).numpy()


def _ordinals(reader: VectorReader, segment: int) -> npt.NDArray[np.int64]:
    return np.array(reader.spec.segment_range(segment), np.int64)
