"""Writing stored parts again in a new volume: their documents, and their vectors as they are stored."""

from collections.abc import Sequence
from dataclasses import replace

from gindex.documents.table_writer import copy_documents, new_table
from gindex.progress import Progress
from gindex.store.layout import VolumeLayout
from gindex.store.part_ranges import PartRanges
from gindex.store.records import VolumeRecord
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.vectors import SegmentRecord, VectorSpec, VectorWriter, choose_segment_parts


def copy_table(
    snapshot: Snapshot,
    place: VolumeLayout,
    volumes: Sequence[VolumeRecord],
    first: VolumeRecord | None,
    progress: Progress,
) -> None:
    """Write the documents of volumes into the table of a new one, numbered on.

    Args:
        snapshot: The version that they are of.
        place: The new volume.
        volumes: The volumes, in the order of the ordinals.
        first: The first of them where every document keeps its ordinal, the deleted too; None to leave these out.
        progress: Where the work is reported.
    """
    layout, total = snapshot.layout, sum(volume.documents for volume in volumes)
    deleted, keep = snapshot.manifest.deleted, first is not None
    with (
        new_table(place.documents) as connection,
        progress.phase("documents", total, "documents") as phase,
    ):
        documents, parts = (0, 0) if first is None else (first.first_document, first.first_part)
        for volume in volumes:
            path = snapshot.checked(layout.volume(volume.number).documents)
            documents, parts = copy_documents(connection, path, deleted, documents, parts, phase.advance, keep=keep)


def copy_vectors(
    snapshot: Snapshot, place: VolumeLayout, kept: PartRanges, first_part: int, progress: Progress
) -> tuple[VectorSpec, dict[int, SegmentRecord]]:
    """Write vectors into a new volume.

    Args:
        snapshot: The version that they are of.
        place: The new volume.
        kept: Which parts.
        first_part: Ordinal that the first of them has there.
        progress: Where the work is reported.
    """
    old = volume_spec(snapshot.manifest, snapshot.manifest.volumes[0])
    row_bytes = old.arrays["codes"].row_bytes
    spec = replace(old, parts=len(kept), segment_parts=choose_segment_parts(len(kept), row_bytes))
    reader, writer = snapshot.vectors, VectorWriter(place, spec)
    places = {kept.place(int(ordinal)): reason for ordinal, reason in snapshot.manifest.skipped.items()}
    segments: dict[int, SegmentRecord] = {}
    with progress.phase("vectors", spec.parts, "parts") as phase:
        for segment in range(spec.segments):
            rows = spec.segment_range(segment)
            here = {first_part + at: why for at, why in places.items() if at is not None and at in rows}
            segments[segment] = writer.write(segment, reader.stored(kept.ordinals(rows)), here)
            phase.advance(len(rows))
    return spec, segments
