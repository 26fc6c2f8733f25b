"""The FAISS index of a version: made or grown, its recall measured, and what the manifest says of it."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.gradient.projection import ProjectionSpec
from gindex.progress import Progress
from gindex.search.faiss_index import FaissIndex, build_faiss, follow_faiss
from gindex.search.faiss_types import FaissSpec, spec_record
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.store.layout import Layout
from gindex.store.reader import VectorReader


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
        old: The index of the version before, to go on from where the store has only grown.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """
    parts = reader.spec.parts
    with progress.phase("search index", parts, "parts") as phase:
        if old is None:
            spec = build_faiss(path, reader, projection, phase.advance, kind)
        else:
            spec = follow_faiss(path, *old, reader, projection, phase.advance)
    with progress.phase("recall", None, "queries") as phase:
        funnel = Funnel(FaissIndex(path, spec, projection, parts), reader, excluded)
        recall = measure_recall(funnel, reader, excluded, projection.seed)
        phase.advance(recall.queries)
    return spec_record(spec) | {
        "file": path.relative_to(layout.root).as_posix(),
        "parts": parts,
        "recall": asdict(recall),
    }
