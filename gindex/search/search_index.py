"""The search index of a version: made or grown, its recall measured, and opened again."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from gindex import thread_pool
from gindex.ann.build import build_faiss
from gindex.ann.index import FaissIndex
from gindex.ann.index_files import IndexFiles
from gindex.ann.ivf_file import EarlierIvf
from gindex.ann.spec import kind_of_piece, search_file, spec_of
from gindex.config import TRANSFORMS
from gindex.progress import Progress, Silent
from gindex.search.funnel import Funnel
from gindex.search.recall import measure_recall
from gindex.search.searcher import Searcher
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.records import SearchFile, SearchRecord, TransformRecord
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
    earlier: Sequence[EarlierIvf] = (),
) -> Derive:
    """What makes the search index of a version that is written, as one file, and measures its recall.

    Args:
        progress: Where the work is reported.
        kind: One of `ann.spec.KINDS`, or `auto`.
        transform: What the vectors are transformed by before they are compared; None for nothing.
        earlier: Indexes whose centres an ivf index uses again.

    Raises:
        ConfigError: There is no such kind.
        StoreError: It cannot be written.
    """

    def derive(snapshot: Snapshot, path: Path) -> SearchRecord:
        fitted, record = None, None
        if transform is not None:
            fitted = fit_transform(transform, snapshot, progress)
            record = _write_transform(transform[0], fitted, path, snapshot.root)
        parts = range(snapshot.vectors.spec.parts)
        file = _make_file(snapshot, path, kind, parts, progress, fitted, earlier)
        return _measured(SearchRecord(faiss=(file,), transform=record), snapshot, fitted, progress)

    return derive


def deriving_again(search: SearchRecord, progress: Progress, *, kind: str | None = None) -> Derive:
    """What makes a search index as another one was made, of the same kind where no other is given; see `deriving`."""
    same = search.main.kind if len(search.faiss) == 1 or search.main.kind != "flat" else "auto"
    return deriving(progress, kind=same if kind is None else kind, transform=recorded_choice(search))


def deriving_compacted(layout: Layout, manifest: Manifest, progress: Progress) -> Derive:
    """What makes the search index of the parts of a version that are not deleted; see `deriving`.

    Raises:
        CorruptStoreError: A file of an ivf index, whose centres are used again, is damaged.
    """
    search = manifest.search
    if search.transform is not None:
        return deriving_again(search, progress, kind="auto")
    main = [file for file in earlier_ivf(layout, manifest) if file.spec.centres is not None][:1]
    return deriving(progress, earlier=[replace(file, run=None) for file in main])


def deriving_run(layout: Layout, manifest: Manifest, run: range, progress: Progress) -> Derive:
    """What makes the search index of a version whose parts of a run are new, or are to be in one file.

    A file is made of these parts, with those of every file that holds some of them; the others stay. Recall is measured
    where that makes one file of all. A transform is fitted to all parts, so with one everything is made again.

    Args:
        layout: The index.
        manifest: The version before.
        run: Ordinals of the parts.
        progress: Where the work is reported.
    """
    search, main = manifest.search, manifest.search.main
    if search.transform is not None:
        return deriving_again(search, progress, kind="auto" if main.kind == "flat" else main.kind)

    def derive(snapshot: Snapshot, path: Path) -> SearchRecord:
        before, whole, after = search.around(run)
        replaced = [file for file, of in zip(search.faiss, search.runs, strict=True) if of.start in whole]
        has_lists = any(file.kind == "ivf" for file in replaced)
        kind = kind_of_piece(main.kind, len(whole), snapshot.vectors.spec.parts, has_lists=has_lists)
        earlier = earlier_ivf(layout, manifest) if kind == "ivf" else []
        made = _make_file(snapshot, path, kind, whole, progress, earlier=earlier)
        grown = SearchRecord(faiss=(*before, made, *after))
        if len(grown.faiss) == 1:
            return _measured(grown, snapshot, None, progress)
        recall = search.recall
        return replace(grown, recall=recall and replace(recall, parts=recall.parts or search.parts))

    return derive


def earlier_ivf(layout: Layout, manifest: Manifest) -> list[EarlierIvf]:
    """The ivf files of a version, compared with their checksums; in the order of the ordinals.

    Raises:
        CorruptStoreError: One is damaged.
    """
    found = []
    for file, run in zip(manifest.search.faiss, manifest.search.runs, strict=True):
        if file.kind == "ivf":
            path = layout.root / file.file
            manifest.file(layout.root, path).check_once(layout.root)
            found.append(EarlierIvf(path=path, spec=spec_of(file), run=run))
    return found


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
    thread_pool.start()
    funnel = _degraded_funnel(snapshot) if snapshot.problems else _funnel(snapshot, mapped=not resident)
    if resident:  # a service compares everything before it takes requests
        funnel.index.open()
        snapshot.documents.compare()
    return Searcher(funnel, snapshot.vectors, snapshot.documents, snapshot.manifest)


def _funnel(snapshot: Snapshot, *, mapped: bool) -> Funnel:
    index = index_files(snapshot, mapped=mapped, check=snapshot.checked)  # before a native library reads it
    return Funnel(index, snapshot.vectors, snapshot.excluded, snapshot.transform())


def index_files(
    snapshot: Snapshot, *, mapped: bool = True, check: Callable[[Path], object] = lambda _path: None
) -> IndexFiles:
    """The FAISS files of a version, none of them opened yet.

    Args:
        snapshot: The files of the version.
        mapped: Map them; otherwise read them.
        check: Compares a file with its checksum, before FAISS reads it.

    Raises:
        CorruptStoreError: One is of a kind that is not known.
    """
    files = snapshot.manifest.search.faiss
    projection, root = snapshot.projection, snapshot.root
    return IndexFiles(
        [FaissIndex(root / of.file, spec_of(of), projection, of.parts, mapped=mapped, check=check) for of in files]
    )


def _degraded_funnel(snapshot: Snapshot) -> Funnel:
    """Search what is left of the vectors, through a transform and a FAISS index of them alone."""
    choice, vectors = recorded_choice(snapshot.manifest.search), snapshot.vectors
    transform = None if choice is None else fit_transform(choice, snapshot, Silent())
    with TemporaryDirectory(prefix="gindex-") as folder:
        path = Path(folder, "search.faiss")
        spec = build_faiss(path, vectors, snapshot.projection, transform=transform)
        index = IndexFiles([FaissIndex(path, spec, snapshot.projection, vectors.spec.parts)])
        index.open()  # what is mapped outlives the folder
    return Funnel(index, vectors, snapshot.excluded, transform)


def _make_file(
    snapshot: Snapshot,
    path: Path,
    kind: str,
    run: range,
    progress: Progress,
    transform: Transform | None = None,
    earlier: Sequence[EarlierIvf] = (),
) -> SearchFile:
    with progress.phase("search index", len(run), "parts") as phase:
        spec = build_faiss(path, snapshot.vectors, snapshot.projection, phase.advance, kind, transform, run, earlier)
    return search_file(spec, path.relative_to(snapshot.root).as_posix(), len(run))


def _measured(
    search: SearchRecord, snapshot: Snapshot, transform: Transform | None, progress: Progress
) -> SearchRecord:
    """A search index of all parts, with its recall."""
    drafted, vectors = Snapshot(snapshot.layout, replace(snapshot.manifest, search=search)), snapshot.vectors
    with progress.phase("recall", None, "queries") as phase:
        funnel = Funnel(index_files(drafted), vectors, snapshot.excluded, transform)
        recall = measure_recall(funnel, vectors, snapshot.excluded, snapshot.projection.seed)
        phase.advance(recall.queries)
    return replace(search, recall=recall)


def _write_transform(kind: str, fitted: Transform, faiss: Path, root: Path) -> TransformRecord:
    """Write a transform beside the FAISS index that is to come."""
    path = faiss.with_suffix(f".{kind}.safetensors")
    fitted.write(path)
    name = path.relative_to(root).as_posix()
    return TransformRecord(kind=kind, file=name, settings=fitted.settings, measures=fitted.measures)
