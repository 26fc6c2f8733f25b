"""The document tables of an index, read as one: documents, their parts and tokens.

Each build, add or compact has written one file; their ordinals follow on each other.
"""

import json
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gindex.corpus.masking import MASKED, marked
from gindex.corpus.objectives import Objective
from gindex.corpus.records import Document, is_deleted
from gindex.documents.checksums import Guard, RowChecksums
from gindex.documents.columns import PartColumns, read_columns
from gindex.documents.common_words import has_common_words
from gindex.documents.field_index import FieldIndex
from gindex.documents.filter_cache import FilterCache
from gindex.documents.losses import FILE_COLUMNS, PLAIN, to_objective
from gindex.documents.part_records import Extent, PartRecord, TableCounts
from gindex.documents.schema import (
    DOCUMENT_COLUMNS,
    PART_COLUMNS,
    TEXT_VERSION,
    has_parts_index,
    read_document,
    select_parts,
    translated_errors,
)
from gindex.documents.table_file import Parameters, TableFile
from gindex.errors import CorruptStoreError, ShapeError, UnknownDocumentError
from gindex.thread_safety import Lock, once

Ranked = list[tuple[int, float]]
"""Documents by ordinal and score, the largest score first."""

Ordinals = Sequence[int] | npt.NDArray[np.int64]

# SQLite builds take at least 999 parameters in one statement.
_QUERY_ORDINALS = 500

_PICTURES = '"pictures"'
"""What the content of a document that has pictures beside its text says."""

_OF_PART = len(PART_COLUMNS) + len(PLAIN) + len(FILE_COLUMNS)


class DocumentTable:
    """Document tables open for reading, as one; a context manager, safe to use from several threads.

    Every method raises CorruptStoreError where a file turns out to be damaged, StoreError while it is locked. Rows that
    are looked up by ordinal, or by the id of a document, are checked one by one; before anything else the whole file is
    checked.

    Attributes:
        files: The files, each with what its documents are filtered by.
        filtered: The parts that filters leave, kept for the next search.
        most_seconds: Longest time that a statement of what a caller asks for may take in a table; None for no limit.
    """

    def __init__(self, files: Sequence[TableFile], deleted: Sequence[tuple[int, int]], lock: Lock) -> None:
        """Use `open`."""
        self.files = files
        self._deleted = deleted
        self._lock = self.loading = lock
        self.filtered = FilterCache()
        self.most_seconds: float | None = None

    @classmethod
    def open(
        cls,
        *paths: Path,
        deleted: Sequence[tuple[int, int]] = (),
        guards: Sequence[Guard | None] | None = None,
        fields: Sequence[FieldIndex | None] | None = None,
    ) -> Self:
        """Open the tables at `paths` for reading.

        Args:
            paths: One or more, in the order of their ordinals.
            deleted: Deleted parts: start and stop of ranges of ordinals, in order.
            guards: The checks of each table; None where it is known to be whole.
            fields: The index of some fields of each table; None where it has none.

        Raises:
            CorruptStoreError: A file is missing, or not a document table.
            FormatVersionError: It was written by a newer gindex.
        """
        none: list[None] = [None] * len(paths)
        of_each, lock = zip(paths, guards or none, fields or none, strict=True), Lock()
        return cls([TableFile(path, guard, lock, index) for path, guard, index in of_each], deleted, lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files."""
        with self._lock:
            for file in self.files:
                file.close()

    def compare(self) -> None:
        """Check all files that are not checked yet; looking up rows does not need it."""
        with self._lock:
            for file in self.files:
                file.compare()

    def counts(self) -> TableCounts:
        """Return the totals, deleted documents included."""
        documents = [count for (count,) in self._query("SELECT COUNT(*) FROM documents")]
        totals = "SELECT COUNT(*), COALESCE(SUM(token_count), 0), COALESCE(MAX(token_count), 0) FROM parts"
        parts, tokens, longest = zip(*self._query(totals), strict=True)
        return TableCounts(documents=sum(documents), parts=sum(parts), tokens=sum(tokens), longest_part=max(longest))

    @once
    def columns(self) -> PartColumns:
        """What a pass over all parts needs of each, read once."""
        return PartColumns.joined(list(self.column_blocks()))

    def column_blocks(self) -> Iterator[PartColumns]:
        """Yield the columns of all parts, in blocks in the order of the ordinals."""
        for file in self.files:
            with self._lock, translated_errors(file.path):
                file.compare()
                blocks = read_columns(file.connection, file.version)
            while True:
                with self._lock, translated_errors(file.path):
                    block = next(blocks, None)
                if block is None:
                    break
                yield block

    def typical_length(self) -> float:
        """The length of the part that a token is in, a mean over all tokens; 0 where there are none."""
        sums = self._query("SELECT TOTAL(1.0 * token_count * token_count), TOTAL(token_count) FROM parts")
        squares, tokens = (sum(of) for of in zip(*sums, strict=True))
        return float(squares / tokens) if tokens else 0.0

    def part_lengths(self) -> npt.NDArray[np.int64]:
        """Return the tokens of every part, in the order of the ordinals [parts]."""
        return self.columns.lengths_P

    def part_targets(self) -> npt.NDArray[np.int64]:
        """Return the tokens of every part that count in its loss, in the order of the ordinals [parts]."""
        return self.columns.targets_P

    def part_documents(self) -> npt.NDArray[np.int64]:
        """Return the ordinal of every part's document, in the order of the parts' ordinals [parts]."""
        return self.columns.documents_P

    def objectives(self, ordinals: Ordinals) -> list[Objective]:
        """Return the tokens of parts, and how much each counts, in the order asked.

        Raises:
            CorruptStoreError: A part is missing, its tokens are truncated, or its losses do not fit them.
        """
        objectives = []
        for ordinal, _, _, _, _, tokens, count, *losses, media_type, data in self._by_ordinal(ordinals):
            ids = self._decode_tokens(ordinal, tokens, count)
            try:
                objectives.append(to_objective(ids, tuple(losses), (media_type, data)))
            except ShapeError as error:
                raise CorruptStoreError(
                    field=self._names,
                    expected=f"losses that fit the tokens of part {ordinal}",
                    found=f"others ({error})",
                    remedy="restore the table or build the index again",
                ) from error
        return objectives

    def documents_of(self, ordinals: Ordinals) -> list[int]:
        """Return the document ordinals of parts, in the order asked.

        Raises:
            CorruptStoreError: A part is missing.
        """
        return [row[1] for row in self._by_ordinal(ordinals)]

    def parts(self, ordinals: Ordinals) -> list[PartRecord]:
        """Return parts with their text and metadata, in the order asked.

        Raises:
            CorruptStoreError: A part is missing.
        """
        records = []
        for row in self._by_ordinal(ordinals, documents=True):
            ordinal, _, part, start, end, _, token_count = row[: len(PART_COLUMNS)]
            _, document_id, text, metadata, form, content = row[_OF_PART:]
            told = form == MASKED or (content is not None and _PICTURES in content)
            fields = self._decode_object(content, "the content of a document") if told else {}
            masked = fields["masked"] if form == MASKED else []
            records.append(
                PartRecord(
                    ordinal=ordinal,
                    document_id=document_id,
                    part=part,
                    text=marked(text, masked, start, end),
                    metadata=self._decode_object(metadata, "metadata"),
                    token_count=token_count,
                    form=form,
                    pictures=int(fields.get("pictures", 0)),
                )
            )
        return records

    def document(self, document_id: str) -> Document:
        """Return a document by its id.

        Raises:
            UnknownDocumentError: There is no such document, or it is deleted.
        """
        (ordinal,) = self.ordinals([document_id]).values()
        for file in self.files:
            with self._lock, translated_errors(file.path):
                file.compare()
                found = read_document(file.connection, ordinal)
            if found is not None:
                _, text, metadata, form, content = found
                return Document(
                    document_id=document_id,
                    text=text,
                    metadata=self._decode_object(metadata, "metadata"),
                    form=form,
                    content=self._decode_object(content, "the content of a document"),
                )
        raise CorruptStoreError(
            field=self._names,
            expected=f"a document {ordinal}",
            found="none",
            remedy="restore the table or build the index again",
        )

    def ordinals(self, document_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of documents by their ids.

        Raises:
            UnknownDocumentError: There is no document with one of the ids, or it is deleted; names the first.
        """
        known = self.known(document_ids)
        missing = [document_id for document_id in document_ids if document_id not in known]
        if missing:
            self.compare()  # what a damaged index hides is not said to be missing
            more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
            raise UnknownDocumentError(
                field=self._names,
                expected="the id of a document",
                found=f"no {missing[0]!r}{more}",
                remedy="check the ids",
            )
        return known

    def document_ids(self) -> Iterator[str]:
        """Yield the ids of all documents, deleted ones included."""
        self.compare()
        for file in self.files:
            with translated_errors(file.path):
                yield from (document_id for (document_id,) in file.connection.execute("SELECT id FROM documents"))

    def known(self, document_ids: Sequence[str]) -> dict[str, int]:
        """Return the ordinals of those documents that are there and not deleted, by their ids.

        What is found is checked row by row; an id that a damaged file hides is not found.
        """
        columns, entries = ", ".join(DOCUMENT_COLUMNS), {}
        for file in self.files:
            for some, marks in _bounded(document_ids):
                for row in file.fetch(f"SELECT {columns} FROM documents WHERE id IN {marks}", some):
                    file.checked(row, RowChecksums.check_document)
                    entries[row[0]] = row[1]
        if not self._deleted:
            return {document_id: ordinal for ordinal, document_id in entries.items()}
        alive = (extent for extent in self.extents(list(entries)) if not is_deleted(self._deleted, extent.start))
        return {entries[extent.document]: extent.document for extent in alive}

    def extents(self, documents: Sequence[int]) -> list[Extent]:
        """Return which parts documents have, by their ordinals, in order; their rows are found by index and checked.

        Raises:
            CorruptStoreError: A part of one is missing.
        """
        extents: list[Extent] = []
        for file in self.files:
            for some, marks in _bounded(file.documents_among(documents)):
                rows = file.fetch(f"{select_parts(file.version)} WHERE p.document IN {marks} ORDER BY p.ordinal", some)
                for row in rows:
                    file.checked(row, RowChecksums.check_part)
                each = (Extent.of(list(parts)) for _, parts in groupby(rows, key=lambda row: row[1]))
                found = [extent for extent in each if extent is not None]
                self._require_ends(file, found)
                extents += found
        if len(extents) != len(set(documents)):
            raise self._missing("parts of every document")
        return extents

    def _require_ends(self, file: TableFile, extents: Sequence[Extent]) -> None:
        """Make sure that the part after the last one of a document is another one's, where the table has one."""
        before = {extent.stop: extent.document for extent in extents}
        following = file.parts_among(list(before)) if file.guard is not None else []
        for ordinal, document in zip(following, self.documents_of(following), strict=True):
            if document != before[ordinal] + 1:
                raise self._missing(f"part {ordinal} as the first of document {before[ordinal] + 1}")

    def rows(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Return the rows that a SELECT statement with parameters gives, table by table.

        Raises:
            FilterError: SQLite refuses the statement, which holds what a caller asked for.
        """
        rows: list[Any] = []
        for file in self.files:
            rows += file.asked(statement, parameters, self.most_seconds)
        return rows

    @property
    def is_old(self) -> bool:
        """Whether a table lacks what gindex writes today, words or an index: `compact` makes them."""
        with self._lock:
            checks = (has_parts_index, has_common_words)
            lacking = (file for file in self.files if not all(check(file.connection) for check in checks))
            return min(self.versions) < TEXT_VERSION or any(lacking)

    @property
    def versions(self) -> set[int]:
        """The versions of the tables' format."""
        return {file.version for file in self.files}

    def best(self, rank: Callable[[TableFile, int], Ranked], limit: int) -> Ranked:
        """Return the best documents that are not deleted.

        Args:
            rank: Gives the best documents of a table by ordinal and score, the largest score first, at most so many.
            limit: Most documents.

        Returns:
            Ordinals and scores over all tables, the largest score first.
        """
        entries: Ranked = []
        most = limit + sum(stop - start for start, stop in self._deleted)  # a document has a part at least
        for file in self.files:
            ranked = rank(file, most)
            with self._lock, translated_errors(file.path):
                alive = (entry for entry in ranked if not self._is_deleted(file.connection, entry[0]))
                entries += islice(alive, limit)
        return sorted(entries, key=lambda entry: (-entry[1], entry[0]))[:limit]

    def _is_deleted(self, connection: sqlite3.Connection, document: int) -> bool:
        if not self._deleted:
            return False
        query = "SELECT MIN(ordinal) FROM parts WHERE document = ?"
        ((part,),) = connection.execute(query, (document,)).fetchall()
        return is_deleted(self._deleted, part)

    def _query(self, statement: str, parameters: Parameters = ()) -> list[Any]:
        """Run a statement on each table and return the rows of all, table by table."""
        rows: list[Any] = []
        for file in self.files:
            with self._lock, translated_errors(file.path):
                file.compare()
                rows += file.connection.execute(statement, parameters).fetchall()
        return rows

    def _by_ordinal(self, ordinals: Ordinals, *, documents: bool = False) -> list[Any]:
        """Return the columns that `select_parts` gives of parts, checked, in the order asked."""
        asked, by_ordinal = [int(ordinal) for ordinal in ordinals], {}
        for file in self.files:
            statement = select_parts(file.version, documents)
            for some, marks in _bounded(file.parts_among(asked)):
                for row in file.fetch(f"{statement} WHERE p.ordinal IN {marks}", some):
                    file.checked(row[:_OF_PART], RowChecksums.check_part)
                    file.checked(row[_OF_PART : _OF_PART + len(DOCUMENT_COLUMNS)], RowChecksums.check_document)
                    by_ordinal[row[0]] = row
        for ordinal in asked:
            if ordinal not in by_ordinal:
                raise self._missing(f"a part {ordinal}")
        return [by_ordinal[ordinal] for ordinal in asked]

    def _missing(self, expected: str) -> CorruptStoreError:
        return CorruptStoreError(
            field=self._names, expected=expected, found="none", remedy="restore the table or build the index again"
        )

    @property
    def _names(self) -> str:
        return os.path.commonpath([file.path for file in self.files])

    def _decode_tokens(self, ordinal: int, tokens: bytes, token_count: int) -> npt.NDArray[np.uint32]:
        if len(tokens) != 4 * token_count:
            raise CorruptStoreError(
                field=self._names,
                expected=f"{4 * token_count} bytes of tokens in part {ordinal}",
                found=len(tokens),
                remedy="restore the table or build the index again",
            )
        return np.frombuffer(tokens, dtype="<u4").astype(np.uint32)

    def _decode_object(self, value: str, what: str) -> dict[str, Any]:
        try:
            decoded: dict[str, Any] = json.loads(value)
        except ValueError as error:
            raise CorruptStoreError(
                field=self._names, expected=f"{what} in JSON", found=repr(value[:80]), remedy="restore the table"
            ) from error
        return decoded


def _bounded(values: Sequence[Any]) -> Iterator[tuple[Sequence[Any], str]]:
    """Yield values in lists of bounded length, each with the marks that stand for it in a statement."""
    for start in range(0, len(values), _QUERY_ORDINALS):
        some = values[start : start + _QUERY_ORDINALS]
        yield some, f"({', '.join('?' * len(some))})"
