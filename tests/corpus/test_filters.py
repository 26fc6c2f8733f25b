"""The filter language: what it finds against plain reading, and what it refuses, with the position."""

import json
import sqlite3

import pytest

from gindex.documents.filters import (
    MAX_CHARACTERS,
    MAX_COMPARISONS,
    MAX_DEPTH,
    MAX_NUMBER,
    MAX_PATTERN,
    MAX_TEXT,
    MAX_VALUES,
    parse_filter,
    written_name,
)
from gindex.documents.values import register
from gindex.errors import FilterError

DOCUMENTS = {
    "a": {"year": 1990, "author": "esr", "title": "It's a trap", "score": 1.5, "ok": True},
    "b": {"year": 2001, "author": "rms", "title": "100% sure", "deep": {"er": 3}},
    "c": {"year": 2001, "author": "ESR", "ok": False, "odd name": "x"},
    "d": {"title": "the_under", "year": "2001"},
    "e": {},
}

NAMED = {
    "a": {"año": 1999, "भाषा": "हिन्दी", "ภาษา": 1, "年": 1, "نام": 1},
    "b": {"k\\": 1, 'k"q': {"x y": 2}, "": 5, "a`b": 3, "n\0l": 1, "\n": 1, "$.x": 1, "x[0]": 1},
    "c": {"a.b": 1, "and": 1, "id": "own", "true": 2},
    "d": {"a": {"b": 2, "": 1}, "3d": 1, "\U0001f600": 1, "a\u0301": 1},
}
"""Names that paths of JSON, keywords and scripts make hard."""

TYPED = {
    "a": {"v": 1990, "tags": ["x", "y"], "n": 2**63 - 1},
    "b": {"v": "n/a", "tags": "x", "n": 2**63},
    "c": {"v": True, "tags": [], "n": 2**64 - 1},
    "d": {"v": 1, "tags": [["x"], {"x": "x"}], "n": -(2**63)},
    "e": {"v": "1990", "tags": [1, True, "1", None], "n": 1234567890123456789},
    "f": {"v": None, "tags": None, "n": 10**400},
    "g": {"v": "a\0b", "tags": ["a\0b", 0.1], "n": 0.1},
    "h": {"v": "a", "tags": {"x": 1}, "n": -0.0},
    "i": {},
}


def connected(documents: dict[str, dict]) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    register(connection)
    connection.execute("CREATE TABLE documents(id TEXT, metadata TEXT)")
    connection.executemany("INSERT INTO documents VALUES (?, ?)", [(n, json.dumps(m)) for n, m in documents.items()])
    return connection


@pytest.fixture(scope="module")
def connection() -> sqlite3.Connection:
    return connected(DOCUMENTS)


def found(connection: sqlite3.Connection, text: str) -> str:
    where = parse_filter(text)
    rows = connection.execute(f"SELECT id FROM documents WHERE {where.sql} ORDER BY id", where.parameters)
    return "".join(name for (name,) in rows)


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
        ("year > 1e3", "abc"),  # d's is text
        ("year > '1'", "d"),
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
    assert found(connection, text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("año = 1999", "a"),
        ("भाषा = 'हिन्दी' and ภาษา = 1 and 年 = 1 and نام = 1", "a"),
        ("`año` > 1998.5", "a"),
        ("`k\\` = 1", "b"),
        ("k\\ = 1", None),
        ('`k"q`.`x y` = 2', "b"),
        ('`k"q`.`x y` >= 2 and `k"q` is not null', "b"),
        ('`k"q`.x = 2', ""),
        ("`` = 5", "b"),
        ("a.`` = 1", "d"),
        ("`a``b` in (2, 3)", "b"),
        ("`n\0l` = 1 and `\n` = 1 and `$.x` = 1 and `x[0]` = 1", "b"),
        ("`a.b` = 1", "c"),
        ("a.b = 2", "d"),
        ("`and` = 1 and `true` = 2", "c"),
        ("`id` = 'own' and id = 'c'", "c"),
        ("`3d` = 1 and \U0001f600 = 1 and a\u0301 = 1", "d"),
        ("\u00e1 = 1", ""),  # the same letter as one code point is another name
        ("a.b is null", "abc"),
    ],
)
def test_names_of_any_script_and_with_any_character(text, expected):
    if expected is None:
        with pytest.raises(FilterError):
            parse_filter(text)
    else:
        assert found(connected(NAMED), text) == expected


@pytest.mark.parametrize("documents", [DOCUMENTS, NAMED])
def test_names_are_written_so_that_they_are_read(documents):
    for document, metadata in documents.items():
        for name, value in metadata.items():
            if isinstance(value, (str, int, float)):
                literal = json.dumps(value) if not isinstance(value, str) else "'" + value.replace("'", "''") + "'"
                assert document in found(connected(documents), f"{written_name(name)} = {literal}")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("v >= 1", "ad"),  # neither text nor true
        ("v >= 1990", "a"),
        ("v <= 1990", "ad"),
        ("not v >= 1990", "bcdefghi"),
        ("v = 1", "d"),
        ("v = 1.0", "d"),
        ("v = true", "c"),
        ("v != true", "abdegh"),  # no other type is equal, and what is missing or null passes no comparison
        ("v in (1, true)", "cd"),
        ("v not in (1, true)", "abefghi"),
        ("v = '1990'", "e"),
        ("v > '0' and v < 'b'", "egh"),  # by code points
        ("v = 'a'", "h"),
        ("v = 'a\0b'", "g"),
        ("v > 'a'", "bg"),
        ("v like 'a'", "h"),
        ("v like 'A_B'", "g"),
        ("v like 'a\0%'", "g"),
        ("v like '%b'", "g"),
        ("tags = 'x'", "ab"),
        ("'x' in tags", "ab"),
        ("'x' not in tags", "cdefghi"),
        ("not 'x' in tags", "cdefghi"),
        ("tags != 'x'", "cdegh"),
        ("tags in ('y', 'q')", "a"),
        ("tags in ('1', 'q')", "e"),
        ("1 in tags", "e"),
        ("true in tags and '1' in tags", "e"),
        ("0.1 in tags", "g"),
        ("'a\0b' in tags", "g"),
        ("'a' in tags", ""),
        ("tags > 'x'", "a"),
        ("tags < 1", "g"),
        ("tags like 'Y'", "a"),
        ("tags is null", "fi"),
        ("'a' in id", "a"),
        ("n = 9223372036854775807", "a"),
        ("n = 9223372036854775808", "b"),
        ("n = 18446744073709551615", "c"),
        ("n > 9223372036854775807", "bcf"),
        ("n >= 9223372036854775808", "bcf"),
        ("n < 18446744073709551615 and n >= 9223372036854775807", "ab"),
        ("n <= -9223372036854775808", "d"),
        ("n = 1234567890123456789", "e"),
        ("n = 1234567890123456788", ""),
        ("n = 1234567890123456789.0", ""),  # a float, which lies beside it
        ("n < 1234567890123456790 and n > 1234567890123456788", "e"),
        (f"n > 1{'0' * 398}", "f"),
        ("n > 1.7976931348623157e308", "f"),
        ("n = 0 and n = -0.0 and n >= 0 and n <= 0.0", "h"),
        ("n = 0.1", "g"),
        ("n = 0.10000000000000001", "g"),  # the same float
        ("n < 0.10000000000000002 and n > 0.09999999999999999", "g"),
    ],
)
def test_types_are_compared_by_a_rule_and_exactly(text, expected):
    assert found(connected(TYPED), text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("id = 'd\0a'", "d\0a"),
        ("id = 'd'", "d"),
        ("id in ('d', 'q', '1', '2', '3', '4', '5', '6', '7', 'd\0a')", "dd\0a"),
        ("id > 'd'", "d\0a"),
        ("id like 'D'", "d"),
        ("id like 'd_a'", "d\0a"),
        ("id like '%\0%'", "d\0a"),
        ("id is null", ""),
        ("id != 'd'", "d\0a"),
        ("'d' in id", "d"),
    ],
)
def test_ids_are_texts(text, expected):
    assert found(connected({"d": {}, "d\0a": {}}), text) == expected


def test_an_id_is_looked_up_not_searched_for():
    connection = connected({})
    connection.execute("CREATE UNIQUE INDEX ids ON documents(id)")
    where = parse_filter("id = 'd' and year = 1")
    plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT id FROM documents WHERE {where.sql}", where.parameters)
    assert "USING INDEX ids" in plan.fetchone()[-1]


def test_nothing_of_the_text_enters_the_statement():
    texts = [
        "`we\\ird; --` = 'x; DROP' and author in ('y', \"z\") and n < 12345 and id like 'w' and q like 'q'",
        "`w` = 'xv' and `a` in ('y', \"z\") and `b`.`c` < 1.5 and id like 'o' and `k` like 'u'",
    ]
    first, second = (parse_filter(text) for text in texts)
    assert first.sql.replace("12345", "") != "" and "DROP" not in first.sql and "ird" not in first.sql
    assert {"x; DROP", "w", "q", 12345} <= {p.strip('"') if isinstance(p, str) else p for p in first.parameters}
    assert parse_filter(texts[0].replace("DROP", "DELETE").replace("ird", "ord")).sql == first.sql
    assert len(second.parameters) == second.sql.count("?")


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
        ("'x' = tags", 5, "'in'"),
        ("'x' in (1, 2)", 8, "a field"),
        ("year >= true", 9, "text in quotes or a number, which have an order"),
        ("id = 5", 6, "text in quotes, as ids are"),
        ("id in ('a', 5)", 13, "text in quotes, as ids are"),
        ("5 in id", 1, "text in quotes, as ids are"),
        ("year = null", 8, "text in quotes"),
        ("year < 1e400", 8, "a number that a 64-bit float holds"),
        ("a = 'é' and ü! = 3", 14, "a field, a value"),
        ("x = '\ud800'", 6, "Unicode"),
    ],
)
def test_refusals_show_the_position(text, position, expected):
    with pytest.raises(FilterError, match=f"where, position {position}: expected ") as raised:
        parse_filter(text)
    assert expected in str(raised.value)
    before = text[: position - 1].rstrip()
    assert str(raised.value).endswith(f" after {before!r}" if before else " at the beginning")


def test_refusals_show_the_end_of_what_stands_before():
    with pytest.raises(FilterError, match=r"found '!' after '\.\.\.9 and year >= 1990 and year >='$"):
        parse_filter("author = 'esr' and year < 2009 and year >= 1990 and year >= !")


COMPARISONS = ("year = 1", "year >= 1.5", "year < '1'", "year like '1'", "id like '1'", "'1' in year", "a.`` < 1")


def nested(comparison: str, depth: int) -> str:
    return f"({comparison} and {comparison} or not " * depth + comparison + ")" * depth


@pytest.mark.parametrize("comparison", COMPARISONS)
def test_what_is_parsed_is_taken_by_sqlite(connection, comparison):
    """However brackets are nested: eight of them at least, beside as many comparisons as may be given."""
    for depth in range(1, MAX_DEPTH // 2):
        try:
            found(connection, nested(comparison, depth))
        except FilterError as error:
            assert depth > 8 and "with fewer brackets" in str(error)
    found(connection, " or ".join([comparison] * (MAX_COMPARISONS - 17) + [nested(comparison, 8)]))


def test_size_is_bounded():
    many = " or ".join(["year = 1"] * MAX_COMPARISONS)
    with pytest.raises(FilterError, match=f"at most {MAX_COMPARISONS} comparisons"):
        parse_filter(f"{many} or year = 1")
    parse_filter("(" * (MAX_DEPTH - 1) + "year = 1" + ")" * (MAX_DEPTH - 1))
    for deep in ("(" * 10_000, "not " * 10_000):
        with pytest.raises(FilterError, match="nested terms"):
            parse_filter(deep)


@pytest.mark.parametrize(
    ("text", "largest", "expected"),
    [
        ("id like '{}'", MAX_PATTERN, "text of at most 1,000 characters, found 1,001"),
        ("year like '{}'", MAX_PATTERN, "text of at most 1,000 characters, found 1,001"),
        ("id = '{}'", MAX_TEXT, "text of at most 10,000 characters, found 10,001"),
        ("'{}' in year", MAX_TEXT, "text of at most 10,000 characters, found 10,001"),
        ("year < {}", MAX_NUMBER, "a number of at most 400 characters, found 401"),
        ("id in ('{}', 1)", MAX_CHARACTERS, "at most 1,000,000 characters, found 1,000,0"),
    ],
)
def test_what_sqlite_could_refuse_is_refused_here(connection, text, largest, expected):
    """A pattern of `_` takes four bytes a character at most, and SQLite takes the largest of each kind."""
    with pytest.raises(FilterError, match=expected):
        parse_filter(text.format("9" * (largest + 1)))
    if largest != MAX_CHARACTERS:
        assert found(connection, text.format("9" * largest)) in ("", "abc")


@pytest.mark.parametrize("field", ["id", "year", '`a"b`'])
def test_as_many_values_as_may_be_given(connection, field):
    values = [f"'{n}'" for n in range(MAX_VALUES - 1)]
    assert found(connection, f"{field} in ({', '.join(values)}, '\0')") == ("d" if field == "year" else "")
    with pytest.raises(FilterError, match="at most 20,000 values"):
        parse_filter(f"{field} in ({', '.join(values)}, 'a', 'b')")


@pytest.mark.parametrize(
    "text", ["1" * 900_000 + "x", "a" * 900_000 + "!", "'" * 900_001, "`" * 900_001, "é" * 900_000]
)
def test_no_text_takes_long_to_refuse(text):
    """Where a refusal took time that grows with the square, this test would not end."""
    with pytest.raises(FilterError):
        parse_filter(text)
    written_name(text)
