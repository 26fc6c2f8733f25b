"""One file of the document tables of an index, opened when it is read, with its checks."""

import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from gindex.documents.checksums import Guard, RowChecksums
from gindex.documents.schema import connect, translated_errors, version_of
from gindex.files.open_files import FilePool
from gindex.thread_safety import Lock

Parameters = Sequence[int | float | str]
"""Values of a statement, in order."""


class TableFile:
    """The open file of a table with its checks; these are None where no checksum is recorded, as during a build.

    Of all files, those that were used last stay open.
    """

    def __init__(self, path: Path, guard: Guard | None, lock: Lock) -> None:
        """Open a file.

        Args:
            path: The file.
            guard: What it is compared with.
            lock: Held while it is read.
        """
        self.path, self.guard, self._lock = path, guard, lock
        self._opened: tuple[int, sqlite3.Connection] | None = None
        with translated_errors(path):
            self.version = version_of(self.connection)

    @property
    def connection(self) -> sqlite3.Connection:
        """The open file. A forked process opens its own, as SQLite demands."""
        if self._opened is None or self._opened[0] != os.getpid():
            self.release()
        opened = self._opened or (os.getpid(), connect(self.path))
        self._opened = opened
        OPENED.use(self)
        return opened[1]

    def release(self, _number: int = 0) -> None:
        """Let go of the open file; who reads it now has it until then."""
        opened, self._opened = self._opened, None
        if opened is not None and opened[0] != os.getpid():
            _inherited.append(opened[1])

    def close(self) -> None:
        """Close the file."""
        opened = self._opened
        self.release()
        if opened is not None and opened[0] == os.getpid():
            opened[1].close()

    def parts_among(self, parts: Sequence[int]) -> Sequence[int]:
        """Those of some parts that are in this table as far as is known."""
        return parts if self.guard is None else [part for part in parts if part in self.guard.parts]

    def documents_among(self, documents: Sequence[int]) -> Sequence[int]:
        """Those of some documents that are in this table as far as is known."""
        return documents if self.guard is None else [of for of in documents if of in self.guard.documents]

    def fetch(self, statement: str, parameters: Parameters) -> list[Any]:
        """The rows that a statement gives, which are to be `checked`; the whole file is not."""
        with self._lock, translated_errors(self.path):
            return self.connection.execute(statement, parameters).fetchall()

    def checked(self, row: tuple[Any, ...], check: Callable[[RowChecksums, tuple[Any, ...]], None]) -> None:
        """Compare a row with its checksum."""
        if self.guard is not None:
            with self._lock:
                sums = self.guard.rows()
            check(sums, row)

    def compare(self) -> None:
        """Check the whole file, once."""
        if self.guard is not None:
            self.guard.whole()


OPENED = FilePool()
"""The tables that are open in this process."""

_inherited: list[sqlite3.Connection] = []
"""Connections of the process that this one was forked from, which it must not even close."""
