"""The search index of a version: made or grown, its recall measured, and opened again."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from gindex import workers
from gindex.ann.index import FaissIndex, build_faiss, follow_faiss
from gindex.ann.spec import FaissSpec, search_record, spec_of
from gindex.progress import Progress, Silent
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.search.searcher import Searcher
from gindex.search.second_level import fit_stored
from gindex.store.records import SearchRecord, TransformRecord
from gindex.store.second_level import StoredLevel, read_level, write_level
from gindex.store.snapshot import Snapshot
from gindex.store.writer import Derive


def deriving(
    progress: Progress, *, kind: str = "auto", mu: float | None = None, grown_from: Snapshot | None = None
) -> Derive:
    """What makes the search index of a version that is written, and measures its recall.

    Args:
        progress: Where the work is reported.
        kind: One of `ann.spec.KINDS`, or `auto`.
        mu: That of the second level of curvature; None for none.
        grown_from: The version before, to go on from its index where the vectors have only grown in number.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """

    def derive(snapshot: Snapshot, path: Path) -> SearchRecord:
        level, transform = _level(snapshot, path, mu, progress)
        with progress.phase("search index", snapshot.vectors.spec.parts, "parts") as phase:
            spec = _faiss(snapshot, path, kind, grown_from, level, phase.advance)
        with progress.phase("recall", None, "queries") as phase:
            index = FaissIndex(path, spec, snapshot.projection, snapshot.vectors.spec.parts)
            funnel = Funnel(index, snapshot.vectors, snapshot.excluded, level)
            recall = measure_recall(funnel, snapshot.vectors, snapshot.excluded, snapshot.projection.seed)
            phase.advance(recall.queries)
        name = path.relative_to(snapshot.root).as_posix()
        return search_record(spec, name, snapshot.vectors.spec.parts, recall, transform)

    return derive


def deriving_again(search: SearchRecord, progress: Progress, *, kind: str | None = None) -> Derive:
    """What makes a search index as another one was made, of the same kind where no other is given; see `deriving`."""
    return deriving(progress, kind=search.kind if kind is None else kind, mu=recorded_mu(search))


def deriving_from(snapshot: Snapshot, progress: Progress) -> Derive:
    """What makes the search index of a version that has more vectors than one before; see `deriving`."""
    return deriving(progress, mu=recorded_mu(snapshot.manifest.search), grown_from=snapshot)


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
    return Searcher(funnel, snapshot.vectors, snapshot.documents, list(snapshot.manifest.projection.slices))


def _funnel(snapshot: Snapshot, *, mapped: bool) -> Funnel:
    search = snapshot.manifest.search
    index = FaissIndex(
        snapshot.faiss,
        spec_of(search),
        snapshot.projection,
        search.parts,
        mapped=mapped,
        check=snapshot.checked,  # before a native library reads it
    )
    return Funnel(index, snapshot.vectors, snapshot.excluded, recorded_level(snapshot))


def _degraded_funnel(snapshot: Snapshot) -> Funnel:
    """Search what is left of the vectors, through a transform and a FAISS index of them alone."""
    reader, mu = snapshot.vectors, recorded_mu(snapshot.manifest.search)
    level = None if mu is None else fit_stored(reader, snapshot.excluded, mu, Silent())
    with TemporaryDirectory(prefix="gindex-") as folder:
        path = Path(folder, "search.faiss")
        spec = build_faiss(path, reader, snapshot.projection, level=level)
        index = FaissIndex(path, spec, snapshot.projection, reader.spec.parts)
        index.open()  # what is mapped outlives the folder
    return Funnel(index, reader, snapshot.excluded, level)


def recorded_mu(search: SearchRecord) -> float | None:
    """The mu of the second level of a search index; None where it has none."""
    return None if search.transform is None else float(search.transform.settings["mu"])


def recorded_level(snapshot: Snapshot) -> StoredLevel | None:
    """The second level of a version; None where it has none."""
    transform = snapshot.manifest.search.transform
    if transform is None:
        return None
    path = snapshot.checked(snapshot.root / transform.file)
    return read_level(path, snapshot.manifest.stored_parts, snapshot.manifest.projection.dimension)


def _level(
    snapshot: Snapshot, faiss: Path, mu: float | None, progress: Progress
) -> tuple[StoredLevel | None, TransformRecord | None]:
    """Fit and write the second level beside the FAISS index that is to come."""
    if mu is None:
        return None, None
    path = faiss.with_suffix(".second-level.safetensors")
    level = fit_stored(snapshot.vectors, snapshot.excluded, mu, progress)
    write_level(path, level)
    share = round(float(level.values_K.sum()) / snapshot.vectors.spec.dimension, 4)
    return level, TransformRecord(
        kind="second-level",
        file=path.relative_to(snapshot.root).as_posix(),
        settings={"mu": level.mu},
        measures={"directions": len(level.values_K), "share": share},
    )


def _faiss(
    snapshot: Snapshot,
    path: Path,
    kind: str,
    grown_from: Snapshot | None,
    level: StoredLevel | None,
    done: Callable[[int], None],
) -> FaissSpec:
    if grown_from is None:
        return build_faiss(path, snapshot.vectors, snapshot.projection, done, kind, level)
    old = spec_of(grown_from.manifest.search)
    if level is None:
        before = grown_from.checked(grown_from.faiss)
        return follow_faiss(path, old, before, snapshot.vectors, snapshot.projection, done)
    again = "auto" if old.kind == "flat" else old.kind
    return build_faiss(path, snapshot.vectors, snapshot.projection, done, again, level)
