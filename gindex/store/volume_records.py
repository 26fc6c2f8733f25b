"""What the manifest says of a volume, once its table and its vectors are written."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

from gindex.corpus.source_fingerprint import SourceFingerprint
from gindex.documents.checksums import write_row_checksums
from gindex.documents.part_records import TableCounts
from gindex.store.files import FileRecord
from gindex.store.layout import Layout, VolumeLayout
from gindex.store.records import VolumeRecord
from gindex.store.vectors import SegmentRecord, VectorSpec, vector_metadata


def volume_record(
    number: int,
    first_document: int,
    first_part: int,
    counts: TableCounts,
    spec: VectorSpec,
    segments: Mapping[int, SegmentRecord],
    sources: Sequence[SourceFingerprint],
) -> VolumeRecord:
    """What is to be said of a finished volume."""
    return VolumeRecord(
        number=number,
        first_document=first_document,
        first_part=first_part,
        **asdict(counts),
        segment_parts=spec.segment_parts,
        skipped={ordinal: reason for segment in segments.values() for ordinal, reason in segment.skipped.items()},
        lost=[],
        sources=list(sources),
    )


def volume_files(layout: Layout, volume: VolumeLayout, segments: Mapping[int, SegmentRecord]) -> list[FileRecord]:
    """Write the checksums of the document table's rows, and give the records of all files of a finished volume."""
    write_row_checksums(volume.documents, volume.row_checksums)
    paths = [volume.documents, volume.row_checksums, *vector_metadata(volume)]
    plain = [FileRecord.of(layout.root, path) for path in paths]
    return plain + [file for n, segment in segments.items() for file in segment_records(layout, volume, n, segment)]


def segment_records(layout: Layout, volume: VolumeLayout, number: int, segment: SegmentRecord) -> list[FileRecord]:
    """The records of a segment's files, relative to the index's root."""
    folder = volume.folder.relative_to(layout.root).as_posix()
    shards = [replace(file, path=f"{folder}/{file.path}") for file in segment.files]
    return [*shards, FileRecord.of(layout.root, volume.segment(number))]
