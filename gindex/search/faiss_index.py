"""The FAISS inner-product index over the stored vectors. It is derived: it can be deleted and built again.

Small indexes hold the decoded vectors as they are; larger ones hold them folded (a count sketch folds to half its
dimension) and in float16, and serve candidates that the stored vectors re-score.

Axes: Q queries, N parts, D dimension, F folded dimension.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.atomic import publish
from gindex.errors import CorruptStoreError, MissingDependencyError
from gindex.gradient.projection import ProjectionSpec, fold
from gindex.store.layout import REMEDY
from gindex.store.vectors import VectorReader

FLAT_BYTES = 64 << 20
"""Largest float32 index that is held without loss."""

COARSE_BYTES = 512 << 20
"""Size above which vectors are folded again, up to `MAX_FOLDS` times."""

MAX_FOLDS = 3


@dataclass(frozen=True, kw_only=True)
class FaissSpec:
    """How the FAISS index is made from the stored vectors.

    Attributes:
        kind: `flat` (float32) or `flat-fp16`.
        folds: How often vectors are halved first.
        scale: What vectors are multiplied by, so that float16 holds them.
    """

    kind: str
    folds: int
    scale: float

    @property
    def lossless(self) -> bool:
        """Whether its scores are those of the stored vectors up to rounding."""
        return self.kind == "flat" and self.folds == 0


def import_faiss() -> Any:
    """Import FAISS.

    Raises:
        MissingDependencyError: It is not installed; names the extras.
    """
    try:
        import faiss
    except ImportError as error:
        raise MissingDependencyError(
            f"FAISS: expected it to be installed, found none ({error}); pip install 'gindex[cpu]' or 'gindex[gpu]'"
        ) from error
    return faiss


def choose_spec(parts: int, dimension: int, largest: float) -> FaissSpec:
    """Choose the index type for N parts of D dimensions whose largest coordinate is `largest`."""
    if parts * dimension * 4 <= FLAT_BYTES:
        return FaissSpec(kind="flat", folds=0, scale=1.0)
    folds = next(n for n in range(MAX_FOLDS + 1) if parts * dimension * 2 >> n <= COARSE_BYTES or n == MAX_FOLDS)
    return FaissSpec(kind="flat-fp16", folds=folds, scale=1.0 / largest if largest > 0 else 1.0)


def build_faiss(
    path: Path, reader: VectorReader, projection: ProjectionSpec, done: Callable[[int], None] = lambda _parts: None
) -> FaissSpec:
    """Build the index from the stored vectors, a segment at a time, and publish it at `path`."""
    faiss = import_faiss()
    largest = max(float(reader.decoded(o).abs().max()) for o in _segments(reader))
    spec = choose_spec(reader.spec.parts, reader.spec.dimension, largest)
    index = _empty(faiss, spec, reader.spec.dimension >> spec.folds)
    for ordinals in _segments(reader):
        index.add(_folded(reader.decoded(ordinals), spec, projection))
        done(len(ordinals))
    publish(path, lambda partial: faiss.write_index(index, str(partial)))
    return spec


class FaissIndex:
    """An opened FAISS index."""

    def __init__(self, path: Path, spec: FaissSpec, projection: ProjectionSpec, parts: int) -> None:
        """Open the index at `path`, which holds `parts` vectors made as `spec` says.

        Raises:
            MissingDependencyError: FAISS is not installed.
            CorruptStoreError: The file is not such an index.
        """
        faiss = import_faiss()
        try:
            self._index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise CorruptStoreError(f"{path}: expected a FAISS index, found {str(error)[:200]}; {REMEDY}") from error
        expected = (parts, projection.dimension >> spec.folds, faiss.METRIC_INNER_PRODUCT)
        found = (self._index.ntotal, self._index.d, self._index.metric_type)
        if found != expected:
            raise CorruptStoreError(
                f"{path}: expected (vectors, dimensions, FAISS metric) {expected}, found {found}; {REMEDY}"
            )
        self.spec, self._projection = spec, projection

    def candidates(self, queries_QD: Tensor, count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Return the `count` best part ordinals [Q, count] for queries [Q, D], best first, with their scores.

        The scores are those of the stored vectors where `spec.lossless`, otherwise an approximation in another scale.
        """
        scores, ordinals = self._index.search(
            _folded(queries_QD, self.spec, self._projection), min(count, self._index.ntotal)
        )
        return ordinals, scores


def spec_of(content: dict[str, Any]) -> FaissSpec:
    """Read a spec back from the manifest."""
    return FaissSpec(**content)


def spec_record(spec: FaissSpec) -> dict[str, Any]:
    """Return a spec as the manifest records it."""
    return asdict(spec)


def _segments(reader: VectorReader) -> list[npt.NDArray[np.int64]]:
    return [np.array(reader.spec.segment_range(n), np.int64) for n in range(reader.spec.segments)]


def _empty(faiss: Any, spec: FaissSpec, dimension: int) -> Any:
    if spec.kind == "flat":
        return faiss.IndexFlatIP(dimension)
    return faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


def _folded(vectors: Tensor, spec: FaissSpec, projection: ProjectionSpec) -> npt.NDArray[np.float32]:
    folded = fold(vectors, projection, spec.folds) if spec.folds else vectors
    return np.ascontiguousarray((folded * spec.scale).to(torch.float32).cpu().numpy())
