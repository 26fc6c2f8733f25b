"""An IVF for inner products of vectors whose norms differ widely.

The parts of largest norm have a list of their own, the last one, which every query searches: they win most searches,
whatever their direction. The others are in lists around centres of their directions.

Axes: Q queries, N parts, F folded dimension.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.spec import FaissSpec

LIST_TRAINING_PARTS = 40
"""Parts for each list that the centres are found from; FAISS warns below 39."""

LARGE_SHARE = 0.05
"""Share of the parts that counts as large."""

SEED = 1234

Vectors = npt.NDArray[np.float32]
Ordinals = npt.NDArray[np.int64]


def make_ivf(
    faiss: Any, spec: FaissSpec, sample: Ordinals, folded: Callable[[Ordinals], Vectors], parts: int
) -> tuple[Any, Callable[[Ordinals, Vectors], None]]:
    """Find the centres from a sample.

    Args:
        faiss: The module.
        spec: The number of lists.
        sample: Ordinals of the parts to find them from.
        folded: Gives the folded vectors of parts.
        parts: N.

    Returns:
        The empty index, and a function that adds vectors with their ordinals to their lists.
    """
    vectors_NF = folded(sample)
    norms_N = np.linalg.norm(vectors_NF, axis=1)
    bound = float(np.quantile(norms_N, 1 - LARGE_SHARE))
    dimension = vectors_NF.shape[1]
    lists = min(spec.lists, len(sample))
    clustering = faiss.Kmeans(dimension, lists, niter=10, spherical=True, seed=SEED)
    clustering.train(_unit(vectors_NF, norms_N))
    centres = np.concatenate([clustering.centroids, np.zeros((1, dimension), np.float32)])
    quantizer = faiss.IndexFlatIP(dimension)
    index = faiss.IndexIVFRaBitQ(quantizer, dimension, lists + 1, faiss.METRIC_INNER_PRODUCT)
    quantizer.add(centres)
    index.train(vectors_NF)
    directions = faiss.IndexFlatIP(dimension)
    directions.add(clustering.centroids)

    def add(ordinals_N: Ordinals, vectors_NF: Vectors) -> None:
        norms_N = np.linalg.norm(vectors_NF, axis=1)
        _, nearest_N1 = directions.search(_unit(vectors_NF, norms_N), 1)
        lists_N = np.where(norms_N >= bound, lists, nearest_N1[:, 0]).astype(np.int64)
        pointer = faiss.swig_ptr
        index.add_core(len(ordinals_N), pointer(vectors_NF), pointer(ordinals_N), pointer(lists_N))

    index.referenced_objects = [quantizer]
    return index, add


def search_ivf(
    faiss: Any, spec: FaissSpec, index: Any, queries_QF: Vectors, count: int, selector: Any, bits: int
) -> tuple[Vectors, Ordinals]:
    """Search the lists whose centres are nearest to each query, and the list of large norms.

    With a selector all lists are searched: the nearest ones may hold none of the parts that are selected.
    """
    centres = index.nlist - 1
    probes = centres if selector is not None else min(spec.probes, centres)
    scores_QL, lists_QL = index.quantizer.search(queries_QF, probes + 1)
    others = lists_QL != centres  # the centre of the large ones is zero, and may be among the nearest
    keep = np.argsort(~others, axis=1, kind="stable")[:, :probes]
    lists_QL = np.take_along_axis(lists_QL, keep, 1)
    scores_QL = np.take_along_axis(scores_QL, keep, 1)
    last = np.full((len(queries_QF), 1), centres, np.int64)
    lists_QL = np.ascontiguousarray(np.concatenate([lists_QL, last], 1))
    scores_QL = np.concatenate([scores_QL, np.zeros((len(queries_QF), 1), np.float32)], 1)
    scores_QL = np.ascontiguousarray(scores_QL)
    parameters = faiss.IVFRaBitQSearchParameters(nprobe=probes + 1, sel=selector, qb=bits)
    scores_QC = np.empty((len(queries_QF), count), np.float32)
    ordinals_QC = np.empty((len(queries_QF), count), np.int64)
    pointer = faiss.swig_ptr
    index.search_preassigned_c(  # the method without the suffix takes no parameters, so no selector
        len(queries_QF), pointer(queries_QF), count, pointer(lists_QL), pointer(scores_QL), pointer(scores_QC),
        pointer(ordinals_QC), False, parameters,
    )  # fmt: skip
    return scores_QC, ordinals_QC


def _unit(vectors_NF: Vectors, norms_N: npt.NDArray[np.floating[Any]]) -> Vectors:
    units_NF: Vectors = (vectors_NF / np.maximum(norms_N, 1e-30)[:, None]).astype(np.float32)
    return units_NF
