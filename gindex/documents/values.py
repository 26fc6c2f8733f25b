"""The exact meaning of a filter's comparisons, and the functions that SQLite calls for them.

A comparison holds between two values of one type: text, number, or true and false. Integers are compared as they are,
of any size, floats as the 64-bit floats that JSON means; texts by their code points. An array has each of its elements
as a value. SQLite alone would end a text at a NUL, take true for 1, order any text after all numbers, and round
integers beyond 64 bits and some last digits; `comparisons` leaves to SQLite what it does right.
"""

import json
import operator
import re
import sqlite3
from collections.abc import Callable
from functools import lru_cache
from typing import Any

Value = str | bool | int | float

ORDERS: dict[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


def holds(value: Any, comparison: str, wanted: Value) -> bool:
    """Say whether a comparison holds for a value, or for an element of an array.

    Args:
        value: The document's value, as decoded from JSON.
        comparison: "=", "<", "<=", ">", ">=" or "like".
        wanted: The filter's value.
    """
    if isinstance(value, list):
        return any(_holds(element, comparison, wanted) for element in value)
    return _holds(value, comparison, wanted)


def forms(wanted: Value) -> list[str]:
    """Return the forms in which `json.dumps` writes the values that equal this one."""
    if isinstance(wanted, (str, bool)):
        return [json.dumps(wanted)]
    if wanted == 0:
        return ["0", "0.0", "-0.0"]
    own = [json.dumps(wanted)]
    if isinstance(wanted, float):
        return [*own, str(int(wanted))] if wanted.is_integer() else own
    try:
        same = float(wanted)
    except OverflowError:
        return own
    return [*own, json.dumps(same)] if same == wanted else own


def like(text: str, pattern: str) -> bool:
    """Say whether a text is like a pattern: % is any characters, _ one; ASCII letters have no case."""
    text, pieces = _folded(text), _folded(pattern).split("%")
    if len(pieces) == 1:
        return _piece(pieces[0]).fullmatch(text) is not None
    first, *middle, last = pieces
    if _piece(first).match(text) is None:
        return False
    position = len(first)
    for piece in middle:  # the leftmost place of each leaves most to those that follow
        match = _piece(piece).search(text, position)
        if match is None:
            return False
        position = match.end()
    end = len(text) - len(last)
    return end >= position and _piece(last).match(text, end) is not None


def register(connection: sqlite3.Connection) -> None:
    """Give a connection the functions that the statements of `comparisons` call."""
    connection.create_function("gindex_value", 2, _value, deterministic=True)
    connection.create_function("gindex_holds", 3, _stored_holds, deterministic=True)


def _holds(value: Any, comparison: str, wanted: Value) -> bool:
    if _kind(value) != _kind(wanted):
        return False
    if comparison == "=":
        return bool(value == wanted)
    if comparison == "like":
        return like(value, str(wanted))
    return ORDERS[comparison](value, wanted)


def _kind(value: Any) -> type:
    """Return one type for all numbers; bool is a subtype of int."""
    return int if isinstance(value, float) else type(value)


def _value(metadata: str, path: str) -> str | None:
    """Return the value at a path of metadata, an array of names and positions, as JSON; None where there is none."""
    value = json.loads(metadata)
    for step in json.loads(path):
        if not isinstance(value, list if isinstance(step, int) else dict):
            return None
        if isinstance(value, dict) and step not in value:
            return None
        value = value[step]
    return json.dumps(value)


def _stored_holds(stored: str | bytes, comparison: str, wanted: str) -> bool:
    """Compare a stored value, JSON or the bytes of a text, with a value in JSON."""
    value = stored.decode() if isinstance(stored, bytes) else json.loads(stored)
    return holds(value, comparison, _decoded(wanted))


@lru_cache(maxsize=256)
def _decoded(wanted: str) -> Value:
    value: Value = json.loads(wanted)
    return value


_UPPER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


def _folded(text: str) -> str:
    return text.translate(_UPPER)


@lru_cache(maxsize=256)
def _piece(piece: str) -> re.Pattern[str]:
    """Return the expression for a piece of a pattern that has no %."""
    return re.compile("".join("." if character == "_" else re.escape(character) for character in piece), re.DOTALL)
