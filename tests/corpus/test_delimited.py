"""CSV and TSV: every record whole, or refused by its line."""

import csv
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gindex.config import CorpusConfig
from gindex.corpus.readers import read_corpus
from gindex.corpus.records import Document
from gindex.errors import CorpusError

OTHER = ", or the fields of another form"


def read(path: Path) -> list[Document]:
    return list(read_corpus([str(path)], CorpusConfig()))


def error_of(path: Path) -> str:
    with pytest.raises(CorpusError) as caught:
        read(path)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("name", "delimiter"), [("c.csv", ","), ("c.tsv", "\t"), ("C.CSV", ",")])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_records(tmp_path, name, delimiter, end):
    path = tmp_path / name
    rows = [["id", "text", "year"], ["a", '"one" said,\the\nand\r\nmore', "1990"], ["b", " two ", ""]]
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        csv.writer(stream, delimiter=delimiter, lineterminator=end).writerows(rows)
    assert read(path) == [
        Document(document_id="a", text='"one" said,\the\nand\r\nmore', metadata={"year": "1990"}),
        Document(document_id="b", text=" two ", metadata={"year": ""}),
    ]


CELLS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), name=st.sampled_from(["c.csv", "c.tsv"]))
def test_what_is_written_is_read(tmp_path_factory, rows, name):
    path = tmp_path_factory.mktemp("csv") / name
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter="\t" if name == "c.tsv" else ",", quoting=csv.QUOTE_ALL)
        writer.writerow(["text", "a", "b"])
        writer.writerows([["one", *row] for row in rows])
    assert [(d.metadata["a"], d.metadata["b"]) for d in read(path)] == rows


def test_records_without_ids_are_numbered_and_blank_lines_are_none(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text('\ntext\none\n\n"two\n\nlines"\n')
    assert [(d.document_id, d.text) for d in read(path)] == [("c.csv:1", "one"), ("c.csv:2", "two\n\nlines")]


def test_long_fields(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("text\n" + "word " * 100_000)
    assert len(read(path)[0].text) == 500_000


@pytest.mark.parametrize(
    ("content", "line", "found"),
    [
        ("text,a\none,1\ntwo\n", 3, "expected 2 values, as the first line has names, found 1"),
        ('text,a\n"one\n\n",1\ntwo,2,3\n', 5, "expected 2 values, as the first line has names, found 3"),
        ("text,a,a\none,1,2\n", 1, "expected names of fields that differ, found 'a' twice"),
        ("text,,\none,1,2\n", 1, "expected names of fields that differ, found '' twice"),
        (
            "id,body\n1,one\n",
            2,
            f"expected the text field 'text'{OTHER}, found the fields 'body', 'id'",
        ),
        (
            "id;text\n1;one\n",
            2,
            f"expected the text field 'text'{OTHER}, found the fields 'id;text'",
        ),
        ('text\none\n"two\nthree\n', 3, "expected a record of CSV, found a malformed one (unexpected end of data)"),
        ('text\none\n"two" three\n', 3, "expected a record of CSV, found a malformed one ("),
        ("text\rone\rtwo\r", 1, "expected a record of CSV, found a malformed one (new-line character"),
        ("text,a\n,1\n", 2, "expected text, found an empty or blank one"),
    ],
)
def test_malformed(tmp_path, content, line, found):
    path = tmp_path / "c.csv"
    path.write_bytes(content.encode())
    assert f"{path}:{line}: {found}" in error_of(path)


def test_bytes_that_are_not_utf8(tmp_path):
    path = tmp_path / "c.csv"
    path.write_bytes(b"text\none\ncaf\xe9\n")
    assert f"{path}: expected UTF-8, found byte 0xe9 at byte offset 12" in error_of(path)


def test_a_header_alone_holds_no_document(tmp_path):
    path = tmp_path / "c.csv"
    path.write_text("id,text\n")
    assert "expected at least one document, found none" in error_of(path)
