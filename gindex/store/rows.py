"""Rows of a sharded Zarr array, memory-mapped through the shards' own indexes.

The arrays hold uncompressed chunks of whole rows, each followed by its CRC-32C, so a row lies in the file as it lies in
memory and reading it decodes nothing. That the chunks' checksums are those of the manifest is compared when a shard is
mapped; a chunk with its checksum, the first time that one of its rows is read after that. Of all shards, those that
were read last stay mapped. The segment's record lists them: in the shard
they lie a chunk apart, and reading them there reads half of it from a disk.

Source: the sharding codec of Zarr v3 (ZEP 2). The shard index at the end of a file holds offset and length of each
chunk, little-endian uint64, then its own CRC-32C.
"""

import itertools
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import google_crc32c
import numpy as np
import numpy.typing as npt

from gindex.errors import CorruptStoreError
from gindex.files.open_files import FilePool, check_shortage
from gindex.store.layout import REMEDY

MAPPED = FilePool()
"""The shards that are mapped in this process."""

SHARDS_AT_ONCE = 32
"""Shards of an array that are read at once."""

_CRC_BYTES = 4
_NO_CHUNK = -1


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
    def shard_chunks(self) -> int:
        """Chunks in a shard."""
        return self.shard_rows // self.chunk_rows

    @property
    def shards(self) -> int:
        """Number of shard files."""
        return -(-self.rows // self.shard_rows)

    def rows_in(self, shard: int) -> int:
        """How many rows a shard holds."""
        return min(self.shard_rows, self.rows - shard * self.shard_rows)

    def shard_path(self, array: Path, shard: int) -> Path:
        """The file of a shard."""
        return array / "c" / str(shard) / "0" if self.width else array / "c" / str(shard)


class MappedRows:
    """Read access to the rows of one array."""

    def __init__(
        self,
        array: Path,
        spec: RowsSpec,
        recorded: Mapping[Path, str],
        listed: Callable[[Path, int], bytes | None] = lambda _path, _shard: None,
    ) -> None:
        """Map the array at `array`; shard files are opened when they are first needed.

        Args:
            array: Folder of the array.
            spec: Its shape.
            recorded: What `combined` must make of each shard's chunk checksums; a shard that is not in it is not
                compared.
            listed: Gives what `chunk_checksums` returned of a shard when it was written, by path and number; None where
                that is not known, and read from the shard.
        """
        self.spec = spec
        self._array, self._recorded, self._listed = array, recorded, listed
        self._mapped: dict[int, _Shard] = {}

    def read(self, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.generic]:
        """Rows [len(ordinals), width] in the order asked; it is quicker where they ascend.

        Raises:
            CorruptStoreError: A shard is missing, truncated or altered.
            ResourceError: The system lets no more files be opened or mapped.
        """
        if len(ordinals) and not 0 <= ordinals.min() <= ordinals.max() < self.spec.rows:
            raise CorruptStoreError(
                field=self._array,
                expected=f"rows from 0 to {self.spec.rows - 1:,}",
                found=f"{ordinals.min():,} to {ordinals.max():,}",
                remedy=REMEDY,
            )
        shards, places = np.divmod(ordinals, self.spec.shard_rows)
        order = None if (shards[1:] >= shards[:-1]).all() else np.argsort(shards, kind="stable")
        if order is not None:
            shards, places = shards[order], places[order]
        rows = np.empty((len(ordinals), self.spec.row_bytes), np.uint8)
        runs = _runs(shards)
        at_once = 1 if len(runs) < 2 else min(SHARDS_AT_ONCE, MAPPED.most)
        for start in range(0, len(runs), at_once):
            pieces = [(self._shard(int(shards[a])), slice(a, b)) for a, b in runs[start : start + at_once]]
            for shard, some in pieces:  # the system begins to read all of them
                shard.fetch(places[some])
            for shard, some in pieces:
                shard.copy(places[some], rows[some])
        if order is not None:
            unsorted = np.empty_like(rows)
            unsorted[order] = rows
            rows = unsorted
        values: npt.NDArray[np.generic] = rows.view(self.spec.dtype)
        return values if self.spec.width else values[:, 0]

    def shards(self) -> Iterator[npt.NDArray[np.generic]]:
        """Yield the rows of every shard in order, one shard at a time."""
        for shard in range(self.spec.shards):
            start = shard * self.spec.shard_rows
            yield self.read(np.arange(start, start + self.spec.rows_in(shard)))

    def release(self, number: int) -> None:
        """Let go of a mapped shard; who reads it now has it until then."""
        self._mapped.pop(number, None)

    def _shard(self, number: int) -> "_Shard":
        shard = self._mapped.get(number)
        if shard is None:
            path = self.spec.shard_path(self._array, number)
            recorded = self._recorded.get(path)
            listed = None if recorded is None else self._listed(path, number)
            shard = self._mapped[number] = _Shard(path, self.spec, recorded, listed)
        MAPPED.use(self, number)
        return shard


def _runs(shards: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    """Start and stop of each run of equal numbers, which ascend."""
    if len(shards) and shards[0] == shards[-1]:  # as in a small volume
        return [(0, len(shards))]
    edges = np.flatnonzero(np.diff(shards, prepend=-1, append=-1)).tolist()
    return list(itertools.pairwise(edges))


def chunk_checksums(path: Path, spec: RowsSpec) -> bytes:
    """The CRC-32C of each of a shard's chunks, four bytes each.

    Raises:
        CorruptStoreError: It is no shard.
    """
    return _Shard(path, spec).chunk_checksums()


def combined(checksums: bytes) -> str:
    """The CRC-32C of the checksums of a shard's chunks, eight hexadecimal digits."""
    return f"{google_crc32c.value(checksums):08x}"


class _Shard:
    """One mapped shard file."""

    def __init__(self, path: Path, spec: RowsSpec, recorded: str | None = None, listed: bytes | None = None) -> None:
        self._path, self._spec = path, spec
        self._chunk_bytes = spec.chunk_rows * spec.row_bytes
        try:
            with path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            check_shortage(error, path)
            raise self._corrupt(f"a shard, found {error}") from error
        # Of the rows around one that is read, those are wanted that `fetch` asks for.
        self._map.madvise(mmap.MADV_RANDOM)
        self._bytes: npt.NDArray[np.uint8] = np.frombuffer(self._map, np.uint8)
        self._offsets = self._read_index()
        if recorded is not None:
            listed = listed or self.chunk_checksums()
            if combined(listed) != recorded:
                raise self._corrupt("the shard that the manifest names, found another one")
        self._listed = None if listed is None else np.frombuffer(listed, "<u4")
        self._checked = np.zeros(spec.shard_chunks, bool)
        # Every stretch of the file that is as long as a row, by where it begins: indexing it copies rows, and no more.
        self._windows = np.lib.stride_tricks.sliding_window_view(self._bytes, spec.row_bytes)

    def chunk_checksums(self) -> bytes:
        ends = self._offsets[self._offsets != _NO_CHUNK] + self._chunk_bytes
        if len(ends) and (ends.min() < self._chunk_bytes or ends.max() + _CRC_BYTES > len(self._bytes)):
            raise self._corrupt("chunks within the file, found some outside")
        return bytes(self._bytes[ends[:, None] + np.arange(_CRC_BYTES)].tobytes())

    def fetch(self, places: npt.NDArray[np.int64]) -> None:
        """Let the system begin to read the chunks of some rows, by their places, that are not checked yet."""
        for chunk in self._unchecked(places):
            start = int(self._offsets[chunk])
            if 0 <= start < len(self._bytes):
                aligned = start - start % mmap.PAGESIZE
                self._map.madvise(mmap.MADV_WILLNEED, aligned, start + self._chunk_bytes + _CRC_BYTES - aligned)

    def copy(self, places: npt.NDArray[np.int64], rows: npt.NDArray[np.uint8]) -> None:
        """Copy the rows at some places to `rows`, once their chunks are compared with their checksums."""
        self._check_length()
        for chunk in self._unchecked(places):
            self._check(chunk)
        chunks, inner = np.divmod(places, self._spec.chunk_rows)
        rows[:] = self._windows[self._offsets[chunks] + inner * self._spec.row_bytes]

    def _unchecked(self, places: npt.NDArray[np.int64]) -> list[int]:
        if self._checked.all():
            return []
        chunks = places // self._spec.chunk_rows
        return [int(chunk) for chunk in np.unique(chunks[~self._checked[chunks]])]

    def _check(self, chunk: int) -> None:
        """Compare a chunk with its checksum."""
        start, length = int(self._offsets[chunk]), self._chunk_bytes + _CRC_BYTES
        content = self._bytes[max(0, start) : start + length]
        if start < 0 or len(content) != length or not _crc_matches(content):
            raise self._corrupt(f"chunk {chunk} with a matching checksum, found none")
        if self._listed is not None and content[-_CRC_BYTES:].view("<u4")[0] != self._listed[chunk]:
            raise self._corrupt(f"chunk {chunk} of the shard that the manifest names, found another one")
        self._checked[chunk] = True

    def _read_index(self) -> npt.NDArray[np.int64]:
        """Each chunk's offset."""
        chunks = self._spec.shard_chunks
        tail = self._bytes[-(chunks * 16 + _CRC_BYTES) :]
        if len(tail) != chunks * 16 + _CRC_BYTES or not _crc_matches(tail):
            raise self._corrupt("a shard index with a matching checksum, found none")
        return np.frombuffer(tail[:-_CRC_BYTES], "<u8").reshape(chunks, 2)[:, 0].astype(np.int64)

    def _check_length(self) -> None:
        """Refuse a file that was cut short since it was mapped: a page beyond its end would end the process."""
        with suppress(FileNotFoundError):  # what is mapped outlives its name
            if os.stat(self._path).st_size < len(self._bytes):
                raise self._corrupt(f"{len(self._bytes):,} bytes, found the file cut short")

    def _corrupt(self, what: str) -> CorruptStoreError:
        return CorruptStoreError(field=self._path, expected=what, remedy=REMEDY)


def _crc_matches(content: npt.NDArray[np.uint8]) -> bool:
    crc = int.from_bytes(content[-_CRC_BYTES:].tobytes(), "little")
    return int(google_crc32c.value(content[:-_CRC_BYTES])) == crc
