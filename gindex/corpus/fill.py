"""Documents into a new document table, which appears complete or not at all."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

from gindex.atomic import publish_written
from gindex.config import CorpusConfig
from gindex.corpus.records import Document
from gindex.corpus.schema import create, leave_single_file, remove_beside
from gindex.corpus.tokens import Part, Tokenizer, cut, tokenize
from gindex.errors import CorpusError, StoreError
from gindex.progress import Phase, Progress

# A batch is tokenised at once and committed at once; whichever bound is met first ends it.
_BATCH_DOCUMENTS = 1000
_BATCH_CHARACTERS = 4_000_000


def fill_table(
    path: Path, documents: Iterator[Document], tokenizer: Tokenizer, config: CorpusConfig, progress: Progress
) -> None:
    """Tokenise documents, cut them into parts and write both to a new table at `path`.

    What a killed call left in `path`.partial is removed. Memory is bounded by one batch of documents.

    Raises:
        CorpusError: There are no documents, one has no tokens, or an id is repeated.
        TokenizerError: The tokenizer gives no character offsets.
        StoreError: The file cannot be written.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        _remove(partial)
        with closing(create(partial)) as connection:
            with progress.phase("tokenise", None, "documents") as phase:
                _Filler(connection, tokenizer, config.max_tokens).fill(documents, phase)
            leave_single_file(connection)
        remove_beside(path)
        publish_written(partial, path)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(
            f"{path}: expected to write the document table, found {error}; check free space and permissions"
        ) from error
    finally:
        _remove(partial)


class _Filler:
    """Numbers documents and parts while they are written to `connection`."""

    def __init__(self, connection: sqlite3.Connection, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._connection = connection
        self._tokenizer = tokenizer
        self._max_tokens = max_tokens
        self._documents = count()
        self._parts = count()

    def fill(self, documents: Iterator[Document], phase: Phase) -> None:
        empty = True
        for batch in _batches(documents):
            encoded = tokenize(self._tokenizer, [document.text for document in batch])
            with self._connection:
                for document, (tokens, offsets) in zip(batch, encoded, strict=True):
                    self._add(document, cut(tokens, offsets, self._max_tokens))
            phase.advance(len(batch))
            empty = False
        if empty:
            raise CorpusError("corpus: expected at least one document, found none; give a source that holds documents")

    def _add(self, document: Document, parts: list[Part]) -> None:
        if not parts:
            raise CorpusError(
                f"document {document.document_id!r}: expected at least one token, found none in its text; remove it"
            )
        ordinal = next(self._documents)
        self._add_document(ordinal, document)
        self._connection.executemany(
            "INSERT INTO parts VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (next(self._parts), ordinal, p.part, p.start, p.end, p.tokens.astype("<u4").tobytes(), len(p.tokens))
                for p in parts
            ],
        )

    def _add_document(self, ordinal: int, document: Document) -> None:
        entry = (ordinal, document.document_id, document.text, json.dumps(document.metadata))
        try:
            self._connection.execute("INSERT INTO documents VALUES (?, ?, ?, ?)", entry)
        except sqlite3.IntegrityError as error:
            query = "SELECT ordinal FROM documents WHERE id = ?"
            (first,) = self._connection.execute(query, (document.document_id,)).fetchone()
            raise CorpusError(
                f"document {ordinal + 1}: expected unique ids, found {document.document_id!r} again after "
                f"document {first + 1}; remove one, or name another field with --id-field"
            ) from error


def _batches(documents: Iterator[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for document in documents:
        batch.append(document)
        characters += len(document.text)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    remove_beside(path)
