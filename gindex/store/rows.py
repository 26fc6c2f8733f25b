"""Rows of a sharded Zarr array, memory-mapped through the shards' own indexes.

The arrays hold uncompressed chunks of whole rows, each followed by its CRC-32C, so a row lies in the file as it lies in
memory and reading it decodes nothing. A chunk's checksum is compared the first time that one of its rows is read.

Source: the sharding codec of Zarr v3 (ZEP 2). The shard index at the end of a file holds offset and length of each
chunk, little-endian uint64, then its own CRC-32C.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from gindex.errors import CorruptStoreError
from gindex.store.layout import REMEDY

_CRC_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class RowsSpec:
    """Shape of a stored array.

    Attributes:
        rows: Rows in all.
        width: Elements in a row; 0 for a one-dimensional array.
        dtype: Element type.
        shard_rows: Rows in a shard file.
        chunk_rows: Rows in a chunk; divides `shard_rows`.
    """

    rows: int
    width: int
    dtype: np.dtype[np.generic]
    shard_rows: int
    chunk_rows: int

    @property
    def row_bytes(self) -> int:
        """Bytes of a row."""
        return max(1, self.width) * self.dtype.itemsize

    @property
    def shards(self) -> int:
        """Number of shard files."""
        return -(-self.rows // self.shard_rows)

    def rows_in(self, shard: int) -> int:
        """Return how many rows a shard holds."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def shard_path(self, array: Path, shard: int) -> Path:
        """Return the file of a shard."""
        return array / "c" / str(shard) / "0" if self.width else array / "c" / str(shard)


class MappedRows:
    """Read access to the rows of one array."""

    def __init__(self, array: Path, spec: RowsSpec) -> None:
        """Map the array at `array`; shard files are opened when they are first needed."""
        self.spec = spec
        self._array = array
        self._shards: dict[int, _Shard] = {}

    def read(self, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Return rows [len(ordinals), width] in the order asked.

        Raises:
            CorruptStoreError: A shard is missing, truncated or altered.
        """
        rows = np.empty((len(ordinals), max(1, self.spec.width)), self.spec.dtype)
        for shard in np.unique(ordinals // self.spec.shard_rows):
            where = np.flatnonzero(ordinals // self.spec.shard_rows == shard)
            rows[where] = self._shard(int(shard)).read(ordinals[where] % self.spec.shard_rows)
        return rows if self.spec.width else rows[:, 0]

    def shards(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield the rows of every shard in order, one shard at a time."""
        for shard in range(self.spec.shards):
            start = shard * self.spec.shard_rows
            yield self.read(np.arange(start, start + self.spec.rows_in(shard)))

    def _shard(self, shard: int) -> "_Shard":
        if shard not in self._shards:
            self._shards[shard] = _Shard(self.spec.shard_path(self._array, shard), self.spec)
        return self._shards[shard]


class _Shard:
    """One mapped shard file."""

    def __init__(self, path: Path, spec: RowsSpec) -> None:
        self._path, self._spec = path, spec
        try:
            self._bytes: npt.NDArray[np.uint8] = np.memmap(path, np.uint8, mode="r")
        except (OSError, ValueError) as error:
            raise self._corrupt(f"a shard, found {error}") from error
        self._offsets = self._read_index()
        self._checked = np.zeros(len(self._offsets), bool)

    def read(self, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        chunks = rows // self._spec.chunk_rows
        for chunk in np.unique(chunks[~self._checked[chunks]]):
            self._check(int(chunk))
        starts = self._offsets[chunks] + rows % self._spec.chunk_rows * self._spec.row_bytes
        out = np.empty((len(rows), self._spec.row_bytes), np.uint8)
        for position, start in enumerate(starts):
            out[position] = self._bytes[start : start + self._spec.row_bytes]
        return out.view(self._spec.dtype)

    def _read_index(self) -> npt.NDArray[np.int64]:
        """Return each chunk's offset."""
        chunks = self._spec.shard_rows // self._spec.chunk_rows
        tail = self._bytes[-(chunks * 16 + _CRC_BYTES) :].tobytes()
        if len(tail) != chunks * 16 + _CRC_BYTES or not _crc_matches(tail):
            raise self._corrupt("a shard index with a matching checksum, found none")
        return np.frombuffer(tail[:-_CRC_BYTES], "<u8").reshape(chunks, 2)[:, 0].astype(np.int64)

    def _check(self, chunk: int) -> None:
        start = int(self._offsets[chunk])
        length = self._spec.chunk_rows * self._spec.row_bytes + _CRC_BYTES
        content = self._bytes[start : start + length].tobytes() if start >= 0 else b""
        if len(content) != length or not _crc_matches(content):
            raise self._corrupt(f"chunk {chunk} with a matching checksum, found none")
        self._checked[chunk] = True

    def _corrupt(self, what: str) -> CorruptStoreError:
        return CorruptStoreError(f"{self._path}: expected {what}; {REMEDY}")


def _crc_matches(content: bytes) -> bool:
    crc = int.from_bytes(content[-_CRC_BYTES:], "little")
    return int(google_crc32c.value(content[:-_CRC_BYTES])) == crc
