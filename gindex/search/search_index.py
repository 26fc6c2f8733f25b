"""The search index of a version: made or grown, its recall measured, and opened again."""

from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gindex import workers
from gindex.ann.build import build_faiss, follow_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.spec import FaissSpec, search_record, spec_of
from gindex.config import TRANSFORMS
from gindex.progress import Progress, Silent
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.search.searcher import Searcher
from gindex.store.records import SearchRecord, TransformRecord
from gindex.store.snapshot import Snapshot
from gindex.store.transform import Transform
from gindex.store.writer import Derive

TransformChoice = tuple[str, Mapping[str, Any]]
"""A kind of transform and its settings."""


def deriving(
    progress: Progress,
    *,
    kind: str = "auto",
    transform: TransformChoice | None = None,
    grown_from: Snapshot | None = None,
) -> Derive:
    """What makes the search index of a version that is written, and measures its recall.

    Args:
        progress: Where the work is reported.
        kind: One of `ann.spec.KINDS`, or `auto`.
        transform: What the vectors are transformed by before they are compared; None for nothing.
        grown_from: The version before, to go on from its index where the vectors have only grown in number.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """

    def derive(snapshot: Snapshot, path: Path) -> SearchRecord:
        vectors, fitted, record = snapshot.vectors, None, None
        if transform is not None:
            fitted = fit_transform(transform, snapshot, progress)
            record = _write_transform(transform[0], fitted, path, snapshot.root)
        with progress.phase("search index", vectors.spec.parts, "parts") as phase:
            spec = _make_faiss(snapshot, path, kind, grown_from, fitted, phase.advance)
        with progress.phase("recall", None, "queries") as phase:
            index = FaissIndex(path, spec, snapshot.projection, vectors.spec.parts)
            funnel = Funnel(index, vectors, snapshot.excluded, fitted)
            recall = measure_recall(funnel, vectors, snapshot.excluded, snapshot.projection.seed)
            phase.advance(recall.queries)
        return search_record(spec, path.relative_to(snapshot.root).as_posix(), vectors.spec.parts, recall, record)

    return derive


def deriving_again(search: SearchRecord, progress: Progress, *, kind: str | None = None) -> Derive:
    """What makes a search index as another one was made, of the same kind where no other is given; see `deriving`."""
    return deriving(progress, kind=search.kind if kind is None else kind, transform=recorded_choice(search))


def deriving_from(snapshot: Snapshot, progress: Progress) -> Derive:
    """What makes the search index of a version that has more vectors than one before; see `deriving`."""
    return deriving(progress, transform=recorded_choice(snapshot.manifest.search), grown_from=snapshot)


def recorded_choice(search: SearchRecord) -> TransformChoice | None:
    """Kind and settings of the transform of a search index, by which it can be made again; None where it has none."""
    return None if search.transform is None else (search.transform.kind, search.transform.settings)


def fit_transform(choice: TransformChoice, snapshot: Snapshot, progress: Progress) -> Transform:
    """Fit a transform to the stored vectors of all parts but those excluded.

    Raises:
        ConfigError: There is no such kind, or a setting is unknown or out of range.
        NonFiniteError: A stored vector is not finite.
    """
    kind, settings = choice
    fitted: Transform = TRANSFORMS.get(kind).fit(
        snapshot.vectors, snapshot.excluded, TRANSFORMS.settings(kind, settings), progress
    )
    return fitted


def open_searcher(snapshot: Snapshot, *, resident: bool = False) -> Searcher:
    """Open what searches a version.

    Args:
        snapshot: The files of the version.
        resident: Read the FAISS index into memory, where it is mapped otherwise; compare all files with their checksums
            at once.

    Raises:
        CorruptStoreError: A file is damaged.
    """
    workers.start()
    funnel = _degraded_funnel(snapshot) if snapshot.problems else _funnel(snapshot, mapped=not resident)
    if resident:  # a service compares everything before it takes requests
        funnel.index.open()
        snapshot.documents.compare()
    return Searcher(funnel, snapshot.vectors, snapshot.documents, snapshot.manifest)


def _funnel(snapshot: Snapshot, *, mapped: bool) -> Funnel:
    index = FaissIndex(
        snapshot.faiss,
        spec_of(snapshot.manifest.search),
        snapshot.projection,
        snapshot.manifest.stored_parts,
        mapped=mapped,
        check=snapshot.checked,  # before a native library reads it
    )
    return Funnel(index, snapshot.vectors, snapshot.excluded, snapshot.transform())


def _degraded_funnel(snapshot: Snapshot) -> Funnel:
    """Search what is left of the vectors, through a transform and a FAISS index of them alone."""
    choice, vectors = recorded_choice(snapshot.manifest.search), snapshot.vectors
    transform = None if choice is None else fit_transform(choice, snapshot, Silent())
    with TemporaryDirectory(prefix="gindex-") as folder:
        path = Path(folder, "search.faiss")
        spec = build_faiss(path, vectors, snapshot.projection, transform=transform)
        index = FaissIndex(path, spec, snapshot.projection, vectors.spec.parts)
        index.open()  # what is mapped outlives the folder
    return Funnel(index, vectors, snapshot.excluded, transform)


def _make_faiss(
    snapshot: Snapshot,
    path: Path,
    kind: str,
    grown_from: Snapshot | None,
    transform: Transform | None,
    done: Callable[[int], None],
) -> FaissSpec:
    if grown_from is None:
        return build_faiss(path, snapshot.vectors, snapshot.projection, done, kind, transform)
    old = spec_of(grown_from.manifest.search)
    if transform is None:
        before = grown_from.checked(grown_from.faiss)
        return follow_faiss(path, old, before, snapshot.vectors, snapshot.projection, done)
    again = "auto" if old.kind == "flat" else old.kind  # a transform that is fitted anew changes every entry
    return build_faiss(path, snapshot.vectors, snapshot.projection, done, again, transform)


def _write_transform(kind: str, fitted: Transform, faiss: Path, root: Path) -> TransformRecord:
    """Write a transform beside the FAISS index that is to come."""
    path = faiss.with_suffix(f".{kind}.safetensors")
    fitted.write(path)
    name = path.relative_to(root).as_posix()
    return TransformRecord(kind=kind, file=name, settings=fitted.settings, measures=fitted.measures)
