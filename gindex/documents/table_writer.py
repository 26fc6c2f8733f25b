"""The writing of a new document table, which appears complete or not at all."""

import json
import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

from gindex.corpus.encoding import EncodedDocument, Encoder, searched_text
from gindex.corpus.records import Document, is_deleted
from gindex.corpus.tokens import Part
from gindex.documents.common_words import add_common_words
from gindex.documents.losses import PLAIN, stored_columns, to_file, to_row, to_tokens
from gindex.documents.schema import (
    PART_COLUMNS,
    add_file,
    add_forms,
    add_losses,
    connect,
    create,
    index_words,
    leave_single_file,
    read_document,
    remove_beside,
    select_parts,
    version_of,
)
from gindex.errors import CorpusError, CorruptStoreError, StoreError
from gindex.files.atomic import make_folder, publish_written
from gindex.progress import Phase, Progress

logger = logging.getLogger(__name__)

DELETED = "\x7fdeleted "
"""Begins the id of a deleted document in a volume that was merged, before its ordinal."""

_NAMED = 10
"""Documents that a message names."""

# A batch is tokenised at once and committed at once; whichever bound is met first ends it.
_BATCH_DOCUMENTS = 1000
_BATCH_CHARACTERS = 4_000_000


def fill_table(
    path: Path,
    documents: Iterator[Document],
    encoder: Encoder,
    progress: Progress,
    *,
    first_document: int = 0,
    first_part: int = 0,
) -> None:
    """Tokenise documents, cut them into parts and write both to a new table at `path`.

    A file that a killed call left at `path`.partial is removed. Memory is bounded by one batch of documents.

    Args:
        path: The table.
        documents: The documents, in order.
        encoder: Makes parts of them.
        progress: Where the work is reported.
        first_document: Ordinal of the first document.
        first_part: Ordinal of the first part.

    Raises:
        CorpusError: There are no documents, one has no tokens, its form cannot be written, or an id is repeated.
        TokenizerError: The tokenizer gives no character offsets.
        StoreError: The file cannot be written.
    """
    with new_table(path) as connection, progress.phase("tokenise", None, "documents") as phase:
        _TableWriter(connection, encoder, first_document, first_part).fill(documents, phase)


@contextmanager
def new_table(path: Path, schema: str | None = None) -> Iterator[sqlite3.Connection]:
    """Open an empty table that appears at `path` when the block ends without an error.

    Args:
        path: The file.
        schema: The statements that make it; None for those of a document table.

    Raises:
        StoreError: The file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        make_folder(path.parent)
        _remove(partial)
        with closing(create(partial, schema)) as connection:
            yield connection
            if schema is None:
                add_common_words(connection)
            leave_single_file(connection)
        remove_beside(path)
        publish_written(partial, path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            field=path, expected="to write the document table", found=error, remedy="check free space and permissions"
        ) from error
    finally:
        with suppress(OSError):
            _remove(partial)


def add_document(connection: sqlite3.Connection, ordinal: int, document: Document) -> None:
    """Write a document, and the words that it is found by.

    Raises:
        sqlite3.IntegrityError: The id is there already.
    """
    entry = (ordinal, document.document_id, document.text, json.dumps(document.metadata))
    connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", entry)
    index_words(connection, ordinal, searched_text(document))
    if document.form != "text":
        add_forms(connection)
        connection.execute(
            "INSERT INTO contents VALUES (?, ?, ?)", (ordinal, document.form, json.dumps(document.content))
        )


def add_part(
    connection: sqlite3.Connection,
    columns: tuple[Any, ...],
    losses: tuple[Any, ...] | None,
    file: tuple[str, bytes] | None = None,
) -> None:
    """Write a part: its columns in the table of parts, and those in the tables of losses and files where it has any."""
    connection.execute("INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)", columns)
    if losses is not None:
        add_losses(connection, columns[0], losses)
    if file is not None:
        add_file(connection, columns[0], file)


def copy_documents(
    connection: sqlite3.Connection,
    source: Path,
    deleted: Sequence[tuple[int, int]],
    first_document: int,
    first_part: int,
    done: Callable[[int], None],
    *,
    keep: bool,
) -> tuple[int, int]:
    """Copy the documents of another table, numbered on.

    Args:
        connection: The new table.
        source: The other table.
        deleted: Deleted parts, as ranges of ordinals in order.
        first_document: Ordinal of the first one copied.
        first_part: Ordinal of its first part.
        done: Called with the number of documents that were passed.
        keep: Copy deleted documents as well, under ids of their own: another document may have come by theirs.

    Returns:
        The ordinals that follow the last document and part.
    """
    document, part = first_document, first_part
    with closing(connect(source)) as other:
        passed = other.execute("SELECT ordinal FROM documents ORDER BY ordinal")
        selected = f"{select_parts(version_of(other))} WHERE p.document = ? ORDER BY p.part"
        while batch := passed.fetchmany(_BATCH_DOCUMENTS):
            with connection:
                for (ordinal,) in batch:
                    parts = other.execute(selected, (ordinal,)).fetchall()
                    copied = stored_document(other, ordinal)
                    if is_deleted(deleted, parts[0][0]):
                        if not keep:
                            continue
                        copied = replace(copied, document_id=f"{DELETED}{document}")
                    add_document(connection, document, copied)
                    for columns in map(stored_columns, parts):
                        own, beside = columns[2 : len(PART_COLUMNS)], columns[len(PART_COLUMNS) :]
                        losses, file = beside[: len(PLAIN)] or None, beside[len(PLAIN) :] or None
                        add_part(connection, (part, document, *own), losses, file)
                        part += 1
                    document += 1
            done(len(batch))
    return document, part


def stored_document(connection: sqlite3.Connection, ordinal: int) -> Document:
    """A document of a table, with what it was made of.

    Raises:
        CorruptStoreError: It is not there.
    """
    found = read_document(connection, ordinal)
    if found is None:
        raise CorruptStoreError(
            field="documents", expected=f"a document {ordinal}", found="none", remedy="restore the table"
        )
    document_id, text, metadata, form, content = found
    return Document(
        document_id=document_id, text=text, metadata=json.loads(metadata), form=form, content=json.loads(content)
    )


class _TableWriter:
    """Numbers documents and parts while they are written to `connection`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        encoder: Encoder,
        first_document: int,
        first_part: int,
    ) -> None:
        self._connection = connection
        self._encoder = encoder
        self._first_document = first_document
        self._documents = count(first_document)
        self._parts = count(first_part)

    def fill(self, documents: Iterator[Document], phase: Phase) -> None:
        left_out: list[str] = []
        told: list[str] = []
        kept = False
        for batch in _batches(documents):
            encoded = self._encoder.encode(batch)
            with self._connection:
                for document in encoded:
                    if any(part.objective.targets for part in document.parts):
                        self._add(document)
                        kept = True
                    else:
                        left_out.append(document.document.document_id)
                    if document.notes:
                        told.append(f"document {document.document.document_id!r}: {'; '.join(document.notes)}")
            phase.advance(len(batch))
        _tell(left_out, told)
        if not kept:
            raise CorpusError(
                field="corpus",
                expected="at least one document with a token that counts",
                found=f"none in {len(left_out)}" if left_out else "none",
                remedy="give a source that holds documents; nothing predicts the first token of a text",
            )

    def _add(self, encoded: EncodedDocument) -> None:
        ordinal = next(self._documents)
        self._add_document(ordinal, encoded.document)
        for part in encoded.parts:
            self._add_part(ordinal, part)

    def _add_part(self, document: int, part: Part) -> None:
        ordinal, tokens = next(self._parts), to_tokens(part.objective)
        columns = (ordinal, document, part.part, part.start, part.end, tokens, len(part.objective))
        add_part(self._connection, columns, to_row(part.objective), to_file(part.objective))

    def _add_document(self, ordinal: int, document: Document) -> None:
        try:
            add_document(self._connection, ordinal, document)
        except sqlite3.IntegrityError as error:
            query = "SELECT ordinal FROM documents WHERE id = ?"
            (first,) = self._connection.execute(query, (document.document_id,)).fetchone()
            number, before = ordinal - self._first_document + 1, first - self._first_document + 1
            raise CorpusError(
                field=f"document {number}",
                expected="unique ids",
                found=f"{document.document_id!r} again after document {before}",
                remedy="remove one, or name another field with `id_field`",
            ) from error


def _tell(left_out: Sequence[str], notes: Sequence[str]) -> None:
    """Say which documents are not there, and how others became tokens."""
    if left_out:
        names = ", ".join(map(repr, left_out[:_NAMED])) + (", ..." if len(left_out) > _NAMED else "")
        logger.warning("%d documents have no token that counts and are left out: %s", len(left_out), names)
    if notes:
        more = f" (and notes on {len(notes) - 1:,} others)" if len(notes) > 1 else ""
        logger.warning("%s%s", notes[0], more)


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += document.characters
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    remove_beside(path)
