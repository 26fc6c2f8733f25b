"""Checksums of rows: every change of a value is found, and so are rows in another's place."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.documents.checksums import Guard, RowChecksums, row_checksum, write_row_checksums
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import CorruptStoreError
from gindex.progress import Silent
from tests.support.objectives import ids_of

DOCUMENTS = [Document(document_id=f"d{n}", text=f"word {n} ünd", metadata={"n": n}) for n in range(3)]


@pytest.fixture
def table(tmp_path, tokenizer) -> Path:
    path = tmp_path / "documents.sqlite"
    config = CorpusConfig(max_tokens=4)
    fill_table(path, iter(DOCUMENTS), DocumentEncoder(tokenizer, config), Silent(), first_document=5, first_part=7)
    write_row_checksums(path, tmp_path / "documents.crc32c")
    return path


def opened(table: Path, parts: int) -> DocumentTable:
    def whole() -> None:
        raise CorruptStoreError("whole")

    def rows() -> RowChecksums:
        path = table.with_suffix(".crc32c")
        return RowChecksums(path, table, range(5, 8), range(7, 7 + parts))

    guard = Guard(whole=whole, rows=rows, documents=range(5, 8), parts=range(7, 7 + parts))
    return DocumentTable.open(table, guards=[guard])


def count(table: Path) -> int:
    with closing(sqlite3.connect(table)) as connection:
        return int(connection.execute("SELECT COUNT(*) FROM parts").fetchone()[0])


def test_rows_by_ordinal_need_no_look_at_the_whole(table):
    parts = count(table)
    ordinals = list(range(7, 7 + parts))
    with opened(table, parts) as some, DocumentTable.open(table) as plain:
        assert some.parts(ordinals) == plain.parts(ordinals)
        assert [ids_of(t).tolist() for t in some.objectives(ordinals)] == [
            ids_of(t).tolist() for t in plain.objectives(ordinals)
        ]
        assert some.documents_of(ordinals) == plain.documents_of(ordinals)
        assert some.known(["d0", "d1", "none"]) == plain.known(["d0", "d1"]) == {"d0": 5, "d1": 6}
        assert some.extents([7, 5]) == plain.extents([5, 7]) and len(some.extents([5, 6, 7])) == 3
        for act in (
            some.counts, some.part_lengths, some.part_documents, some.compare, lambda: list(some.document_ids()),
            lambda: some.document("d1"), lambda: some.ordinals(["none"]),
            lambda: some.rows("SELECT 1"), lambda: lexical_documents(some, "a", 1),
        ):  # fmt: skip
            with pytest.raises(CorruptStoreError, match=r"^whole$"):
                act()


@pytest.mark.parametrize(
    "change",
    [
        "documents SET text = text || ' '", "documents SET id = 'e' || id", "documents SET metadata = '{\"n\": 9}'",
        "documents SET text = CAST(text AS BLOB)", "documents SET text = (SELECT text FROM documents LIMIT 1)",
        "parts SET start = start + 1", 'parts SET "end" = "end" - 1', "parts SET token_count = token_count + 1",
        "parts SET tokens = x'07000000'", "parts SET tokens = CAST('a' AS TEXT)", "parts SET part = part + 1",
        "parts SET document = 6, part = part + 5 WHERE document = 7",
    ],
)  # fmt: skip
def test_every_changed_value_is_found(table, change):
    parts = count(table)
    with closing(sqlite3.connect(table)) as connection, connection:
        connection.execute(f"UPDATE OR IGNORE {change}")
        assert connection.total_changes
    found = 0
    with opened(table, parts) as some:
        for ordinal in range(7, 7 + parts):
            try:
                some.parts([ordinal])
            except CorruptStoreError as error:
                found += 1
                assert str(table) in str(error)
    assert found > 0


def test_values_do_not_run_into_each_other():
    rows = [(1, "ab", "c"), (1, "a", "bc"), (1, "abc", ""), (1, b"ab", "c"), ("1", "ab", "c"), (1, None, "c"), (1,)]
    assert len({row_checksum(row) for row in rows}) == len(rows)


def test_file_of_another_table(table, tmp_path):
    path = tmp_path / "documents.crc32c"
    with pytest.raises(CorruptStoreError, match=r"documents.crc32c: expected the checksums of 9 rows, found"):
        RowChecksums(path, table, range(5, 8), range(7, 13))
