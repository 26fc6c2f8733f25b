"""What SQLite answers for a filter is what the rule says, value by value, written anew here in plain Python."""

import json
import math
import sqlite3
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.documents import comparisons
from gindex.documents.comparisons import IdColumn, MetadataColumn, Sql
from gindex.documents.values import forms, holds, like, register

ORDERS = ("<", "<=", ">", ">=")

characters = st.sampled_from(
    ["a", "B", "b", "\0", "%", "_", '"', "\\", "é", "字", "\U0001f600", "u0000", "\\u0000", "\n"]
)
texts = st.lists(characters, max_size=5).map("".join)
integers = st.one_of(
    st.integers(-3, 3),
    st.sampled_from([2**53, 2**63, 2**64, 10**400]).flatmap(lambda n: st.integers(n - 2, n + 2)),
    st.sampled_from([2**53, 2**63, 2**64, 10**400]).flatmap(lambda n: st.integers(-n - 2, -n + 2)),
)
floats = st.floats(allow_nan=False, allow_infinity=False)
literals = st.one_of(texts, integers, floats, st.booleans())
plain = st.one_of(literals, st.none())
values = st.one_of(plain, st.lists(plain, max_size=3), st.lists(st.lists(plain)), st.dictionaries(texts, plain))


def near(wanted: Any) -> st.SearchStrategy[Any]:
    """Values of all kinds, half of them those that lie beside one: equal, and next to it."""
    beside: list[Any] = [wanted, [wanted], [None, wanted], {"a": wanted}, str(wanted), [str(wanted)]]
    if not isinstance(wanted, (str, bool)):
        beside += [wanted - 1, wanted + 1, [wanted + 1]]
        try:
            same = float(wanted)
        except OverflowError:
            same = math.inf
        if math.isfinite(same):
            around = [same, math.nextafter(same, math.inf), math.nextafter(same, -math.inf)]
            beside += [value for value in around if math.isfinite(value)] + [int(same), int(same) + 1, same == 1]
    return st.one_of(st.sampled_from(beside), values)


def rule(found: Any, comparison: str, wanted: Any) -> bool:
    if isinstance(found, list):
        return any(rule(item, comparison, wanted) for item in found if not isinstance(item, list))
    numbers = [isinstance(value, (int, float)) and not isinstance(value, bool) for value in (found, wanted)]
    if not (all(numbers) or type(found) is type(wanted)) or isinstance(found, dict) or found is None:
        return False
    if comparison == "like":
        return naive_like(lowered(found), lowered(wanted))
    return {
        "=": found == wanted, "<": found < wanted, "<=": found <= wanted, ">": found > wanted, ">=": found >= wanted
    }[comparison]  # fmt: skip


def lowered(text: str) -> str:
    return "".join(character.lower() if character.isascii() else character for character in text)


def naive_like(text: str, pattern: str) -> bool:
    if not pattern:
        return not text
    if pattern[0] == "%":
        return any(naive_like(text[start:], pattern[1:]) for start in range(len(text) + 1))
    return bool(text) and pattern[0] in ("_", text[0]) and naive_like(text[1:], pattern[1:])


@pytest.fixture(scope="module")
def connection() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    register(connection)
    return connection


def answer(connection: sqlite3.Connection, sql: Sql, metadata: dict[str, Any], document_id: str = "") -> Any:
    statement = f"SELECT {sql.text} FROM (SELECT ? AS metadata, ? AS id)"
    ((found,),) = connection.execute(statement, [*sql.parameters, json.dumps(metadata), document_id]).fetchall()
    return found


@pytest.mark.parametrize("arrow", [True, False])
@settings(max_examples=400, deadline=None)
@given(data=st.data(), name=texts, wanted=literals)
def test_sqlite_answers_by_the_rule(connection, arrow, data, name, wanted):
    """With the operator of newer versions of SQLite, and without."""
    if arrow and not comparisons.ARROW:
        pytest.skip("SQLite has no ->")
    found = data.draw(near(wanted))
    metadata = data.draw(st.sampled_from([{name: found}, {name: {name: found}}, {"other": found}, {}]))
    names = [name, name] if isinstance(metadata.get(name), dict) and metadata[name].keys() == {name} else [name]
    reached = metadata.get(name) if len(names) == 1 else metadata[name][name]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(comparisons, "ARROW", arrow)
        column = MetadataColumn(names)
        assert answer(connection, column.is_null(), metadata) == (reached is None)
        assert answer(connection, column.known, metadata) == (name in metadata)
        others = [*data.draw(st.lists(literals, max_size=12)), wanted]
        assert answer(connection, column.equals([wanted]), metadata) == rule(reached, "=", wanted)
        assert answer(connection, column.equals(others), metadata) == any(rule(reached, "=", one) for one in others)
        if not isinstance(wanted, bool):
            for comparison in ORDERS if not isinstance(wanted, str) else (*ORDERS, "like"):
                expected = rule(reached, comparison, wanted)
                assert answer(connection, column.has(comparison, wanted), metadata) == expected, comparison
                assert holds(reached, comparison, wanted) == expected


@settings(max_examples=400, deadline=None)
@given(document_id=texts, wanted=texts, others=st.lists(texts, max_size=12))
def test_sqlite_answers_for_ids_by_the_rule(connection, document_id, wanted, others):
    for one in (document_id, wanted):
        equal = answer(connection, IdColumn().equals([*others, one]), {}, document_id)
        assert equal == any(rule(document_id, "=", other) for other in [*others, one])
        for comparison in (*ORDERS, "like"):
            expected = rule(document_id, comparison, one)
            assert answer(connection, IdColumn().has(comparison, one), {}, document_id) == expected


@given(st.lists(floats, min_size=1))
def test_floats_beside_each_other_are_told_apart(connection, drawn):
    """What SQLite reads of 17 digits may be the float beside; no comparison may follow it."""
    column = MetadataColumn(["v"])
    for wanted in drawn:
        for found in (wanted, math.nextafter(wanted, math.inf), math.nextafter(wanted, -math.inf)):
            if math.isfinite(found):
                for comparison in ORDERS:
                    sql = column.has(comparison, wanted)
                    assert answer(connection, sql, {"v": found}) == rule(found, comparison, wanted)


@given(texts, texts)
def test_like_is_the_plain_reading_of_a_pattern(text, pattern):
    for patterns in (pattern, pattern.replace("a", "%"), pattern.replace("b", "_") + "%", "%" + pattern):
        assert like(text, patterns) == naive_like(lowered(text), lowered(patterns))


def test_like_takes_no_time_that_grows_with_the_number_of_wildcards():
    """Trying every place of every wildcard would not end."""
    assert not like("a" * 1000, "%a" * 400 + "b")
    assert like("a" * 1000 + "b", "%a" * 400 + "%b")


@given(literals)
def test_forms_are_how_equal_values_are_written(wanted):
    written = forms(wanted)
    assert json.dumps(wanted) in written and len(set(written)) == len(written)
    assert all(rule(json.loads(form), "=", wanted) for form in written)
