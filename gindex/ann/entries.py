"""Entries of the FAISS index: the shorter, scaled form in which it holds vectors and is asked queries.

Axes: N parts, D dimension, F dimension of an entry.
"""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.ann.spec import FaissSpec
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform
from gindex.vectors.codes import decode
from gindex.vectors.projection import ProjectionSpec, fold


def stored_entries(
    reader: VectorReader,
    ordinals: npt.NDArray[np.int64],
    spec: FaissSpec,
    projection: ProjectionSpec,
    transform: Transform | None = None,
) -> npt.NDArray[np.float32]:
    """Entries [N, F] of stored vectors, transformed where there is a transform.

    Of vectors that are cut off, only what is left of them is decoded.
    """
    if transform is not None:
        return entries(transform.vectors(reader.decoded(ordinals)), spec, projection)
    if spec.kind not in ("rabitq", "ivf") or not spec.folds:
        return entries(reader.decoded(ordinals), spec, projection)
    codes, scales_NS = reader.coded(ordinals)
    bits, pieces = reader.spec.bits, []
    for position, (start, stop) in enumerate(reader.spec.slices):
        width = (stop - start) >> spec.folds
        whole = -(-width // 8) * 8  # codes end on a byte
        unit = 8 if bits == 16 else bits  # at 16 bits an element of the codes is a coordinate
        piece = codes[:, start * unit // 8 : (start + whole) * unit // 8]
        pieces.append(decode(piece, scales_NS[:, position : position + 1], bits, [(0, whole)])[:, :width])
    return torch.cat(pieces, dim=1).numpy()


def entries(vectors_ND: Tensor, spec: FaissSpec, projection: ProjectionSpec) -> npt.NDArray[np.float32]:
    """Entries [N, F] of vectors; queries [N, D] are asked in the same form."""
    if not spec.folds:
        halved = vectors_ND
    elif spec.kind in ("rabitq", "ivf"):
        leading = [(start, start + ((stop - start) >> spec.folds)) for start, stop in projection.slices.values()]
        halved = torch.cat([vectors_ND[:, start:stop] for start, stop in leading], dim=1)
    else:
        halved = fold(vectors_ND, projection, spec.folds)
    scaled = halved if spec.scale == 1.0 else halved * spec.scale
    return np.ascontiguousarray(scaled.to(torch.float32).cpu().numpy())
