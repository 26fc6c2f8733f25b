"""Columns of all parts are read once, without tokens, and are what plain reading says, of old tables too."""

import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gindex.corpus.objectives import Objective, WeightedTokens
from gindex.corpus.records import Document
from gindex.documents.columns import read_columns
from gindex.documents.losses import to_row, to_tokens
from gindex.documents.schema import PARTS_INDEX, connect, version_of
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import add_document, add_part, new_table

LENGTHS = ((3, 1), (2,), (5, 4, 1))


@pytest.fixture(params=["new", "old"])
def path(request, tmp_path) -> Path:
    """A table whose documents have several parts, some with losses of their own."""
    path, part = tmp_path / "documents.sqlite", 40
    with new_table(path) as connection, connection:
        for document, lengths in enumerate(LENGTHS, 7):
            add_document(connection, document, Document(document_id=f"d{document}", text="a", metadata={}))
            for number, length in enumerate(lengths):
                objective = counting(length, part)
                columns = (part, document, number, 0, 1, to_tokens(objective), length)
                add_part(connection, columns, to_row(objective))
                part += 1
    if request.param == "old":
        with closing(sqlite3.connect(path)) as connection, connection:
            connection.execute(f"DROP INDEX {PARTS_INDEX}")
            connection.execute("CREATE UNIQUE INDEX of_before ON parts(document, part)")
    return path


def counting(length: int, part: int) -> Objective:
    ids, weights = np.arange(length, dtype=np.uint32), np.ones(length, np.float32)
    weights[: 1 + part % 3] = 0
    return Objective((WeightedTokens(ids, weights),))


def test_columns_are_what_plain_reading_says(path):
    statement = (
        "SELECT document, token_count, COALESCE(targets, MAX(token_count - 1, 0)) FROM parts "
        "LEFT JOIN losses ON losses.part = parts.ordinal ORDER BY parts.ordinal"
    )
    with closing(sqlite3.connect(path)) as plain, DocumentTable.open(path) as table:
        rows = plain.execute(statement).fetchall()
        assert len({targets for _, length, targets in rows if length > 3}) > 1
        found = zip(table.part_documents(), table.part_lengths(), table.part_targets(), strict=True)
        assert list(found) == rows


def test_columns_are_read_once_and_stay_as_they_are(path):
    with DocumentTable.open(path) as table:
        assert table.part_lengths() is table.part_lengths() is table.columns.lengths_P
        with pytest.raises(ValueError, match="read-only"):
            table.part_documents()[0] = 1


def test_several_tables_are_one(path, tmp_path):
    with DocumentTable.open(path, path) as twice, DocumentTable.open(path) as once:
        assert twice.part_targets().tolist() == once.part_targets().tolist() * 2


def test_lengths_are_read_by_the_index_alone(path):
    with closing(connect(path)) as connection:
        told: list[str] = []
        connection.set_trace_callback(told.append)
        next(read_columns(connection, version_of(connection)))
        plans = [
            row[3]
            for row in connection.execute(f"EXPLAIN QUERY PLAN {next(ran for ran in told if 'token_count' in ran)}")
        ]
    with DocumentTable.open(path) as table:
        covering = f"SCAN parts USING COVERING INDEX {PARTS_INDEX}"
        assert plans == ([covering] if not table.is_old else ["SCAN parts USING INDEX of_before"])


def test_tables_without_the_index_are_old(path, request):
    with DocumentTable.open(path) as table:
        assert table.is_old == (request.node.callspec.params["path"] == "old")
