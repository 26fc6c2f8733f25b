"""The order of keys is that of values, and a range of keys holds the values that a comparison holds for."""

import json
import math
import sys

import pytest
from filter_values import integers, literals, near, rule, values
from hypothesis import given, settings
from hypothesis import strategies as st

from gindex.documents.field_keys import ABSENT, KNOWN, key_of, key_range, keys_of

numbers = st.one_of(integers, st.floats(allow_nan=False, allow_infinity=False), st.floats(-4, 4, width=16))


@settings(max_examples=1000, deadline=None)
@given(numbers, numbers)
def test_numbers_are_in_one_order_integers_and_floats_alike(first, second):
    assert (key_of(first) < key_of(second)) == (first < second)
    assert (key_of(first) == key_of(second)) == (first == second)


@pytest.mark.parametrize("value", [5e-324, sys.float_info.max, 2**53 + 1, -(10**4000), 0.1])
def test_numbers_beside_each_other_are_told_apart(value):
    beside = math.nextafter(value, 0) if isinstance(value, float) else value + 1
    for other in (beside, -value, value / 2 if isinstance(value, float) else value * 2):
        assert (key_of(value) < key_of(other)) == (value < other)
    assert key_of(-0.0) == key_of(0) and key_of(1) == key_of(1.0) != key_of(True)


@settings(max_examples=1000, deadline=None)
@given(data=st.data(), wanted=literals)
def test_ranges_hold_what_a_comparison_holds_for(data, wanted):
    """Reference: the rule in plain Python; comparisons of true and false have no order."""
    found = data.draw(near(wanted))
    (keys,) = keys_of(json.dumps({"a": {"b": found}}), [("a", "b")])
    for operator in ("=",) if isinstance(wanted, bool) else ("=", "<", "<=", ">", ">="):
        start, stop = key_range(operator, wanted)
        assert any(start <= key < stop for key in keys) == rule(found, operator, wanted), operator


@given(values)
def test_fields_that_are_missing_or_null_have_keys_of_their_own(value):
    metadata = json.dumps({"a": value, "l": [{"b": 1}], "t": {"b": value}})
    for names, known in ((("a",), True), (("b",), False), (("l", "b"), False), (("t", "b"), True), (("a", "b"), None)):
        (keys,) = keys_of(metadata, [names])
        reached = value if known else None
        if known is None:
            known, reached = isinstance(value, dict) and "b" in value, value.get("b") if isinstance(value, dict) else 0
            reached = reached if known else None
        assert any(ABSENT[0] <= key < ABSENT[1] for key in keys) == (reached is None)
        assert any(KNOWN[0] <= key < KNOWN[1] for key in keys) == known
        assert len(keys) == 1 or isinstance(value, list)
