"""What docs/filters.md says of filters is so."""

import json
import re
import sqlite3
from pathlib import Path

import pytest

from gindex.documents import filters
from gindex.documents.values import register

PAGE = (Path(__file__).parents[2] / "docs" / "filters.md").read_text(encoding="utf-8")
(BLOCK,) = re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)
ROWS = re.findall(r"^\| (`+) ?(.+?) ?\1 \| ([a-d](?: [a-d])*) \|", PAGE, re.MULTILINE)


@pytest.mark.parametrize(("filter_text", "expected"), [(text, names) for _, text, names in ROWS])
def test_each_line_of_the_page_finds_what_it_says(filter_text, expected):
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE documents(id TEXT, metadata TEXT)")
    for document in map(json.loads, BLOCK.splitlines()):
        connection.execute("INSERT INTO documents VALUES (?, ?)", (document.pop("id"), json.dumps(document)))
    where = filters.parse_filter(filter_text)
    found = connection.execute(f"SELECT id FROM documents WHERE {where.sql} ORDER BY id", where.parameters)
    assert " ".join(name for (name,) in found) == expected


def test_every_line_of_the_tables_is_run():
    lines = [line for line in PAGE.splitlines() if line.startswith("| `")]
    assert len(ROWS) == len(lines) > 20


def test_the_grammar_is_that_of_the_module():
    """Line by line up to the values, which the page explains more closely."""
    indented = [line.strip() for line in str(filters.__doc__).splitlines() if line.startswith("    ")]
    rules = indented[1 : indented.index(next(line for line in indented if line.startswith("value ")))]
    assert len(rules) == 7 and all(rule in PAGE for rule in rules)


def test_the_limits_are_those_of_the_module():
    for limit in (
        "MAX_CHARACTERS",
        "MAX_COMPARISONS",
        "MAX_VALUES",
        "MAX_DEPTH",
        "MAX_TEXT",
        "MAX_PATTERN",
        "MAX_NUMBER",
    ):
        assert f"{getattr(filters, limit):,} " in PAGE, limit
