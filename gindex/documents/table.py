"""The document tables of an index, read as one: documents, their parts and tokens.

Each build, add or compact has written one file; their ordinals follow on each other.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gindex.corpus.records import Document, is_deleted
from gindex.documents.checksums import DOCUMENT_COLUMNS, PART_COLUMNS, Guard
from gindex.documents.schema import asked_errors, connect, limited, translated_errors, version_of
from gindex.errors import CorruptStoreError, UnknownDocumentError
from gindex.threads import Lock

Ordinals = Sequence[int] | npt.NDArray[np.int64]
Parameters = Sequence[int | float | str]

# SQLite builds take at least 999 parameters in one statement.
_QUERY_ORDINALS = 500

_PARTS = ", ".join(f"p.{column}" for column in PART_COLUMNS)
_DOCUMENTS = ", ".join(f"d.{column}" for column in DOCUMENT_COLUMNS)


@dataclass(frozen=True, kw_only=True, slots=True)
class TableCounts:
    """Totals of a table.

    Attributes:
        documents: Documents.
        parts: Parts of all documents.
        tokens: Tokens of all parts, the context of later parts included.
        longest_part: Tokens of the longest part.
    """

    documents: int
    parts: int
    tokens: int
    longest_part: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PartRecord:
    """A part with its document.

    Attributes:
        ordinal: Number of the part in the table, from 0.
        document_id: Id of its document.
        part: Number of the part within the document, from 0.
        text: Its own slice of the document's text, without the context.
        metadata: Metadata of the document.
        token_count: Tokens of the part, context included.
    """

    ordinal: int
    document_id: str
    part: int
    text: str
    metadata: dict[str, Any]
    token_count: int


class _File:
    """A table, its open file, and what it is compared with; None where nothing is recorded, as while it is written."""

    def __init__(self, path: Path, guard: Guard | None) -> None:
        self.path, self.guard = path, guard
        self._opened, self._process = connect(path), os.getpid()
        with translated_errors(path):
            self.version = version_of(self._opened)

    @property
    def connection(self) -> sqlite3.Connection:
        """The open file. A forked process opens its own, as SQLite demands."""
        if self._process != os.getpid():
            _inherited.append(self._opened)
            self._opened, self._process = connect(self.path), os.getpid()
        return self._opened

    def compare(self) -> None:
        """Compare the whole file, once."""
        if self.guard is not None:
            self.guard.whole()


_inherited: list[sqlite3.Connection] = []
"""Connections of the process that this one was forked from, which it must not even close."""


class DocumentTable:
    """Document tables open for reading, as one; a context manager, safe to use from several threads.

    Every method raises CorruptStoreError where a file turns out to be damaged, StoreError while it is locked. Rows that
    are looked up by ordinal are compared with checksums of their own; anything else has the whole file compared first.

    Attributes:
        most_seconds: Longest time that a statement of what a caller asks for may take in a table; None for no limit.
    """

    def __init__(self, files: Sequence[_File], deleted: Sequence[tuple[int, int]]) -> None:
        """Use `open`."""
        self._files = files
        self._deleted = deleted
        self._lock = Lock()
        self.most_seconds: float | None = None

    @classmethod
    def open(
        cls, *paths: Path, deleted: Sequence[tuple[int, int]] = (), guards: Sequence[Guard | None] | None = None
    ) -> Self:
        """Open the tables at `paths` for reading.

        Args:
            paths: One or more, in the order of their ordinals.
            deleted: Deleted parts: start and stop of ranges of ordinals, in order.
            guards: What each table is compared with; None where it is known to be whole.

        Raises:
            CorruptStoreError: A file is missing, or not a document table.
            FormatVersionError: It was written by a newer gindex.
        """
        pairs = zip(paths, guards or [None] * len(paths), strict=True)
        return cls([_File(path, guard) for path, guard in pairs], deleted)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self._files:
                file.connection.close()

    def compare(self) -> None:
        """Compare all files with their checksums, where that is not done; looking up rows does not need it."""
        with self._lock:
            for file in self._files:
                file.compare()

    def counts(self) -> TableCounts:
        """Return the totals, deleted documents included."""
        documents = [count for (count,) in self._query("SELECT COUNT(*) FROM documents")]
        totals = "SELECT COUNT(*), COALESCE(SUM(token_count), 0), COALESCE(MAX(token_count), 0) FROM parts"
        parts, tokens, longest = zip(*self._query(totals), strict=True)
        return TableCounts(documents=sum(documents), parts=sum(parts), tokens=sum(tokens), longest_part=max(longest))

    def part_lengths(self) -> npt.NDArray[np.int64]:
        """Return the tokens of every part, in the order of the ordinals [parts]."""
        return self._column("SELECT token_count FROM parts ORDER BY ordinal")

    def part_documents(self) -> npt.NDArray[np.int64]:
        """Return the ordinal of every part's document, in the order of the parts' ordinals [parts]."""
        return self._column("SELECT document FROM parts ORDER BY ordinal")

    def tokens(self, ordinals: Ordinals) -> list[npt.NDArray[np.uint32]]:
        """Return the token ids of parts, context first, in the order asked.

        Raises:
            CorruptStoreError: A part is missing, or its tokens are truncated.
        """
        found = self._by_ordinal(f"SELECT {_PARTS} FROM parts p WHERE ordinal", ordinals)
        return [self._decode_tokens(ordinal, tokens, count) for ordinal, *_, tokens, count in found]

    def documents_of(self, ordinals: Ordinals) -> list[int]:
        """Return the document ordinals of parts, in the order asked.

        Raises:
            CorruptStoreError: A part is missing.
        """
        return [row[1] for row in self._by_ordinal(f"SELECT {_PARTS} FROM parts p WHERE ordinal", ordinals)]

    def parts(self, ordinals: Ordinals) -> list[PartRecord]:
        """Return parts with their text and metadata, in the order asked.

        Raises:
            CorruptStoreError: A part is missing.
        """
        found = self._by_ordinal(
            f"SELECT {_PARTS}, {_DOCUMENTS} FROM parts p JOIN documents d ON d.ordinal = p.document WHERE p.ordinal",
            ordinals,
        )
        return [
            PartRecord(
                ordinal=ordinal,
                document_id=document_id,
                part=part,
                text=text[start:end],
                metadata=self._decode_metadata(metadata),
                token_count=token_count,
            )
            for ordinal, _, part, start, end, _, token_count, _, document_id, text, metadata in found
        ]

    def document(self, document_id: str) -> Document:
        """Return a document by its id.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        (ordinal,) = self.ordinals([document_id]).values()
        ((text, metadata),) = self._query("SELECT text, metadata FROM documents WHERE ordinal = ?", (ordinal,))
        return Document(document_id=document_id, text=text, metadata=self._decode_metadata(metadata))

    def ordinals(self, document_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of documents by their ids.

        Raises:
            UnknownDocumentError: There is no document with one of the ids, or it is deleted; names the first.
        """
        found = self.known(document_ids)
        missing = [document_id for document_id in document_ids if document_id not in found]
        if missing:
            more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
            raise UnknownDocumentError(
                field=self._names,
                expected="the id of a document",
                found=f"no {missing[0]!r}{more}",
                remedy="check the ids",
            )
        return found

    def document_ids(self) -> Iterator[str]:
        """Yield the ids of all documents, deleted ones included."""
        self.compare()
        for file in self._files:
            with translated_errors(file.path):
                yield from (document_id for (document_id,) in file.connection.execute("SELECT id FROM documents"))

    def known(self, document_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of those documents that are there and not deleted, by their ids."""
        entries = self._where("SELECT id, ordinal FROM documents WHERE id", document_ids)
        if not self._deleted:
            return dict(entries)
        first_parts = self._where(
            "SELECT document, MIN(ordinal) FROM parts WHERE document", [ordinal for _, ordinal in entries], "document"
        )
        alive = {document for document, part in first_parts if not is_deleted(self._deleted, part)}
        return {document_id: ordinal for document_id, ordinal in entries if ordinal in alive}

    def part_ranges(self, documents: Sequence[int]) -> list[tuple[int, int]]:
        """Return the parts of documents, by their ordinals, as start and stop of a range each; in order."""
        found = self._where("SELECT MIN(ordinal), MAX(ordinal) + 1 FROM parts WHERE document", documents, "document")
        return sorted(found)

    def token_count(self, documents: Sequence[int]) -> int:
        """Return the tokens of the parts of documents, by their ordinals."""
        counts = self._where("SELECT SUM(token_count) FROM parts WHERE document", documents, "document")
        return sum(count for (count,) in counts)

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return what a SELECT statement with parameters finds in each table, table by table.

        Raises:
            FilterError: SQLite refuses the statement, which holds what a caller asked for.
        """
        found: list[Any] = []
        for file in self._files:
            with self._lock, asked_errors(file.path), limited(file.connection, self.most_seconds):
                file.compare()
                found += file.connection.execute(statement, parameters).fetchall()
        return found

    @property
    def versions(self) -> set[int]:
        """The versions of the tables' format."""
        return {file.version for file in self._files}

    def ranked(
        self, statement: str, parameters: Parameters, limit: int, words: Callable[[int], str] | None = None
    ) -> list[tuple[int, float]]:
        """Return the best documents that are not deleted.

        Args:
            statement: Selects document ordinals and scores, the largest score first.
            parameters: Its parameters.
            limit: Most documents.
            words: Gives a parameter before them for a table of a version, whose full-text index is of its own kind.

        Returns:
            Ordinals and scores over all tables, the largest score first.

        Raises:
            FilterError: See `rows`.
        """
        found: list[tuple[int, float]] = []
        for file in self._files:
            with self._lock, asked_errors(file.path), limited(file.connection, self.most_seconds):
                file.compare()
                before = [] if words is None else [words(file.version)]
                best = file.connection.execute(statement, [*before, *parameters])
                alive = (entry for entry in best if not self._is_deleted(file.connection, entry[0]))
                found += islice(alive, limit)
        return sorted(found, key=lambda entry: (-entry[1], entry[0]))[:limit]

    def _is_deleted(self, connection: sqlite3.Connection, document: int) -> bool:
        if not self._deleted:
            return False
        query = "SELECT MIN(ordinal) FROM parts WHERE document = ?"
        ((part,),) = connection.execute(query, (document,)).fetchall()
        return is_deleted(self._deleted, part)

    def _column(self, statement: str) -> npt.NDArray[np.int64]:
        columns = []
        for file in self._files:
            with self._lock, translated_errors(file.path):
                file.compare()
                values = file.connection.execute(statement)
                columns.append(np.fromiter((value for (value,) in values), dtype=np.int64))
        return np.concatenate(columns)

    def _query(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Run a statement on each table and return the rows of all, table by table."""
        rows: list[Any] = []
        for file in self._files:
            with self._lock, translated_errors(file.path):
                file.compare()
                rows += file.connection.execute(statement, parameters).fetchall()
        return rows

    def _where(self, statement: str, values: Sequence[int] | Sequence[str], group: str = "") -> list[Any]:
        """Run `statement ... IN (values)`, grouped where asked, in statements of bounded length."""
        ending = f" GROUP BY {group}" if group else ""
        return [row for some, marks in _bounded(values) for row in self._query(f"{statement} IN {marks}{ending}", some)]

    def _by_ordinal(self, statement: str, ordinals: Ordinals) -> list[Any]:
        """Run `statement` for all ordinals, compare the rows, and answer in the order asked.

        Its columns are all of a part, and then, where there are more, all of its document.
        """
        asked, found = [int(ordinal) for ordinal in ordinals], {}
        for file in self._files:
            for some, marks in _bounded(asked):
                with self._lock, translated_errors(file.path):
                    rows = file.connection.execute(f"{statement} IN {marks}", some).fetchall()
                    sums = None if file.guard is None or not rows else file.guard.rows()
                for row in rows:
                    if sums is not None:
                        sums.check_part(row[: len(PART_COLUMNS)])
                        sums.check_document(row[len(PART_COLUMNS) :])
                    found[row[0]] = row
        for ordinal in asked:
            if ordinal not in found:
                raise CorruptStoreError(
                    field=self._names,
                    expected=f"a part {ordinal}",
                    found="none",
                    remedy="restore the table or build the index again",
                )
        return [found[ordinal] for ordinal in asked]

    @property
    def _names(self) -> str:
        return os.path.commonpath([file.path for file in self._files])

    def _decode_tokens(self, ordinal: int, tokens: bytes, token_count: int) -> npt.NDArray[np.uint32]:
        if len(tokens) != 4 * token_count:
            raise CorruptStoreError(
                field=self._names,
                expected=f"{4 * token_count} bytes of tokens in part {ordinal}",
                found=len(tokens),
                remedy="restore the table or build the index again",
            )
        return np.frombuffer(tokens, dtype="<u4").astype(np.uint32)

    def _decode_metadata(self, metadata: str) -> dict[str, Any]:
        try:
            decoded: dict[str, Any] = json.loads(metadata)
        except ValueError as error:
            raise CorruptStoreError(
                field=self._names, expected="metadata in JSON", found=repr(metadata[:80]), remedy="restore the table"
            ) from error
        return decoded


def _bounded(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    """Yield values in lists of bounded length, each with the marks that stand for it in a statement."""
    for start in range(0, len(values), _QUERY_ORDINALS):
        some = values[start : start + _QUERY_ORDINALS]
        yield some, f"({', '.join('?' * len(some))})"
