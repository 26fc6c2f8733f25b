"""Scores from the counts of common words are those of FTS5, whose formula they follow."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.corpus.records import Document
from gindex.documents import common_words, word_scores
from gindex.documents.common_words import are_common_words, words_of_text
from gindex.documents.filters import parse_filter
from gindex.documents.schema import FULL_TEXT, connect
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import add_document, add_part, new_table
from gindex.documents.words import indexed, words_of

FIRST = 5
TOLERANCE = 1e-12
"""Of a score: sums of the same terms in another order."""

WORDS = [
    "a",
    "the",
    "stack",
    "Heap",
    "naïve",
    "STRASSE",
    "get_item",
    "学习",
    "机器学习",
    "字",
    "x\0y",
    "ﬁ",
    "İ",
    "don't",
]
texts = st.lists(st.sampled_from([*WORDS, "a", "the", "the"]), max_size=12).map(" ".join)


@pytest.fixture(scope="module")
def small():
    """A word is common that two documents have; three documents are a block."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(common_words, "COMMON", 2)
        for module in (common_words, word_scores):
            patched.setattr(module, "BLOCK", 3)
        yield


def fill(path: Path, given: list[Document]) -> None:
    with new_table(path) as connection, connection:
        for ordinal, document in enumerate(given, FIRST):
            add_document(connection, ordinal, document)
            add_part(connection, (ordinal, ordinal, 0, 0, 1, bytes(4), 1), None)


def plain(given: list[str]) -> list[Document]:
    return [Document(document_id=f"d{n}", text=text, metadata={"n": n}) for n, text in enumerate(given)]


def by_fts(path: Path, query: str, count: int, condition: str = "1") -> list[tuple[int, float]]:
    """Reference: SQLite's own ranking of all words together."""
    statement = f"""SELECT rowid, -bm25(words) AS score FROM words WHERE words MATCH ? AND rowid IN
        (SELECT ordinal FROM documents WHERE {condition}) ORDER BY score DESC, rowid LIMIT {count}"""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement, (" OR ".join(words_of(query)) or '""',)).fetchall()


def assert_same(found: list[tuple[int, float]], expected: list[tuple[int, float]]) -> None:
    scores = dict(expected)
    assert {document for document, _ in found} == scores.keys()
    assert [score for _, score in found] == pytest.approx([score for _, score in expected], rel=TOLERANCE)
    assert [score for _, score in found] == pytest.approx([scores[document] for document, _ in found], rel=TOLERANCE)


@settings(max_examples=60, deadline=None)
@given(given=st.lists(texts, min_size=1, max_size=9), queries=st.lists(texts.filter(str.strip), min_size=4, max_size=4))
def test_scores_are_those_of_fts5(tmp_path_factory, small, given, queries):
    """Common and rare words, phrases, beginnings of words, blocks in which no document has a word."""
    path = tmp_path_factory.mktemp("t") / "documents.sqlite"
    fill(path, plain(given))
    with DocumentTable.open(path) as table:
        for query in queries:
            assert_same(lexical_documents(table, query, 99), by_fts(path, query, 99))
            where = parse_filter("n >= 2 and n != 4")
            found = lexical_documents(table, query, 99, where if len(given) else None)
            assert_same(found, by_fts(path, query, 99, "metadata ->> 'n' >= 2 AND metadata ->> 'n' != 4"))


@settings(max_examples=200, deadline=None)
@given(st.one_of(st.text(max_size=30), texts))
def test_words_are_those_that_fts5_finds(text):
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f"CREATE VIRTUAL TABLE words USING {FULL_TEXT}")
        connection.execute("CREATE VIRTUAL TABLE found USING fts5vocab('words', 'instance')")
        try:
            connection.execute("INSERT INTO words(rowid, text) VALUES (1, ?)", (indexed(text),))
        except UnicodeEncodeError:
            return  # half a surrogate pair, which no document has
        expected = connection.execute("SELECT term FROM found ORDER BY offset").fetchall()
    assert [word.decode() for word in words_of_text(text)] == [word for (word,) in expected]


def test_counts_of_any_size_are_kept(tmp_path, small):
    given = plain(["a " * 300, "a " * 70_000 + "b", "a b", "c"])
    fill(tmp_path / "documents.sqlite", given)
    with DocumentTable.open(tmp_path / "documents.sqlite") as table:
        (file,) = table.files
        stored = file.connection.execute("SELECT LENGTH(counts) FROM postings").fetchall()
        assert (12,) in stored  # three documents, four bytes each
        assert_same(lexical_documents(table, "a b c", 9), by_fts(file.path, "a b c", 9))


def test_the_best_are_the_first_of_equal_ones(tmp_path, small):
    fill(tmp_path / "documents.sqlite", plain(["a b", "a c"] * 6 + ["a a"]))
    with DocumentTable.open(tmp_path / "documents.sqlite", deleted=[(FIRST, FIRST + 2)]) as table:
        assert [document for document, _ in lexical_documents(table, "a", 4)] == [FIRST + n for n in (12, 2, 3, 4)]


def test_conversations_are_found_by_what_is_said(tmp_path, small):
    said = [{"role": "user", "content": "the stack"}, {"role": "assistant", "content": "the heap"}]
    talk = Document(document_id="t", text="template stack", metadata={}, form="messages", content={"messages": said})
    fill(tmp_path / "documents.sqlite", [talk, *plain(["the stack", "heap"])])
    with DocumentTable.open(tmp_path / "documents.sqlite") as table:
        for query in ("the heap", "template", "stack"):
            assert_same(lexical_documents(table, query, 9), by_fts(tmp_path / "documents.sqlite", query, 9))


def test_a_table_without_counts_is_searched_and_made_new_by_compact(tmp_path, monkeypatch):
    monkeypatch.setattr(common_words, "COMMON", 3)
    fill(tmp_path / "documents.sqlite", plain(["the stack", "the heap"]))
    with DocumentTable.open(tmp_path / "documents.sqlite") as table:
        assert not table.is_old
        monkeypatch.setattr(common_words, "COMMON", 2)
        assert table.is_old and len(lexical_documents(table, "the", 9)) == 2


def test_scores_follow_the_formula(tmp_path, small):
    """By hand: three documents of 2, 2 and 1 words; two have `a`, one of them alone `b`."""
    fill(tmp_path / "documents.sqlite", plain(["a a", "a b", "c"]))
    with DocumentTable.open(tmp_path / "documents.sqlite") as table:
        found = dict(lexical_documents(table, "a b", 9))
    norm = 1.2 * (0.25 + 0.75 * 2 / (5 / 3))
    common, rare = 1e-6, np.log((3 - 1 + 0.5) / 1.5)
    expected = {FIRST: common * 2 * 2.2 / (2 + norm), FIRST + 1: (common + rare) * 2.2 / (1 + norm)}
    assert found == pytest.approx(expected, rel=TOLERANCE)


def test_counts_of_other_words_are_told(tmp_path, small):
    """What `gindex verify --deep` asks."""
    fill(tmp_path / "documents.sqlite", plain(["the stack", "the heap", "the the", "a"]))
    changes = ("UPDATE postings SET counts = x'ffffff'", "DELETE FROM common_words", "UPDATE word_totals SET words = 9")
    for change in ("SELECT 1", *changes):
        with closing(sqlite3.connect(":memory:")) as copy, closing(connect(tmp_path / "documents.sqlite")) as table:
            table.backup(copy)
            copy.execute(change)
            copy.commit()
            assert are_common_words(copy) == (change == "SELECT 1")
