"""The file of an ivf index, written list by list: no more of it is in memory than a piece.

Parts are encoded in pieces, whose lists go to a scratch file; the lists of the index are those of all pieces, one after
the other, and so are those of earlier files with the same centres. In each list the parts are in the order of their
ordinals, so what comes out is the file that FAISS would write of the same index in memory.

Axes: N parts, L lists, B bytes of a code.

Source: FAISS, impl/index_write.cpp and faiss.contrib.ondisk, which merges lists likewise.
"""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from gindex.ann.centres import Centres, Ordinals, Vectors
from gindex.ann.library import read_index, translated_errors
from gindex.files.atomic import publish

ID_BYTES = 8

ROWS = 4096
"""Codes that are put in order at once."""

EMPTY = b"sprs" + struct.pack("<Q", 0)
"""How FAISS ends the file of an ivf index with empty lists: none is named. Filled ones follow their sizes instead."""

Bytes = memoryview | bytes
Sizes = npt.NDArray[np.int64]


class Lists(Protocol):
    """Lists of some parts."""

    @property
    def sizes(self) -> Sizes:
        """Parts in each."""

    def codes(self, number: int) -> Bytes:
        """The codes of a list, one after the other."""

    def ids(self, number: int) -> Bytes:
        """The ids of its parts, little-endian int64."""


class EarlierLists:
    """The lists of a file."""

    def __init__(self, faiss: Any, path: Path, first: int) -> None:
        """Map a file.

        Args:
            faiss: The module.
            path: Where it is.
            first: What its first part is numbered in the new file.

        Raises:
            CorruptStoreError: The file is missing, or holds no index.
            ResourceError: The system lets no more files be opened or mapped.
        """
        self._faiss, self._first = faiss, first
        self._index = read_index(faiss, path, faiss.IO_FLAG_MMAP_IFC)
        self._lists = self._index.invlists
        self.sizes = np.array([self._lists.list_size(number) for number in range(self._index.nlist)], np.int64)

    def codes(self, number: int) -> Bytes:
        """The codes of a list."""
        return self._view(self._lists.get_codes(number), self.sizes[number] * self._index.code_size, np.uint8).data

    def ids(self, number: int) -> Bytes:
        """The ids of its parts."""
        ids_N = self._view(self._lists.get_ids(number), self.sizes[number], np.int64)
        return (ids_N + self._first).astype("<i8").data

    def _view(self, pointer: Any, size: int, kind: type[np.generic]) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] = self._faiss.rev_swig_ptr(pointer, int(size)) if size else np.zeros(0, kind)
        return found


@dataclass(frozen=True, eq=False)
class _Piece:
    """Lists in a scratch file: all codes, then all ids."""

    file: IO[bytes]
    start: int
    code_size: int
    sizes: Sizes
    stops: Sizes

    def codes(self, number: int) -> Bytes:
        return self._read(number, 0, self.code_size)

    def ids(self, number: int) -> Bytes:
        return self._read(number, int(self.stops[-1]) * self.code_size, ID_BYTES)

    def _read(self, number: int, offset: int, width: int) -> bytes:
        size = int(self.sizes[number])
        self.file.seek(self.start + offset + (int(self.stops[number]) - size) * width)
        return self.file.read(size * width)


class Scratch:
    """A file of pieces, on which an ivf index is built; a context manager that removes it."""

    def __init__(self, path: Path) -> None:
        """Begin an empty one at a path of which nothing is kept."""
        self._path = path

    def __enter__(self) -> "Scratch":
        self._file = self._path.open("w+b")
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)

    def piece(self, centres: Centres, parts: int, blocks: Iterable[tuple[Ordinals, Vectors]]) -> Lists:
        """Encode parts, and write their lists.

        Args:
            centres: What the lists are around.
            parts: How many there are: no more than fit into memory as codes.
            blocks: Their ids and folded vectors, in order.
        """
        lists_N, ids_N = np.empty(parts, np.int32), np.empty(parts, "<i8")
        codes_NB, done = np.empty((parts, centres.index.code_size), np.uint8), 0
        for block, vectors_NF in blocks:
            some = slice(done, done + len(block))
            lists_N[some], codes_NB[some] = centres.encode(vectors_NF)
            ids_N[some], done = block, some.stop
        order = np.argsort(lists_N, kind="stable")
        sizes = np.bincount(lists_N, minlength=centres.index.nlist).astype(np.int64)
        start = self._file.seek(0, 2)
        for at in range(0, parts, ROWS):
            self._file.write(codes_NB[order[at : at + ROWS]].data)
        self._file.write(ids_N[order].data)
        return _Piece(self._file, start, centres.index.code_size, sizes, np.cumsum(sizes))


def write_lists(faiss: Any, centres: Centres, lists: Sequence[Lists], path: Path) -> None:
    """Publish an ivf index whose lists are those of several, one after the other.

    Args:
        faiss: The module.
        centres: What the lists are around.
        lists: Lists of parts, in the order of the ordinals.
        path: Where.

    Raises:
        StoreError: It cannot be written.
    """
    index, sizes = centres.index, np.sum([of.sizes for of in lists], axis=0)

    def write(partial: Path) -> None:
        index.ntotal = int(sizes.sum())
        try:
            faiss.write_index(index, str(partial))
        finally:
            index.ntotal = 0
        with partial.open("r+b") as file:
            file.seek(-len(EMPTY), 2)
            if file.read() != EMPTY:
                raise RuntimeError("this FAISS writes empty lists in another way")
            file.seek(-len(EMPTY), 2)
            file.write(b"full" + struct.pack("<Q", len(sizes)) + sizes.astype("<u8").tobytes())
            for number in np.flatnonzero(sizes).tolist():
                for of in lists:
                    file.write(of.codes(number))
                for of in lists:
                    file.write(of.ids(number))

    with translated_errors(path):
        publish(path, write)
