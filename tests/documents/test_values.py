"""What SQLite answers for a filter is what the rule says, value by value, written anew here in plain Python."""

import json
import math
import sqlite3
from typing import Any

import pytest
from filter_values import ORDERS, floats, literals, lowered, naive_like, near, rule, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.documents import comparisons
from gindex.documents.comparisons import IdColumn, MetadataColumn, Sql
from gindex.documents.values import forms, holds, like, register


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
