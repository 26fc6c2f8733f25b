"""The file of a FAISS index, opened and seen to be what it should be, without torch. Nothing is searched here."""

from pathlib import Path
from typing import Any

from gindex.ann.library import import_faiss, read_index
from gindex.ann.spec import TYPES, FaissSpec
from gindex.errors import CorruptStoreError
from gindex.store.layout import REMEDY
from gindex.vectors.projection import ProjectionSpec


def entry_dimension(spec: FaissSpec, projection: ProjectionSpec) -> int:
    """Dimension F of what the index holds of a vector."""
    return sum((stop - start) >> spec.folds for start, stop in projection.slices.values())


def open_index(path: Path, spec: FaissSpec, projection: ProjectionSpec, parts: int, *, mapped: bool = True) -> Any:
    """Open a FAISS index.

    Args:
        path: The file.
        spec: How it was made.
        projection: Projection of its vectors.
        parts: How many it holds.
        mapped: Map the file; otherwise read it.

    Raises:
        MissingDependencyError: FAISS is not installed.
        CorruptStoreError: The file is not such an index.
    """
    faiss = import_faiss()
    index = read_index(faiss, path, faiss.IO_FLAG_MMAP_IFC if mapped else 0)
    expected = (TYPES[spec.kind], parts, entry_dimension(spec, projection), faiss.METRIC_INNER_PRODUCT)
    found = (type(index).__name__, index.ntotal, index.d, index.metric_type)
    if found != expected:
        raise CorruptStoreError(
            field=path,
            expected=f"(type, vectors, dimensions, FAISS metric) {expected}",
            found=found,
            remedy=REMEDY,
        )
    return index
