"""Searching an IVF for inner products of vectors whose norms differ widely; what its lists are is in `centres`.

Axes: Q queries, N parts, F folded dimension.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.spec import FaissSpec

Vectors = npt.NDArray[np.float32]
Ordinals = npt.NDArray[np.int64]


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
