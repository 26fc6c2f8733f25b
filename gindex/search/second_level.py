"""The second level of curvature of an index, from its stored vectors: always to be had again, without the model.

FAISS holds R v and is asked R q; the stored vectors stay v, so they are scored with R^2 q, which is the same.

Axes: N parts, D dimension.
"""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.curvature.second_level import fit_second_level, suited_passes
from gindex.progress import Progress
from gindex.store.reader import VectorReader
from gindex.store.second_level import StoredLevel

BLOCK = 1024
"""Vectors that are decoded at once."""


def fit_stored(reader: VectorReader, excluded: npt.NDArray[np.int64], mu: float, progress: Progress) -> StoredLevel:
    """Fit the second level on the stored vectors, as they decode, of all parts but those excluded.

    Args:
        reader: The stored vectors.
        excluded: Parts that no search returns.
        mu: Share of the mean eigenvalue that is added to all of them.
        progress: Where the work is reported.

    Raises:
        ConfigError: mu is not positive.
        NonFiniteError: A stored vector is not finite.
    """
    spec = reader.spec
    every = np.arange(spec.parts)
    usable = np.setdiff1d(every, excluded)
    with progress.phase("second level", suited_passes(spec.dimension) * len(usable) + len(every), "parts") as phase:

        def decoded(ordinals: npt.NDArray[np.int64]) -> Iterator[Tensor]:
            for start in range(0, len(ordinals), BLOCK):
                yield reader.decoded(ordinals[start : start + BLOCK])
                phase.advance(len(ordinals[start : start + BLOCK]))

        level = fit_second_level(lambda: decoded(usable), spec.dimension, mu, count=len(usable))
        norms = [level.apply(vectors_ND).norm(dim=1) for vectors_ND in decoded(every)]
    return StoredLevel(**vars(level), norms_N=torch.cat(norms))
