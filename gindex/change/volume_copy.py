"""Writing stored parts again in a new volume: their documents, and their vectors as they are stored."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from gindex.documents.table_writer import copy_documents, new_table
from gindex.progress import Progress
from gindex.store.layout import VolumeLayout
from gindex.store.reader import Ordinals
from gindex.store.records import VolumeRecord
from gindex.store.snapshot import Snapshot, volume_spec
from gindex.store.vectors import SegmentRecord, VectorSpec, VectorWriter, choose_segment_parts


class KeptParts:
    """Ordinals of the parts that are written again, as ranges in order."""

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        """Take start and stop of each range."""
        self._starts, stops = np.array(ranges, np.int64).reshape(-1, 2).T
        self._places = np.concatenate([[0], np.cumsum(stops - self._starts)])

    def __len__(self) -> int:
        """How many there are."""
        return int(self._places[-1])

    def ordinals(self, places: range) -> Ordinals:
        """Ordinals of those at consecutive places among them."""
        wanted = np.arange(places.start, places.stop)
        ranges = np.searchsorted(self._places, wanted, "right") - 1
        ordinals: Ordinals = self._starts[ranges] + wanted - self._places[ranges]
        return ordinals

    def place(self, ordinal: int) -> int | None:
        """The place of a part among them; None where it is not kept."""
        found = int(np.searchsorted(self._starts, ordinal, "right")) - 1
        if found < 0:
            return None
        place = int(self._places[found]) + ordinal - int(self._starts[found])
        return place if place < self._places[found + 1] else None


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
    snapshot: Snapshot, place: VolumeLayout, kept: KeptParts, first_part: int, progress: Progress
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
