"""Rewriting an index without its deleted documents, as one volume. Vectors are copied as they are stored."""

from dataclasses import replace

import numpy as np

from gindex.documents.filling import copy_documents, new_table
from gindex.documents.schema import VERSION
from gindex.documents.table import DocumentTable
from gindex.engine import recorded_projection
from gindex.model.passes import plain
from gindex.progress import Progress, Silent
from gindex.search.search_index import make_search_index, search_files
from gindex.store.layout import Layout
from gindex.store.manifest import Manifest
from gindex.store.pending import finish_volume, start_volume
from gindex.store.reader import Ordinals, VectorReader
from gindex.store.vectors import SegmentRecord, VectorSpec, VectorWriter, VolumeReader, choose_segment_parts
from gindex.store.version import Version, volume_spec
from gindex.store.versions import commit, next_version, writing
from gindex.store.volume import volume_files, volume_record


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
        version = Version.open(layout)
        manifest = version.manifest
        if len(manifest.volumes) == 1 and not manifest.deleted and not _is_old(version):
            return manifest
        number = start_volume(layout, {"compact": manifest.version})
        kept = _kept(manifest)
        _copy_table(layout, version, number, progress)
        spec, segments = _copy_vectors(layout, version, number, kept, progress)
        return _commit(layout, version, number, spec, segments, kept, progress)


def _is_old(version: Version) -> bool:
    with version.table() as table:
        return min(table.versions) < VERSION


def _kept(manifest: Manifest) -> Ordinals:
    kept = np.ones(manifest.stored_parts, bool)
    for start, stop in manifest.deleted:
        kept[start:stop] = False
    return np.flatnonzero(kept)


def _copy_table(layout: Layout, version: Version, number: int, progress: Progress) -> None:
    total = version.manifest.stored_documents
    with (
        new_table(layout.volume(number).documents) as connection,
        progress.phase("documents", total, "documents") as phase,
    ):
        documents = parts = 0
        for volume in version.manifest.volumes:
            path = version.checked(layout.volume(volume.number).documents)
            documents, parts = copy_documents(
                connection, path, version.manifest.deleted, documents, parts, phase.advance
            )


def _copy_vectors(
    layout: Layout, version: Version, number: int, kept: Ordinals, progress: Progress
) -> tuple[VectorSpec, dict[int, SegmentRecord]]:
    old = volume_spec(version.manifest, version.manifest.volumes[0])
    row_bytes = old.arrays["codes"].row_bytes
    spec = replace(old, parts=len(kept), segment_parts=choose_segment_parts(len(kept), row_bytes))
    reader, writer = version.vectors(), VectorWriter(layout.volume(number), spec)
    position = {int(ordinal): new for new, ordinal in enumerate(kept)} if version.manifest.skipped else {}
    skipped = {
        position[int(ordinal)]: reason
        for ordinal, reason in version.manifest.skipped.items()
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
    layout: Layout,
    version: Version,
    number: int,
    spec: VectorSpec,
    segments: dict[int, SegmentRecord],
    kept: Ordinals,
    progress: Progress,
) -> Manifest:
    manifest, volume = version.manifest, layout.volume(number)
    projection = recorded_projection(layout, manifest)
    path = layout.faiss(next_version(layout))
    skipped = np.array([int(part) for segment in segments.values() for part in segment.skipped], np.int64)
    reader = VectorReader([VolumeReader(volume, spec)])
    search = make_search_index(layout, path, reader, projection, skipped, progress, transform=manifest.transform_choice)
    with DocumentTable.open(volume.documents) as table:
        counts = table.counts()
    sources = [source for old in manifest.volumes for source in old.sources]
    files = [*manifest.files_below(layout.root, layout.factors), *search_files(layout, search)]
    committed = commit(
        layout,
        manifest,
        {"kind": "compact", "parts_removed": manifest.stored_parts - len(kept)},
        volumes=[volume_record(number, 0, 0, counts, spec, segments, sources)],
        deleted=[],
        deleted_documents=0,
        deleted_tokens=0,
        search=search,
        files=files + volume_files(layout, number, segments),
    )
    finish_volume(layout, number)
    return committed
