"""The parts that a search is restricted to: those of documents that pass a filter, or that have words of a text.

Axes: N parts.
"""

import json
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gindex.corpus.objectives import Objective
from gindex.documents.common_words import counts_common_words
from gindex.documents.comparisons import MetadataColumn, Names
from gindex.documents.field_index import FieldIndex
from gindex.documents.filter_masks import FilterMasks
from gindex.documents.filters import Filter, filter_error, parse_filter, written_name
from gindex.documents.schema import PLAIN_WORDS
from gindex.documents.table import DocumentTable, Ranked
from gindex.documents.table_file import TableFile
from gindex.documents.word_scores import WordScores
from gindex.documents.words import is_cut_in_pairs, plain_words_of, words_of
from gindex.errors import QueryError

logger = logging.getLogger(__name__)


def check_filter(table: DocumentTable, where: str | None) -> None:
    """Check a filter, where there is one, without looking for what passes it.

    Raises:
        FilterError: It does not parse, or names a field that no document has; shows the position.
    """
    if where is not None:
        _check_fields(table, parse_filter(where))


def filtered_parts(table: DocumentTable, where: Filter) -> npt.NDArray[np.int64]:
    """Return the ordinals of the parts [N] whose documents pass a filter, ascending.

    Raises:
        FilterError: No document has a field that the filter names; shows the position.
    """
    return table.filtered.get(where.text, lambda: _passing(table, where))


def _passing(table: DocumentTable, where: Filter) -> npt.NDArray[np.int64]:
    _check_fields(table, where)
    passing = [_passing_of(file, where, table.most_seconds) for file in table.files]
    return np.concatenate([np.zeros(0, np.int64), *passing])


def _passing_of(file: TableFile, where: Filter, seconds: float | None) -> npt.NDArray[np.int64]:
    """Ordinals of the parts of a table whose documents pass."""
    index = _index_for(file, where)
    if index is not None:
        return index.parts(FilterMasks(file, index, seconds).of(where.condition))
    # The order of the join is given: documents first, then their parts by the index that has no tokens.
    statement = f"SELECT p.ordinal FROM documents d CROSS JOIN parts p ON p.document = d.ordinal WHERE {where.sql}"
    return _ordinals(file.asked(statement, where.parameters, seconds))


def _passing_documents(file: TableFile, where: Filter, seconds: float | None) -> npt.NDArray[np.int64]:
    """Ordinals of the documents of a table that pass, ascending."""
    index = _index_for(file, where)
    if index is not None:
        return np.flatnonzero(FilterMasks(file, index, seconds).of(where.condition)) + index.first_document
    return _ordinals(file.asked(f"SELECT ordinal FROM documents WHERE {where.sql}", where.parameters, seconds))


def _index_for(file: TableFile, where: Filter) -> FieldIndex | None:
    """The index of a table's fields, where a filter has one of them."""
    index = file.fields
    return None if index is None or where.condition.fields.isdisjoint(index.fields) else index


def _ordinals(rows: list[tuple[int]]) -> npt.NDArray[np.int64]:
    return np.sort(np.fromiter((ordinal for (ordinal,) in rows), np.int64, len(rows)))


def lexical_documents(
    table: DocumentTable, text: str, count: int, where: Filter | None = None, *, partly: bool = False
) -> list[tuple[int, float]]:
    """Return the documents with the best BM25 score for the words of a text, best first.

    Args:
        table: The documents.
        text: Words in any order; no syntax.
        count: How many documents at most.
        where: Only documents that pass.
        partly: Go on, with a warning, where a table of version 1 lacks the words of scripts without spaces.

    Returns:
        Document ordinals and scores, larger is better; word frequencies are those of the document's own table.

    Raises:
        QueryError: The text has no words, or words that a table of an older version does not have.
    """
    if not words_of(text):
        raise QueryError(field="words_text", expected="text with at least one word", found=repr(text[:80]))
    if PLAIN_WORDS in table.versions and is_cut_in_pairs(text):
        missing = QueryError(
            field="words_text",
            expected="an index that has the words of Chinese, Japanese, Korean, Thai and other scripts without spaces",
            found="one made before gindex kept them",
            remedy="gindex compact makes them",
        )
        if not partly:
            raise missing
        logger.warning("words of the query: %s", str(missing).removeprefix("words_text: "))
    if where is not None:
        _check_fields(table, where)
    ranked = table.best(lambda file, most: _best_of(file, text, most, where, table.most_seconds), count)
    if not ranked and PLAIN_WORDS in table.versions:
        logger.warning(
            "words of the query: found none of them in an index made before gindex told words from Chinese, Japanese, "
            "Korean or Thai text beside them; gindex compact makes them new"
        )
    return ranked


def _best_of(file: TableFile, text: str, count: int, where: Filter | None, seconds: float | None) -> Ranked:
    """The documents of a table with the best scores for the words of a text: by the counts of those that are common."""
    phrases = plain_words_of(text) if file.version == PLAIN_WORDS else words_of(text)
    with file.asking(seconds) as connection:
        scores = WordScores(connection, phrases) if counts_common_words(connection) else None
    if scores is not None and scores.common:
        passing = None if where is None else _passing_documents(file, where, seconds)
        with file.asking(seconds):
            return scores.best(count, passing)
    statement = "SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ?"
    filtered = "" if where is None else f" AND rowid IN (SELECT ordinal FROM documents WHERE {where.sql})"
    parameters = (" OR ".join(phrases) or '""', *(() if where is None else where.parameters), count)
    return file.asked(f"{statement}{filtered} ORDER BY score DESC, rowid LIMIT ?", parameters, seconds)


def parts_of(table: DocumentTable, documents: Sequence[int]) -> dict[int, npt.NDArray[np.int64]]:
    """Return the part ordinals [N] of each document, by document ordinal, in the order asked."""
    statement = "SELECT document, ordinal FROM parts WHERE document IN (SELECT value FROM json_each(?))"
    parts: dict[int, list[int]] = {int(document): [] for document in documents}
    for document, ordinal in table.rows(f"{statement} ORDER BY ordinal", [json.dumps(list(parts))]):
        parts[document].append(ordinal)
    return {document: np.array(ordinals, np.int64) for document, ordinals in parts.items()}


def documents_of(table: DocumentTable, parts: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the document ordinal of each part [N]."""
    return np.array(table.documents_of(parts), np.int64)


def _check_fields(table: DocumentTable, where: Filter) -> None:
    for field in where.fields:
        if not is_known(table, field.names):
            raise filter_error(where.text, field.position, known_fields(table), field.name)


def is_known(table: DocumentTable, names: Names) -> bool:
    """Whether a document has a field of the metadata, null or not."""
    known = MetadataColumn(names).known
    statement = f"SELECT 1 FROM documents WHERE {known.text} LIMIT 1"
    indexed = [file.fields for file in table.files if file.fields is not None and names in file.fields.fields]
    others = (file for file in table.files if file.fields not in indexed)
    return any(index.knows(names) for index in indexed) or any(
        file.asked(statement, known.parameters, table.most_seconds) for file in others
    )


def known_fields(table: DocumentTable) -> str:
    """Return what a field is to be, for errors: fields of each table's first documents, by the names filters write."""
    names: set[str] = set()

    def collect(fields: dict[str, Any], before: str) -> None:
        for name, value in fields.items():
            names.add(before + written_name(name))
            if isinstance(value, dict) and value:
                collect(value, f"{before}{written_name(name)}.")

    for (metadata,) in table.rows("SELECT metadata FROM documents LIMIT 1000"):
        collect(json.loads(metadata), "")
    return f"a field of the documents ({', '.join(sorted(names)[:20]) or 'no fields'})"


def parts_of_id(table: DocumentTable, document_id: str) -> list[tuple[int, Objective]]:
    """Return ordinal and objective of every part of a document, in order.

    Raises:
        StoreError: There is no such document.
    """
    (document,) = table.ordinals([document_id]).values()
    ordinals = parts_of(table, [document])[document].tolist()
    return list(zip(ordinals, table.objectives(ordinals), strict=True))
