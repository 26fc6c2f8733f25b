"""The vectors of a volume: a Zarr v3 group that any Zarr library reads.

Three sharded arrays with one shard file a segment: `codes`, `scales` and `self_influence`. A segment's shards are
written aside through Zarr, then renamed into the arrays.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gindex.errors import CorruptStoreError
from gindex.files.atomic import make_folder, publish_written, remove_tree, sync
from gindex.store.files import FileRecord, read_json, write_json
from gindex.store.layout import VolumeLayout
from gindex.store.rows import MappedRows, RowsSpec, chunk_checksums, combined
from gindex.store.values import record_of, values_of

CHUNK_ROWS = 64
"""Rows of codes in a chunk; segments are multiples of it."""

SHARD_BYTES = 64 << 20
"""Most bytes of codes in a shard."""


def code_bytes(dimension: int, bits: int) -> int:
    """Bytes of a part's codes, scales apart."""
    return dimension * bits // 8


def choose_segment_parts(parts: int, row_bytes: int) -> int:
    """How many parts make a segment: about a sixteenth of the corpus, in shards of at most `SHARD_BYTES`."""
    most = max(CHUNK_ROWS, SHARD_BYTES // row_bytes // CHUNK_ROWS * CHUNK_ROWS)
    return int(min(most, max(CHUNK_ROWS, -(-parts // 16 // CHUNK_ROWS) * CHUNK_ROWS)))


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """Shape of a volume's vectors: parts in all and in a segment, dimension, bits, slices of the layer groups."""

    parts: int
    segment_parts: int
    dimension: int
    bits: int
    slices: tuple[tuple[int, int], ...]

    @property
    def segments(self) -> int:
        """Number of segments."""
        return -(-self.parts // self.segment_parts)

    def segment_range(self, number: int) -> range:
        """Rows of a segment."""
        start = number * self.segment_parts
        return range(start, min(start + self.segment_parts, self.parts))

    @property
    def arrays(self) -> dict[str, RowsSpec]:
        """The arrays by name."""
        wide = self.bits == 16
        codes = self.dimension if wide else code_bytes(self.dimension, self.bits)
        return {
            "codes": self._rows(codes, np.float16 if wide else np.uint8, CHUNK_ROWS),
            "scales": self._rows(len(self.slices), np.float32, self.segment_parts),
            "self_influence": self._rows(0, np.float32, self.segment_parts),
        }

    def _rows(self, width: int, dtype: type[np.generic], chunk_rows: int) -> RowsSpec:
        return RowsSpec(
            rows=self.parts,
            width=width,
            dtype=np.dtype(dtype),
            shard_rows=self.segment_parts,
            chunk_rows=chunk_rows,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CodedVectors:
    """Codes, scales and self-influence of some parts, on the CPU."""

    codes: npt.NDArray[np.generic]
    scales: npt.NDArray[np.float32]
    self_influence: npt.NDArray[np.float32]


def empty_coded(spec: VectorSpec, parts: int) -> CodedVectors:
    """Room for so many parts, all zeros."""
    codes = spec.arrays["codes"]
    return CodedVectors(
        codes=np.zeros((parts, codes.width), codes.dtype),
        scales=np.zeros((parts, len(spec.slices)), np.float32),
        self_influence=np.zeros(parts, np.float32),
    )


@dataclass(frozen=True, kw_only=True)
class SegmentRecord:
    """A finished segment: its shards, and the parts without a vector, by ordinal, with the reason.

    Attributes:
        files: Its shards, relative to the volume's folder.
        skipped: Parts without a vector, by ordinal, with the reason.
        chunks: `chunk_checksums` of each shard, by path, in hexadecimal digits; empty in older records.
    """

    files: list[FileRecord]
    skipped: dict[str, str]
    chunks: dict[str, str] = field(default_factory=dict)


class VectorWriter:
    """Writes segments; each is published whole."""

    def __init__(self, volume: VolumeLayout, spec: VectorSpec) -> None:
        """Make the Zarr group if it isn't there yet."""
        self._volume, self._spec = volume, spec
        if not (volume.vectors / "zarr.json").is_file():
            self._create()

    def finished(self, number: int) -> SegmentRecord | None:
        """The record of a segment that is published, its files whole; None where it must be written."""
        try:
            found = record_of(SegmentRecord, read_json(self._volume.segment(number)))
            for file in found.files:
                file.check_content(self._volume.folder)
        except (CorruptStoreError, ValueError):
            return None
        return found

    def write(self, number: int, vectors: CodedVectors, skipped: dict[int, str]) -> SegmentRecord:
        """Publish a segment: its shards, then the record that names them.

        Args:
            number: Which segment.
            vectors: All its parts.
            skipped: Parts without a vector, by ordinal, with the reason; their vectors are zeros.
        """
        staging = self._volume.staging / f"segment-{number:05d}"
        remove_tree(staging)
        files, chunks = [], {}
        for name, rows in self._spec.arrays.items():
            values = getattr(vectors, name)
            array = _zarr_array(staging / name, rows, len(values))
            array[:] = values
            target = rows.shard_path(self._volume.vectors / name, number)
            publish_written(rows.shard_path(staging / name, 0), target)
            checksums = chunk_checksums(target, rows)
            files.append(FileRecord.of(self._volume.folder, target, combined(checksums)))
            chunks[files[-1].path] = checksums.hex()
        segment = SegmentRecord(
            files=files,
            skipped={str(ordinal): reason for ordinal, reason in sorted(skipped.items())},
            chunks=chunks,
        )
        write_json(self._volume.segment(number), values_of(segment))
        remove_tree(staging)
        return segment

    def _create(self) -> None:
        import zarr

        staging = self._volume.staging / "vectors"
        remove_tree(staging)
        remove_tree(self._volume.vectors)
        group = zarr.create_group(staging)
        group.attrs["gindex"] = {
            "bits": self._spec.bits,
            "dimension": self._spec.dimension,
            "slices": [list(bounds) for bounds in self._spec.slices],
        }
        for name, rows in self._spec.arrays.items():
            _zarr_array(staging / name, rows, rows.rows)
        for path in sorted(staging.rglob("zarr.json"), reverse=True):
            sync(path)
            sync(path.parent)
        make_folder(self._volume.folder)
        staging.replace(self._volume.vectors)
        sync(self._volume.folder)


class VolumeReader:
    """Reads the stored vectors of a volume, any rows in any order."""

    def __init__(self, volume: VolumeLayout, spec: VectorSpec, recorded: Mapping[Path, str] | None = None) -> None:
        """Map the arrays.

        Args:
            volume: Where they are.
            spec: Their shape.
            recorded: The manifest's checksums of each shard's chunks; None compares nothing, as while it is written.
        """
        self.spec, self._volume = spec, volume
        self._listed = cache(self._read_listed)
        self._rows = {
            name: MappedRows(volume.vectors / name, rows, recorded or {}, self._chunks_of)
            for name, rows in spec.arrays.items()
        }

    def read(self, name: str, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Rows of the array `name` as they are stored."""
        return self._rows[name].read(rows)

    def _chunks_of(self, shard: Path, number: int) -> bytes | None:
        """The checksums of a shard's chunks as the segment's record lists them; None where it doesn't."""
        return self._listed(number).get(shard.relative_to(self._volume.folder).as_posix())

    def _read_listed(self, segment: int) -> dict[str, bytes]:
        try:
            chunks = record_of(SegmentRecord, read_json(self._volume.segment(segment))).chunks
            return {name: bytes.fromhex(checksums) for name, checksums in chunks.items()}
        except (CorruptStoreError, ValueError):
            return {}  # the shards can do without


def vector_metadata(volume: VolumeLayout) -> list[Path]:
    """The files that describe the arrays to Zarr."""
    return sorted(volume.vectors.rglob("zarr.json"))


def _zarr_array(path: Path, rows: RowsSpec, count: int) -> "zarr.Array":  # type: ignore[name-defined]  # noqa: F821
    """Create an array of `count` rows."""
    import zarr
    from zarr.codecs import Crc32cCodec

    width = (rows.width,) if rows.width else ()
    return zarr.create_array(
        path,
        shape=(count, *width),
        shards=(rows.shard_rows, *width),
        chunks=(rows.chunk_rows, *width),
        dtype=rows.dtype,
        compressors=[Crc32cCodec()],
        filters=None,
        fill_value=0,
        config={"write_empty_chunks": True},
    )
