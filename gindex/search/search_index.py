"""The search index of a version: made or grown, its recall measured, and what the manifest says of it."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.build import build_faiss, follow_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.spec import FaissSpec, spec_record
from gindex.config import TRANSFORMS
from gindex.progress import Progress
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.store.files import FileRecord
from gindex.store.layout import Layout
from gindex.store.manifest import TransformRecord, derived_files
from gindex.store.reader import VectorReader
from gindex.store.transform import Transform
from gindex.vectors.projection import ProjectionSpec

TransformChoice = tuple[str, Mapping[str, Any]]
"""A kind of transform and its settings."""


def make_search_index(
    layout: Layout,
    path: Path,
    reader: VectorReader,
    projection: ProjectionSpec,
    excluded: npt.NDArray[np.int64],
    progress: Progress,
    *,
    kind: str = "auto",
    old: tuple[FaissSpec, Path] | None = None,
    transform: TransformChoice | None = None,
) -> dict[str, Any]:
    """Make a FAISS index, measure its recall, and say what the manifest records of it.

    Args:
        layout: The index.
        path: Where.
        reader: The stored vectors.
        projection: Their projection.
        excluded: Parts that no search returns.
        progress: Where the work is reported.
        kind: One of `ann.spec.KINDS`, or `auto`.
        old: The index of the version before, to go on from where the vectors have only grown in number.
        transform: What the vectors are transformed by before they are compared; None for nothing.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """
    parts, fitted, record = reader.spec.parts, None, None
    if transform is not None:
        fitted = fit_transform(transform, reader, excluded, progress)
        record = _write_transform(transform[0], fitted, path, layout.root)
    with progress.phase("search index", parts, "parts") as phase:
        if old is None or fitted is not None:  # a transform that is fitted anew changes every entry
            kind = kind if old is None or old[0].kind == "flat" else old[0].kind
            spec = build_faiss(path, reader, projection, phase.advance, kind, fitted)
        else:
            spec = follow_faiss(path, *old, reader, projection, phase.advance)
    with progress.phase("recall", None, "queries") as phase:
        funnel = Funnel(FaissIndex(path, spec, projection, parts), reader, excluded, fitted)
        recall = measure_recall(funnel, reader, excluded, projection.seed)
        phase.advance(recall.queries)
    return spec_record(spec) | {
        "file": path.relative_to(layout.root).as_posix(),
        "parts": parts,
        "recall": asdict(recall),
        "transform": None if record is None else asdict(record),
    }


def fit_transform(
    choice: TransformChoice, reader: VectorReader, excluded: npt.NDArray[np.int64], progress: Progress
) -> Transform:
    """Fit a transform to the stored vectors of all parts but those excluded.

    Raises:
        ConfigError: There is no such kind, or a setting is unknown or out of range.
        NonFiniteError: A stored vector is not finite.
    """
    kind, settings = choice
    fitted: Transform = TRANSFORMS.get(kind).fit(reader, excluded, TRANSFORMS.settings(kind, settings), progress)
    return fitted


def _write_transform(kind: str, fitted: Transform, faiss: Path, root: Path) -> TransformRecord:
    """Write a transform beside the FAISS index that is to come."""
    path = faiss.with_suffix(f".{kind}.safetensors")
    fitted.write(path)
    name = path.relative_to(root).as_posix()
    return TransformRecord(kind=kind, file=name, settings=fitted.settings, measures=fitted.measures)


def search_files(layout: Layout, search: dict[str, Any]) -> list[FileRecord]:
    """The records of the files that `make_search_index` made."""
    return [FileRecord.of(layout.root, layout.root / name) for name in sorted(derived_files(search))]
