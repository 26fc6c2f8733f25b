"""One file of the document tables of an index, opened when it is read, with its checks."""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gindex.documents.checksums import Guard, RowChecksums
from gindex.documents.field_index import FieldIndex
from gindex.documents.schema import asked_errors, limited, translated_errors, version_of
from gindex.documents.sqlite_file import SQLiteFile
from gindex.thread_safety import Lock

Parameters = Sequence[int | float | str]
"""Values of a statement, in order."""


class TableFile(SQLiteFile):
    """The file of a table with its checks; these are None where no checksum is recorded, as during a build."""

    def __init__(self, path: Path, guard: Guard | None, lock: Lock, fields: FieldIndex | None = None) -> None:
        """Open a file.

        Args:
            path: The file.
            guard: What it is compared with.
            lock: Held while it is read.
            fields: The index of some fields of its documents, in a file beside it.
        """
        super().__init__(path, lock)
        self.guard, self.fields = guard, fields
        with translated_errors(path):
            self.version = version_of(self.connection)

    def parts_among(self, parts: Sequence[int]) -> Sequence[int]:
        """Those of some parts that are in this table as far as is known."""
        return parts if self.guard is None else [part for part in parts if part in self.guard.parts]

    def documents_among(self, documents: Sequence[int]) -> Sequence[int]:
        """Those of some documents that are in this table as far as is known."""
        return documents if self.guard is None else [of for of in documents if of in self.guard.documents]

    def fetch(self, statement: str, parameters: Parameters) -> list[Any]:
        """The rows that a statement gives, which are to be `checked`; the whole file is not."""
        with self.loading, translated_errors(self.path):
            return self.connection.execute(statement, parameters).fetchall()

    def asked(self, statement: str, parameters: Parameters, seconds: float | None) -> list[Any]:
        """The rows that a statement with what a caller asks for gives, once the whole file is checked.

        Args:
            statement: Selects them.
            parameters: Its parameters.
            seconds: Longest time that it may take; None for no limit.

        Raises:
            FilterError: SQLite refuses the statement.
        """
        with self.asking(seconds) as connection:
            return connection.execute(statement, parameters).fetchall()

    @contextmanager
    def asking(self, seconds: float | None) -> Iterator[sqlite3.Connection]:
        """The open file for statements with what a caller asks for, once it is checked as a whole.

        Args:
            seconds: Longest time that they may take together; None for no limit.

        Raises:
            FilterError: SQLite refuses one.
        """
        with self.loading, asked_errors(self.path), limited(self.connection, seconds):
            self.compare()
            yield self.connection

    def checked(self, row: tuple[Any, ...], check: Callable[[RowChecksums, tuple[Any, ...]], None]) -> None:
        """Compare a row with its checksum."""
        if self.guard is not None:
            with self.loading:
                sums = self.guard.rows()
            check(sums, row)

    def compare(self) -> None:
        """Check the whole file, once."""
        if self.guard is not None:
            self.guard.whole()
