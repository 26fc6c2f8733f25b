"""Checksums of the rows of a document table, in a file beside it.

A search shows a few documents of a table that may be larger than everything else it reads. So rows that are looked up
by their ordinals are checked one by one, and the table need not be read from end to end before.

Little-endian uint32: the CRC-32C of every document in the order of the ordinals, then of every part; the checksum of a
part is over its entry in `losses` too, where it has one.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt

from gindex.documents.losses import stored_columns
from gindex.documents.schema import DOCUMENT_COLUMNS, connect, select_parts, translated_errors, version_of
from gindex.errors import CorruptStoreError
from gindex.files.atomic import publish

Sums = npt.NDArray[np.uint32]

SUM_BYTES = 4

_PIECE = 65536
"""Checksums that are held while a table is read."""

_BLOCK, _HELD = 1024, 256
"""Checksums that are read at once, and how many times as many are held."""


@dataclass(frozen=True, kw_only=True)
class Guard:
    """The checks of a table, made when they are needed.

    Attributes:
        whole: Compares the whole file with its checksum, once; called before anything that reads through the table.
        rows: Returns the checksums of the rows; called where rows are looked up by their ordinal.
        documents: Ordinals of its documents.
        parts: Ordinals of its parts.
    """

    whole: Callable[[], object]
    rows: Callable[[], "RowChecksums"]
    documents: range
    parts: range


class RowChecksums:
    """The recorded checksums of the rows of a table, some of which are held."""

    def __init__(self, path: Path, table: Path, documents: range, parts: range) -> None:
        """Look at the length of their file.

        Args:
            path: The file, which is known to be what was written.
            table: The table, which errors name.
            documents: Ordinals of its documents.
            parts: Ordinals of its parts.

        Raises:
            CorruptStoreError: The file has more or fewer checksums than the table has rows.
        """
        found, rows = path.stat().st_size // SUM_BYTES, len(documents) + len(parts)
        if found != rows:
            raise CorruptStoreError(
                field=path, expected=f"the checksums of {rows:,} rows", found=f"{found:,}", remedy="restore it"
            )
        self._path, self._table = path, table
        self._kinds = {"document": (documents, 0), "part": (parts, len(documents))}
        self._block = lru_cache(_HELD)(self._read)

    def check_document(self, row: tuple[Any, ...]) -> None:
        """Check a document, given its columns as in `DOCUMENT_COLUMNS`; without columns there is nothing to check.

        Raises:
            CorruptStoreError: It has another checksum.
        """
        if row:
            self._check("document", row)

    def check_part(self, row: tuple[Any, ...]) -> None:
        """Check a part, given its columns as `select_parts` gives them.

        Raises:
            CorruptStoreError: It has another checksum.
        """
        self._check("part", stored_columns(row))

    def _check(self, kind: str, row: tuple[Any, ...]) -> None:
        ordinals, before = self._kinds[kind]
        if row[0] not in ordinals or row_checksum(row) != self._sum(before + row[0] - ordinals.start):
            raise CorruptStoreError(
                field=self._table,
                expected=f"{kind} {row[0]} as it was written",
                found="another checksum",
                remedy="restore the table or build the index again",
            )

    def _sum(self, place: int) -> int:
        block, inner = divmod(place, _BLOCK)
        return int(self._block(block)[inner])

    def _read(self, block: int) -> Sums:
        with self._path.open("rb") as file:
            file.seek(block * _BLOCK * SUM_BYTES)
            return np.frombuffer(file.read(_BLOCK * SUM_BYTES), "<u4")


def row_checksum(row: tuple[Any, ...]) -> int:
    """Return the CRC-32C of a row, over the type, length and bytes of each value; numbers are written out."""
    content = b"".join(_encoded(value) for value in row)
    return int(google_crc32c.value(content))


def row_checksums(table: Path) -> Iterator[bytes]:
    """Yield the content of the checksum file of a finished table, in pieces.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    with closing(connect(table)) as connection, translated_errors(table):
        yield from _sums(connection.execute(f"SELECT {', '.join(DOCUMENT_COLUMNS)} FROM documents ORDER BY ordinal"))
        rows = connection.execute(f"{select_parts(version_of(connection))} ORDER BY p.ordinal")
        yield from _sums(map(stored_columns, rows))


def are_row_checksums(path: Path, table: Path) -> bool:
    """Whether a file is the checksum file of a table.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    with path.open("rb") as file:
        return all(file.read(len(piece)) == piece for piece in row_checksums(table)) and not file.read(1)


def write_row_checksums(table: Path, path: Path) -> None:
    """Publish the checksum file of a finished table.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    publish(path, lambda partial: _write(partial, row_checksums(table)))


def _sums(rows: Iterable[tuple[Any, ...]]) -> Iterator[bytes]:
    sums = map(row_checksum, rows)
    while some := list(islice(sums, _PIECE)):
        yield np.array(some, "<u4").tobytes()


def _encoded(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"%s %d %b" % (type(value).__name__.encode(), len(data), data)


def _write(path: Path, pieces: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(pieces)
