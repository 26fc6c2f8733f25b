"""A register of the ids of a corpus with the place of each, in bounded memory."""

import sqlite3
from types import TracebackType
from typing import Self

from gindex.errors import CorpusError

_CACHE_BYTES = 256 << 20
"""Bytes of pages in memory; ids in no order would have a smaller cache written and read again and again."""


class IdRegister:
    """The places of all ids so far; SQLite moves them to a temporary file once they outgrow its page cache."""

    def __init__(self) -> None:
        self._connection = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._connection.execute(f"PRAGMA cache_size = {-_CACHE_BYTES // 1024}")
        self._connection.execute("CREATE TABLE places(id TEXT PRIMARY KEY, place TEXT NOT NULL) WITHOUT ROWID")
        self._connection.execute("BEGIN")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._connection.close()

    def claim(self, document_id: str, place: str) -> None:
        """Remember that `document_id` was read at `place`.

        Raises:
            CorpusError: The id was read before; names both places.
        """
        try:
            self._connection.execute("INSERT INTO places VALUES (?, ?)", (document_id, place))
        except sqlite3.IntegrityError as error:
            query = "SELECT place FROM places WHERE id = ?"
            (first,) = self._connection.execute(query, (document_id,)).fetchone()
            raise CorpusError(
                field=place,
                expected="unique ids",
                found=f"{document_id!r} again after {first}",
                remedy="remove one, or name another field with `id_field`",
            ) from error
