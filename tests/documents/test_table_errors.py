"""Of a caller's statement SQLite's errors are the caller's, of a damaged file damage, of a shortage neither."""

import sqlite3

import pytest

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import CorruptStoreError, FilterError, StoreError
from gindex.progress import Silent


@pytest.fixture
def path(tmp_path, tokenizer):
    path = tmp_path / "documents.sqlite"
    found = (Document(document_id=f"d{n}", text="a b " * 50, metadata={"n": n}) for n in range(300))
    fill_table(path, found, DocumentEncoder(tokenizer, CorpusConfig(max_tokens=3)), Silent())
    return path


ASKED = {
    "pattern": ("SELECT id FROM documents WHERE id LIKE ?", ["a" * 50_001]),
    "depth": (f"SELECT {'NOT (' * 1500}1{')' * 1500}", []),
    "length": ("SELECT zeroblob(2000000000)", []),
    "parameters": (f"SELECT 1 WHERE 1 IN ({', '.join('?' * 300_000)})", [1] * 300_000),
    "number": ("SELECT ?", [2**70]),
    "text": ("SELECT ?", ["\ud800"]),
    "words": ("SELECT rowid, rank FROM words WHERE words MATCH ?", ['"']),
}


@pytest.mark.parametrize("kind", ASKED)
def test_what_is_asked_for_is_the_callers(path, kind):
    statement, parameters = ASKED[kind]
    with DocumentTable.open(path) as table:
        with pytest.raises(FilterError, match="expected what SQLite can look for"):
            table.rows(statement, parameters)
        assert table.rows("SELECT COUNT(*) FROM documents") == [(300,)]


def damaged_pages(path):
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def without_documents(path):
    connection = sqlite3.connect(path)
    connection.execute("DROP TABLE words")
    connection.execute("DROP TABLE documents")
    connection.commit()
    connection.close()


def without_metadata(path):
    connection = sqlite3.connect(path)
    connection.execute("UPDATE documents SET metadata = '{'")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("harm", [damaged_pages, without_documents, without_metadata])
def test_damage_is_damage_whatever_is_asked_for(path, harm):
    harm(path)
    with pytest.raises(CorruptStoreError), DocumentTable.open(path) as table:
        table.rows("SELECT json_extract(metadata, '$.n') FROM documents WHERE id LIKE ?", ["d%"])


@pytest.mark.parametrize("code", [sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_FULL])
def test_a_shortage_is_neither(path, code):
    """SQLite cannot open a file for sorting where the process has too many open."""
    from gindex.documents.schema import asked_errors

    error = sqlite3.OperationalError("unable to open database file")
    error.sqlite_errorcode = code
    with pytest.raises(StoreError) as caught, asked_errors(path):
        raise error
    assert not isinstance(caught.value, CorruptStoreError)
