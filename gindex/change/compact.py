"""Rewriting an index without its deleted documents, as one volume. Vectors are copied as they are stored."""

from dataclasses import replace

from gindex.change.volume_copy import copy_table, copy_vectors
from gindex.documents.table import DocumentTable
from gindex.model.isolation import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import deriving_compacted
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.part_ranges import PartRanges
from gindex.store.records import Operation, OperationKind
from gindex.store.snapshot import Snapshot
from gindex.store.unfinished_volumes import finish_volume, start_volume
from gindex.store.vectors import SegmentRecord, VectorSpec
from gindex.store.versions import writing
from gindex.store.volume_records import volume_files, volume_record
from gindex.store.writer import write_version


@plain()
def compact(layout: Layout, progress: Progress | None = None) -> Manifest:
    """Rewrite the newest version as one volume without deleted documents, and commit; older versions stay readable.

    Where there is one volume with one FAISS file, nothing is deleted, and its table has all that is written today,
    nothing is done.

    Raises:
        CorruptStoreError: A file is damaged.
        StoreError: The index cannot be written.
    """
    progress = progress or Silent()
    with writing(layout):
        snapshot = Snapshot.open(layout)
        manifest = snapshot.manifest
        pieces = len(manifest.volumes) + len(manifest.search.faiss)
        if pieces == 2 and not manifest.deleted and not _is_old(snapshot):
            return manifest
        number = start_volume(layout, {"compact": manifest.version})
        copy_table(snapshot, layout.volume(number), manifest.volumes, None, progress)
        kept = PartRanges.between(0, manifest.stored_parts, manifest.deleted)
        spec, segments = copy_vectors(snapshot, layout.volume(number), kept, 0, progress)
        return _commit(snapshot, number, spec, segments, progress)


def _is_old(snapshot: Snapshot) -> bool:
    with snapshot.table() as table:
        return table.is_old


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
        files=[
            *manifest.files_below(layout.root, layout.factors),
            *volume_files(layout, layout.volume(number), segments),
        ],
    )
    operation = Operation(kind=OperationKind.COMPACT, parts_removed=manifest.stored_parts - spec.parts)
    committed = write_version(layout, draft, operation, deriving_compacted(layout, manifest, progress))
    finish_volume(layout, number)
    return committed
