"""Checksums of the rows of a document table, in a file beside it.

A search shows a few documents of a table that may be larger than all else it reads. Rows that are looked up by their
ordinal are compared one by one with this file, so the table itself need not be read from end to end before.

Little-endian uint32: the CRC-32C of every document in the order of the ordinals, then of every part.
"""

import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import google_crc32c
import numpy as np
import numpy.typing as npt

from gindex.documents.schema import connect, translated_errors
from gindex.errors import CorruptStoreError
from gindex.files.atomic import publish

DOCUMENT_COLUMNS = ("ordinal", "id", "text", "metadata")
PART_COLUMNS = ("ordinal", "document", "part", "start", '"end"', "tokens", "token_count")

Sums = npt.NDArray[np.uint32]


@dataclass(frozen=True, kw_only=True)
class Guard:
    """What stands between a table and its reader.

    Attributes:
        whole: Compares the whole file with its checksum, once: before anything that looks through the table.
        rows: Gives what rows that are looked up by their ordinal are compared with.
    """

    whole: Callable[[], object]
    rows: Callable[[], "RowChecksums"]


class RowChecksums:
    """What the rows of a table must be."""

    def __init__(self, path: Path, first_document: int, first_part: int, documents: Sums, parts: Sums) -> None:
        """Join the checksums of a table's documents and parts with the ordinals of its first ones."""
        self._path = path
        self._kinds = {"document": (first_document, documents), "part": (first_part, parts)}

    @classmethod
    def read(cls, path: Path, table: Path, documents: range, parts: range) -> Self:
        """Read the file of a table.

        Args:
            path: The file.
            table: The table, which errors name.
            documents: Ordinals of its documents.
            parts: Ordinals of its parts.

        Raises:
            CorruptStoreError: It is not the file of such a table.
        """
        sums, rows = np.frombuffer(path.read_bytes(), "<u4").astype(np.uint32), len(documents) + len(parts)
        if len(sums) != rows:
            raise CorruptStoreError(
                field=path, expected=f"the checksums of {rows:,} rows", found=f"{len(sums):,}", remedy="restore it"
            )
        return cls(table, documents.start, parts.start, sums[: len(documents)], sums[len(documents) :])

    def check_document(self, row: tuple[Any, ...]) -> None:
        """Compare a document, its columns as in `DOCUMENT_COLUMNS`; nothing, where there are none.

        Raises:
            CorruptStoreError: It is another one.
        """
        if row:
            self._check("document", row)

    def check_part(self, row: tuple[Any, ...]) -> None:
        """Compare a part, its columns as in `PART_COLUMNS`.

        Raises:
            CorruptStoreError: It is another one.
        """
        self._check("part", row)

    def _check(self, kind: str, row: tuple[Any, ...]) -> None:
        first, sums = self._kinds[kind]
        place = row[0] - first
        if not 0 <= place < len(sums) or row_checksum(row) != sums[place]:
            raise CorruptStoreError(
                field=self._path,
                expected=f"{kind} {row[0]} as it was written",
                found="another checksum",
                remedy="restore the table or build the index again",
            )


def row_checksum(row: tuple[Any, ...]) -> int:
    """Return the CRC-32C of a row: of each value its type's name, length and bytes; numbers are written out."""
    content = b"".join(_encoded(value) for value in row)
    return int(google_crc32c.value(content))


def row_checksums(table: Path) -> bytes:
    """Return what the file of a finished table holds.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    with closing(connect(table)) as connection, translated_errors(table):
        documents = _sums(connection, "documents", DOCUMENT_COLUMNS)
        parts = _sums(connection, "parts", PART_COLUMNS)
    return np.concatenate([documents, parts]).astype("<u4").tobytes()


def write_row_checksums(table: Path, path: Path) -> None:
    """Publish the file of a finished table.

    Raises:
        CorruptStoreError: The table cannot be read.
    """
    content = row_checksums(table)
    publish(path, lambda partial: _write(partial, content))


def _sums(connection: sqlite3.Connection, table: str, columns: tuple[str, ...]) -> Sums:
    rows = connection.execute(f"SELECT {', '.join(columns)} FROM {table} ORDER BY ordinal")
    return np.fromiter((row_checksum(row) for row in rows), np.uint32)


def _encoded(value: Any) -> bytes:
    data = value if isinstance(value, bytes) else str(value).encode()
    return b"%s %d %b" % (type(value).__name__.encode(), len(data), data)


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
