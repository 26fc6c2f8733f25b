"""The table keeps what went in, appears whole or not at all, and refuses what is not a table.

Stored content is checked with sqlite3 directly, past the code under test.
"""

import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gindex.config import CorpusConfig
from gindex.corpus.encoding import DocumentEncoder
from gindex.corpus.records import Document
from gindex.documents import table_writer as fill
from gindex.documents.part_records import PartRecord, TableCounts
from gindex.documents.selection import lexical_documents
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import fill_table
from gindex.errors import CorpusError, CorruptStoreError, FormatVersionError, StoreError, TokenizerError
from gindex.progress import Silent
from tests.support.objectives import ids_of

CONFIG = CorpusConfig(max_tokens=3)
TEXTS = ["a b", " one two  three a b ", "c a"]


def documents(texts: list[str] = TEXTS) -> list[Document]:
    return [Document(document_id=f"d{i}", text=text, metadata={"n": i, "ä": None}) for i, text in enumerate(texts)]


@pytest.fixture
def path(tmp_path: Path, tokenizer) -> Path:
    path = tmp_path / "documents.sqlite"
    fill_table(path, iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())
    return path


def files(path: Path) -> list[str]:
    return sorted(item.name for item in path.parent.iterdir())


def raw(path: Path, query: str) -> list[tuple]:
    connection = sqlite3.connect(path)
    try:
        found = connection.execute(query).fetchall()
        connection.commit()
        return found
    finally:
        connection.close()


# Filling


def test_stored_documents(path):
    *_, last = raw(path, "SELECT ordinal, id, text, metadata FROM documents ORDER BY ordinal")
    assert last == (2, "d2", "c a", '{"n": 2, "\\u00e4": null}')


def test_stored_parts(path):
    columns = 'ordinal, document, part, start, "end", tokens, token_count'
    assert raw(path, f"SELECT {columns} FROM parts ORDER BY ordinal") == [
        (0, 0, 0, 0, 3, np.array([2, 3], "<u4").tobytes(), 2),
        (1, 1, 0, 1, 15, np.array([7, 8, 9], "<u4").tobytes(), 3),
        (2, 1, 1, 16, 19, np.array([9, 2, 3], "<u4").tobytes(), 3),
        (3, 2, 0, 0, 3, np.array([4, 2], "<u4").tobytes(), 2),
    ]


def test_filling_leaves_a_single_file(path):
    assert files(path) == ["documents.sqlite"]
    assert raw(path, "PRAGMA journal_mode") == [("delete",)]
    assert raw(path, "PRAGMA application_id") == [(0x67696478,)]


@pytest.mark.parametrize("bound", ["_BATCH_DOCUMENTS", "_BATCH_CHARACTERS"])
def test_batches_do_not_change_the_file(path, tmp_path, tokenizer, monkeypatch, bound):
    monkeypatch.setattr(fill, bound, 1)
    other = tmp_path / "other.sqlite"
    fill_table(other, iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())
    for query in ("SELECT * FROM documents", "SELECT * FROM parts"):
        assert raw(path, query) == raw(other, query)


@pytest.mark.parametrize(("bound", "most"), [("_BATCH_DOCUMENTS", 2), ("_BATCH_CHARACTERS", 4)])
def test_only_one_batch_is_held(tmp_path, tokenizer, monkeypatch, bound, most):
    monkeypatch.setattr(fill, bound, most)
    tokenised, seen = 0, []

    def stream():
        for document in documents(["a b"] * 7):
            seen.append(tokenised)
            yield document

    encode = DocumentEncoder.encode

    def count(self, batch):
        nonlocal tokenised
        tokenised += len(batch)
        return encode(self, batch)

    monkeypatch.setattr(DocumentEncoder, "encode", count)
    fill_table(tmp_path / "t", stream(), DocumentEncoder(tokenizer, CONFIG), Silent())
    assert seen == [0, 0, 2, 2, 4, 4, 6]


def test_progress_counts_documents(tmp_path, tokenizer):
    class Counting(Silent):
        steps = 0

        def phase(self, name, total, unit):
            assert (total, unit) == (None, "documents")
            return self

        def __enter__(self):
            return self

        def __exit__(self, *exc_info):
            return None

        def advance(self, steps=1):
            self.steps += steps

    progress = Counting()
    fill_table(tmp_path / "t", iter(documents()), DocumentEncoder(tokenizer, CONFIG), progress)
    assert progress.steps == 3


def failing(texts: list[str], error: BaseException):
    yield from documents(texts)
    raise error


@pytest.mark.parametrize("error", [CorpusError("x"), KeyboardInterrupt(), ValueError("x")])
def test_failed_filling_leaves_nothing(tmp_path, tokenizer, monkeypatch, error):
    monkeypatch.setattr(fill, "_BATCH_DOCUMENTS", 1)
    with pytest.raises(type(error)):
        fill_table(tmp_path / "t", failing(["a", "b"], error), DocumentEncoder(tokenizer, CONFIG), Silent())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("batch", [1, 1000])
def test_duplicate_ids_name_both_documents(tmp_path, tokenizer, monkeypatch, batch):
    monkeypatch.setattr(fill, "_BATCH_DOCUMENTS", batch)
    repeated = [*documents(), Document(document_id="d1", text="e a", metadata={})]
    with pytest.raises(CorpusError, match=r"document 4: .* 'd1' again after document 2;"):
        fill_table(tmp_path / "t", iter(repeated), DocumentEncoder(tokenizer, CONFIG), Silent())
    assert list(tmp_path.iterdir()) == []


def test_document_without_tokens_is_named(tmp_path, tokenizer):
    with pytest.raises(CorpusError, match="'d1': expected at least one token"):
        fill_table(tmp_path / "t", iter(documents(["a", "\u2003"])), DocumentEncoder(tokenizer, CONFIG), Silent())
    assert list(tmp_path.iterdir()) == []


def test_no_documents(tmp_path, tokenizer):
    with pytest.raises(CorpusError, match="at least one document"):
        fill_table(tmp_path / "t", iter([]), DocumentEncoder(tokenizer, CONFIG), Silent())


def test_tokenizer_without_offsets(tmp_path):
    class Slow:
        is_fast = False

    with pytest.raises(TokenizerError):
        fill_table(tmp_path / "t", iter(documents()), DocumentEncoder(Slow(), CONFIG), Silent())
    assert list(tmp_path.iterdir()) == []


def test_folder_that_is_missing_is_made_or_reported(tmp_path, tokenizer):
    fill_table(tmp_path / "new" / "t", iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="expected to write"):
        fill_table(tmp_path / "file" / "t", iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())


def test_tables_are_read_as_one(path, tmp_path, tokenizer):
    """Ordinals follow on each other; deleted documents are not found by their ids or words, and their ids are free."""
    other = tmp_path / "other.sqlite"
    again = [
        Document(document_id="d1", text="a b c", metadata={}),
        Document(document_id="e", text="three three", metadata={}),
    ]
    fill_table(other, iter(again), DocumentEncoder(tokenizer, CONFIG), Silent(), first_document=3, first_part=4)
    with DocumentTable.open(path, other, deleted=[(1, 3)]) as table:
        assert table.counts() == TableCounts(documents=5, parts=6, tokens=sum(table.part_lengths()), longest_part=3)
        assert table.part_documents().tolist() == [0, 1, 1, 2, 3, 4]
        assert [part.document_id for part in table.parts([5, 0, 1, 4])] == ["e", "d0", "d1", "d1"]
        assert table.known(["d0", "d1", "e", "none"]) == {"d0": 0, "d1": 3, "e": 4}
        assert table.document("d1").text == "a b c"
        assert [(extent.document, extent.start, extent.stop) for extent in table.extents([3, 0])] == [
            (0, 0, 1),
            (3, 4, 5),
        ]
        assert [extent.tokens for extent in table.extents([0, 1])] == [
            sum(table.part_lengths()[start:stop]) for start, stop in ((0, 1), (1, 3))
        ]
        assert [document for document, _ in lexical_documents(table, "three", 9)] == [4]
        assert {document for document, _ in lexical_documents(table, 'a "quoted', 9)} == {
            0,
            2,
            3,
        }  # not d1 at 1
        assert len(lexical_documents(table, "a", 1)) == 1 and lexical_documents(table, "two", 9) == []


def test_words_are_those_of_the_texts(path):
    """SQLite's own check of the full-text index against the documents."""
    raw(path, "INSERT INTO words(words, rank) VALUES ('integrity-check', 1)")


KILLED = """
import os, signal, sqlite3, sys
from pathlib import Path
from gindex.config import CorpusConfig
from gindex.corpus import encoding
from gindex.corpus.records import Document
from gindex.corpus.tokens import Encoding
from gindex.documents import table_writer as fill
from gindex.progress import Silent

fill._BATCH_DOCUMENTS = 1
encoding.encode_texts = lambda tokenizer, texts: [Encoding([2, 3], [(0, 1), (2, 3)], 0, 0)] * len(texts)

def stream():
    for i in range(3):
        yield Document(document_id=f"old{i}", text="a b", metadata={})
    os.kill(os.getpid(), signal.SIGKILL)

fill.fill_table(Path(sys.argv[1]), stream(), encoding.DocumentEncoder(None, CorpusConfig()), Silent())
"""


def test_leftover_of_a_killed_run_is_removed(tmp_path, tokenizer):
    path = tmp_path / "t"
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)]).returncode == -9
    assert "t.partial" in files(path) and "t.partial-wal" in files(path) and "t" not in files(path)
    fill_table(path, iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())
    assert files(path) == ["t"]
    assert raw(path, "SELECT id FROM documents ORDER BY ordinal") == [("d0",), ("d1",), ("d2",)]


# Reading


def test_counts(path):
    with DocumentTable.open(path) as table:
        assert table.counts() == TableCounts(documents=3, parts=4, tokens=10, longest_part=3)


def test_part_lengths(path):
    with DocumentTable.open(path) as table:
        lengths = table.part_lengths()
    assert lengths.tolist() == [2, 3, 3, 2] and lengths.dtype == np.int64


def test_part_documents(path):
    with DocumentTable.open(path) as table:
        numbers = table.part_documents()
    assert numbers.tolist() == [0, 1, 1, 2] and numbers.dtype == np.int64


def test_tokens_in_the_order_asked(path):
    with DocumentTable.open(path) as table:
        found = [ids_of(part) for part in table.objectives(np.array([3, 0, 2, 0]))]
        assert table.objectives([]) == []
    assert [tokens.tolist() for tokens in found] == [[4, 2], [2, 3], [9, 2, 3], [2, 3]]
    assert all(tokens.dtype == np.uint32 for tokens in found)


def test_parts_in_the_order_asked(path):
    with DocumentTable.open(path) as table:
        later, first = table.parts([2, 0])
    assert later == PartRecord(
        ordinal=2, document_id="d1", part=1, text="a b", metadata={"n": 1, "ä": None}, token_count=3
    )
    assert (first.text, first.document_id) == ("a b", "d0")


def test_more_ordinals_than_one_statement_takes(tmp_path, tokenizer):
    path = tmp_path / "t"
    fill_table(path, iter(documents(["a b", "a b c"] * 700)), DocumentEncoder(tokenizer, CONFIG), Silent())
    order = np.random.default_rng(0).permutation(1400)
    with DocumentTable.open(path) as table:
        assert [part.ordinal for part in table.parts(order)] == order.tolist()
        assert [len(part) for part in table.objectives(order)] == [2 + int(i % 2) for i in order]


@pytest.mark.parametrize("ordinal", [4, -1])
def test_missing_part_is_an_error(path, ordinal):
    with DocumentTable.open(path) as table:
        for ask in (table.objectives, table.parts):
            with pytest.raises(CorruptStoreError, match=f"expected a part {ordinal}, found none"):
                ask([0, ordinal])


def test_document(path):
    with DocumentTable.open(path) as table:
        assert table.document("d1") == documents()[1]
        with pytest.raises(StoreError, match="found no 'nope'"):
            table.document("nope")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.lists(st.sampled_from(["a", "b", "é", "\U0001f600", "x\0y"]), min_size=2, max_size=9), min_size=1))
def test_texts_come_back_whole(tmp_path, tokenizer, word_lists):
    texts = [" ".join(words) for words in word_lists]
    path = tmp_path / "t"
    fill_table(path, iter(documents(texts)), DocumentEncoder(tokenizer, CONFIG), Silent())
    with DocumentTable.open(path) as table:
        assert [table.document(f"d{i}").text for i in range(len(texts))] == texts
        records = table.parts(range(table.counts().parts))
    for i, words in enumerate(word_lists):
        assert " ".join(record.text for record in records if record.document_id == f"d{i}").split(" ") == words


def test_readers_in_several_threads(path):
    with DocumentTable.open(path) as table, ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda i: ids_of(table.objectives([i % 4])[0]).tolist(), range(200)))
    assert results == [[[2, 3], [7, 8, 9], [9, 2, 3], [4, 2]][i % 4] for i in range(200)]


def test_path_with_characters_of_a_uri(tmp_path, tokenizer):
    path = tmp_path / "a?b#c %20.sqlite"
    fill_table(path, iter(documents()), DocumentEncoder(tokenizer, CONFIG), Silent())
    with DocumentTable.open(path) as table:
        assert table.counts().documents == 3


def test_locked_table_is_not_called_corrupt(path):
    holder = sqlite3.connect(path, isolation_level=None)
    with DocumentTable.open(path) as table:
        table.files[0].connection.execute("PRAGMA busy_timeout = 10")
        holder.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="locked") as caught:
            table.counts()
        assert not isinstance(caught.value, CorruptStoreError)
        holder.execute("ROLLBACK")
        holder.close()


# Files that are no table


def test_missing_file(tmp_path):
    with pytest.raises(CorruptStoreError, match="found no file"):
        DocumentTable.open(tmp_path / "t")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"not a database" * 100])
def test_file_that_is_no_table(tmp_path, content):
    path = tmp_path / "t"
    path.write_bytes(content)
    with pytest.raises(CorruptStoreError, match="expected a document table"):
        DocumentTable.open(path)
    assert path.read_bytes() == content


def test_database_of_another_program(tmp_path):
    raw(tmp_path / "t", "CREATE TABLE documents(id)")
    with pytest.raises(CorruptStoreError, match="application id"):
        DocumentTable.open(tmp_path / "t")


def test_table_of_a_newer_version(path):
    raw(path, "PRAGMA user_version = 6")
    with pytest.raises(FormatVersionError, match="version 5 or less, found 6"):
        DocumentTable.open(path)


def test_truncated_table(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(CorruptStoreError), DocumentTable.open(path) as table:
        table.parts(range(4))


@pytest.mark.parametrize(
    ("change", "match"),
    [("parts SET tokens = x'0000'", "8 bytes of tokens in part 0, found 2"), ("documents SET metadata = '{'", "JSON")],
)
def test_altered_entry(path, change, match):
    raw(path, f"UPDATE {change}")
    with DocumentTable.open(path) as table, pytest.raises(CorruptStoreError, match=match):
        table.objectives([0])
        table.parts([0])
