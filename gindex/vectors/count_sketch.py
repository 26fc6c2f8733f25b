"""Random projection by a count sketch: the default.

Every coordinate of a layer's whitened gradient gets one bucket and one sign. Buckets are dealt out evenly (balanced):
the coordinates are put into a random order and dealt round robin, each layer of a group going on where the one before
stopped. So all buckets of a slice hold equally many, and a group with no more coordinates than buckets loses nothing.

Axes: N documents, P and R rows and columns of a layer's whitened gradient, W slice width, D dimension.

Source: count sketch, Charikar et al. 2002; one nonzero a column.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.vectors.projection import Projection, ProjectionSpec, hash64


def deal(spec: ProjectionSpec, position: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int8]]:
    """Deal the coordinates of one layer to the buckets of its slice.

    Args:
        spec: The projection.
        position: Which of `spec.layers`.

    Returns:
        Coordinates [K, W] in the order dealt, column w holding those of bucket w, and their signs [K, W]; the first and
        the last row are filled up with coordinate 0 and sign 0.
    """
    layer = spec.layers[position]
    start, stop = spec.slices[layer.group]
    coordinates, width = layer.rows * layer.columns, stop - start
    hashes = spec.hashes(position, coordinates)
    first = spec.before[position] % width
    dealt = slice(first, first + coordinates)
    rows = -(-dealt.stop // width)
    order = np.zeros(rows * width, np.int32)
    signs = np.zeros(rows * width, np.int8)
    order[dealt] = np.argsort(hashes, kind="stable")
    # The order uses the high bits of the hash, so the sign takes a fresh one.
    fresh = hash64(hashes[order[dealt]])
    signs[dealt] = 1 - 2 * (fresh & np.uint64(1)).astype(np.int8)
    return order.reshape(rows, width), signs.reshape(rows, width)


class CountSketch(Projection):
    """A count sketch ready to run on one device."""

    def __init__(self, spec: ProjectionSpec, device: torch.device) -> None:
        """Deal every layer's coordinates and move them to the device: 5 bytes a coordinate."""
        self.spec = spec
        self._dealt: dict[str, tuple[Tensor, Tensor, slice]] = {}
        for position, layer in enumerate(spec.layers):
            order, signs = deal(spec, position)
            self._dealt[layer.name] = (
                torch.from_numpy(order.ravel()).to(device),
                torch.from_numpy(signs).to(device),
                slice(*spec.slices[layer.group]),
            )

    def add(self, out_ND: Tensor, name: str, V_NPR: Tensor) -> None:
        """Add the sketch of one layer's whitened gradients [N, P, R] into vectors [N, D], in place."""
        order, signs_KW, where = self._dealt[name]
        dealt_NKW = V_NPR.flatten(1).index_select(1, order).view(-1, *signs_KW.shape)
        # As one product, by `einsum`, this takes several times as long.
        out_ND[:, where] += dealt_NKW.mul_(signs_KW).sum(1)
