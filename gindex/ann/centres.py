"""The centres that the lists of an ivf index are around: found from a sample of bounded size, used again as it grows.

The parts of largest norm have a list of their own, the last one, which every query searches: they win most searches,
whatever their direction. The others are in lists around centres of their directions.

Axes: N parts, L lists but for the last one, F folded dimension, B bytes of a code.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.library import read_index
from gindex.store.records import CentresRecord

SAMPLE_BYTES = 512 << 20
"""Most bytes of the vectors that the centres are found from, as float32."""

LIST_SAMPLE = 40
"""Parts for each list that the centres are found from, where so many fit; FAISS warns below 39."""

LARGE_SHARE = 0.05
"""Share of the parts that counts as large."""

SEED = 1234

Vectors = npt.NDArray[np.float32]
Ordinals = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint8]


class Centres:
    """Centres of directions, and the norm from which a part counts as large."""

    def __init__(self, faiss: Any, directions_LF: Vectors, record: CentresRecord) -> None:
        """Take unit vectors.

        Args:
            faiss: The module.
            directions_LF: The centres.
            record: What the manifest says of them.
        """
        lists, dimension = directions_LF.shape
        self.record, self.directions_LF = record, directions_LF
        self._nearest = faiss.IndexFlatIP(dimension)
        self._nearest.add(directions_LF)
        quantizer = faiss.IndexFlatIP(dimension)
        quantizer.add(np.concatenate([directions_LF, np.zeros((1, dimension), np.float32)]))
        self.index = faiss.IndexIVFRaBitQ(quantizer, dimension, lists + 1, faiss.METRIC_INNER_PRODUCT)
        self.index.referenced_objects = [quantizer]
        self.index.train(np.zeros((1, dimension), np.float32))
        self._pointer = faiss.swig_ptr

    def encode(self, vectors_NF: Vectors) -> tuple[Ordinals, Codes]:
        """The list [N] of each vector, and its code [N, B] in it."""
        norms_N = np.linalg.norm(vectors_NF, axis=1)
        _, nearest_N1 = self._nearest.search(_unit(vectors_NF, norms_N), 1)
        lists_N = np.where(norms_N >= self.record.large, len(self.directions_LF), nearest_N1[:, 0]).astype(np.int64)
        codes_NB = np.empty((len(vectors_NF), self.index.code_size), np.uint8)
        pointer = self._pointer
        self.index.encode_vectors(len(vectors_NF), pointer(vectors_NF), pointer(lists_N), pointer(codes_NB))
        return lists_N, codes_NB


def find_centres(
    faiss: Any, lists: int, sample: Ordinals, folded: Callable[[Ordinals], Vectors], parts: int
) -> Centres:
    """Find centres from a sample.

    Args:
        faiss: The module.
        lists: How many are wanted; there are fewer where the sample is smaller.
        sample: Ordinals of the parts to find them from.
        folded: Gives the folded vectors of parts, which this may change.
        parts: How many there are of which the sample is some.
    """
    vectors_NF = folded(sample)
    norms_N = np.linalg.norm(vectors_NF, axis=1)
    large = float(np.quantile(norms_N, 1 - LARGE_SHARE))
    vectors_NF /= np.maximum(norms_N, 1e-30)[:, None]
    clustering = faiss.Kmeans(
        vectors_NF.shape[1],
        min(lists, len(sample)),
        niter=10,
        spherical=True,
        seed=SEED,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    clustering.train(vectors_NF)
    return Centres(faiss, clustering.centroids, CentresRecord(parts=parts, large=large))


def read_centres(faiss: Any, path: Path, record: CentresRecord) -> Centres:
    """The centres of the ivf index in a file.

    Raises:
        CorruptStoreError: The file is missing, or holds no index.
        ResourceError: The system lets no more files be opened or mapped.
    """
    index = read_index(faiss, path, faiss.IO_FLAG_MMAP_IFC)  # which holds its quantizer
    quantizer = faiss.downcast_index(index.quantizer)
    return Centres(faiss, quantizer.reconstruct_n(0, quantizer.ntotal - 1), record)


def sample_size(lists: int, dimension: int) -> int:
    """How many parts so many centres of F dimensions are found from."""
    return min(lists * LIST_SAMPLE, max(lists, SAMPLE_BYTES // (4 * dimension)))


def _unit(vectors_NF: Vectors, norms_N: npt.NDArray[np.floating[Any]]) -> Vectors:
    units_NF: Vectors = (vectors_NF / np.maximum(norms_N, 1e-30)[:, None]).astype(np.float32, copy=False)
    return units_NF
