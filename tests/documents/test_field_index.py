"""Filters by the index of fields find what a scan of the table finds, and read the table no more than they must."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from filter_statements import statements
from filter_values import literals, near, texts, values
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.corpus.records import Document
from gindex.documents import field_index, field_index_writer
from gindex.documents.field_index import FieldIndex
from gindex.documents.field_index_writer import write_field_index
from gindex.documents.filters import field_names, parse_filter, written_name
from gindex.documents.selection import filtered_parts
from gindex.documents.table import DocumentTable
from gindex.documents.table_writer import add_document, add_part, new_table
from gindex.errors import CorruptStoreError, FilterError

FIRST, FIRST_PART = 3, 11
"""Ordinals of the first document and part: a table may be the second of an index."""


def fill(path: Path, metadata: list[dict[str, Any]]) -> None:
    """A document of each, of one part or two."""
    with new_table(path) as connection, connection:
        part = FIRST_PART
        for ordinal, content in enumerate(metadata, FIRST):
            add_document(connection, ordinal, Document(document_id=f"d{ordinal}", text="a b", metadata=content))
            for number in range(1 + ordinal % 2):
                add_part(connection, (part, ordinal, number, 0, 3, bytes(8), 2), None)
                part += 1


def opened(path: Path, *fields: str, check: Any = lambda: None) -> DocumentTable:
    """The table with an index of fields."""
    index = path.with_name("fields.sqlite")
    names = [field_names(field) for field in fields]
    assert None not in names
    write_field_index(path, index, names, FIRST)
    return DocumentTable.open(path, fields=[FieldIndex(index, check, FIRST, FIRST_PART)])


def quoted(value: Any) -> str:
    if isinstance(value, bool):
        return json.dumps(value)
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else repr(value)


@st.composite
def comparisons(draw, wanted):
    field = draw(st.sampled_from(["a", "b", "c.d", "id", written_name("it's `x`")]))
    value = draw(texts) if field == "id" else wanted
    value = value[:1000] if isinstance(value, str) else value
    if not isinstance(value, (str, bool)) and len(repr(value)) > 400:
        value = 1
    kinds = ["=", "!=", "in"] + (["is null", "contains"] if field != "id" else [])
    kinds += ["<", "<=", ">", ">="] * (not isinstance(value, bool)) + ["like"] * isinstance(value, str)
    kind = draw(st.sampled_from(kinds))
    if kind == "is null":
        return f"{field} is {draw(st.sampled_from(['', 'not ']))}null"
    if kind == "contains":
        return f"{quoted(value)} in {field}"
    if kind == "in":
        return f"{field} not in ({quoted(value)}, '1', 'b')" if draw(st.booleans()) else f"{field} in ({quoted(value)})"
    return f"{field} {kind} {quoted(value)}"


def combined(wanted):
    return st.recursive(
        comparisons(wanted),
        lambda inner: st.one_of(
            st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda three: f"({' '.join(three)})"),
            inner.map(lambda one: f"not ({one})"),
        ),
        max_leaves=6,
    )


@settings(max_examples=40, deadline=None)
@given(data=st.data(), wanted=literals)
def test_filters_by_index_find_what_a_scan_finds(tmp_path_factory, data, wanted):
    """Values of mixed types in one field, arrays, objects, nulls, integers of any size; three documents a block."""
    path = tmp_path_factory.mktemp("t") / "documents.sqlite"
    drawn = near(wanted)
    content = st.fixed_dictionaries(
        {},
        optional={
            "a": drawn,
            "b": drawn,
            "c": st.one_of(values, st.fixed_dictionaries({"d": drawn})),
            "it's `x`": drawn,
        },
    )
    everything = {"a": 1, "b": None, "c": {"d": []}, "it's `x`": {}}
    fill(path, [everything, *data.draw(st.lists(content, max_size=12))])
    indexed = data.draw(st.lists(st.sampled_from(["a", "b", "c.d", written_name("it's `x`")]), min_size=1, unique=True))
    with pytest.MonkeyPatch.context() as patched:
        for module in (field_index, field_index_writer):
            patched.setattr(module, "BLOCK", 3)
        with DocumentTable.open(path) as scanned, opened(path, *indexed) as table:
            for _ in range(12):
                where = parse_filter(data.draw(combined(wanted)))
                assert filtered_parts(table, where).tolist() == filtered_parts(scanned, where).tolist(), where.text


@pytest.fixture
def metadata():
    return [{"year": 1990 + n % 20, "lang": "de" if n % 3 else "en", "note": f"n{n}"} for n in range(400)]


def test_the_table_is_read_only_for_what_no_index_tells(tmp_path, metadata):
    path = tmp_path / "documents.sqlite"
    fill(path, metadata)
    with opened(path, "year", "lang") as table:
        for text in ("year = 1990", "year > 1999 and not lang = 'de'", "lang like 'D_' or year in (1, '1')"):
            assert statements(table, text) == []
        assert statements(table, "year = 1 and note = 'n2'")[1:] == []  # the field is known, and no document is left
        (_, statement) = statements(table, "year = 1990 and note != 'n2'")
        assert "ordinal IN" in statement
        (_, statement) = statements(table, "note = 'n2' or year = 1990")
        assert "ordinal IN" not in statement


def test_the_index_is_compared_and_the_table_is_not(tmp_path, metadata):
    fill(tmp_path / "documents.sqlite", metadata)
    compared: list[int] = []
    with opened(tmp_path / "documents.sqlite", "year", check=lambda: compared.append(1)) as table:
        filtered_parts(table, parse_filter("year = 1990"))
    assert compared


def test_a_field_that_no_document_has_is_refused(tmp_path, metadata):
    fill(tmp_path / "documents.sqlite", metadata)
    with opened(tmp_path / "documents.sqlite", "yaer", "lang") as table:
        with pytest.raises(FilterError, match="yaer"):
            filtered_parts(table, parse_filter("yaer = 1990"))
        assert len(filtered_parts(table, parse_filter("lang is null"))) == 0


def test_a_document_without_parts_is_damage(tmp_path):
    path = tmp_path / "documents.sqlite"
    with new_table(path) as connection, connection:
        add_document(connection, 0, Document(document_id="d", text="a", metadata={"a": 1}))
    with pytest.raises(CorruptStoreError, match="parts of 1 documents"):
        write_field_index(path, tmp_path / "fields.sqlite", [("a",)], 0)
    assert not (tmp_path / "fields.sqlite").exists()


def test_the_parts_are_those_of_the_documents(tmp_path, metadata):
    """Two blocks of documents, the last one of one."""
    fill(tmp_path / "documents.sqlite", metadata)
    with pytest.MonkeyPatch.context() as patched:
        for module in (field_index, field_index_writer):
            patched.setattr(module, "BLOCK", 399)
        with opened(tmp_path / "documents.sqlite", "note") as table:
            own = [FIRST_PART + n + (n + 1) // 2 for n in range(400)]
            assert filtered_parts(table, parse_filter("note = 'n399'")).tolist() == [own[399]]
            assert filtered_parts(table, parse_filter("note = 'n0'")).tolist() == [own[0], own[0] + 1]
            everything = filtered_parts(table, parse_filter("note is not null"))
            np.testing.assert_array_equal(everything, FIRST_PART + np.arange(600))
