"""Filters that were asked before cost nothing, within a bound; ids are looked up and never scanned for."""

import sqlite3
from contextlib import closing

import numpy as np
import pytest
from filter_statements import statements

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.documents.filter_cache import FilterCache
from gindex.documents.filters import parse_filter
from gindex.documents.schema import connect
from gindex.documents.selection import filtered_parts
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import FilterError
from gindex.progress import Silent

IDS = ["plain", "it's", 'say "hi"', "%_", "ünd", "学习", " ", "a\nb", "\\", "d; DROP TABLE documents"]


@pytest.fixture
def path(tmp_path, tokenizer):
    documents = (Document(document_id=name, text="a b c d e", metadata={"n": n}) for n, name in enumerate(IDS))
    encoder = DocumentEncoder(tokenizer, CorpusConfig(max_tokens=3))
    fill_table(tmp_path / "documents.sqlite", documents, encoder, Silent())
    return tmp_path / "documents.sqlite"


def test_the_second_search_with_a_filter_asks_nothing(path):
    with DocumentTable.open(path) as table:
        assert statements(table, "n > 2") and not statements(table, "n > 2")
        assert statements(table, "n > 3")
        with pytest.raises(ValueError, match="read-only"):
            filtered_parts(table, parse_filter("n > 2"))[0] = 0


def test_errors_are_not_kept(path):
    with DocumentTable.open(path) as table:
        for _ in range(2):
            with pytest.raises(FilterError, match="no_such_field"):
                filtered_parts(table, parse_filter("no_such_field = 1"))


def test_parts_are_those_of_the_documents_that_pass(path):
    with closing(sqlite3.connect(path)) as plain, DocumentTable.open(path) as table:
        for n, name in enumerate(IDS):
            own = [part for (part,) in plain.execute("SELECT ordinal FROM parts WHERE document = ?", (n,))]
            assert len(own) > 1
            quoted = name.replace("'", "''")
            for text in (f"id = '{quoted}'", f"id in ('none', '{quoted}')", f"n = {n}"):
                assert filtered_parts(table, parse_filter(text)).tolist() == own
        everything = [part for (part,) in plain.execute("SELECT ordinal FROM parts ORDER BY ordinal")]
        assert filtered_parts(table, parse_filter("id in ('plain') or n >= 0")).tolist() == everything


@pytest.mark.parametrize("text", ["id = 'plain'", "id in ('plain', ' ')", "id > 'x'", "id = 'plain' and n = 0"])
def test_ids_are_looked_up_by_index(path, text):
    with DocumentTable.open(path) as table, closing(connect(path)) as connection:
        ran = next(told for told in statements(table, text) if "p.ordinal" in told)
        plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {ran}")]
    assert any(step.startswith("SEARCH d USING") and "(id" in step for step in plan)
    assert not {"SCAN d", "SCAN p"} & set(plan)


def test_what_was_used_last_is_kept_within_the_bound():
    cache, asked = FilterCache(most_bytes=100), []

    def get(where: str, count: int = 5) -> int:
        def find() -> np.ndarray:
            asked.append(where)
            return np.zeros(count, np.int64)

        return len(cache.get(where, find))

    for where in ("a", "b", "a", "c", "a", "b"):  # 41 bytes each: two have room
        assert get(where) == 5
    assert asked == ["a", "b", "c", "b"]
    assert get("large", 1000) == 1000 == get("large", 1000) and asked[-2:] == ["large", "large"]
    assert get("b") == 5
