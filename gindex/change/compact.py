"""Rewriting an index without its deleted documents, as one volume. Vectors are copied as they are stored."""

from dataclasses import replace

import numpy as np

from gindex.documents.schema import TEXT_VERSION
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import copy_documents, new_table
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving_again
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.reader import Ordinals
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.unfinished_volumes import finish_volume, start_volume
from gindex.store.vectors import SegmentRecord, VectorSpec, VectorWriter, choose_segment_parts
from gindex.store.versions import writing
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version


@plain()
def compact(layout: Layout, progress: Progress | None = None) -> Manifest:
    """Rewrite the newest version as one volume without deleted documents, and commit; older versions stay readable.

    Where there is one volume, nothing is deleted, and its table is of the newest version, nothing is done.

    Raises:
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    progress = progress or Silent()
    with writing(layout):
        snapshot = Snapshot.open(layout)
        manifest = snapshot.manifest
        if len(manifest.volumes) == 1 and not manifest.deleted and not _is_old(snapshot):
            return manifest
        number = start_volume(layout, {"compact": manifest.version})
        kept = _kept(manifest)
        _copy_table(snapshot, number, progress)
        spec, segments = _copy_vectors(snapshot, number, kept, progress)
        return _commit(snapshot, number, spec, segments, progress)


def _is_old(snapshot: Snapshot) -> bool:
    with snapshot.table() as table:
        return min(table.versions) < TEXT_VERSION


def _kept(manifest: Manifest) -> Ordinals:
    kept = np.ones(manifest.stored_parts, bool)
    for start, stop in manifest.deleted:
        kept[start:stop] = False
    return np.flatnonzero(kept)


def _copy_table(snapshot: Snapshot, number: int, progress: Progress) -> None:
    layout, total = snapshot.layout, snapshot.manifest.stored_documents
    with (
        new_table(layout.volume(number).documents) as connection,
        progress.phase("documents", total, "documents") as phase,
    ):
        documents = parts = 0
        for volume in snapshot.manifest.volumes:
            path = snapshot.checked(layout.volume(volume.number).documents)
            documents, parts = copy_documents(
                connection, path, snapshot.manifest.deleted, documents, parts, phase.advance
            )


def _copy_vectors(
    snapshot: Snapshot, number: int, kept: Ordinals, progress: Progress
) -> tuple[VectorSpec, dict[int, SegmentRecord]]:
    old = volume_spec(snapshot.manifest, snapshot.manifest.volumes[0])
    row_bytes = old.arrays["codes"].row_bytes
    spec = replace(old, parts=len(kept), segment_parts=choose_segment_parts(len(kept), row_bytes))
    reader, writer = snapshot.vectors, VectorWriter(snapshot.layout.volume(number), spec)
    position = {int(ordinal): new for new, ordinal in enumerate(kept)} if snapshot.manifest.skipped else {}
    skipped = {
        position[int(ordinal)]: reason
        for ordinal, reason in snapshot.manifest.skipped.items()
        if int(ordinal) in position
    }
    segments: dict[int, SegmentRecord] = {}
    with progress.phase("vectors", spec.parts, "parts") as phase:
        for segment in range(spec.segments):
            rows = spec.segment_range(segment)
            here = {ordinal: reason for ordinal, reason in skipped.items() if ordinal in rows}
            segments[segment] = writer.write(segment, reader.stored(kept[rows.start : rows.stop]), here)
            phase.advance(len(rows))
    return spec, segments


def _commit(
    snapshot: Snapshot, number: int, spec: VectorSpec, segments: dict[int, SegmentRecord], progress: Progress
) -> Manifest:
    layout, manifest = snapshot.layout, snapshot.manifest
    with DocumentTable.open(layout.volume(number).documents) as table:
        counts = table.counts()
    sources = [source for old in manifest.volumes for source in old.sources]
    draft = replace(
        manifest,
        volumes=[volume_record(number, 0, 0, counts, spec, segments, sources)],
        deleted=[],
        deleted_documents=0,
        deleted_tokens=0,
        files=[*manifest.files_below(layout.root, layout.factors), *volume_files(layout, number, segments)],
    )
    operation = Operation(kind=OperationKind.COMPACT, parts_removed=manifest.stored_parts - spec.parts)
    committed = write_version(layout, draft, operation, deriving_again(manifest.search, progress, kind="auto"))
    finish_volume(layout, number)
    return committed
