"""The FAISS index of a version: made or grown, its recall measured, and what the manifest says of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.ann.index import FaissIndex, build_faiss, follow_faiss
from gindex.ann.spec import FaissSpec, spec_record
from gindex.progress import Progress
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.search.second_level import fit_stored
from gindex.store.files import FileRecord
from gindex.store.layout import Layout
from gindex.store.manifest import derived_files
from gindex.store.reader import VectorReader
from gindex.store.second_level import write_level
from gindex.vectors.projection import ProjectionSpec


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
    mu: float | None = None,
) -> dict[str, Any]:
    """Make a FAISS index at `path`, measure its recall, and return what the manifest records of it.

    Args:
        layout: The index.
        path: Where.
        reader: The stored vectors.
        projection: Their projection.
        excluded: Parts that no search returns.
        progress: Where the work is reported.
        kind: One of `faiss_types.KINDS`, or `auto`.
        old: The index of the version before, to go on from where the store has only grown and R v is v.
        mu: That of the second level of curvature; None for none.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """
    parts, level, level_path = reader.spec.parts, None, path.with_suffix(".second-level.safetensors")
    if mu is not None:
        level = fit_stored(reader, excluded, mu, progress)
        write_level(level_path, level)
    with progress.phase("search index", parts, "parts") as phase:
        if old is None or level is not None:
            kind = kind if old is None or old[0].kind == "flat" else old[0].kind
            spec = build_faiss(path, reader, projection, phase.advance, kind, level)
        else:
            spec = follow_faiss(path, *old, reader, projection, phase.advance)
    with progress.phase("recall", None, "queries") as phase:
        funnel = Funnel(FaissIndex(path, spec, projection, parts), reader, excluded, level)
        recall = measure_recall(funnel, reader, excluded, projection.seed)
        phase.advance(recall.queries)
    return spec_record(spec) | {
        "file": path.relative_to(layout.root).as_posix(),
        "parts": parts,
        "recall": asdict(recall),
        "second_level": None
        if level is None
        else {
            "file": level_path.relative_to(layout.root).as_posix(),
            "mu": level.mu,
            "directions": len(level.values_K),
            "share": round(float(level.values_K.sum()) / reader.spec.dimension, 4),
        },
    }


def search_files(layout: Layout, search: dict[str, Any]) -> list[FileRecord]:
    """Return the records of the files that `make_search_index` made."""
    return [FileRecord.of(layout.root, layout.root / name) for name in sorted(derived_files(search))]
