"""The filter language: what it finds against plain Python, and what it refuses, with the position."""

import json
import sqlite3

import pytest

from gindex.corpus.filters import MAX_COMPARISONS, MAX_DEPTH, parse_filter
from gindex.errors import FilterError

DOCUMENTS = {
    "a": {"year": 1990, "author": "esr", "title": "It's a trap", "score": 1.5, "ok": True},
    "b": {"year": 2001, "author": "rms", "title": "100% sure", "deep": {"er": 3}},
    "c": {"year": 2001, "author": "ESR", "ok": False, "odd name": "x"},
    "d": {"title": "the_under", "year": "2001"},
    "e": {},
}


@pytest.fixture(scope="module")
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE documents(id TEXT, metadata TEXT)")
    connection.executemany("INSERT INTO documents VALUES (?, ?)", [(n, json.dumps(m)) for n, m in DOCUMENTS.items()])
    return connection


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("year = 2001", "bc"),
        ("year == 2001 and author = 'rms'", "b"),
        ("year != 2001", "ad"),  # a document without the field passes no comparison
        ("not year = 2001", "ade"),  # and every negation of one
        ("year <> 2001", "ad"),
        ("year < 2000", "a"),
        ("year >= 1990 and year <= 2001", "abc"),
        ("year > 1e3", "abcd"),  # SQLite orders any text after all numbers
        ("year = '2001'", "d"),
        ('score > 1.25 or author = "rms"', "ab"),
        ("author in ('esr', 'rms')", "ab"),
        ("author not in ('esr', 'rms')", "cde"),
        ("year in (1990, -5)", "a"),
        ("author like 'es_'", "ac"),
        ("title like '%a%'", "a"),
        ("title not like '%a%'", "bcde"),
        ("title = 'It''s a trap'", "a"),
        ('title = "It\'s a trap"', "a"),
        ("title is null", "ce"),
        ("title is not null", "abd"),
        ("ok = true", "a"),
        ("ok = false", "c"),
        ("deep.er = 3", "b"),
        ("`odd name` = 'x'", "c"),
        ("id = 'e'", "e"),
        ("id in ('a', 'e') and not author is null", "a"),
        ("not (year = 2001 or author = 'esr')", "de"),
        ("not not year = 2001", "bc"),
        ("AUTHOR = 'esr'", ""),
        ("author = 'esr' AND year = 1990 Or year = 2001 aNd NOT author = 'rms'", "ac"),
        ("year=2001and author='rms'", None),
        ("((year = 2001))", "bc"),
        (" \t\nyear = 2001\n ", "bc"),
        ("author = 'x'' OR 1=1 --'", ""),
        ("author = '); DROP TABLE documents; --'", ""),
    ],
)
def test_finds_what_plain_reading_says(connection, text, expected):
    if expected is None:
        with pytest.raises(FilterError):
            parse_filter(text)
        return
    where = parse_filter(text)
    found = connection.execute(f"SELECT id FROM documents WHERE {where.sql} ORDER BY id", where.parameters).fetchall()
    assert "".join(name for (name,) in found) == expected


def test_nothing_of_the_text_enters_the_statement():
    where = parse_filter("`we\\ird; --` = 'x; DROP' and author in ('y', \"z\") and n < 12345 and id like 'w'")
    assert set(where.sql) <= set("(COALESCEjson_extractmetadata, ?) =<INLIKEidAND0")
    assert where.parameters == ('$."we\\ird; --"', "x; DROP", '$."author"', "y", "z", '$."n"', 12345, "w")


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("", 1, "a field, 'not' or '('"),
        ("year", 5, "a comparison"),
        ("year = ", 8, "text in quotes, a number"),
        ("year = 'open", 8, "a field, a value"),
        ("year = 2001 author = 'x'", 13, "'and', 'or' or the end"),
        ("(year = 2001", 13, "')'"),
        ("year = 2001)", 12, "'and', 'or' or the end"),
        ("= 3", 1, "a field"),
        ("year = other", 8, "text in quotes"),
        ("year in ()", 10, "text in quotes"),
        ("year in (1,)", 12, "text in quotes"),
        ("year in 1", 9, "'('"),
        ("year like 3", 11, "text in quotes"),
        ("year not = 3", 10, "'like' or 'in'"),
        ("year is 3", 9, "'null'"),
        ("year = 2001; DROP TABLE documents", 12, "a field, a value"),
        ("and = 3", 1, "a field"),
        ("year = 12abc", 8, "a field, a value"),
        ("year = 3 -- x", 10, "a field, a value"),
        ('`a"b` = 3', 1, "without a double quote"),
        ("a = 'é' and ü! = 3", 14, "a field, a value"),
        ("x = '\ud800'", 6, "Unicode"),
    ],
)
def test_refusals_show_the_position(text, position, expected):
    with pytest.raises(FilterError, match=f"--where, position {position}: expected ") as raised:
        parse_filter(text)
    assert expected in str(raised.value)
    before = text[: position - 1].rstrip()
    assert str(raised.value).endswith(f" after {before!r}" if before else " at the beginning")


def test_refusals_show_the_end_of_what_stands_before():
    with pytest.raises(FilterError, match=r"found '!' after '\.\.\.9 and year >= 1990 and year >='$"):
        parse_filter("author = 'esr' and year < 2009 and year >= 1990 and year >= !")


def test_size_is_bounded(connection):
    many = " or ".join(["year = 1"] * MAX_COMPARISONS)
    where = parse_filter(many)
    connection.execute(f"SELECT id FROM documents WHERE {where.sql}", where.parameters).fetchall()
    with pytest.raises(FilterError, match=f"at most {MAX_COMPARISONS} comparisons"):
        parse_filter(f"{many} or year = 1")
    parse_filter("(" * (MAX_DEPTH - 1) + "year = 1" + ")" * (MAX_DEPTH - 1))
    for deep in ("(" * 10_000, "not " * 10_000):
        with pytest.raises(FilterError, match="nested terms"):
            parse_filter(deep)
    assert parse_filter(f"year = {'9' * 5000}").parameters[1] == float("inf")
