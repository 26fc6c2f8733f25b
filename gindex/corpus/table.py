"""The document table: documents, their parts and tokens."""

import json
import sqlite3
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from gindex.corpus.records import Document
from gindex.corpus.schema import connect, translated_errors
from gindex.errors import CorruptStoreError, StoreError

Ordinals = Sequence[int] | npt.NDArray[np.int64]

# SQLite builds take at least 999 parameters in one statement.
_QUERY_ORDINALS = 500


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


class DocumentTable:
    """A document table open for reading; a context manager, safe to use from several threads.

    Every method raises CorruptStoreError where the file turns out to be damaged, StoreError while it is locked.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self._path = path
        self._connection = connection
        self._lock = threading.Lock()

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the table at `path` for reading.

        Raises:
            CorruptStoreError: The file is missing, or not a document table.
            FormatVersionError: It was written by a newer gindex.
        """
        return cls(path, connect(path))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def counts(self) -> TableCounts:
        """Return the totals."""
        ((documents,),) = self._query("SELECT COUNT(*) FROM documents")
        totals = "SELECT COUNT(*), COALESCE(SUM(token_count), 0), COALESCE(MAX(token_count), 0) FROM parts"
        ((parts, tokens, longest),) = self._query(totals)
        return TableCounts(documents=documents, parts=parts, tokens=tokens, longest_part=longest)

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
        found = self._by_ordinal("SELECT ordinal, tokens, token_count FROM parts WHERE ordinal", ordinals)
        return [self._decode_tokens(*entry) for entry in found]

    def parts(self, ordinals: Ordinals) -> list[PartRecord]:
        """Return parts with their text and metadata, in the order asked.

        Raises:
            CorruptStoreError: A part is missing.
        """
        found = self._by_ordinal(
            'SELECT p.ordinal, d.id, p.part, d.text, p.start, p."end", d.metadata, p.token_count '
            "FROM parts p JOIN documents d ON d.ordinal = p.document WHERE p.ordinal",
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
            for ordinal, document_id, part, text, start, end, metadata, token_count in found
        ]

    def document(self, document_id: str) -> Document:
        """Return a document by its id.

        Raises:
            StoreError: There is no such document.
        """
        found = self._query("SELECT text, metadata FROM documents WHERE id = ?", (document_id,))
        if not found:
            raise StoreError(f"{self._path}: expected the id of a document, found no {document_id!r}; check the id")
        ((text, metadata),) = found
        return Document(document_id=document_id, text=text, metadata=self._decode_metadata(metadata))

    def _column(self, statement: str) -> npt.NDArray[np.int64]:
        with self._lock, translated_errors(self._path):
            return np.fromiter((value for (value,) in self._connection.execute(statement)), dtype=np.int64)

    def _query(self, statement: str, parameters: Sequence[int | str] = ()) -> list[Any]:
        with self._lock, translated_errors(self._path):
            return self._connection.execute(statement, parameters).fetchall()

    def _by_ordinal(self, statement: str, ordinals: Ordinals) -> list[Any]:
        """Run `statement`, whose first column is the ordinal, for all ordinals; answer in the order asked."""
        asked = [int(ordinal) for ordinal in ordinals]
        found: dict[int, Any] = {}
        for start in range(0, len(asked), _QUERY_ORDINALS):
            some = asked[start : start + _QUERY_ORDINALS]
            marks = ", ".join("?" * len(some))
            found.update((entry[0], entry) for entry in self._query(f"{statement} IN ({marks})", some))
        for ordinal in asked:
            if ordinal not in found:
                raise CorruptStoreError(
                    f"{self._path}: expected a part {ordinal}, found none; restore the table or build the index again"
                )
        return [found[ordinal] for ordinal in asked]

    def _decode_tokens(self, ordinal: int, tokens: bytes, token_count: int) -> npt.NDArray[np.uint32]:
        if len(tokens) != 4 * token_count:
            raise CorruptStoreError(
                f"{self._path}: expected {4 * token_count} bytes of tokens in part {ordinal}, found {len(tokens)}; "
                "restore the table or build the index again"
            )
        return np.frombuffer(tokens, dtype="<u4").astype(np.uint32)

    def _decode_metadata(self, metadata: str) -> dict[str, Any]:
        try:
            decoded: dict[str, Any] = json.loads(metadata)
        except ValueError as error:
            raise CorruptStoreError(
                f"{self._path}: expected metadata in JSON, found {metadata[:80]!r}; restore the table"
            ) from error
        return decoded
