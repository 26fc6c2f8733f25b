"""Which documents have the common words of a table, and how often: what BM25 scores are computed from in one go.

FTS5 ranks every document that has a word, one by one; a word that nearly all of a million documents have takes a
second. The same from arrays takes milliseconds. A table of many documents has

    common_words(word, name, documents)           a word as the full-text index has it, and how many documents have it
    postings(word, block, documents, counts)      in each BLOCK of documents, counted from the table's first one: which
                                                  have it (uint16, NULL where counts are of all), and how often
    word_totals(block, documents, words, counts)  how many documents and words a block has, and the words of each

Counts of words in documents are uint8, or uint16 or uint32 where one is too large; those of a document's words uint32.
"""

import json
import re
import sqlite3
from array import array
from collections.abc import Iterator, Mapping
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from gindex.corpus.encoding import searched_text
from gindex.corpus.records import Document
from gindex.documents.schema import FORMS_VERSION, PLAIN_WORDS, version_of
from gindex.documents.words import indexed

COMMON = 4096
"""Documents that have a common word: FTS5 ranks fewer in a few milliseconds."""

BLOCK = 1 << 16
"""Documents that a row is of: as many as 16 bits tell apart."""

_LONGEST = 32_768
"""Bytes of a word that FTS5 keeps."""

_SCHEMA = (
    "CREATE TABLE common_words(word INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, documents INTEGER NOT NULL)",
    "CREATE TABLE postings(word INTEGER NOT NULL, block INTEGER NOT NULL, documents BLOB, counts BLOB NOT NULL)",
    "CREATE UNIQUE INDEX postings_of_words ON postings(word, block)",
    "CREATE TABLE word_totals("
    "block INTEGER PRIMARY KEY, documents INTEGER NOT NULL, words INTEGER NOT NULL, counts BLOB NOT NULL)",
)
_TABLES = ("common_words", "postings", "word_totals")
_WORD = re.compile(rb"[0-9a-z\x80-\xff]+")
"""What FTS5's tokenizer `ascii` takes for a word, in lower case."""

Posting = tuple[int, bytes | None, bytes]
"""A word, and a block's documents and counts."""


def counts_common_words(connection: sqlite3.Connection) -> bool:
    """Whether a table has the counts of its common words."""
    statement = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'common_words'"
    return connection.execute(statement).fetchone() is not None


def has_common_words(connection: sqlite3.Connection) -> bool:
    """Whether a table has the counts of its common words, or is too small to have any."""
    if version_of(connection) == PLAIN_WORDS or counts_common_words(connection):
        return True
    (documents,) = connection.execute("SELECT COUNT(*) FROM documents").fetchone()
    return bool(documents < COMMON)


def add_common_words(connection: sqlite3.Connection) -> None:
    """Write the common words of a table whose documents are all there; a small table stays as it is.

    Memory is bounded by a block of documents, and the common words.
    """
    if has_common_words(connection):
        return
    with connection:
        for statement in _SCHEMA:
            connection.execute(statement)
        connection.execute("CREATE VIRTUAL TABLE temp.vocabulary USING fts5vocab('main', 'words', 'row')")
        common = "SELECT term, doc FROM temp.vocabulary WHERE doc >= ?"
        found = [(number, *row) for number, row in enumerate(connection.execute(common, (COMMON,)))]
        connection.execute("DROP TABLE temp.vocabulary")
        connection.executemany("INSERT INTO common_words VALUES (?, ?, ?)", found)
    numbers = {name.encode(): number for number, name, _ in found}
    (first, count) = connection.execute("SELECT MIN(ordinal), COUNT(*) FROM documents").fetchone()
    for block in range(-(-count // BLOCK)):
        start = first + block * BLOCK
        with connection:
            _add_block(connection, numbers, block, range(start, start + BLOCK))


def are_common_words(copy: sqlite3.Connection) -> bool:
    """Whether a copy of a table, which is changed by this, has the counts of its common words, where it has any."""
    if not counts_common_words(copy):
        return True
    copy.execute("DROP INDEX postings_of_words")
    for name in _TABLES:
        copy.execute(f"ALTER TABLE {name} RENAME TO found_{name}")
    add_common_words(copy)
    pairs = ([f"SELECT * FROM {before}{name} ORDER BY 1, 2" for before in ("found_", "")] for name in _TABLES)
    return all(found == wanted for pair in pairs for found, wanted in zip_longest(*map(copy.execute, pair)))


def words_of_text(text: str) -> list[bytes]:
    """The words of a text in their order, as the full-text index has them."""
    return [word[:_LONGEST] for word in _WORD.findall(indexed(text).encode().lower())]


def _add_block(connection: sqlite3.Connection, numbers: Mapping[bytes, int], block: int, ordinals: range) -> None:
    sizes, of_each, words = array("I"), array("I"), array("I")
    for text in _texts(connection, ordinals):
        found = words_of_text(text)
        known = [number for word in found if (number := numbers.get(word)) is not None]
        sizes.append(len(found))
        of_each.append(len(known))
        words.extend(known)
    documents = np.repeat(np.arange(len(of_each)), np.array(of_each, np.int64))
    postings = _postings(np.array(words, np.int64), documents, len(sizes))
    connection.executemany(
        "INSERT INTO postings VALUES (?, ?, ?, ?)", ((word, block, *blobs) for word, *blobs in postings)
    )
    counts = np.array(sizes, "<u4")
    totals = (block, len(counts), int(counts.sum(dtype=np.int64)), counts.tobytes())
    connection.execute("INSERT INTO word_totals VALUES (?, ?, ?, ?)", totals)


def _postings(words: npt.NDArray[np.int64], documents: npt.NDArray[np.int64], size: int) -> Iterator[Posting]:
    """The postings of a block of so many documents, word by word, from the word and document of each occurrence."""
    pairs, counts = np.unique(words * BLOCK + documents, return_counts=True)
    of_words, starts = np.unique(pairs // BLOCK, return_index=True)
    stops = np.append(starts, len(pairs))[1:]
    for word, start, stop in zip(of_words.tolist(), starts, stops, strict=True):
        have, often = pairs[start:stop] % BLOCK, counts[start:stop]
        kind = np.min_scalar_type(often.max()).newbyteorder("<")
        if len(have) * (2 + kind.itemsize) < size * kind.itemsize:
            yield word, have.astype("<u2").tobytes(), often.astype(kind).tobytes()
            continue
        of_all = np.zeros(size, kind)
        of_all[have] = often
        yield word, None, of_all.tobytes()


def _texts(connection: sqlite3.Connection, ordinals: range) -> Iterator[str]:
    """What documents are found by, in the order of their ordinals."""
    form, join = "NULL, NULL", ""
    if version_of(connection) >= FORMS_VERSION:
        form, join = "c.form, c.content", "LEFT JOIN contents c ON c.document = d.ordinal"
    selected = f"SELECT d.text, {form} FROM documents d {join} WHERE d.ordinal >= ? AND d.ordinal < ?"
    bounds = (ordinals.start, ordinals.stop)
    for text, named, content in connection.execute(f"{selected} ORDER BY d.ordinal", bounds):
        if named is None:
            yield text
        else:
            document = Document(document_id="", text=text, metadata={}, form=named, content=json.loads(content))
            yield searched_text(document)
