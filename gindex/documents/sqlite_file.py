"""A file of SQLite that is opened when it is read; of all in a process, those that were used last stay open."""

import os
import sqlite3
from pathlib import Path

from gindex.documents.schema import connect
from gindex.files.open_files import FilePool
from gindex.thread_safety import Lock


class SQLiteFile:
    """A file of SQLite, opened when it is read."""

    def __init__(self, path: Path, lock: Lock) -> None:
        """Take the file's path, and the lock that its readers hold."""
        self.path, self.loading = path, lock
        self._opened: tuple[int, sqlite3.Connection] | None = None

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


OPENED = FilePool()
"""The tables that are open in this process."""

_inherited: list[sqlite3.Connection] = []
"""Connections of the process that this one was forked from, which it must not even close."""
