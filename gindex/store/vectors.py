"""The vectors of an index: a Zarr v3 group that any Zarr library reads.

Three sharded arrays with one shard file a segment: `codes`, `scales` and `self_influence`. A segment's shards are
written aside through Zarr, then renamed into the arrays.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gindex.atomic import publish_written, remove_tree, sync
from gindex.gradient.codes import code_bytes, decode
from gindex.store.layout import Layout
from gindex.store.manifest import FileRecord, read_json, write_json
from gindex.store.rows import MappedRows, RowsSpec

CHUNK_ROWS = 64
"""Rows of codes in a chunk; segments are multiples of it."""

SHARD_BYTES = 64 << 20
"""Most bytes of codes in a shard."""


def choose_segment_parts(parts: int, row_bytes: int) -> int:
    """Return how many parts make a segment: about a sixteenth of the corpus, in shards of at most `SHARD_BYTES`."""
    most = max(CHUNK_ROWS, SHARD_BYTES // row_bytes // CHUNK_ROWS * CHUNK_ROWS)
    return int(min(most, max(CHUNK_ROWS, -(-parts // 16 // CHUNK_ROWS) * CHUNK_ROWS)))


@dataclass(frozen=True, kw_only=True)
class VectorSpec:
    """Shape of the stored vectors: parts in all and in a segment, dimension, bits, slices of the layer groups."""

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
        """Part ordinals of a segment."""
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


class VectorWriter:
    """Writes segments; each is published whole."""

    def __init__(self, layout: Layout, spec: VectorSpec) -> None:
        """Make the Zarr group if it isn't there yet."""
        self._layout, self._spec = layout, spec
        if not (layout.vectors / "zarr.json").is_file():
            self._create()

    def is_finished(self, number: int) -> bool:
        """Say whether a segment is published, its files there in full length."""
        path = self._layout.segment(number)
        if not path.is_file():
            return False
        for file in read_json(path)["files"]:
            FileRecord(**file).check_length(self._layout.root)
        return True

    def write(self, number: int, vectors: CodedVectors, skipped: dict[int, str]) -> None:
        """Publish a segment: its shards, then the record that names them.

        Args:
            number: Which segment.
            vectors: All its parts.
            skipped: Parts without a vector, by ordinal, with the reason; their vectors are zeros.
        """
        staging = self._layout.staging / f"segment-{number:05d}"
        remove_tree(staging)
        files = []
        for name, rows in self._spec.arrays.items():
            values = getattr(vectors, name)
            array = _zarr_array(staging / name, rows, len(values))
            array[:] = values
            target = rows.shard_path(self._layout.vectors / name, number)
            publish_written(rows.shard_path(staging / name, 0), target)
            files.append(FileRecord.of(self._layout.root, target))
        write_json(
            self._layout.segment(number),
            {
                "files": [vars(file) for file in files],
                "skipped": {str(ordinal): reason for ordinal, reason in skipped.items()},
            },
        )
        remove_tree(staging)

    def _create(self) -> None:
        import zarr

        staging = self._layout.staging / "vectors"
        remove_tree(staging)
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
        staging.replace(self._layout.vectors)
        sync(self._layout.root)


def vector_files(layout: Layout, spec: VectorSpec) -> list[FileRecord]:
    """Return the records of all files of the vectors."""
    metadata = [FileRecord.of(layout.root, path) for path in sorted(layout.vectors.rglob("zarr.json"))]
    return metadata + [
        FileRecord(**file) for number in range(spec.segments) for file in read_json(layout.segment(number))["files"]
    ]


def skipped_parts(layout: Layout, spec: VectorSpec) -> dict[str, str]:
    """Return the parts without a vector, by ordinal, with the reason."""
    skipped: dict[str, str] = {}
    for number in range(spec.segments):
        skipped |= read_json(layout.segment(number))["skipped"]
    return skipped


class VectorReader:
    """Reads stored vectors, any rows in any order."""

    def __init__(self, layout: Layout, spec: VectorSpec) -> None:
        """Map the arrays of a finished index."""
        self.spec = spec
        self._rows = {name: MappedRows(layout.vectors / name, rows) for name, rows in spec.arrays.items()}

    def decoded(self, ordinals: npt.NDArray[np.int64]) -> Tensor:
        """Return the vectors [N, D] of part ordinals [N], float32."""
        codes = torch.from_numpy(self._rows["codes"].read(ordinals))
        scales = torch.from_numpy(self._rows["scales"].read(ordinals))
        return decode(codes, scales, self.spec.bits, self.spec.slices)

    def self_influence(self, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
        """Return the self-influence [N] of part ordinals [N]."""
        return self._rows["self_influence"].read(ordinals).astype(np.float32)


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
